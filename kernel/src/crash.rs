//! The end after a bug of the kernel: one core reports registers, its number and a backtrace, the
//! others are stopped by NMI, the machine ends with a code of its own.
#![allow(unsafe_code, reason = "follows frame pointers on a possibly broken stack")]

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use ix_kernel_core::addr::{Phys, Virt};
use ix_kernel_core::paging;
use ix_kernel_core::symbols::Symbols;
use spin::Once;

use crate::cpu::percore;
use crate::cpu::trap::Frame;
use crate::exit::{Exit, exit};
use crate::mem::{self, layout};
use crate::{apic, console, control, watch};

static UNDER_WAY: AtomicBool = AtomicBool::new(false);
static SYMBOLS: Once<Symbols<'static>> = Once::new();
/// Longest backtrace.
const DEPTH: usize = 32;

/// Gives the symbol table, once the archive is known.
pub fn set_symbols(symbols: Symbols<'static>) {
    SYMBOLS.call_once(|| symbols);
}

pub fn under_way() -> bool {
    UNDER_WAY.load(Ordering::Relaxed)
}

/// Starts a report; a second crash, on whatever core, does not come back from here.
pub fn begin() {
    x86_64::instructions::interrupts::disable();
    if UNDER_WAY.swap(true, Ordering::SeqCst) {
        // A crash while reporting one (same core), or on another core at the same time: that core
        // waits for the first to end the machine, and ends it itself if that does not happen.
        for _ in 0..200_000_000u64 {
            core::hint::spin_loop();
        }
        exit(Exit::Panic);
    }
    apic::nmi_others();
    console::crash_begin();
    control::crashed();
    say(format_args!("crash on core {}", percore::id()));
}

/// Where a core stays that was stopped because another crashed.
pub fn park() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

pub fn say(args: fmt::Arguments<'_>) {
    console::crash_line(args);
}

pub fn end(why: Exit) -> ! {
    watch::crash::report();
    exit(why)
}

pub fn registers(f: &Frame) {
    say(format_args!(
        "rip {:#018x}  cs {:#06x}  rflags {:#010x}  error {:#x}",
        f.rip, f.cs, f.rflags, f.error
    ));
    say(format_args!("rsp {:#018x}  ss {:#06x}  rbp {:#018x}", f.rsp, f.ss, f.rbp));
    say(format_args!("rax {:#018x}  rbx {:#018x}  rcx {:#018x}", f.rax, f.rbx, f.rcx));
    say(format_args!("rdx {:#018x}  rsi {:#018x}  rdi {:#018x}", f.rdx, f.rsi, f.rdi));
    say(format_args!("r8  {:#018x}  r9  {:#018x}  r10 {:#018x}", f.r8, f.r9, f.r10));
    say(format_args!("r11 {:#018x}  r12 {:#018x}  r13 {:#018x}", f.r11, f.r12, f.r13));
    say(format_args!("r14 {:#018x}  r15 {:#018x}", f.r14, f.r15));
}

/// Prints the calls that led to `rip`, following frame pointers as far as they make sense.
pub fn backtrace(rip: u64, mut rbp: u64) {
    say_frame(0, rip, rip);
    for depth in 1..DEPTH {
        let (Some(next), Some(ret)) = (read_word(rbp), read_word(rbp.wrapping_add(8))) else {
            return;
        };
        if !layout::is_text(ret) {
            return;
        }
        // The call is before the return address: a call at a function's very end must not be
        // attributed to its neighbour.
        say_frame(depth, ret, ret - 1);
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}

/// The function that an address is in, and how far from its start.
pub fn name_of(address: u64) -> Option<(&'static str, u64)> {
    SYMBOLS.get().and_then(|s| s.find(address))
}

fn say_frame(depth: usize, address: u64, look_up: u64) {
    match name_of(look_up) {
        Some((name, offset)) => {
            let offset = offset + (address - look_up);
            say(format_args!("#{depth:<2} {address:#018x} {name} +{offset:#x}"));
        }
        None => say(format_args!("#{depth:<2} {address:#018x}")),
    }
}

/// A word of kernel memory, if it is mapped: the chain of a broken stack may point anywhere.
fn read_word(at: u64) -> Option<u64> {
    if !at.is_multiple_of(8) || at < layout::DIRECT_BASE || mem::root() == Phys(0) {
        return None;
    }
    paging::lookup(&mem::DirectTables, mem::root(), Virt(at))?;
    // SAFETY: mapped, aligned, in the kernel half; device registers are not reached by a chain that
    // stays above the stack it started from, and a read there would harm no more than the crash.
    Some(unsafe { (at as *const u64).read_volatile() })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack)) };
    begin();
    match info.location() {
        Some(at) => say(format_args!("panic at {at}: {}", info.message())),
        None => say(format_args!("panic: {}", info.message())),
    }
    let rip = read_word(rbp.wrapping_add(8)).unwrap_or(0);
    watch::crash::panicked(info, rip);
    backtrace(rip, read_word(rbp).unwrap_or(0));
    end(Exit::Panic)
}
