//! The local APIC: x2APIC where the CPU has it, else memory-mapped xAPIC. IPIs, the one-shot timer.
//! Intel SDM vol. 3A, chapter 11.
#![allow(unsafe_code, reason = "device registers and MSRs")]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ix_kernel_core::addr::Phys;
use x86_64::instructions::port::PortWriteOnly;
use x86_64::registers::model_specific::Msr;

use crate::cpu::percore;
use crate::cpu::trap::{VECTOR_PREEMPT, VECTOR_SPURIOUS, VECTOR_TIMER, VECTOR_WAKE};
use crate::mem;

const IA32_APIC_BASE: u32 = 0x1B;
const ENABLE: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
const X2APIC_MSRS: u32 = 0x800;

// Register numbers, as MSR offsets; memory-mapped they are 16 bytes apart.
const ID: u32 = 0x02;
const TASK_PRIORITY: u32 = 0x08;
const EOI: u32 = 0x0B;
const SPURIOUS: u32 = 0x0F;
const ICR: u32 = 0x30;
const ICR_HIGH: u32 = 0x31;
const LVT_TIMER: u32 = 0x32;
const LVT_LINT0: u32 = 0x35;
const LVT_LINT1: u32 = 0x36;
const LVT_ERROR: u32 = 0x37;
const TIMER_INITIAL: u32 = 0x38;
const TIMER_CURRENT: u32 = 0x39;
const TIMER_DIVIDE: u32 = 0x3E;

const MASKED: u32 = 1 << 16;
const DIVIDE_BY_16: u32 = 0b0011;
const ICR_PENDING: u32 = 1 << 12;

const MODE_FIXED: u32 = 0;
const MODE_NMI: u32 = 0b100 << 8;
const MODE_INIT: u32 = 0b101 << 8;
const MODE_STARTUP: u32 = 0b110 << 8;
const ASSERT: u32 = 1 << 14;
const ALL_BUT_SELF: u32 = 0b11 << 18;

static IS_X2APIC: AtomicBool = AtomicBool::new(false);
static BASE: AtomicU64 = AtomicU64::new(0);
static READY: AtomicBool = AtomicBool::new(false);
static TICKS_PER_MS: AtomicU32 = AtomicU32::new(0);

fn read(reg: u32) -> u32 {
    if IS_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: an x2APIC register, in x2APIC mode.
        unsafe { Msr::new(X2APIC_MSRS + reg).read() as u32 }
    } else {
        let at = BASE.load(Ordering::Relaxed) + u64::from(reg) * 16;
        // SAFETY: `init` mapped the register page.
        unsafe { (at as *const u32).read_volatile() }
    }
}

fn write(reg: u32, value: u32) {
    if IS_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: an x2APIC register, in x2APIC mode; values are built in this module.
        unsafe { Msr::new(X2APIC_MSRS + reg).write(u64::from(value)) };
    } else {
        let at = BASE.load(Ordering::Relaxed) + u64::from(reg) * 16;
        // SAFETY: `init` mapped the register page.
        unsafe { (at as *mut u32).write_volatile(value) };
    }
}

/// Chooses the mode and masks the legacy interrupt controllers. On the boot core, once.
pub fn init() {
    mask_legacy_pics();
    let f = raw_cpuid::CpuId::new().get_feature_info();
    let x2apic = f.is_some_and(|f| f.has_x2apic());
    IS_X2APIC.store(x2apic, Ordering::Relaxed);
    if !x2apic {
        // SAFETY: the MSR exists where there is an APIC.
        let base = unsafe { Msr::new(IA32_APIC_BASE).read() } & 0x000F_FFFF_FFFF_F000;
        let va = mem::map_device(Phys(base), 4096).expect("address space for the local APIC");
        BASE.store(va.0, Ordering::Relaxed);
    }
}

/// SeaBIOS leaves the 8259s unmasked with vectors 8 and up: the first `sti` would look like #DF.
fn mask_legacy_pics() {
    for port in [0x21, 0xA1] {
        // SAFETY: the 8259s' mask registers; writing them has no effect where there are none.
        unsafe { PortWriteOnly::<u8>::new(port).write(0xFF) };
    }
}

/// Whether a core with this APIC id can be reached by IPIs (xAPIC ids have 8 bits, 255 is everybody).
pub fn reaches(apic_id: u32) -> bool {
    IS_X2APIC.load(Ordering::Relaxed) || apic_id < 255
}

pub fn mode() -> &'static str {
    if IS_X2APIC.load(Ordering::Relaxed) { "x2APIC" } else { "xAPIC" }
}

