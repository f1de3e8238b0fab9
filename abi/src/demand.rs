//! How many cores the dataplane wants, and which it may wake by itself. `docs/control.md` §10.
use crate::limits::CORES_MAX;
use crate::status::{Status, open_enum};

/// Byte offsets of what the dataplane wants. Written by core 0.
pub mod word {
    /// Bits 0–15: cores wanted, 0 before the first look; 16–31: a [`super::Reason`]; 32–63: number of the wish, which counts up
    /// with each that differs in either from the one before.
    pub const WANT: usize = 0x300;
    /// When the wish came up, nanoseconds since boot.
    pub const SINCE_NS: usize = 0x308;
    /// When core 0 looked last.
    pub const LOOKED_NS: usize = 0x310;
    /// What it saw then. Cores that serve.
    pub const SERVING: usize = 0x318;
    /// 99th percentile of the queueing delay over the last window, of the core where it is largest.
    pub const DELAY_P99_NS: usize = 0x320;
    /// Mean busy share of the cores that serve, over the last window, ‰.
    pub const BUSY_PERMILLE: usize = 0x328;
    /// The same of the busiest.
    pub const BUSY_MAX_PERMILLE: usize = 0x330;
    /// Most frames that a poll has found in the last window.
    pub const DEPTH_MAX: usize = 0x338;
    /// Frames taken in the last window, by all cores.
    pub const FRAMES: usize = 0x340;
    /// Cores that the dataplane has woken by itself since boot.
    pub const WAKES: usize = 0x348;
    /// The last one: bits 0–15 which, 16–31 by which core; 0 if there was none.
    pub const LAST_WAKE: usize = 0x350;
    /// When that was.
    pub const LAST_WAKE_NS: usize = 0x358;
    /// Number of the limits in force, counted since boot; 0: the kernel's own.
    pub const LIMITS_NUMBER: usize = 0x360;
    /// When the grant to wake cores ends, nanoseconds since boot; 0: there is none, or it does not end.
    pub const GRANT_ENDS_NS: usize = 0x368;
    /// The limits in force, as [`super::Limits`] has them.
    pub const LIMITS: usize = 0x380;
    const _: () = assert!(LIMITS + super::LIMIT_WORDS * 8 <= 0x400);
}

open_enum! {
    /// Why the dataplane wants so many cores.
    Reason {
        /// They are what it has.
        Enough = 0: "enough",
        /// The queueing delay is above the target.
        Delay = 1: "queueing delay",
        /// A queue is too long.
        Depth = 2: "queue depth",
        /// The cores are too busy.
        Busy = 3: "utilisation",
        /// Fewer would do: it offers cores back.
        Idle = 4: "idle",
        /// The limits say so.
        Limits = 5: "limits",
    }
}

/// Words of the record of limits.
pub const LIMIT_WORDS: usize = 12;
/// Longest time in a record of limits: an hour.
pub const LIMIT_NS_MAX: u64 = 3_600_000_000_000;

/// Within what the dataplane asks for cores, and when it may wake parked ones by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// It never wants fewer; at least 1.
    pub cores_min: u16,
    /// It never wants more.
    pub cores_max: u16,
    /// Parked cores that a congested core may wake, a bit each. What is not parked, or is no core, does not count.
    pub grant: u64,
    /// A core is congested when its queueing delay is above this …
    pub wake_delay_ns: u64,
    /// … at each poll that finds frames for so long; 0: once is enough.
    pub wake_after_ns: u64,
    /// How long the grant holds, from when it was given; 0: until it is taken back.
    pub lease_ns: u64,
    /// It asks for a core more when the 99th percentile of the queueing delay was above this for a window.
    pub delay_target_ns: u64,
    /// The same for the number of frames that a poll finds.
    pub depth_target: u64,
    /// The same for the mean busy share of the cores that serve, ‰.
    pub busy_high_permille: u16,
    /// It offers cores back when those that stay would not be busier than this, ‰; below `busy_high_permille`.
    pub busy_low_permille: u16,
    /// It wants more only if nothing has changed for so long.
    pub up_hold_ns: u64,
    /// It offers cores back only if fewer would have done for so long.
    pub down_hold_ns: u64,
}

impl Limits {
    /// What is in force until a client says otherwise: any number of cores, nothing granted.
    pub const DEFAULT: Limits = Limits {
        cores_min: 1,
        cores_max: CORES_MAX as u16,
        grant: 0,
        wake_delay_ns: 100_000,
        wake_after_ns: 50_000,
        lease_ns: 0,
        delay_target_ns: 100_000,
        depth_target: 32,
        busy_high_permille: 850,
        busy_low_permille: 600,
        up_hold_ns: 20_000_000,
        down_hold_ns: 500_000_000,
    };

    /// As words of the bulk area, and of the header.
    pub const fn encode(&self) -> [u64; LIMIT_WORDS] {
        let shares = self.busy_high_permille as u64 | (self.busy_low_permille as u64) << 16;
        [
            self.cores_min as u64 | (self.cores_max as u64) << 16,
            self.grant,
            self.wake_delay_ns,
            self.wake_after_ns,
            self.lease_ns,
            self.delay_target_ns,
            self.depth_target,
            shares,
            self.up_hold_ns,
            self.down_hold_ns,
            0,
            0,
        ]
    }

    /// What words say that a client wrote. [`Status::Invalid`]: no limits.
    pub fn decode(words: &[u64; LIMIT_WORDS]) -> Result<Limits, Status> {
        let [cores, grant, delay, after, lease, target, depth, shares, up, down, rest @ ..] =
            *words;
        let pair = |word: u64| (word as u16, (word >> 16) as u16);
        let ((cores_min, cores_max), (high, low)) = (pair(cores), pair(shares));
        let times = [delay, after, lease, target, up, down];
        let good = cores >> 32 == 0
            && shares >> 32 == 0
            && rest == [0; 2]
            && 1 <= cores_min
            && cores_min <= cores_max
            && usize::from(cores_max) <= CORES_MAX
            && times.iter().all(|ns| *ns <= LIMIT_NS_MAX)
            && delay > 0
            && target > 0
            && depth > 0
            && 0 < low
            && low < high
            && high <= 1000;
        if !good {
            return Err(Status::Invalid);
        }
        Ok(Limits {
            cores_min,
            cores_max,
            grant,
            wake_delay_ns: delay,
            wake_after_ns: after,
            lease_ns: lease,
            delay_target_ns: target,
            depth_target: depth,
            busy_high_permille: high,
            busy_low_permille: low,
            up_hold_ns: up,
            down_hold_ns: down,
        })
    }
}

/// A wish, as the word [`word::WANT`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Cores; 0: none was made up yet.
    pub cores: u16,
    /// Why.
    pub reason: Reason,
    /// Counts the wishes.
    pub number: u32,
}

impl Want {
    /// As a word.
    pub const fn encode(self) -> u64 {
        self.cores as u64 | (self.reason.0 as u64) << 16 | (self.number as u64) << 32
    }

    /// Of a word; a client checks `cores` against the dataplane's.
    pub const fn decode(word: u64) -> Want {
        let reason = Reason((word >> 16) as u16);
        Want { cores: word as u16, reason, number: (word >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests;
