//! Frames that the card's MAC leads back: from each queue, of all sizes, to the right queue, with the right hash and verdict.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Arguments;
use core::sync::atomic::Ordering;

use ix_dataplane::device::{NicControl, RxChecksum, RxFrame, RxQueue, TxChecksum, TxQueue};
use ix_ixgbe::Statistics;
use ix_kernel_core::nictest::{
    DESTINATION, Difference, Frame, LEN_MAX, LEN_MIN, PORT, SOURCE, Sum, UDP_START, UDP_SUM_OFFSET,
    number_of,
};
use x86_64::instructions::interrupts;

use super::bench::{Bench, SLOTS};
use super::{Report, clock, ixgbe};
use crate::cpu::percore;
use crate::cpu::trap::VECTOR_DEVICE_FIRST;
use crate::pci::Function;
use crate::pci::msix::Msix;
use crate::{apic, time};

/// What a batch may take to come back: with a model in another program as the card it takes its time.
const BATCH_NS: u64 = 2_000_000_000;
/// How long each speed is measured.
const SPEED_NS: u64 = 300_000_000;
/// What an interrupt may take.
const INTERRUPT_NS: u64 = 500_000_000;
/// After which no interrupt comes any more that is of something before; and how often one may.
const SETTLE_NS: u64 = 20_000_000;
const SETTLE_TIMES: u32 = 50;
/// Frames that are under way while the speed is measured: fewer than a receive ring has descriptors.
const SPEED_WINDOW: u64 = 256;
/// From a frame's port to the next one's. Any few frames differ in all bits of it: the hash is linear, and of ports that differ in
/// few bits one key in many has all for one queue.
const PORT_STEP: u32 = 0x9e37;
/// Flows that each queue is looked for among.
const FLOWS: u16 = 512;

/// The card leads frames back from now on. `false`: it cannot.
pub fn begin(bench: &mut Bench) -> bool {
    // What the wire brought until now is not of the test.
    let begun = ixgbe(&mut bench.control).is_some_and(|c| c.set_loopback(true, &clock));
    let until = time::now_ns() + BATCH_NS;
    while bench.poll(|_, _, _| {}) > 0 && time::now_ns() < until {}
    begun
}

/// And as before; the port starts anew, and the link has to come up again if it was.
pub fn end(bench: &mut Bench) -> Result<String, String> {
    let c = ixgbe(&mut bench.control).ok_or("another card")?;
    c.set_loopback(false, &clock);
    bench.restart(|_, _| Ok(()))?;
    let c = ixgbe(&mut bench.control).ok_or("another card")?;
    Ok(match c.wait_for_link(&clock) {
        Ok(_) => "the port works again, and its link is up".into(),
        Err(_) => "the port works again, without a link".into(),
    })
}

/// All items that need it.
pub fn items(report: &mut Report, f: &Function, bench: &mut Bench) {
    let before = statistics(bench);
    (bench.sent, bench.sent_bytes) = (0, 0);
    let mut spread = vec![0_u64; bench.rx.len()];
    let mut number = 0;
    let mut sound = true;
    for queue in 0..bench.tx.len() {
        let item = format!("loopback {queue}");
        let gone = all_sizes(bench, queue, Sum::Right, (1, &mut number), &mut spread);
        sound &= gone.is_ok();
        report.outcome(&item, &gone);
    }
    report.outcome("rss", &every_queue(&spread));
    let filled = all_sizes(bench, 0, Sum::Pseudo, (13, &mut number), &mut spread)
        .map(|text| format!("filled in by the card: {text}"));
    report.outcome("checksum tx", &filled);
    let seen = all_sizes(bench, 0, Sum::Wrong, (13, &mut number), &mut spread)
        .map(|text| format!("wrong ones are seen: {text}"));
    report.outcome("checksum rx", &seen);
    vectors(report, f, bench);
    for len in [LEN_MIN, LEN_MAX] {
        let item = format!("speed {}", len + 4);
        report.outcome(&item, &speed(bench, len));
    }
    let after = statistics(bench);
    report.outcome("statistics", &compare(bench, &before, &after, sound));
}

