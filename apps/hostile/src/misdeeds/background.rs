//! Background threads: started, waiting and waking where they must not, and more of them than there may be.
#![allow(unsafe_code, reason = "looks at registers of its own, to see that the kernel keeps them")]

use core::arch::asm;

use ix_abi::Status;
use ix_abi::call::Direct;
use ix_abi::layout::{
    EVENT_PAGE, HEAP_BASE, IMAGE_BASE, INFO_BASE, PAGE_BYTES, USER_END, context_base,
};

use super::check;
use crate::app::{App, Verdict};
use crate::raw::{self, direct, peek, poke};

const KERNEL: u64 = 0xFFFF_FFFF_8020_A000;
const DIRECT_MAP: u64 = 0xFFFF_8000_0010_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
/// Nothing is mapped there.
const NOWHERE: u64 = 0x6000_0000;
/// Stacks of the threads, with their blocks at the low ends.
const THREADS: u64 = HEAP_BASE + (8 << 20);
const ROOM: u64 = 32 << 10;
/// As many as there may be.
const MOST: u64 = 64;
/// Words of a block: what the thread is told, and how far it is.
const TOLD: u64 = 8;
const DONE: u64 = 16;
/// A word that threads wait for.
const GATE: u64 = HEAP_BASE + (7 << 20);
const PATIENCE_NS: u64 = 10_000_000_000;

type Body = extern "C" fn(u64, u64) -> !;

pub fn commit(app: &mut App, name: &str) -> Option<Verdict> {
    Some(match name {
        "thread-arguments" => arguments(app),
        "thread-entry-unmapped" => raw_start(app, NOWHERE, block(1)),
        "thread-stack-unmapped" => raw_start(app, at(count), NOWHERE),
        "thread-fault" => doomed(app, write_null),
        "thread-exit" => doomed(app, exit),
        "thread-many" => many(app),
        "thread-waits" => in_thread(app, waits),
        "thread-wake-storm" => wake_storm(app),
        "thread-denied" => denied(app),
        "thread-loop" => all_go_on(app, false),
        "thread-hold" => all_go_on(app, true),
        "thread-registers" => registers(app),
        "thread-block-unmapped" => block_unmapped(app),
        "thread-map" => busy(app, map_loop),
        "thread-log" => busy(app, log_loop),
        _ => return None,
    })
}

fn failed(result: u64, with: Status) -> bool {
    result == u64::from(with.0).wrapping_neg()
}

fn block(i: u64) -> u64 {
    THREADS + i * ROOM
}

fn at(body: Body) -> u64 {
    body as usize as u64
}

fn start(i: u64, body: Body, told: u64) -> u64 {
    for word in 0..8 {
        poke(block(i) + word * 8, 0);
    }
    poke(block(i) + TOLD, told);
    direct(Direct::Thread, at(body), block(i) + ROOM, block(i))
}

fn started(i: u64, body: Body, told: u64) -> Verdict {
    check((start(i, body, told) as i64) > 0, "no thread was started")
}

/// The kernel says so in its block, above the word that is the thread's own.
fn has_ended(i: u64) -> bool {
    peek(block(i)) >> 32 == 1
}

fn done(i: u64) -> u64 {
    peek(block(i) + DONE)
}

fn leave() -> ! {
    loop {
        direct(Direct::Leave, 0, 0, 0);
    }
}

/// Serves until something is so.
fn until(app: &mut App, what: &'static str, so: impl Fn() -> bool) -> Verdict {
    let deadline = raw::now_ns() + PATIENCE_NS;
    loop {
        let soon = raw::now_ns() + 1_000_000;
        while raw::now_ns() < soon {
            if so() {
                return Ok(());
            }
        }
        app.turn();
        check(raw::now_ns() < deadline, what)?;
    }
}

extern "C" fn count(block: u64, _: u64) -> ! {
    loop {
        poke(block + DONE, peek(block + DONE) + 1);
    }
}

extern "C" fn at_once(_: u64, _: u64) -> ! {
    leave()
}

