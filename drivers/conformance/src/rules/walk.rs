//! Everything at once, by seed, with every frame and buffer accounted for.
use crate::frames::{Flow, frame, number_of, numbered, without_sum};
use crate::rig::Got;
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{
    Fragment, NicControl, NicRx, NicTx, Progress, RxChecksum, RxQueue, TxFrame, TxQueue,
};
use ix_dataplane::limits::TX_FRAGS_MAX;
use ix_dataplane::rng::Rng;
use std::collections::VecDeque;

const SEEDS: u64 = 6;
/// Frames of a seed, in both directions.
const FRAMES: u64 = 12_000;
/// Places for frames to transmit, of each queue; more than a ring has.
const PLACES: u64 = 256;
const PLACE_BYTES: usize = 2048;

struct Walk<B: Bench> {
    rig: Rig<B>,
    rng: Rng,
    held: Vec<Got>,
    /// By queue: frames that came and were not polled.
    expected: Vec<VecDeque<Vec<u8>>>,
    /// By queue: frames that were pushed and have not left.
    leaving: Vec<VecDeque<Vec<u8>>>,
    places: Vec<Vec<ix_dataplane::device::BusAddr>>,
    /// By queue: frames pushed, left (or lost) and complete.
    pushed: Vec<u64>,
    left: Vec<u64>,
    completed: Vec<u64>,
    moving: bool,
    came: u64,
    numbers: u32,
    /// What has happened: refused, moves, restarts, full rings.
    happened: [u64; 4],
}

/// What a random walk of arrivals, polls, pushes, kicks, late completions, moves of groups and restarts comes to.
pub fn a_random_walk_accounts_for_every_frame_and_buffer<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut happened = [0; 4];
    for seed in 0..SEEDS {
        let mut walk = Walk::new(make, seed);
        while walk.came + walk.pushed.iter().sum::<u64>() < FRAMES {
            walk.step();
        }
        for (sum, count) in happened.iter_mut().zip(walk.happened) {
            *sum += count;
        }
        walk.end();
    }
    let [refused, moves, restarts, full] = happened;
    assert!(refused > 0 && restarts > 0 && full > 0, "too little has happened: {happened:?}");
    println!("refused {refused}, moves {moves}, restarts {restarts}, full rings {full}");
    Verdict::Kept
}

impl<B: Bench> Walk<B> {
    fn new(make: &Make<'_, B>, seed: u64) -> Walk<B> {
        let mut rng = Rng::from_seed(seed);
        let pairs = 1 + rng.below(4) as u16;
        let rx_ring = 32 << rng.below(3);
        let wishes = Wishes { pairs, rx_ring, tx_ring: 64, mtu: 1500, buffers: 512 };
        let mut rig = Rig::ready(make, wishes);
        let queues = rig.rx.len();
        let place = |rig: &mut Rig<B>| rig.device.memory(PLACE_BYTES);
        let places = (0..queues).map(|_| (0..PLACES).map(|_| place(&mut rig)).collect()).collect();
        Walk {
            rig,
            rng,
            held: Vec::new(),
            expected: vec![VecDeque::new(); queues],
            leaving: vec![VecDeque::new(); queues],
            places,
            pushed: vec![0; queues],
            left: vec![0; queues],
            completed: vec![0; queues],
            moving: false,
            came: 0,
            numbers: 0,
            happened: [0; 4],
        }
    }

    fn queue(&mut self) -> usize {
        self.rng.below(self.rig.rx.len() as u64) as usize
    }

    fn flow(&mut self) -> Flow {
        let word = self.rng.next_u32();
        Flow { ports: [(word >> 8) as u16, 11211], ..Flow::any(word as u16) }
    }

    fn len(&mut self) -> usize {
        let most = if self.rng.below(8) == 0 { 1400 } else { 100 };
        80 + self.rng.below(most) as usize
    }

    fn arrive(&mut self) {
        for _ in 0..=self.rng.below(40) {
            let (flow, len) = (self.flow(), self.len());
            self.numbers += 1;
            let bytes = numbered(flow, self.numbers, len);
            let queue = if self.rig.capabilities.rss { self.rig.queue_of(flow) } else { 0 };
            self.came += 1;
            if !self.rig.device.deliver(&bytes) {
                self.happened[0] += 1;
            } else {
                self.expected[queue].push_back(bytes);
            }
        }
    }

    fn poll(&mut self, queue: usize, max: usize) {
        for got in self.rig.poll(queue, max) {
            let expected = self.expected[queue].pop_front().expect("a frame that came");
            assert!(got.bytes == expected, "frame {} comes as it was", number_of(&expected));
            assert!(!self.rig.capabilities.hash_report || got.frame.hash.is_some());
            let good = got.frame.checksum == RxChecksum::Good;
            assert_eq!(good, self.rig.capabilities.rx_checksum);
            self.held.push(got);
        }
    }

    fn free_some(&mut self, keep: usize) {
        while self.held.len() > keep {
            let at = self.rng.below(self.held.len() as u64) as usize;
            let got = self.held.swap_remove(at);
            self.rig.free([got]);
        }
    }

