//! The control part: the table that is staged and sent, reset, restart.
use crate::Host;
use crate::cable::{Shared, State, Turn};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use ix_dataplane::device::{Clock, NicControl, Progress};
use ix_dataplane::time::{Duration, Instant};

/// How long a transmit queue may take for what it has begun. Its core may stand still meanwhile: a virtual machine's does.
const TURN_MAX: Duration = Duration::from_ms(500);

/// Proof that the port is stopped: nobody writes into buffers of it or reads frames of it.
#[derive(Debug)]
pub struct Stopped(());

/// Why the table was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
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
            Self::OutOfRange => "no such table entry or queue",
            Self::Busy => "a change is under way",
            Self::Stopped => "the port is stopped; start it first",
        })
    }
}

/// Why the port does not stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartError {
    /// The transmit queue whose core does not come to an end.
    pub queue: usize,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the core of queue {} is in the middle of a frame and stands still", self.queue)
    }
}

/// The control part of a port.
pub struct LoopbackControl<H> {
    host: H,
    shared: Arc<Shared>,
    /// Transmit queues that are the port's own or send to it.
    turns: Vec<Arc<Turn>>,
    /// Those that send to it.
    arriving: Vec<Arc<Turn>>,
    table: Vec<u16>,
    /// For each that sends to it: the turn in which it may still go by the old table.
    changing: Option<Vec<u32>>,
    /// Memory for that.
    spare: Vec<u32>,
}

impl<H> fmt::Debug for LoopbackControl<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopbackControl").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl<H: Host> LoopbackControl<H> {
    pub(crate) fn new(
        host: H,
        shared: Arc<Shared>,
        turns: Vec<Arc<Turn>>,
        arriving: Vec<Arc<Turn>>,
    ) -> Self {
        let table = (0..shared.groups()).map(|group| shared.queue_of(group)).collect();
        let spare = Vec::with_capacity(arriving.len());
        LoopbackControl { host, shared, turns, arriving, table, changing: None, spare }
    }

    fn end_change(&mut self) {
        if let Some(mut turns) = self.changing.take() {
            turns.clear();
            self.spare = turns;
        }
    }
}

impl<H: Host> NicControl for LoopbackControl<H> {
    type Stopped = Stopped;
    type CommandError = CommandError;
    type StartError = StartError;

    fn pairs(&self) -> u16 {
        self.shared.pairs()
    }

    fn reta(&self) -> &[u16] {
        &self.table
    }

    fn set_reta(&mut self, group: u16, queue: u16) -> Result<(), CommandError> {
        let exists = queue < self.pairs();
        let entry = self.table.get_mut(usize::from(group)).filter(|_| exists);
        *entry.ok_or(CommandError::OutOfRange)? = queue;
        Ok(())
    }

    /// The new table is there at once for whoever begins to send from now on. Who has begun may have looked already: for those
    /// [`NicControl::poll`] waits.
    fn commit(&mut self, _now: Instant) -> Result<(), CommandError> {
        if !self.shared.state().runs {
            return Err(CommandError::Stopped);
        }
        if self.changing.is_some() {
            return Err(CommandError::Busy);
        }
        self.shared.set_table(&self.table);
        self.host.settle();
        let mut turns = core::mem::take(&mut self.spare);
        turns.extend(self.arriving.iter().map(|turn| turn.begun()));
        self.changing = Some(turns);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Progress<CommandError> {
        let Some(turns) = &self.changing else { return Progress::Idle };
        if !self.arriving.iter().zip(turns).all(|(turn, begun)| turn.has_ended(*begun)) {
            return Progress::Pending;
        }
        self.end_change();
        Progress::Done
    }

    fn read_link_up(&self) -> bool {
        self.shared.state().runs
    }

    fn read_needs_reset(&self) -> bool {
        false
    }

    fn poll_missed(&mut self) -> u64 {
        self.arriving.iter().map(|turn| turn.missed()).sum()
    }

    fn reset(&mut self, clock: Clock<'_>) -> Result<Stopped, StartError> {
        let life = self.shared.state().life.wrapping_add(1);
        self.shared.set_state(State { life, runs: false });
        self.end_change();
        self.host.settle();
        let deadline = clock() + TURN_MAX;
        for (queue, turn) in self.turns.iter().enumerate() {
            let begun = turn.begun();
            while !turn.has_ended(begun) {
                if clock() > deadline {
                    return Err(StartError { queue });
                }
                core::hint::spin_loop();
            }
        }
        Ok(Stopped(()))
    }

    fn restart(&mut self, _stopped: Stopped, _clock: Clock<'_>) -> Result<(), StartError> {
        self.shared.set_table(&self.table);
        let life = self.shared.state().life;
        self.shared.set_state(State { life, runs: true });
        Ok(())
    }
}
