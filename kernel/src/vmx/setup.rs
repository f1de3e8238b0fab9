//! Makes the dataplanes out of the boot configuration, or the one that has everything if there is none.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use ix_kernel_core::addr::{PAGE, Phys, align_down, align_up};
use ix_kernel_core::vmx::bitmaps::{IoBitmap, MsrBitmap, Pass, X2APIC_PASSED};
use ix_kernel_core::vmx::ept::{Ept, Gpa, MemoryType, Range, Rights};
use ix_kernel_core::vmx::page::{self, Page};
use ix_kernel_core::vmx::partition::schedule;
use ix_kernel_core::vmx::partition::{self, Control, Memory as Wanted, NAME_ALONE, Partition};
use ix_kernel_core::vmx::pci::{self as filter, Bdf, Filter};

use super::dataplane::{Dataplane, VirtualCore};
use super::memory::{self, HostTables, Memory};
use super::moves;
use super::support::Support;
use super::vmcs::Fences;
use crate::cpu::percore;
use crate::pci::Function;
use crate::start::Machine;
use crate::{control, mem};

/// The monitor's own memory beyond what it has already: tables, heap.
const KEPT_BYTES: u64 = 8 << 20;
/// Registers of a serial port.
const SERIAL_PORTS: u16 = 8;

const TSC: u32 = 0x10;
const PAT: u32 = 0x277;
const EFER: u32 = 0xC000_0080;
/// STAR, LSTAR, CSTAR, SFMASK; FS, GS and kernel GS base; TSC_AUX.
const OWN_MSRS: [u32; 8] = [
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC000_0103,
];

/// All dataplanes, ready to be loaded.
pub fn all(
    m: &Machine,
    s: &Support,
    cores: usize,
    functions: &[Function],
) -> Result<Vec<Dataplane>, String> {
    let bdfs: Vec<Bdf> = functions.iter().map(bdf).collect();
    let alone = partition::command_line_alone(m.cmdline);
    let mut schedules = ArrayVec::new();
    let partitions = match m.config.dataplanes {
        Some(name) => {
            let text = m.archive.and_then(|a| a.find(name));
            let text = text
                .ok_or_else(|| format!("dataplanes={name}: the boot archive has no such member"))?;
            let machine = partition::Machine { cores, functions: &bdfs };
            let all = partition::parse(text, &machine).map_err(|mistake| mistake.to_string())?;
            schedules = schedule::parse(text, &all).map_err(|mistake| mistake.to_string())?;
            all
        }
        None => core::iter::once(everything(m, &alone, cores, functions)).collect(),
    };
    let free = functions.iter().filter(|f| !partitions.iter().any(|p| owns(p, bdf(f))));
    if let Some(at) = free.flat_map(bars).map(|(start, _)| start).next() {
        super::BAR_OF_NOBODY.call_once(|| at);
    }
    let count = partitions.len();
    // Who gets the rest, gets it last.
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|i| partitions[*i].memory == Wanted::Rest);
    let mut made: Vec<Option<Dataplane>> = (0..count).map(|_| None).collect();
    for i in order {
        made[i] = Some(one(s, &partitions[i], (i, count), functions)?);
    }
    let made: Vec<Dataplane> = made.into_iter().flatten().collect();
    moves::set_up(&made, &schedules, cores);
    Ok(made)
}

/// The only dataplane, which has all that a dataplane can have.
fn everything<'a>(
    m: &Machine,
    command_line: &'a str,
    cores: usize,
    functions: &[Function],
) -> Partition<'a> {
    let useful = |f: &&Function| f.is_network() || control::drives(f);
    Partition {
        name: NAME_ALONE,
        line: 0,
        cores: (0..cores as u8).collect(),
        memory: Wanted::Rest,
        functions: functions
            .iter()
            .filter(useful)
            .take(partition::FUNCTIONS_MAX)
            .map(bdf)
            .collect(),
        control: Control::Serial(m.config.line.port()),
        command_line,
    }
}

fn bdf(f: &Function) -> Bdf {
    Bdf::new(f.address.bus(), f.address.device(), f.address.function())
}

fn owns(p: &Partition<'_>, f: Bdf) -> bool {
    p.functions.contains(&f) || p.control == Control::Function(f)
}

/// The memory behind a function's BARs, in whole pages.
fn bars(f: &Function) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut slot = 0;
    while slot < 6 {
        let is_64 = f.read32(0x10 + 4 * u16::from(slot)) & 7 == 4;
        if f.class().0 != 6
            && let Some(bar) = f.bar(slot)
        {
            let end = align_up(bar.start.0 + bar.len, PAGE).unwrap_or(u64::MAX);
            let start = align_down(bar.start.0, PAGE);
            found.push((start, end - start));
        }
        slot += if is_64 { 2 } else { 1 };
    }
    found
}

