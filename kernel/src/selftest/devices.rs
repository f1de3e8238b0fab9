//! Timers against each other, and a network card's interrupt against a halt.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use ix_abi::CoreId;
use ix_dataplane::device::RxQueue;
use ix_dataplane::mbuf::Pool;
use x86_64::instructions::interrupts;

use crate::cpu::percore;
use crate::pci::Function;
use crate::start::machine;
use crate::{apic, firmware, iommu, net, time};

type Outcome = Result<(), String>;

fn read_firmware() -> Result<firmware::Firmware, String> {
    let rsdp = machine().boot.rsdp_addr.as_ref().copied().ok_or("no RSDP")?;
    Ok(firmware::read(rsdp)?)
}

/// Each reference gives about the same frequency.
pub fn timers() -> Outcome {
    let fw = read_firmware()?;
    let want = time::tsc_khz();
    let mut seen = 0;
    for (name, khz) in time::measure_all(&fw) {
        let khz = khz.ok_or_else(|| format!("{name} does not run"))?;
        log::info!("{name}: TSC {khz} kHz");
        if khz.abs_diff(want) > want / 10 {
            return Err(format!("{name} says {khz} kHz, boot said {want}"));
        }
        seen += 1;
    }
    log::info!("{seen} timers agree");
    Ok(())
}

/// Halts until the network card has a frame; the test sends one now and then.
pub fn msix(functions: &[Function]) -> Outcome {
    let mut net = net::open(functions, 1, net::Wishes::default())?;
    let mut pool = Pool::new(net.area, CoreId(0));
    let rx = net.shares[0].rx.first_mut().ok_or("no network card")?;
    rx.replenish(&mut pool);
    let me = percore::this();
    let mut batch = ix_dataplane::device::RxBatch::new();
    for round in 0..5 {
        while rx.poll(64, &mut batch) > 0 {
            batch.drain(..).for_each(|f| pool.free(f.mbuf));
            rx.replenish(&mut pool);
        }
        let before = me.device_interrupts.load(Ordering::Relaxed);
        if rx.arm_interrupt() {
            continue;
        }
        // The bound of this wait; a tick that comes first is a failure.
        apic::arm_timer(1_000_000_000);
        let ticks = me.ticks.load(Ordering::Relaxed);
        interrupts::enable_and_hlt();
        interrupts::disable();
        if me.ticks.load(Ordering::Relaxed) != ticks {
            return Err(format!("round {round}: the halt ended by the timer"));
        }
        if me.device_interrupts.load(Ordering::Relaxed) == before {
            return Err(format!("round {round}: the halt ended by something else"));
        }
        rx.disarm_interrupt();
        if rx.poll(64, &mut batch) == 0 {
            return Err(format!("round {round}: an interrupt without a frame"));
        }
        batch.drain(..).for_each(|f| pool.free(f.mbuf));
    }
    log::info!("{} device interrupts", me.device_interrupts.load(Ordering::Relaxed));
    if me.device_interrupts.load(Ordering::Relaxed) == 0 {
        return Err("no halt was tried: frames came too fast".into());
    }
    Ok(())
}

/// A frame arrives in the receive area, and none any more once the area is taken from the card; the test sends one now and then.
pub fn iommu(functions: &[Function]) -> Outcome {
    let mut net = net::open(functions, 1, net::Wishes::default())?;
    if !iommu::is_on() {
        return Err("there is no IOMMU".into());
    }
    let mut pool = Pool::new(net.area, CoreId(0));
    let rx = net.shares[0].rx.first_mut().ok_or("no network card")?;
    rx.replenish(&mut pool);
    let mut batch = ix_dataplane::device::RxBatch::new();
    within_seconds(10, || rx.poll(1, &mut batch) > 0).ok_or("no frame arrives")?;
    batch.drain(..).for_each(|f| pool.free(f.mbuf));
    let (area, bytes) = net.area_memory;
    if !iommu::take(area, bytes) {
        return Err("the receive area cannot be taken back".into());
    }
    let fault = within_seconds(10, || {
        iommu::next_fault().is_some_and(|fault| {
            log::info!("{fault}");
            fault.write && (area.0..area.0 + bytes).contains(&fault.page)
        })
    });
    fault.ok_or("the card was not kept from what was taken from it")?;
    while rx.poll(64, &mut batch) > 0 {
        batch.drain(..).for_each(|f| pool.free(f.mbuf));
    }
    Ok(())
}

/// Waits until `done`, at most so many seconds.
fn within_seconds(seconds: u64, mut done: impl FnMut() -> bool) -> Option<()> {
    let end = time::now_ns() + seconds * 1_000_000_000;
    while time::now_ns() < end {
        if done() {
            return Some(());
        }
        core::hint::spin_loop();
    }
    None
}
