//! The connections of one context, in a table per flow group that moves with the group.

use crate::conn::Conn;
use crate::event_loop::App;
use crate::lock::SpinLock;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use ix_abi::limits::GROUPS_MAX;
use ix_abi::{GroupId, Handle};

/// The connections of one flow group, in the places that the kernel numbers: a handle's index is
/// the slot, and the whole handle, generation included, must agree. So a look-up is O(1), and
/// neither accepting nor opening a connection needs a number of the application's own.
pub struct ConnTable<A: App> {
    slots: Vec<Option<Conn<A>>>,
    len: usize,
    /// Those that had something to tell the kernel when the group left its last context.
    pub(crate) dirty: Vec<Handle>,
}

impl<A: App> ConnTable<A> {
    pub(crate) fn new() -> ConnTable<A> {
        ConnTable { slots: Vec::new(), len: 0, dirty: Vec::new() }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The connection of a handle.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut Conn<A>> {
        let conn = self.slots.get_mut(handle.index() as usize)?.as_mut()?;
        (conn.handle() == handle).then_some(conn)
    }

    /// All connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn<A>> {
        self.slots.iter_mut().flatten()
    }

    fn insert(&mut self, conn: Conn<A>) -> Option<Conn<A>> {
        let index = conn.handle().index() as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let former = self.slots[index].replace(conn);
        self.len += usize::from(former.is_none());
        former
    }

    fn remove(&mut self, handle: Handle) -> Option<Conn<A>> {
        let slot = self.slots.get_mut(handle.index() as usize)?;
        if slot.as_ref()?.handle() != handle {
            return None;
        }
        self.len -= 1;
        slot.take()
    }
}

impl<A: App> fmt::Debug for ConnTable<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnTable").field("len", &self.len).finish_non_exhaustive()
    }
}

/// How far a sweep over connections has come: see [`Conns::sweep`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    group: usize,
    slot: usize,
}

/// All connections of one context, by flow group.
pub struct Conns<A: App> {
    groups: Vec<Option<Box<ConnTable<A>>>>,
}

impl<A: App> Conns<A> {
    pub(crate) fn new() -> Conns<A> {
        let mut groups = Vec::new();
        groups.resize_with(GROUPS_MAX, || None);
        Conns { groups }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.groups.iter().flatten().map(|table| table.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection of a handle, if this context has it.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut Conn<A>> {
        self.group_mut(handle.group())?.get_mut(handle)
    }

    /// The connections of a group, if this context has any.
    #[inline]
    pub fn group_mut(&mut self, group: GroupId) -> Option<&mut ConnTable<A>> {
        self.groups.get_mut(usize::from(group.0))?.as_deref_mut()
    }

    /// All connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn<A>> {
        self.groups.iter_mut().flatten().flat_map(|table| table.iter_mut())
    }

    /// Shows `f` the connections of the next `most` places, from where the last sweep ended; at the end
    /// the next one begins anew. So all are seen in turn, in pieces of bounded length.
    pub fn sweep(&mut self, at: &mut Sweep, most: usize, mut f: impl FnMut(&mut Conn<A>)) {
        for _ in 0..most {
            let Some(group) = self.groups.get_mut(at.group) else {
                *at = Sweep::default();
                return;
            };
            match group.as_deref_mut().and_then(|table| table.slots.get_mut(at.slot)) {
                Some(slot) => {
                    at.slot += 1;
                    if let Some(conn) = slot {
                        f(conn);
                    }
                }
                None => *at = Sweep { group: at.group + 1, slot: 0 },
            }
        }
    }

    /// Adds a connection; one that had the same place is handed back.
    pub(crate) fn insert(&mut self, conn: Conn<A>) -> Option<Conn<A>> {
        let group = usize::from(conn.handle().group().0);
        match self.groups.get_mut(group) {
            Some(table) => table.get_or_insert_with(|| Box::new(ConnTable::new())).insert(conn),
            None => Some(conn),
        }
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<Conn<A>> {
        self.group_mut(handle.group())?.remove(handle)
    }

    /// Takes over a group: with its connections, if another context had it.
    pub(crate) fn group_in(&mut self, group: GroupId) {
        if let Some(table) = self.groups.get_mut(usize::from(group.0))
            && let Some(arrived) = DEPOT[usize::from(group.0)].lock().take()
        {
            *table = arrived.downcast().ok();
        }
    }

    /// Leaves a group, with its connections, for the context that will have it.
    pub(crate) fn group_out(&mut self, group: GroupId) {
        if let Some(table) = self.groups.get_mut(usize::from(group.0)).and_then(Option::take) {
            *DEPOT[usize::from(group.0)].lock() = Some(table);
        }
    }
}

impl<A: App> fmt::Debug for Conns<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conns").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Where the tables of groups wait that are between two contexts.
static DEPOT: [SpinLock<Option<Box<dyn Any + Send>>>; GROUPS_MAX] =
    [const { SpinLock::new(None) }; GROUPS_MAX];
