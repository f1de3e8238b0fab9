//! The floor of the contract: the bare responder as a dataplane. The network card, the two rings, the application and the pool of
//! buffers are the engine's; requests are handed over where the card has put them, answers are taken from there, and what the
//! application says is checked. Of TCP it knows the two sequence numbers and copies timestamps: no timers, no retransmission, no
//! windows, no round-trip times, no congestion control, no counters, one core.
use crate::app::{self, Echo};
use crate::memory;
use crate::nic::{RX_RING, Rx, Tx};
use crate::rings::{self, Calls, Events};
use crate::server::Server;
use crate::server::frame::{Key, is_intact, sign, word};
use crate::wire::{ACK, ETHERNET, FIN, PSH, RST, SERVER_MAC, SYN, TCP};
use foldhash::fast::FixedState;
use ix_abi::CoreId;
use ix_abi::event::Kind;
use ix_abi::layout::RX_BASE;
use ix_dataplane::checksum;
use ix_dataplane::device::{BusAddr, Fragment, RxBatch, RxFrame, RxQueue, TxFrame, TxQueue};
use ix_dataplane::mbuf::{Area, Mbuf, Pool};
use ix_dataplane::rings::{AppRings, Word};
use std::collections::HashMap;

/// As in the engine's machine.
const FRAME_OFFSET: u16 = 12;
/// Header slots, used in turn; as many answers may be on their way.
const SLOTS: usize = 1024;
const SLOT_BYTES: usize = 128;
/// Headers with timestamps, which all segments have.
const DATA: usize = TCP + 32;
/// `sendv` with one piece, as the call's first word says it.
const SENDV_ONE: u64 = 1 << 32 | 5;

#[derive(Clone, Copy, Debug)]
struct Flow {
    key: Key,
    mac: [u8; 6],
    seq: u32,
    ack: u32,
    timestamp: u32,
    /// The request that the application has, if it has one: its buffer, and how many bytes.
    buffer: Option<u32>,
    held: u32,
}

/// The responder.
#[derive(Debug)]
pub struct Contract {
    places: HashMap<Key, u32, FixedState>,
    flows: Vec<Flow>,
    rx: Rx,
    tx: Tx,
    area: &'static Area,
    pool: Pool,
    batch: Option<Box<RxBatch>>,
    rings: AppRings,
    events: Events,
    calls: Calls,
    app: Echo,
    headers: &'static mut [[u8; SLOT_BYTES]; SLOTS],
    /// Buffers on their way out, a place for each header slot; those written, and those that have left.
    sending: Box<[u32; SLOTS]>,
    written: usize,
    left: usize,
    offload: bool,
    most: usize,
    now_ns: u64,
}

impl Contract {
    /// A responder without flows, which answers at most `most` frames in a turn.
    pub fn new(connections: usize, offload: bool, most: usize) -> Contract {
        let area = memory::area(1, 4 * RX_RING as u32, RX_BASE);
        let (events, calls, rings) = rings::pair();
        let (mut rx, mut pool) = (Rx::default(), Pool::new(area, CoreId(0)));
        rx.replenish(&mut pool);
        Contract {
            places: HashMap::with_capacity_and_hasher(connections, FixedState::default()),
            flows: Vec::with_capacity(connections),
            rx,
            tx: Tx::default(),
            area,
            pool,
            batch: Some(Box::default()),
            rings,
            events,
            calls,
            app: Echo::default(),
            headers: Box::leak(Box::new([[0; SLOT_BYTES]; SLOTS])),
            sending: Box::new([0; SLOTS]),
            written: 0,
            left: 0,
            offload,
            most,
            now_ns: 0,
        }
    }

    /// Buffers whose answers have left are free.
    #[inline]
    fn reclaim(&mut self) {
        for _ in 0..self.tx.reclaim() {
            let buffer = self.sending[self.left % SLOTS];
            self.left += 1;
            self.pool.free(Mbuf::from_raw(buffer));
        }
    }

