//! The IOMMU (Intel VT-d) between the network card and memory: the card reaches what a driver or the application has given it, at its
//! physical address, and nothing else. Without one, all of memory.
//!
//! Everything here is for boot and control actions; the lock is never taken on the packet path.
#![allow(unsafe_code, reason = "tables that the unit reads, registers by physical address")]

use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicBool, Ordering};

use ix_abi::event_log::EventKind;
use ix_dataplane::time::Instant;
use ix_kernel_core::addr::{PAGE, Phys};
use ix_kernel_core::cmdline::Iommu;
use ix_vtd::{Domain, Fault, MapError, Memory, Rights, SourceId, Unit, dmar};
use spin::Mutex;

use crate::boot::facts;
use crate::mem::{self, layout};
use crate::pci::registers::Registers;
use crate::pci::{self, Function};
use crate::{time, watch};

/// Nanoseconds between two looks for refused requests.
const LOOK_NS: u64 = 100_000_000;
/// So many refused requests are told one by one.
const TOLD_MAX: u64 = 8;
/// Refused requests that one look takes.
const FAULTS_PER_LOOK: usize = 16;

/// A unit with the card's domain.
struct Guard {
    unit: Unit<Registers>,
    domain: Domain,
    tables: Tables,
    next_look: u64,
    refused: u64,
}

static GUARD: Mutex<Option<Guard>> = Mutex::new(None);
/// There is a guard. Set once, by core 0, before others run.
static ON: AtomicBool = AtomicBool::new(false);

/// Tables in the direct map.
struct Tables {
    /// The unit sees the processors' caches.
    coherent: bool,
}

impl Tables {
    /// Writes a table's line to memory, where the unit looks for it.
    fn flush(&self, at: u64) {
        if !self.coherent {
            // SAFETY: the line is of a table, in the direct map; only its place changes. The fence orders it before the register
            // write that tells the unit.
            unsafe {
                core::arch::asm!("clflush [{}]", "mfence", in(reg) at, options(nostack, preserves_flags));
            }
        }
    }
}

impl Memory for Tables {
    fn read(&self, table: u64, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: tables come from `new_table`: pages in the direct map, written here alone, under the lock of `GUARD`.
        unsafe { (layout::direct(Phys(table)) as *const u64).add(index).read_volatile() }
    }

    fn write(&mut self, table: u64, index: usize, value: u64) {
        assert!(index < 512);
        let at = layout::direct(Phys(table)) + index as u64 * 8;
        // SAFETY: as in `read`; the unit reads it meanwhile, whole words.
        unsafe { (at as *mut u64).write_volatile(value) };
        self.flush(at);
    }

    fn new_table(&mut self) -> Option<u64> {
        let table = mem::alloc_page()?;
        let first = layout::direct(table);
        (first..first + PAGE).step_by(64).for_each(|line| self.flush(line));
        Some(table.0)
    }
}

fn now() -> Instant {
    Instant(time::now_ns())
}

/// Puts the IOMMU that sees the card between it and memory, if there is one and it is wanted.
pub fn guard(f: &Function, wanted: Iommu) -> Result<(), String> {
    let unit = if wanted == Iommu::Off { None } else { find(f) };
    let Some(place) = unit else {
        return match wanted {
            Iommu::On => Err("iommu=on, and no IOMMU that sees the card: switch VT-d on in the firmware's setup, or iommu=off".into()),
            _ => Ok(()),
        };
    };
    if is_on() {
        return Err("an IOMMU guards another card".into());
    }
    let guard = set_up(place, source(f)).map_err(|e| format!("IOMMU at {:#x}: {e}", place.base))?;
    *GUARD.lock() = Some(guard);
    ON.store(true, Ordering::Relaxed);
    Ok(())
}

fn source(f: &Function) -> SourceId {
    let a = f.address;
    SourceId::new(a.bus(), a.device(), a.function())
}

fn find(f: &Function) -> Option<dmar::UnitPlace> {
    let (at, len) = facts().dmar?;
    let va = if mem::is_direct(Phys(at), len) {
        layout::direct(Phys(at))
    } else {
        mem::map_firmware(Phys(at), len).ok()?.0
    };
    // SAFETY: mapped for good, and the firmware's tables are not written.
    let table = unsafe { core::slice::from_raw_parts(va as *const u8, usize::try_from(len).ok()?) };
    dmar::unit_of(table, f.address.segment(), source(f), &pci::buses_behind)
}

