//! PCI: configuration space through ECAM, or through ports CF8/CFC where the firmware names none;
//! finding functions, their BARs and capabilities.
//!
//! The firmware has assigned all BARs; the kernel takes them as they are.
#![allow(unsafe_code, reason = "configuration space by address and by port")]

pub mod msix;
pub mod registers;

use alloc::vec::Vec;

use ix_kernel_core::addr::Phys;
use ix_vtd::SourceId;
use pci_types::capability::PciCapability;
use pci_types::{
    Bar, CommandRegister, ConfigRegionAccess, EndpointHeader, HeaderType, PciAddress, PciHeader,
    PciPciBridgeHeader,
};
use spin::{Mutex, Once};
use x86_64::instructions::port::{Port, PortWriteOnly};

use crate::firmware::{Ecam, Firmware};
use crate::mem;
use registers::Registers;

/// Bytes of one bus in ECAM (PCI Express Base, 7.2.2).
const BUS_BYTES: u64 = 1 << 20;
/// Buses that are looked at: bounds the scan whatever bridges say.
const BUSES_MAX: usize = 256;

/// Access to configuration space.
#[derive(Debug)]
pub struct Config {
    ecam: Option<(Ecam, u64)>,
    /// Address and data port belong together.
    ports: Mutex<()>,
}

static CONFIG: Once<Config> = Once::new();

impl Config {
    fn new(fw: &Firmware) -> Self {
        let ecam = fw.ecam.iter().find(|e| e.segment == 0 && e.last_bus >= e.first_bus);
        let mapped = ecam.and_then(|e| {
            let buses = u64::from(e.last_bus - e.first_bus) + 1;
            let first = e.base + u64::from(e.first_bus) * BUS_BYTES;
            Some((*e, mem::map_device(Phys(first), buses * BUS_BYTES).ok()?.0))
        });
        Self { ecam: mapped, ports: Mutex::new(()) }
    }

    pub fn name(&self) -> &'static str {
        if self.ecam.is_some() { "ECAM" } else { "CF8" }
    }

    fn ecam_register(&self, a: PciAddress, offset: u16) -> Option<*mut u32> {
        let (ecam, base) = self.ecam.as_ref()?;
        if a.bus() < ecam.first_bus || a.bus() > ecam.last_bus {
            return None;
        }
        let function = u64::from(a.bus() - ecam.first_bus) << 20
            | u64::from(a.device() & 31) << 15
            | u64::from(a.function() & 7) << 12;
        Some((base + function + u64::from(offset & 0xFFC)) as *mut u32)
    }

    fn select(a: PciAddress, offset: u16) {
        let address = 0x8000_0000
            | u32::from(a.bus()) << 16
            | u32::from(a.device() & 31) << 11
            | u32::from(a.function() & 7) << 8
            | u32::from(offset & 0xFC);
        // SAFETY: the configuration address port of every PC; nobody else uses it.
        unsafe { PortWriteOnly::<u32>::new(0xCF8).write(address) };
    }
}

impl ConfigRegionAccess for &Config {
    unsafe fn read(&self, a: PciAddress, offset: u16) -> u32 {
        if let Some(at) = self.ecam_register(a, offset) {
            // SAFETY: within the mapped ECAM area, aligned to 4.
            return unsafe { at.read_volatile() };
        }
        if offset > 0xFF {
            return u32::MAX;
        }
        let _ports = self.ports.lock();
        Config::select(a, offset);
        // SAFETY: the configuration data port.
        unsafe { Port::<u32>::new(0xCFC).read() }
    }

    unsafe fn write(&self, a: PciAddress, offset: u16, value: u32) {
        if let Some(at) = self.ecam_register(a, offset) {
            // SAFETY: within the mapped ECAM area, aligned to 4.
            return unsafe { at.write_volatile(value) };
        }
        if offset > 0xFF {
            return;
        }
        let _ports = self.ports.lock();
        Config::select(a, offset);
        // SAFETY: the configuration data port.
        unsafe { Port::<u32>::new(0xCFC).write(value) };
    }
}

