//! When the wheel of a group fires for its connections, and when the core is to turn it.
use super::FlowGroup;
use crate::local::Local;
use crate::time::{Duration, Instant};

/// What is put off ends at a multiple of this, so that few turns of the wheel, and few moves between its levels, look at many
/// connections: log2 of nanoseconds (4.2 ms).
const PUT_OFF_SHIFT: u32 = 22;

/// `at`, or a little before: who is looked at in vain is looked at too early anyway.
#[inline]
fn rather_early(at: Instant, now: Instant) -> Instant {
    let early = Instant(at.0 >> PUT_OFF_SHIFT << PUT_OFF_SHIFT);
    if early.since(now) > Duration(16 << PUT_OFF_SHIFT) { early } else { at }
}

impl FlowGroup {
    /// Makes the wheel fire no later than the connection's earliest timer. Timers that are put off or
    /// stopped leave the wheel as it is: it fires in vain once, which is cheaper than moving it
    /// with every message.
    #[inline]
    pub fn arm(&mut self, index: u32, local: &mut Local) {
        let conn = &self.conns[index];
        self.arm_at(index, conn.rto_at.min(conn.ack_at), local);
    }

    /// The same for one that has most likely nothing to do then, so that it may be looked at too early.
    #[inline]
    pub fn arm_early(&mut self, index: u32, local: &mut Local) {
        let conn = &self.conns[index];
        self.arm_rather_early(index, conn.rto_at.min(conn.ack_at), local);
    }

    /// The same for one that has nothing to do before.
    #[inline]
    pub fn arm_rather_early(&mut self, index: u32, at: Instant, local: &mut Local) {
        self.arm_at(index, rather_early(at, local.now), local);
    }

    /// Arms the wheel for the connection, unless that is armed for an earlier time.
    #[inline(always)]
    pub fn arm_at(&mut self, index: u32, at: Instant, local: &mut Local) {
        debug_assert!(!self.conns.at(index).is_folded());
        self.arm_folded(index, at, local);
    }

    /// The same for one that may be folded, and stays so.
    #[inline(always)]
    pub fn arm_folded(&mut self, index: u32, at: Instant, local: &mut Local) {
        let conn = self.conns.at_mut(index);
        if at < conn.timer_at {
            conn.timer_at = at;
            self.arm_first(index, at, local);
        }
    }

    /// The same for one that has no timer yet, and has noted this one itself.
    #[inline(always)]
    pub fn arm_first(&mut self, index: u32, at: Instant, local: &mut Local) {
        debug_assert!(self.conns.at(index).timer_at == at);
        self.wheel.arm(index, at);
        self.arm_index(at, local);
    }

    /// The same for the keep-alive timer, which the path of packets does not look at: whenever the wheel
    /// is not armed for a connection, this is.
    pub fn arm_keep_alive(&mut self, index: u32, local: &mut Local) {
        self.arm_at(index, self.conns[index].keep_at, local);
    }

    /// Arms the wheel for what comes next, which is the keep-alive timer, if it is armed for an earlier time.
    pub fn put_off(&mut self, index: u32) {
        let conn = &mut self.conns[index];
        let idle = conn.rto_at == Instant::NEVER && conn.ack_at == Instant::NEVER;
        if idle && conn.timer_at < conn.keep_at {
            conn.timer_at = conn.keep_at;
            self.wheel.arm(index, conn.keep_at);
        }
    }

    /// The same for a folded connection to which nothing is due yet, whose timer has fired: it stays as it is, and the wheel
    /// fires again before any message could want it to. `false`: it is none. (One that talks is not asked whether it lives: the
    /// keep-alive timer's turn comes when it has been silent for a timeout.)
    #[inline]
    pub fn put_off_folded(&mut self, index: u32, local: &mut Local) -> bool {
        let Some(conn) = self.conns.get_mut(index) else { return false };
        if !conn.is_folded() {
            return false;
        }
        let deadline = conn.folded_deadline(&local.unfolding());
        if deadline <= local.now {
            return false;
        }
        let at = rather_early(deadline.min(local.now + local.profile.rto_min), local.now);
        conn.timer_at = at;
        self.arm_first(index, at, local);
        true
    }

    #[inline]
    fn arm_index(&mut self, at: Instant, local: &mut Local) {
        if at < self.due_at {
            self.due_at = at;
            local.due.arm(u32::from(self.id.0), at);
            if at < local.calm_until {
                local.stir();
            }
        }
    }

    /// Turns the wheel; then `pop_timer` until `None`.
    pub fn turn(&mut self, now: Instant) {
        self.due_at = Instant::NEVER;
        self.wheel.advance(now);
    }

    /// The next connection whose timer has fired; at the end the core's index is armed anew.
    pub fn pop_timer(&mut self, local: &mut Local) -> Option<u32> {
        match self.wheel.pop_expired() {
            Some(index) => {
                self.conns.at_mut(index).timer_at = Instant::NEVER;
                Some(index)
            }
            None => {
                self.index_deadline(local);
                None
            }
        }
    }

    /// For when the core's index has it: no timer of the group is due before.
    pub fn due_at(&self) -> Instant {
        self.due_at
    }

    /// Enters the group in the core's index of deadlines.
    pub fn index_deadline(&mut self, local: &mut Local) {
        let at = self.wheel.next_deadline();
        if at != Instant::NEVER {
            self.arm_index(at, local);
        }
    }
}

#[cfg(test)]
mod tests;
