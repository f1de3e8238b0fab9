//! What this machine is, in lines that a person can send: a few at every boot, all of it with `report=1`.
//! What is missing or doubtful is a warning, at every boot.

use core::fmt::Write;

use alloc::string::String;
use bootloader_api::info::MemoryRegionKind;
use ix_kernel_core::clock::Quality;
use raw_cpuid::CpuId;

use crate::boot::facts;
use crate::cpu::features;
use crate::cpu::percore::CORES_MAX;
use crate::firmware::Firmware;
use crate::pci::Function;
use crate::start::Machine;
use crate::time::Source;
use crate::{apic, console, control, entropy, mem, net, time};

/// The first thing that is said, once the archive is known.
pub fn loader() {
    let f = facts();
    let mut text = String::new();
    let _ = write!(text, "started by {} ({}), ", f.loader, f.protocol);
    let m = &f.machine;
    match (&f.efi, m.firmware_vendor.is_empty()) {
        (Some(e), true) => drop(write!(text, "UEFI firmware of {}", e.vendor)),
        (efi, false) => {
            let kind = if efi.is_some() { "UEFI" } else { "BIOS" };
            let _ = write!(text, "{kind} {} {}", m.firmware_vendor, m.firmware_version);
        }
        (None, true) => text.push_str("unknown firmware"),
    }
    text.push_str("; console: ");
    let _ = console::report(&mut text);
    log::info!("{text}");
    if let Some(why) = f.screen_trouble {
        log::warn!("the loader's screen cannot be used: {why}");
    }
    if f.ranges_dropped > 0 {
        log::warn!(
            "the memory map has {} ranges too many: their memory is unused",
            f.ranges_dropped
        );
    }
}

/// What every boot says of the machine.
pub fn machine(m: &Machine, fw: &Firmware, cores: usize, clock: Source) {
    let p = features::protection();
    let yes = |b, name| if b { name } else { "" };
    log::info!("CPU: {}", cpu_name());
    log::info!("memory: {} MiB, {} MiB free", ram_bytes(m) >> 20, mem::free_bytes() >> 20);
    let all = fw.apic_ids.len() + fw.more_cores;
    log::info!(
        "cores: {cores} of {all}, {}, TSC {} kHz by {} ({}), timer {} kHz",
        apic::mode(),
        time::tsc_khz(),
        clock.name,
        clock.quality,
        apic::timer_khz()
    );
    log::info!(
        "protection: W^X NX{}{}{}",
        yes(p.smep, " SMEP"),
        yes(p.smap, " SMAP"),
        yes(p.umip, " UMIP")
    );
    if fw.more_cores > 0 {
        log::warn!("the machine has {all} cores: IX uses {CORES_MAX} at most");
    }
    match clock.quality {
        Quality::Agreed => {}
        Quality::Alone => {
            log::warn!("the TSC's frequency is by {} alone: not confirmed", clock.name);
        }
        Quality::Disputed => log::warn!(
            "no two timers agree on the TSC's frequency: {} is taken, times may be wrong",
            clock.name
        ),
    }
    // Emulators and hypervisors keep it constant without saying so.
    if !time::is_invariant() && !has_hypervisor() {
        log::warn!("the TSC is not invariant: times will be wrong when the CPU changes its speed");
    }
    if !entropy::has_hardware() {
        log::warn!("no RDRAND: keys come from the time-stamp counter's jitter alone");
    }
}

fn ram_bytes(m: &Machine) -> u64 {
    let ram = m
        .boot
        .memory_regions
        .iter()
        .filter(|r| matches!(r.kind, MemoryRegionKind::Usable | MemoryRegionKind::Bootloader));
    ram.map(|r| r.end - r.start).sum()
}

pub fn has_hypervisor() -> bool {
    CpuId::new().get_feature_info().is_some_and(|f| f.has_hypervisor())
}

fn cpu_name() -> String {
    let cpuid = CpuId::new();
    let mut text = String::new();
    if let Some(brand) = cpuid.get_processor_brand_string() {
        text.push_str(brand.as_str().trim());
    } else if let Some(vendor) = cpuid.get_vendor_info() {
        text.push_str(vendor.as_str());
    }
    if let Some(f) = cpuid.get_feature_info() {
        let (family, model, stepping) = (f.family_id(), f.model_id(), f.stepping_id());
        let _ = write!(text, ", family {family:#x} model {model:#x} stepping {stepping}");
    }
    text
}

/// Says which network cards there are that no driver drives; the machine runs all the same.
pub fn idle_cards(functions: &[Function]) {
    for f in functions.iter().filter(|f| f.is_network() && driver(f).is_none()) {
        log::warn!("network card {f}: no driver");
    }
}

fn driver(f: &Function) -> Option<&'static str> {
    net::driver(f).or_else(|| control::drives(f).then_some("control page"))
}

/// All of it.
pub fn full(m: &Machine, fw: &Firmware, clock: Source, functions: &[Function]) {
    log::info!("report: IX {} begins", env!("CARGO_PKG_VERSION"));
    firmware();
    cpu(fw, clock);
    memory(m);
    tables(fw);
    devices(functions);
    log::info!("report: ends");
}

