//! The contract, by the suite that all drivers pass: a device with all that there is, one without RSS, and one without
//! indirect descriptors, hash report and large frames.
use crate::fake::memory::{Buffers, FakeDma};
use crate::fake::queue::Chain;
use crate::fake::{Fake, FakeMmio, Model};
use crate::rig::{KEY, config, open, ticking};
use ix_dataplane::device::{BusAddr, Dma, Gso, TxChecksum};
use ix_dataplane::time::Instant;
use ix_driver_conformance::{Bench, Open, Wishes, frames};
use ix_virtio_net::{Features, Port};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` and `VIRTIO_NET_HDR_F_DATA_VALID` (§5.1.6).
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_TCPV4` and `_TCPV6`.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The device in software as a world of its own. It works when it was told to, as a device that sleeps between.
struct Device {
    fake: Fake,
    buffers: Buffers,
    pairs: usize,
    /// Bells heard, by queue.
    heard: Vec<u32>,
    /// By pair: it has run out of buffers, or began without, and waits for a bell.
    dry: Vec<bool>,
    resets: u32,
    counted: u64,
    hold: bool,
    /// By pair: frames that have left and are not complete.
    held: Vec<VecDeque<Chain>>,
    interrupts: Vec<usize>,
}

fn make(wishes: &Wishes, decline: Features, pairs_max: u16) -> Open<Device> {
    assert_eq!(KEY, ix_driver_conformance::KEY);
    let buffers = Buffers::new(1, wishes.buffers);
    let model = Model { pairs_max, mtu: wishes.mtu, ..Model::default() };
    let fake = Fake::new(buffers.memory.clone(), model);
    let clock = ticking();
    let mut config = config(&buffers, &clock);
    config.queue_pairs = wishes.pairs;
    config.rx_ring = wishes.rx_ring;
    config.tx_ring = wishes.tx_ring;
    config.decline = decline;
    let port = open(&fake, &buffers.memory, &config).expect("the port opens");
    let Port { rx, tx, control, capabilities, .. } = port;
    let pairs = rx.len();
    let area = buffers.area;
    let device = Device {
        fake,
        buffers,
        pairs,
        heard: vec![0; 2 * pairs],
        dry: vec![true; pairs],
        resets: 0,
        counted: 0,
        hold: false,
        held: vec![VecDeque::new(); pairs],
        interrupts: Vec::new(),
    };
    Open { device, rx, tx, control, capabilities, area }
}

impl Device {
    /// Whether the driver has rung for a queue since the last look.
    fn hears(&mut self, queue: usize) -> bool {
        let rung = self.fake.bells.heard[queue].load(SeqCst);
        let before = std::mem::replace(&mut self.heard[queue], rung);
        rung != before
    }

    /// Whether the device looks for buffers of a pair.
    fn looks(&mut self, pair: usize) -> bool {
        let resets = self.fake.with(|d| d.resets);
        if std::mem::replace(&mut self.resets, resets) != resets {
            self.dry.fill(true);
        }
        self.dry[pair] &= !self.hears(2 * pair);
        !self.dry[pair]
    }

    fn complete(&mut self, pair: usize, chain: &Chain) {
        let memory = &self.buffers.memory;
        self.fake.with(|d| d.queues[2 * pair + 1].complete(memory, u32::from(chain.head), 0));
    }

    fn complete_held(&mut self, pair: usize) {
        // A reset has taken back what was held.
        let running = self.fake.with(|d| d.status & 4 != 0);
        for chain in std::mem::take(&mut self.held[pair]) {
            if running {
                self.complete(pair, &chain);
            }
        }
    }

    /// The frames that a queue's doorbell has shown.
    fn transmit(&mut self, pair: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while let Some((chain, header, mut bytes)) = self.fake.with(|d| d.take_transmit(pair)) {
            let word = |at| u16::from_le_bytes([header[at], header[at + 1]]);
            let checksum = TxChecksum { start: word(6), offset: word(8) };
            let gso = Gso { size: word(4), header_len: word(2), ipv6: header[1] == GSO_TCPV6 };
            if header[1] != 0 {
                assert!(header[0] == NEEDS_CSUM && matches!(header[1], GSO_TCPV4 | GSO_TCPV6));
                out.extend(frames::segments(&bytes, checksum, gso));
            } else {
                if header[0] & NEEDS_CSUM != 0 {
                    frames::fill_in(&mut bytes, checksum);
                }
                out.push(bytes);
            }
            if self.hold {
                self.held[pair].push_back(chain);
            } else {
                self.complete_held(pair);
                self.complete(pair, &chain);
            }
        }
        out
    }
}

