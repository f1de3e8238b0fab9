//! A transmit queue. Its core plays the device when the doorbell rings: it reads frames, cuts and sums them, finds their queue, and
//! writes them into buffers of that queue's. They are complete then.
use crate::cable::{Shared, State, Turn, TxLane};
use crate::control::Stopped;
use crate::gather::Gather;
use crate::rx::Filled;
use crate::wire::{self, HEAD};
use crate::{ETHERNET, Host, OFFSET};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use ix_dataplane::device::{Gso, NicTx, RxChecksum, TxChecksum, TxFrame, TxFull, TxQueue};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::{Area, Mbuf, RestBuilder};
use ix_dataplane::rss::{Toeplitz, group_of};

/// A transmit queue.
pub struct LoopbackTx<H> {
    host: H,
    own: Arc<Shared>,
    peer: Arc<Shared>,
    turn: Arc<Turn>,
    toeplitz: Arc<Toeplitz>,
    /// By receive queue of the peer.
    lanes: Vec<TxLane>,
    pending: VecDeque<TxFrame>,
    slots: usize,
    /// Of `pending`, those that the doorbell has told of.
    shown: usize,
    /// Frames that have left and were not counted.
    done: u32,
    /// Frames that were not delivered: no buffer, no port, no frame that a wire takes.
    lost: u64,
    /// Queues that got frames in this turn.
    touched: u64,
    /// When this turn began.
    stamp: u64,
}

impl<H> core::fmt::Debug for LoopbackTx<H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LoopbackTx").field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// Why a frame, or a segment of one, does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The queue has no buffers for it.
    NoBuffer,
    /// It is none, or none for this wire.
    Malformed,
}

/// The frame to be delivered, by the part that differs between whole ones and segments.
struct Outgoing<'a, 'b> {
    /// Its first bytes, already its own.
    head: &'a [u8],
    /// What follows them, as far as `len` goes.
    body: &'a mut Gather<'b>,
    len: usize,
    checksum: Option<TxChecksum>,
}

impl<H: Host> LoopbackTx<H> {
    pub(crate) fn new(
        host: H,
        (own, peer): (Arc<Shared>, Arc<Shared>),
        turn: Arc<Turn>,
        toeplitz: Arc<Toeplitz>,
        lanes: Vec<TxLane>,
        slots: u16,
    ) -> Self {
        let slots = usize::from(slots).max(1);
        let pending = VecDeque::with_capacity(slots);
        LoopbackTx {
            host,
            own,
            peer,
            turn,
            toeplitz,
            lanes,
            pending,
            slots,
            shown: 0,
            done: 0,
            lost: 0,
            touched: 0,
            stamp: 0,
        }
    }

    /// Frames and segments that were not delivered, for whatever reason, since the queue was made.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The device's work: all frames that were shown.
    fn run(&mut self) {
        self.turn.begin();
        self.stamp = self.host.now();
        if self.own.state().runs {
            let peer = self.peer.state();
            while self.shown > 0 {
                let Some(frame) = self.pending.pop_front() else { break };
                self.send(&frame, peer);
                self.shown -= 1;
                self.done += 1;
            }
        }
        self.turn.end();
        // Whoever arms waits until that is seen and looks at the lanes again; so one of both sees the other.
        let mut touched = core::mem::take(&mut self.touched);
        while touched != 0 {
            let queue = touched.trailing_zeros() as u16;
            touched &= touched - 1;
            if self.peer.is_armed(queue) {
                self.host.interrupt(queue);
            }
        }
    }

    fn send(&mut self, frame: &TxFrame, peer: State) {
        if !peer.runs {
            self.lost += 1;
            return;
        }
        let len = frame.len();
        let mut head = [0; HEAD];
        let head = &mut head[..len.min(HEAD)];
        let mut body = Gather::new(&frame.fragments);
        let sent = if !body.read(&self.host, head) || len < ETHERNET {
            Err(Lost::Malformed)
        } else if let Some(gso) = frame.gso {
            self.send_segments(frame, head, gso, peer)
        } else {
            let queue = self.queue_of(head, len);
            let checksum = frame.checksum;
            self.deliver(queue, &mut Outgoing { head, body: &mut body, len, checksum }, peer)
        };
        self.count(sent);
    }