    fn push(&mut self, queue: usize) {
        for _ in 0..=self.rng.below(40) {
            if self.pushed[queue] - self.completed[queue] >= PLACES {
                return;
            }
            let (flow, len) = (self.flow(), self.len());
            // Told apart on the wire by our port.
            let flow = Flow { ports: [queue as u16, flow.ports[0]], ..flow };
            let payload = vec![self.pushed[queue] as u8; len - flow.headers()];
            let asks = self.rig.capabilities.tx_checksum && self.rng.below(2) == 0;
            let whole = frame(flow, &payload);
            let given = if asks { without_sum(flow, &payload) } else { whole.clone() };
            let at = self.places[queue][(self.pushed[queue] % PLACES) as usize];
            self.rig.device.write(at, &given);
            let mut frame =
                TxFrame { checksum: asks.then(|| flow.checksum()), ..TxFrame::default() };
            let (mut from, mut left) = (0, given.len() as u64);
            let pieces = 1 + self.rng.below(TX_FRAGS_MAX as u64) as usize;
            while left > 0 {
                let all = frame.fragments.len() + 1 >= pieces;
                // The first holds the headers.
                let least = if from == 0 { flow.headers() as u64 } else { 1 };
                let some = if all { left } else { least + self.rng.below(left - least + 1) };
                frame.fragments.push(Fragment { bus: at.offset(from), len: some as u32 });
                (from, left) = (from + some, left - some);
            }
            if self.rig.tx[queue].push(&frame).is_err() {
                self.happened[3] += 1;
                return;
            }
            self.pushed[queue] += 1;
            self.leaving[queue].push_back(whole);
        }
    }

    fn look_at_wire(&mut self) {
        for sent in self.rig.device.sent() {
            let port = if sent[12] == 0x86 { 54 } else { 34 };
            let queue = usize::from(sent[port + 1]);
            let expected = self.leaving[queue].pop_front().expect("a frame that was pushed");
            assert!(sent == expected, "it leaves as it was pushed");
            self.left[queue] += 1;
        }
    }

    fn reclaim(&mut self, queue: usize) {
        self.completed[queue] += u64::from(self.rig.tx[queue].reclaim());
        assert!(self.completed[queue] <= self.left[queue], "complete before it has left");
        let in_flight = self.pushed[queue] - self.completed[queue];
        assert_eq!(u64::from(self.rig.tx[queue].in_flight()), in_flight);
    }

    /// Moves a group, and lets no frame come meanwhile, so that the walk knows where each goes.
    fn move_group(&mut self) {
        if !self.rig.capabilities.rss {
            return;
        }
        let group = self.rng.below(u64::from(self.rig.capabilities.groups)) as u16;
        let queue = self.queue() as u16;
        let clock = self.rig.device.clock();
        self.rig.control.set_reta(group, queue).expect("both exist");
        self.rig.control.commit(clock()).expect("no change is under way");
        self.moving = true;
        self.happened[1] += 1;
    }

    fn follow_move(&mut self) {
        let clock = self.rig.device.clock();
        match self.rig.control.poll(clock()) {
            Progress::Pending => {
                self.rig.device.settle();
                self.look_at_wire();
            }
            Progress::Done => self.moving = false,
            other => panic!("the change of the table: {other:?}"),
        }
    }

    fn restart(&mut self) {
        self.look_at_wire();
        self.rig.device.hold(false);
        let stopped = self.rig.stop();
        self.moving = false;
        self.look_at_wire();
        for queue in 0..self.rig.rx.len() {
            while self.rig.rx[queue].has_frames() {
                self.poll(queue, 64);
            }
            // What was on its way through the device is lost, and nothing else.
            self.expected[queue].clear();
            self.left[queue] += self.leaving[queue].len() as u64;
            self.leaving[queue].clear();
        }
        self.rig.rewind(&stopped);
        self.rig.assert_conserved(self.held.len());
        self.rig.start(stopped);
        for queue in 0..self.rig.tx.len() {
            self.reclaim(queue);
            assert_eq!(self.completed[queue], self.pushed[queue]);
        }
        self.happened[2] += 1;
    }

    fn step(&mut self) {
        let queue = self.queue();
        match self.rng.below(1000) {
            0..120 if !self.moving => self.arrive(),
            120..350 => {
                let max = self.rng.below(100) as usize;
                self.poll(queue, max);
            }
            350..550 => self.rig.rx[queue].replenish(&mut self.rig.pool),
            550..750 => {
                self.push(queue);
                if self.rng.below(4) > 0 {
                    self.rig.tx[queue].kick();
                    self.look_at_wire();
                }
            }
            750..850 => self.reclaim(queue),
            850..900 => {
                let keep = self.rng.below(300) as usize;
                self.free_some(keep);
            }
            900..960 => {
                self.rig.device.settle();
                self.look_at_wire();
            }
            960..980 if !self.moving => self.move_group(),
            980..990 => {
                let on = self.rng.below(2) == 0;
                self.rig.device.hold(on);
            }
            990..994 => self.restart(),
            994..997 => {
                self.rig.rx[queue].arm_interrupt();
            }
            997..1000 => self.rig.rx[queue].disarm_interrupt(),
            _ => self.follow_move(),
        }
        self.rig.assert_conserved(self.held.iter().map(|got| self.buffers(got)).sum());
    }

    fn buffers(&self, got: &Got) -> usize {
        1 + got.frame.rest.pieces(self.rig.area).count()
    }

    /// Lets all that is under way come to its end.
    fn end(mut self) {
        self.rig.device.hold(false);
        for _ in 0..4 {
            for queue in 0..self.rig.tx.len() {
                self.rig.tx[queue].kick();
                self.rig.device.settle();
                self.look_at_wire();
                self.reclaim(queue);
                self.poll(queue, 1000);
                self.rig.rx[queue].disarm_interrupt();
            }
        }
        self.free_some(0);
        assert!(self.expected.iter().all(VecDeque::is_empty), "frames that came are lost");
        assert!(self.leaving.iter().all(VecDeque::is_empty), "frames that were pushed are lost");
        assert_eq!(self.completed, self.pushed);
        self.rig.finish();
    }
}
