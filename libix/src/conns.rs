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
    /// Which life of the group they are of: a group that is taken from its core by force begins another, and the same
    /// places come again.
    life: u16,
    /// Those that had something to tell the kernel when the group left its last context.
    pub(crate) dirty: Vec<Handle>,
}

impl<A: App> ConnTable<A> {
    pub(crate) fn new(life: u16) -> ConnTable<A> {
        ConnTable { slots: Vec::new(), len: 0, life, dirty: Vec::new() }
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
    groups: Box<[Option<Box<ConnTable<A>>>; GROUPS_MAX]>,
    /// Of each group, its life.
    lives: Vec<u16>,
    /// Tables of former lives, whose connections are about to end.
    former: Vec<(GroupId, Box<ConnTable<A>>)>,
}

impl<A: App> Conns<A> {
    pub(crate) fn new() -> Conns<A> {
        let groups = Box::new([const { None }; GROUPS_MAX]);
        let lives = alloc::vec![0; GROUPS_MAX];
        Conns { groups, lives, former: Vec::new() }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        let former = self.former.iter().map(|(_, table)| table.len());
        self.groups.iter().flatten().map(|table| table.len()).chain(former).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection of a handle, if this context has it.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut Conn<A>> {
        let Conns { groups, former, .. } = self;
        // The whole handle must agree: so a group that cannot be may look into any table.
        let table = groups[usize::from(handle.group().0) % GROUPS_MAX].as_deref_mut();
        match table.and_then(|table| table.get_mut(handle)) {
            Some(conn) => Some(conn),
            None => former_conn(former, handle),
        }
    }

    /// The connections of a group, if this context has any.
    #[inline]
    pub fn group_mut(&mut self, group: GroupId) -> Option<&mut ConnTable<A>> {
        self.groups.get_mut(usize::from(group.0))?.as_deref_mut()
    }

    /// All connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn<A>> {
        let former = self.former.iter_mut().map(|(_, table)| table);
        self.groups.iter_mut().flatten().chain(former).flat_map(|table| table.iter_mut())
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
            Some(table) => {
                let life = self.lives[group];
                table.get_or_insert_with(|| Box::new(ConnTable::new(life))).insert(conn)
            }
            None => Some(conn),
        }
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<Conn<A>> {
        if let Some(conn) = self.group_mut(handle.group()).and_then(|table| table.remove(handle)) {
            return Some(conn);
        }
        let ours = self.former.iter_mut().filter(|(group, _)| *group == handle.group());
        let found = ours.map(|(_, table)| table).find_map(|table| table.remove(handle));
        self.former.retain(|(_, table)| !table.is_empty());
        found
    }

    /// Takes over a group: with its connections, if another context had them in this life of it. Those of another life
    /// are about to end.
    pub(crate) fn group_in(&mut self, group: GroupId, life: u16) {
        let at = usize::from(group.0);
        let Some(place) = self.groups.get_mut(at) else { return };
        let arrived = depot::take(group, life).and_then(|table| table.downcast().ok());
        let newer = (life.wrapping_sub(self.lives[at]) as i16) >= 0;
        if !newer {
            self.former.extend(arrived.map(|table| (group, table)));
            return;
        }
        self.lives[at] = life;
        if place.as_ref().is_some_and(|table| table.life != life) {
            let former = place.take().filter(|table| !table.is_empty());
            self.former.extend(former.map(|table| (group, table)));
        }
        if arrived.is_some() {
            *place = arrived;
        }
    }

    /// Leaves a group, with its connections, for the context that will have it.
    pub(crate) fn group_out(&mut self, group: GroupId, life: u16) {
        let Some(place) = self.groups.get_mut(usize::from(group.0)) else { return };
        if let Some(table) = place.take_if(|table| table.life == life) {
            depot::put(group, life, table);
        }
    }
}

/// A connection of a group that was taken by force since.
#[cold]
fn former_conn<A: App>(
    former: &mut [(GroupId, Box<ConnTable<A>>)],
    handle: Handle,
) -> Option<&mut Conn<A>> {
    let ours = former.iter_mut().filter(|(group, _)| *group == handle.group());
    ours.map(|(_, table)| table).find_map(|table| table.get_mut(handle))
}

impl<A: App> fmt::Debug for Conns<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conns").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Where the tables of groups wait that are between two contexts.
mod depot {
    use super::{Any, Box, GROUPS_MAX, GroupId, SpinLock, Vec};

    type Table = Box<dyn Any + Send>;

    /// Of each group, a table for each life: one at most but when the group was taken by force.
    static DEPOT: [SpinLock<Vec<(u16, Table)>>; GROUPS_MAX] =
        [const { SpinLock::new(Vec::new()) }; GROUPS_MAX];

    pub(super) fn put(group: GroupId, life: u16, table: Table) {
        DEPOT[usize::from(group.0) % GROUPS_MAX].lock().push((life, table));
    }

    pub(super) fn take(group: GroupId, life: u16) -> Option<Table> {
        let mut tables = DEPOT[usize::from(group.0) % GROUPS_MAX].lock();
        let at = tables.iter().position(|(of, _)| *of == life)?;
        Some(tables.swap_remove(at).1)
    }
}