impl Bench for Device {
    type Nic = Port<FakeMmio>;

    fn deliver(&mut self, frame: &[u8]) -> bool {
        let (pair, mut header) = self.fake.with(|d| d.steer(frame));
        if !self.looks(pair) {
            return false;
        }
        let memory = &self.buffers.memory;
        let (taken, wakes) = self.fake.with(|d| {
            // Of the transport alone: of IPv4's header virtio says nothing.
            let valid = frames::transport_is_right(frame) == Some(true);
            header[0] |= if valid && d.has(Features::GUEST_CSUM) { DATA_VALID } else { 0 };
            let taken = d.receive_at(pair, &header, frame);
            let wakes = taken && d.queues[2 * pair].wants_interrupt(memory);
            (taken, wakes)
        });
        self.dry[pair] = !taken;
        self.interrupts.extend(wakes.then_some(pair));
        taken
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for pair in 0..self.pairs {
            if self.hears(2 * pair + 1) {
                out.extend(self.transmit(pair));
            }
        }
        out
    }

    fn doorbells(&mut self) -> u64 {
        let all: u64 = (0..2 * self.pairs).map(|q| u64::from(self.fake.notifications(q))).sum();
        all - std::mem::replace(&mut self.counted, all)
    }

    fn interrupts(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.interrupts)
    }

    fn hold(&mut self, on: bool) {
        self.hold = on;
        if !on {
            (0..self.pairs).for_each(|pair| self.complete_held(pair));
        }
    }

    fn complete_out_of_turn(&mut self, queue: usize, nth: usize) -> bool {
        let Some(chain) = self.held[queue].remove(nth) else { return false };
        self.complete(queue, &chain);
        true
    }

    /// Nothing of it takes time.
    fn settle(&mut self) {}

    fn clock(&self) -> Box<dyn Fn() -> Instant> {
        Box::new(ticking())
    }

    fn memory(&mut self, len: usize) -> BusAddr {
        let memory = self.buffers.memory.clone();
        FakeDma { memory, allocations_left: 1 }.alloc(len, 1).expect("memory").bus
    }

    fn write(&mut self, at: BusAddr, bytes: &[u8]) {
        self.buffers.memory.write(at.0, bytes);
    }
}

mod full {
    use super::*;
    ix_driver_conformance::conformance!(|w: &Wishes| make(w, Features::empty(), 4));
}

mod without_rss {
    use super::*;
    ix_driver_conformance::conformance!(|w: &Wishes| make(w, Features::RSS, 1), not offered: [
        what_has_no_ports_has_no_hash_and_comes_to_queue_0,
        flows_come_to_the_queues_that_the_table_names,
        a_change_of_the_table_moves_a_flow_and_loses_nothing,
        entries_and_queues_that_do_not_exist_are_refused,
        one_change_at_a_time_whose_end_is_said_once,
        what_is_staged_during_a_change_waits_for_the_next,
        the_table_is_the_same_after_a_restart,
    ]);
}

/// As an old or small back end is: chains of the ring's own descriptors, one buffer a frame, no offloads.
mod bare {
    use super::*;

    const LESS: Features = Features::INDIRECT_DESC
        .union(Features::HASH_REPORT)
        .union(Features::MRG_RXBUF)
        .union(Features::CSUM)
        .union(Features::GUEST_CSUM);

    ix_driver_conformance::conformance!(|w: &Wishes| make(w, LESS, 4), not offered: [
        frames_over_several_buffers_arrive_whole,
        checksums_are_good_only_where_both_are_right,
        the_hash_is_the_engines,
        checksums_that_are_asked_for_are_filled_in,
        large_frames_leave_as_segments,
    ]);
}
