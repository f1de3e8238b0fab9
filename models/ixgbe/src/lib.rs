//! The Intel 82599 in software, as a library: what the chip does at its registers, in memory, on its
//! wire and with interrupts. Whoever embeds it brings memory ([`Memory`]), the outside ([`Outside`]) and time.
//!
//! Sections cited as "§" are those of the *Intel 82599 10 GbE Controller Datasheet*. What is modelled, and what is not, is
//! in `docs/drivers.md`.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod eeprom;
mod faults;
mod filter;
mod interrupts;
mod link;
mod map;
mod packet;
mod pause;
mod regs;
mod rsc;
mod rx;
mod segment;
mod sfp;
mod statistics;
pub mod table;
mod tx;
mod write_back;

pub use faults::Faults;
pub use regs::{Access, Bank, REGISTERS, Spec};

use eeprom::Eeprom;
use interrupts::Interrupts;
use link::Link;
use map::Map;
use pause::Pause;
use rsc::Flow;
use rx::Rx;
use sfp::Sfp;
use tx::Tx;

/// What the chip reaches memory by. Addresses are bus addresses.
pub trait Memory {
    /// Reads `to.len()` bytes at `at`. `false`: not memory that the chip may reach; `to` is then unspecified.
    fn read(&self, at: u64, to: &mut [u8]) -> bool;
    /// Writes `from` at `at`. `false`: not memory that the chip may reach, and nothing was written.
    fn write(&self, at: u64, from: &[u8]) -> bool;
}

/// What the chip does to the outside.
pub trait Outside {
    /// A frame leaves on the wire, without FCS and padding.
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
    /// PCI device id: 0x10fb is the 82599ES with SFI and SFP+; 0x1528, the X540, has no cage.
    pub device_id: u16,
    /// How long the link takes to come up after it was started.
    pub link_delay_ns: u64,
    /// What is wrong from the beginning.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mac: [0x02, 0x82, 0x59, 0x90, 0, 1],
            device_id: 0x10fb,
            link_delay_ns: 1_000_000,
            faults: Faults::default(),
        }
    }
}

/// What the model counts beside the chip's own statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accesses to memory that [`Memory`] refused. A driver that is right causes none.
    pub refused: u64,
    /// Address and length of the last.
    pub last_refused: (u64, usize),
    /// Reads of offsets where the model has no register.
    pub unknown_reads: u64,
    /// Writes of such.
    pub unknown_writes: u64,
    /// The last such offset.
    pub last_unknown: u32,
    /// Rings whose head or tail is outside of them, or whose form is not known, when they were used.
    pub bad_rings: u64,
    /// Transmit descriptors that make no sense.
    pub bad_descriptors: u64,
    /// Frames that came while HLREG0.RXCRCSTRP and RDRXCTL.CRCStrip contradicted each other (§8.2.3.8.8).
    pub contradictions: u64,
    /// Times that 40 transmit descriptors went by without one that asks for a report (§8.2.3.9.10).
    pub late_reports: u64,
    /// Frames from the wire while the link was down, or the MAC in loopback.
    pub dropped_link_down: u64,
    /// While reception or their queue was disabled.
    pub dropped_disabled: u64,
    /// Not for this host.
    pub dropped_by_filter: u64,
    /// Frames to be sent that could not be read.
    pub dropped_tx: u64,
    /// Reads and writes of registers, for costs.
    pub register_reads: u64,
    /// See [`Counts::register_reads`].
    pub register_writes: u64,
}

/// One port of an 82599.
#[derive(Debug)]
pub struct Chip {
    /// What is wrong; may be changed at any time.
    pub faults: Faults,
    /// What the model has counted.
    pub counts: Counts,
    options: Options,
    map: Map,
    eeprom: Eeprom,
    sfp: Sfp,
    link: Link,
    interrupts: Interrupts,
    rx: Rx,
    tx: Tx,
    pause: Pause,
    now_ns: u64,
}

impl Chip {
    /// Entries of the MSI-X table (§9.3.8).
    pub const MSIX_VECTORS: u16 = 64;
    /// Size of BAR 0, all of whose registers are 32 bits wide (§9.3.6.1).
    pub const BAR0_BYTES: u32 = 512 * 1024;

    /// A chip after power-on, with its link partner there.
    pub fn new(options: Options) -> Chip {
        let faults = options.faults.clone();
        let mut eeprom = Eeprom::new(options.mac, options.device_id);
        if faults.bad_eeprom {
            eeprom.spoil();
        }
        let mut chip = Chip {
            counts: Counts::default(),
            map: Map::new(),
            eeprom,
            sfp: Sfp::new(!faults.no_module),
            link: Link::new(options.link_delay_ns, !faults.no_partner, true),
            interrupts: Interrupts::new(),
            rx: Rx::new(faults.seed),
            tx: Tx::new(faults.seed),
            pause: Pause::default(),
            now_ns: 0,
            faults,
            options,
        };
        chip.set_module(!chip.faults.no_module);
        chip.load_from_eeprom();
        chip
    }

