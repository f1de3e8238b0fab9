//! The virtio capabilities of a PCI function, read by a pure function over its configuration
//! space (virtio 1.2 §4.1.4; PCI 3.0 §6.7 for the list itself).
use core::fmt;

/// Vendor of all virtio devices (§4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// A modern network device: 0x1040 + device type 1.
pub const DEVICE_MODERN: u16 = 0x1041;
/// A transitional one, which has the modern capabilities too.
pub const DEVICE_TRANSITIONAL: u16 = 0x1000;

/// Whether the ids of a function are those of a virtio network device.
pub const fn is_virtio_net(vendor: u16, device: u16) -> bool {
    vendor == VENDOR && matches!(device, DEVICE_MODERN | DEVICE_TRANSITIONAL)
}

/// Part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// 0 to 5.
    pub bar: u8,
    /// Bytes from the BAR's start.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// Where the registers of a device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Common configuration (§4.1.4.3).
    pub common: Window,
    /// Notifications (§4.1.4.4).
    pub notify: Window,
    /// Bytes between two queues' notification registers; 0 if all share one.
    pub notify_multiplier: u32,
    /// Interrupt status (§4.1.4.5).
    pub isr: Window,
    /// Configuration of the network device (§4.1.4.6, §5.1.4).
    pub device: Window,
}

/// Why no layout could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// No capability list: a legacy device, or nothing at all.
    NoCapabilities,
    /// The list does not end.
    EndlessList,
    /// There is no usable capability of this kind.
    Missing(&'static str),
    /// The notification multiplier is neither 0 nor an even power of 2.
    Multiplier(u32),
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCapabilities => f.write_str(
                "virtio-net: no PCI capabilities; a legacy device: start QEMU without \
                 disable-modern=on",
            ),
            Self::EndlessList => f.write_str("virtio-net: the PCI capability list has a loop"),
            Self::Missing(what) => write!(
                f,
                "virtio-net: no usable {what} capability; start QEMU with disable-legacy=on"
            ),
            Self::Multiplier(value) => {
                write!(f, "virtio-net: notification multiplier {value} is not allowed")
            }
        }
    }
}

impl core::error::Error for PciError {}

const STATUS: u16 = 0x04; // the status register is the upper half
const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);
const CAPABILITIES: u16 = 0x34;
const CAPABILITY_VENDOR: u8 = 0x09;
/// More capabilities of 4 bytes do not fit behind the 64-byte header.
const CAPABILITIES_MAX: usize = 48;

/// Finds the register windows of a virtio device. `read32` reads the configuration space at a
/// multiple of 4 below 256.
pub fn parse(read32: impl Fn(u16) -> u32) -> Result<Layout, PciError> {
    let status = read32(STATUS);
    if status == u32::MAX || status & STATUS_CAPABILITIES == 0 {
        return Err(PciError::NoCapabilities);
    }
    let mut common = None;
    let mut notify = None;
    let mut isr = None;
    let mut device = None;
    let mut at = (read32(CAPABILITIES) & 0xfc) as u16;
    let mut seen = 0;
    while at != 0 {
        seen += 1;
        if seen > CAPABILITIES_MAX || at < 0x40 {
            return Err(PciError::EndlessList);
        }
        let [id, next, length, kind] = read32(at).to_le_bytes();
        if id == CAPABILITY_VENDOR && length >= 16 && at <= 0xf0 {
            let window = window(&read32, at);
            // §4.1.4: the first usable one of each kind counts; unknown kinds are to be ignored.
            match kind {
                1 => common = common.or(usable(window, 56, 4)),
                2 if length >= 20 && at <= 0xec => {
                    notify = notify.or(usable(window, 2, 2).map(|w| (w, read32(at + 16))));
                }
                3 => isr = isr.or(usable(window, 1, 1)),
                4 => device = device.or(usable(window, 8, 4)),
                _ => {}
            }
        }
        at = u16::from(next & 0xfc);
    }
    let (notify, notify_multiplier) = notify.ok_or(PciError::Missing("notification"))?;
    if notify_multiplier != 0 && (!notify_multiplier.is_power_of_two() || notify_multiplier == 1) {
        return Err(PciError::Multiplier(notify_multiplier));
    }
    Ok(Layout {
        common: common.ok_or(PciError::Missing("common configuration"))?,
        notify,
        notify_multiplier,
        isr: isr.ok_or(PciError::Missing("interrupt status"))?,
        device: device.ok_or(PciError::Missing("device configuration"))?,
    })
}

/// The fields of `struct virtio_pci_cap` behind its first word.
fn window(read32: &impl Fn(u16) -> u32, at: u16) -> Window {
    Window { bar: (read32(at + 4) & 0xff) as u8, offset: read32(at + 8), length: read32(at + 12) }
}

/// The window if it is in a BAR that exists, large enough, aligned, and does not wrap.
fn usable(window: Window, length_min: u32, align: u32) -> Option<Window> {
    let fits = window.bar <= 5
        && window.length >= length_min
        && window.offset.is_multiple_of(align)
        && window.offset.checked_add(window.length).is_some();
    fits.then_some(window)
}

#[cfg(test)]
mod tests;