    fn count(&mut self, sent: Result<(), Lost>) {
        if let Err(lost) = sent {
            self.lost += 1;
            if lost == Lost::NoBuffer {
                self.turn.miss();
            }
        }
    }

    /// Where a frame comes to, and its hash; what has none comes to queue 0.
    fn queue_of(&self, head: &[u8], len: usize) -> (u16, Option<u32>) {
        let hash = wire::parse(head, len).map(|packet| packet.hash(&self.toeplitz));
        let queue = hash.map(|hash| self.peer.queue_of(group_of(hash, self.peer.groups()).0));
        (queue.unwrap_or(0), hash)
    }

    /// Each segment is delivered or lost by itself.
    fn send_segments(
        &mut self,
        frame: &TxFrame,
        head: &[u8],
        gso: Gso,
        peer: State,
    ) -> Result<(), Lost> {
        let (checksum, headers) = (frame.checksum.ok_or(Lost::Malformed)?, gso.header_len.into());
        let whole = head.get(..headers).ok_or(Lost::Malformed)?;
        let size = usize::from(gso.size);
        let payload = frame.len() - headers;
        if size == 0 || payload == 0 {
            return Err(Lost::Malformed);
        }
        let queue = self.queue_of(head, frame.len());
        let mut body = Gather::new(&frame.fragments);
        if !body.skip(headers) {
            return Err(Lost::Malformed);
        }
        for (number, at) in (0..payload).step_by(size).enumerate() {
            let part = size.min(payload - at);
            let mut own = [0; HEAD];
            let own = &mut own[..headers];
            own.copy_from_slice(whole);
            let place = (number, part, at + part == payload);
            wire::segment(own, checksum, gso, place).ok_or(Lost::Malformed)?;
            let (len, checksum) = (headers + part, Some(checksum));
            // Where it goes on, also if this one finds no buffer.
            let mut next = body.clone();
            let outgoing = &mut Outgoing { head: own, body: &mut body, len, checksum };
            let sent = self.deliver(queue, outgoing, peer);
            self.count(sent);
            if !next.skip(part) {
                return Err(Lost::Malformed);
            }
            body = next;
        }
        Ok(())
    }

    /// The wire: writes a frame into buffers of a queue, as DMA does.
    fn deliver(
        &mut self,
        (queue, hash): (u16, Option<u32>),
        outgoing: &mut Outgoing<'_, '_>,
        peer: State,
    ) -> Result<(), Lost> {
        let (area, len) = (self.peer.area, outgoing.len);
        if len > ETHERNET + usize::from(self.peer.mtu) {
            return Err(Lost::Malformed);
        }
        let lane = self.lanes.get_mut(usize::from(queue)).ok_or(Lost::Malformed)?;
        let count = 1 + (len + OFFSET).saturating_sub(MBUF_BYTES).div_ceil(MBUF_BYTES);
        let buffers = lane.buffers(count, peer.life).ok_or(Lost::NoBuffer)?;
        write(&self.host, area, buffers, outgoing)?;
        if let Some(checksum) = outgoing.checksum {
            fill_in(area, buffers, len, checksum)?;
        }
        let verdict = verify(area, buffers, len);
        let filled = finish(area, buffers, len, (verdict, hash, self.stamp));
        lane.fill(filled);
        self.touched |= 1 << queue;
        Ok(())
    }
}

/// Where the part of a frame is that its buffer number `index` has.
fn part(index: usize, len: usize) -> (usize, usize) {
    let first = MBUF_BYTES - OFFSET;
    match index {
        0 => (OFFSET, len.min(first)),
        _ => (0, (len - first - (index - 1) * MBUF_BYTES).min(MBUF_BYTES)),
    }
}

/// A frame's bytes, in its buffers.
fn pieces<'a>(
    area: &'static Area,
    buffers: &'a [u32],
    len: usize,
) -> impl Iterator<Item = &'static [u8]> + use<'a> {
    buffers.iter().enumerate().map(move |(index, buffer)| {
        let (start, len) = part(index, len);
        // The receive queue's until it is filled, and ours to write: nobody else looks at it.
        let mbuf = Mbuf::from_raw(*buffer);
        let data = area.data(&mbuf);
        let _not_ours = mbuf.into_raw();
        &data[start..start + len]
    })
}