/// Waits for the gate to open, any number of times; told 1: once.
extern "C" fn at_the_gate(block: u64, _: u64) -> ! {
    loop {
        let result = direct(Direct::Wait, GATE, 0, 60_000_000);
        poke(block + DONE, peek(block + DONE) + 1);
        if peek(block + TOLD) == 1 || (result != 0 && !failed(result, Status::Again)) {
            leave();
        }
    }
}

extern "C" fn write_null(_: u64, _: u64) -> ! {
    poke(0, 1);
    leave()
}

extern "C" fn exit(_: u64, _: u64) -> ! {
    direct(Direct::Exit, 7, 0, 0);
    leave()
}

extern "C" fn map_loop(_: u64, _: u64) -> ! {
    let page = HEAP_BASE + raw::info().heap_bytes;
    loop {
        if direct(Direct::Map, page, 4, 0) == 0 {
            poke(page, 1);
            direct(Direct::Unmap, page, 4, 0);
        }
    }
}

extern "C" fn log_loop(_: u64, _: u64) -> ! {
    loop {
        raw::log("hostile: line after line after line after line after line after line");
    }
}

fn arguments(app: &mut App) -> Verdict {
    let (entry, stack, own) = (at(at_once), block(1), block(0));
    let refused = |a, b, c, with| failed(direct(Direct::Thread, a, b, c), with);
    for entry in [0, USER_END, NOT_CANONICAL, KERNEL, DIRECT_MAP, u64::MAX] {
        check(refused(entry, stack, own, Status::Invalid), "an impossible entry was taken")?;
    }
    for stack in [0, 8, stack + 8, stack + 1, USER_END + 16, NOT_CANONICAL, KERNEL, !15] {
        check(refused(entry, stack, own, Status::Invalid), "an impossible stack was taken")?;
    }
    for own in [own + 4, own + 32, 1, u64::MAX] {
        check(refused(entry, stack, own, Status::Invalid), "a crooked block was taken")?;
    }
    let read_only = [IMAGE_BASE, INFO_BASE, context_base(0) + EVENT_PAGE];
    for own in [0, NOWHERE, NOT_CANONICAL, KERNEL, DIRECT_MAP].into_iter().chain(read_only) {
        check(refused(entry, stack, own, Status::Fault), "a block that is not ours was taken")?;
    }
    for (a, n, with) in
        [(1, 1, Status::Invalid), (GATE + 2, 1, Status::Invalid), (u64::MAX, 1, Status::Invalid)]
    {
        check(failed(direct(Direct::Wake, a, n, 0), with), "woke at a crooked address")?;
    }
    for a in [0, GATE, NOWHERE, KERNEL, NOT_CANONICAL] {
        check(direct(Direct::Wake, a, u64::MAX, 0) == 0, "woke somebody where nobody waits")?;
    }
    started(0, at_once, 0)?;
    until(app, "a thread that leaves at once does not end", || has_ended(0))
}

/// The threads that are started here end the application.
fn raw_start(app: &mut App, entry: u64, stack: u64) -> Verdict {
    poke(block(0), 0);
    check((direct(Direct::Thread, entry, stack, block(0)) as i64) > 0, "no thread was started")?;
    app.serve_for(2_000_000_000);
    Err("the thread lives")
}

fn doomed(app: &mut App, body: Body) -> Verdict {
    started(0, body, 0)?;
    app.serve_for(2_000_000_000);
    Err("the thread lives")
}

/// 10,000 at once are refused but for as many as there may be; 2,000 one after the other are not.
fn many(app: &mut App) -> Verdict {
    poke(GATE, 0);
    let mut made = 0;
    for i in 0..10_000 {
        let result = start(made.min(MOST), at_the_gate, 1);
        if failed(result, Status::Limit) {
            check(made == MOST, "fewer threads than the limit")?;
        } else {
            check((result as i64) > 0, "neither started nor refused for the limit")?;
            made += 1;
        }
        if i % 100 == 0 {
            app.turn();
        }
    }
    check(made == MOST, "more threads than the limit")?;
    poke(GATE, 1);
    until(app, "threads do not wake up", || {
        direct(Direct::Wake, GATE, u64::MAX, 0);
        (0..MOST).all(has_ended)
    })?;
    for _ in 0..2_000 {
        started(0, at_once, 0)?;
        until(app, "a thread that leaves at once does not end", || has_ended(0))?;
    }
    Ok(())
}

