//! The tap: what packets a capture and the packet trace see, if either is on.
//!
//! Off, it is one predictable branch for each receive batch, transmit stage and sent frame. On, packets are
//! parsed, filtered, and copied into the ring that the platform gave or formatted for its console.
//! Nothing here waits: a packet for which there is no room is counted as missed.
use crate::checksum;
use crate::device::{Pseudo, RxBatch, RxChecksum};
use crate::input::eth;
use crate::ipv4::{TCP, UDP};
use crate::limits::MBUF_BYTES;
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::rss::{Toeplitz, group_of};
use crate::tcp::gso;
use crate::time::Instant;
use crate::usermem::Extent;
use alloc::boxed::Box;
use ix_abi::capture::{Direction, Filter, Head, NO_GROUP, flag};
use ix_abi::stats::{CoreStats, Counter};
use ix_abi::{CoreId, GroupId};

pub(crate) mod headers;
mod line;
mod ring;

pub use headers::Headers;
pub use ring::Ring;

#[cfg(test)]
mod tests;

/// Writes a line of the packet trace; called only with the trace on. May drop it, must not wait long.
pub type Output = fn(core::fmt::Arguments<'_>);

/// What time it is; asked only with something on. An iteration of the loop has one time for all that it
/// does, but who measures with a capture wants to know how long it took.
pub type Clock = fn() -> Instant;

/// An engine's tap.
#[derive(Debug, Default)]
pub struct Tap(Option<Box<On>>);

/// What is needed while something is on.
#[derive(Debug)]
struct On {
    capture: Option<(Filter, Ring)>,
    trace: Option<(Filter, Output)>,
    clock: Clock,
    /// The time of what is seen now: of a batch, after it was polled; of what is sent, before any of
    /// it can have reached the wire. So no answer is seen before what it answers, on whatever core.
    now: Instant,
    scratch: Scratch,
}

impl On {
    fn new(clock: Clock) -> On {
        On {
            capture: None,
            trace: None,
            clock,
            now: Instant(0),
            scratch: Scratch { bytes: [0; MBUF_BYTES], len: 0, left_out: 0 },
        }
    }
}

/// A frame put together: its pieces lie apart, and a copy's checksum can be completed.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: [u8; MBUF_BYTES],
    len: usize,
    /// Bytes that there was no room for: of large frames, which the device cuts or has merged.
    left_out: usize,
}

