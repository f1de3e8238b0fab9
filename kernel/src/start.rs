//! The order of boot, from `BootInfo` to running cores.
#![allow(unsafe_code, reason = "switches from the boot stack to the core's own")]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use bootloader_api::BootInfo;
use ix_abi::CoreId;
use ix_abi::event_log::EventKind;
use ix_dataplane::config::{Addressing, Algorithm, Config as EngineConfig, EcnMode, Ipv4Config};
use ix_dataplane::device::Dma;
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::{RX_BATCH_DEFAULT, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::Pool;
use ix_dataplane::mesh::{self, Sizes};
use ix_dataplane::profile::Profile;
use ix_dataplane::slaac::{Identifiers, Mode};
use ix_kernel_core::addr::Phys;
use ix_kernel_core::archive::Archive;
use ix_kernel_core::cmdline::{
    self, Address, Address6, Config, Congestion, Ecn, Nic, Tcp, log_level::Level,
};
use ix_kernel_core::stacks;
use ix_kernel_core::symbols::{self, Symbols};
use spin::{Mutex, Once};

use crate::cpu::percore::CORES_MAX;
use crate::cpu::{descriptors, features};
use crate::line::Line;
use crate::manager::{Fixed, Manager};
use crate::mem::layout;
use crate::net::{self, Net, Share, Wishes};
use crate::platform::KernelPlatform;
use crate::renew::Renewal;
use crate::user::lifecycle;
use crate::{
    apic, control, cpu, crash, entropy, firmware, iommu, mem, pci, report, smp, time, unsupported,
    watch,
};

/// What the boot core found out and every core may read.
pub struct Machine {
    pub config: Config<'static>,
    pub cmdline: &'static str,
    pub archive: Option<Archive<'static>>,
    pub boot: &'static BootInfo,
    /// Unix time of the boot in nanoseconds; 0 if unknown.
    boot_unix_ns: AtomicU64,
}

impl Machine {
    pub fn boot_unix_ns(&self) -> u64 {
        self.boot_unix_ns.load(Ordering::Relaxed)
    }
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
    if let Some(what) = features::lacks() {
        unsupported!("this CPU lacks: {what}. IX needs a 64-bit CPU with it");
    }
    mem::init(boot);
    if mem::map_stacks(0).is_none() {
        unsupported!("no memory for kernel stacks");
    }
    descriptors::init_idt();
    let archive = open_archive(boot);
    report::loader();
    if let (Some(app), None) = (config.app, &archive) {
        unsupported!(
            "app={app}: the loader gave no module with the applications (GRUB: module2, QEMU: -initrd)"
        );
    }
    MACHINE.call_once(|| Machine {
        config,
        cmdline,
        archive,
        boot,
        boot_unix_ns: AtomicU64::new(0),
    });
    run_on_stack(stacks::main_stack(0).1, boot_core)
}

fn open_archive(boot: &'static BootInfo) -> Option<Archive<'static>> {
    let start = Phys(*boot.ramdisk_addr.as_ref()?);
    // Wherever the loader put it: if that is nothing that the map calls RAM, it is mapped by itself.
    let at = if mem::is_direct(start, boot.ramdisk_len) {
        layout::direct(start)
    } else {
        match mem::map_firmware(start, boot.ramdisk_len) {
            Ok(va) => va.0,
            Err(_) => unsupported!("the boot archive at {start:?} cannot be mapped"),
        }
    };
    // SAFETY: mapped, and the loader put the module there; `boot` has taken it out of the usable
    // memory, so nobody writes it.
    let bytes = unsafe {
        core::slice::from_raw_parts(at as *const u8, usize::try_from(boot.ramdisk_len).ok()?)
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
        unsupported!(
            "no ACPI tables: IX needs them to find cores and timers (is ACPI off in the firmware's setup?)"
        );
    };
    let fw = match firmware::read(rsdp) {
        Ok(fw) => fw,
        Err(e) => unsupported!("{e}"),
    };
    let clock = match time::calibrate(&fw) {
        Ok(clock) => clock,
        Err(e) => unsupported!("{e}"),
    };
    m.boot_unix_ns.store(time::unix_ns_at_boot(), Ordering::Relaxed);
    let wanted = m.config.cores.unwrap_or(CORES_MAX);
    let cores = match smp::start(m.boot, &fw, wanted) {
        Ok(n) => n,
        Err(e) => unsupported!("{e}"),
    };
    report::machine(m, &fw, cores, clock);
    if let Some(wanted) = m.config.cores
        && wanted > cores
    {
        log::warn!("cores={wanted} asked for, the machine has {cores}");
    }
    let functions = pci::scan(&fw, m.config.report || !report::has_hypervisor());
    // Firmware may have left a card receiving into memory that is ours now.
    functions.iter().filter(|f| f.is_network()).for_each(pci::Function::stop_dma);
    if m.config.report {
        report::full(m, &fw, clock, &functions);
    }
    crate::vmx::start_if_wanted(m, cores, &functions);
    crate::selftest::run_if_asked(cores, &functions);
    set_up(m, &functions, cores);
    smp::release();
    core_main(0)
}

/// The address on the command line, if it is static.
pub fn static_address() -> Option<[u8; 4]> {
    match machine().config.address {
        Address::Static { addr, .. } => Some(addr),
        Address::Dhcp => None,
    }
}

/// What each core takes when it starts to run.
struct CoreKit {
    engine: Engine,
    share: Share,
    manager: Option<Box<Manager>>,
}

// SAFETY: plain memory and values without ties to a core; a kit is taken by one core, once.
unsafe impl Send for CoreKit {}

static KITS: [Mutex<Option<CoreKit>>; CORES_MAX] = [const { Mutex::new(None) }; CORES_MAX];

/// Devices, engines, the application: everything that runs on cores, made by core 0.
fn set_up(m: &Machine, functions: &[pci::Function], cores: usize) {
    log::debug!("set-up begins");
    let mut line = None;
    match control::attach(functions) {
        Ok(true) => {}
        Ok(false) => line = control_line(),
        Err(e) => log::error!("control page: {e}"),
    }
    let wishes = Wishes { mtu: m.config.mtu, vlan: m.config.vlan, pause: m.config.pause };
    let mut net = match net::open(functions, cores, wishes) {
        Ok(net) => net,
        Err(e) => unsupported!("{e}"),
    };
    report::idle_cards(functions);
    log::debug!("port is open");
    let [m0, m1, m2, m3, m4, m5] = net.mac;
    let mac = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0]);
    let groups = u64::from(net.capabilities.groups);
    watch::log::record(EventKind::PortOpen, net.capabilities.queue_pairs, groups, mac);
    if m.config.verbose {
        watch::trace_from_boot();
    }
    let batch = m.config.batch.unwrap_or(RX_BATCH_DEFAULT);
    control::publish_facts(&control::Facts {
        cores,
        groups: net.capabilities.groups,
        queues: net.capabilities.queue_pairs,
        mac: net.mac,
        app: m.config.app.unwrap_or(""),
        batch,
    });
    lifecycle::set_cores(cores);
    let fixed = Fixed {
        cores,
        background: m.config.background,
        sharing: sharing(&net),
        groups: net.capabilities.groups,
        rx_area: net.area_memory,
        has_nic: net.control.is_some(),
        mss: net.capabilities.mtu.saturating_sub(40),
    };
    let renewal = Renewal::new(net.control.take(), cores);
    let mut manager = Box::new(Manager::new(fixed, renewal, line));
    make_kits(m, net, batch);
    if let Some(name) = m.config.acl {
        load_rules(m, name);
    }
    log::debug!("engines are made, the heap has {} KiB", mem::heap::figures().0 >> 10);
    if let Err(e) = manager.start_app(static_address()) {
        unsupported!("app {}: {e}", m.config.app.unwrap_or(""));
    }
    if let Some(bytes) = iommu::given_bytes() {
        let all = mem::total_bytes() >> 20;
        log::info!("IOMMU: of {all} MiB the network card reaches {} MiB", bytes >> 20);
    }
    if let Some(kit) = KITS[0].lock().as_mut() {
        kit.manager = Some(manager);
    }
}

