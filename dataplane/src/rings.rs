//! The two rings of an application context, from the kernel's side: events out, calls in.
//!
//! Every word that the application can write is loaded exactly once per use, and is an allegation:
//! the producer index of the call ring is checked, records are copied before they are looked at.
//!
//! # Safety
//! [`AppRings::new`] is told two pages; from then on they are accessed only by aligned volatile
//! loads and stores (the application may write its page at any time, from any core).
#![allow(unsafe_code, reason = "pages shared with the application")]

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use ix_abi::call::{Call, SgEntry, SgSlot};
use ix_abi::event::Event;
use ix_abi::layout::{CALL_SLOTS, CallHeader, EVENT_SLOTS, EventHeader, RING_SLOTS_OFFSET};
use ix_abi::ring;

/// An index of the application's is impossible: it is broken or hostile, and is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRing;

/// What the application has left.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Call slots.
    pub slots: u32,
    /// Free slots of the event ring.
    pub room: u32,
}

/// The page that the application writes; part of an [`AppRings`] alone.
#[derive(Clone, Copy, Debug)]
struct CallPage(NonNull<u8>);

impl CallPage {
    #[inline(always)]
    fn events_consumed(self) -> u32 {
        self.header_word(offset_of!(CallHeader, events_consumed))
    }

    #[inline(always)]
    fn produced(self) -> u32 {
        self.header_word(offset_of!(CallHeader, produced))
    }

    #[inline(always)]
    fn header_word(self, offset: usize) -> u32 {
        // SAFETY: a field of the header: within the page, aligned; shared words are atomics.
        let word = unsafe { AtomicU32::from_ptr(self.0.add(offset).cast().as_ptr()) };
        word.load(Ordering::Acquire)
    }

    /// The record of that number.
    #[inline(always)]
    fn record<'a>(self, number: u32) -> Record<'a> {
        let at = RING_SLOTS_OFFSET + ring::slot(number, CALL_SLOTS) * size_of::<Call>();
        // SAFETY: `at` is the offset of a slot, which ends within the page.
        Record { words: unsafe { self.0.add(at).cast() }, rings: PhantomData }
    }
}

/// Both rings of one context.
#[derive(Debug)]
pub struct AppRings {
    event_page: NonNull<u8>,
    calls: CallPage,
    /// Events written, not all of them published yet.
    produced: u32,
    /// Call slots consumed.
    consumed: u32,
    /// Events that the application had read when its calls were counted last.
    read_then: u32,
}

// SAFETY: the pages are plain memory; the value is the only writer of the event page.
unsafe impl Send for AppRings {}

/// A word of an event.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// At once.
    One(u64),
    /// Its low half and its high one, which are not put together first.
    Halves(u32, u32),
}

/// What a `sendv` with one entry says; of another call, what is in the same places.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Operation, flags and number of entries.
    pub first: u64,
    /// The connection.
    pub handle: u64,
    /// The entry.
    pub addr: u64,
    /// Its length.
    pub len: u64,
    /// Received bytes to return.
    pub done: u64,
}

/// A record of the call ring.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    words: NonNull<u64>,
    rings: PhantomData<&'a AppRings>,
}

impl Record<'_> {
    /// One of its words, as it is now.
    #[inline(always)]
    pub fn word<const WORD: usize>(self) -> u64 {
        const { assert!(WORD < size_of::<Call>() / 8) }
        // SAFETY: within the slot that `AppRings::record` was made of, aligned to 8.
        unsafe { self.words.add(WORD).read_volatile() }
    }

    /// Those of a `sendv` with one entry, as they are now.
    #[inline(always)]
    pub fn words(self) -> Words {
        Words {
            first: self.word::<0>(),
            handle: self.word::<1>(),
            addr: self.word::<3>(),
            len: self.word::<4>(),
            done: self.word::<7>(),
        }
    }
}

impl AppRings {
    /// Rings in the given event and syscall page, both starting at index 0.
    ///
    /// # Safety
    /// Both are 64-byte aligned, valid for reads and writes of `ix_abi::layout::PAGE_BYTES` bytes
    /// until the value is dropped, and the kernel accesses them through this value only (but for
    /// `EventHeader::boot_unix_ns`, which is not touched here).
    pub unsafe fn new(event_page: NonNull<u8>, call_page: NonNull<u8>) -> AppRings {
        let calls = CallPage(call_page);
        AppRings { event_page, calls, produced: 0, consumed: 0, read_then: 0 }
    }

    /// Free slots of the event ring.
    #[inline]
    pub fn room(&self) -> u32 {
        ring::writable(self.produced, self.events_consumed(), EVENT_SLOTS)
    }

    /// The same as of the last [`AppRings::calls`]: at most what there are now, unless the application is broken.
    #[inline(always)]
    pub fn room_then(&self) -> u32 {
        EVENT_SLOTS.saturating_sub(self.unread_then())
    }

    /// Events that the application had not read by the last [`AppRings::calls`], and those since.
    #[inline(always)]
    pub fn unread_then(&self) -> u32 {
        self.produced.wrapping_sub(self.read_then)
    }

    /// Events that the application has not read, published or not.
    #[inline]
    pub fn unread(&self) -> u32 {
        EVENT_SLOTS - self.room()
    }

