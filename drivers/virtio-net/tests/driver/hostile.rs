//! A device that lies by seed. Whatever it writes: no panic, no buffer lost or given out twice, no
//! frame counted twice, and after a reset everything is there again.
use crate::fake::memory::Buffers;
use crate::fake::queue::{Chain, scatter};
use crate::fake::{Fake, FakeMmio, Model, Rng};
use crate::rig::{config, frame, open, ticking};
use ix_abi::CoreId;
use ix_dataplane::device::{NicControl, NicRx, NicTx, RxBatch, RxFrame, RxQueue, TxFrame, TxQueue};
use ix_dataplane::limits::{FRAME_BUFFERS_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::Pool;
use ix_virtio_net::{Features, Port};

const PER_CORE: u32 = 96;

struct Case {
    rng: Rng,
    fake: Fake,
    port: Port<FakeMmio>,
    pool: Pool,
    held: Vec<RxFrame>,
    frames: Vec<TxFrame>,
    rx_chains: Vec<Chain>,
    tx_heads: Vec<u16>,
    pushed: u32,
    reclaimed: u32,
}

impl Case {
    fn new(buffers: &Buffers, seed: u64) -> Case {
        let mut rng = Rng(seed);
        let size = 32 << rng.below(2);
        let fake = Fake::new(
            buffers.memory.clone(),
            Model { queue_size: size, pairs_max: 1, ..Model::default() },
        );
        let clock = ticking();
        let mut config = config(buffers, &clock);
        let optional = [
            Features::INDIRECT_DESC,
            Features::HASH_REPORT,
            Features::GUEST_CSUM,
            Features::CSUM,
            Features::RSS,
            Features::MRG_RXBUF,
            Features::GUEST_TSO4,
            Features::GUEST_TSO6,
        ];
        for feature in optional {
            if rng.one_in(3) {
                config.decline |= feature;
            }
        }
        config.rx_ring = 8 << rng.below(4);
        let port = open(&fake, &buffers.memory, &config).unwrap();
        let frames = (0..4).map(|_| frame(&buffers.memory, &vec![20; 1 + rng.below(18)]).0);
        let frames = frames.collect();
        Case {
            pool: Pool::new(buffers.area, CoreId(0)),
            held: Vec::new(),
            rx_chains: Vec::new(),
            tx_heads: Vec::new(),
            pushed: 0,
            reclaimed: 0,
            rng,
            fake,
            port,
            frames,
        }
    }

    /// Something that the driver's user does.
    fn drive(&mut self) {
        match self.rng.below(8) {
            0 | 1 => self.port.rx[0].replenish(&mut self.pool),
            2 | 3 => {
                let mut batch = RxBatch::new();
                self.port.rx[0].poll(self.rng.below(40), &mut batch);
                self.held.extend(batch);
            }
            4 => {
                for frame in self.held.drain(..) {
                    assert!(usize::from(frame.offset) + usize::from(frame.len) <= MBUF_BYTES);
                    assert!(frame.len >= 14 && (frame.offset == 12 || frame.offset == 20));
                    assert!(buffers(&self.pool, &frame) <= FRAME_BUFFERS_MAX);
                    assert!(frame.rest.pieces(self.pool.area()).all(|piece| !piece.is_empty()));
                    self.pool.free(frame.mbuf);
                    frame.rest.free(&mut self.pool);
                }
            }
            5 => {
                for _ in 0..self.rng.below(12) {
                    let frame = &self.frames[self.rng.below(4)];
                    self.pushed += u32::from(self.port.tx[0].push(frame).is_ok());
                }
                if !self.rng.one_in(3) {
                    self.port.tx[0].kick();
                }
            }
            6 => self.reclaimed += self.port.tx[0].reclaim(),
            _ => {
                self.port.rx[0].arm_interrupt();
                self.port.rx[0].disarm_interrupt();
            }
        }
    }

    /// Something that a sound device does.
    fn answer(&mut self) {
        let rng = &mut self.rng;
        self.fake.with(|d| {
            let memory = d.memory.clone();
            if rng.one_in(2) {
                while let Some(chain) = d.queues[0].take(&memory) {
                    self.rx_chains.push(chain);
                }
            } else {
                while let Some((chain, ..)) = d.take_transmit(0) {
                    self.tx_heads.push(chain.head);
                }
            }
            for _ in 0..rng.below(6) {
                let most = self.rx_chains.len().min(5);
                if most > 1 && d.has(Features::MRG_RXBUF) && rng.one_in(3) {
                    // A frame of several buffers, perhaps with one of a wrong length.
                    let count = 2 + rng.below(most - 1);
                    let wrong = if rng.one_in(8) { rng.below(count) } else { count };
                    for at in 0..count {
                        let chain = self.rx_chains.swap_remove(rng.below(self.rx_chains.len()));
                        let mut bytes = vec![0x5a; 34 + rng.below(80)];
                        bytes[1] = [0, 0, 1, 4, 77][rng.below(5)];
                        bytes[10..12].copy_from_slice(&(count as u16).to_le_bytes());
                        let mut written = scatter(&memory, &chain, &bytes);
                        if at == wrong && at > 0 {
                            written = [0, 2049, u32::MAX][rng.below(3)];
                        }
                        let position = d.queues[0].used().wrapping_add(at as u16);
                        d.queues[0].write_used(&memory, position, u32::from(chain.head), written);
                    }
                    d.queues[0].jump(&memory, count as u16);
                } else if !self.rx_chains.is_empty() && rng.one_in(2) {
                    let chain = self.rx_chains.swap_remove(rng.below(self.rx_chains.len()));
                    let mut bytes: Vec<u8> =
                        (0..34 + rng.below(80)).map(|_| rng.next() as u8).collect();
                    bytes[10..12].copy_from_slice(&[1, 0]);
                    let written = scatter(&memory, &chain, &bytes);
                    d.queues[0].complete(&memory, u32::from(chain.head), written);
                } else if !self.tx_heads.is_empty() {
                    let head = self.tx_heads.swap_remove(rng.below(self.tx_heads.len()));
                    d.queues[1].complete(&memory, u32::from(head), 0);
                }
            }
        });
    }

    /// Something that no device may do.
    fn lie(&mut self) {
        let rng = &mut self.rng;
        self.fake.with(|d| {
            let memory = d.memory.clone();
            let size = d.queues[0].size;
            let queue = &mut d.queues[rng.below(2)];
            queue.lied = true;
            let id = match rng.below(4) {
                0 => rng.next() as u32,
                1 => u32::from(size) + rng.below(3) as u32,
                _ => rng.below(usize::from(size)) as u32,
            };
            let len = match rng.below(5) {
                0 => rng.next() as u32,
                1 => rng.below(34) as u32,
                2 => MBUF_BYTES as u32 + rng.below(4) as u32,
                3 => u32::MAX - rng.below(40) as u32,
                _ => 60,
            };
            match rng.below(7) {
                6 => {
                    // More buffers than there are, or than a frame may have, or none.
                    let Some(chain) = queue.take(&memory) else { return };
                    let mut bytes = [0; 60];
                    let count = [0, 2, 34, rng.next() as u16][rng.below(4)];
                    bytes[10..12].copy_from_slice(&count.to_le_bytes());
                    if !chain.writable.is_empty() {
                        let written = scatter(&memory, &chain, &bytes);
                        queue.complete(&memory, u32::from(chain.head), written);
                    }
                }
                0 => queue.jump(&memory, rng.next() as u16),
                1 => queue.jump(&memory, 1),
                2 => {
                    let position = queue.used().wrapping_sub(rng.below(4) as u16);
                    queue.write_used(&memory, position, id, len);
                }
                3 => queue.want_notifications(&memory, rng.one_in(2)),
                _ => queue.complete(&memory, id, len),
            }
        });
    }

    /// A sound completion with an impossible length: only this frame may suffer.
    fn lie_about_length(&mut self) {
        let rng = &mut self.rng;
        self.fake.with(|d| {
            let memory = d.memory.clone();
            let Some(chain) = d.queues[0].take(&memory) else { return };
            let len = [0, 11, 25, 2049, u32::MAX][rng.below(5)];
            d.queues[0].complete(&memory, u32::from(chain.head), len);
        });
    }

    fn check(&self, seed: u64) {
        let queue = &self.port.rx[0];
        let held: usize = self.held.iter().map(|frame| buffers(&self.pool, frame)).sum();
        let total = self.pool.available() + held + queue.held();
        assert_eq!(total, PER_CORE as usize, "buffers lost or multiplied, seed {seed}");
        assert!(queue.outstanding() <= queue.ring_len());
        let in_flight = u32::from(self.port.tx[0].in_flight());
        assert_eq!(self.reclaimed + in_flight, self.pushed, "frames miscounted, seed {seed}");
    }

    /// Resets the device and finds every buffer once.
    fn end(mut self, seed: u64) {
        let stopped = self.port.control.reset(&ticking()).expect("it resets");
        for queue in self.port.rx {
            queue.release(&stopped, &mut self.pool);
        }
        for frame in self.held {
            self.pool.free(frame.mbuf);
            frame.rest.free(&mut self.pool);
        }
        let mut seen = [false; PER_CORE as usize];
        while let Some(mbuf) = self.pool.alloc() {
            let index = mbuf.into_raw() as usize;
            assert!(!seen[index], "buffer {index} is there twice, seed {seed}");
            seen[index] = true;
        }
        assert!(seen.iter().all(|s| *s), "a buffer is gone, seed {seed}");
        let abandoned: u32 = self.port.tx.into_iter().map(|q| q.abandon(&stopped)).sum();
        assert_eq!(self.reclaimed + abandoned, self.pushed);
    }
}

#[test]
fn a_device_that_lies_by_seed_neither_breaks_nor_robs_the_driver() {
    let buffers = Buffers::new(1, PER_CORE);
    let (mut quarantined, mut errors) = (0, 0);
    for seed in 0..30_000 {
        buffers.clear();
        let mut case = Case::new(&buffers, seed);
        let steps = 20 + case.rng.below(100);
        let honesty = 2 + case.rng.below(40);
        for _ in 0..steps {
            match case.rng.below(3) {
                0 if case.rng.one_in(honesty) => case.lie(),
                0 | 1 => case.answer(),
                _ => case.drive(),
            }
            case.check(seed);
        }
        let (rx, tx) = (&case.port.rx[0], &case.port.tx[0]);
        quarantined += u32::from(rx.is_quarantined() || tx.is_quarantined());
        errors += rx.device_errors() + tx.device_errors();
        case.end(seed);
    }
    assert!((5_000..29_000).contains(&quarantined), "both ends are tested: {quarantined}");
    assert!(errors > u64::from(quarantined));
}

#[test]
fn wrong_lengths_cost_only_their_own_frames() {
    let buffers = Buffers::new(1, PER_CORE);
    for seed in 0..2_000 {
        buffers.clear();
        let mut case = Case::new(&buffers, seed);
        for _ in 0..60 {
            match case.rng.below(3) {
                0 => case.lie_about_length(),
                1 => case.answer(),
                _ => case.drive(),
            }
            case.check(seed);
        }
        assert!(!case.port.rx[0].is_quarantined() && !case.port.tx[0].is_quarantined());
        case.end(seed);
    }
}

/// Buffers of a frame.
fn buffers(pool: &Pool, frame: &RxFrame) -> usize {
    1 + frame.rest.pieces(pool.area()).count()
}

/// Opens a case with posted buffers and frames in flight, for single lies.
fn posted(buffers: &Buffers) -> Case {
    buffers.clear();
    let mut case = Case::new(buffers, 1);
    case.port.rx[0].replenish(&mut case.pool);
    for _ in 0..3 {
        case.port.tx[0].push(&case.frames[0]).unwrap();
        case.pushed += 1;
    }
    case.port.tx[0].kick();
    case
}

#[test]
fn each_lie_about_the_rings_quarantines_its_queue_and_is_counted_once() {
    let buffers = Buffers::new(1, PER_CORE);
    for lie in 0..5 {
        for queue in 0..2 {
            let mut case = posted(&buffers);
            case.fake.with(|d| {
                let memory = d.memory.clone();
                let q = &mut d.queues[queue];
                match lie {
                    0 => q.jump(&memory, 1 << 15),
                    1 => q.jump(&memory, if queue == 0 { 65 } else { 4 }),
                    2 => q.complete(&memory, u32::from(q.size), 60),
                    3 => q.complete(&memory, u32::MAX, 60),
                    // The same one twice.
                    _ => (0..2).for_each(|_| q.complete(&memory, 0, 60)),
                }
            });
            for _ in 0..3 {
                let mut batch = RxBatch::new();
                case.port.rx[0].poll(64, &mut batch);
                case.held.extend(batch);
                case.reclaimed += case.port.tx[0].reclaim();
                case.port.rx[0].replenish(&mut case.pool);
            }
            let (rx, tx) = (&case.port.rx[0], &case.port.tx[0]);
            assert_eq!(rx.is_quarantined(), queue == 0, "lie {lie}");
            assert_eq!(tx.is_quarantined(), queue == 1, "lie {lie}");
            assert_eq!(rx.device_errors() + tx.device_errors(), 1, "lie {lie}");
            case.check(0);
            if queue == 1 {
                assert!(case.port.tx[0].push(&case.frames[0]).is_err());
            }
            case.end(0);
        }
    }
}

#[test]
fn a_descriptor_in_the_middle_of_a_chain_is_no_frame_though_it_was_a_head_once() {
    let buffers = Buffers::new(1, PER_CORE);
    for seed in 0..300 {
        buffers.clear();
        let mut rng = Rng(seed);
        let model = Model { queue_size: 32, pairs_max: 1, ..Model::default() };
        let fake = Fake::new(buffers.memory.clone(), model);
        let clock = ticking();
        let mut config = config(&buffers, &clock);
        config.decline = Features::INDIRECT_DESC;
        let mut queue = open(&fake, &buffers.memory, &config).unwrap().tx.remove(0);
        let frames: Vec<_> =
            (1..5).map(|pieces| frame(&buffers.memory, &vec![20; pieces]).0).collect();
        // Chains of changing lengths, so that every descriptor is a head at some time.
        for _ in 0..200 {
            queue.push(&frames[rng.below(4)]).unwrap();
            queue.kick();
            fake.with(|d| d.transmit(0)).unwrap();
            assert_eq!(queue.reclaim(), 1);
        }
        while queue.push(&frames[1]).is_ok() {}
        queue.kick();
        fake.with(|d| {
            let memory = d.memory.clone();
            let (chain, ..) = d.take_transmit(0).unwrap();
            let middle = u32::from(chain.head + 1) % 32;
            d.queues[1].complete(&memory, middle, 0);
        });
        assert_eq!((queue.reclaim(), queue.is_quarantined()), (0, true), "seed {seed}");
        assert_eq!(queue.in_flight(), 10);
        let waiting = queue.reclaim();
        assert_eq!(waiting, 0);
    }
}
