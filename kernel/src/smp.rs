//! Starts the other cores: INIT, then SIPI to a real-mode trampoline (SDM vol. 3A, 9.4.4).
#![allow(unsafe_code, reason = "writes the trampoline page and the variables of boot.S")]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bootloader_api::BootInfo;
use ix_kernel_core::addr::{PAGE, Phys};
use ix_kernel_core::placement;
use ix_kernel_core::stacks;

use crate::cpu;
use crate::cpu::percore::{self, CORES_MAX};
use crate::firmware::Firmware;
use crate::mem::{self, layout};
use crate::{apic, time, vmx};

unsafe extern "C" {
    static ix_trampoline_start: u8;
    static ix_trampoline_end: u8;
    static ix_ap_core: u8;
    static ix_ap_cr3: u8;
    static ix_ap_stack: u8;
}

/// How long a started core may take to report: a millisecond on a real machine, far longer where a busy
/// host runs many of them.
const START_NS: u64 = 3_000_000_000;

/// Under the monitor, which is what absent cores need, an INIT takes effect within microseconds, and a start within a few hundred.
const LATE_INIT_NS: u64 = 20_000;
const LATE_START_NS: u64 = 2_000_000;

/// The TSC of the core that reported last.
static STARTED_AT: AtomicU64 = AtomicU64::new(0);
/// Cores that another dataplane had when this one booted, a bit each: they are started when they come.
static ABSENT: AtomicU64 = AtomicU64::new(0);
/// Physical address of the trampoline page.
static TRAMPOLINE: AtomicU64 = AtomicU64::new(0);
static GO: AtomicBool = AtomicBool::new(false);

/// A variable of boot.S, linked at its physical address, through the direct map.
fn set_boot_variable(symbol: *const u8, value: u64) {
    let at = layout::direct(Phys(symbol as u64)) as *mut u64;
    // SAFETY: `.boot.data` is RAM in the direct map; cores are started one after another, so none
    // reads while this writes.
    unsafe { at.write_volatile(value) };
}

/// Starts cores 1 to `cores - 1`; returns how many run in all. A core that does not start ends it there:
/// the machine runs with those before it.
pub fn start(boot: &BootInfo, fw: &Firmware, cores: usize) -> Result<usize, &'static str> {
    let me = apic::id();
    let others = fw.apic_ids.iter().copied().filter(|&id| id != me);
    let unreachable = others.clone().filter(|&id| !apic::reaches(id)).count();
    if unreachable > 0 {
        log::warn!("{unreachable} cores have APIC ids that only x2APIC reaches: not used");
    }
    let others = others.filter(|&id| apic::reaches(id)).take(cores - 1);
    let others = others.collect::<arrayvec::ArrayVec<u32, { CORES_MAX }>>();
    if others.is_empty() {
        return Ok(1);
    }
    let Some(page) = placement::trampoline_page(mem::usable(boot)) else {
        log::warn!("no free page below 1 MiB to start cores from: one core runs");
        return Ok(1);
    };
    copy_trampoline(page);
    for (i, _) in others.iter().enumerate() {
        mem::map_stacks(i + 1).ok_or("no memory for kernel stacks")?;
    }
    // Some may be elsewhere.
    vmx::guest::find();
    TRAMPOLINE.store(page.0, Ordering::Relaxed);
    others.iter().for_each(|&id| apic::send_init(id));
    time::wait_ns(10_000_000);
    for (i, &id) in others.iter().enumerate() {
        if vmx::guest::is_away(i + 1) {
            percore::of(i + 1).apic_id.store(id, Ordering::Relaxed);
            ABSENT.fetch_or(1 << (i + 1), Ordering::Relaxed);
            continue;
        }
        if !start_one(i + 1, id, page) {
            // A late starter would read the next core's variables: nothing may be started after this.
            log::error!(
                "core {} (APIC id {id}) does not start: {} of {} run",
                i + 1,
                i + 1,
                others.len() + 1
            );
            return Ok(i + 1);
        }
    }
    Ok(others.len() + 1)
}

fn copy_trampoline(page: Phys) {
    let start = &raw const ix_trampoline_start;
    let len = &raw const ix_trampoline_end as usize - start as usize;
    assert!(len <= PAGE as usize);
    // SAFETY: the source is constant data of the image; the page is unused RAM in the direct map.
    unsafe { core::ptr::copy_nonoverlapping(start, layout::direct(page) as *mut u8, len) };
}

/// Whether the core was another dataplane's at boot, and was not started since.
pub fn is_absent(core: usize) -> bool {
    ABSENT.load(Ordering::Relaxed) >> core & 1 != 0
}

/// Starts a core that was absent and is there now. Core 0, over and over until it is not absent any more, one core at a time.
pub fn start_late(core: usize) {
    let of = percore::of(core);
    if of.online.load(Ordering::Acquire) {
        ABSENT.fetch_and(!(1 << core), Ordering::Relaxed);
        return;
    }
    let page = TRAMPOLINE.load(Ordering::Relaxed);
    let apic_id = of.apic_id.load(Ordering::Relaxed);
    set_boot_variables(core);
    apic::send_init(apic_id);
    time::wait_ns(LATE_INIT_NS);
    apic::send_startup(apic_id, (page / PAGE) as u8);
    let until = time::now_ns() + LATE_START_NS;
    while time::now_ns() < until && !of.online.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

fn set_boot_variables(core: usize) {
    set_boot_variable(&raw const ix_ap_core, core as u64);
    set_boot_variable(&raw const ix_ap_cr3, mem::root().0);
    set_boot_variable(&raw const ix_ap_stack, stacks::main_stack(core).1);
}

fn start_one(core: usize, apic_id: u32, page: Phys) -> bool {
    set_boot_variables(core);
    let online = &percore::of(core).online;
    let vector = (page.0 / PAGE) as u8;
    let before = time::tsc();
    // A second SIPI only if the first had no effect: some CPUs need it.
    for patience in [10_000_000, START_NS] {
        apic::send_startup(apic_id, vector);
        let until = time::now_ns() + patience;
        while time::now_ns() < until {
            if online.load(Ordering::Acquire) {
                check_tsc(core, before, time::tsc());
                return true;
            }
            core::hint::spin_loop();
        }
    }
    false
}

/// A core's counter must have been between ours before and after its start: all clocks are one.
fn check_tsc(core: usize, before: u64, after: u64) {
    let theirs = STARTED_AT.load(Ordering::Relaxed);
    if theirs < before || after < theirs {
        let off = if theirs < before { before - theirs } else { theirs - after };
        log::warn!("core {core}: its TSC is at least {off} ticks off: its timers will be, too");
    }
}

/// First Rust code of another core, on its own main stack with the kernel's page tables.
#[unsafe(no_mangle)]
extern "C" fn ix_ap_main(core: usize) -> ! {
    cpu::init(core);
    apic::init_core();
    STARTED_AT.store(time::tsc(), Ordering::Relaxed);
    percore::of(core).online.store(true, Ordering::Release);
    while !GO.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    crate::core_main(core)
}

/// Lets all started cores run [`crate::core_main`].
pub fn release() {
    GO.store(true, Ordering::Release);
}
