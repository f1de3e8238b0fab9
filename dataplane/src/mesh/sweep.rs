//! Sweeps of the rings of frames: who has to know that what is in them now was taken waits for a sweep, not until they are
//! found empty, which under load may never be. It is over when each ring is past where it ended at the sweep's beginning.
use super::Endpoint;
use alloc::vec::Vec;
use ix_abi::CoreId;

#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// So many have begun, and are over: none or one is under way, for all who wait.
    begun: u32,
    over: u32,
    /// Where the frames of each core ended when the last one began.
    ends: Vec<u32>,
}

impl Sweeps {
    pub(super) fn new(cores: usize) -> Sweeps {
        Sweeps { ends: (0..cores).map(|_| 0).collect(), ..Sweeps::default() }
    }
}

impl<M: Send> Endpoint<M> {
    /// The next sweep to begin: when it is over, all frames that are in the rings now were taken.
    pub fn sweep(&self) -> u32 {
        self.sweeps.begun.wrapping_add(1)
    }

    /// Whether that sweep is over. It begins when it is asked for and the one before is over: so at most two pass, however many
    /// wait.
    pub fn has_swept(&mut self, number: u32) -> bool {
        while number.wrapping_sub(self.sweeps.over) as i32 > 0 {
            if self.sweeps.begun == self.sweeps.over {
                self.begin_sweep();
            }
            if !self.is_past_ends() {
                return false;
            }
            self.sweeps.over = self.sweeps.begun;
        }
        true
    }

    fn begin_sweep(&mut self) {
        self.sweeps.begun = self.sweeps.begun.wrapping_add(1);
        for core in (0..self.cores()).map(CoreId) {
            self.sweeps.ends[usize::from(core.0)] = self.frames_end(core);
        }
    }

    fn is_past_ends(&self) -> bool {
        let mut ends = (0..self.cores()).map(CoreId).zip(&self.sweeps.ends);
        ends.all(|(core, end)| self.has_taken(core, *end))
    }
}
