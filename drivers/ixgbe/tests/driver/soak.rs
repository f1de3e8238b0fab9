//! A seeded run of random traffic over driver and model: rings wrap, pools run dry, queues are left alone, groups move, the link
//! flaps, write-backs come late and in any order of queues, the port stops and starts. At the end every frame and every
//! buffer is accounted for. `IX_PROVE` makes it 10 million frames.
use crate::frames::{Flow, TCP, UDP, frame, sum_field, without_sum};
use crate::hostile::Random;
use crate::rig::{KEY, Rig, bytes};
use ix_dataplane::device::{
    BusAddr, Fragment, NicControl, NicRx, NicTx, RxBatch, RxFrame, RxQueue, TxChecksum, TxFrame,
    TxQueue,
};
use ix_dataplane::rss::Toeplitz;
use ix_ixgbe::{IxgbeRx, IxgbeTx, Progress};
use ix_model_ixgbe::Options;
use std::collections::VecDeque;

const FRAMES: u64 = 50_000;
const PROVE_FRAMES: u64 = 10_000_000;
const QUEUES: usize = 4;
/// Frames of each transmit queue that have memory of their own: more than the ring takes.
const SLOTS: u64 = 128;
const SLOT_BYTES: u64 = 2048;

#[derive(Default, Debug)]
struct Books {
    offered: u64,
    taken: u64,
    refused: u64,
    polled: u64,
    lost_rx: u64,
    pushed: u64,
    sent: u64,
    completed: u64,
    lost_tx: u64,
    restarts: u64,
    flaps: u64,
    moves: u64,
}

struct Soak {
    rig: Rig,
    random: Random,
    toeplitz: Toeplitz,
    /// What each receive queue has to give.
    expected: [VecDeque<Vec<u8>>; QUEUES],
    held: Vec<RxFrame>,
    slots: [u64; QUEUES],
    pushed: [u64; QUEUES],
    completed: [u64; QUEUES],
    sent: [u64; QUEUES],
    /// What each transmit queue has yet to send.
    leaving: [VecDeque<Vec<u8>>; QUEUES],
    books: Books,
}

impl Soak {
    fn new(seed: u64) -> Soak {
        let options = Options { link_delay_ns: 20_000, ..Options::default() };
        let rig = Rig::with_buffers(options, 320, |c| {
            (c.rx_ring, c.tx_ring) = (64, 64);
        });
        let memory = rig.world.memory.clone();
        let slots = || memory.take((SLOTS * SLOT_BYTES) as usize, 64).unwrap().bus.0;
        Soak {
            slots: std::array::from_fn(|_| slots()),
            rig,
            random: Random(seed | 1),
            toeplitz: Toeplitz::new(&KEY),
            expected: std::array::from_fn(|_| VecDeque::new()),
            held: Vec::new(),
            pushed: [0; QUEUES],
            completed: [0; QUEUES],
            sent: [0; QUEUES],
            leaving: std::array::from_fn(|_| VecDeque::new()),
            books: Books::default(),
        }
    }

    fn flow(&mut self) -> Flow {
        let word = self.random.next();
        let protocol = if word & 1 == 0 { TCP } else { UDP };
        Flow { v6: word & 2 != 0, protocol, source: 5, ports: [(word >> 8) as u16, 11211] }
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = if self.random.below(8) == 0 { 1440 } else { 100 };
        let len = self.random.below(most) as usize;
        let word = self.random.next();
        (0..len).map(|i| (word >> (8 * (i % 8))) as u8).collect()
    }

    fn queue(&mut self) -> usize {
        self.random.below(QUEUES as u64) as usize
    }

    fn arrive(&mut self) {
        for _ in 0..=self.random.below(40) {
            let flow = self.flow();
            let payload = self.payload();
            let mut bytes = frame(flow, &payload);
            let ([a, b], [sport, dport]) = (flow.addresses_v4(), flow.ports);
            let hash = if flow.v6 {
                let [a, b] = flow.addresses_v6();
                self.toeplitz.hash_v6(a, b, sport, dport)
            } else {
                self.toeplitz.hash_v4(a, b, sport, dport)
            };
            let queue = usize::from(self.rig.port.control.reta()[hash as usize % 128]);
            self.books.offered += 1;
            if self.rig.world.receive(&bytes) {
                bytes.resize(bytes.len().max(60), 0);
                self.books.taken += 1;
                self.expected[queue].push_back(bytes);
            } else {
                self.books.refused += 1;
            }
        }
    }