fn set_up(place: dmar::UnitPlace, card: SourceId) -> Result<Guard, String> {
    let registers = |len: u64| {
        let va = mem::map_device(Phys(place.base), len).map_err(|_| "no address space")?;
        // SAFETY: just mapped for good; ACPI says that the unit's registers are there.
        Ok::<_, &'static str>(unsafe { Registers::new(va, len as usize) })
    };
    let mut unit = Unit::open(registers(ix_vtd::REGISTER_BYTES)?).map_err(|e| e.to_string())?;
    if unit.register_bytes() > ix_vtd::REGISTER_BYTES {
        unit = Unit::open(registers(unit.register_bytes())?).map_err(|e| e.to_string())?;
    }
    let mut tables = Tables { coherent: unit.is_coherent() };
    let domain = unit.domain(&mut tables).map_err(|e| e.to_string())?;
    let root = tables.new_table().ok_or("no memory for its tables")?;
    domain.attach(&mut tables, root, card).map_err(|e| format!("{e:?}"))?;
    unit.enable(root, &now).map_err(|e| e.to_string())?;
    Ok(Guard { unit, domain, tables, next_look: 0, refused: 0 })
}

/// Whether the card is kept from memory that it was not given.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Bytes that the card reaches.
pub fn given_bytes() -> Option<u64> {
    GUARD.lock().as_ref().map(|guard| guard.domain.bytes())
}

/// Gives the card memory: whole pages. Whether it has it.
#[must_use]
pub fn give(pa: Phys, len: u64, rights: Rights) -> bool {
    if !is_on() {
        return true;
    }
    let mut guard = GUARD.lock();
    let Some(Guard { unit, domain, tables, .. }) = guard.as_mut() else { return true };
    let given = domain.give(tables, pa.0, len, rights);
    let flushed = if unit.must_flush_what_is_given() { unit.flush(&now) } else { Ok(()) };
    match (given, flushed) {
        (Ok(()), Ok(())) => true,
        (Err(MapError::NoMemory), _) => false,
        (given, flushed) => {
            log::error!("IOMMU: {len} bytes at {pa:?} cannot be given: {given:?}, {flushed:?}");
            false
        }
    }
}

/// Takes memory back that was given, before it is another's. Whether the card is out of it.
#[must_use]
pub fn take(pa: Phys, len: u64) -> bool {
    if !is_on() {
        return true;
    }
    let mut guard = GUARD.lock();
    let Some(Guard { unit, domain, tables, .. }) = guard.as_mut() else { return true };
    if domain.rights(tables, pa.0).is_none() {
        return true;
    }
    let taken = domain.take(tables, pa.0, len);
    let flushed = unit.flush(&now);
    if taken.is_err() || flushed.is_err() {
        log::error!("IOMMU: {len} bytes at {pa:?} cannot be taken back: {taken:?}, {flushed:?}");
    }
    taken.is_ok() && flushed.is_ok()
}

/// Every millisecond: tells of refused requests.
pub fn look(now_ns: u64) {
    if !is_on() {
        return;
    }
    let mut guard = GUARD.lock();
    let Some(guard) = guard.as_mut().filter(|guard| now_ns >= guard.next_look) else { return };
    guard.next_look = now_ns + LOOK_NS;
    for _ in 0..FAULTS_PER_LOOK {
        let Some((fault, lost)) = guard.unit.next_fault() else { break };
        guard.refused += 1 + u64::from(lost);
        let Fault { source, page, write, reason } = fault;
        let how = u64::from(reason) | u64::from(write) << 8;
        watch::log::record(EventKind::DmaRefused, source.0, page, how);
        if guard.refused <= TOLD_MAX {
            log::warn!("IOMMU: {fault}");
        }
    }
}

/// The next refused request.
pub fn next_fault() -> Option<Fault> {
    GUARD.lock().as_mut()?.unit.next_fault().map(|(fault, _)| fault)
}
