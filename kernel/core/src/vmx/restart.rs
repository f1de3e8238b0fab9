//! How often a dataplane is started: one that dies at once is not started for ever.

#[cfg(test)]
mod tests;

/// Starts in any minute.
pub const STARTS_MAX: usize = 8;
pub const WINDOW_NS: u64 = 60_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is started: its so many-th life, from 1.
    Start { life: u64 },
    /// It has had its eight lives of this minute, and stays down for good.
    StayDown { lives: u64 },
}

/// The lives of one dataplane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lives {
    /// When the last ones began; a ring.
    starts: [u64; STARTS_MAX],
    lives: u64,
    is_down: bool,
}

impl Lives {
    #[must_use]
    pub const fn new() -> Self {
        Self { starts: [0; STARTS_MAX], lives: 0, is_down: false }
    }

    /// How many there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.lives
    }

    /// Asks for another life at `now_ns`; counted if it is given.
    pub fn start(&mut self, now_ns: u64) -> Decision {
        let slot = (self.lives % STARTS_MAX as u64) as usize;
        let is_full = self.lives >= STARTS_MAX as u64;
        // The slot holds the eighth start before this one.
        self.is_down |= is_full && now_ns.saturating_sub(self.starts[slot]) < WINDOW_NS;
        if self.is_down {
            return Decision::StayDown { lives: self.lives };
        }
        self.starts[slot] = now_ns;
        self.lives += 1;
        Decision::Start { life: self.lives }
    }
}