/// Starts a thread that says by a number what it found wrong; 1: nothing.
fn in_thread(app: &mut App, body: Body) -> Verdict {
    started(0, body, 0)?;
    until(app, "the thread does not end", || has_ended(0))?;
    match done(0) {
        1 => Ok(()),
        2 => Err("a crooked address, or a value of more than 32 bits, was waited for"),
        3 => Err("an address that is not ours was waited for"),
        4 => Err("another value was waited for"),
        5 => Err("a wait without time did not end at once"),
        6 => Err("a wait ended too early, or far too late"),
        7 => Err("a background thread entered"),
        _ => Err("the thread has a strange result"),
    }
}

extern "C" fn waits(block: u64, _: u64) -> ! {
    poke(block + DONE, waits_found());
    leave()
}

fn waits_found() -> u64 {
    let wait = |addr, value, us| direct(Direct::Wait, addr, value, us);
    poke(GATE, 5);
    for (addr, value) in [(GATE + 1, 5), (GATE + 2, 5), (u64::MAX, 5), (GATE, 1 << 32)] {
        if !failed(wait(addr, value, u64::MAX), Status::Invalid) {
            return 2;
        }
    }
    for addr in [0, NOWHERE, KERNEL, DIRECT_MAP, NOT_CANONICAL, !3] {
        if !failed(wait(addr, 0, u64::MAX), Status::Fault) {
            return 3;
        }
    }
    if !failed(wait(GATE, 4, u64::MAX), Status::Again) {
        return 4;
    }
    if !failed(wait(GATE, 5, 0), Status::TimedOut) {
        return 5;
    }
    let before = raw::now_ns();
    let result = wait(GATE, 5, 20_000);
    let took = raw::now_ns() - before;
    if !failed(result, Status::TimedOut) || !(20_000_000..2_000_000_000).contains(&took) {
        return 6;
    }
    1
}

/// Everybody waits, and is woken, as fast as a core can.
fn wake_storm(app: &mut App) -> Verdict {
    poke(GATE, 0);
    for i in 0..MOST {
        started(i, at_the_gate, 0)?;
    }
    let end = raw::now_ns() + 500_000_000;
    let mut woken = 0;
    while raw::now_ns() < end {
        for n in 0..50 {
            woken += direct(Direct::Wake, GATE, if n % 2 == 0 { u64::MAX } else { 1 }, 0);
        }
        app.turn();
    }
    check(woken > 0, "nobody was ever woken")?;
    until(app, "a thread is never woken", || {
        direct(Direct::Wake, GATE, u64::MAX, 0);
        (0..MOST).all(|i| done(i) > 0)
    })?;
    (0..MOST).for_each(|i| poke(block(i) + TOLD, 1));
    until(app, "a thread does not wake up", || {
        direct(Direct::Wake, GATE, u64::MAX, 0);
        (0..MOST).all(has_ended)
    })
}

extern "C" fn enters(block: u64, _: u64) -> ! {
    let denied = failed(direct(Direct::Enter, 0, 0, 0), Status::Denied);
    poke(block + DONE, if denied { 1 } else { 7 });
    leave()
}

fn denied(app: &mut App) -> Verdict {
    for call in [Direct::Wait, Direct::Leave] {
        check(failed(direct(call, GATE, 0, 1000), Status::Denied), "an elastic thread may wait")?;
    }
    in_thread(app, enters)
}

/// Eight that never return, one of which says that it must not be interrupted: each has its turns.
fn all_go_on(app: &mut App, hold: bool) -> Verdict {
    for i in 0..8 {
        started(i, count, 0)?;
    }
    if hold {
        poke(block(3), 1);
    }
    for _ in 0..3 {
        let before: [u64; 8] = core::array::from_fn(|i| done(i as u64));
        until(app, "a thread does not go on", || {
            before.iter().enumerate().all(|(i, before)| done(i as u64) > before + 1000)
        })?;
    }
    Ok(())
}

