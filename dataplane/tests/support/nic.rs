//! A NIC of plain memory. Bus addresses are pointers. Frames are gathered when the device gets to
//! them, not when they are pushed: memory that is reused too early shows on the wire.
use super::gso::segments;
use super::lro;
use ix_dataplane::device::*;
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::{Mbuf, Pool, Rest, RestBuilder};
use std::collections::VecDeque;

/// Where frames begin in buffers.
const OFFSET: usize = 12;

pub struct Rx {
    pub inbox: VecDeque<Vec<u8>>,
    posted: VecDeque<Mbuf>,
    area: &'static ix_dataplane::mbuf::Area,
    pub depth: usize,
    pub offload: bool,
    /// Bytes of frames in each buffer by turns, the first in the first: so frames span buffers.
    pub pieces: Vec<usize>,
    /// Segments that follow each other make one frame; only with `offload`.
    pub merges: bool,
    /// Frames that span buffers.
    pub chains: u64,
    /// Frames that came when no buffer was posted.
    pub missed: u64,
    /// What the driver is to say of its device.
    pub device_errors: u64,
    /// Runs once, between the quiescent point and the frames of an iteration.
    pub meanwhile: Option<Box<dyn FnOnce()>>,
    /// A frame that was shown alone and not taken.
    shown: Option<RxFrame>,
}

impl Rx {
    pub fn new(area: &'static ix_dataplane::mbuf::Area, depth: usize) -> Rx {
        Rx {
            inbox: VecDeque::new(),
            posted: VecDeque::new(),
            area,
            depth,
            offload: false,
            pieces: vec![MBUF_BYTES - OFFSET],
            merges: false,
            chains: 0,
            missed: 0,
            device_errors: 0,
            meanwhile: None,
            shown: None,
        }
    }

    pub fn posted(&self) -> usize {
        self.posted.len()
    }

    /// The bytes in as many buffers as they take; `None` if there are too few, which are posted again.
    fn fill(&mut self, bytes: &[u8]) -> Option<(Mbuf, u16, Rest)> {
        let mut sizes = self.pieces.clone().into_iter().cycle();
        let mut parts = Vec::new();
        let mut left = bytes;
        while !left.is_empty() {
            let (part, more) = left.split_at(sizes.next().unwrap().min(left.len()));
            parts.push(part);
            left = more;
        }
        if parts.len() > self.posted.len() {
            return None;
        }
        let mut put = |part: &[u8]| {
            let mut mbuf = self.posted.pop_front().unwrap();
            let data = &mut self.area.data_mut(&mut mbuf)[OFFSET..OFFSET + part.len()];
            data.copy_from_slice(part);
            mbuf
        };
        const NONE: &[u8] = &[];
        let (first, others) = parts.split_first().unwrap_or((&NONE, &[]));
        let mbuf = put(first);
        let mut rest = RestBuilder::new();
        for part in others {
            let mbuf = put(part);
            rest.push(self.area, mbuf, OFFSET as u16, part.len() as u16);
        }
        self.chains += u64::from(!others.is_empty());
        Some((mbuf, first.len() as u16, rest.finish()))
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        if let Some(frame) = self.shown.take() {
            batch.push(frame);
            return 1;
        }
        let mut count = 0;
        while count < max && !batch.is_full() {
            let Some(mut bytes) = self.inbox.pop_front() else { break };
            let good = self.offload && is_intact(&bytes);
            let mut merged = 0;
            if self.merges && good {
                let more = |next: &[u8]| is_intact(next);
                merged = lro::merge(&mut bytes, &mut self.inbox, more);
            }
            let Some((mbuf, len, rest)) = self.fill(&bytes) else {
                self.missed += 1;
                continue;
            };
            let checksum = if good { RxChecksum::Good } else { RxChecksum::Unknown };
            let offset = OFFSET as u16;
            batch.push(RxFrame { mbuf, offset, len, rest, merged, checksum, hash: None });
            count += 1;
        }
        count
    }

    fn lone(&mut self) -> Option<&RxFrame> {
        if self.shown.is_none() && self.inbox.len() == 1 {
            let mut batch = Box::<RxBatch>::default();
            self.poll(1, &mut batch);
            self.shown = batch.pop();
        }
        self.shown.as_ref()
    }

