//! The card under real cores: each has a queue pair, sends flows to all others, sleeps until an interrupt when it has nothing to
//! do, and the table changes meanwhile. No frame is lost, none comes twice or overtakes another of its flow, no core sleeps over its
//! frames, and every buffer comes home.
use ix_abi::CoreId;
use ix_dataplane::device::{
    BusAddr, Fragment, NicControl, NicRx, NicTx, Progress, RxBatch, RxChecksum, RxQueue, TxFrame,
    TxQueue,
};
use ix_dataplane::mbuf::Pool;
use ix_dataplane::rng::Rng;
use ix_dataplane::rss::{Toeplitz, group_of};
use ix_dataplane::time::Instant;
use ix_driver_conformance::frames::{Flow, number_of, numbered};
use ix_driver_conformance::in_memory::Memory;
use ix_driver_conformance::{KEY, frames};
use ix_loopback::{Config, Host, LoopbackControl, LoopbackRx, LoopbackTx, open};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant as Time};

const CORES: usize = 4;
const FLOWS: usize = 16;
const BUFFERS: u32 = 1024;
/// Whoever sleeps for longer has missed an interrupt.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// Frames under way at most, by all cores: fewer than a lane has buffers, with what each may add that has looked.
const UNDER_WAY: u64 = 40;
/// All of it takes no longer.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Frames that may be sent, by the upper half of an address; nobody changes them.
struct Machine {
    frames: Vec<Vec<u8>>,
    threads: Vec<OnceLock<Thread>>,
    interrupts: AtomicU64,
    start: Time,
    /// Frames that were sent, and those that came.
    sent: AtomicU64,
    came: AtomicU64,
}

#[derive(Clone)]
struct Shared(Arc<Machine>);

impl Host for Shared {
    fn read(&self, from: BusAddr, to: &mut [u8]) -> bool {
        let (frame, at) = ((from.0 >> 32) as usize, (from.0 & 0xffff_ffff) as usize);
        let bytes = self.0.frames.get(frame).and_then(|frame| frame.get(at..at + to.len()));
        bytes.map(|bytes| to.copy_from_slice(bytes)).is_some()
    }

    fn interrupt(&self, queue: u16) {
        self.0.interrupts.fetch_add(1, Ordering::Relaxed);
        if let Some(thread) = self.0.threads[usize::from(queue)].get() {
            thread.unpark();
        }
    }

    fn now(&self) -> u64 {
        self.0.start.elapsed().as_nanos() as u64
    }

    fn settle(&self) {
        fence(Ordering::SeqCst);
        let start = Time::now();
        while start.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
    }
}

/// The flow's own number is in its ports.
fn flow(core: usize, number: usize) -> Flow {
    Flow { ports: [(1000 + core * FLOWS + number) as u16, 11211], ..Flow::tcp(0) }
}

struct Core {
    index: usize,
    rx: LoopbackRx<Shared>,
    tx: LoopbackTx<Shared>,
    pool: Pool,
    /// Frames to be sent: their places in the machine.
    to_send: Vec<(usize, usize)>,
    /// By flow: the last number that came here.
    last: BTreeMap<u16, u32>,
    received: u64,
    sent: u64,
    slept: u64,
    machine: Arc<Machine>,
}

impl Core {
    fn receive(&mut self) -> bool {
        let mut batch = RxBatch::new();
        self.rx.poll(64, &mut batch);
        let any = !batch.is_empty();
        for frame in batch {
            let start = usize::from(frame.offset);
            let bytes = &self.pool.area().data(&frame.mbuf)[start..start + usize::from(frame.len)];
            assert_eq!(frame.checksum, RxChecksum::Good, "nobody has changed it");
            let port = u16::from_be_bytes([bytes[34], bytes[35]]);
            let number = number_of(bytes);
            let flow = Flow { ports: [port, 11211], ..Flow::tcp(0) };
            assert!(bytes == numbered(flow, number, bytes.len()), "flow {port}, frame {number}");
            // A flow may come back to a queue; what it has brought before it does not bring again.
            let last = self.last.insert(port, number);
            assert!(last.is_none_or(|last| last < number), "flow {port}: {last:?}, then {number}");
            self.received += 1;
            self.machine.came.fetch_add(1, Ordering::Relaxed);
            self.pool.free(frame.mbuf);
        }
        self.rx.replenish(&mut self.pool);
        any
    }

    fn send(&mut self, most: usize) {
        for _ in 0..most {
            let came = self.machine.came.load(Ordering::Relaxed);
            if self.machine.sent.load(Ordering::Relaxed).saturating_sub(came) >= UNDER_WAY {
                break;
            }
            let Some((index, len)) = self.to_send.pop() else { break };
            let mut frame = TxFrame::default();
            let bus = BusAddr((index as u64) << 32);
            frame.fragments.push(Fragment { bus, len: 54 });
            frame.fragments.push(Fragment { bus: bus.offset(54), len: len as u32 - 54 });
            if self.tx.push(&frame).is_err() {
                self.to_send.push((index, len));
                break;
            }
            self.sent += 1;
            self.machine.sent.fetch_add(1, Ordering::Relaxed);
        }
        self.tx.kick();
        self.tx.reclaim();
    }