    fn poll(&mut self, queue: usize, max: usize) {
        let mut batch = RxBatch::new();
        self.rig.port.rx[queue].poll(max, &mut batch);
        for got in batch {
            let expected = self.expected[queue].pop_front().expect("a frame that came");
            assert_eq!(bytes(self.rig.area, &got), expected);
            assert!(got.hash.is_some());
            self.books.polled += 1;
            self.held.push(got);
        }
    }

    fn free_some(&mut self, keep: usize) {
        while self.held.len() > keep {
            let at = self.random.below(self.held.len() as u64) as usize;
            let frame = self.held.swap_remove(at);
            self.rig.pool.free(frame.mbuf);
            frame.rest.free(&mut self.rig.pool);
        }
    }

    /// Pushes a few frames of one to five pieces, some with a checksum to be filled in.
    fn push(&mut self, queue: usize) {
        for _ in 0..=self.random.below(30) {
            if self.pushed[queue] - self.completed[queue] >= SLOTS {
                return;
            }
            let flow = Flow { ports: [queue as u16, 7], ..self.flow() };
            let payload = self.payload();
            let wants = self.random.below(2) == 0;
            let whole = frame(flow, &payload);
            let given = if wants { without_sum(flow, &payload) } else { whole.clone() };
            let at = self.slots[queue] + self.pushed[queue] % SLOTS * SLOT_BYTES;
            self.rig.world.memory.store(at, &given);
            let frame = TxFrame {
                fragments: self.pieces(at, given.len() as u64),
                checksum: wants.then(|| {
                    let start = 14 + flow.l3();
                    let offset = (sum_field(flow) - start) as u16;
                    TxChecksum { start: start as u16, offset }
                }),
                gso: None,
            };
            if self.rig.port.tx[queue].push(&frame).is_err() {
                return;
            }
            self.pushed[queue] += 1;
            self.books.pushed += 1;
            self.leaving[queue].push_back(whole);
        }
    }

    fn pieces(
        &mut self,
        at: u64,
        len: u64,
    ) -> arrayvec::ArrayVec<Fragment, { ix_dataplane::limits::TX_FRAGS_MAX }> {
        let mut pieces = arrayvec::ArrayVec::new();
        let mut from = 0;
        while from < len {
            let left = len - from;
            let some = if pieces.len() == 4 { left } else { 1 + self.random.below(left) };
            pieces.push(Fragment { bus: BusAddr(at + from), len: some as u32 });
            from += some;
        }
        pieces
    }

    fn look_at_wire(&mut self) {
        for sent in self.rig.sent() {
            let port = if sent[12] == 0x86 { 54 } else { 34 };
            let queue = usize::from(sent[port + 1]);
            let expected = self.leaving[queue].pop_front().expect("a frame that was pushed");
            assert_eq!(sent, expected);
            self.sent[queue] += 1;
            self.books.sent += 1;
        }
    }

    fn reclaim(&mut self, queue: usize) {
        let done = u64::from(self.rig.port.tx[queue].reclaim());
        self.completed[queue] += done;
        self.books.completed += done;
        assert!(self.completed[queue] <= self.sent[queue], "complete before it has left");
    }

    fn move_group(&mut self) {
        let now = ix_dataplane::time::Instant(self.rig.world.now.get());
        let group = self.random.below(128) as u16;
        let target = self.queue() as u16;
        let control = &mut self.rig.port.control;
        match control.poll(now) {
            Progress::Pending => {}
            Progress::Failed(error) => panic!("{error}"),
            Progress::Idle | Progress::Done => {
                control.set_reta(group, target).expect("both are there");
                control.commit(now).expect("none is under way");
                self.books.moves += 1;
            }
        }
    }

