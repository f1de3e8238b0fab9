//! The card on the bench: all queues polled by this core, frames out of memory that it may read, and what became of them.
#![allow(unsafe_code, reason = "memory that the card reads frames from")]

use alloc::string::String;
use alloc::vec::Vec;

use ix_abi::CoreId;
use ix_dataplane::device::{
    Capabilities, Dma, DmaRegion, Fragment, NicControl, NicRx, NicTx, RxBatch, RxFrame, RxQueue,
    TxChecksum, TxFrame, TxQueue,
};
use ix_dataplane::mbuf::{Area, Pool};
use ix_dataplane::rss::Toeplitz;
use ix_dataplane::steer::MuxTx;
use ix_kernel_core::nictest::LEN_MAX;

use super::clock;
use crate::net::{KernelDma, Net, Tx};
use crate::nic::{Control, Queue, Rx, Stopped};

/// Frames that are on their way at once.
pub const SLOTS: usize = 32;
const SLOT_BYTES: usize = 2048;
const _: () = assert!(LEN_MAX <= SLOT_BYTES);
/// FCS, and what it takes at least on the wire.
const FCS: u64 = 4;
const WIRE_MIN: u64 = 64;

/// An open port with all that belongs to it.
pub struct Bench {
    pub rx: Vec<Rx>,
    pub tx: Vec<MuxTx<Queue>>,
    pub control: Control,
    pub capabilities: Capabilities,
    pub mac: [u8; 6],
    pub toeplitz: Toeplitz,
    /// Frames and bytes sent, as the card counts them.
    pub sent: u64,
    pub sent_bytes: u64,
    area: &'static Area,
    /// By receive queue.
    pools: Vec<Pool>,
    slots: DmaRegion,
    batch: RxBatch,
}

impl Bench {
    /// Takes a port apart, and posts buffers.
    pub fn new(net: Net) -> Result<Self, String> {
        let Net { shares, control, capabilities, mac, rss_key, area, .. } = net;
        let control = control.ok_or("there is no card")?;
        let slots = KernelDma.alloc(SLOTS * SLOT_BYTES, 4096).ok_or("no memory for frames")?;
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for share in shares {
            rx.extend(share.rx);
            if let Tx::Queue(queue) = share.tx {
                tx.push(queue);
            }
        }
        let pools = (0..rx.len()).map(|i| Pool::new(area, CoreId(i as u16))).collect();
        let toeplitz = Toeplitz::new(&rss_key);
        let (sent, sent_bytes, batch) = (0, 0, RxBatch::new());
        let mut bench = Self {
            rx,
            tx,
            control,
            capabilities,
            mac,
            toeplitz,
            sent,
            sent_bytes,
            area,
            pools,
            slots,
            batch,
        };
        bench.replenish();
        Ok(bench)
    }

    fn replenish(&mut self) {
        self.rx.iter_mut().zip(&mut self.pools).for_each(|(rx, pool)| rx.replenish(pool));
    }

    /// The bytes of a slot, while the card has nothing in it to send.
    pub fn slot(&mut self, slot: usize) -> &mut [u8] {
        let at = slot % SLOTS * SLOT_BYTES;
        // SAFETY: within the region (`SLOTS` slots were allotted), which is this value's alone and valid for good; the card only
        // reads it. Initialised: the `Dma` service gives zeroed memory.
        unsafe { core::slice::from_raw_parts_mut(self.slots.ptr.as_ptr().add(at), SLOT_BYTES) }
    }

    /// Queues a slot's first bytes. `false`: there is no room.
    pub fn push(&mut self, queue: usize, slot: usize, len: usize, sum: Option<TxChecksum>) -> bool {
        let bus = self.slots.bus.offset((slot % SLOTS * SLOT_BYTES) as u64);
        let mut frame = TxFrame { checksum: sum, ..TxFrame::default() };
        frame.fragments.push(Fragment { bus, len: len as u32 });
        let pushed = self.tx[queue].push(&frame).is_ok();
        if pushed {
            self.sent += 1;
            self.sent_bytes += (len as u64 + FCS).max(WIRE_MIN);
        }
        pushed
    }

    /// Takes what has come to all queues, shows it, and posts buffers; how many there were.
    pub fn poll(&mut self, mut see: impl FnMut(usize, &RxFrame, &[u8])) -> usize {
        let mut count = 0;
        for (queue, (rx, pool)) in self.rx.iter_mut().zip(&mut self.pools).enumerate() {
            rx.poll(SLOTS, &mut self.batch);
            for frame in self.batch.drain(..) {
                count += 1;
                let (start, len) = (usize::from(frame.offset), usize::from(frame.len));
                see(queue, &frame, &self.area.data(&frame.mbuf)[start..start + len]);
                let RxFrame { mbuf, rest, .. } = frame;
                rest.free(pool);
                pool.free(mbuf);
            }
            rx.replenish(pool);
        }
        count
    }

    /// Stops the port, has something done meanwhile, and starts it again.
    pub fn restart<T>(
        &mut self,
        meanwhile: impl FnOnce(&mut Control, &Stopped) -> Result<T, String>,
    ) -> Result<T, String> {
        let stopped = self.control.reset(&clock)?;
        let done = meanwhile(&mut self.control, &stopped);
        for (rx, pool) in self.rx.iter_mut().zip(&mut self.pools) {
            rx.rewind(&stopped, pool);
        }
        for tx in &mut self.tx {
            tx.queue_mut().rewind(&stopped);
            tx.reclaim();
        }
        self.control.restart(stopped, &clock)?;
        self.tx.iter_mut().for_each(|tx| tx.queue_mut().restarted());
        self.rx.iter_mut().for_each(NicRx::restarted);
        self.replenish();
        done
    }
}
