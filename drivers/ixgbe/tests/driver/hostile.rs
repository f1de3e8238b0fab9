//! A chip that lies: lengths, ends, verdicts, reports; memory that it may not reach.
use crate::frames::{Flow, frame};
use crate::memory;
use crate::rig::{Rig, World, open};
use ix_dataplane::device::{NicControl, NicTx, RxBatch, RxQueue, TxQueue};
use ix_model_ixgbe::Options;

/// A generator of the test's own (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn ring(rig: &Rig, low: u32) -> u64 {
    u64::from(rig.world.read(low)) | u64::from(rig.world.read(low + 4)) << 32
}

/// Writes the second word of a descriptor as the chip would.
fn write_back(rig: &Rig, slot: u64, word: u64) {
    rig.world.memory.store(ring(rig, 0x1000) + 16 * slot + 8, &word.to_le_bytes());
}

const DONE: u64 = 1;
const END: u64 = 2;

fn of(len: u64) -> u64 {
    len << 32
}

#[test]
fn impossible_lengths_and_errors_cost_the_frame_and_are_counted() {
    let error = 1 << 29;
    for (number, word) in [
        DONE | END,
        DONE | END | of(13),
        DONE | END | of(2049),
        DONE | END | of(0xffff),
        DONE | END | of(60) | error,
    ]
    .into_iter()
    .enumerate()
    {
        let mut rig = Rig::single();
        rig.replenish();
        write_back(&rig, 0, word);
        write_back(&rig, 1, DONE | END | of(60));
        let got = rig.poll(0);
        assert_eq!((got.len(), got[0].1.len()), (1, 60), "case {number}");
        assert_eq!(rig.port.rx[0].device_errors(), 1);
        rig.free(got);
        rig.replenish();
        rig.assert_conserved(0);
    }
}

#[test]
fn descriptors_that_were_not_posted_are_not_looked_at() {
    let mut rig =
        Rig::with_buffers(Options::default(), 20, |c| (c.queue_pairs, c.rx_ring) = (1, 64));
    rig.replenish();
    assert_eq!(rig.port.rx[0].outstanding(), 20);
    for slot in 0..64 {
        write_back(&rig, slot, DONE | END | of(100));
    }
    assert_eq!(rig.port.rx[0].waiting(), 20);
    let got = rig.poll(0);
    assert_eq!(got.len(), 20);
    rig.free(got);
    assert_eq!(rig.poll(0).len(), 0);
    rig.assert_conserved(0);
}

#[test]
fn a_frame_that_does_not_end_costs_its_buffers_and_the_next_one_comes() {
    for len in [1, 2047, 2048, 60_000] {
        let mut rig = Rig::single();
        rig.replenish();
        for slot in 0..80 {
            write_back(&rig, slot, DONE | of(len));
        }
        write_back(&rig, 80, DONE | END | of(70));
        write_back(&rig, 81, DONE | END | of(71));
        let mut got = rig.poll(0);
        for _ in 0..5 {
            got.extend(rig.poll(0));
        }
        assert_eq!((got.len(), got[0].1.len()), (1, 71), "length {len}");
        assert!(rig.port.rx[0].device_errors() > 0);
        rig.free(got);
        rig.replenish();
        rig.assert_conserved(0);
    }
}

#[test]
fn a_frame_larger_than_its_ring_does_not_stop_the_queue() {
    let mut rig = Rig::new(Options::default(), |c| (c.queue_pairs, c.rx_ring) = (1, 8));
    rig.replenish();
    for slot in 0..7 {
        write_back(&rig, slot, DONE | of(2048));
    }
    assert_eq!(rig.poll(0).len(), 0);
    assert_eq!((rig.port.rx[0].outstanding(), rig.port.rx[0].device_errors()), (0, 1));
    rig.replenish();
    rig.assert_conserved(0);
}