    /// Until `end`, with naps.
    fn run(&mut self, end: &AtomicBool, done: &AtomicU64) {
        let mut rng = Rng::from_seed(self.index as u64);
        let mut told = false;
        let start = Time::now();
        while !end.load(Ordering::Relaxed) {
            assert!(start.elapsed() < 2 * TIME_MAX, "nobody ends it");
            let busy = self.receive();
            self.send(rng.below(20) as usize);
            if self.to_send.is_empty() && !told {
                told = true;
                done.fetch_add(1, Ordering::Relaxed);
            }
            // A nap now and then, also in the middle: others go on sending.
            if !busy && (told || rng.below(4) == 0) {
                self.nap(end);
            }
        }
    }

    fn nap(&mut self, end: &AtomicBool) {
        let start = Time::now();
        if !self.rx.arm_interrupt() && !end.load(Ordering::Relaxed) {
            self.slept += 1;
            // Who still has something to send is woken by the clock.
            let most = if self.to_send.is_empty() { SLEEP_MAX } else { Duration::from_micros(50) };
            std::thread::park_timeout(most);
            let missed = start.elapsed() >= SLEEP_MAX && self.rx.has_frames();
            assert!(!missed, "core {} has slept over its frames", self.index);
        }
        self.rx.disarm_interrupt();
    }
}

struct Rig {
    cores: Vec<Core>,
    control: LoopbackControl<Shared>,
    machine: Arc<Machine>,
}

fn rig(frames_of_a_flow: usize) -> Rig {
    let area = Memory::new(Memory::bytes_of(BUFFERS * CORES as u32)).area(CORES as u16, BUFFERS);
    let mut all = Vec::new();
    let mut to_send: Vec<Vec<(usize, usize)>> = vec![Vec::new(); CORES];
    for number in (0..frames_of_a_flow).rev() {
        for (core, to_send) in to_send.iter_mut().enumerate() {
            for index in 0..FLOWS {
                let len = frames::FRAME_MIN + (number * 31 + index) % 900;
                to_send.push((all.len(), len));
                all.push(numbered(flow(core, index), number as u32, len));
            }
        }
    }
    let threads = (0..CORES).map(|_| OnceLock::new()).collect();
    let (interrupts, start) = (AtomicU64::new(0), Time::now());
    let [sent, came] = [AtomicU64::new(0), AtomicU64::new(0)];
    let machine = Arc::new(Machine { frames: all, threads, interrupts, start, sent, came });
    let port = open(&Config {
        host: Shared(Arc::clone(&machine)),
        area,
        queue_pairs: CORES as u16,
        rx_ring: 512,
        tx_ring: 64,
        rss_key: KEY,
        mtu: None,
    });
    let queues = port.rx.into_iter().zip(port.tx).zip(to_send).enumerate();
    let cores = queues.map(|(index, ((rx, tx), to_send))| {
        let pool = Pool::new(area, CoreId(index as u16));
        let (last, machine) = (BTreeMap::new(), Arc::clone(&machine));
        let mut core =
            Core { index, rx, tx, pool, to_send, last, received: 0, sent: 0, slept: 0, machine };
        core.rx.replenish(&mut core.pool);
        core
    });
    Rig { cores: cores.collect(), control: port.control, machine }
}

