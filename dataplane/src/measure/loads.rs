//! What each flow group brings, on this core.
use alloc::boxed::Box;
use ix_abi::GroupId;

/// One flow group's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Frames of it that this core has taken.
    pub frames: u64,
    /// Busy time that it has spent on them.
    pub busy_ns: u64,
    /// Frames in the last window.
    pub recent: u64,
    /// What the group's own count was when it was looked at last.
    seen: u64,
}

/// Of all groups.
#[derive(Debug)]
pub struct Loads {
    by_group: Box<[Load]>,
    /// Busy time of the window that has just ended.
    pub(super) window_ns: u64,
}

impl Loads {
    pub(super) fn new(groups: u16) -> Loads {
        Loads { by_group: (0..groups).map(|_| Load::default()).collect(), window_ns: 0 }
    }

    /// By group's number.
    pub fn all(&self) -> &[Load] {
        &self.by_group
    }

    /// Frames of a group, whose count is `count` now, in the last window and since.
    pub(crate) fn now(&self, group: GroupId, count: u64) -> u64 {
        let load = self.by_group.get(usize::from(group.0));
        load.map_or(0, |load| load.recent.saturating_add(count.wrapping_sub(load.seen)))
    }

    /// A group has come, with that count of its frames.
    pub(crate) fn came(&mut self, group: GroupId, count: u64) {
        if let Some(load) = self.by_group.get_mut(usize::from(group.0)) {
            (load.seen, load.recent) = (count, 0);
        }
    }

    /// It goes.
    pub(crate) fn goes(&mut self, group: GroupId, count: u64) {
        if let Some(load) = self.by_group.get_mut(usize::from(group.0)) {
            load.frames = load.frames.wrapping_add(count.wrapping_sub(load.seen));
            load.recent = 0;
        }
    }

    /// A window has ended; `counts` are the groups of this core and their counts.
    pub(crate) fn close_window(&mut self, counts: impl Iterator<Item = (GroupId, u64)>) {
        let mut all = 0;
        for (group, count) in counts {
            let Some(load) = self.by_group.get_mut(usize::from(group.0)) else { continue };
            load.recent = count.wrapping_sub(load.seen);
            load.seen = count;
            load.frames = load.frames.wrapping_add(load.recent);
            all += load.recent;
        }
        if all == 0 {
            return;
        }
        for load in self.by_group.iter_mut().filter(|load| load.recent > 0) {
            let part = u128::from(self.window_ns) * u128::from(load.recent) / u128::from(all);
            load.busy_ns = load.busy_ns.wrapping_add(part as u64);
        }
    }
}
