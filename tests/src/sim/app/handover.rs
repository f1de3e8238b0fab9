//! A context gives a flow group away, or ends.
use super::{Context, Shared};
use crate::sim::Time;
use crate::sim::book::{End, Side, Talk};
use ix_abi::{GroupId, Handle};

impl Context {
    /// The group of one of its connections.
    pub fn some_group(&self, nth: usize) -> Option<u16> {
        let count = self.conns.len().max(1);
        self.conns.keys().nth(nth % count).map(|handle| Handle(*handle).group().0)
    }

    /// A group leaves: what is known of it is left for the context that gets it.
    pub(super) fn group_out(&mut self, group: GroupId, life: u16, shared: &mut Shared) {
        let (consumed, written) = (self.rings.calls_consumed(), self.rings.calls_written());
        assert_eq!(consumed, written, "`group_out` before all calls were executed (12.3)");
        self.settle(consumed, shared);
        let was = self.groups.remove(&group.0);
        assert_eq!(was, Some(life), "{group:?} leaves a context that it is not in");
        let ours = |handle: &u64| Handle(*handle).group() == group;
        let moving: Vec<u64> = self.conns.keys().copied().filter(ours).collect();
        let conns = moving.into_iter().filter_map(|h| Some((h, self.conns.remove(&h)?)));
        let before = shared.depot.insert((group.0, life), conns.collect());
        assert!(before.is_none(), "{group:?} has left already");
    }

    /// A group comes, with what another context has left of this life of it. Of a former life, what was laid aside
    /// comes back, to end.
    pub(super) fn group_in(&mut self, group: GroupId, life: u16, shared: &mut Shared) {
        let was = self.groups.get(&group.0).copied();
        assert_ne!(was, Some(life), "{group:?} comes twice");
        if was.is_none_or(|was| was < life) {
            self.groups.insert(group.0, life);
        }
        for (handle, mut conn) in shared.depot.remove(&(group.0, life)).unwrap_or_default() {
            conn.moved(self.consumed);
            self.conns.insert(handle, conn);
        }
    }

    /// Its application is ended; gives what it had not begun.
    pub fn crash(&mut self, shared: &mut Shared, now: Time) -> Vec<(Time, Talk)> {
        for conn in std::mem::take(&mut self.conns).into_values() {
            conn.crashed(shared, now);
        }
        for (_, conn) in std::mem::take(&mut shared.depot).into_values().flatten() {
            conn.crashed(shared, now);
        }
        for talk in std::mem::take(&mut shared.opening).into_values() {
            shared.book.borrow_mut().end(talk.id, Side::Opener, End::Crashed, now);
        }
        std::mem::take(&mut self.plans)
    }
}
