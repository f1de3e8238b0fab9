//! A NIC whose every decision is the input's: what it posts, when it fetches and completes.
use crate::memory::gather;
use ix_dataplane::checksum;
use ix_dataplane::device::{RxBatch, RxChecksum, RxFrame, RxQueue, TxFrame, TxFull, TxQueue};
use ix_dataplane::limits::{FRAME_BYTES_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::{Area, Mbuf, Pool, Rest};
use std::collections::VecDeque;

/// A frame on its way to a receive queue.
#[derive(Debug)]
pub struct Arriving {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The device says that the checksums are right.
    pub good: bool,
    /// The hash that the device reports.
    pub hash: Option<u32>,
    /// Where the frame starts in its buffer.
    pub offset: u16,
}

/// A receive queue.
#[derive(Debug)]
pub struct Rx {
    /// What has arrived.
    pub inbox: VecDeque<Arriving>,
    posted: VecDeque<Mbuf>,
    /// Taken out of the pool and not posted: scarcity.
    hoard: Vec<Mbuf>,
    /// How many it wants to have taken so.
    pub greed: usize,
    /// Slots of the ring.
    pub depth: usize,
    /// What it says of its device.
    pub errors: u64,
    area: &'static Area,
}

impl Rx {
    /// An empty queue.
    pub fn new(area: &'static Area, depth: usize) -> Rx {
        let (inbox, posted, hoard) = Default::default();
        Rx { inbox, posted, hoard, greed: 0, depth, errors: 0, area }
    }

    /// Buffers that are here.
    pub fn held(&self) -> usize {
        self.posted.len() + self.hoard.len()
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let mut count = 0;
        while count < max && !batch.is_full() {
            let Some(frame) = self.inbox.pop_front() else { break };
            // Frames for which no buffer is posted are lost.
            let Some(mut mbuf) = self.posted.pop_front() else { continue };
            let start = usize::from(frame.offset);
            let len = frame.bytes.len().min(MBUF_BYTES - start);
            self.area.data_mut(&mut mbuf)[start..start + len].copy_from_slice(&frame.bytes[..len]);
            let checksum = if frame.good { RxChecksum::Good } else { RxChecksum::Unknown };
            let len = len as u16;
            batch.push(RxFrame {
                mbuf,
                offset: frame.offset,
                len,
                rest: Rest::NONE,
                merged: 0,
                checksum,
                hash: frame.hash,
            });
            count += 1;
        }
        count
    }

    fn waiting(&self) -> usize {
        self.inbox.len()
    }

    fn replenish(&mut self, pool: &mut Pool) {
        while self.hoard.len() > self.greed {
            let Some(mbuf) = self.hoard.pop() else { break };
            pool.free(mbuf);
        }
        while self.hoard.len() < self.greed {
            let Some(mbuf) = pool.alloc() else { break };
            self.hoard.push(mbuf);
        }
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
        self.errors
    }
}

/// A transmit queue.
#[derive(Debug)]
pub struct Tx {
    ring: VecDeque<(TxFrame, Vec<u8>)>,
    /// What has left.
    pub outbox: VecDeque<Vec<u8>>,
    /// Slots of the ring.
    pub depth: usize,
    /// Says that it is full so many times.
    pub refusals: u32,
    completed: u32,
    spare: Vec<Vec<u8>>,
    now: Vec<u8>,
    /// Whether the NIC sums what it sends; else nothing may be asked of it.
    pub sums: bool,
}

impl Tx {
    /// An empty queue.
    pub fn new(depth: usize, sums: bool) -> Tx {
        let (ring, outbox, spare, now) = Default::default();
        Tx { ring, outbox, depth, refusals: 0, completed: 0, spare, now, sums }
    }

    /// The device sends at most `count` frames. What they hold must be what they held when they were
    /// pushed: the memory is the device's in between.
    pub fn work(&mut self, count: usize) {
        for _ in 0..count {
            let Some((frame, mut then)) = self.ring.pop_front() else { return };
            gather(&frame.fragments, &mut self.now);
            assert_eq!(self.now, then, "memory of a frame in flight was changed");
            if let Some(wanted) = frame.checksum {
                assert!(self.sums, "a checksum is asked of a NIC that does not sum");
                let start = usize::from(wanted.start);
                let at = start + usize::from(wanted.offset);
                let sum = checksum::sum(&then[start..]);
                then[at..at + 2].copy_from_slice(&checksum::finish(sum));
            }
            check(&then);
            self.outbox.push_back(then);
            self.completed += 1;
        }
    }

    /// Frames that have not left.
    pub fn waiting(&self) -> usize {
        self.ring.len()
    }

    /// A frame's memory, to be used again.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }
}

impl TxQueue for Tx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(TxFull);
        }
        if self.ring.len() >= self.depth {
            return Err(TxFull);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        gather(&frame.fragments, &mut bytes);
        self.ring.push_back((frame.clone(), bytes));
        Ok(())
    }

    fn kick(&mut self) {}

    fn reclaim(&mut self) -> u32 {
        std::mem::take(&mut self.completed)
    }
}

/// What every frame on the wire must be.
fn check(f: &[u8]) {
    assert!((14..=FRAME_BYTES_MAX).contains(&f.len()), "a frame of {} bytes", f.len());
    if f[12..14] == super::six::ETHERTYPE {
        return check_v6(f);
    }
    if f[12..14] != [8, 0] {
        assert_eq!(f[12..14], [8, 6], "neither IP nor ARP");
        return;
    }
    let total = usize::from(u16::from_be_bytes([f[16], f[17]]));
    assert_eq!(f[14], 0x45);
    assert_eq!(14 + total, f.len(), "total length");
    assert!(checksum::is_good(checksum::sum(&f[14..34])), "IPv4 checksum");
    let (from, to) = ([f[26], f[27], f[28], f[29]], [f[30], f[31], f[32], f[33]]);
    let sum = checksum::add(
        checksum::pseudo_v4(from, to, f[23], (total - 20) as u16),
        checksum::sum(&f[34..]),
    );
    match f[23] {
        1 => assert!(checksum::is_good(checksum::sum(&f[34..])), "ICMP checksum"),
        6 => assert!(checksum::is_good(sum), "TCP checksum"),
        17 if f[40..42] != [0, 0] => assert!(checksum::is_good(sum), "UDP checksum"),
        17 => {}
        other => panic!("protocol {other}"),
    }
}

/// The same of IPv6.
fn check_v6(f: &[u8]) {
    assert_eq!(f[14] >> 4, 6);
    let payload = usize::from(u16::from_be_bytes([f[18], f[19]]));
    assert_eq!(14 + 40 + payload, f.len(), "payload length");
    // Listener reports have the router alert before them.
    let (protocol, at) =
        if f[20] == 0 { (f[54], 62 + 8 * usize::from(f[55])) } else { (f[20], 54) };
    let address = |at: usize| f[at..at + 16].try_into().expect("16 bytes");
    let pseudo = checksum::pseudo_v6(&address(22), &address(38), protocol, (f.len() - at) as u16);
    let sum = checksum::add(pseudo, checksum::sum(&f[at..]));
    assert!([6, 17, 58].contains(&protocol), "protocol {protocol}");
    assert!(checksum::is_good(sum), "checksum of protocol {protocol} over IPv6");
}
