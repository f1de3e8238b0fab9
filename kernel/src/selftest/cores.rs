//! Tests with several cores: halts and what ends them, NMIs at any moment, interrupts against the red zone.
#![allow(unsafe_code, reason = "interrupts on in the middle of a function, on purpose")]

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x86_64::instructions::interrupts;

use crate::cpu::percore;
use crate::{apic, crash, smp, time};

type Outcome = Result<(), String>;

static DONE: AtomicBool = AtomicBool::new(false);
static HALTED: AtomicU64 = AtomicU64::new(0);

/// What a core other than 0 does during a self-test.
pub fn other_core(core: usize, name: &str) -> ! {
    match name {
        "panic-other" if core == 3 => panic!("asked for by selftest=panic-other"),
        "wake" => halt_for_ever(),
        "nmi" if core == 1 => every_20_us(|| apic::nmi(0)),
        "redzone" if core == 1 => every_20_us(|| apic::wake(0)),
        _ => {}
    }
    crash::park()
}

fn halt_for_ever() -> ! {
    loop {
        HALTED.fetch_add(1, Ordering::SeqCst);
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

fn every_20_us(f: impl Fn()) {
    while !DONE.load(Ordering::Relaxed) {
        f();
        time::wait_ns(20_000);
    }
}

pub fn panic_other() -> Outcome {
    smp::release();
    time::wait_ns(5_000_000_000);
    Err("the other core's panic did not end the machine".into())
}

/// Waits at most `ms` until `ready`.
fn within(ms: u64, mut ready: impl FnMut() -> bool) -> bool {
    let until = time::now_ns() + ms * 1_000_000;
    while time::now_ns() < until {
        if ready() {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

pub fn wake(cores: usize) -> Outcome {
    smp::release();
    let peers = cores as u64 - 1;
    if !within(1000, || HALTED.load(Ordering::SeqCst) >= peers) {
        return Err("the other cores did not halt".into());
    }
    for core in 1..cores {
        for round in 0..100 {
            let before = percore::of(core).wakes.load(Ordering::Relaxed);
            apic::wake(core);
            if !within(500, || percore::of(core).wakes.load(Ordering::Relaxed) > before) {
                return Err(format!("IPI {round} did not wake core {core}"));
            }
        }
    }
    for want in [500_000u64, 2_000_000, 10_000_000] {
        let begin = time::now_ns();
        apic::arm_timer(want);
        interrupts::enable_and_hlt();
        interrupts::disable();
        let took = time::now_ns() - begin;
        // Late is the host's business; early is ours.
        if took < want * 9 / 10 || took > want + 500_000_000 {
            return Err(format!("a halt of {want} ns took {took} ns"));
        }
    }
    Ok(())
}

/// Runs the application while another core sends NMIs as fast as it can.
pub fn nmi() -> Outcome {
    smp::release();
    super::user::run(|| {
        DONE.store(true, Ordering::Relaxed);
        let n = percore::of(0).nmis.load(Ordering::Relaxed);
        log::info!("{n} NMIs during the run");
        if n < 20 { Err(format!("only {n} NMIs arrived")) } else { Ok(()) }
    })
}

/// A leaf function keeps words below its stack pointer while interrupts arrive; precompiled `core` does
/// so too (System V ABI, red zone).
pub fn red_zone() -> Outcome {
    smp::release();
    let before = percore::this().wakes.load(Ordering::Relaxed);
    let mut broken = 0u64;
    let interrupts = || percore::this().wakes.load(Ordering::Relaxed) - before;
    within(5000, || {
        broken += red_zone_round();
        interrupts() >= 1000
    });
    DONE.store(true, Ordering::Relaxed);
    let interrupted = interrupts();
    log::info!("{interrupted} interrupts, {broken} broken rounds");
    if interrupted < 50 {
        return Err(format!("only {interrupted} interrupts arrived"));
    }
    if broken > 0 { Err(format!("{broken} rounds found their red zone changed")) } else { Ok(()) }
}

#[inline(never)]
fn red_zone_round() -> u64 {
    let wrong: u64;
    // SAFETY: uses the red zone of a frame that has no other use for it (the asm declares no stack
    // use, and moves below it nowhere); interrupts are off again at its end.
    unsafe {
        core::arch::asm!(
            "sub rsp, 256", // below whatever the compiler itself keeps there
            "mov {v}, 0x5A5A5A5A5A5A5A5A",
            ".set i, 8",
            ".rept 16",
            "mov [rsp - i], {v}",
            ".set i, i + 8",
            ".endr",
            "sti",
            "mov {n}, 2000",
            "2:",
            "dec {n}",
            "jnz 2b",
            "cli",
            "xor {w}, {w}",
            ".set i, 8",
            ".rept 16",
            "mov {n}, [rsp - i]",
            "xor {n}, {v}",
            "or {w}, {n}",
            ".set i, i + 8",
            ".endr",
            "add rsp, 256",
            v = out(reg) _,
            n = out(reg) _,
            w = out(reg) wrong,
        );
    }
    u64::from(wrong != 0)
}