fn statistics(bench: &mut Bench) -> Statistics {
    ixgbe(&mut bench.control).map_or_else(Statistics::default, |c| *c.read_statistics())
}

/// The registers against what was sent, all of which should have come back.
fn compare(
    bench: &Bench,
    from: &Statistics,
    to: &Statistics,
    sound: bool,
) -> Result<String, String> {
    let pairs = [
        ("frames sent", to.tx_good - from.tx_good, bench.sent),
        ("bytes sent", to.tx_good_bytes - from.tx_good_bytes, bench.sent_bytes),
        ("frames received", to.rx_good - from.rx_good, bench.sent),
        ("bytes received", to.rx_good_bytes - from.rx_good_bytes, bench.sent_bytes),
    ];
    match pairs.iter().find(|(_, counted, meant)| counted != meant) {
        Some((what, counted, meant)) => {
            let hint = if sound { "" } else { " (frames were lost or changed, see above)" };
            Err(format!("{what}: the card counted {counted}, {meant} were{hint}"))
        }
        None => {
            Ok(format!("{} frames and {} bytes each way, as sent", bench.sent, bench.sent_bytes))
        }
    }
}

/// Sends frames of sizes from the smallest to the largest, each `step`th, and looks at each that comes back.
fn all_sizes(
    bench: &mut Bench,
    queue: usize,
    sum: Sum,
    (step, number): (usize, &mut u32),
    spread: &mut [u64],
) -> Result<String, String> {
    let sizes: Vec<usize> = (LEN_MIN..=LEN_MAX).step_by(step).collect();
    for lens in sizes.chunks(SLOTS) {
        let frames: Vec<Frame> = lens
            .iter()
            .map(|len| {
                *number += 1;
                let port = 1024 + (number.wrapping_mul(PORT_STEP) % 0x7fff) as u16;
                Frame { mac: bench.mac, number: *number, port, len: *len }
            })
            .collect();
        exchange(bench, queue, &frames, sum, spread)?;
    }
    Ok(format!(
        "{} frames of {LEN_MIN} to {LEN_MAX} bytes came back as they were sent",
        sizes.len()
    ))
}

/// What is to be said of a batch's frames.
struct Watch<'a> {
    frames: &'a [Frame],
    /// Where each is to come: queue, hash.
    meant: Vec<(usize, u32)>,
    came: Vec<bool>,
    sum: Sum,
    trouble: Option<String>,
}

impl Watch<'_> {
    fn see(&mut self, queue: usize, frame: &RxFrame, bytes: &[u8]) {
        let found = number_of(bytes)
            .and_then(|number| number.checked_sub(self.frames[0].number).map(|i| i as usize));
        let Some(i) = found.filter(|i| *i < self.frames.len()) else {
            return self
                .complain(format_args!("a frame of {} bytes came that was not sent", bytes.len()));
        };
        let len = self.frames[i].len;
        if core::mem::replace(&mut self.came[i], true) {
            return self.complain(format_args!("a frame of {len} bytes came twice"));
        }
        let mut sent = [0; LEN_MAX];
        // What the card fills in is to be right.
        let sum = if self.sum == Sum::Wrong { Sum::Wrong } else { Sum::Right };
        self.frames[i].write(&mut sent, sum);
        if let Some(difference) = Difference::between(&sent[..len], bytes) {
            return self.complain(format_args!("a frame of {len} bytes: {difference}"));
        }
        let (meant, hash) = self.meant[i];
        if frame.hash != Some(hash) {
            return self
                .complain(format_args!("the hash is {:x?} instead of {hash:#x}", frame.hash));
        }
        if queue != meant {
            return self.complain(format_args!("a frame came to queue {queue} instead of {meant}"));
        }
        let good = frame.checksum == RxChecksum::Good;
        if good == (self.sum == Sum::Wrong) {
            self.complain(format_args!(
                "a frame of {len} bytes: its checksum is {}, and the card says otherwise",
                if good { "wrong" } else { "right" }
            ));
        }
    }

    fn complain(&mut self, what: Arguments<'_>) {
        self.trouble.get_or_insert_with(|| format!("{what}"));
    }

    fn missing(&self) -> usize {
        self.came.iter().filter(|came| !**came).count()
    }
}

