//! The order of boot, from `BootInfo` to running cores.
#![allow(unsafe_code, reason = "switches from the boot stack to the core's own")]

use bootloader_api::BootInfo;
use bootloader_api::info::MemoryRegionKind;
use ix_kernel_core::archive::Archive;
use ix_kernel_core::cmdline::{self, Config, log_level::Level};
use ix_kernel_core::stacks;
use ix_kernel_core::symbols::{self, Symbols};
use spin::Once;

use crate::cpu::{descriptors, features};
use crate::mem::layout;
use crate::{apic, cpu, crash, firmware, mem, smp, time, unsupported};

/// What the boot core found out and every core may read.
pub struct Machine {
    pub config: Config<'static>,
    pub archive: Option<Archive<'static>>,
    pub boot: &'static BootInfo,
}

static MACHINE: Once<Machine> = Once::new();

pub fn machine() -> &'static Machine {
    MACHINE.get().expect("set by kernel_main")
}

/// The kernel proper, whichever loader ran. Runs on the boot stack with the boot page tables; leaves
/// both as soon as it can.
pub fn kernel_main(boot: &'static BootInfo, cmdline: &'static str) -> ! {
    time::start();
    log::info!("IX {} starts", env!("CARGO_PKG_VERSION"));
    let config = match cmdline::parse(cmdline) {
        Ok(config) => config,
        Err(e) => unsupported!("{e}"),
    };
    log::set_max_level(match config.log {
        Level::Error => log::LevelFilter::Error,
        Level::Warn => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
    });
    if let Err(what) = features::check() {
        unsupported!("this CPU has no {what}");
    }
    mem::init(boot);
    if mem::map_stacks(0).is_none() {
        unsupported!("no memory for kernel stacks");
    }
    descriptors::init_idt();
    MACHINE.call_once(|| Machine { config, archive: open_archive(boot), boot });
    run_on_stack(stacks::main_stack(0).1, boot_core)
}

fn open_archive(boot: &'static BootInfo) -> Option<Archive<'static>> {
    let start = *boot.ramdisk_addr.as_ref()?;
    // SAFETY: the loader put the module there; `mem::init` has reserved it, nobody writes it.
    let bytes = unsafe {
        core::slice::from_raw_parts(
            layout::direct(ix_kernel_core::addr::Phys(start)) as *const u8,
            usize::try_from(boot.ramdisk_len).ok()?,
        )
    };
    match Archive::parse(bytes) {
        Ok(archive) => {
            if let Some(s) = archive.find(symbols::MEMBER).and_then(Symbols::parse) {
                crash::set_symbols(s);
            }
            Some(archive)
        }
        Err(e) => unsupported!("{e}"),
    }
}

fn run_on_stack(top: u64, f: fn() -> !) -> ! {
    // SAFETY: `top` is the end of a mapped stack that nothing uses; `f` never returns.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {f}",
            "ud2",
            top = in(reg) top,
            f = in(reg) f,
            options(noreturn)
        )
    }
}

/// The rest of boot, on core 0's own stack.
fn boot_core() -> ! {
    cpu::init(0);
    apic::init();
    apic::init_core();
    let m = machine();
    let Some(&rsdp) = m.boot.rsdp_addr.as_ref() else {
        unsupported!("the loader gave no ACPI tables");
    };
    let fw = match firmware::read(rsdp) {
        Ok(fw) => fw,
        Err(e) => unsupported!("{e}"),
    };
    let reference = match time::calibrate(&fw) {
        Ok(name) => name,
        Err(e) => unsupported!("{e}"),
    };
    let wanted = m.config.cores.unwrap_or(cpu::percore::CORES_MAX);
    let cores = match smp::start(m.boot, &fw, wanted) {
        Ok(n) => n,
        Err(e) => unsupported!("{e}"),
    };
    report(m, &fw, cores, reference);
    if let Some(wanted) = m.config.cores
        && wanted > cores
    {
        log::warn!("cores={wanted} asked for, the machine has {cores}");
    }
    crate::selftest::run_if_asked(cores);
    smp::release();
    core_main(0)
}

fn report(m: &Machine, fw: &firmware::Firmware, cores: usize, reference: &str) {
    let p = features::check().expect("checked before");
    let yes = |b, name| if b { name } else { "" };
    let usable: u64 = m
        .boot
        .memory_regions
        .iter()
        .filter(|r| r.kind == MemoryRegionKind::Usable)
        .map(|r| r.end - r.start)
        .sum();
    log::info!("memory: {} MiB, {} MiB free", usable >> 20, mem::free_bytes() >> 20);
    log::info!(
        "cores: {cores} of {}, {}, TSC {} kHz by {reference}, timer {} kHz",
        fw.apic_ids.len() + fw.more_cores,
        apic::mode(),
        time::tsc_khz(),
        apic::timer_khz()
    );
    log::info!(
        "protection: W^X NX{}{}{}",
        yes(p.smep, " SMEP"),
        yes(p.smap, " SMAP"),
        yes(p.umip, " UMIP")
    );
}

/// What every core does once the machine is set up.
pub fn core_main(_core: usize) -> ! {
    crash::park()
}
