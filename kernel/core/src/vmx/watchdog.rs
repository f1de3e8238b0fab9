//! Whether a core of a dataplane hangs. The guest bumps a counter on each core and tells its address; the
//! monitor looks at it whenever the preemption timer, which counts only while the guest runs, has fired.

#[cfg(test)]
mod tests;

/// Looks a second at most (SDM 26.5.1: each is a VM exit).
pub const LOOKS_PER_SECOND: u32 = 10;
/// Looks without a heartbeat after which a core hangs: one second.
pub const LOOKS_DEFAULT: u32 = LOOKS_PER_SECOND;
/// The same before the first heartbeat was announced: booting has loops of its own.
pub const LOOKS_BOOT: u32 = 30 * LOOKS_PER_SECOND;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Alive,
    /// For so many looks nothing has moved.
    Hung {
        looks: u32,
    },
}

/// What the monitor sees of a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The counter; `None`: the guest has not announced one.
    pub beat: Option<u64>,
    /// Halted, with interrupts on: idle, and whoever wants something of it wakes it. Halted with interrupts
    /// off is none of that.
    pub is_idle: bool,
}

/// The watchdog of one core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchdog {
    limit: u32,
    last: Option<u64>,
    looks: u32,
}

impl Watchdog {
    /// `limit`: looks without a heartbeat; at least 1.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self { limit: if limit == 0 { 1 } else { limit }, last: None, looks: 0 }
    }

    /// The core begins a life, or comes back from another dataplane.
    pub const fn restart(&mut self) {
        self.looks = 0;
        self.last = None;
    }

    /// Takes a look.
    pub fn look(&mut self, seen: Look) -> Verdict {
        let moved = seen.beat.is_some() && seen.beat != self.last;
        // A counter that was announced and is gone does not buy the time of a boot.
        let limit = if seen.beat.is_none() && self.last.is_none() {
            self.limit.max(LOOKS_BOOT)
        } else {
            self.limit
        };
        if moved || seen.is_idle {
            self.looks = 0;
        } else {
            self.looks = self.looks.saturating_add(1);
        }
        if moved {
            self.last = seen.beat;
        }
        if self.looks >= limit { Verdict::Hung { looks: self.looks } } else { Verdict::Alive }
    }
}