fn one(
    s: &Support,
    p: &Partition<'_>,
    place: (usize, usize),
    functions: &[Function],
) -> Result<Dataplane, String> {
    let name = p.name;
    let no_memory = || format!("{name}: no memory for its tables");
    let cores: Vec<usize> = p.cores.iter().map(|core| usize::from(*core)).collect();
    let apic_ids = cores.iter().map(|core| apic_id(*core)).collect();
    let memory = match p.memory {
        Wanted::Bytes(bytes) => Memory::take(bytes),
        Wanted::Rest => Memory::take_most(KEPT_BYTES),
    };
    let memory = memory.ok_or_else(|| {
        format!(
            "{name}: not so much memory in one piece ({} MiB are free)",
            mem::free_bytes() >> 20
        )
    })?;
    let ept = Ept::new(&mut HostTables, s.max_page, s.physical_bits).map_err(|_| no_memory())?;
    let fail = |e| format!("{name}: EPT: {e:?}");
    memory.map(&ept).map_err(fail)?;
    let owned: Vec<Function> = functions.iter().copied().filter(|f| owns(p, bdf(f))).collect();
    for (start, len) in owned.iter().flat_map(bars) {
        let (rights, memory) = (Rights::ReadWrite, MemoryType::Uncacheable);
        let range = Range { gpa: Gpa(start), hpa: Phys(start), len, rights, memory };
        ept.map(&mut HostTables, range).map_err(fail)?;
    }
    let words = page::words(cores.len());
    let (shared, page_at) = memory::shared_words(words).ok_or_else(no_memory)?;
    let page = Page::create(shared, name, cores.len(), place).ok_or_else(no_memory)?;
    let (rights, kind) = (Rights::Read, MemoryType::WriteBack);
    let len = words as u64 * 8;
    let range = Range { gpa: Gpa(page_at.0), hpa: page_at, len, rights, memory: kind };
    ept.map(&mut HostTables, range).map_err(fail)?;
    let fences = Fences {
        ept_pointer: ept.pointer(),
        msr_bitmap: memory::bitmap(msr_bitmap(s).bytes()).ok_or_else(no_memory)?,
        io_bitmap: memory::bitmap(io_bitmap(p).bytes()).ok_or_else(no_memory)?,
        vpid: place.0 as u16 + 1,
    };
    let virtual_cores: Option<Vec<VirtualCore>> =
        cores.iter().map(|_| memory::region(s.revision).map(VirtualCore::new)).collect();
    log::info!(
        "{name}: cores {cores:?}, {} MiB, {} functions, monitor page at {:#x}",
        memory.bytes() >> 20,
        owned.len(),
        page_at.0
    );
    Ok(Dataplane::new(
        (name.to_string(), p.command_line.to_string()),
        (cores, apic_ids),
        (owned.clone(), pci_filter(&owned, functions)),
        memory,
        (ept, fences),
        (page, page_at),
        virtual_cores.ok_or_else(no_memory)?,
    ))
}

fn apic_id(core: usize) -> u32 {
    percore::of(core).apic_id.load(core::sync::atomic::Ordering::Relaxed)
}

/// Its functions, and the bridges, which it can read to find them.
fn pci_filter(owned: &[Function], functions: &[Function]) -> Filter {
    let mut pci = Filter::new();
    for f in owned {
        let mut lens = [0; 6];
        for slot in 0..6 {
            lens[usize::from(slot)] = f.bar(slot).map_or(0, |bar| bar.len);
        }
        let function = filter::Function::owned(
            bdf(f),
            |offset| f.read32(u16::from(offset)),
            |slot| lens.get(usize::from(slot)).copied().unwrap_or(0),
        );
        let _ = pci.add(function);
    }
    const BRIDGE: (u8, u8) = (6, 4);
    if !owned.is_empty() {
        for f in functions.iter().filter(|f| f.class() == BRIDGE) {
            let _ = pci.add(filter::Function::bridge(bdf(f)));
        }
    }
    pci
}

fn msr_bitmap(s: &Support) -> MsrBitmap {
    let mut msrs = MsrBitmap::none();
    let own = OWN_MSRS.iter().filter(|msr| **msr != 0xC000_0103 || s.instructions.rdtscp);
    let passed = [(TSC, Pass::Read), (PAT, Pass::Both), (EFER, Pass::Both)];
    for (msr, pass) in
        passed.iter().chain(X2APIC_PASSED).copied().chain(own.map(|msr| (*msr, Pass::Both)))
    {
        msrs.allow(msr, pass).expect("all of these are covered");
    }
    msrs
}

fn io_bitmap(p: &Partition<'_>) -> IoBitmap {
    let mut ports = IoBitmap::none();
    if let Control::Serial(first) = p.control {
        ports.allow(first, SERIAL_PORTS);
    }
    ports
}