    fn took_lone(&mut self) {
        if let Some(frame) = self.shown.take() {
            let _the_engines = frame.mbuf.into_raw();
        }
    }

    fn waiting(&self) -> usize {
        self.inbox.len() + usize::from(self.shown.is_some())
    }

    fn replenish(&mut self, pool: &mut Pool) {
        while self.posted.len() < self.depth {
            let Some(mbuf) = pool.alloc() else { break };
            self.posted.push_back(mbuf);
        }
    }

    fn arm_interrupt(&mut self) -> bool {
        !self.inbox.is_empty()
    }

    fn disarm_interrupt(&mut self) {}

    fn device_errors(&self) -> u64 {
        self.device_errors
    }
}

pub struct Tx {
    ring: VecDeque<TxFrame>,
    pub outbox: VecDeque<Vec<u8>>,
    pub depth: usize,
    completed: u32,
    /// The device does nothing while this is set.
    pub stalled: bool,
    pub kicks: u64,
    /// The largest IP packet that it cuts into segments.
    pub tso: u16,
    /// How it wants their headers.
    pub pseudo: Pseudo,
    /// Frames that it cut.
    pub large: u64,
}

impl Tx {
    pub fn new(depth: usize, tso: u16, pseudo: Pseudo) -> Tx {
        let (ring, outbox) = (VecDeque::new(), VecDeque::new());
        let (completed, stalled, kicks, large) = (0, false, 0, 0);
        Tx { ring, outbox, depth, completed, stalled, kicks, tso, pseudo, large }
    }

    /// The device works: gathers what was pushed, completes it.
    pub fn work(&mut self) {
        if self.stalled {
            return;
        }
        while let Some(frame) = self.ring.pop_front() {
            let bytes = gather(&frame);
            match frame.gso {
                Some(gso) => {
                    assert!(bytes.len() <= 14 + usize::from(self.tso), "no such frames wanted");
                    self.large += 1;
                    self.outbox.extend(segments(&frame, &bytes, gso, self.pseudo));
                }
                None => self.outbox.push_back(bytes),
            }
            self.completed += 1;
        }
    }

    pub fn waiting(&self) -> usize {
        self.ring.len()
    }
}

/// What a device checks.
fn is_intact(f: &[u8]) -> bool {
    use ix_dataplane::checksum::{add, is_good, pseudo_v4, sum};
    if f.len() < 54 || f[12..15] != [8, 0, 0x45] || f[23] != 6 {
        return false;
    }
    let total = usize::from(u16::from_be_bytes([f[16], f[17]]));
    let Some(segment) = f.get(34..14 + total) else { return false };
    let (from, to) = (f[26..30].try_into().unwrap(), f[30..34].try_into().unwrap());
    let pseudo = pseudo_v4(from, to, 6, segment.len() as u16);
    is_good(sum(&f[14..34])) && is_good(add(pseudo, sum(segment)))
}

fn gather(frame: &TxFrame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    for fragment in &frame.fragments {
        assert!(fragment.len > 0, "an empty fragment");
        // SAFETY: the engine promises that the memory is readable until completion.
        let part = unsafe {
            std::slice::from_raw_parts(fragment.bus.0 as *const u8, fragment.len as usize)
        };
        bytes.extend_from_slice(part);
    }
    if let Some(TxChecksum { start, offset }) = frame.checksum
        && frame.gso.is_none()
    {
        let (start, at) = (usize::from(start), usize::from(start + offset));
        let sum = ix_dataplane::checksum::sum(&bytes[start..]);
        bytes[at..at + 2].copy_from_slice(&ix_dataplane::checksum::finish(sum));
    }
    bytes
}

impl TxQueue for Tx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        if self.ring.len() >= self.depth {
            return Err(TxFull);
        }
        self.ring.push_back(frame.clone());
        Ok(())
    }

    fn kick(&mut self) {
        self.kicks += 1;
    }

    fn reclaim(&mut self) -> u32 {
        std::mem::take(&mut self.completed)
    }
}