/// Switches this core's APIC on, everything masked but what the kernel uses.
pub fn init_core() {
    // SAFETY: the MSR exists where there is an APIC; the mode was found in CPUID.
    unsafe {
        let mut msr = Msr::new(IA32_APIC_BASE);
        let before = msr.read();
        if IS_X2APIC.load(Ordering::Relaxed) {
            // Firmware may have switched already, and there is no way from x2APIC back to xAPIC but
            // through off: trying it is a #GP (SDM vol. 3A, 11.12.5).
            if before & X2APIC == 0 {
                msr.write(before | ENABLE);
            }
            msr.write(before | ENABLE | X2APIC);
        } else {
            msr.write(before | ENABLE);
        }
    }
    for lvt in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(lvt, MASKED);
    }
    write(TASK_PRIORITY, 0);
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(LVT_TIMER, u32::from(VECTOR_TIMER));
    write(SPURIOUS, 0x100 | u32::from(VECTOR_SPURIOUS));
    percore::this().apic_id.store(id(), Ordering::Relaxed);
    READY.store(true, Ordering::Relaxed);
}

pub fn id() -> u32 {
    let raw = read(ID);
    if IS_X2APIC.load(Ordering::Relaxed) { raw } else { raw >> 24 }
}

#[inline]
pub fn end_of_interrupt() {
    write(EOI, 0);
}

fn send(to: u32, command: u32) {
    if IS_X2APIC.load(Ordering::Relaxed) {
        let value = (u64::from(to) << 32) | u64::from(command);
        // SAFETY: the x2APIC interrupt command register; commands are built in this module.
        unsafe { Msr::new(X2APIC_MSRS + ICR).write(value) };
        return;
    }
    wait_sent();
    write(ICR_HIGH, to << 24);
    write(ICR, command);
    wait_sent();
}

/// Bounded: a delivery that hangs must not hang the sender.
fn wait_sent() {
    for _ in 0..1_000_000 {
        if read(ICR) & ICR_PENDING == 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

fn apic_id_of(core: usize) -> u32 {
    percore::of(core).apic_id.load(Ordering::Relaxed)
}

/// Makes a core leave `sti; hlt`.
pub fn wake(core: usize) {
    send(apic_id_of(core), MODE_FIXED | ASSERT | u32::from(VECTOR_WAKE));
}

/// Makes a core pass its quiescent point: ends a halt, and user mode if the application is ending.
pub fn preempt(core: usize) {
    send(apic_id_of(core), MODE_FIXED | ASSERT | u32::from(VECTOR_PREEMPT));
}

/// Sends an NMI to one core.
pub fn nmi(core: usize) {
    send(apic_id_of(core), MODE_NMI | ASSERT);
}

/// Stops all other cores (`crash`).
pub fn nmi_others() {
    if READY.load(Ordering::Relaxed) {
        send(0, MODE_NMI | ASSERT | ALL_BUT_SELF);
    }
}

pub fn send_init(apic_id: u32) {
    send(apic_id, MODE_INIT | ASSERT);
}

/// Starts a core in real mode at `page * 4096`.
pub fn send_startup(apic_id: u32, page: u8) {
    send(apic_id, MODE_STARTUP | ASSERT | u32::from(page));
}

/// Measures the timer: `wait` spins about a millisecond and returns how many nanoseconds really
/// passed. The median of five, since a hypervisor may take the CPU away in the middle of any.
pub fn calibrate_timer(wait: impl Fn() -> u64) {
    write(LVT_TIMER, MASKED);
    let mut samples = [0u64; 5];
    for s in &mut samples {
        write(TIMER_INITIAL, u32::MAX);
        let ns = wait().max(1);
        let passed = u32::MAX - read(TIMER_CURRENT);
        *s = u64::from(passed) * 1_000_000 / ns;
    }
    samples.sort_unstable();
    write(TIMER_INITIAL, 0);
    write(LVT_TIMER, u32::from(VECTOR_TIMER));
    TICKS_PER_MS.store(samples[2].clamp(1, u64::from(u32::MAX)) as u32, Ordering::Relaxed);
}

pub fn timer_khz() -> u32 {
    TICKS_PER_MS.load(Ordering::Relaxed)
}

/// One interrupt after `ns`, instead of what was armed; 0: none.
#[inline]
pub fn arm_timer(ns: u64) {
    let per_ms = u64::from(TICKS_PER_MS.load(Ordering::Relaxed));
    let ticks = if ns == 0 { 0 } else { (ns.min(1_000_000_000) * per_ms / 1_000_000).max(1) };
    write(TIMER_INITIAL, ticks.min(u64::from(u32::MAX)) as u32);
}

/// The millisecond tick that bounds user mode.
#[inline]
pub fn arm_timer_tick() {
    write(TIMER_INITIAL, TICKS_PER_MS.load(Ordering::Relaxed));
}

/// Address and data with which a device interrupts a core (SDM vol. 3A, 11.11).
pub fn msi_message(core: usize, vector: u8) -> (u64, u32) {
    (0xFEE0_0000 | (u64::from(apic_id_of(core) & 0xFF) << 12), u32::from(vector))
}