/// Cores whose queue others send through, a bit each.
fn sharing(net: &Net) -> u64 {
    let shares = net.shares.iter().enumerate().filter(|(_, share)| share.shared);
    shares.fold(0, |all, (core, _)| all | 1 << core)
}

/// Where no memory is shared: the page over a serial line, if there is a port for it.
fn control_line() -> Option<Line> {
    let at = machine().config.line;
    let line = Line::open(at).filter(|_| control::use_own_memory(ix_abi::frame::PAGE_BYTES));
    match &line {
        Some(_) => log::info!("control page over {}", at.name()),
        None => log::info!("no control page (ivshmem, or {}): ixcp sees nothing", at.name()),
    }
    line
}

/// Fails closed: without the rules that were asked for, nothing is served.
fn load_rules(m: &Machine, name: &str) {
    let Some(source) = m.archive.and_then(|a| a.find(name)) else {
        unsupported!("acl={name}: the boot archive has no such member");
    };
    let made = KITS[0]
        .lock()
        .as_mut()
        .map(|kit| crate::manager::acl::at_boot(source, &mut kit.engine, static_address()));
    match made {
        Some(Ok(parts)) => {
            for (kit, part) in KITS.iter().zip(parts) {
                if let Some(kit) = kit.lock().as_mut() {
                    kit.engine.begin_with_rules(part);
                }
            }
        }
        Some(Err(e)) => unsupported!("acl={name}: {e}"),
        None => {}
    }
}

