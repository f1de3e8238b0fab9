//! PCI's configuration ports as a dataplane sees them: only its own functions are there, their BARs
//! cannot be moved, and of what else can be written only what concerns the function alone gets through.
//! The bridges on the way to them can be read. PCI Local Bus 3.0, 3.2.2.3.2 and chapter 6.

use arrayvec::ArrayVec;

#[cfg(test)]
mod tests;

/// Functions of one dataplane, bridges included.
pub const FUNCTIONS_MAX: usize = 32;
/// Dwords of a function, outside the header, that may be written.
const WINDOWS_MAX: usize = 12;

const ADDRESS_PORT: u16 = 0xCF8;
const RESET_PORT: u16 = 0xCF9;
const DATA_PORT: u16 = 0xCFC;
/// The ports that belong here.
pub const FIRST_PORT: u16 = ADDRESS_PORT;
pub const PORTS: u16 = 8;

const ENABLE: u32 = 1 << 31;
const COMMAND: u8 = 0x04;
const BARS: u8 = 0x10;
const BARS_END: u8 = 0x28;
const ROM: u8 = 0x30;
const CAPABILITIES: u8 = 0x34;
const HEADER_END: u8 = 0x40;
const HAS_CAPABILITIES: u32 = 1 << 20;
/// I/O and memory decoding, bus master, write-invalidate, parity and SERR reports, legacy interrupts
/// off. Above, the status: bits that were read as 1 and are written back are cleared, which harms nobody.
const COMMAND_ALLOWED: u32 = 0xFFFF_0557;

const POWER_MANAGEMENT: u8 = 0x01;
const MSI: u8 = 0x05;
const MSI_X: u8 = 0x11;

/// Bus, device and function: `bus << 8 | device << 3 | function`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf(pub u16);

impl Bdf {
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (device as u16 & 31) << 3 | (function as u16 & 7))
    }

    #[must_use]
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }

    /// `00:03.0`, as boot configurations name functions.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        let (bus, rest) = s.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let hex = |s: &str, digits: usize, max: u8| {
            let plain = s.len() == digits && s.bytes().all(|b| b.is_ascii_hexdigit());
            u8::from_str_radix(s, 16).ok().filter(|n| plain && *n <= max)
        };
        Some(Self::new(hex(bus, 2, 0xFF)?, hex(device, 2, 31)?, hex(function, 1, 7)?))
    }

    /// What CF8 holds for a dword of this function.
    #[must_use]
    pub const fn address(self, offset: u8) -> u32 {
        ENABLE | (self.0 as u32) << 8 | (offset & 0xFC) as u32
    }
}

impl core::fmt::Display for Bdf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.0 >> 3 & 31, self.function())
    }
}

/// One BAR register: its value for good, the bits that sizing would find writable, and whether the guest
/// is sizing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bar {
    value: u32,
    mask: u32,
    is_sizing: bool,
}

impl Bar {
    const fn read(self) -> u32 {
        if self.is_sizing { self.mask | self.value & !self.mask & 0xF } else { self.value }
    }

    /// Whether the write is all ones or what is there already.
    const fn write(&mut self, value: u32) -> bool {
        let kept = value & self.mask;
        self.is_sizing = kept == self.mask && kept != self.value & self.mask;
        self.is_sizing || kept == self.value & self.mask
    }
}

/// A function that a dataplane sees.
#[derive(Clone, Debug)]
pub struct Function {
    bdf: Bdf,
    bars: [Bar; 6],
    /// Dwords that may be written, outside the header.
    windows: ArrayVec<u8, WINDOWS_MAX>,
    /// Nothing of it is the dataplane's: it is on the way.
    is_bridge: bool,
}

