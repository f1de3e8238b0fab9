//! The background threads of an application: who can run, who waits for what, and whose turn it is. Round robin; who
//! waits longest is woken first. A table of at most [`BACKGROUND_THREADS_MAX`]: everything here looks at all of it.

use alloc::vec::Vec;

use ix_abi::limits::BACKGROUND_THREADS_MAX;

#[cfg(test)]
mod tests;

/// The place of a thread in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(usize);

/// Why no thread was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// There are as many as there may be.
    Limit,
    /// No memory for one more.
    NoMemory,
}

/// What keeps a thread that does not run.
#[derive(Debug)]
enum Place<T> {
    Free,
    /// A core has it.
    Running,
    /// In turn, by the number of its place in the queue.
    Ready(u64, T),
    /// Since when (a number as above), for which address, until when.
    Waiting {
        since: u64,
        addr: u64,
        deadline_ns: u64,
        thread: T,
    },
}

/// The threads; `T` is what a core needs to run one.
#[derive(Debug)]
pub struct Table<T> {
    places: Vec<Place<T>>,
    /// Numbers given out so far; those below [`FIRST`] are for who does not wait for its turn.
    turns: u64,
}

/// The first number that is given out in turn.
const FIRST: u64 = 1 << 63;

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new(), turns: 0 }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        FIRST + self.turns
    }

    /// Adds a thread that can run.
    pub fn add(&mut self, thread: T) -> Result<(), Full> {
        let turn = self.next_turn();
        let place = Place::Ready(turn, thread);
        if let Some(free) = self.places.iter_mut().find(|p| matches!(p, Place::Free)) {
            *free = place;
            return Ok(());
        }
        if self.places.len() >= BACKGROUND_THREADS_MAX {
            return Err(Full::Limit);
        }
        self.places.try_reserve(1).map_err(|_| Full::NoMemory)?;
        self.places.push(place);
        Ok(())
    }

    /// The thread whose turn it is, for a core to run. The core gives it back by [`Table::yielded`], [`Table::waits`] or
    /// [`Table::ended`].
    pub fn take(&mut self) -> Option<(Slot, T)> {
        self.take_if(|_| true)
    }

    /// The same among those that `f` is true of.
    pub fn take_if(&mut self, f: impl Fn(&T) -> bool) -> Option<(Slot, T)> {
        let ready = self.places.iter().enumerate().filter_map(|(at, place)| match place {
            Place::Ready(turn, thread) if f(thread) => Some((*turn, at)),
            _ => None,
        });
        let (_, at) = ready.min()?;
        match core::mem::replace(&mut self.places[at], Place::Running) {
            Place::Ready(_, thread) => Some((Slot(at), thread)),
            _ => None,
        }
    }

    /// A thread's turn is over. `urgent`: it is not to wait for its next one, since others wait for it.
    pub fn yielded(&mut self, slot: Slot, thread: T, urgent: bool) {
        let turn = self.next_turn();
        self.places[slot.0] = Place::Ready(if urgent { turn - FIRST } else { turn }, thread);
    }

    /// A thread waits to be woken at an address, or for the time to come.
    pub fn waits(&mut self, slot: Slot, thread: T, addr: u64, deadline_ns: u64) {
        let since = self.next_turn();
        self.places[slot.0] = Place::Waiting { since, addr, deadline_ns, thread };
    }

    /// A thread is gone.
    pub fn ended(&mut self, slot: Slot) {
        self.places[slot.0] = Place::Free;
    }

    /// Wakes at most `count` threads that wait at an address, the longest first; how many there were. Each is shown to
    /// `f` before.
    pub fn wake(&mut self, addr: u64, count: u64, mut f: impl FnMut(&mut T)) -> u64 {
        let mut woken = 0;
        while woken < count {
            let waiting = self.places.iter().enumerate().filter_map(|(at, place)| match place {
                Place::Waiting { since, addr: its, .. } if *its == addr => Some((*since, at)),
                _ => None,
            });
            let Some((_, at)) = waiting.min() else { break };
            self.make_ready(at, &mut f);
            woken += 1;
        }
        woken
    }

    /// Wakes those whose time has come.
    pub fn expire(&mut self, now_ns: u64, mut f: impl FnMut(&mut T)) -> u64 {
        let mut expired = 0;
        for at in 0..self.places.len() {
            let due = matches!(&self.places[at], Place::Waiting { deadline_ns, .. } if *deadline_ns <= now_ns);
            if due {
                self.make_ready(at, &mut f);
                expired += 1;
            }
        }
        expired
    }

    fn make_ready(&mut self, at: usize, f: &mut impl FnMut(&mut T)) {
        let turn = self.next_turn();
        if let Place::Waiting { mut thread, .. } =
            core::mem::replace(&mut self.places[at], Place::Free)
        {
            f(&mut thread);
            self.places[at] = Place::Ready(turn, thread);
        }
    }

    /// When the next one's time comes; `u64::MAX` if none waits.
    #[must_use]
    pub fn next_deadline_ns(&self) -> u64 {
        let deadlines = self.places.iter().map(|place| match place {
            Place::Waiting { deadline_ns, .. } => *deadline_ns,
            _ => u64::MAX,
        });
        deadlines.min().unwrap_or(u64::MAX)
    }

    /// How many can run and are not running.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.places.iter().filter(|place| matches!(place, Place::Ready(..))).count()
    }
}