    /// A request becomes an event.
    #[inline]
    fn take(&mut self, frame: &RxFrame) {
        let bytes = &self.area.data(&frame.mbuf)[usize::from(frame.offset)..];
        let bytes = &bytes[..usize::from(frame.len)];
        let Some((key, payload)) = parse(bytes, self.offload) else {
            return self.other(frame);
        };
        let Some(place) = self.places.get(&key).copied() else { return self.other(frame) };
        let flow = &mut self.flows[place as usize];
        if u32::from_be(word(bytes, 38)) != flow.ack || flow.buffer.is_some() {
            return self.other(frame);
        }
        flow.ack = flow.ack.wrapping_add(payload);
        flow.timestamp = word(bytes, 58);
        flow.held = payload;
        let addr = self.area.user_addr(&frame.mbuf, frame.offset + DATA as u16);
        flow.buffer = Some(frame.mbuf.index());
        let [handle, cookie, addr, none] = [place.into(), place.into(), addr, 0].map(Word::One);
        let head = Word::Halves(Kind::RecvSent.0.into(), payload);
        self.rings.post_words([head, handle, cookie, addr, none]);
    }

    /// What is no request: a SYN is answered, the rest is dropped.
    #[cold]
    fn other(&mut self, frame: &RxFrame) {
        let bytes = &self.area.data(&frame.mbuf)[usize::from(frame.offset)..];
        let bytes = &bytes[..usize::from(frame.len)];
        if let Some(answer) = self.open(bytes) {
            let at = self.written % SLOTS;
            self.headers[at][..answer.len()].copy_from_slice(&answer);
            self.push(at, answer.len(), None);
        }
        self.pool.free(Mbuf::from_raw(frame.mbuf.index()));
    }

    /// A new flow, so that clients find what they find elsewhere; the answer.
    fn open(&mut self, f: &[u8]) -> Option<Vec<u8>> {
        if f.len() < TCP + 20 || f[47] & SYN == 0 {
            return None;
        }
        let key = Key::of(f);
        let ack = u32::from_be(word(f, 38)).wrapping_add(1);
        let mac = f[6..12].try_into().expect("six");
        let flow = Flow { key, mac, seq: 1, ack, timestamp: 0, buffer: None, held: 0 };
        let place = *self.places.entry(key).or_insert(self.flows.len() as u32);
        self.flows.push(flow);
        assert_eq!(place as usize, self.flows.len() - 1, "a flow once");
        let mut answer = f.to_vec();
        answer[..6].copy_from_slice(&mac);
        answer[6..12].copy_from_slice(&f[..6]);
        answer[26..30].copy_from_slice(&f[30..34]);
        answer[30..34].copy_from_slice(&f[26..30]);
        answer[34..38].copy_from_slice(&key.ports.rotate_left(16).to_ne_bytes());
        answer[38..42].fill(0);
        answer[42..46].copy_from_slice(&ack.to_be_bytes());
        answer[47] = ACK | SYN;
        answer[24..26].fill(0);
        answer[50..52].fill(0);
        if !self.offload {
            let total = answer.len() - ETHERNET;
            sign(&mut answer, total, 0);
        }
        Some(answer)
    }

    /// One call of the application, each word of which is checked. Whether it was a `sendv` of what it has.
    #[inline]
    fn call(&mut self, ahead: u32) -> bool {
        let record = self.rings.record(ahead);
        let (head, handle) = (record.word::<0>(), record.word::<1>());
        let (addr, len, done) = (record.word::<3>(), record.word::<4>(), record.word::<7>());
        let Some(flow) = self.flows.get_mut(handle as usize) else { return false };
        if head != SENDV_ONE || done != u64::from(flow.held) || len == 0 {
            return false;
        }
        let Some(buffer) = flow.buffer else { return false };
        let mbuf = Mbuf::from_raw(buffer);
        let from = self.area.user_addr(&mbuf, FRAME_OFFSET + DATA as u16);
        let within = addr.checked_sub(from).is_some_and(|at| at + len <= done);
        let bus = self.area.bus_addr(&mbuf, FRAME_OFFSET + DATA as u16);
        let _stays = mbuf.into_raw();
        if !within {
            return false;
        }
        flow.buffer = None;
        let at = self.written % SLOTS;
        let slot = &mut self.headers[at];
        let total = DATA - ETHERNET + len as usize;
        write(slot, flow, total, (self.now_ns / 1_000_000) as u32);
        flow.seq = flow.seq.wrapping_add(len as u32);
        let payload = Fragment { bus: bus.offset(addr - from), len: len as u32 };
        if !self.offload {
            // The application's bytes, where the card will read them.
            let data = self.area.data(&Mbuf::from_raw(buffer));
            let start = usize::from(FRAME_OFFSET) + DATA + (addr - from) as usize;
            sign(&mut slot[..DATA], total, checksum::sum(&data[start..start + len as usize]));
        }
        self.push(at, DATA, Some((buffer, payload)));
        true
    }

