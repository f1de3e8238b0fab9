//! The rare things: the indirection table, the link, filters, statistics, reset.
//!
//! As with the other drivers, a change of the table is staged ([`Control::set_reta`]), sent ([`Control::commit`]) and polled
//! ([`Control::poll`]) until it says [`Progress::Done`].
use crate::chip::{Chip, Clock};
use crate::error::{CommandError, InitError, LinkError};
use crate::events::Events;
use crate::init::{self, Settings};
use crate::link::{self, Link};
use crate::pci::Media;
use crate::port::{QueueSetup, Stopped, enable_queues};
use crate::regs::{EICR, RETA};
use crate::sfp::{self, Module, ModuleError};
use crate::statistics::Statistics;
use crate::{GROUPS, RSS_KEY_BYTES};
use alloc::vec::Vec;
use ix_dataplane::device::{self, Mmio, NicControl};
use ix_dataplane::time::{Duration, Instant};

mod diagnosis;
pub use diagnosis::RegisterFault;

/// Frames that the chip had classified before the table changed have been written to their queue after this: as long as
/// the datasheet has one wait after a queue was disabled (§4.6.7.1.2).
pub const RETA_SETTLE: Duration = Duration::from_us(100);

/// Entries in one register.
const PER_REGISTER: usize = 4;
/// Registers of the table.
const REGISTERS: usize = GROUPS / PER_REGISTER;

/// How far a change of the table is.
pub type Progress = device::Progress<CommandError>;

/// The control part of a port. One core holds it.
#[derive(Debug)]
pub struct Control<M> {
    chip: Chip<M>,
    settings: Settings,
    setups: Vec<QueueSetup>,
    table: [u16; GROUPS],
    /// The same as the chip was told last: what is staged meanwhile is none of the change under way.
    told: [u16; GROUPS],
    /// Registers of the table that the chip has not got.
    changed: u32,
    /// Those that the change under way has written, and when it is done.
    written: u32,
    settled: Option<Instant>,
    running: bool,
    link_since: Instant,
    statistics: Statistics,
    /// Which counter of lost frames is read next.
    next_missed: u32,
}

impl<M: Mmio + Clone> Control<M> {
    pub(crate) fn new(
        chip: Chip<M>,
        settings: Settings,
        setups: Vec<QueueSetup>,
        now: Instant,
    ) -> Control<M> {
        let pairs = usize::from(settings.pairs);
        let table = core::array::from_fn(|entry| (entry % pairs) as u16);
        let control = Control {
            chip,
            settings,
            setups,
            table,
            told: table,
            changed: 0,
            written: 0,
            settled: None,
            running: true,
            link_since: now,
            statistics: Statistics::default(),
            next_missed: 0,
        };
        control.write_table(u32::MAX);
        control
    }

    /// The key of the hash.
    pub fn rss_key(&self) -> &[u8; RSS_KEY_BYTES] {
        &self.settings.rss_key
    }

    fn table_register(&self, register: usize) -> u32 {
        let at = PER_REGISTER * register;
        u32::from_le_bytes(core::array::from_fn(|i| self.told[at + i] as u8))
    }

    fn write_table(&self, registers: u32) {
        for register in (0..REGISTERS).filter(|r| registers >> r & 1 != 0) {
            self.chip.write(RETA.at(register as u32), self.table_register(register));
        }
        self.chip.flush();
    }

    /// What the link is. Reads registers: not for each loop.
    pub fn read_link(&mut self, now: Instant) -> Link {
        let link = link::read(&self.chip, self.settings.media, self.link_since, now);
        if let Link::Up { .. } = link {
            self.link_since = now;
        }
        link
    }

    /// What module is in the cage. Takes some milliseconds.
    pub fn read_module(&self, clock: Clock<'_>) -> Result<Module, ModuleError> {
        if self.settings.media != Media::SfpPlus {
            return Err(ModuleError::Absent);
        }
        sfp::read(&self.chip, clock)
    }

    /// What has happened since the last time. Reads a register, which takes the events back and leaves the queues' causes.
    pub fn read_events(&self) -> Events {
        Events::from_cause(self.chip.read(EICR))
    }