/// Sends a batch, and waits until all of it has come back.
fn exchange(
    bench: &mut Bench,
    queue: usize,
    frames: &[Frame],
    sum: Sum,
    spread: &mut [u64],
) -> Result<(), String> {
    let meant = frames.iter().map(|frame| destination(bench, frame.port)).collect();
    let came = vec![false; frames.len()];
    let mut watch = Watch { frames, meant, came, sum, trouble: None };
    let offload = TxChecksum { start: UDP_START, offset: UDP_SUM_OFFSET };
    for (slot, frame) in frames.iter().enumerate() {
        frame.write(bench.slot(slot), sum);
        if !bench.push(queue, slot, frame.len, (sum == Sum::Pseudo).then_some(offload)) {
            return Err("the transmit ring is full, though nothing is under way".into());
        }
    }
    bench.tx[queue].kick();
    let until = time::now_ns() + BATCH_NS;
    let mut reclaimed = 0;
    while watch.missing() > 0 || reclaimed < frames.len() {
        if time::now_ns() > until {
            break;
        }
        bench.poll(|queue, frame, bytes| {
            spread[queue] += 1;
            watch.see(queue, frame, bytes);
        });
        reclaimed += bench.tx[queue].reclaim() as usize;
    }
    let (missing, all) = (watch.missing(), frames.len());
    let first = watch.came.iter().position(|came| !came).map_or(0, |i| frames[i].len);
    match watch.trouble {
        Some(trouble) => Err(trouble),
        None if missing > 0 => {
            Err(format!("{missing} of {all} frames did not come back, the first of {first} bytes"))
        }
        None if reclaimed < all => {
            Err(format!("the card has not reported {} of {all} frames sent", all - reclaimed))
        }
        None => Ok(()),
    }
}

/// The queue and the hash of the flow from a port.
fn destination(bench: &Bench, port: u16) -> (usize, u32) {
    let hash = bench.toeplitz.hash_v4(SOURCE, DESTINATION, port, PORT);
    let group = hash % u32::from(bench.capabilities.groups);
    (usize::from(bench.control.queue_of(group as u16).unwrap_or(0)), hash)
}

fn every_queue(spread: &[u64]) -> Result<String, String> {
    match spread.iter().position(|count| *count == 0) {
        Some(queue) => Err(format!("queue {queue} of {} has got no frame", spread.len())),
        None => Ok(format!("queues have got {spread:?} frames, each as its hash says")),
    }
}

/// Each queue's vector wakes a core that halts.
fn vectors(report: &mut Report, f: &Function, bench: &mut Bench) {
    let Some(msix) = Msix::enable(f).filter(|m| usize::from(m.entries()) >= bench.rx.len()) else {
        return report.not_offered(
            "interrupts",
            format_args!("the card has no MSI-X vector for each queue"),
        );
    };
    for queue in 0..bench.rx.len() {
        msix.set(queue as u16, 0, VECTOR_DEVICE_FIRST);
    }
    let fired = (0..bench.rx.len()).try_for_each(|queue| interrupt(bench, queue));
    let count = bench.rx.len();
    report.outcome(
        "interrupts",
        &fired.map(|()| format!("{count} vectors, each wakes a core that halts")),
    );
}

