//! The device: rings, steering, and the time that it takes.
use crate::packet::{self, Parsed};
use ix_dataplane::device::{BusAddr, Capabilities, RxChecksum, RxFrame, TxFrame};
use ix_dataplane::limits::{FRAME_BUFFERS_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::{Area, Mbuf, Rest, RestBuilder};
use ix_dataplane::rng::Rng;
use ix_dataplane::rss::{KEY_BYTES, Toeplitz, group_of};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// What the card reads memory by. Panics where nothing is that it may read.
pub trait Bus {
    /// Fills `bytes` from what is at `from`.
    fn read(&self, from: BusAddr, bytes: &mut [u8]);
}

/// A card's make.
pub struct Config {
    /// Where its receive buffers are.
    pub area: &'static Area,
    /// What transmit fragments are read by.
    pub bus: Rc<dyn Bus>,
    /// What it offers. Queue pairs and groups are 1 at least.
    pub capabilities: Capabilities,
    /// The Toeplitz key.
    pub rss_key: [u8; KEY_BYTES],
    /// Buffers of each receive ring.
    pub rx_ring: usize,
    /// Frames of each transmit ring.
    pub tx_ring: usize,
    /// Where frames start in their buffers.
    pub offset: u16,
    /// How long a frame to transmit takes at most, in nanoseconds.
    pub tx_delay: u64,
    /// For what is drawn.
    pub rng: Rng,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct RxRing {
    pub posted: VecDeque<Mbuf>,
    pub filled: VecDeque<RxFrame>,
    /// Buffers of the frames in `filled`.
    pub filled_buffers: usize,
    pub slots: usize,
    pub armed: bool,
    interrupts: u64,
}

/// A frame in a transmit ring.
#[derive(Debug)]
pub(crate) struct Slot {
    pub frame: TxFrame,
    /// When it is fetched, and when it is complete; once the doorbell has rung.
    pub times: Option<(u64, u64)>,
    /// What was fetched.
    fetched: Option<Vec<u8>>,
    done: bool,
}

impl Slot {
    pub fn new(frame: TxFrame) -> Slot {
        Slot { frame, times: None, fetched: None, done: false }
    }
}

#[derive(Debug, Default)]
pub(crate) struct TxRing {
    pub frames: VecDeque<Slot>,
    pub slots: usize,
    /// Frames that the driver has not counted.
    pub completed: u32,
    last_fetch: u64,
    last_done: u64,
    /// When its next frame is fetched or completes.
    next: u64,
}

/// The device; queues are handles to it.
pub struct Card {
    capabilities: Capabilities,
    toeplitz: Toeplitz,
    area: &'static Area,
    bus: Rc<dyn Bus>,
    rng: Rng,
    tx_delay: u64,
    offset: u16,
    /// Queue of each group.
    pub(crate) indirection: Vec<u16>,
    pub(crate) rx: Vec<RxRing>,
    pub(crate) tx: Vec<TxRing>,
    /// The first of all rings' `next`: kept, since everybody asks for it all the time.
    next: u64,
    pub(crate) running: bool,
    pub(crate) doorbells: u64,
    /// Frames for which there were too few buffers posted.
    pub missed: u64,
    /// Nothing completes while this is set.
    pub stalled: bool,
    /// The time, in nanoseconds.
    pub now: u64,
}

/// The card that queues share.
pub type SharedCard = Rc<RefCell<Card>>;

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card")
            .field("rx", &self.rx)
            .field("tx", &self.tx)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Card {
    pub(crate) fn new(config: Config) -> Card {
        let Capabilities { queue_pairs, groups, .. } = config.capabilities;
        let rx = |_| RxRing {
            posted: VecDeque::new(),
            filled: VecDeque::new(),
            filled_buffers: 0,
            slots: config.rx_ring,
            armed: false,
            interrupts: 0,
        };
        let tx = |_| TxRing { slots: config.tx_ring, next: u64::MAX, ..TxRing::default() };
        Card {
            capabilities: config.capabilities,
            toeplitz: Toeplitz::new(&config.rss_key),
            area: config.area,
            bus: config.bus,
            rng: config.rng,
            tx_delay: config.tx_delay,
            offset: config.offset,
            indirection: (0..groups).map(|group| group % queue_pairs).collect(),
            rx: (0..queue_pairs).map(rx).collect(),
            tx: (0..queue_pairs).map(tx).collect(),
            next: u64::MAX,
            running: true,
            doorbells: 0,
            missed: 0,
            stalled: false,
            now: 0,
        }
    }

    pub(crate) fn area(&self) -> &'static Area {
        self.area
    }

    /// What it offers.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Buffers that wait for frames, and those of frames that wait for the driver.
    pub fn buffers(&self) -> usize {
        self.rx.iter().map(|ring| ring.posted.len() + ring.filled_buffers).sum()
    }

    /// The queue that a group's frames come to.
    pub fn queue_of(&self, group: u16) -> u16 {
        self.indirection[usize::from(group)]
    }

    /// Sends a group's frames to another queue at once; both exist. [`crate::MemoryControl`] is the driver's way.
    pub fn steer(&mut self, group: u16, queue: u16) {
        assert!(usize::from(queue) < self.rx.len(), "queue {queue} is not there");
        self.indirection[usize::from(group)] = queue;
    }

    /// Whether the queue has frames for the driver.
    pub fn has_received(&self, queue: usize) -> bool {
        self.rx.get(queue).is_some_and(|ring| !ring.filled.is_empty())
    }

    /// Whether there are frames that the driver does not know to be complete.
    pub fn in_flight(&self) -> bool {
        self.tx.iter().any(|ring| !ring.frames.is_empty() || ring.completed > 0)
    }

    /// Interrupts of a queue since the last look.
    pub fn take_interrupts(&mut self, queue: usize) -> u64 {
        std::mem::take(&mut self.rx[queue].interrupts)
    }

    /// How often the driver has told the card something, since the last look.
    pub fn take_doorbells(&mut self) -> u64 {
        std::mem::take(&mut self.doorbells)
    }

    /// When the next frame is fetched or completes.
    pub fn next_completion(&self) -> u64 {
        self.next
    }

    /// Something has become of frames in transmit rings: when to look again.
    pub(crate) fn look(&mut self) {
        self.next = self.tx.iter().map(|ring| ring.next).min().unwrap_or(u64::MAX);
    }

    /// A frame arrives from the wire. Whether there was a buffer for it.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        if !self.running {
            return false;
        }
        let parsed = packet::parse(frame);
        let hash = parsed.as_ref().and_then(|parsed| parsed.hash(&self.toeplitz));
        let groups = self.capabilities.groups;
        let queue = hash.map_or(0, |hash| self.indirection[usize::from(group_of(hash, groups).0)]);
        let Some((mbuf, len, rest)) = self.fill(usize::from(queue), frame) else {
            self.missed += 1;
            return false;
        };
        let good = self.capabilities.rx_checksum && parsed.as_ref().is_some_and(Parsed::is_good);
        let ring = &mut self.rx[usize::from(queue)];
        ring.filled.push_back(RxFrame {
            mbuf,
            offset: self.offset,
            len,
            rest,
            merged: 0,
            checksum: if good { RxChecksum::Good } else { RxChecksum::Unknown },
            hash: hash.filter(|_| self.capabilities.hash_report),
        });
        ring.interrupts += u64::from(ring.armed);
        true
    }

    /// The frame in as many buffers as it takes, if there are so many.
    fn fill(&mut self, queue: usize, frame: &[u8]) -> Option<(Mbuf, u16, Rest)> {
        let (area, start) = (self.area, usize::from(self.offset));
        let (first, others) = frame.split_at(frame.len().min(MBUF_BYTES - start));
        let count = 1 + others.len().div_ceil(MBUF_BYTES);
        let ring = &mut self.rx[queue];
        if count > ring.posted.len().min(FRAME_BUFFERS_MAX) {
            return None;
        }
        let mut put = |part: &[u8], start: usize| {
            let mut mbuf = ring.posted.pop_front().expect("there are so many");
            let data = area.data_mut(&mut mbuf);
            // What is around the frame is not zero.
            data.fill(0x5a);
            data[start..start + part.len()].copy_from_slice(part);
            mbuf
        };
        let mbuf = put(first, start);
        let mut rest = RestBuilder::new();
        for part in others.chunks(MBUF_BYTES) {
            let next = put(part, 0);
            rest.push(area, next, 0, part.len() as u16);
        }
        ring.filled_buffers += count;
        Some((mbuf, first.len() as u16, rest.finish()))
    }

    /// A doorbell: what the driver has pushed is fetched and complete in due time.
    pub(crate) fn show(&mut self, queue: usize) {
        let Card { tx, rng, now, tx_delay, doorbells, .. } = self;
        let ring = &mut tx[queue];
        // They are the last ones.
        let fresh = ring.frames.iter().rev().take_while(|slot| slot.times.is_none()).count();
        if fresh == 0 {
            return;
        }
        let first = ring.frames.len() - fresh;
        for slot in ring.frames.range_mut(first..) {
            ring.last_fetch = ring.last_fetch.max(*now + rng.below(*tx_delay / 4 + 1));
            ring.last_done = ring.last_done.max(ring.last_fetch + rng.below(*tx_delay + 1));
            slot.times = Some((ring.last_fetch, ring.last_done));
        }
        *doorbells += 1;
        ring.look();
        self.look();
    }

    /// Frames whose time has come leave for the wire, and are complete.
    pub fn transmit(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if !self.running || self.next > self.now {
            return out;
        }
        let (now, offers) = (self.now, &self.capabilities);
        for ring in self.tx.iter_mut().filter(|ring| ring.next <= now) {
            for slot in ring.frames.iter_mut().filter(|slot| slot.fetched.is_none()) {
                if slot.times.is_none_or(|(fetch, _)| fetch > now) {
                    break;
                }
                let bytes = packet::gather(&*self.bus, &slot.frame, offers);
                out.extend(packet::finish(bytes.clone(), &slot.frame));
                slot.fetched = Some(bytes);
            }
            let done = |slot: &Slot| slot.times.is_some_and(|(_, done)| done <= now);
            for slot in ring.frames.iter_mut().take_while(|slot| !self.stalled && done(slot)) {
                slot.done = true;
            }
            ring.retire(&*self.bus, offers);
        }
        self.look();
        out
    }

    /// The `nth` of the oldest frames that have left and are not complete completes, whatever its turn. `false`: there is none.
    pub fn complete_out_of_turn(&mut self, queue: usize, nth: usize) -> bool {
        let ring = &mut self.tx[queue];
        let mut left = ring.frames.iter_mut().filter(|slot| slot.fetched.is_some() && !slot.done);
        let Some(slot) = left.nth(nth) else { return false };
        slot.done = true;
        ring.retire(&*self.bus, &self.capabilities);
        self.look();
        true
    }
}

impl TxRing {
    /// Something has become of its frames: when to look again.
    pub(crate) fn look(&mut self) {
        let next = |slot: &Slot| match (slot.times, &slot.fetched) {
            (Some((fetch, _)), None) => fetch,
            (Some((_, done)), Some(_)) => done,
            (None, _) => u64::MAX,
        };
        let unfetched = self.frames.iter().find(|slot| slot.fetched.is_none());
        let frames = unfetched.into_iter().chain(self.frames.front());
        self.next = frames.map(next).min().unwrap_or(u64::MAX);
    }

    /// Reports what is complete, in the order of the ring.
    fn retire(&mut self, bus: &dyn Bus, offers: &Capabilities) {
        while self.frames.front().is_some_and(|slot| slot.done) {
            let Some(slot) = self.frames.pop_front() else { break };
            let bytes = packet::gather(bus, &slot.frame, offers);
            assert!(
                slot.fetched.as_ref() == Some(&bytes),
                "memory of a frame in flight was reused: {:?}",
                slot.frame
            );
            self.completed += 1;
        }
        self.look();
    }
}