    /// Reads the register at `offset` of BAR 0: a multiple of 4. Some clear themselves by that. Where no register is, 0.
    pub fn read32(&mut self, offset: u32) -> u32 {
        self.counts.register_reads += 1;
        match self.map.decode(offset) {
            Some((id, index)) => self.read_register(id, index),
            None => {
                self.counts.unknown_reads += 1;
                self.counts.last_unknown = offset;
                0
            }
        }
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
        self.counts.register_writes += 1;
        match self.map.decode(offset) {
            Some((id, index)) => self.write_register(id, index, value, memory, outside),
            None => {
                self.counts.unknown_writes += 1;
                self.counts.last_unknown = offset;
            }
        }
    }

    /// A frame arrives from the wire, without FCS. `false`: it was dropped, and a register or [`Chip::counts`] has counted it.
    pub fn receive(
        &mut self,
        frame: &[u8],
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) -> bool {
        if self.is_loopback() {
            self.counts.dropped_link_down += 1;
            return false;
        }
        self.receive_frame(frame, memory, outside)
    }

    /// Lets time go on to `now_ns`, which never goes back: moderated interrupts, the link, delayed write-backs.
    pub fn tick(&mut self, now_ns: u64, memory: &dyn Memory, outside: &mut dyn Outside) {
        self.now_ns = self.now_ns.max(now_ns);
        if self.link.tick(self.now_ns, &self.map) {
            self.interrupts.raise_other(interrupts::LINK_CHANGE);
            if self.link.is_up() {
                self.run_all_tx(memory, outside);
            }
        }
        self.tick_pause(memory, outside);
        self.tick_flows(memory);
        while let Some(item) = self.rx.write_backs.take_due(self.now_ns) {
            self.finish(item, memory);
        }
        while let Some(item) = self.tx.write_backs.take_due(self.now_ns) {
            self.finish(item, memory);
        }
        self.deliver_interrupts(outside);
    }

    /// When [`Chip::tick`] has something to do next; `None`: nothing is under way. Changes with every call.
    pub fn next_tick_ns(&self) -> Option<u64> {
        let all = [
            self.link.next_ns(),
            self.rx.write_backs.next_ns(),
            self.tx.write_backs.next_ns(),
            self.interrupts.next_tick_ns().filter(|_| !self.faults.no_interrupts),
            self.pause.next_ns(),
            self.rx.flows.iter().map(Flow::until_ns).min(),
        ];
        all.into_iter().flatten().min()
    }

    /// A reset of the PCI function (FLR, §4.2.1.5): as after power-on, but for time and what the model has counted.
    pub fn reset(&mut self) {
        self.map.reset(|_| true);
        self.reset_rest();
    }

    /// The link goes down with the next tick, and comes back `for_ns` later.
    pub fn flap_link(&mut self, for_ns: u64) {
        self.link.flap(self.now_ns, for_ns);
    }

    /// The board's sensor, at SDP0, or the X540's own, says that it is too hot.
    pub fn overheat(&mut self) {
        let has_sensor = matches!(self.options.device_id, 0x1528 | 0x1560);
        let cause = if has_sensor { interrupts::SENSOR } else { interrupts::SDP0 };
        self.interrupts.raise_other(cause);
    }

    /// The other end comes or goes.
    pub fn set_partner(&mut self, there: bool) {
        self.link.partner = there;
        self.link.restart(self.now_ns);
    }

    /// A module is put into the cage or taken out. Without effect where there is no cage.
    pub fn set_module(&mut self, there: bool) {
        let has_cage = access::has_cage(self.options.device_id);
        self.link.module = there || !has_cage;
        self.sfp.set_present(there && has_cage);
        self.link.restart(self.now_ns);
    }

    /// Whether the link is up.
    pub fn is_link_up(&self) -> bool {
        self.link.is_up()
    }

    pub(crate) fn deliver_interrupts(&mut self, outside: &mut dyn Outside) {
        if !self.faults.no_interrupts {
            self.interrupts.deliver(self.now_ns, &self.map, outside);
        }
    }

    pub(crate) fn dma_read(&mut self, memory: &dyn Memory, at: u64, to: &mut [u8]) -> bool {
        let good = !self.takes_dma_error() && memory.read(at, to);
        if !good {
            self.refuse(at, to.len());
        }
        good
    }

    pub(crate) fn dma_write(&mut self, memory: &dyn Memory, at: u64, from: &[u8]) -> bool {
        let good = !self.takes_dma_error() && memory.write(at, from);
        if !good {
            self.refuse(at, from.len());
        }
        good
    }

    #[inline]
    fn takes_dma_error(&mut self) -> bool {
        let takes = self.faults.dma_errors > 0;
        self.faults.dma_errors -= u32::from(takes);
        takes
    }

    #[cold]
    fn refuse(&mut self, at: u64, len: usize) {
        self.counts.refused += 1;
        self.counts.last_refused = (at, len);
        self.interrupts.raise_other(interrupts::PCI_EXCEPTION);
    }
}
