//! What the application gave to send: references to its memory, or to receive buffers, in the order
//! of the stream. Nothing is copied; a segment is freed when its bytes are acknowledged and no
//! frame in flight refers to them (`Conn::released`).
//!
//! The first segment of an empty queue is in the connection itself, so that one that waits for its
//! acknowledgement touches nothing else; the others are in a slab of the group.
use crate::conn::Conn;
use crate::flow_table::NIL;
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::slab::Slab;
use crate::tcp::seq::WrappingSeq;
use crate::usermem::{Extent, FrameIndex};

/// Where a segment's bytes are, for giving them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(u32);

const BUFFER: u32 = 1 << 31;
const SOLE: u32 = 1 << 30;

impl Source {
    /// A pinned frame of user memory.
    pub const fn frame(frame: FrameIndex) -> Source {
        Source(frame.to_raw() & !(BUFFER | SOLE))
    }

    /// A referenced receive buffer.
    pub const fn buffer(index: u32) -> Source {
        Source(index | BUFFER)
    }

    /// A receive buffer that is the segment's alone: nothing of it has to be looked up when it is given back.
    pub const fn sole(mbuf: Mbuf) -> Source {
        Source(mbuf.into_raw() | SOLE)
    }

    /// As a word.
    #[inline(always)]
    pub const fn to_raw(self) -> u32 {
        self.0
    }

    /// The inverse of [`Source::to_raw`].
    #[inline(always)]
    pub const fn from_raw(word: u32) -> Source {
        Source(word)
    }

    /// The receive buffer that is the segment's alone, if it is one.
    pub const fn as_sole(self) -> Option<u32> {
        if self.0 & (BUFFER | SOLE) == SOLE { Some(self.0 & !SOLE) } else { None }
    }

    /// Ends the pin or the reference, or frees the buffer.
    #[inline(always)]
    pub fn release(self, local: &mut Local) {
        if self.is_own(local) {
            self.release_own(local);
        } else {
            self.release_otherwise(local);
        }
    }

    /// Whether it is a buffer that is the segment's alone and at home on this core: all that is set beside an index that
    /// the pool knows is `SOLE`.
    #[inline(always)]
    pub fn is_own(self, local: &Local) -> bool {
        local.pool.has(self.0.wrapping_sub(SOLE))
    }

    /// Frees such a buffer.
    #[inline(always)]
    pub fn release_own(self, local: &mut Local) {
        debug_assert!(self.is_own(local));
        local.pool.free_own(Mbuf::from_raw(self.0.wrapping_sub(SOLE)));
    }

    #[inline(never)]
    fn release_otherwise(self, local: &mut Local) {
        if self.0 & SOLE != 0 {
            local.pool.free(Mbuf::from_raw(self.0 & !SOLE));
        } else if self.0 & BUFFER != 0 {
            local.pool.unreference(self.0 & !BUFFER);
        } else if let Some(memory) = &local.memory {
            memory.unpin(local.core, FrameIndex::from_raw(self.0));
        }
    }
}

/// A piece of the stream: half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Segment {
    extent: Extent,
    seq: WrappingSeq,
    source: Source,
    next: u32,
}

const _: () = assert!(size_of::<Segment>() == 32);

impl Default for Segment {
    fn default() -> Segment {
        let extent = Extent::default();
        Segment { extent, seq: WrappingSeq(0), source: Source(0), next: NIL }
    }
}

impl Segment {
    /// Its bytes.
    #[inline(always)]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// It is the only one, and begins at `seq`.
    pub fn begins(&mut self, seq: WrappingSeq) {
        (self.seq, self.next) = (seq, NIL);
    }

    /// Is `extent` from now on. Where that lies in the stream, [`Segment::begins`] says later.
    #[inline(always)]
    pub fn refer(&mut self, extent: Extent, source: Source) {
        (self.extent, self.source) = (extent, source);
    }

    /// Where its bytes are.
    #[inline(always)]
    pub fn source(&self) -> Source {
        self.source
    }

    fn end(&self) -> WrappingSeq {
        self.seq.plus(self.extent.len())
    }
}

/// The segments of a group's connections but for those that are in the connections.
pub type Segments = Slab<Segment>;

/// The place of the segment in the connection: it is in use if the queue begins there.
pub const OWN: u32 = NIL - 1;

#[inline(always)]
fn get<'a>(conn: &'a Conn, segments: &'a Segments, at: u32) -> &'a Segment {
    if at == OWN { &conn.own_segment } else { &segments[at] }
}

#[inline(always)]
fn get_mut<'a>(conn: &'a mut Conn, segments: &'a mut Segments, at: u32) -> &'a mut Segment {
    if at == OWN { &mut conn.own_segment } else { &mut segments[at] }
}

#[inline(always)]
fn give_back(segments: &mut Segments, at: u32) {
    if at != OWN {
        segments.release(at);
    }
}

/// Segments of the connection that are in the slab.
pub fn in_slab(conn: &Conn) -> usize {
    usize::from(conn.seg_count) - usize::from(conn.seg_head == OWN)
}

