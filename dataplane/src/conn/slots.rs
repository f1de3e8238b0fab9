//! The connections of a group, by index. Who takes one up settles it first ([`Conns::whole`]): a frame, a handle, a timer,
//! a walk over all. From then on it may be indexed, until header prediction has it again.
use super::{Conn, Unfolding};
use crate::slab::Slab;
use core::ops::{Index, IndexMut};

/// See the module.
#[derive(Debug)]
pub struct Conns {
    slots: Slab<Conn>,
    unfolding: Unfolding,
}

impl Conns {
    /// None, of at most `limit`.
    pub const fn new(limit: u32, unfolding: Unfolding) -> Conns {
        Conns { slots: Slab::new(limit), unfolding }
    }

    /// See [`Slab::alloc`].
    #[inline]
    pub fn alloc(&mut self) -> Option<u32> {
        self.slots.alloc()
    }

    /// See [`Slab::release`].
    #[inline]
    pub fn release(&mut self, index: u32) {
        self.slots.release(index);
    }

    /// Slots in use.
    pub fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots there are.
    pub fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    /// The connection at an index that may be anything, as it is stored: what a folded one does not keep up is out of
    /// date.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Conn> {
        self.slots.get(index)
    }

    /// The same of a slot that exists.
    #[inline(always)]
    pub fn at(&self, index: u32) -> &Conn {
        &self.slots[index]
    }

    /// The same, to be changed in a way that a folded one allows.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut Conn {
        &mut self.slots[index]
    }

    /// The same at an index that may be anything.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Conn> {
        self.slots.get_mut(index)
    }

    /// A copy of the connection in a slot that exists, not folded: for who may not change it.
    pub fn spelled_out(&self, index: u32) -> Conn {
        let mut conn = self.slots[index].clone();
        conn.settle(&self.unfolding);
        conn
    }

    /// The connection at an index that may be anything, folded no more.
    #[inline]
    pub fn whole(&mut self, index: u32) -> Option<&mut Conn> {
        let conn = self.slots.get_mut(index)?;
        conn.settle(&self.unfolding);
        Some(conn)
    }

    /// The same of a slot that exists.
    #[inline]
    pub fn settle(&mut self, index: u32) {
        self.slots[index].settle(&self.unfolding);
    }
}

impl Index<u32> for Conns {
    type Output = Conn;
    #[inline(always)]
    fn index(&self, index: u32) -> &Conn {
        let conn = &self.slots[index];
        debug_assert!(!conn.is_folded());
        conn
    }
}

impl IndexMut<u32> for Conns {
    #[inline(always)]
    fn index_mut(&mut self, index: u32) -> &mut Conn {
        let conn = &mut self.slots[index];
        debug_assert!(!conn.is_folded());
        conn
    }
}
