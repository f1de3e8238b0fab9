//! Receive buffers: one area for all cores, a pool per core, metadata apart from the data.
//!
//! An [`Mbuf`] is the right to one buffer: whoever holds it may read the data and use the metadata,
//! nobody else does. It cannot be copied; losing one leaks a buffer, which the conservation checks
//! of the tests see. The data area is mapped read-only into the application, the metadata is not.
//!
//! # Safety
//! The area's memory is given once at [`Area::new`], is exclusively the area's, and is never
//! freed while the area lives. The device writes a buffer only between being posted and being
//! polled, when its `Mbuf` is in the driver's shadow.
#![allow(unsafe_code, reason = "raw memory shared with devices and the application")]

use crate::device::BusAddr;
use crate::limits::MBUF_BYTES;
use crate::spsc::Padded;
use crate::usermem::Extent;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use ix_abi::{CoreId, GroupId};

mod place;
mod rest;

pub use place::Place;
pub use rest::{Rest, RestBuilder};

/// The right to one receive buffer.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped mbuf is a leaked buffer: give it back to a pool"]
pub struct Mbuf(u32);

impl Mbuf {
    /// The buffer's number in its area.
    pub const fn index(&self) -> u32 {
        self.0
    }

    /// Gives up the token and keeps the number, for intrusive lists and rings.
    pub const fn into_raw(self) -> u32 {
        self.0
    }

    /// The inverse of [`Mbuf::into_raw`]: exactly once for each.
    pub const fn from_raw(index: u32) -> Mbuf {
        Mbuf(index)
    }
}

/// No buffer, in intrusive links.
pub const NO_MBUF: u32 = u32::MAX;

/// In [`Meta::references`]: none, but the buffer waits for others before it, and came when the rest says.
pub const WAITS: u32 = 1 << 31;

/// What the kernel knows of a buffer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Meta {
    /// Next in whatever list the buffer is in.
    pub next: u32,
    /// First byte that is of interest.
    pub offset: u16,
    /// Bytes from there.
    pub len: u16,
    /// References beyond the holder's: transmit segments that name this buffer.
    pub references: u32,
    /// Sequence number, or what the holder likes.
    pub word: u32,
}

const _: () = assert!(size_of::<Meta>() == 16);

/// On whose behalf the application holds a buffer that was delivered to it: a flow group, or a core
/// (datagrams). Only the owner of the group, or that core, changes it; so a core that reads a holder
/// of its own from it may rely on that, whatever index an application made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(u16);

impl Holder {
    /// The application does not hold the buffer.
    pub const NONE: Holder = Holder(u16::MAX);

    /// Held for a connection of the group.
    pub const fn group(group: GroupId) -> Holder {
        debug_assert!(group.0 < 0x4000);
        Holder(group.0)
    }

    /// Held for a UDP binding, delivered by the core.
    pub const fn core(core: CoreId) -> Holder {
        Holder(0x8000 | core.0)
    }

    /// Held for a connection of a group that was taken from the core by force, and that it ends.
    pub const fn relic(core: CoreId) -> Holder {
        Holder(0x4000 | core.0)
    }

    /// Held for a connection of whichever core says so next.
    const STRAY: Holder = Holder::relic(CoreId(0x3fff));

    /// The group, if one holds it.
    pub const fn as_group(self) -> Option<GroupId> {
        if self.0 & 0xc000 == 0 { Some(GroupId(self.0)) } else { None }
    }
}

struct MetaCell(UnsafeCell<Meta>);

/// The memory of all receive buffers of a dataplane.
pub struct Area {
    data: NonNull<u8>,
    bus: BusAddr,
    user_base: u64,
    per_core: u32,
    cores: u16,
    meta: Box<[MetaCell]>,
    holders: Box<[AtomicU16]>,
    /// Free buffers of each core's pool, as it last said; written by that core only.
    free: Box<[Padded<AtomicU32>]>,
}

