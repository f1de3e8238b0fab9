//! Challenge ACKs (RFC 5961): answers to segments that a blind attacker may have sent, which tell an
//! honest peer how things stand. There are only so many in a second (§7), and how many is drawn
//! anew for each: a fixed number lets an attacker count what others used up (CVE-2016-5696).
use crate::group::FlowGroup;
use crate::limits::CHALLENGES_PER_SECOND;
use crate::local::Local;
use crate::rng::Rng;
use crate::tcp::input;
use crate::time::{Duration, Instant};
use ix_abi::stats::{Counter, Drop};

/// What is left of this second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    ends: Instant,
    left: u32,
}

impl Budget {
    /// Whether one more may be sent; then it counts.
    fn take(&mut self, now: Instant, rng: &mut Rng) -> bool {
        if now >= self.ends {
            self.ends = now + Duration::from_s(1);
            let half = CHALLENGES_PER_SECOND / 2;
            self.left = half + rng.below(u64::from(half) + 1) as u32;
        }
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }
}

/// Answers a suspicious segment, if that may be.
#[cold]
pub fn suspicious(group: &mut FlowGroup, local: &mut Local, index: u32) {
    if local.challenges.take(local.now, &mut local.rng) {
        local.stats.add(Counter::TcpChallengeAcks, 1);
        input::challenge(group, local, index);
    } else {
        local.stats.drop(Drop::TcpChallenge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_budget_is_bounded_drawn_anew_and_not_saved_up() {
        let mut rng = Rng::from_seed(1);
        let mut budget = Budget::default();
        let mut seen = alloc::collections::BTreeSet::new();
        for second in [1, 2, 3, 10, 1000] {
            let now = Instant(second * 1_000_000_000);
            let given = (0..5000).filter(|_| budget.take(now, &mut rng)).count() as u32;
            assert!((CHALLENGES_PER_SECOND / 2..=CHALLENGES_PER_SECOND).contains(&given));
            assert!(!budget.take(Instant(now.0 + 999_999_999), &mut rng));
            seen.insert(given);
        }
        assert!(seen.len() > 2, "{seen:?}");
    }
}
