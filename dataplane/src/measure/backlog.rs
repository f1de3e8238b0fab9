//! What polls have left: how many frames, and since when they wait at the latest.
use arrayvec::ArrayVec;

/// Looks that are told apart; what is left by more counts with the last.
const MARKS: usize = 16;

/// Frames that one look has seen for the first time and left.
#[derive(Clone, Copy, Debug)]
struct Mark {
    frames: usize,
    since: u64,
}

/// Frames of the queues, or of the rings, of a core.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// A poll that takes so many frames may have left some, or takes more than any lately. 0: each is looked at
    /// closely.
    pub(super) bound: usize,
    set_bound: usize,
    /// Each look is to be told.
    forced: bool,
    /// Oldest first.
    marks: ArrayVec<Mark, MARKS>,
    /// Most frames at one look, lately.
    most: usize,
}

impl Backlog {
    pub(super) fn new(bound: usize) -> Backlog {
        Backlog { bound: 1, set_bound: bound, forced: false, marks: ArrayVec::new(), most: 0 }
    }

    /// The bound of a poll is another now.
    pub(super) fn set_bound(&mut self, bound: usize) {
        self.set_bound = bound;
        self.look();
    }

    /// Whether each look is to be told, whatever it finds.
    pub(super) fn force(&mut self, forced: bool) {
        self.forced = forced;
        self.look();
    }

    fn look(&mut self) {
        let close = self.forced || !self.marks.is_empty();
        // More than lately is to be told, too: so that the usual look need not find out.
        self.bound = if close { 0 } else { self.set_bound.min(self.most + 1) };
    }

    /// A look has seen `frames`.
    pub(super) fn saw(&mut self, frames: usize) {
        self.most = self.most.max(frames);
        self.look();
    }

    /// The most that one look has seen since this was asked last.
    pub(super) fn take_most(&mut self) -> usize {
        let most = core::mem::take(&mut self.most);
        self.look();
        most
    }

    /// The same, without taking it.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Since when the oldest frame waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.marks.first().map(|mark| mark.since)
    }

    /// `frames` were taken: calls `old(count, since)` for those that an earlier look has seen, and gives the number of
    /// the others.
    pub(super) fn take(&mut self, frames: usize, mut old: impl FnMut(usize, u64)) -> usize {
        let mut left = frames;
        let mut gone = 0;
        for mark in &mut self.marks {
            let count = mark.frames.min(left);
            if count > 0 {
                old(count, mark.since);
            }
            mark.frames -= count;
            left -= count;
            if mark.frames > 0 {
                break;
            }
            gone += 1;
        }
        self.marks.drain(..gone);
        left
    }

    /// `waiting` frames were left; those that no earlier look has seen wait since `came`.
    pub(super) fn left(&mut self, waiting: usize, came: u64) {
        let mut known = 0;
        for mark in &mut self.marks {
            // Fewer than there were: a queue has gone, or was emptied.
            mark.frames = mark.frames.min(waiting - known);
            known += mark.frames;
        }
        self.marks.retain(|mark| mark.frames > 0);
        let frames = waiting - known;
        if frames > 0 && self.marks.try_push(Mark { frames, since: came }).is_err() {
            // Rather too old than too young.
            if let Some(last) = self.marks.last_mut() {
                last.frames += frames;
            }
        }
        self.look();
    }
}