/// A piece of physical address space behind a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarRange {
    pub start: Phys,
    pub len: u64,
}

/// A function that was found.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub address: PciAddress,
    pub vendor: u16,
    pub device: u16,
}

impl Function {
    fn endpoint(&self) -> Option<EndpointHeader> {
        EndpointHeader::from_header(PciHeader::new(self.address), config())
    }

    /// Class and subclass.
    pub fn class(&self) -> (u8, u8) {
        let [_, _, subclass, class] = self.read32(8).to_le_bytes();
        (class, subclass)
    }

    pub fn is_network(&self) -> bool {
        self.class().0 == 2
    }

    /// A dword of its configuration space.
    pub fn read32(&self, offset: u16) -> u32 {
        // SAFETY: reading the standard header and capabilities has no effect on the device.
        unsafe { config().read(self.address, offset) }
    }

    /// The memory behind a BAR; `None` for I/O ports, absent and unassigned ones. Sizing turns the
    /// function's decoding off for a moment: before the device is used only.
    pub fn bar(&self, slot: u8) -> Option<BarRange> {
        let mut endpoint = self.endpoint()?;
        let before = endpoint.command(config());
        let decode = CommandRegister::MEMORY_ENABLE | CommandRegister::IO_ENABLE;
        endpoint.update_command(config(), |c| c & !decode);
        let bar = if slot < 6 { endpoint.bar(slot, config()) } else { None };
        endpoint.update_command(config(), |_| before);
        let (start, len) = match bar? {
            Bar::Memory32 { address, size, .. } => (u64::from(address), u64::from(size)),
            Bar::Memory64 { address, size, .. } => (address, size),
            Bar::Io { .. } => return None,
        };
        let valid = start != 0 && len != 0 && start.checked_add(len).is_some();
        valid.then_some(BarRange { start: Phys(start), len })
    }

    /// Maps a part of a BAR as registers.
    pub fn map(&self, slot: u8, offset: u64, len: u64) -> Option<Registers> {
        let bar = self.bar(slot)?;
        if offset.checked_add(len)? > bar.len {
            return None;
        }
        let va = mem::map_device(Phys(bar.start.0 + offset), len).ok()?;
        // SAFETY: just mapped, `len` bytes, for good.
        Some(unsafe { Registers::new(va, usize::try_from(len).ok()?) })
    }

    /// Lets it answer to memory accesses and do DMA; legacy interrupts off.
    pub fn enable(&self) {
        if let Some(mut e) = self.endpoint() {
            e.update_command(config(), |c| {
                c | CommandRegister::MEMORY_ENABLE
                    | CommandRegister::BUS_MASTER_ENABLE
                    | CommandRegister::INTERRUPT_DISABLE
            });
        }
    }

    /// Takes its right to do DMA away, until [`Function::enable`].
    pub fn stop_dma(&self) {
        if let Some(mut e) = self.endpoint() {
            e.update_command(config(), |c| c & !CommandRegister::BUS_MASTER_ENABLE);
        }
    }

    fn capabilities(&self) -> Vec<PciCapability> {
        // A list that loops ends here.
        self.endpoint().map_or(Vec::new(), |e| e.capabilities(config()).take(48).collect())
    }
}

impl core::fmt::Display for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let a = self.address;
        let (bus, device, function) = (a.bus(), a.device(), a.function());
        write!(f, "{bus:02x}:{device:02x}.{function} [{:04x}:{:04x}]", self.vendor, self.device)
    }
}

