//! A dataplane that has done what it must not, that hangs, or that has ended: its cores are called out, the log says why,
//! with its registers and calls, its memory is scrubbed, and it is started again; the others never notice.
#![allow(unsafe_code, reason = "scrubs and fills the memory of a dataplane whose cores are out")]

use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};

use ix_kernel_core::addr::Virt;
use ix_kernel_core::paging;
use ix_kernel_core::vmx::exits::Exit as VmExit;
use ix_kernel_core::vmx::fields as f;
use ix_kernel_core::vmx::page::{Cause, Containment};
use ix_kernel_core::vmx::restart::Decision;

use super::dataplane::{Dataplane, State};
use super::instructions::{GuestRegisters, RBP, read};
use super::memory::{GuestTables, word};
use crate::crash;
use crate::exit::{Exit, exit};
use crate::mem::layout;
use crate::start::machine;
use crate::time;

/// Statuses with which a kernel ends that has crashed (`docs/boot.md`).
const AFRESH: u32 = Exit::Afresh as u32;
const CRASHED: [u32; 2] = [Exit::Panic as u32, Exit::Exception as u32];
/// Calls that a report shows.
const DEPTH: usize = 16;
const CR0_PG: u64 = 1 << 31;

/// Why a dataplane is stopped.
#[derive(Debug)]
pub enum Stop {
    /// It is started again.
    Misdeed {
        cause: Cause,
        /// What it is about: an address, a port, an MSR.
        detail: u64,
        text: String,
    },
    /// By itself, with this status.
    Ends { status: u32 },
}

/// Stops it, on its core `me`, which is out of the guest with the VMCS still current; `registers` are the guest's.
pub fn stop(d: &Dataplane, me: usize, why: Stop, registers: &GuestRegisters) {
    if !d.stop() {
        // Another core does it already.
        return;
    }
    d.devices.lock().uart.flush(&mut |line| d.line(line));
    let why = match why {
        Stop::Ends { status } if CRASHED.contains(&status) => Stop::Misdeed {
            cause: Cause::Ended,
            detail: u64::from(status),
            text: alloc::format!("its kernel has crashed (status {status})"),
        },
        why => why,
    };
    let again = match &why {
        Stop::Misdeed { cause, detail, text } => {
            report(d, me, *cause, *detail, text, registers);
            true
        }
        Stop::Ends { status: AFRESH } => {
            d.say(format_args!("asks to be started afresh"));
            true
        }
        Stop::Ends { status } => {
            d.status.store(*status, Ordering::Relaxed);
            false
        }
    };
    if let Err(core) = d.call_out(me) {
        d.say(format_args!("its core {core} (core {}) does not come out", d.cores[core]));
        return end(d, State::Down);
    }
    // What its card still does, it does to memory that is about to be somebody's again.
    d.functions.iter().for_each(crate::pci::Function::stop_dma);
    if !again {
        let status = d.status.load(Ordering::Relaxed);
        let means = Exit::from_status(status).map_or("unknown", Exit::text);
        log::info!("{}: ended with status {status}: {means}", d.name);
        return end(d, State::Ended);
    }
    let began = time::now_ns();
    // SAFETY: all its cores are out, and none enters before `run`.
    unsafe { d.memory.scrub() };
    if start(d).is_err() {
        return end(d, State::Down);
    }
    let took_us = (time::now_ns() - began) / 1000;
    log::info!(
        "{}: started again, life {}: {} MiB scrubbed, {took_us} us",
        d.name,
        d.page.lives(),
        d.memory.bytes() >> 20
    );
    super::moves::begins_again(d);
    d.run();
}

/// Fills scrubbed memory for the next life. `Err`: after saying why.
pub fn start(d: &Dataplane) -> Result<(), ()> {
    {
        let mut devices = d.devices.lock();
        devices.uart = ix_kernel_core::vmx::uart::Uart::new();
        devices.pci.reset();
        devices.cmos = 0;
    }
    match d.lives.lock().start(time::now_ns()) {
        Decision::Start { life } => d.page.set_lives(life),
        Decision::StayDown { lives } => {
            d.say(format_args!(
                "not started again: it has had {lives} lives, too many in a minute"
            ));
            return Err(());
        }
    }
    let archive = machine().archive;
    // SAFETY: no core of it runs: before its first life, or as in `stop`.
    let loaded = unsafe { d.memory.load(archive.as_ref(), &d.command_line, &d.apic_ids) };
    match loaded {
        Ok(start_info) => {
            d.start_info.store(start_info, Ordering::Relaxed);
            Ok(())
        }
        Err(_) => {
            d.say(format_args!("its memory is too small for kernel and archive"));
            Err(())
        }
    }
}