#[test]
fn twenty_thousand_rings_of_lies_lose_no_buffer_and_give_no_byte_outside_of_one() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut rig =
        Rig::with_buffers(Options::default(), 300, |c| (c.queue_pairs, c.rx_ring) = (1, 128));
    let base = ring(&rig, 0x1000);
    let mut frames = 0;
    for round in 0..20_000 {
        rig.replenish();
        for _ in 0..random.below(40) {
            let slot = random.below(128);
            let kind = random.below(4);
            let mut word = random.next();
            if kind > 0 {
                // Nearly right, so that it goes far.
                word = word & 0xffff_0000_0fff_fffc
                    | of([60, 2048, 2048, random.below(2100)][kind as usize]);
                word |= DONE | if random.below(3) > 0 { END } else { 0 };
            }
            rig.world.memory.store(base + 16 * slot, &random.next().to_le_bytes());
            rig.world.memory.store(base + 16 * slot + 8, &word.to_le_bytes());
        }
        let mut batch = RxBatch::new();
        rig.port.rx[0].poll(random.below(70) as usize, &mut batch);
        let _ = rig.port.rx[0].waiting();
        let mut held = 0;
        for got in &batch {
            assert!(usize::from(got.offset) + usize::from(got.len) <= 2048 && got.len >= 14);
            assert!(got.rest.pieces(rig.area).all(|piece| (1..=2048).contains(&piece.len())));
            held += 1 + got.rest.pieces(rig.area).count();
        }
        rig.assert_conserved(held);
        frames += batch.len();
        for got in batch.drain(..) {
            rig.pool.free(got.mbuf);
            got.rest.free(&mut rig.pool);
        }
        if round % 5_000 == 4_999 {
            rig.restart();
            assert_eq!(rig.pool.available(), rig.pool.capacity());
            assert_eq!(ring(&rig, 0x1000), base);
        }
    }
    assert!(frames > 5_000, "{frames}");
}

#[test]
fn reports_that_nobody_asked_for_complete_nothing() {
    let mut rig = Rig::single();
    let base = ring(&rig, 0x6000);
    let bytes = frame(Flow::tcp(1), &[]);
    let queued = rig.frame(&bytes, &[54]);
    for _ in 0..100 {
        rig.port.tx[0].push(&queued).unwrap();
    }
    assert_eq!(rig.port.tx[0].reclaim(), 0);
    // The chip says that it has sent what it was not shown.
    let done = |rig: &Rig| {
        for slot in 0..256 {
            let at = base + 16 * slot + 8;
            let word = rig.world.memory.load64(at) | 1 << 32;
            rig.world.memory.store(at, &word.to_le_bytes());
        }
    };
    done(&rig);
    assert_eq!((rig.port.tx[0].reclaim(), rig.port.tx[0].in_flight()), (0, 100));
    rig.port.tx[0].kick();
    assert_eq!(rig.port.tx[0].reclaim(), 100);
    assert_eq!(rig.sent().len(), 100);
}

#[test]
fn a_chip_that_may_not_reach_memory_is_reported_and_the_port_works_after_a_restart() {
    let mut rig = Rig::single();
    rig.replenish();
    let bytes = frame(Flow::tcp(1), &[]);
    let queued = rig.frame(&bytes, &[54]);
    rig.world.memory.cut_off.set(true);
    assert!(!rig.world.receive(&bytes));
    rig.port.tx[0].push(&queued).unwrap();
    rig.port.tx[0].kick();
    assert_eq!(rig.port.tx[0].reclaim(), 0);
    assert!(rig.world.chip.borrow().counts.refused >= 2);
    assert!(rig.port.control.read_events().memory_error);
    rig.world.memory.cut_off.set(false);
    rig.restart();
    rig.replenish();
    assert_eq!((rig.port.tx[0].reclaim(), rig.world.receive(&bytes)), (1, true));
}

#[test]
fn eight_hundred_chips_whose_registers_lie_neither_hang_nor_break_anything() {
    let mut opened = 0;
    for seed in 1..=800_u64 {
        let world = World::with_memory(Options::default(), 1 << 20);
        world.look_ns.set(2_000_000);
        world.lies.set((
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            [2, 20, 500, 5_000][seed as usize % 4],
        ));
        let area = memory::area(&world.memory, 1, 64);
        let clock = world.clock();
        let Ok(mut port) = open(&world, area, |config| config.queue_pairs = 2) else { continue };
        opened += 1;
        let _ = port.control.wait_for_link(&clock);
        let _ = (port.control.read_events(), *port.control.read_statistics());
        let _ = port.control.read_module(&clock);
        port.control.set_reta(3, 1).expect("both are there");
        port.control.commit(clock()).expect("none is under way");
        let _ = port.control.poll(clock());
        if let Ok(stopped) = port.control.reset(&clock) {
            port.tx.iter_mut().for_each(|queue| queue.rewind(&stopped));
            let _ = port.control.restart(stopped, &clock);
        }
        assert!(world.now.get() < 600_000_000_000, "every wait has its end");
        assert_eq!(world.chip.borrow().counts.refused, 0);
    }
    assert!(opened > 150, "{opened}");
}