// SAFETY: all access to a buffer's data and metadata goes through its unique `Mbuf` token, which is
// moved between cores, never shared.
unsafe impl Send for Area {}
// SAFETY: as above; the other fields are constant.
unsafe impl Sync for Area {}

impl core::fmt::Debug for Area {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Area").field("buffers", &self.buffers()).finish_non_exhaustive()
    }
}

impl Area {
    /// An area of `cores * per_core` buffers in the memory at `data`, which the device sees at
    /// `bus` and the application, read-only, at `user_base`; contiguous for all three.
    ///
    /// # Safety
    /// `data` is valid for reads and writes of `cores * per_core * MBUF_BYTES` bytes for as long as
    /// the area lives, and nothing else in the kernel uses it.
    pub unsafe fn new(
        data: NonNull<u8>,
        bus: BusAddr,
        user_base: u64,
        cores: u16,
        per_core: u32,
    ) -> Area {
        let buffers = u32::from(cores) * per_core;
        let meta = (0..buffers).map(|_| MetaCell(UnsafeCell::new(Meta::default()))).collect();
        let holders = (0..buffers).map(|_| AtomicU16::new(Holder::NONE.0)).collect();
        let free = (0..cores).map(|_| Padded(AtomicU32::new(per_core))).collect();
        Area { data, bus, user_base, per_core, cores, meta, holders, free }
    }

