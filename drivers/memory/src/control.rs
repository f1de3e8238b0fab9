//! The control part: a table that is staged and sent, reset, restart.
use crate::card::SharedCard;
use ix_dataplane::device::{Clock, NicControl, Progress};
use ix_dataplane::time::{Duration, Instant};
use std::convert::Infallible;
use std::fmt;

/// How long the card takes for a change of its table.
pub const SETTLE: Duration = Duration::from_us(10);

/// Proof that the card was stopped.
#[derive(Debug)]
pub struct Stopped(());

/// Why the table was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The card does not spread flows by a table.
    Unsupported,
    /// The entry or the queue does not exist.
    OutOfRange,
    /// A change is under way: poll it to its end first.
    Busy,
    /// The port is stopped.
    Stopped,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "the card has no table of groups",
            Self::OutOfRange => "no such table entry or queue",
            Self::Busy => "a change is under way",
            Self::Stopped => "the port is stopped; start it first",
        })
    }
}

/// The control part of a port.
#[derive(Debug)]
pub struct MemoryControl {
    card: SharedCard,
    table: Vec<u16>,
    /// What was sent, and when the card has it.
    sent: Option<(Vec<u16>, Instant)>,
}

impl MemoryControl {
    pub(crate) fn new(card: SharedCard) -> MemoryControl {
        let table = card.borrow().indirection.clone();
        MemoryControl { card, table, sent: None }
    }

    fn check_rss(&self) -> Result<(), CommandError> {
        let has_table = self.card.borrow().capabilities().rss;
        if has_table { Ok(()) } else { Err(CommandError::Unsupported) }
    }
}

impl NicControl for MemoryControl {
    type Stopped = Stopped;
    type CommandError = CommandError;
    type StartError = Infallible;

    fn pairs(&self) -> u16 {
        self.card.borrow().capabilities().queue_pairs
    }

    fn reta(&self) -> &[u16] {
        &self.table
    }

    fn set_reta(&mut self, group: u16, queue: u16) -> Result<(), CommandError> {
        self.check_rss()?;
        let pairs = self.pairs();
        let entry = self.table.get_mut(usize::from(group)).ok_or(CommandError::OutOfRange)?;
        if queue >= pairs {
            return Err(CommandError::OutOfRange);
        }
        *entry = queue;
        Ok(())
    }

    fn commit(&mut self, now: Instant) -> Result<(), CommandError> {
        self.check_rss()?;
        if !self.card.borrow().running {
            return Err(CommandError::Stopped);
        }
        if self.sent.is_some() {
            return Err(CommandError::Busy);
        }
        self.sent = Some((self.table.clone(), now + SETTLE));
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Progress<CommandError> {
        match self.sent.take() {
            None => Progress::Idle,
            Some((table, due)) if now < due => {
                self.sent = Some((table, due));
                Progress::Pending
            }
            Some((table, _)) => {
                self.card.borrow_mut().indirection = table;
                Progress::Done
            }
        }
    }

    fn read_link_up(&self) -> bool {
        self.card.borrow().running
    }

    fn read_needs_reset(&self) -> bool {
        false
    }

    fn poll_missed(&mut self) -> u64 {
        self.card.borrow().missed
    }

    fn reset(&mut self, _clock: Clock<'_>) -> Result<Stopped, Infallible> {
        let mut card = self.card.borrow_mut();
        card.running = false;
        card.indirection.fill(0);
        self.sent = None;
        Ok(Stopped(()))
    }

    fn restart(&mut self, _stopped: Stopped, _clock: Clock<'_>) -> Result<(), Infallible> {
        let mut card = self.card.borrow_mut();
        card.indirection.clone_from(&self.table);
        card.running = true;
        Ok(())
    }
}
