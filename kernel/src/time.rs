//! The clock: the time-stamp counter, calibrated against a timer of known frequency.
#![allow(unsafe_code, reason = "reads timers")]

use core::sync::atomic::{AtomicU64, Ordering};

use ix_kernel_core::clock::{self, Answer, Answers, Quality, Scale, Trust};
use spin::Once;
use x86_64::instructions::port::{Port, PortReadOnly};

use crate::{apic, firmware, mem, vmx};

const PM_TIMER_HZ: u64 = 3_579_545;
const PIT_HZ: u64 = 1_193_182;
/// Length of one measurement.
const CALIBRATE_MS: u64 = 10;
/// Rounds of measurements until two references agree: the host or an SMI may get in between.
const ROUNDS: usize = 4;
/// Four times the fastest TSC that is believed: what does not come to an end by then is not there.
const PATIENCE_TICKS_PER_MS: u64 = 4 * *clock::KHZ.end();

static SCALE: Once<Scale> = Once::new();
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);

#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every CPU that the kernel accepts has the counter (boot.S).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Marks the beginning of time.
pub fn start() {
    BOOT_TSC.store(tsc(), Ordering::Relaxed);
}

/// Nanoseconds since boot; 0 before calibration.
#[inline]
pub fn now_ns() -> u64 {
    match SCALE.get() {
        Some(s) => s.ns(tsc().wrapping_sub(BOOT_TSC.load(Ordering::Relaxed))),
        None => 0,
    }
}

pub fn tsc_khz() -> u64 {
    SCALE.get().map_or(0, Scale::khz)
}

/// Spins for `ns`; before calibration for about as long on a slow machine.
pub fn wait_ns(ns: u64) {
    let ticks = SCALE.get().map_or(ns * 4, |s| s.ticks(ns));
    let start = tsc();
    while tsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

/// A counter of known frequency.
enum Reference {
    PmTimer { port: u16, bits: u32 },
    Hpet { counter: u64, hz: u64 },
    Pit,
}

impl Reference {
    fn name(&self) -> &'static str {
        match self {
            Self::PmTimer { .. } => "ACPI PM timer",
            Self::Hpet { .. } => "HPET",
            Self::Pit => "PIT",
        }
    }

    fn hz(&self) -> u64 {
        match self {
            Self::PmTimer { .. } => PM_TIMER_HZ,
            Self::Hpet { hz, .. } => *hz,
            Self::Pit => PIT_HZ,
        }
    }

    fn read(&self) -> u32 {
        match self {
            // SAFETY: the port comes from the FADT.
            Self::PmTimer { port, .. } => unsafe { PortReadOnly::<u32>::new(*port).read() },
            // SAFETY: the counter's address was mapped by `hpet`.
            Self::Hpet { counter, .. } => unsafe { (*counter as *const u32).read_volatile() },
            Self::Pit => pit_read(),
        }
    }

    fn elapsed(&self, start: u32, now: u32) -> u32 {
        match self {
            Self::PmTimer { bits, .. } => clock::elapsed(start, now, *bits),
            Self::Hpet { .. } => clock::elapsed(start, now, 32),
            Self::Pit => clock::elapsed(now, start, 16), // counts down
        }
    }

    /// Waits until `ms` have passed on the reference; `None` if it does not move, or far too slowly.
    fn measure(&self, ms: u64) -> Option<Scale> {
        let want = self.hz() * ms / 1000;
        let (mut last, start) = self.sample();
        let mut counted = 0u64;
        while counted < want {
            let now = self.read();
            counted += u64::from(self.elapsed(last, now));
            last = now;
            // A reference that is not there: more than the fastest TSC makes in the time.
            if tsc().wrapping_sub(start) > ms * PATIENCE_TICKS_PER_MS {
                return None;
            }
        }
        let (now, end) = self.sample();
        counted += u64::from(self.elapsed(last, now));
        Scale::measured(end.wrapping_sub(start), counted, self.hz())
    }

    /// Both counters at one moment: of several tries the one that took least, since a hypervisor may
    /// take the CPU away between the two readings.
    fn sample(&self) -> (u32, u64) {
        let mut best = (0, 0, u64::MAX);
        for _ in 0..8 {
            let before = tsc();
            let count = self.read();
            let gap = tsc().wrapping_sub(before);
            if gap < best.2 {
                best = (count, before + gap / 2, gap);
            }
        }
        (best.0, best.1)
    }
}

/// Channel 2 of the 8254, latched. Its gate is opened by `pit_start`.
fn pit_read() -> u32 {
    // SAFETY: the 8254's ports, which nobody else uses.
    unsafe {
        Port::<u8>::new(0x43).write(0x80);
        let low = Port::<u8>::new(0x42).read();
        let high = Port::<u8>::new(0x42).read();
        u32::from(low) | (u32::from(high) << 8)
    }
}

fn pit_start() {
    // SAFETY: as in `pit_read`; port 0x61 bit 0 is channel 2's gate, bit 1 the speaker.
    unsafe {
        let mut gate = Port::<u8>::new(0x61);
        let old = gate.read();
        gate.write((old & !2) | 1);
        Port::<u8>::new(0x43).write(0xB4); // channel 2, both bytes, rate generator
        Port::<u8>::new(0x42).write(0xFF);
        Port::<u8>::new(0x42).write(0xFF);
    }
}