/// Runs all cores until they have sent everything, with `meanwhile` beside them; and a moment longer.
fn run(rig: &mut Rig, mut meanwhile: impl FnMut(&mut LoopbackControl<Shared>)) {
    let (end, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = AtomicU64::new(0);
    let Rig { cores, control, machine } = rig;
    std::thread::scope(|scope| {
        for core in cores.iter_mut() {
            let (end, done, started, machine) = (&end, &done, &started, &machine);
            scope.spawn(move || {
                machine.threads[core.index].get_or_init(std::thread::current);
                started.fetch_add(1, Ordering::Relaxed);
                core.run(end, done);
            });
        }
        let start = Time::now();
        while done.load(Ordering::Relaxed) < CORES as u64 {
            assert!(start.elapsed() < TIME_MAX, "it does not end");
            meanwhile(control);
        }
        // All that is in the rings is taken: a wake-up that were lost would show.
        std::thread::sleep(Duration::from_millis(50));
        end.store(true, Ordering::Relaxed);
        machine.threads.iter().filter_map(OnceLock::get).for_each(Thread::unpark);
    });
    // What is left, by whoever has it.
    for core in cores {
        while core.receive() {}
    }
}

fn clock() -> impl Fn() -> Instant {
    let start = Time::now();
    move || Instant(start.elapsed().as_nanos() as u64)
}

/// All books are right, and all buffers come home.
fn close(mut rig: Rig) {
    let sum = |get: fn(&Core) -> u64| rig.cores.iter().map(get).sum::<u64>();
    let (sent, received, lost) = (sum(|c| c.sent), sum(|c| c.received), sum(|c| c.tx.lost()));
    let interrupts = rig.machine.interrupts.load(Ordering::Relaxed);
    println!(
        "{sent} sent, {received} received, {lost} lost, {} naps, {interrupts} interrupts",
        sum(|c| c.slept)
    );
    assert_eq!((sent, lost), (received, 0), "each frame once");
    assert_eq!(rig.control.poll_missed(), 0);
    assert!(sum(|c| c.slept) > 0 && interrupts > 0);
    let stopped = rig.control.reset(&clock()).expect("it stops");
    for core in &mut rig.cores {
        core.rx.rewind(&stopped, &mut core.pool);
        core.tx.rewind(&stopped);
        assert_eq!((core.pool.available(), core.rx.held()), (core.pool.capacity(), 0));
        assert_eq!(core.tx.in_flight(), 0);
    }
}

#[test]
fn cores_that_sleep_send_and_receive_lose_nothing() {
    let mut rig = rig(400);
    run(&mut rig, |_| std::thread::sleep(Duration::from_millis(1)));
    close(rig);
}

/// Flows come to other queues all the time: each frame comes to one, and in each they keep their order.
#[test]
fn the_table_changes_while_all_send() {
    let mut rig = rig(400);
    let (toeplitz, clock) = (Toeplitz::new(&KEY), clock());
    let mut rng = Rng::from_seed(9);
    let changes = Mutex::new(0);
    run(&mut rig, |control| {
        let flow = flow(rng.below(CORES as u64) as usize, rng.below(FLOWS as u64) as usize);
        let group = group_of(flow.hash(&toeplitz), 128).0;
        let to = rng.below(CORES as u64) as u16;
        control.set_reta(group, to).expect("both exist");
        control.commit(clock()).expect("no change is under way");
        let start = Time::now();
        loop {
            match control.poll(clock()) {
                Progress::Done => break,
                Progress::Pending => assert!(start.elapsed() < Duration::from_secs(10)),
                other => panic!("{other:?}"),
            }
        }
        *changes.lock().expect("one thread") += 1;
        std::thread::yield_now();
    });
    println!("{} changes of the table", changes.into_inner().expect("one thread"));
    close(rig);
}

/// Three cores send the frames of one flow by turns, each after it has heard that the one before has: as when a group moves. To the
/// receiver, which has a lane from each, they come in order.
#[test]
fn a_flow_whose_sender_changes_is_not_overtaken_by_itself() {
    const FRAMES: u32 = 3000;
    const RECEIVER: usize = CORES - 1;
    let mut rig = rig(FRAMES as usize);
    let (clock, toeplitz) = (clock(), Toeplitz::new(&KEY));
    let flow = flow(0, 0);
    let group = group_of(flow.hash(&toeplitz), 128).0;
    rig.control.set_reta(group, RECEIVER as u16).expect("both exist");
    rig.control.commit(clock()).expect("no change is under way");
    assert_eq!(rig.control.poll(clock()), Progress::Done);
    let is_its = |frame: &(usize, &Vec<u8>)| frame.1[34..36] == flow.ports[0].to_be_bytes();
    let mut places: Vec<(u32, usize, usize)> = (rig.machine.frames.iter().enumerate())
        .filter(is_its)
        .map(|(place, frame)| (number_of(frame), place, frame.len()))
        .collect();
    places.sort_unstable();
    let mut last = rig.cores.pop().expect("the receiver");
    // The number of the frame whose turn it is.
    let turn = AtomicU64::new(0);
    let start = Time::now();
    std::thread::scope(|scope| {
        for core in &mut rig.cores {
            let (turn, places) = (&turn, &places);
            core.to_send.clear();
            scope.spawn(move || {
                for (number, place, len) in places.iter().skip(core.index).step_by(RECEIVER) {
                    while turn.load(Ordering::Acquire) != u64::from(*number) {
                        assert!(start.elapsed() < TIME_MAX, "it does not end");
                        std::thread::yield_now();
                    }
                    core.to_send.push((*place, *len));
                    while !core.to_send.is_empty() {
                        assert!(start.elapsed() < TIME_MAX, "it does not end");
                        core.send(1);
                        std::thread::yield_now();
                    }
                    turn.store(u64::from(*number) + 1, Ordering::Release);
                }
            });
        }
        while turn.load(Ordering::Acquire) < u64::from(FRAMES) {
            assert!(start.elapsed() < TIME_MAX, "it does not end");
            // Slowly, so that several lanes have some; it asserts the order.
            std::thread::sleep(Duration::from_micros(100));
            last.receive();
        }
    });
    while last.receive() {}
    let lost: u64 = rig.cores.iter().map(|core| core.tx.lost()).sum();
    assert_eq!((last.received, lost), (u64::from(FRAMES), 0));
}
