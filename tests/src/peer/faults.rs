//! What a bad network does to frames, decided by a seed: the same seed and the same frames give the
//! same faults.
use ix_dataplane::rng::Rng;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A frame that is held back is let go at the latest after this time.
const HOLD_MAX: Duration = Duration::from_millis(5);

/// How often what happens, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Decides everything.
    pub seed: u64,
    /// Frames lost.
    pub loss: u64,
    /// Frames delivered twice.
    pub duplication: u64,
    /// Frames that let up to three others pass.
    pub reordering: u64,
}

impl Faults {
    /// A perfect network.
    pub const NONE: Faults = Faults { seed: 0, loss: 0, duplication: 0, reordering: 0 };
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that went in.
    pub frames: u64,
    /// Lost.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Held back.
    pub delayed: u64,
}

/// One direction of a network.
#[derive(Debug)]
pub struct Path {
    faults: Faults,
    rng: Rng,
    held: VecDeque<Held>,
    /// What has happened.
    pub counts: Counts,
}

#[derive(Debug)]
struct Held {
    frame: Vec<u8>,
    /// Frames that still may pass it.
    passes: u64,
    since: Instant,
}

impl Path {
    /// `direction` makes the two directions of one seed different.
    pub fn new(faults: Faults, direction: u64) -> Path {
        let rng = Rng::from_seed(faults.seed.wrapping_mul(2).wrapping_add(direction));
        Path { faults, rng, held: VecDeque::new(), counts: Counts::default() }
    }

    /// A frame goes in; what comes out is given to `deliver`.
    pub fn push(&mut self, frame: Vec<u8>, mut deliver: impl FnMut(Vec<u8>)) {
        self.counts.frames += 1;
        for held in &mut self.held {
            held.passes = held.passes.saturating_sub(1);
        }
        if self.rng.chance(self.faults.loss, 1000) {
            self.counts.lost += 1;
        } else if self.rng.chance(self.faults.reordering, 1000) {
            self.counts.delayed += 1;
            let passes = 1 + self.rng.below(3);
            self.held.push_back(Held { frame, passes, since: Instant::now() });
        } else {
            if self.rng.chance(self.faults.duplication, 1000) {
                self.counts.doubled += 1;
                deliver(frame.clone());
            }
            deliver(frame);
        }
        self.release(deliver);
    }

    /// Lets go what has been held long enough.
    pub fn release(&mut self, mut deliver: impl FnMut(Vec<u8>)) {
        let mut i = 0;
        while i < self.held.len() {
            let held = &self.held[i];
            if held.passes == 0 || held.since.elapsed() > HOLD_MAX {
                deliver(self.held.remove(i).expect("in range").frame);
            } else {
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(faults: Faults) -> (Vec<u64>, Counts) {
        let mut path = Path::new(faults, 0);
        let mut out = Vec::new();
        let number = |f: Vec<u8>| u64::from_le_bytes(f.try_into().expect("8 bytes"));
        for i in 0..2000_u64 {
            path.push(i.to_le_bytes().to_vec(), |f| out.push(number(f)));
        }
        std::thread::sleep(HOLD_MAX * 2);
        path.release(|f| out.push(number(f)));
        (out, path.counts)
    }

    #[test]
    fn a_perfect_network_changes_nothing() {
        assert_eq!(through(Faults::NONE).0, (0..2000).collect::<Vec<_>>());
    }

    #[test]
    fn every_fault_happens_and_nothing_else_is_lost_or_doubled() {
        let (mut out, counts) =
            through(Faults { seed: 7, loss: 50, duplication: 50, reordering: 50 });
        assert!(counts.lost > 50 && counts.doubled > 50 && counts.delayed > 50, "{counts:?}");
        assert_eq!(out.len() as u64, counts.frames - counts.lost + counts.doubled);
        assert!(!out.is_sorted());
        out.sort_unstable();
        out.dedup();
        assert_eq!(out.len() as u64, counts.frames - counts.lost);
    }

    #[test]
    fn the_same_seed_gives_the_same_losses() {
        let faults = Faults { seed: 7, loss: 50, duplication: 50, reordering: 0 };
        assert_eq!(through(faults).0, through(faults).0);
        assert_ne!(through(faults).0, through(Faults { seed: 8, ..faults }).0);
    }
}