/// It is not going to run again; when none is left, nor is the machine.
fn end(d: &Dataplane, state: State) {
    static ENDED: AtomicBool = AtomicBool::new(false);
    d.leave(state);
    super::moves::goes_down(d);
    let all = super::dataplanes();
    let is_over = |d: &Dataplane| matches!(d.state(), State::Ended | State::Down);
    if !all.iter().all(is_over) || ENDED.swap(true, Ordering::AcqRel) {
        return;
    }
    super::report::exits();
    if all.iter().any(|d| d.state() == State::Down) {
        exit(Exit::Panic);
    }
    let statuses = all.iter().map(|d| d.status.load(Ordering::Relaxed));
    let worst = statuses.filter_map(Exit::from_status).find(|status| *status != Exit::Ok);
    exit(worst.unwrap_or(Exit::Ok))
}

fn report(d: &Dataplane, me: usize, cause: Cause, detail: u64, text: &str, r: &GuestRegisters) {
    let reason = read(f::EXIT_REASON) as u32;
    let c = Containment {
        cause,
        core: me as u32,
        exit: reason,
        qualification: read(f::EXIT_QUALIFICATION),
        detail,
        rip: read(f::GUEST_RIP),
        rsp: read(f::GUEST_RSP),
        cr3: read(f::GUEST_CR3),
        rflags: read(f::GUEST_RFLAGS),
        tsc: time::tsc(),
    };
    d.page.set_containment(c);
    d.say(format_args!(
        "contained in life {} on its core {me} (core {}): {}: {text} ({})",
        d.page.lives(),
        d.cores[me],
        cause.name(),
        VmExit(reason).name()
    ));
    let g = &r.general;
    d.say(format_args!(
        "rip {:#018x}  cs {:#06x}  rflags {:#010x}  cr0 {:#010x}  cr3 {:#x}  cr4 {:#x}",
        c.rip,
        read(f::GUEST_CS_SELECTOR),
        c.rflags,
        read(f::GUEST_CR0),
        c.cr3,
        read(f::GUEST_CR4)
    ));
    d.say(format_args!("rsp {:#018x}  cr2 {:#018x}", c.rsp, r.cr2));
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    for three in [[0, 3, 1], [2, 6, 7], [5, 8, 9], [10, 11, 12], [13, 14, 15]] {
        let [a, b, c] = three.map(|i| (NAMES[i], g[i]));
        d.say(format_args!(
            "{:3} {:#018x}  {:3} {:#018x}  {:3} {:#018x}",
            a.0, a.1, b.0, b.1, c.0, c.1
        ));
    }
    backtrace(d, c.rip, g[RBP], read(f::GUEST_CR0) & CR0_PG != 0, c.cr3);
}

/// The guest's calls, as far as its frame pointers make sense. Its kernel is this kernel: so are its symbols.
fn backtrace(d: &Dataplane, rip: u64, mut rbp: u64, has_paging: bool, cr3: u64) {
    frame(d, 0, rip, rip);
    if !has_paging {
        return;
    }
    let tables = GuestTables(&d.ept);
    let read = |at: u64| {
        let root = ix_kernel_core::addr::Phys(cr3 & 0x000F_FFFF_FFFF_F000);
        let page = paging::lookup(&tables, root, Virt(at)).filter(|_| at.is_multiple_of(8))?;
        word(&d.ept, page.pa.0 + (at - page.va.0))
    };
    for depth in 1..DEPTH {
        let (Some(next), Some(ret)) = (read(rbp), read(rbp.wrapping_add(8))) else { return };
        if !layout::is_text(ret) {
            return;
        }
        frame(d, depth, ret, ret - 1);
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}

fn frame(d: &Dataplane, depth: usize, address: u64, look_up: u64) {
    match crash::name_of(look_up) {
        Some((name, offset)) => {
            let offset = offset + (address - look_up);
            d.say(format_args!("#{depth:<2} {address:#018x} {name} +{offset:#x}"));
        }
        None => d.say(format_args!("#{depth:<2} {address:#018x}")),
    }
}
