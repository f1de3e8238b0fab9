//! The connections of a group, by index. Who takes one up settles it first ([`Conns::whole`]): a frame, a handle, a timer,
//! a walk over all. From then on it may be indexed, until header prediction has it again.
use super::Conn;
use crate::slab::Slab;
use core::ops::{Index, IndexMut};

/// See the module.
#[derive(Debug)]
pub struct Conns(Slab<Conn>);

impl Conns {
    /// None, of at most `limit`.
    pub const fn new(limit: u32) -> Conns {
        Conns(Slab::new(limit))
    }

    /// See [`Slab::alloc`].
    #[inline]
    pub fn alloc(&mut self) -> Option<u32> {
        self.0.alloc()
    }

    /// See [`Slab::release`].
    #[inline]
    pub fn release(&mut self, index: u32) {
        self.0.release(index);
    }

    /// Slots in use.
    pub fn len(&self) -> u32 {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots there are.
    pub fn capacity(&self) -> u32 {
        self.0.capacity()
    }

    /// The connection at an index that may be anything, as it is stored: what a folded one does not keep up is out of
    /// date.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Conn> {
        self.0.get(index)
    }

    /// The same of a slot that exists.
    #[inline(always)]
    pub fn at(&self, index: u32) -> &Conn {
        &self.0[index]
    }

    /// The same, to be changed in a way that a folded one allows.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut Conn {
        &mut self.0[index]
    }

    /// The same at an index that may be anything.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Conn> {
        self.0.get_mut(index)
    }

    /// A copy of the connection in a slot that exists, not folded: for who may not change it.
    pub fn spelled_out(&self, index: u32) -> Conn {
        let mut conn = self.0[index].clone();
        conn.settle();
        conn
    }

    /// The connection at an index that may be anything, folded no more.
    #[inline]
    pub fn whole(&mut self, index: u32) -> Option<&mut Conn> {
        let conn = self.0.get_mut(index)?;
        conn.settle();
        Some(conn)
    }

    /// The same of a slot that exists.
    #[inline]
    pub fn settle(&mut self, index: u32) {
        self.0[index].settle();
    }
}

impl Index<u32> for Conns {
    type Output = Conn;
    #[inline(always)]
    fn index(&self, index: u32) -> &Conn {
        let conn = &self.0[index];
        debug_assert!(!conn.is_folded());
        conn
    }
}

impl IndexMut<u32> for Conns {
    #[inline(always)]
    fn index_mut(&mut self, index: u32) -> &mut Conn {
        let conn = &mut self.0[index];
        debug_assert!(!conn.is_folded());
        conn
    }
}