    /// Stops the port with all that is under way, and starts it again.
    fn restart(&mut self) {
        let clock = self.rig.world.clock();
        // The table as staged is the table after the start.
        let stopped = self.rig.port.control.reset(&clock).expect("it resets");
        self.look_at_wire();
        for queue in 0..QUEUES {
            while self.rig.port.rx[queue].has_frames() {
                self.poll(queue, 64);
            }
            self.books.lost_rx += self.expected[queue].len() as u64;
            self.expected[queue].clear();
            let lost = self.leaving[queue].len() as u64;
            self.leaving[queue].clear();
            self.books.lost_tx += lost;
            self.sent[queue] += lost;
            self.rig.port.rx[queue].rewind(&stopped, &mut self.rig.pool);
            self.rig.port.tx[queue].rewind(&stopped);
        }
        self.rig.assert_conserved(self.held.len());
        self.rig.port.control.restart(stopped, &clock).expect("it starts again");
        self.rig.port.rx.iter_mut().for_each(IxgbeRx::restarted);
        self.rig.port.tx.iter_mut().for_each(IxgbeTx::restarted);
        self.rig.port.control.wait_for_link(&clock).expect("the link comes up");
        self.books.restarts += 1;
    }

    fn step(&mut self) {
        let queue = self.queue();
        match self.random.below(1000) {
            0..120 => self.arrive(),
            120..350 => {
                let max = self.random.below(100) as usize;
                self.poll(queue, max);
            }
            350..550 => self.rig.port.rx[queue].replenish(&mut self.rig.pool),
            550..750 => {
                self.push(queue);
                if self.random.below(4) > 0 {
                    self.rig.port.tx[queue].kick();
                    self.look_at_wire();
                }
            }
            750..850 => self.reclaim(queue),
            850..900 => {
                let keep = self.random.below(200) as usize;
                self.free_some(keep);
            }
            900..970 => {
                let time = self.random.below(60_000);
                self.rig.world.advance(time);
                self.look_at_wire();
            }
            970..995 => self.move_group(),
            995..998 => {
                let delay = [0, 0, 2_000, 80_000][queue];
                self.rig.world.chip.borrow_mut().faults.write_back_delay_ns = delay;
            }
            998 => {
                let time = self.random.below(100_000);
                self.rig.world.chip.borrow_mut().flap_link(time);
                self.books.flaps += 1;
            }
            _ => {
                if self.random.below(4) == 0 {
                    self.restart();
                }
            }
        }
    }

    /// Lets all that is under way come to its end.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.rig.world.advance(10_000_000);
            for queue in 0..QUEUES {
                self.rig.port.tx[queue].kick();
                self.look_at_wire();
                self.reclaim(queue);
                self.poll(queue, 1000);
            }
        }
        self.free_some(0);
        self.rig.replenish();
        self.rig.assert_conserved(0);
    }

    fn audit(&mut self) {
        let statistics = *self.rig.port.control.read_statistics();
        let counts = self.rig.world.chip.borrow().counts;
        let books = &self.books;
        assert!(self.expected.iter().all(VecDeque::is_empty));
        assert!(self.leaving.iter().all(VecDeque::is_empty));
        assert_eq!(books.offered, books.taken + books.refused);
        assert_eq!(books.taken, books.polled + books.lost_rx);
        let told = statistics.rx_no_descriptor
            + statistics.rx_missed
            + counts.dropped_link_down
            + counts.dropped_disabled;
        assert_eq!(books.refused, told, "every drop has a counter");
        assert_eq!(statistics.rx_good, books.taken + statistics.rx_no_descriptor);
        assert_eq!(books.pushed, books.sent + books.lost_tx);
        assert_eq!(books.pushed, books.completed);
        assert_eq!(statistics.tx_good, books.sent);
        self.rig.assert_clean();
        let errors: u64 = self.rig.port.rx.iter().map(RxQueue::device_errors).sum();
        assert_eq!(errors, 0);
    }
}

#[test]
fn every_frame_and_every_buffer_of_a_long_run_is_accounted_for() {
    let prove = std::env::var_os("IX_PROVE").is_some();
    let seeds = if prove { 20 } else { 5 };
    let frames = if prove { PROVE_FRAMES } else { FRAMES } / seeds;
    let mut all = 0;
    for seed in 0..seeds {
        let mut soak = Soak::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        while soak.books.offered + soak.books.pushed < frames {
            soak.step();
        }
        soak.settle();
        soak.audit();
        let books = &soak.books;
        all += books.offered + books.pushed;
        println!("seed {seed}: {books:?}");
        assert!(books.polled > frames / 10 && books.sent > frames / 10);
        assert!(books.refused > 0 && books.moves > 0 && books.flaps > 0);
    }
    println!("{all} frames");
}