impl Function {
    /// A function that the dataplane owns. `read` reads a dword of its configuration space, `bar_len`
    /// tells how many bytes of memory are behind a BAR slot (0: none, or I/O ports: those are hidden).
    pub fn owned(
        bdf: Bdf,
        mut read: impl FnMut(u8) -> u32,
        mut bar_len: impl FnMut(u8) -> u64,
    ) -> Self {
        let mut bars = [Bar::default(); 6];
        let mut slot = 0;
        while slot < 6 {
            let value = read(BARS + 4 * slot);
            let len = bar_len(slot);
            let is_64 = value & 7 == 4;
            if value & 1 == 0 && len.is_power_of_two() && len >= 16 {
                let mask = !(len - 1);
                let i = usize::from(slot);
                bars[i] = Bar { value, mask: mask as u32 & !0xF, is_sizing: false };
                if is_64 && slot < 5 {
                    let high = read(BARS + 4 * (slot + 1));
                    bars[i + 1] = Bar { value: high, mask: (mask >> 32) as u32, is_sizing: false };
                }
            }
            slot += if is_64 { 2 } else { 1 };
        }
        Self { bdf, bars, windows: windows(&mut read), is_bridge: false }
    }

    /// A bridge on the way to one: it can be read, writes are dropped.
    #[must_use]
    pub fn bridge(bdf: Bdf) -> Self {
        Self { bdf, bars: [Bar::default(); 6], windows: ArrayVec::new(), is_bridge: true }
    }
}

/// The dwords of the capabilities that may be written: interrupts by message, and power management.
fn windows(read: &mut impl FnMut(u8) -> u32) -> ArrayVec<u8, WINDOWS_MAX> {
    let mut windows = ArrayVec::new();
    if read(COMMAND) & HAS_CAPABILITIES == 0 {
        return windows;
    }
    let mut at = read(CAPABILITIES) as u8 & 0xFC;
    // A list that loops ends here.
    for _ in 0..48 {
        if at < HEADER_END {
            break;
        }
        let head = read(at);
        let (first, dwords) = match head as u8 {
            POWER_MANAGEMENT => (1, 1),
            // As long as 64-bit addresses and masks make it (6.8.1).
            MSI => (0, 3 + (head >> 23 & 1) as u8 + 2 * (head >> 24 & 1) as u8),
            MSI_X => (0, 1),
            _ => (0, 0),
        };
        for i in first..first + dwords {
            if let Some(offset) = at.checked_add(4 * i) {
                let _ = windows.try_push(offset);
            }
        }
        at = (head >> 8) as u8 & 0xFC;
    }
    windows
}

/// Why an access is a misdeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A BAR was to be moved.
    MovesBar { function: Bdf, offset: u8, value: u32 },
    /// Port CF9 resets the machine.
    Reset,
    /// A width or alignment that configuration accesses do not have.
    Crooked,
}

/// What the monitor does about an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The guest reads this.
    Answer(u32),
    /// The real register is read, with the access's width, at this byte.
    Read {
        function: Bdf,
        offset: u8,
    },
    /// The real register is written, with the access's width.
    Write {
        function: Bdf,
        offset: u8,
        value: u32,
    },
    /// A write without effect.
    Dropped,
    Refuse(Refusal),
}

/// The configuration ports of one dataplane.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    functions: ArrayVec<Function, FUNCTIONS_MAX>,
    address: u32,
}

const fn ones(width: u8) -> u32 {
    match width {
        1 => 0xFF,
        2 => 0xFFFF,
        _ => u32::MAX,
    }
}

impl Filter {
    #[must_use]
    pub const fn new() -> Self {
        Self { functions: ArrayVec::new_const(), address: 0 }
    }

    /// `false`: there are too many, or it is there already.
    pub fn add(&mut self, function: Function) -> bool {
        self.find(function.bdf).is_none() && self.functions.try_push(function).is_ok()
    }

    /// A new life of the dataplane: nothing is selected, no BAR is being sized.
    pub fn reset(&mut self) {
        self.address = 0;
        for bar in self.functions.iter_mut().flat_map(|f| &mut f.bars) {
            bar.is_sizing = false;
        }
    }

    fn find(&self, bdf: Bdf) -> Option<usize> {
        self.functions.iter().position(|f| f.bdf == bdf)
    }

    /// The selected function and register; `None` if CF8 selects nothing.
    const fn selected(&self, port: u16) -> Option<(Bdf, u8)> {
        if self.address >> 24 != ENABLE >> 24 {
            return None;
        }
        let offset = self.address as u8 & 0xFC | (port - DATA_PORT) as u8;
        Some((Bdf((self.address >> 8) as u16), offset))
    }