/// The first and the last bus behind a bridge; `None` if that is none.
pub fn buses_behind(bridge: SourceId) -> Option<(u8, u8)> {
    let entry = bridge.entry() as u8;
    let header = PciHeader::new(PciAddress::new(0, bridge.bus(), entry >> 3, entry & 7));
    let config = config();
    if header.id(config).0 == 0xFFFF || header.header_type(config) != HeaderType::PciPciBridge {
        return None;
    }
    let bridge = PciPciBridgeHeader::from_header(header, config)?;
    Some((bridge.secondary_bus_number(config), bridge.subordinate_bus_number(config)))
}

/// The address of a function by its number on bus 0 to 255: `bus << 8 | device << 3 | function`.
pub fn address_of(bdf: u16) -> PciAddress {
    PciAddress::new(0, (bdf >> 8) as u8, (bdf >> 3) as u8 & 31, bdf as u8 & 7)
}

/// Reads 1, 2 or 4 bytes of a function's first 256, aligned to their number.
pub fn read_part(a: PciAddress, offset: u8, width: u8) -> u32 {
    let _ports = config().ports.lock();
    Config::select(a, u16::from(offset));
    let port = 0xCFC + u16::from(offset & 3);
    // SAFETY: the configuration data port; what is read is a dataplane's own function, or a bridge's header.
    unsafe {
        match width {
            1 => u32::from(Port::<u8>::new(port).read()),
            2 => u32::from(Port::<u16>::new(port).read()),
            _ => Port::<u32>::new(port).read(),
        }
    }
}

/// Writes so many.
pub fn write_part(a: PciAddress, offset: u8, width: u8, value: u32) {
    let _ports = config().ports.lock();
    Config::select(a, u16::from(offset));
    let port = 0xCFC + u16::from(offset & 3);
    // SAFETY: as above; what may be written the monitor's filter has judged.
    unsafe {
        match width {
            1 => Port::<u8>::new(port).write(value as u8),
            2 => Port::<u16>::new(port).write(value as u16),
            _ => Port::<u32>::new(port).write(value),
        }
    }
}

fn config() -> &'static Config {
    CONFIG.get().expect("pci::scan comes first")
}

/// Finds all functions, bus by bus behind the bridges that the firmware has numbered. `thorough`: on
/// buses that no bridge leads to, too: big machines have several host bridges, which only AML names.
pub fn scan(fw: &Firmware, thorough: bool) -> Vec<Function> {
    let config = CONFIG.call_once(|| Config::new(fw));
    let mut found = Vec::new();
    let last = config.ecam.map_or(0, |(ecam, _)| ecam.last_bus);
    let mut buses = alloc::vec![0u8];
    let mut next = 0;
    // First bus 0 and what its bridges lead to; then, if wanted, every other bus in the same way.
    for root in 0..=if thorough { last } else { 0 } {
        if root != 0 && !buses.contains(&root) {
            buses.push(root);
        }
        while let Some(&bus) = buses.get(next) {
            next += 1;
            (0..32).for_each(|device| scan_device(config, bus, device, &mut found, &mut buses));
        }
    }
    log::debug!("PCI by {}: {} functions on {} buses", config.name(), found.len(), buses.len());
    for f in &found {
        log::debug!("PCI {f}");
    }
    found
}

fn scan_device(c: &Config, bus: u8, device: u8, found: &mut Vec<Function>, buses: &mut Vec<u8>) {
    for function in 0..8 {
        let address = PciAddress::new(0, bus, device, function);
        let header = PciHeader::new(address);
        let (vendor, id) = header.id(c);
        if vendor == 0xFFFF {
            if function == 0 {
                return;
            }
            continue;
        }
        found.push(Function { address, vendor, device: id });
        let more = header.has_multiple_functions(c);
        if header.header_type(c) == HeaderType::PciPciBridge
            && let Some(bridge) = PciPciBridgeHeader::from_header(header, c)
        {
            let behind = bridge.secondary_bus_number(c);
            if behind != 0 && !buses.contains(&behind) && buses.len() < BUSES_MAX {
                buses.push(behind);
            }
        }
        if function == 0 && !more {
            return;
        }
    }
}