fn references(fw: &firmware::Firmware) -> [Option<Reference>; 3] {
    let pm = fw.pm_timer.map(|(port, bits)| Reference::PmTimer { port, bits });
    let hpet = fw.hpet.and_then(|at| {
        let base = mem::map_device(at, 4096).ok()?.0;
        // SAFETY: mapped right above. Register 0: period in femtoseconds in the high half; 0x10: enable.
        let period = unsafe { ((base + 4) as *const u32).read_volatile() };
        if period == 0 || period > 100_000_000 {
            return None;
        }
        let config = (base + 0x10) as *mut u32;
        // SAFETY: as above.
        unsafe { config.write_volatile(config.read_volatile() | 1) };
        Some(Reference::Hpet {
            counter: base + 0xF0,
            hz: 1_000_000_000_000_000 / u64::from(period),
        })
    });
    [pm, hpet, Some(Reference::Pit)]
}

/// Where the TSC's frequency comes from and how far it can be believed.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub name: &'static str,
    pub quality: Quality,
}

/// Finds the time-stamp counter's frequency, then the APIC timer's against it.
pub fn calibrate(fw: &firmware::Firmware) -> Result<Source, &'static str> {
    // A dataplane has none of the timers, and the monitor has measured for it.
    if let Some(khz) = vmx::guest::tsc_khz() {
        let source = Source { name: "the monitor", quality: Quality::Agreed };
        return start_clock(khz, source);
    }
    let mut references = references(fw);
    let mut answers = Answers::new();
    for (name, trust, khz) in [
        ("CPUID", Trust::Exact, cpuid_khz()),
        ("CPUID's base frequency", Trust::Nominal, cpuid_base_khz()),
    ] {
        answers.extend(khz.map(|khz| Answer { name, khz, trust }));
    }
    let mut choice = None;
    for round in 0..ROUNDS {
        for slot in &mut references {
            let Some(r) = slot else { continue };
            if matches!(r, Reference::Pit) {
                pit_start();
            }
            match r.measure(CALIBRATE_MS << round) {
                Some(scale) => clock::remember(&mut answers, r.name(), scale.khz()),
                None => *slot = None,
            }
            choice = clock::choose(&answers);
            if choice.is_some_and(|c| c.quality == Quality::Agreed) {
                break;
            }
        }
        if choice.is_none_or(|c| c.quality != Quality::Disputed) {
            break;
        }
    }
    let choice =
        choice.ok_or("no timer with a known frequency works (CPUID, ACPI PM timer, HPET, PIT)")?;
    start_clock(choice.khz, Source { name: choice.name, quality: choice.quality })
}

/// From now on there is a time; measures the APIC timer by it.
fn start_clock(khz: u64, source: Source) -> Result<Source, &'static str> {
    let scale = Scale::from_khz(khz).ok_or("the TSC's frequency makes no sense")?;
    SCALE.call_once(|| scale);
    apic::calibrate_timer(|| {
        let from = now_ns();
        wait_ns(1_000_000);
        now_ns() - from
    });
    Ok(source)
}

/// What CPUID itself says: crystal and ratio (leaf 15h), else a hypervisor's word (40000010h).
fn cpuid_khz() -> Option<u64> {
    let cpuid = raw_cpuid::CpuId::new();
    if let Some(t) = cpuid.get_tsc_info()
        && let Some(hz) = t.tsc_frequency()
    {
        return Some(hz / 1000);
    }
    let khz = cpuid.get_hypervisor_info()?.tsc_frequency()?;
    Some(u64::from(khz)).filter(|khz| *khz > 0)
}

/// The frequency that the CPU is sold as (leaf 16h), at which the TSC of an Intel CPU runs.
fn cpuid_base_khz() -> Option<u64> {
    let info = raw_cpuid::CpuId::new().get_processor_frequency_info()?;
    Some(u64::from(info.processor_base_frequency()) * 1000).filter(|khz| *khz > 0)
}

/// Whether the TSC runs at one rate for ever (CPUID 80000007h); hypervisors do not always say so.
pub fn is_invariant() -> bool {
    raw_cpuid::CpuId::new().get_advanced_power_mgmt_info().is_some_and(|i| i.has_invariant_tsc())
}

/// Measures with every reference there is, for `selftest=timers`: name and kHz.
pub fn measure_all(fw: &firmware::Firmware) -> impl Iterator<Item = (&'static str, Option<u64>)> {
    references(fw).into_iter().flatten().map(|r| {
        if matches!(r, Reference::Pit) {
            pit_start();
        }
        (r.name(), r.measure(CALIBRATE_MS).map(|s| s.khz()))
    })
}

/// Unix time from the CMOS clock, in nanoseconds; 0 if it makes no sense. Once, at boot.
pub fn unix_ns_at_boot() -> u64 {
    let cmos = |reg: u8| -> u64 {
        // SAFETY: the CMOS index and data ports; bit 7 (NMI disable) stays off.
        unsafe {
            Port::<u8>::new(0x70).write(reg);
            u64::from(Port::<u8>::new(0x71).read())
        }
    };
    // Legacy-free machines have none: a floating bus reads all ones.
    if cmos(0x0D) == 0xFF && cmos(0x0A) == 0xFF {
        return 0;
    }
    let read = || [0, 2, 4, 7, 8, 9].map(cmos);
    let mut raw = read();
    for _ in 0..10 {
        let again = read();
        if again == raw && cmos(0x0A) & 0x80 == 0 {
            break;
        }
        raw = again;
    }
    let format = cmos(0x0B);
    let seconds = ix_kernel_core::rtc::unix_seconds(raw, format & 4 != 0, format & 2 != 0);
    seconds.map_or(0, |s| (s * 1_000_000_000).saturating_sub(now_ns()))
}