fn interrupt(bench: &mut Bench, queue: usize) -> Result<(), String> {
    let port = (1024..1024 + FLOWS).find(|port| destination(bench, *port).0 == queue);
    let port = port.ok_or_else(|| format!("no flow of {FLOWS} leads to queue {queue}"))?;
    bench.poll(|_, _, _| {});
    if !settle(bench, queue) {
        return Err(format!("queue {queue} interrupts, or has frames, though nothing was sent"));
    }
    Frame { mac: bench.mac, number: 0, port, len: LEN_MIN }.write(bench.slot(0), Sum::Right);
    bench.push(0, 0, LEN_MIN, None);
    bench.tx[0].kick();
    let woken = halt(INTERRUPT_NS);
    bench.rx[queue].disarm_interrupt();
    let until = time::now_ns() + INTERRUPT_NS;
    let mut came = bench.poll(|_, _, _| {});
    while came == 0 && time::now_ns() < until {
        came = bench.poll(|_, _, _| {});
    }
    bench.tx[0].reclaim();
    match (woken, came) {
        (true, 1) => Ok(()),
        (true, came) => Err(format!("queue {queue}: an interrupt, and {came} frames instead of 1")),
        (false, 1) => Err(format!("queue {queue}: a frame came without an interrupt")),
        (false, _) => Err(format!("queue {queue}: neither a frame nor an interrupt came")),
    }
}

/// Arms a queue's interrupt, and takes the one that frames before it have left (`RxQueue::arm_interrupt`). Whether there is quiet then.
pub fn settle(bench: &mut Bench, queue: usize) -> bool {
    for _ in 0..SETTLE_TIMES {
        if bench.rx[queue].arm_interrupt() {
            return false;
        }
        if !halt(SETTLE_NS) {
            return true;
        }
    }
    false
}

/// Halts until a device interrupts, or the time is over. Whether one did.
pub fn halt(ns: u64) -> bool {
    let me = percore::this();
    let before = me.device_interrupts.load(Ordering::Relaxed);
    let until = time::now_ns() + ns;
    loop {
        if me.device_interrupts.load(Ordering::Relaxed) != before {
            return true;
        }
        let left = until.saturating_sub(time::now_ns());
        if left == 0 {
            return false;
        }
        apic::arm_timer(left.min(20_000_000));
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

/// Frames in a second, by one core, from one queue to one.
fn speed(bench: &mut Bench, len: usize) -> Result<String, String> {
    for slot in 0..SLOTS {
        Frame { mac: bench.mac, number: 0, port: 1024, len }.write(bench.slot(slot), Sum::Right);
    }
    let begin = time::now_ns();
    let (mut sent, mut came, mut end) = (0_u64, 0_u64, begin);
    loop {
        let now = time::now_ns();
        let sending = now - begin < SPEED_NS;
        if now - begin > SPEED_NS + BATCH_NS || !sending && came == sent {
            break;
        }
        if sending && sent - came < SPEED_WINDOW {
            let pushed = (0..SLOTS).take_while(|slot| bench.push(0, *slot, len, None)).count();
            bench.tx[0].kick();
            sent += pushed as u64;
        }
        let now_came = bench.poll(|_, _, _| {}) as u64;
        if now_came > 0 {
            end = time::now_ns();
        }
        came += now_came;
        bench.tx[0].reclaim();
    }
    if came != sent {
        return Err(format!(
            "{} of {sent} frames of {} bytes were lost",
            sent - came.min(sent),
            len + 4
        ));
    }
    let per_second = u128::from(came) * 1_000_000_000 / u128::from((end - begin).max(1));
    Ok(format!("{per_second} frames a second out and in, by one core"))
}

/// Without a way round: whether frames of all sizes are taken. They go to the card's own address and mean nothing to anybody.
pub fn transmit(bench: &mut Bench) -> Result<String, String> {
    let (mac, mut count) = (bench.mac, 0);
    for len in LEN_MIN..=LEN_MAX {
        let queue = len % bench.tx.len();
        let bytes = bench.slot(0);
        Frame { mac, number: 0, port: 1024, len }.write(bytes, Sum::Right);
        // IEEE 802's local experiments.
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
        bench.push(queue, 0, len, None);
        bench.tx[queue].kick();
        let until = time::now_ns() + BATCH_NS;
        while bench.tx[queue].reclaim() == 0 {
            if time::now_ns() > until {
                return Err(format!("a frame of {len} bytes was not taken within 2 s"));
            }
            bench.poll(|_, _, _| {});
        }
        count += 1;
    }
    Ok(format!("{count} frames of {LEN_MIN} to {LEN_MAX} bytes were taken"))
}