    /// One without buffers, for tests of what only refers to it.
    #[cfg(test)]
    pub(crate) fn empty() -> &'static Area {
        // SAFETY: there is no byte of it.
        Box::leak(Box::new(unsafe { Area::new(NonNull::dangling(), BusAddr(0), 0, 0, 0) }))
    }

    /// How many buffers there are.
    pub fn buffers(&self) -> u32 {
        self.meta.len() as u32
    }

    /// Bytes of the data area.
    pub fn bytes(&self) -> u64 {
        u64::from(self.buffers()) * MBUF_BYTES as u64
    }

    /// The core in whose pool the buffer belongs.
    pub fn home(&self, mbuf: &Mbuf) -> CoreId {
        CoreId((mbuf.0 / self.per_core) as u16)
    }

    /// Where the device finds byte `offset` of the buffer.
    #[inline]
    pub fn bus_addr(&self, mbuf: &Mbuf, offset: u16) -> BusAddr {
        self.bus.offset(u64::from(mbuf.0) * MBUF_BYTES as u64 + u64::from(offset))
    }

    /// Where the application finds byte `offset` of the buffer.
    #[inline]
    pub fn user_addr(&self, mbuf: &Mbuf, offset: u16) -> u64 {
        self.user_base + u64::from(mbuf.0) * MBUF_BYTES as u64 + u64::from(offset)
    }

    /// The buffer number and offset that a user address means, if it is within the area. An
    /// allegation still: the caller checks that the application holds that buffer.
    #[inline]
    pub fn locate(&self, user_addr: u64) -> Option<(u32, u16)> {
        let at = user_addr.checked_sub(self.user_base)?;
        if at >= self.bytes() {
            return None;
        }
        Some(((at / MBUF_BYTES as u64) as u32, (at % MBUF_BYTES as u64) as u16))
    }

    /// The buffer's bytes.
    #[inline]
    pub fn data(&self, mbuf: &Mbuf) -> &[u8] {
        // SAFETY: the token proves that the index is valid and that the device is done with the
        // buffer; the application only reads it.
        unsafe { core::slice::from_raw_parts(self.ptr(mbuf), MBUF_BYTES) }
    }

    /// The buffer's bytes, to build an answer in place.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "exclusive by the token, which is borrowed mutably")]
    pub fn data_mut<'a>(&'a self, mbuf: &'a mut Mbuf) -> &'a mut [u8] {
        // SAFETY: as in `data`, and the token is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.ptr(mbuf), MBUF_BYTES) }
    }

    #[inline]
    fn ptr(&self, mbuf: &Mbuf) -> *mut u8 {
        debug_assert!(mbuf.0 < self.buffers());
        // SAFETY: tokens are made only by a pool of this area, with indices below `buffers`.
        unsafe { self.data.as_ptr().add(mbuf.0 as usize * MBUF_BYTES) }
    }

    /// The buffer's metadata.
    #[inline]
    pub fn meta(&self, mbuf: &Mbuf) -> Meta {
        // SAFETY: the token is the exclusive right to the metadata; no reference to it outlives a
        // call of this module.
        unsafe { *self.meta_ptr(mbuf) }
    }

    /// Replaces the buffer's metadata.
    #[inline]
    pub fn set_meta(&self, mbuf: &mut Mbuf, meta: Meta) {
        // SAFETY: as in `meta`, with the token borrowed mutably.
        unsafe { *self.meta_ptr(mbuf) = meta }
    }

    /// Says that `len` bytes were received from there on, into the caller's buffer, to which nothing refers, and who holds it. The rest
    /// of its metadata is left as it was.
    #[inline(always)]
    pub fn begin(&self, place: Place, len: u16, holder: Holder) {
        // SAFETY: as in `set_meta`.
        let meta = unsafe { &mut *self.meta_at(place) };
        (meta.offset, meta.len, meta.references) = (place.offset(), len, 0);
        self.holder_at(place).store(holder.0, Ordering::Relaxed);
    }

    /// The application holds it no more.
    #[inline(always)]
    pub fn take_back(&self, place: Place) {
        self.holder_at(place).store(Holder::NONE.0, Ordering::Relaxed);
    }

    /// Where the metadata is of the buffer of a place, which is the caller's.
    #[inline(always)]
    fn meta_at(&self, place: Place) -> *mut Meta {
        debug_assert!(place.at() < self.meta.len());
        // SAFETY: as in `meta_ptr`.
        unsafe { self.meta.get_unchecked(place.at()) }.0.get()
    }

    #[inline(always)]
    fn holder_at(&self, place: Place) -> &AtomicU16 {
        debug_assert!(place.at() < self.meta.len());
        // SAFETY: as in `holder_of`.
        unsafe { self.holders.get_unchecked(place.at()) }
    }

    /// Where the metadata is: valid as long as the area.
    #[inline(always)]
    fn meta_ptr(&self, mbuf: &Mbuf) -> *mut Meta {
        debug_assert!(mbuf.0 < self.buffers());
        // SAFETY: as in `ptr`; there is metadata for each buffer.
        unsafe { self.meta.get_unchecked(mbuf.0 as usize) }.0.get()
    }

    /// Adds to the references of a buffer that the caller may use; how many there are then.
    #[inline(always)]
    fn count(&self, index: u32, by: u32) -> u32 {
        // SAFETY: as in `set_meta`: the caller has a reference, or holds the buffer.
        let references = unsafe { &mut (*self.meta_ptr(&Mbuf(index))).references };
        debug_assert!(by == 1 || *references > 0);
        *references = references.wrapping_add(by);
        *references
    }

    #[inline(always)]
    fn references(&self, mbuf: &Mbuf) -> u32 {
        // SAFETY: as in `meta`.
        unsafe { (*self.meta_ptr(mbuf)).references }
    }

    /// Where `[addr, addr + len)` of the application's addresses begins, if that is part of the `received` bytes from `held` on, in
    /// one buffer to which nothing else refers. The caller keeps the buffer, or counts a reference.
    #[inline(always)]
    pub fn part(&self, held: Place, addr: u64, len: u64, received: u64) -> Option<Place> {
        let place = self.within(held, addr, len, received)?;
        // SAFETY: as in `meta`.
        if unsafe { (*self.meta_at(held)).references } > 0 {
            return None;
        }
        Some(place)
    }

    /// The same of one that has just come, and so is known to nobody else.
    #[inline(always)]
    pub fn within(&self, held: Place, addr: u64, len: u64, received: u64) -> Option<Place> {
        // The same in all three views of the area. What is not in this buffer is far from what was received.
        let at = addr.wrapping_sub(self.user_base);
        let skipped = at.wrapping_sub(held.0);
        if skipped > received {
            core::hint::cold_path();
            return None;
        }
        if len > received - skipped {
            core::hint::cold_path();
            return None;
        }
        Some(Place(at))
    }

    /// `len` bytes from there on, to be sent, which [`Area::part`] has admitted.
    #[inline(always)]
    pub fn extent_at(&self, Place(at): Place, len: u64) -> Extent {
        debug_assert!(at + len <= self.bytes());
        let alias = (self.data.as_ptr() as usize).wrapping_add(at as usize);
        // SAFETY: within a buffer, which is readable while the area lives; that it is kept keeps the
        // device from getting it for reception.
        unsafe { Extent::new(alias, self.bus.offset(at), len as u32) }
    }

    /// Where the application finds that byte.
    #[inline(always)]
    pub fn user_addr_at(&self, Place(at): Place) -> u64 {
        self.user_base + at
    }

    /// Where an extent of one of the buffers begins.
    #[inline(always)]
    pub fn place(&self, extent: &Extent) -> Place {
        Place(extent.bus().0.wrapping_sub(self.bus.0))
    }

    /// `len` bytes of the buffer from `offset`, to be sent; the caller has counted a reference.
    #[inline]
    pub fn extent(&self, mbuf: &Mbuf, offset: u16, len: u32) -> Extent {
        let len = len.min(MBUF_BYTES as u32 - u32::from(offset).min(MBUF_BYTES as u32));
        // SAFETY: within the buffer, which is readable while the area lives; the reference keeps
        // the device from getting it for reception.
        unsafe {
            let alias = self.ptr(mbuf) as usize + usize::from(offset);
            Extent::new(alias, self.bus_addr(mbuf, offset), len)
        }
    }

    /// Who holds a buffer; the index may be anything below `buffers`.
    #[inline]
    pub fn holder(&self, index: u32) -> Holder {
        self.holders.get(index as usize).map_or(Holder::NONE, |h| Holder(h.load(Ordering::Relaxed)))
    }

    /// Makes `next` follow `index` in a list, which is the caller's.
    #[inline]
    pub fn link(&self, index: u32, next: u32) {
        // SAFETY: as in `set_meta`: the list is the caller's, and so are its buffers.
        unsafe { (*self.meta_ptr(&Mbuf(index))).next = next }
    }

    /// A core was stopped for good, or for a while: what the application holds for groups of `whose` is held for what is
    /// left of them on that core. So no core to which one of the groups goes afresh takes such a buffer for its own.
    pub fn orphan(&self, core: CoreId, whose: impl Fn(GroupId) -> bool) {
        for holder in &self.holders {
            let group = Holder(holder.load(Ordering::Relaxed)).as_group();
            if group.is_some_and(&whose) {
                holder.store(Holder::relic(core).0, Ordering::Relaxed);
            }
        }
    }

    /// That core runs again, and says itself what it holds. The rest is of groups that had just gone to a core that was stopped
    /// as well, of which those did not know who have called [`Area::orphan`].
    pub fn disown(&self, core: CoreId) {
        for holder in &self.holders {
            if holder.load(Ordering::Relaxed) == Holder::relic(core).0 {
                holder.store(Holder::STRAY.0, Ordering::Relaxed);
            }
        }
    }

    /// Says who holds the buffer.
    #[inline]
    pub fn set_holder(&self, mbuf: &Mbuf, holder: Holder) {
        self.holder_of(mbuf).store(holder.0, Ordering::Relaxed);
    }

    #[inline(always)]
    fn holder_of(&self, mbuf: &Mbuf) -> &AtomicU16 {
        debug_assert!(mbuf.0 < self.buffers());
        // SAFETY: as in `ptr`; there is a holder for each buffer.
        unsafe { self.holders.get_unchecked(mbuf.0 as usize) }
    }
}