fn busy(app: &mut App, body: Body) -> Verdict {
    for i in 0..4 {
        started(i, body, 0)?;
    }
    app.serve_for(500_000_000);
    Ok(())
}

fn registers(app: &mut App) -> Verdict {
    for i in 0..3 {
        started(i, keeps_registers, i + 1)?;
    }
    until(app, "the threads do not end", || (0..3).all(has_ended))?;
    check((0..3).all(|i| done(i) == 0), "a register was not kept over a turn of another thread")
}

extern "C" fn keeps_registers(block: u64, _: u64) -> ! {
    let told = peek(block + TOLD);
    let wrong = (0..20).map(|round| changed(told * 100 + round)).sum();
    poke(block + DONE, wrong);
    leave()
}

/// Fills vector, x87 and general registers, lets several turns go by, and counts what has changed.
fn changed(mark: u64) -> u64 {
    let mut out = [0u64; 4];
    let mut x87 = 0u64;
    let mxcsr: u32 = 0x1F80 | (((mark as u32 / 100) & 3) << 13);
    let mut mxcsr_after = 0u32;
    // SAFETY: what is changed is declared; the arrays are large enough; MXCSR is put back.
    unsafe {
        asm!(
            "ldmxcsr [{mxcsr}]",
            "movq xmm0, {mark}", "movq xmm7, {mark}", "movq xmm15, {mark}",
            "mov r12, {mark}",
            "fninit",
            "fild qword ptr [{given}]",
            "mov r13d, 3000000",
            "2:",
            "dec r13d",
            "jnz 2b",
            "movq [{out}], xmm0", "movq [{out} + 8], xmm7", "movq [{out} + 16], xmm15",
            "mov [{out} + 24], r12",
            "fistp qword ptr [{x87}]",
            "stmxcsr [{after}]",
            "ldmxcsr [{default}]",
            mxcsr = in(reg) &raw const mxcsr,
            default = in(reg) &raw const DEFAULT,
            mark = in(reg) mark,
            given = in(reg) &raw const mark,
            out = in(reg) out.as_mut_ptr(),
            x87 = in(reg) &raw mut x87,
            after = in(reg) &raw mut mxcsr_after,
            out("r12") _, out("r13") _,
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    static DEFAULT: u32 = 0x1F80;
    let kept = out.iter().chain([&x87]).all(|word| *word == mark) && mxcsr_after & !0x3F == mxcsr;
    u64::from(!kept)
}

/// Its block goes away while it runs; when it leaves, there is nowhere to say so.
fn block_unmapped(app: &mut App) -> Verdict {
    let page = HEAP_BASE + raw::info().heap_bytes;
    check(direct(Direct::Map, page, 1, 0) == 0, "no page")?;
    poke(GATE, 0);
    poke(block(0) + TOLD, 1);
    poke(page + TOLD, 1);
    let result = direct(Direct::Thread, at(at_the_gate_of_another), block(1), page);
    check((result as i64) > 0, "no thread was started")?;
    until(app, "it does not start", || done(0) == 1)?;
    check(direct(Direct::Unmap, page, 1, 0) == 0, "unmap")?;
    const { assert!(PAGE_BYTES > ROOM) };
    poke(GATE, 1);
    let woken = core::cell::Cell::new(0);
    until(app, "it never waits", || {
        woken.set(woken.get() + direct(Direct::Wake, GATE, 1, 0));
        woken.get() > 0 || done(0) == 2
    })?;
    app.serve_for(50_000_000);
    // There is room for as many as before.
    many(app)
}

/// Its own block is elsewhere: it tells how far it is in that of thread 0.
extern "C" fn at_the_gate_of_another(_: u64, _: u64) -> ! {
    poke(block(0) + DONE, 1);
    direct(Direct::Wait, GATE, 0, 60_000_000);
    poke(block(0) + DONE, 2);
    leave()
}
