//! A network card in memory: descriptors are written and read as a driver would, nothing is allocated or
//! copied, everything that was pushed has left at the next look.
use crate::memory;
use ix_dataplane::device::{
    Fragment, RxBatch, RxChecksum, RxFrame, RxQueue, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::mbuf::{Mbuf, Pool};
use std::collections::VecDeque;

/// Receive descriptors.
pub const RX_RING: usize = 256;
/// Transmit descriptors; a power of two.
const TX_RING: usize = 4096;

/// The receive queue.
#[derive(Debug)]
pub struct Rx {
    posted: VecDeque<Mbuf>,
    ready: VecDeque<RxFrame>,
}

impl Rx {
    /// An empty queue.
    pub fn new() -> Rx {
        Rx { posted: VecDeque::with_capacity(RX_RING), ready: VecDeque::with_capacity(RX_RING) }
    }

    /// A buffer for the next frame.
    pub fn take(&mut self) -> Mbuf {
        self.posted.pop_front().expect("a posted buffer")
    }

    /// A frame has arrived.
    pub fn arrive(&mut self, mbuf: Mbuf, offset: u16, len: u16, known: Option<u32>) {
        let checksum = if known.is_some() { RxChecksum::Good } else { RxChecksum::Unknown };
        self.ready.push_back(RxFrame { mbuf, offset, len, checksum, hash: known });
    }
}

impl RxQueue for Rx {
    #[inline]
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let mut count = 0;
        while count < max {
            let Some(frame) = self.ready.pop_front() else { break };
            batch.push(frame);
            count += 1;
        }
        count
    }
    #[inline]
    fn replenish(&mut self, pool: &mut Pool) {
        while self.posted.len() + self.ready.len() < RX_RING {
            let Some(mbuf) = pool.alloc() else { break };
            self.posted.push_back(mbuf);
        }
    }
    fn arm_interrupt(&mut self) -> bool {
        false
    }
    fn disarm_interrupt(&mut self) {}
    fn device_errors(&self) -> u64 {
        0
    }
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    fragment: Fragment,
    last: bool,
}

/// The transmit queue.
#[derive(Debug)]
pub struct Tx {
    ring: Box<[Option<Descriptor>; TX_RING]>,
    /// Next to write, next to be looked at by the network.
    written: usize,
    looked: usize,
    left: u32,
    /// Frames since the beginning.
    pub frames: u64,
    /// Doorbells that were rung for something.
    pub doorbells: u64,
    rung: u64,
}

impl Tx {
    /// An empty queue.
    pub fn new() -> Tx {
        let ring = Box::new([None; TX_RING]);
        Tx { ring, written: 0, looked: 0, left: 0, frames: 0, doorbells: 0, rung: 0 }
    }

    /// The bytes of the oldest frame that the network has not seen.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> bool {
        assert!(self.written - self.looked <= TX_RING, "frames went unseen");
        bytes.clear();
        while self.looked != self.written {
            let descriptor = self.ring[self.looked % TX_RING].expect("a descriptor");
            self.looked += 1;
            memory::gather(&descriptor.fragment, bytes);
            if descriptor.last {
                return true;
            }
        }
        false
    }

    /// Forgets what was sent.
    pub fn skip(&mut self) {
        self.looked = self.written;
    }
}

impl TxQueue for Tx {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let count = frame.fragments.len();
        for (i, fragment) in frame.fragments.iter().enumerate() {
            let descriptor = Descriptor { fragment: *fragment, last: i + 1 == count };
            self.ring[self.written % TX_RING] = Some(descriptor);
            self.written += 1;
        }
        self.frames += 1;
        self.left += 1;
        Ok(())
    }
    #[inline]
    fn kick(&mut self) {
        self.doorbells += u64::from(self.rung != self.frames);
        self.rung = self.frames;
    }
    #[inline]
    fn reclaim(&mut self) -> u32 {
        std::mem::take(&mut self.left)
    }
}