fn firmware() {
    let f = facts();
    log::info!("report: loader: {} by {}, {} modules", f.loader, f.protocol, f.modules);
    let m = &f.machine;
    log::info!(
        "report: firmware: {} {} of {}",
        known(&m.firmware_vendor),
        known(&m.firmware_version),
        known(&m.firmware_date)
    );
    match &f.efi {
        Some(e) => log::info!(
            "report: UEFI {}.{} of {}, revision {:#x}",
            e.revision >> 16,
            (e.revision & 0xFFFF) / 10,
            e.vendor,
            e.firmware_revision
        ),
        None => log::info!("report: no UEFI system table"),
    }
    log::info!(
        "report: machine: {} {}, board {}",
        known(&m.maker),
        known(&m.product),
        known(&m.board)
    );
    let mut text = String::new();
    let _ = console::report(&mut text);
    log::info!("report: console: {text}");
}

fn known(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

fn cpu(fw: &Firmware, clock: Source) {
    let cpuid = CpuId::new();
    let vendor = cpuid.get_vendor_info();
    let vendor = vendor.as_ref().map_or("?", |v| v.as_str());
    log::info!("report: CPU: {vendor}, {}", cpu_name());
    let basic = cpuid.get_feature_info();
    let more = cpuid.get_extended_feature_info();
    let other = cpuid.get_extended_processor_and_feature_identifiers();
    let basic = |has: fn(&raw_cpuid::FeatureInfo) -> bool| basic.as_ref().is_some_and(has);
    let more = |has: fn(&raw_cpuid::ExtendedFeatures) -> bool| more.as_ref().is_some_and(has);
    let features = [
        ("SMEP", more(|f| f.has_smep())),
        ("SMAP", more(|f| f.has_smap())),
        ("UMIP", more(|f| f.has_umip())),
        ("1-GiB-pages", other.as_ref().is_some_and(|f| f.has_1gib_pages())),
        ("x2APIC", basic(|f| f.has_x2apic())),
        ("TSC-deadline", basic(|f| f.has_tsc_deadline())),
        ("invariant-TSC", time::is_invariant()),
        ("RDRAND", basic(|f| f.has_rdrand())),
        ("RDSEED", more(|f| f.has_rdseed())),
        ("PCID", basic(|f| f.has_pcid())),
        ("VMX", basic(|f| f.has_vmx())),
        ("SVM", other.as_ref().is_some_and(|f| f.has_svm())),
    ];
    for (title, wanted) in [("has", true), ("lacks", false)] {
        let mut text = String::new();
        for (name, _) in features.iter().filter(|(_, has)| *has == wanted) {
            let _ = write!(text, " {name}");
        }
        log::info!("report: CPU {title}:{text}");
    }
    let ids = fw.apic_ids.iter().fold(String::new(), |mut text, id| {
        let _ = write!(text, " {id}");
        text
    });
    log::info!("report: APIC {}, this core {}, all:{ids}", apic::mode(), apic::id());
    log::info!(
        "report: clock: TSC {} kHz by {} ({}); PM timer {}, HPET {}; APIC timer {} kHz",
        time::tsc_khz(),
        clock.name,
        clock.quality,
        there(fw.pm_timer.is_some()),
        there(fw.hpet.is_some()),
        apic::timer_khz()
    );
    log::info!("report: hypervisor: {}", if has_hypervisor() { "yes" } else { "none" });
}

fn there(is: bool) -> &'static str {
    if is { "there" } else { "none" }
}

fn memory(m: &Machine) {
    for r in m.boot.memory_regions.iter() {
        let kind = match r.kind {
            MemoryRegionKind::Usable => "usable",
            MemoryRegionKind::Bootloader => "kept",
            MemoryRegionKind::UnknownBios(3) => "ACPI tables",
            MemoryRegionKind::UnknownBios(4) => "ACPI NVS",
            MemoryRegionKind::UnknownBios(5) => "bad",
            _ => "reserved",
        };
        let kib = (r.end - r.start) >> 10;
        log::info!("report: memory {:#014x}..{:#014x} {kib} KiB {kind}", r.start, r.end);
    }
    for a in &facts().areas {
        log::info!("report: {} at {:#x}, {} bytes", a.name, a.start, a.len);
    }
}

fn tables(fw: &Firmware) {
    let mut text = String::new();
    for name in &facts().tables {
        text.push(' ');
        text.extend(name.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '?' }));
    }
    log::info!("report: ACPI:{text}");
    let has = |name: &[u8; 4]| facts().tables.contains(name);
    let iommu = match (has(b"DMAR"), has(b"IVRS")) {
        (true, _) => "Intel VT-d",
        (_, true) => "AMD-Vi, not used",
        _ => "none",
    };
    log::info!("report: IOMMU: {iommu}; PCI configuration by ECAM: {}", there(!fw.ecam.is_empty()));
}

fn devices(functions: &[Function]) {
    for f in functions {
        let (class, subclass) = f.class();
        let what = match class {
            0x01 => "storage",
            0x02 => "network",
            0x03 => "display",
            0x04 => "multimedia",
            0x06 => "bridge",
            0x0C => "bus",
            _ => "other",
        };
        let driver = driver(f).unwrap_or(if class == 6 { "needs none" } else { "no driver" });
        log::info!("report: PCI {f} {class:02x}{subclass:02x} {what}: {driver}");
    }
}
