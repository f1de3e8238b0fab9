//! The function's PCI configuration space, as an 82599ES shows it (datasheet §9.3): what is read, which bits can be written,
//! and which writes mean something. No I/O BAR and no ROM: nobody needs them.
use ix_model_ixgbe::Chip;

/// Bytes of a PCI Express function's configuration space.
pub const CONFIG_BYTES: usize = 4096;
/// Bytes of BAR 4: the MSI-X table and the pending bits (§9.3.6.1).
pub const BAR4_BYTES: u32 = 16 * 1024;

/// Capabilities, where the chip has them (§9.3.7 to §9.3.10).
const POWER: usize = 0x40;
const MSI: usize = 0x50;
const MSIX: usize = 0x70;
const EXPRESS: usize = 0xa0;
/// The extended capability that names the card (§9.4.3).
const SERIAL_NUMBER: usize = 0x100;

const COMMAND: usize = 0x04;
const COMMAND_BUS_MASTER: u8 = 1 << 2;
const POWER_STATE: usize = POWER + 4;
const DEVICE_CONTROL_HIGH: usize = EXPRESS + 9;
/// Bit 15 of Device Control: a reset of the function, which reads as 0.
const FUNCTION_RESET: u8 = 1 << 7;

/// What a write to it means beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The function is reset, its configuration too.
    Reset,
}

/// The space.
#[derive(Clone, Debug)]
pub struct Config {
    bytes: Box<[u8; CONFIG_BYTES]>,
    /// Bits that can be written.
    mask: Box<[u8; CONFIG_BYTES]>,
    /// After a reset.
    fresh: Box<[u8; CONFIG_BYTES]>,
}

impl Config {
    /// Of a function with this device id and address.
    pub fn new(device_id: u16, mac: [u8; 6]) -> Config {
        let mut make = Maker { bytes: [0; CONFIG_BYTES], mask: [0; CONFIG_BYTES] };
        make.header(device_id);
        make.capabilities();
        make.serial_number(mac);
        let bytes = Box::new(make.bytes);
        Config { fresh: bytes.clone(), bytes, mask: Box::new(make.mask) }
    }

    /// Reads; the range must be in the space.
    pub fn read(&self, at: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.bytes[at..at + to.len()]);
    }

    /// Writes what can be written; the range must be in the space.
    pub fn write(&mut self, at: usize, from: &[u8]) -> Effect {
        let asleep = self.asleep();
        let mut reset = false;
        for (i, &byte) in (at..).zip(from) {
            let mask = self.mask[i];
            self.bytes[i] = self.bytes[i] & !mask | byte & mask;
            reset |= i == DEVICE_CONTROL_HIGH && byte & FUNCTION_RESET != 0;
        }
        // From D3 to D0 the function is reset (No_Soft_Reset is 0).
        if reset || asleep && !self.asleep() { Effect::Reset } else { Effect::None }
    }

    /// As after power-on. Who has a function reset writes back what it needs.
    pub fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.fresh[..]);
    }

    /// Whether the function may reach memory and send messages.
    pub fn is_bus_master(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_BUS_MASTER != 0 && !self.asleep()
    }

    fn asleep(&self) -> bool {
        self.bytes[POWER_STATE] & 3 == 3
    }
}

struct Maker {
    bytes: [u8; CONFIG_BYTES],
    mask: [u8; CONFIG_BYTES],
}

impl Maker {
    fn put<const N: usize>(&mut self, at: usize, value: [u8; N], mask: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&value);
        self.mask[at..at + N].copy_from_slice(&mask);
    }

    fn byte(&mut self, at: usize, value: u8) {
        self.put(at, [value], [0]);
    }

    fn word(&mut self, at: usize, value: u16, mask: u16) {
        self.put(at, value.to_le_bytes(), mask.to_le_bytes());
    }

    fn long(&mut self, at: usize, value: u32, mask: u32) {
        self.put(at, value.to_le_bytes(), mask.to_le_bytes());
    }

    fn header(&mut self, device_id: u16) {
        const INTEL: u16 = 0x8086;
        self.word(0x00, INTEL, 0);
        self.word(0x02, device_id, 0);
        // Memory, bus master, parity, SERR, no INTx.
        self.word(COMMAND, 0, 0x0547 & !1);
        // There are capabilities.
        self.word(0x06, 0x0010, 0);
        self.byte(0x08, 1);
        // An Ethernet controller.
        self.put(0x09, [0x00, 0x00, 0x02], [0; 3]);
        self.put(0x0c, [0], [0xff]);
        self.bar(0, Chip::BAR0_BYTES);
        self.bar(4, BAR4_BYTES);
        self.word(0x2c, INTEL, 0);
        self.word(0x2e, 0x0003, 0);
        self.byte(0x34, POWER as u8);
        self.put(0x3c, [0], [0xff]);
        self.byte(0x3d, 1);
    }

    /// 64 bits, prefetchable.
    fn bar(&mut self, number: usize, bytes: u32) {
        let at = 0x10 + 4 * number;
        self.long(at, 0b1100, !(bytes - 1));
        self.long(at + 4, 0, !0);
    }

    fn capabilities(&mut self) {
        // Power management, version 3: D0 and D3hot; the state can be written.
        self.put(POWER, [0x01, MSI as u8], [0; 2]);
        self.word(POWER + 2, 0x0003, 0);
        self.word(POWER_STATE, 0, 0x0003);
        // One message, 64-bit addresses, a mask bit.
        self.put(MSI, [0x05, MSIX as u8], [0; 2]);
        self.word(MSI + 2, 0x0180, 0x0001);
        self.long(MSI + 4, 0, !3);
        self.long(MSI + 8, 0, !0);
        self.word(MSI + 12, 0, !0);
        self.long(MSI + 16, 0, 1);
        // The table at the start of BAR 4, the pending bits 8 KiB behind it.
        self.put(MSIX, [0x11, EXPRESS as u8], [0; 2]);
        self.word(MSIX + 2, Chip::MSIX_VECTORS - 1, 0xc000);
        self.long(MSIX + 4, 4, 0);
        self.long(MSIX + 8, 0x2000 | 4, 0);
        // An endpoint, version 2: payloads of 512 bytes, function reset; link of 5 GT/s and 8 lanes, up.
        self.put(EXPRESS, [0x10, 0], [0; 2]);
        self.word(EXPRESS + 2, 0x0002, 0);
        self.long(EXPRESS + 4, 0x1000_8cc2, 0);
        self.word(EXPRESS + 8, 0x2810, 0x7fff);
        self.long(EXPRESS + 12, 0x0000_0482, 0);
        self.word(EXPRESS + 16, 0, 0x00c3);
        self.word(EXPRESS + 18, 0x1082, 0);
        self.long(EXPRESS + 36, 0x0000_001f, 0);
        self.word(EXPRESS + 40, 0, 0x001f);
    }

    /// The address with `ff:ff` in its middle, from the last byte to the first.
    fn serial_number(&mut self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.long(SERIAL_NUMBER, 0x0001_0003, 0);
        self.put(SERIAL_NUMBER + 4, [f, e, d, 0xff, 0xff, c, b, a], [0; 8]);
    }
}

#[cfg(test)]
mod tests;
