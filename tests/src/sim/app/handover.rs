//! A context gives a flow group away, or ends.
use super::{Context, Shared};
use crate::sim::Time;
use crate::sim::book::{End, Side, Talk};
use ix_abi::Handle;

impl Context {
    /// Whether nothing of it is under way to the kernel or back (`docs/abi.md`, 12.3).
    pub fn is_settled(&self) -> bool {
        let all_consumed = self.rings.calls_consumed() == self.rings.calls_written();
        self.started
            && !self.preempted
            && all_consumed
            && self.outbox.calls.is_empty()
            && self.rings.events() == 0
    }

    /// The group of one of its connections.
    pub fn some_group(&self, nth: usize) -> Option<u16> {
        let count = self.conns.len().max(1);
        self.conns.keys().nth(nth % count).map(|handle| Handle(*handle).group().0)
    }

    /// Whether it has the group, as far as it was told.
    pub fn has_group(&self, group: u16) -> bool {
        self.groups.contains(&group)
    }

    /// Gives what it knows of a group to the context that gets it.
    pub fn hand_over(&mut self, group: u16, to: &mut Context, shared: &mut Shared) {
        self.settle(self.rings.calls_consumed(), shared);
        assert!(self.groups.remove(&group), "{group} leaves a context that it is not in");
        let ours = |handle: &u64| Handle(*handle).group().0 == group;
        let moving: Vec<u64> = self.conns.keys().copied().filter(ours).collect();
        for handle in moving {
            let Some(mut conn) = self.conns.remove(&handle) else { continue };
            conn.moved(to.consumed);
            to.conns.insert(handle, conn);
        }
    }

    /// Its application is ended; gives what it had not begun.
    pub fn crash(&mut self, shared: &mut Shared, now: Time) -> Vec<(Time, Talk)> {
        for conn in std::mem::take(&mut self.conns).into_values() {
            conn.crashed(shared, now);
        }
        for talk in std::mem::take(&mut shared.opening).into_values() {
            shared.book.borrow_mut().end(talk.id, Side::Opener, End::Crashed, now);
        }
        std::mem::take(&mut self.plans)
    }
}