/// A core's free buffers.
#[derive(Debug)]
pub struct Pool {
    area: &'static Area,
    core: CoreId,
    /// Where others read how many are free; `None`: there are no others.
    told: Option<&'static AtomicU32>,
    /// The first of those that are at home here, and how many.
    first: u32,
    count: u32,
    free: Vec<u32>,
    /// Freed here, at home elsewhere; to be sent there by the mesh.
    away: Vec<u32>,
    /// The first of those that are at home on cores which are away themselves, linked; and how many.
    stranded: (u32, usize),
}

impl Pool {
    /// The pool of `core`, with all its buffers free. Once per core of an area.
    pub fn new(area: &'static Area, core: CoreId) -> Pool {
        assert!(core.0 < area.cores, "core {} has no share of the area", core.0);
        let first = u32::from(core.0) * area.per_core;
        let mut free = Vec::with_capacity(area.per_core as usize);
        free.extend((first..first + area.per_core).rev());
        let away = Vec::with_capacity(area.buffers() as usize - area.per_core as usize);
        let told = (area.cores > 1).then(|| &area.free[usize::from(core.0)].0);
        Pool { area, core, told, first, count: area.per_core, free, away, stranded: (NO_MBUF, 0) }
    }

    /// The area.
    pub fn area(&self) -> &'static Area {
        self.area
    }

    /// The core.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Takes a free buffer.
    #[inline]
    pub fn alloc(&mut self) -> Option<Mbuf> {
        self.free.pop().map(Mbuf)
    }

    /// Takes a free buffer for each of `places`, as far as there are any, and hands it to `give`; how many. As often
    /// [`Pool::alloc`], but that the list is shortened once.
    #[inline]
    pub fn alloc_for<P>(
        &mut self,
        places: impl ExactSizeIterator<Item = P>,
        mut give: impl FnMut(P, Mbuf),
    ) -> usize {
        let left = self.free.len().saturating_sub(places.len());
        let taken = self.free.get(left..).unwrap_or_default();
        taken.iter().rev().zip(places).for_each(|(index, place)| give(place, Mbuf(*index)));
        let count = taken.len();
        self.free.truncate(left);
        count
    }

    /// Takes a buffer back, whatever core it is at home on. Never allocates: both lists were made
    /// for all buffers there are.
    #[inline]
    pub fn free(&mut self, mbuf: Mbuf) {
        if self.owns(&mbuf) {
            self.free_own(mbuf);
        } else {
            self.send_away(mbuf);
        }
    }

    /// The same of one that is at home here.
    #[inline(always)]
    pub fn free_own(&mut self, mbuf: Mbuf) {
        debug_assert!(self.owns(&mbuf) && self.free.len() < self.free.capacity());
        // It always is: but so the compiler makes nothing for the other case.
        if self.free.len() < self.free.capacity() {
            self.free.push(mbuf.0);
        }
    }

    #[inline(never)]
    fn send_away(&mut self, mbuf: Mbuf) {
        debug_assert!(self.away.len() < self.away.capacity());
        self.away.push(mbuf.0);
    }

    /// Ends what the application held: free, unless transmit segments still refer to it.
    #[inline]
    pub fn return_held(&mut self, mbuf: Mbuf) {
        self.area.set_holder(&mbuf, Holder::NONE);
        if self.area.references(&mbuf) == 0 {
            self.free(mbuf);
        } else {
            let _kept_by_the_references = mbuf.into_raw();
        }
    }

    /// Ends what the application held of a buffer that nothing refers to: nobody but the caller has it then.
    #[inline(always)]
    pub fn take_back(&mut self, mbuf: Mbuf) -> Mbuf {
        self.area.set_holder(&mbuf, Holder::NONE);
        mbuf
    }

    /// Whether a buffer of that number is at home here.
    #[inline(always)]
    pub fn has(&self, index: u32) -> bool {
        index.wrapping_sub(self.first) < self.count
    }

    /// Whether the buffer is at home here.
    #[inline(always)]
    pub fn owns(&self, mbuf: &Mbuf) -> bool {
        self.has(mbuf.0)
    }

    /// Counts a reference to a buffer that the application holds on this core.
    #[inline]
    pub fn reference(&mut self, index: u32) {
        self.area.count(index, 1);
    }

    /// Ends a reference; the last one frees a buffer that was returned meanwhile.
    #[inline(always)]
    pub fn unreference(&mut self, index: u32) {
        let mbuf = Mbuf(index);
        let held = self.area.holder_of(&mbuf).load(Ordering::Relaxed) != Holder::NONE.0;
        if self.area.count(index, u32::MAX) == 0 && !held {
            self.free(mbuf);
        } else {
            let _kept = mbuf.into_raw();
        }
    }

    /// A buffer that is at home elsewhere, to be sent there.
    pub fn take_away(&mut self) -> Option<Mbuf> {
        self.away.pop().map(Mbuf)
    }

    /// Keeps a buffer whose home is away until [`Pool::embark`]. Takes no memory: they are linked.
    pub fn strand(&mut self, mbuf: Mbuf) {
        let (first, count) = self.stranded;
        let index = mbuf.into_raw();
        self.area.link(index, first);
        self.stranded = (index, count + 1);
    }

    /// A core has come back: what was kept is to be sent home again.
    pub fn embark(&mut self) {
        while self.stranded.0 != NO_MBUF {
            let mbuf = Mbuf::from_raw(self.stranded.0);
            self.stranded = (self.area.meta(&mbuf).next, self.stranded.1 - 1);
            self.free(mbuf);
        }
    }

    /// Buffers that are kept since their home is away.
    pub fn stranded(&self) -> usize {
        self.stranded.1
    }

    /// Buffers freed here that are at home elsewhere.
    #[inline]
    pub fn away(&self) -> usize {
        self.away.len()
    }

    /// Free buffers.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Free buffers where `mbuf` is at home, and where one like it will be missed: in a pool that
    /// feeds a receive queue. Of another core's pool, what that core last published.
    #[inline]
    pub fn available_at_home(&self, mbuf: &Mbuf) -> usize {
        let home = self.area.home(mbuf);
        if home == self.core {
            return self.available();
        }
        let of_home = self.area.free.get(usize::from(home.0));
        of_home.map_or(0, |free| free.0.load(Ordering::Relaxed) as usize)
    }

    /// Tells the other cores how many buffers are free here; once per loop. Whether there are others, without whom none is away.
    /// `NEWS`: it is known to be another number than then.
    #[inline(always)]
    pub fn publish<const NEWS: bool>(&self) -> bool {
        let Some(free) = self.told else {
            debug_assert!(self.away.is_empty());
            return false;
        };
        let count = self.free.len() as u32;
        // The line is others' to read: written only when there is news.
        if NEWS || free.load(Ordering::Relaxed) != count {
            free.store(count, Ordering::Relaxed);
        }
        true
    }

    /// Makes every free buffer of this pool all zero; what is already is only read. The device has none of
    /// them. How many were not.
    pub fn scrub(&mut self) -> usize {
        let mut scrubbed = 0;
        for index in &self.free {
            let mut mbuf = Mbuf(*index);
            let bytes = self.area.data_mut(&mut mbuf);
            if bytes.iter().fold(0, |sum, byte| sum | *byte) != 0 {
                bytes.fill(0);
                scrubbed += 1;
            }
            let _stays_in_the_pool = mbuf.into_raw();
        }
        scrubbed
    }

    /// Buffers that belong to this pool.
    pub fn capacity(&self) -> usize {
        self.area.per_core as usize
    }
}