    /// Where the next event will be.
    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// Whether the application says that it has read everything before `end`, which was `produced` once.
    pub fn has_consumed(&self, end: u32) -> bool {
        self.unread() <= self.produced.wrapping_sub(end)
    }

    /// Writes an event; the caller has seen room for it. It becomes visible by `publish`.
    #[inline]
    pub fn post(&mut self, event: &Event) {
        let words: [u64; 8] = zerocopy::transmute!(*event);
        self.post_words(words.map(Word::One));
    }

    /// The same of an event of a kind that has but so many words, its head's three included: the others are left.
    #[inline(always)]
    pub fn post_words<const WORDS: usize>(&mut self, words: [Word; WORDS]) {
        const { assert!(WORDS <= size_of::<Event>() / 8) }
        let at = RING_SLOTS_OFFSET + ring::slot(self.produced, EVENT_SLOTS) * size_of::<Event>();
        // SAFETY: `at` is the offset of a slot, which ends within the page; aligned to 8.
        let slot = unsafe { self.event_page.add(at) };
        for (i, word) in words.into_iter().enumerate() {
            // SAFETY: within the slot.
            unsafe {
                match word {
                    Word::One(word) => slot.add(i * 8).cast::<u64>().write_volatile(word),
                    Word::Halves(low, high) => {
                        slot.add(i * 8).cast::<u32>().write_volatile(low);
                        slot.add(i * 8 + 4).cast::<u32>().write_volatile(high);
                    }
                }
            }
        }
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the application what was posted and consumed, and the time.
    #[inline]
    pub fn publish(&mut self, now_ns: u64) {
        let header = self.event_page;
        // SAFETY: offsets of fields of the header, aligned.
        unsafe {
            header.add(offset_of!(EventHeader, now_ns)).cast::<u64>().write_volatile(now_ns);
        }
        self.event_word(offset_of!(EventHeader, calls_consumed))
            .store(self.consumed, Ordering::Release);
        self.event_word(offset_of!(EventHeader, produced)).store(self.produced, Ordering::Release);
    }

    /// Call slots that the application says are ready. Both of its indices are checked.
    #[inline]
    pub fn calls(&mut self) -> Result<Ready, BadRing> {
        let read = self.events_consumed();
        let unread = ring::readable(self.produced, read, EVENT_SLOTS);
        let room = EVENT_SLOTS - unread.ok_or(BadRing)?;
        self.read_then = read;
        let slots =
            ring::readable(self.calls.produced(), self.consumed, CALL_SLOTS).ok_or(BadRing)?;
        Ok(Ready { slots, room })
    }

    /// Free slots of the event ring beyond `reserve`, of which there are some, and what the call says, if the application says that
    /// one call slot is ready: then that is as if [`AppRings::calls`] had been asked, and the slot is consumed. Else nothing has
    /// happened.
    #[inline(always)]
    pub fn lone_call(&mut self, reserve: u32) -> Option<(u32, Words)> {
        // No load is kept beyond one that acquires: so both are loaded here.
        let (page, consumed) = (self.calls, self.consumed);
        let read = page.events_consumed();
        let unread = self.produced.wrapping_sub(read);
        if unread >= EVENT_SLOTS - reserve {
            return None;
        }
        let produced = page.produced();
        if produced != consumed.wrapping_add(1) {
            return None;
        }
        self.read_then = read;
        let words = page.record(consumed).words();
        self.consumed = produced;
        Some((EVENT_SLOTS - reserve - unread, words))
    }

    /// That slot is not consumed after all.
    pub fn unconsume(&mut self) {
        self.consumed = self.consumed.wrapping_sub(1);
    }

    /// A copy of the `ahead`th unconsumed record.
    #[inline]
    pub fn call(&self, ahead: u32) -> Call {
        zerocopy::transmute!(self.slot(ahead))
    }

    /// The `ahead`th unconsumed record, to be read word by word.
    #[inline(always)]
    pub fn record(&self, ahead: u32) -> Record<'_> {
        self.calls.record(self.consumed.wrapping_add(ahead))
    }

    /// A copy of the `ahead`th unconsumed slot as scatter-gather entries.
    #[inline]
    pub fn sg(&self, ahead: u32) -> [SgEntry; 4] {
        let slot: SgSlot = zerocopy::transmute!(self.slot(ahead));
        slot.0
    }

    /// The application may use `slots` slots again, once that is published.
    #[inline]
    pub fn consume(&mut self, slots: u32) {
        self.consumed = self.consumed.wrapping_add(slots);
    }

    #[inline]
    fn events_consumed(&self) -> u32 {
        self.calls.events_consumed()
    }

    #[inline]
    fn slot(&self, ahead: u32) -> [u64; 8] {
        let Record { words, .. } = self.record(ahead);
        core::array::from_fn(|i| {
            // SAFETY: as in `Record::word`.
            unsafe { words.add(i).read_volatile() }
        })
    }

    #[inline]
    fn event_word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `CallPage::header_word`, in the event page.
        unsafe { AtomicU32::from_ptr(self.event_page.add(offset).cast().as_ptr()) }
    }
}