/// Appends a piece; `false` if the table of segments is full.
#[inline]
pub fn append(conn: &mut Conn, segments: &mut Segments, extent: Extent, source: Source) -> bool {
    if conn.seg_head == NIL {
        append_first(conn, extent, source);
        return true;
    }
    let Some(index) = segments.alloc() else { return false };
    segments[index] = Segment { extent, seq: conn.snd_end, source, next: NIL };
    get_mut(conn, segments, conn.seg_tail).next = index;
    conn.seg_tail = index;
    conn.seg_count += 1;
    if conn.seg_next == NIL {
        conn.seg_next = index;
    }
    conn.snd_end = conn.snd_end.plus(extent.len());
    true
}

/// The same for an empty queue, which needs no place.
#[inline(always)]
pub fn append_first(conn: &mut Conn, extent: Extent, source: Source) {
    conn.own_segment = Segment { extent, seq: conn.snd_end, source, next: NIL };
    conn.seg_head = OWN;
    conn.seg_tail = OWN;
    conn.seg_next = OWN;
    conn.seg_count = 1;
    conn.snd_end = conn.snd_end.plus(extent.len());
}

/// Takes back what was appended since the queue had `count` segments and ended at `end`: none of
/// it was sent.
pub fn undo(
    conn: &mut Conn,
    segments: &mut Segments,
    count: u16,
    end: WrappingSeq,
    local: &mut Local,
) {
    let mut last_kept = NIL;
    let mut at = conn.seg_head;
    for _ in 0..count {
        last_kept = at;
        at = get(conn, segments, at).next;
    }
    while at != NIL {
        let Segment { source, next, .. } = *get(conn, segments, at);
        source.release(local);
        give_back(segments, at);
        if conn.seg_next == at {
            conn.seg_next = NIL;
        }
        at = next;
    }
    if last_kept == NIL {
        conn.seg_head = NIL;
    } else {
        get_mut(conn, segments, last_kept).next = NIL;
    }
    conn.seg_tail = last_kept;
    conn.seg_count = count;
    conn.snd_end = end;
}

/// Frees the segments that lie before `upto`.
#[inline]
pub fn release(conn: &mut Conn, segments: &mut Segments, upto: WrappingSeq, local: &mut Local) {
    while conn.seg_head != NIL {
        let at = conn.seg_head;
        let segment = get(conn, segments, at);
        if segment.end().after(upto) {
            return;
        }
        let (source, next) = (segment.source, segment.next);
        source.release(local);
        give_back(segments, at);
        if conn.seg_next == at {
            conn.seg_next = next;
        }
        conn.seg_count -= 1;
        conn.seg_head = next;
    }
    conn.seg_tail = NIL;
}

/// Frees everything: it is acknowledged or over, and no frame refers to it.
pub fn release_all(conn: &mut Conn, segments: &mut Segments, local: &mut Local) {
    if release_own(conn, local) {
        release_rest(conn, segments, local);
    }
}

/// Empties the queue, all of which is acknowledged and referred to by no frame; `true`: but for what
/// [`release_rest`] frees.
#[inline(always)]
pub fn release_own(conn: &mut Conn, local: &mut Local) -> bool {
    let mut at = conn.seg_head;
    if at == OWN {
        conn.own_segment.source.release(local);
        at = conn.own_segment.next;
    }
    // A list that nothing is in, but for that.
    conn.seg_head = NIL;
    conn.seg_tail = NIL;
    conn.seg_next = at;
    conn.seg_count = 0;
    at != NIL
}

/// Frees what [`release_own`] has left, if anything.
#[inline(always)]
pub fn release_rest(conn: &mut Conn, segments: &mut Segments, local: &mut Local) {
    if conn.seg_head == NIL && conn.seg_next != NIL {
        release_from(segments, conn.seg_next, local);
        conn.seg_next = NIL;
    }
}

#[inline(never)]
fn release_from(segments: &mut Segments, mut at: u32, local: &mut Local) {
    while at != NIL {
        let Segment { source, next, .. } = segments[at];
        source.release(local);
        segments.release(at);
        at = next;
    }
}

/// Points `seg_next` at the segment that `snd_nxt` is in, after `snd_nxt` went forward.
#[inline]
pub fn catch_up(conn: &mut Conn, segments: &Segments) {
    while conn.seg_next != NIL {
        let segment = get(conn, segments, conn.seg_next);
        if segment.end().after(conn.snd_nxt) {
            return;
        }
        conn.seg_next = segment.next;
    }
}

/// Calls `take` with the pieces of `[from, from + len)`, beginning at segment `at`, which `from` is
/// in or after, until all are given or `take` says that it has enough. Returns the bytes given.
#[inline]
pub fn gather(
    conn: &Conn,
    segments: &Segments,
    mut at: u32,
    from: WrappingSeq,
    len: u32,
    mut take: impl FnMut(Extent) -> bool,
) -> u32 {
    let mut given = 0;
    while given < len && at != NIL {
        let segment = get(conn, segments, at);
        let skip = from.plus(given).since(segment.seq);
        let size = segment.extent.len();
        if skip < size {
            let part = segment.extent.part(skip, len - given);
            if !take(part) {
                return given;
            }
            given += part.len();
        }
        at = segment.next;
    }
    given
}
