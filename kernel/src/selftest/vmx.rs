//! What a dataplane under the monitor must not do (`selftest=vmx-port,vmx-msr,…`): one misdeed in each life, in the order of
//! the list, and in the life after the last the dataplane does what it is for. Without the monitor there is nothing to test.
#![allow(unsafe_code, reason = "does what a dataplane must never do")]

use alloc::format;
use alloc::string::String;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use ix_kernel_core::addr::{LARGE_PAGE, Phys, align_up};
use x86_64::instructions::port::PortWriteOnly;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use crate::cpu::percore;
use crate::manager::lending;
use crate::mem::layout;
use crate::start::machine;
use crate::vmx::guest;
use crate::vmx::hints::{LEAF_BAR, LEAF_MONITOR, LEAF_NEIGHBOUR};
use crate::{apic, crash, mem, vmx};

type Outcome = Result<(), String>;

/// Of no core that there is.
const STRANGER: u32 = 0x1234;
const SECRET: u64 = 0x5345_4352_4554_2121;
const SECRET_AT: u64 = 0x1F_F000;
const TSC_MSR: u32 = 0x10;
/// The keyboard controller: this value would reset the machine.
const RESET: (u16, u8) = (0x64, 0xFE);

/// Whether the name is one of these.
pub fn is_mine(names: &str) -> bool {
    names.starts_with("vmx-")
}

/// This life's misdeed. `Ok`: it has none left to do, and serves.
pub fn run(names: &str) -> Outcome {
    let life = guest::life();
    if life == 0 {
        return Err("there is no monitor".into());
    }
    if life > 1 {
        look_for_secrets()?;
    }
    let Some(name) = names.split(',').nth(life as usize - 1) else { return Ok(()) };
    log::info!("selftest {name}: in life {life}");
    match name.trim_start_matches("vmx-") {
        "monitor-memory" => write_at(LEAF_MONITOR)?,
        "neighbour-memory" => write_at(LEAF_NEIGHBOUR)?,
        "bar" => write_at(LEAF_BAR)?,
        "msr" => write_msr(),
        "port" => write_port(),
        "secret" => leave_secrets(),
        "icr" => apic::send_init(STRANGER),
        "cr4" => write_cr4(),
        "triple" => triple_fault(),
        "hang" => hang(),
        "xsetbv" => set_xcr0(),
        "misconfiguration" => read_misconfigured()?,
        "entry" => {
            guest::call(vmx::SPOIL, vmx::SPOIL_ENTRY);
        }
        "panic" => panic!("asked for by selftest=vmx-panic"),
        // It serves, and then does not give a core, or fails when a core goes or comes.
        "deaf" => return later(Later::Deaf),
        "stubborn" => return later(Later::Stubborn),
        "lent" => return later(Later::Lent),
        "borrowed" => return later(Later::Borrowed),
        _ => crate::unsupported!("no misdeed is called {name}"),
    }
    Err(format!("{name} was not stopped"))
}

/// What a dataplane does while it serves.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Later {
    Nothing,
    Deaf,
    /// It does not even leave when its time is over.
    Stubborn,
    Lent,
    Borrowed,
}

static LATER: AtomicU8 = AtomicU8::new(Later::Nothing as u8);

fn later(what: Later) -> Outcome {
    if matches!(what, Later::Deaf | Later::Stubborn) {
        lending::be_deaf(what == Later::Stubborn);
    }
    LATER.store(what as u8, Ordering::Relaxed);
    Ok(())
}

/// Whether other cores have anything to do in this life.
fn serves() -> bool {
    LATER.load(Ordering::Relaxed) != Later::Nothing as u8
}

/// A core has gone, as the monitor has wished, or has come: the dataplane may have waited for that with its misdeed.
pub fn core_moved(is_here: bool) {
    let what = LATER.load(Ordering::Relaxed);
    if what == if is_here { Later::Borrowed as u8 } else { Later::Lent as u8 } {
        write_msr();
    }
}

/// Writes to memory that is somebody else's.
#[inline(never)]
fn write_at(leaf: u32) -> Outcome {
    let told = raw_cpuid::cpuid!(leaf);
    let at = u64::from(told.ebx) << 32 | u64::from(told.eax);
    if at == 0 {
        return Err("the monitor knows of nothing such here".into());
    }
    let va = mem::map_device(Phys(at & !7), 8).map_err(|e| format!("not mapped: {e:?}"))?;
    // SAFETY: none: what it writes to is not this kernel's. The monitor is to stop it.
    unsafe { (va.0 as *mut u64).write_volatile(0x4D49_5344_4545_4421) };
    Ok(())
}

/// Leaves something in all memory that is free, and comes to an end.
fn leave_secrets() {
    while let Some(frame) = mem::alloc_large() {
        // SAFETY: the frame is ours, and RAM is in the direct map.
        unsafe { ((layout::direct(frame) + SECRET_AT) as *mut u64).write_volatile(SECRET) };
    }
    write_port();
}

/// Whatever an earlier life has left must be gone.
fn look_for_secrets() -> Outcome {
    let mut looked = 0;
    for (start, end) in mem::usable(machine().boot) {
        let first = align_up(start, LARGE_PAGE).unwrap_or(end);
        for frame in (first..end).step_by(LARGE_PAGE as usize) {
            // SAFETY: RAM in the direct map, which is only read.
            let word = unsafe {
                ((layout::direct(Phys(frame)) + SECRET_AT) as *const u64).read_volatile()
            };
            if word == SECRET {
                return Err(format!("{frame:#x} has what an earlier life has left there"));
            }
            looked += 1;
        }
    }
    log::info!("selftest: nothing of an earlier life in {looked} frames");
    Ok(())
}

fn write_msr() {
    // SAFETY: as in `write_at`: all clocks would be wrong.
    unsafe { Msr::new(TSC_MSR).write(0) };
}

fn write_port() {
    // SAFETY: as in `write_at`.
    unsafe { PortWriteOnly::<u8>::new(RESET.0).write(RESET.1) };
}

fn write_cr4() {
    // SAFETY: as in `write_at`.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
}

/// AVX without SSE, which no CPU takes.
fn set_xcr0() {
    // SAFETY: as in `write_at`.
    unsafe {
        Cr4::update(|cr4| cr4.insert(Cr4Flags::OSXSAVE));
        asm!("xsetbv", in("ecx") 0, in("eax") 0b100, in("edx") 0, options(nomem, nostack));
    }
}

/// Reads where the monitor, which has been asked to, has spoilt EPT.
#[inline(never)]
fn read_misconfigured() -> Outcome {
    guest::call(vmx::SPOIL, vmx::SPOIL_EPT);
    let va =
        mem::map_device(Phys(vmx::MISCONFIGURED), 8).map_err(|e| format!("not mapped: {e:?}"))?;
    // SAFETY: as in `write_at`.
    let word = unsafe { (va.0 as *const u64).read_volatile() };
    Err(format!("{word:#x} was read"))
}

fn triple_fault() {
    let none = [0u16; 5];
    // SAFETY: as in `write_at`: with no handler to be found, an exception cannot be delivered, nor that, nor that.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) none.as_ptr()) };
}

/// The core is watched from its first heartbeat on; it has one, and none after.
fn hang() -> ! {
    guest::announce_heartbeat(&percore::this().beats);
    loop {
        x86_64::instructions::interrupts::disable();
        core::hint::spin_loop();
    }
}

/// What another core does meanwhile, until the monitor calls it out: it serves if there is nothing left to do.
pub fn other_core(names: &str) {
    if guest::life() as usize <= names.split(',').count() && !serves() {
        crash::park()
    }
}