    #[inline]
    fn push(&mut self, at: usize, len: usize, answer: Option<(u32, Fragment)>) {
        let bus = BusAddr(self.headers[at].as_ptr() as u64);
        let headers = Fragment { bus, len: len as u32 };
        match answer {
            Some((buffer, payload)) => {
                self.sending[at] = buffer;
                self.tx.push_pair(headers, payload, None).expect("room");
            }
            None => {
                // A buffer of the pool's stands for none.
                self.sending[at] = self.pool.alloc().expect("a buffer").into_raw();
                let mut frame = TxFrame::default();
                frame.fragments.push(headers);
                self.tx.push(&frame).expect("room");
            }
        }
        self.written += 1;
    }
}

impl Server for Contract {
    fn deliver(&mut self, _i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) {
        let area = self.area;
        let offload = self.offload;
        self.rx.arrive(|mbuf| {
            let len = fill(&mut area.data_mut(mbuf)[usize::from(FRAME_OFFSET)..]);
            (FRAME_OFFSET, len as u16, offload.then_some(0))
        });
    }

    #[inline]
    fn turn(&mut self) {
        self.reclaim();
        let mut batch = self.batch.take().expect("it is given back");
        self.rx.poll(self.most, &mut batch);
        let before = self.rings.produced();
        for frame in &batch[..] {
            self.take(frame);
        }
        batch.clear();
        self.batch = Some(batch);
        if self.rings.produced() != before {
            self.rings.publish(self.now_ns);
            app::enter(&mut self.app, &mut self.events, &mut self.calls);
            let ready = self.rings.calls().expect("a sound application");
            for ahead in 0..ready.slots {
                assert!(self.call(ahead), "a call of the echo's");
            }
            self.rings.consume(ready.slots);
        }
        self.tx.kick();
        self.rx.replenish(&mut self.pool);
    }

    fn waiting(&self) -> usize {
        self.rx.waiting()
    }

    fn next_sent(&mut self, bytes: &mut Vec<u8>) -> bool {
        self.tx.next(bytes)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn pass_ns(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    fn verify(&self) -> bool {
        !self.offload
    }
}

/// Whose request it is, and its bytes of payload.
#[inline(always)]
fn parse(f: &[u8], offload: bool) -> Option<(Key, u32)> {
    if f.len() < DATA || f[12..14] != [8, 0] || f[14] != 0x45 || f[23] != 6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([f[16], f[17]]));
    let len = ETHERNET + total;
    let fragment = f[20] & 0x3f | f[21];
    if len > f.len() || len <= DATA || f[46] >> 4 != 8 || fragment != 0 {
        return None;
    }
    if f[47] & (SYN | FIN | RST) != 0 {
        return None;
    }
    if !offload && !is_intact(f, total) {
        return None;
    }
    Some((Key::of(f), (len - DATA) as u32))
}

/// The headers of an answer of `total` bytes of IP.
#[inline(always)]
fn write(f: &mut [u8; SLOT_BYTES], flow: &Flow, total: usize, clock: u32) {
    let mut put = |at: usize, word: u32| f[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    put(14, u32::from_ne_bytes([0x45, 0, (total >> 8) as u8, total as u8]));
    put(18, u32::from_ne_bytes([0, 0, 0x40, 0]));
    // Without checksums: for who signs it.
    put(22, u32::from_ne_bytes([64, 6, 0, 0]));
    put(26, flow.key.local);
    put(30, flow.key.remote);
    put(34, flow.key.ports.rotate_left(16));
    put(38, flow.seq.to_be());
    put(42, flow.ack.to_be());
    put(46, u32::from_ne_bytes([0x80, ACK | PSH, 0xff, 0xff]));
    put(50, 0);
    put(54, u32::from_ne_bytes([1, 1, 8, 10]));
    put(58, clock.to_be());
    put(62, flow.timestamp);
    f[..6].copy_from_slice(&flow.mac);
    f[6..12].copy_from_slice(&SERVER_MAC);
    f[12..14].copy_from_slice(&[8, 0]);
}