fn make_kits(m: &Machine, net: Net, batch: usize) {
    let cores = net.shares.len() as u16;
    let addressing = match m.config.address {
        Address::Dhcp => Addressing::Dhcp,
        Address::Static { addr, prefix } => {
            let gateway = m.config.gateway;
            Addressing::Static(Ipv4Config { address: addr, prefix, gateway })
        }
    };
    let looped = m.config.nic == Nic::Loopback;
    let ipv6 = match m.config.address6 {
        _ if looped => Mode::Off,
        Address6::Off => Mode::Off,
        Address6::Auto => Mode::Auto(Identifiers::Stable),
        Address6::Eui64 => Mode::Auto(Identifiers::Eui64),
        Address6::Static { addr, prefix } => {
            Mode::Static { address: addr, prefix, gateway: m.config.gateway6 }
        }
    };
    let congestion = match m.config.congestion {
        Congestion::Cubic => Algorithm::Cubic,
        Congestion::NewReno => Algorithm::NewReno,
        Congestion::Dctcp => Algorithm::Dctcp,
    };
    let ecn = match m.config.ecn {
        Ecn::Off => EcnMode::Off,
        Ecn::Accept => EcnMode::Accept,
        Ecn::On => EcnMode::On,
    };
    let mut secret = [0; 16];
    entropy::fill(&mut secret);
    let endpoints = mesh::build(cores, Sizes::default());
    for (core, (share, endpoint)) in net.shares.into_iter().zip(endpoints).enumerate() {
        let id = CoreId(core as u16);
        let mut c = EngineConfig::new(id, cores, net.mac, net.capabilities, addressing);
        c.ipv6 = ipv6;
        c.loopback = looped;
        c.rss_key = net.rss_key;
        c.secret = secret;
        c.seed = entropy::next();
        c.rx_batch = batch;
        c.congestion = congestion;
        c.ecn = ecn;
        c.reassemble = m.config.reassemble;
        c.profile = match m.config.tcp {
            Tcp::Internet => Profile::INTERNET,
            Tcp::Datacentre => Profile::DATACENTRE,
        };
        let pool = Pool::new(net.area, id);
        let Some(headers) = net::KernelDma.alloc(TX_HEADER_REGION_BYTES, 4096) else {
            unsupported!("no memory for transmit headers");
        };
        let mut engine = Engine::new(c, pool, endpoint, &headers);
        engine.set_tsc_khz(time::tsc_khz());
        *KITS[core].lock() = Some(CoreKit { engine, share, manager: None });
    }
}

/// What every core does once the machine is set up.
pub fn core_main(core: usize) -> ! {
    if crate::vmx::is_monitor() {
        crate::vmx::core_main(core);
    }
    crate::selftest::other_core(core);
    let Some(kit) = KITS.get(core).and_then(|k| k.lock().take()) else { crash::park() };
    KernelPlatform::new(core, kit.share, machine().config.idle, kit.manager).run(kit.engine)
}