/// Runs `edit` on a frame's bytes in its buffer number `index`.
fn edit<T>(
    area: &'static Area,
    (index, buffer): (usize, u32),
    len: usize,
    edit: impl FnOnce(&mut [u8]) -> T,
) -> T {
    let (start, len) = part(index, len);
    let mut mbuf = Mbuf::from_raw(buffer);
    let done = edit(&mut area.data_mut(&mut mbuf)[start..start + len]);
    let _not_ours = mbuf.into_raw();
    done
}

fn write<H: Host>(
    host: &H,
    area: &'static Area,
    buffers: &[u32],
    outgoing: &mut Outgoing<'_, '_>,
) -> Result<(), Lost> {
    let Outgoing { head, body, len, .. } = outgoing;
    for (index, buffer) in buffers.iter().enumerate() {
        // The head is all in the first one.
        let head: &[u8] = if index == 0 { head } else { &[] };
        let done = edit(area, (index, *buffer), *len, |bytes| {
            let (first, others) = bytes.split_at_mut(head.len());
            first.copy_from_slice(head);
            body.read(host, others)
        });
        if !done {
            return Err(Lost::Malformed);
        }
    }
    Ok(())
}

fn fill_in(
    area: &'static Area,
    buffers: &[u32],
    len: usize,
    checksum: TxChecksum,
) -> Result<(), Lost> {
    let start = usize::from(checksum.start);
    let at = start + usize::from(checksum.offset);
    let field = wire::field(wire::sum(pieces(area, buffers, len), start, len));
    let first = *buffers.first().ok_or(Lost::Malformed)?;
    edit(area, (0, first), len, |bytes| {
        bytes.get_mut(at..at + 2).ok_or(Lost::Malformed)?.copy_from_slice(&field);
        Ok(())
    })
}

/// What the receiving side of a card says of a frame, by all of its bytes.
fn verify(area: &'static Area, buffers: &[u32], len: usize) -> RxChecksum {
    let head = pieces(area, buffers, len).next().unwrap_or(&[]);
    match wire::parse(&head[..head.len().min(HEAD)], len) {
        Some(packet)
            if packet.is_good(wire::sum(
                pieces(area, buffers, len),
                packet.at,
                packet.at + packet.len,
            )) =>
        {
            RxChecksum::Good
        }
        _ => RxChecksum::Unknown,
    }
}

fn finish(
    area: &'static Area,
    buffers: &[u32],
    len: usize,
    (checksum, hash, stamp): (RxChecksum, Option<u32>, u64),
) -> Filled {
    let mut rest = RestBuilder::new();
    for (index, buffer) in buffers.iter().enumerate().skip(1) {
        let (start, len) = part(index, len);
        rest.push(area, Mbuf::from_raw(*buffer), start as u16, len as u16);
    }
    let first = buffers.first().copied().unwrap_or_default();
    let (_, in_first) = part(0, len);
    let buffers = buffers.len() as u8;
    Filled { stamp, first, len: in_first as u16, buffers, rest: rest.finish(), checksum, hash }
}

impl<H: Host> TxQueue for LoopbackTx<H> {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        if self.pending.len() + self.done as usize >= self.slots {
            return Err(TxFull);
        }
        self.pending.push_back(frame.clone());
        Ok(())
    }

    #[inline]
    fn kick(&mut self) {
        if self.shown < self.pending.len() {
            self.shown = self.pending.len();
            self.host.rang();
            self.run();
        }
    }

    #[inline]
    fn reclaim(&mut self) -> u32 {
        if self.host.completes() { core::mem::take(&mut self.done) } else { 0 }
    }
}

impl<H: Host> NicTx for LoopbackTx<H> {
    type Stopped = Stopped;

    fn in_flight(&self) -> u16 {
        (self.pending.len() + self.done as usize) as u16
    }

    /// Never, as on the receive side.
    fn is_quarantined(&self) -> bool {
        false
    }

    fn rewind(&mut self, _stopped: &Stopped) {
        self.done += self.pending.len() as u32;
        self.pending.clear();
        self.shown = 0;
    }

    fn restarted(&mut self) {
        if self.shown > 0 {
            self.run();
        }
    }
}