impl Scratch {
    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends bytes; what does not fit is left out.
    fn push(&mut self, bytes: &[u8]) {
        let free = &mut self.bytes[self.len..];
        let n = bytes.len().min(free.len());
        free[..n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    /// Appends a piece of a payload; `true`, as `send_queue::gather` wants to hear.
    pub(crate) fn take(&mut self, piece: Extent) -> bool {
        let taken = piece.read(&mut self.bytes[self.len..]);
        self.len += taken;
        self.left_out += piece.len() as usize - taken;
        true
    }
}

impl Tap {
    /// Whether anything is on.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Captures what the filter lets through into `ring`, in place of an earlier capture.
    pub fn start_capture(&mut self, filter: Filter, ring: Ring, clock: Clock) {
        self.stop_capture();
        self.on(clock).capture = Some((filter, ring));
    }

    /// Ends the capture.
    pub fn stop_capture(&mut self) {
        if let Some((_, ring)) = self.0.as_mut().and_then(|on| on.capture.take()) {
            ring.stop();
        }
        self.tidy();
    }

    /// Writes a line for each packet that the filter lets through.
    pub fn start_trace(&mut self, filter: Filter, output: Output, clock: Clock) {
        self.on(clock).trace = Some((filter, output));
    }

    /// Ends the trace.
    pub fn stop_trace(&mut self) {
        if let Some(on) = &mut self.0 {
            on.trace = None;
        }
        self.tidy();
    }

    /// Takes the time for what is seen from now on.
    #[cold]
    #[inline(never)]
    pub(crate) fn stamp(&mut self) {
        if let Some(on) = &mut self.0 {
            on.now = (on.clock)();
        }
    }

    fn on(&mut self, clock: Clock) -> &mut On {
        self.0.get_or_insert_with(|| Box::new(On::new(clock)))
    }

    fn tidy(&mut self) {
        self.0 = self.0.take().filter(|on| on.capture.is_some() || on.trace.is_some());
    }
}

/// What the tap must know of its engine.
struct Context<'a> {
    core: CoreId,
    groups: u16,
    toeplitz: &'a Toeplitz,
    stats: &'a mut CoreStats,
}

impl<'a> Context<'a> {
    fn of(local: &'a mut Local) -> Context<'a> {
        let Local { core, groups, toeplitz, stats, .. } = local;
        Context { core: *core, groups: *groups, toeplitz, stats }
    }

    /// The flow group that the packet's ports and addresses make, if it has them.
    fn group(&self, h: &Headers, direction: Direction) -> Option<GroupId> {
        let hash = h.hash(self.toeplitz, direction)?;
        Some(group_of(hash, self.groups))
    }
}

/// Frames that were just taken from a queue of this core, before anything is done with them.
#[cold]
#[inline(never)]
pub(crate) fn received(local: &mut Local, batch: &RxBatch) {
    local.tap.stamp();
    let Some(mut on) = local.tap.0.take() else { return };
    let area = local.pool.area();
    for frame in batch {
        let Some(bytes) = eth::bytes(area.data(&frame.mbuf), frame) else { continue };
        on.scratch.left_out = frame.rest.pieces(area).map(<[u8]>::len).sum();
        // Of a sender on the same machine the checksum may be as incomplete as ours.
        let partial = frame.checksum == RxChecksum::Good;
        on.see(Context::of(local), Some(bytes), Direction::In, partial);
    }
    local.tap.0 = Some(on);
}

/// The frame that was just pushed, with its headers in a slot; `gather` appends its payload.
#[cold]
#[inline(never)]
pub(crate) fn sent(local: &mut Local, gather: impl FnOnce(&mut Scratch)) {
    let Some(mut on) = local.tap.0.take() else { return };
    on.scratch.len = 0;
    on.scratch.left_out = 0;
    let (header, partial, large) = local.tx.last();
    on.scratch.push(header);
    if large && local.gso_pseudo == Pseudo::WithoutLength {
        gso::put_length_back(&mut on.scratch.bytes[..on.scratch.len]);
    }
    gather(&mut on.scratch);
    on.see(Context::of(local), None, Direction::Out, partial);
    local.tap.0 = Some(on);
}

/// The frame that was just pushed is this datagram of the application.
#[cold]
#[inline(never)]
pub(crate) fn sent_datagram(local: &mut Local, index: u32) {
    let pieces = local.udp.datagrams[index].pieces.clone();
    sent(local, |frame| {
        for (extent, _) in &pieces {
            frame.take(*extent);
        }
    });
}

/// The frame that was just pushed is all in this buffer.
#[cold]
#[inline(never)]
pub(crate) fn sent_buffer(local: &mut Local, mbuf: &Mbuf, offset: u16, len: u16) {
    let Some(mut on) = local.tap.0.take() else { return };
    let start = usize::from(offset);
    let bytes = local.pool.area().data(mbuf).get(start..start + usize::from(len));
    if bytes.is_some() {
        on.scratch.left_out = 0;
        on.see(Context::of(local), bytes, Direction::Out, false);
    }
    local.tap.0 = Some(on);
}

impl On {
    /// One packet; `None`: it is in the scratch. `partial`: its checksum may be the device's to complete.
    fn see(&mut self, c: Context<'_>, bytes: Option<&[u8]>, direction: Direction, partial: bool) {
        let On { capture, trace, scratch, .. } = self;
        let now = self.now;
        let h = Headers::parse(bytes.unwrap_or(scratch.filled()));
        let mut group = None;
        let mut wanted = |filter: &Filter| {
            h.match_filter(filter, direction) && {
                group = c.group(&h, direction);
                filter.group.is_none_or(|wanted| group == Some(wanted))
            }
        };
        if let Some((_, ring)) = capture {
            ring.saw();
        }
        let captured = capture.as_mut().filter(|(filter, _)| wanted(filter));
        let traced = trace.as_ref().filter(|(filter, _)| wanted(filter));
        if let Some((_, output)) = traced {
            let bytes = bytes.unwrap_or(scratch.filled());
            let core = c.core;
            output(format_args!("{}", line::Line { h: &h, bytes, direction, core, group, now }));
        }
        let Some((filter, ring)) = captured else { return };
        let mut flags = if direction == Direction::Out { flag::OUT } else { 0 };
        let sum = if partial { completed(&h, bytes.unwrap_or(scratch.filled())) } else { None };
        if let Some((at, sum)) = sum {
            flags |= flag::COMPLETED;
            if let Some(bytes) = bytes {
                scratch.len = 0;
                scratch.push(bytes);
            }
            scratch.bytes[at..at + 2].copy_from_slice(&sum);
        }
        let bytes = bytes.filter(|_| sum.is_none()).unwrap_or(scratch.filled());
        let left_out = scratch.left_out;
        let kept = &bytes[..bytes.len().min(usize::from(filter.snaplen))];
        let head = Head {
            time_ns: now.0,
            group: group.map_or(NO_GROUP, |g| g.0),
            core: c.core.0,
            flags,
            original: (bytes.len() + left_out).min(usize::from(u16::MAX)) as u16,
            ..Head::default()
        };
        if ring.record(head, kept) {
            c.stats.add(Counter::CaptureBytes, kept.len() as u64);
        } else {
            c.stats.add(Counter::CaptureMissed, 1);
        }
    }
}

/// Where the transport checksum is and what it is when complete; `None` if there is nothing to
/// complete: the field holds another sum than the pseudo-header's.
fn completed(h: &Headers, bytes: &[u8]) -> Option<(usize, [u8; 2])> {
    let (source, destination) = (h.source?, h.destination?);
    let offset = match h.protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    if h.fragment {
        return None;
    }
    let segment = bytes.get(h.transport..h.end)?;
    let field = *segment.get(offset..)?.first_chunk::<2>()?;
    let len = u16::try_from(segment.len()).ok()?;
    let pseudo = match (source.to_v4(), destination.to_v4()) {
        (Some(from), Some(to)) => checksum::pseudo_v4(from, to, h.protocol, len),
        _ => checksum::pseudo_v6(&source.0, &destination.0, h.protocol, len),
    };
    if field != checksum::fold(pseudo).to_ne_bytes() {
        return None;
    }
    // The field holds the pseudo-header's sum: with it the sum over the segment is the whole one.
    let mut sum = checksum::finish(checksum::sum(segment));
    if h.protocol == UDP && sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    Some((h.transport + offset, sum))
}