    /// Waits until the link is up, at most for [`link::LINK_DEADLINE`] since it was started; its speed in Mb/s.
    pub fn wait_for_link(&mut self, clock: Clock<'_>) -> Result<u32, LinkError> {
        link::wait(&self.chip, self.settings.media, self.link_since, clock)
    }

    /// What the chip has counted. Reads about forty registers.
    pub fn read_statistics(&mut self) -> &Statistics {
        if self.running {
            self.statistics.add(&self.chip);
        }
        &self.statistics
    }

    /// Unicast frames for others, too, or not.
    pub fn set_promiscuous(&mut self, on: bool) {
        self.settings.promiscuous = on;
        init::set_promiscuous(&self.chip, on);
    }

    /// Only these groups from now on, and some others that the filter cannot tell from them. Until then, and after a
    /// restart, all groups come.
    pub fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        init::set_multicast(&self.chip, groups);
    }

    fn start(&mut self, clock: Clock<'_>) -> Result<(), InitError> {
        init::prepare(&self.chip, &self.settings, clock)?;
        self.told = self.table;
        self.write_table(u32::MAX);
        self.changed = 0;
        self.settled = None;
        enable_queues(&self.chip, &self.setups, clock)?;
        Statistics::start(&self.chip);
        init::enable_receive(&self.chip, clock)?;
        self.link_since = clock();
        self.running = true;
        Ok(())
    }
}

impl<M: Mmio + Clone> NicControl for Control<M> {
    type Stopped = Stopped;
    type CommandError = CommandError;
    type StartError = InitError;

    fn pairs(&self) -> u16 {
        self.settings.pairs
    }

    fn reta(&self) -> &[u16] {
        &self.table
    }

    fn set_reta(&mut self, entry: u16, queue: u16) -> Result<(), CommandError> {
        let slot = self.table.get_mut(usize::from(entry)).ok_or(CommandError::OutOfRange)?;
        if queue >= self.settings.pairs {
            return Err(CommandError::OutOfRange);
        }
        if *slot != queue {
            *slot = queue;
            self.changed |= 1 << (usize::from(entry) / PER_REGISTER);
        }
        Ok(())
    }

    /// Writes the registers of the table that have changed: one for each four groups (§8.2.3.7.15). Frames that arrive after
    /// [`Progress::Done`] follow it.
    fn commit(&mut self, now: Instant) -> Result<(), CommandError> {
        if !self.running {
            return Err(CommandError::Stopped);
        }
        if self.settled.is_some() {
            return Err(CommandError::Busy);
        }
        self.written = core::mem::take(&mut self.changed);
        self.told = self.table;
        self.write_table(self.written);
        self.settled = Some(now + RETA_SETTLE);
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let Some(settled) = self.settled else { return Progress::Idle };
        if now < settled {
            return Progress::Pending;
        }
        self.settled = None;
        for register in (0..REGISTERS).filter(|r| self.written >> r & 1 != 0) {
            if self.chip.read(RETA.at(register as u32)) != self.table_register(register) {
                return Progress::Failed(CommandError::Refused { register: register as u16 });
            }
        }
        Progress::Done
    }

    fn read_link_up(&self) -> bool {
        let link = link::read(&self.chip, self.settings.media, self.link_since, self.link_since);
        matches!(link, Link::Up { .. })
    }

    /// Whether the chip is still there (§5.2: what was taken out reads all ones). Reads a register.
    fn read_needs_reset(&self) -> bool {
        self.chip.present().is_err()
    }

    fn poll_missed(&mut self) -> u64 {
        if self.running {
            self.statistics.add_missed(&self.chip, self.next_missed);
            self.next_missed = (self.next_missed + 1) % (1 + u32::from(self.settings.pairs));
        }
        self.statistics.missed()
    }

    fn reset(&mut self, clock: Clock<'_>) -> Result<Stopped, InitError> {
        let quiet = init::quiesce(&self.chip, clock)?;
        // What it has counted is lost otherwise; and it counts no more.
        self.read_statistics();
        self.running = false;
        init::reset_quiet(&self.chip, quiet, clock)?;
        Ok(Stopped::new())
    }

    fn restart(&mut self, _stopped: Stopped, clock: Clock<'_>) -> Result<(), InitError> {
        let started = self.start(clock);
        if started.is_err() {
            let _ = init::reset(&self.chip, clock);
        }
        started
    }
}
