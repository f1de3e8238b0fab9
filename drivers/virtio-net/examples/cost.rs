//! What the driver costs per packet, for callgrind: instructions within the four functions below,
//! so that the device's own work is not counted.
//!
//! ```text
//! cargo build --release -p ix-virtio-net --example cost
//! for part in poll replenish push_and_kick reclaim; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
//!     --toggle-collect="cost::$part" target/release/examples/cost ROUNDS CASE
//! done
//! ```
//! CASE: `plain` (no offloads), `offload` (checksums and hash), `merge` (as
//! `offload`, with mergeable buffers), `two` (as `offload`, transmit frames
//! of two pieces), `chain` (as `two` without indirect descriptors). "Collected" divided by
//! `64 * ROUNDS` is the figure. `cost.sh` beside this folder does all of it.
#[path = "../tests/driver/fake/mod.rs"]
mod fake;
#[path = "../tests/driver/rig.rs"]
mod rig;

use fake::{FakeMmio, Model};
use ix_dataplane::device::{RxBatch, RxQueue, TxChecksum, TxFrame, TxQueue};
use ix_dataplane::mbuf::Pool;
use ix_virtio_net::{Features, VirtioRx, VirtioTx};

const BATCH: usize = 64;

#[inline(never)]
fn poll(queue: &mut VirtioRx<FakeMmio>, batch: &mut RxBatch) -> usize {
    queue.poll(BATCH, batch)
}

#[inline(never)]
fn replenish(queue: &mut VirtioRx<FakeMmio>, pool: &mut Pool) {
    queue.replenish(pool);
}

#[inline(never)]
fn push_and_kick(queue: &mut VirtioTx<FakeMmio>, frame: &TxFrame) {
    for _ in 0..BATCH {
        queue.push(frame).expect("there is room");
    }
    queue.kick();
}

#[inline(never)]
fn reclaim(queue: &mut VirtioTx<FakeMmio>) -> u32 {
    queue.reclaim()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let case = arguments.next().unwrap_or_else(|| "offload".into());
    let offloads = Features::CSUM | Features::GUEST_CSUM | Features::HASH_REPORT | Features::RSS;
    let single = Features::MRG_RXBUF;
    let (decline, pieces) = match case.as_str() {
        "plain" => (offloads, &[60][..]),
        "offload" => (single, &[60][..]),
        "merge" => (Features::empty(), &[60][..]),
        "two" => (single, &[54, 600][..]),
        "chain" => (single | Features::INDIRECT_DESC, &[54, 600][..]),
        _ => panic!("no such case: {case}"),
    };
    let mut rig = rig::Rig::new(Model::default(), |c| c.decline = decline);
    let memory = rig.buffers.memory.clone();
    // One register write per batch and direction is not counted: it is the platform's.
    rig.fake.with(|d| (0..2).for_each(|q| d.queues[q].want_notifications(&memory, false)));
    let (mut frame, _) = rig.frame(pieces);
    frame.checksum = Some(TxChecksum { start: 34, offset: 16 });
    let mut header = [0; 20];
    header[0] = 2;
    header[16] = 2;
    let received = rig::tcp_frame([10, 0, 2, 2], 4000, 60);
    let mut batch = RxBatch::new();
    for _ in 0..rounds {
        replenish(&mut rig.port.rx[0], &mut rig.pool);
        rig.fake.with(|d| (0..BATCH).for_each(|_| assert!(d.receive_at(0, &header, &received))));
        assert_eq!(poll(&mut rig.port.rx[0], &mut batch), BATCH);
        for frame in batch.drain(..) {
            rig.pool.free(frame.mbuf);
        }
        push_and_kick(&mut rig.port.tx[0], &frame);
        rig.fake.with(|d| (0..BATCH).for_each(|_| assert!(d.transmit(0).is_some())));
        assert_eq!(reclaim(&mut rig.port.tx[0]), BATCH as u32);
    }
}
