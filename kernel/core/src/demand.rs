//! How many cores the dataplane wants, from what its cores have measured in their last windows; and which parked core
//! each congested one may wake. Pure: the kernel and simulations of policies run the same.
use ix_abi::demand::{Limits, Reason, Want};
use ix_abi::limits::CORES_MAX;

#[cfg(test)]
mod tests;

/// What a core that serves says of its last window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Busy share, ‰.
    pub busy_permille: u64,
    /// 99th percentile of the queueing delay.
    pub delay_p99_ns: u64,
    /// Most frames at one look.
    pub depth_max: u64,
    /// Frames taken.
    pub frames: u64,
}

/// The figures of all cores that serve, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many there are.
    pub serving: u16,
    /// Sum of their busy shares, ‰ of one core.
    pub busy_sum: u64,
    /// The largest of them.
    pub busy_max: u64,
    /// The largest 99th percentile.
    pub delay_p99_ns: u64,
    /// The deepest queue.
    pub depth_max: u64,
    /// Frames of all.
    pub frames: u64,
}

impl Figures {
    /// Of these cores.
    pub fn of(cores: impl Iterator<Item = Seen>) -> Figures {
        cores.fold(Figures::default(), |all, core| Figures {
            serving: all.serving + 1,
            busy_sum: all.busy_sum + core.busy_permille.min(1000),
            busy_max: all.busy_max.max(core.busy_permille.min(1000)),
            delay_p99_ns: all.delay_p99_ns.max(core.delay_p99_ns),
            depth_max: all.depth_max.max(core.depth_max),
            frames: all.frames.saturating_add(core.frames),
        })
    }

    /// Mean busy share, ‰.
    pub fn busy_mean(&self) -> u64 {
        self.busy_sum / u64::from(self.serving.max(1))
    }
}

/// Makes up wishes, with memory.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Within what.
    limits: Limits,
    /// Cores that may serve.
    cores: u16,
    want: Want,
    since_ns: u64,
    /// How many served at the last look, and since when.
    serving: (u16, u64),
    /// Since when fewer would do.
    fewer_since: Option<u64>,
    /// Since when nothing has asked for the cores that are wanted.
    calm_since: Option<u64>,
}

impl Demand {
    /// Of a dataplane with so many cores.
    pub fn new(cores: u16) -> Demand {
        Demand {
            limits: Limits::DEFAULT,
            cores: cores.clamp(1, CORES_MAX as u16),
            want: Want { cores: 0, reason: Reason::Enough, number: 0 },
            since_ns: 0,
            serving: (0, 0),
            fewer_since: None,
            calm_since: None,
        }
    }

    /// So many cores may serve from now on: others are reserved.
    pub fn set_cores(&mut self, cores: u16) {
        self.cores = cores.clamp(1, CORES_MAX as u16);
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Other limits. A grant that is renewed, or another, is no other wish: what was waited for goes on.
    pub fn set_limits(&mut self, limits: Limits) {
        let Limits { grant, lease_ns, .. } = limits;
        if (Limits { grant, lease_ns, ..self.limits }) != limits {
            (self.fewer_since, self.calm_since) = (None, None);
        }
        self.limits = limits;
    }

    /// The wish, and since when it stands.
    pub fn want(&self) -> (Want, u64) {
        (self.want, self.since_ns)
    }

    /// Looks at the figures of a window that has ended at `now_ns`. Whether the wish is another.
    pub fn look(&mut self, now_ns: u64, seen: &Figures) -> bool {
        if seen.serving != self.serving.0 {
            self.serving = (seen.serving, now_ns);
            // What was measured before says nothing of what is now.
            self.fewer_since = None;
        }
        let (cores, reason) = self.wish(now_ns, seen);
        if (cores, reason) == (self.want.cores, self.want.reason) {
            return false;
        }
        self.want = Want { cores, reason, number: self.want.number.wrapping_add(1) };
        self.since_ns = now_ns;
        true
    }

    fn wish(&mut self, now: u64, seen: &Figures) -> (u16, Reason) {
        let serving = seen.serving;
        let max = self.limits.cores_max.min(self.cores);
        let min = self.limits.cores_min.min(max);
        if serving < min || serving > max {
            return (serving.clamp(min, max), Reason::Limits);
        }
        if let Some((cores, reason)) = self.more(seen) {
            self.fewer_since = None;
            self.calm_since = None;
            let cores = cores.min(max);
            if cores <= serving {
                return (serving, Reason::Enough);
            }
            let held = now.saturating_sub(self.serving.1) >= self.limits.up_hold_ns;
            return if held { (cores, reason) } else { self.kept(serving) };
        }
        // A wish for more outlives the moment that gave rise to it: somebody has to see it.
        let calm = now.saturating_sub(*self.calm_since.get_or_insert(now));
        if self.want.cores > serving && calm < self.limits.down_hold_ns {
            return self.kept(serving);
        }
        let fewer = self.fewer(seen).max(min);
        if fewer >= serving {
            self.fewer_since = None;
            return (serving, Reason::Enough);
        }
        let since = *self.fewer_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.limits.down_hold_ns {
            (fewer, Reason::Idle)
        } else {
            (serving, Reason::Enough)
        }
    }

    /// What was wanted stays wanted, if it is more than there is.
    fn kept(&self, serving: u16) -> (u16, Reason) {
        let max = self.limits.cores_max.min(self.cores);
        if self.want.cores > serving && self.want.cores <= max {
            (self.want.cores, self.want.reason)
        } else {
            (serving, Reason::Enough)
        }
    }

    /// How many cores it takes, if that is more than serve, and why.
    fn more(&self, seen: &Figures) -> Option<(u16, Reason)> {
        let limits = &self.limits;
        let needed = cores_for(seen.busy_sum, limits.busy_high_permille);
        let one_more = seen.serving + 1;
        if seen.delay_p99_ns > limits.delay_target_ns {
            Some((needed.max(one_more), Reason::Delay))
        } else if seen.depth_max > limits.depth_target {
            Some((needed.max(one_more), Reason::Depth))
        } else if needed > seen.serving {
            Some((needed, Reason::Busy))
        } else {
            None
        }
    }

    /// With how many cores none would be too busy; as many as serve if one was late for half of the target.
    fn fewer(&self, seen: &Figures) -> u16 {
        if seen.delay_p99_ns > self.limits.delay_target_ns / 2 {
            return seen.serving;
        }
        cores_for(seen.busy_sum, self.limits.busy_low_permille)
    }
}

/// The fewest cores of which none is busier than `permille` on average; at least 1.
fn cores_for(busy_sum: u64, permille: u16) -> u16 {
    let cores = busy_sum.div_ceil(u64::from(permille.max(1))).max(1);
    u16::try_from(cores).unwrap_or(u16::MAX)
}

/// Calls `go(core, parked)` for each core that may wake a parked one: those of `parked`, the lowest first, by the busiest
/// of the cores that serve. `busy` is by core.
pub fn share_out(serving: u64, parked: u64, busy: &[u64], mut go: impl FnMut(u16, u16)) {
    let (mut serving, mut parked) = (serving & !parked, parked);
    while serving != 0 && parked != 0 {
        let cores = (0..CORES_MAX as u16).filter(|core| serving & 1 << core != 0);
        let load = |core: &u16| busy.get(usize::from(*core)).copied().unwrap_or(0);
        // Of equals the lowest.
        let Some(busiest) = cores.rev().max_by_key(load) else { return };
        serving &= !(1 << busiest);
        go(busiest, parked.trailing_zeros() as u16);
        parked &= parked - 1;
    }
}