    /// IN of `width` bytes.
    #[must_use]
    pub fn input(&self, port: u16, width: u8) -> Action {
        if port == ADDRESS_PORT && width == 4 {
            return Action::Answer(self.address);
        }
        let Some(word_shift) = data_shift(port, width) else {
            return Action::Answer(ones(width));
        };
        let Some((bdf, offset)) = self.selected(port) else { return Action::Answer(ones(width)) };
        let Some(i) = self.find(bdf) else {
            return Action::Answer(self.absent(bdf, offset & 0xFC) >> word_shift & ones(width));
        };
        let f = &self.functions[i];
        let emulated = match offset & 0xFC {
            _ if f.is_bridge => None,
            dword @ BARS..BARS_END => Some(f.bars[usize::from(dword - BARS) / 4].read()),
            // No ROM.
            ROM => Some(0),
            _ => None,
        };
        match emulated {
            Some(word) => Action::Answer(word >> word_shift & ones(width)),
            None => Action::Read { function: bdf, offset },
        }
    }

    /// A function that is not the dataplane's reads as all ones; but function 0 of a device of which it
    /// has another must be there, or nobody would look further (PCI 3.2.2.3.4): an empty one.
    fn absent(&self, bdf: Bdf, dword: u8) -> u32 {
        const EMPTY_ID: u32 = 0x0001_FFFE;
        const UNASSIGNED_CLASS: u32 = 0xFF00_0000;
        const MULTIFUNCTION: u32 = 0x0080_0000;
        let is_wanted = |f: &Function| f.bdf.0 & !7 == bdf.0 & !7;
        if bdf.function() != 0 || !self.functions.iter().any(is_wanted) {
            return u32::MAX;
        }
        match dword {
            0x00 => EMPTY_ID,
            0x08 => UNASSIGNED_CLASS,
            0x0C => MULTIFUNCTION,
            _ => 0,
        }
    }

    /// OUT of `width` bytes of `value`.
    pub fn output(&mut self, port: u16, width: u8, value: u32) -> Action {
        if port == ADDRESS_PORT && width == 4 {
            self.address = value & !3;
            return Action::Dropped;
        }
        if (ADDRESS_PORT..DATA_PORT).contains(&port) {
            let touches_reset = port + u16::from(width) > RESET_PORT && port <= RESET_PORT;
            return Action::Refuse(if touches_reset { Refusal::Reset } else { Refusal::Crooked });
        }
        if data_shift(port, width).is_none() {
            return Action::Refuse(Refusal::Crooked);
        }
        let Some((function, offset)) = self.selected(port) else { return Action::Dropped };
        let Some(i) = self.find(function) else { return Action::Dropped };
        let f = &mut self.functions[i];
        if f.is_bridge {
            return Action::Dropped;
        }
        match offset & 0xFC {
            COMMAND => {
                let allowed = COMMAND_ALLOWED >> (8 * u32::from(offset & 3));
                Action::Write { function, offset, value: value & allowed & ones(width) }
            }
            BARS..BARS_END => write_bar(f, offset, width, value),
            dword if f.windows.contains(&dword) => {
                Action::Write { function, offset, value: value & ones(width) }
            }
            _ => Action::Dropped,
        }
    }
}

/// Only whole dwords: a BAR written by halves could be anything in between.
fn write_bar(f: &mut Function, offset: u8, width: u8, value: u32) -> Action {
    if width != 4 {
        return Action::Refuse(Refusal::Crooked);
    }
    if f.bars[usize::from(offset - BARS) / 4].write(value) {
        Action::Dropped
    } else {
        Action::Refuse(Refusal::MovesBar { function: f.bdf, offset, value })
    }
}

/// By how many bits an access to the data port is off its dword; `None`: it does not lie in one.
const fn data_shift(port: u16, width: u8) -> Option<u32> {
    if port < DATA_PORT || !matches!(width, 1 | 2 | 4) {
        return None;
    }
    let byte = port - DATA_PORT;
    if byte + width as u16 > 4 || !byte.is_multiple_of(width as u16) {
        return None;
    }
    Some(8 * byte as u32)
}
