//! The Intel 82599 in software, as a library: what the chip does at its registers, in memory, on its
//! wire and with interrupts. Whoever embeds it brings memory ([`Memory`]), the outside ([`Outside`]) and time.
//!
//! Sections cited as "§" are those of the *Intel 82599 10 GbE Controller Datasheet*.
#![deny(unsafe_code)]
#![warn(missing_docs)]

/// What the chip reaches memory by. Addresses are bus addresses.
pub trait Memory {
    /// Reads `to.len()` bytes at `at`. `false`: not memory that the chip may reach; `to` is then unspecified.
    fn read(&self, at: u64, to: &mut [u8]) -> bool;
    /// Writes `from` at `at`. `false`: not memory that the chip may reach, and nothing was written.
    fn write(&self, at: u64, from: &[u8]) -> bool;
}

/// What the chip does to the outside.
pub trait Outside {
    /// A frame leaves on the wire, without FCS.
    fn transmit(&mut self, frame: &[u8]);
    /// An MSI-X message: entry `vector` of the function's table, below [`Chip::MSIX_VECTORS`]. Vector 0 also
    /// stands for the only one of MSI and INTx.
    fn interrupt(&mut self, vector: u16);
}

/// What kind of chip it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its address, in the EEPROM and after reset in RAL(0) and RAH(0).
    pub mac: [u8; 6],
    /// PCI device id: 0x10fb is the 82599ES with SFI and SFP+.
    pub device_id: u16,
}

impl Default for Options {
    fn default() -> Options {
        Options { mac: [0x02, 0x82, 0x59, 0x90, 0, 1], device_id: 0x10fb }
    }
}

/// One port of an 82599.
#[derive(Debug)]
pub struct Chip {
    options: Options,
}

impl Chip {
    /// Entries of the MSI-X table (§9.3.8).
    pub const MSIX_VECTORS: u16 = 64;
    /// Size of BAR 0, all of whose registers are 32 bits wide (§9.3.6.1).
    pub const BAR0_BYTES: u32 = 512 * 1024;

    /// A chip after power-on, with its link partner there.
    pub fn new(options: Options) -> Chip {
        Chip { options }
    }

    /// Reads the register at `offset` of BAR 0: a multiple of 4. Some clear themselves by that.
    pub fn read32(&mut self, offset: u32) -> u32 {
        let _ = (&self.options, offset);
        0
    }

    /// Writes the register at `offset` of BAR 0: a multiple of 4. What follows from it, up to sending frames
    /// whose descriptors it shows, is done before it returns.
    pub fn write32(
        &mut self,
        offset: u32,
        value: u32,
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) {
        let _ = (offset, value, memory, outside);
    }

    /// A frame arrives from the wire, without FCS. `false`: it was dropped, and a register has counted it.
    pub fn receive(
        &mut self,
        frame: &[u8],
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) -> bool {
        let _ = (frame, memory, outside);
        false
    }

    /// Lets time go on to `now_ns`, which never goes back: moderated interrupts, the link, delayed write-backs.
    pub fn tick(&mut self, now_ns: u64, memory: &dyn Memory, outside: &mut dyn Outside) {
        let _ = (now_ns, memory, outside);
    }

    /// When [`Chip::tick`] has something to do next; `None`: nothing is under way. Changes with every call.
    pub fn next_tick_ns(&self) -> Option<u64> {
        None
    }

    /// A reset of the PCI function (FLR, §4.2.1.5): as after power-on, but for time and statistics of the model itself.
    pub fn reset(&mut self) {}
}
