//! The floor: parses, verifies both checksums, looks the connection up in a hash table, builds the answer in
//! place, computes both checksums. No TCP: no timers, no retransmission, no protection, no application.
use crate::server::Server;
use crate::server::frame::{Key, is_intact, sign, word};
use crate::wire::{ACK, ETHERNET, FIN, PSH, RST, SYN, TCP};
use foldhash::fast::FixedState;
use std::collections::HashMap;

const BUFFERS: usize = 256;
const BUFFER_BYTES: usize = 2048;
/// As in the engine's machine.
const FRAME_OFFSET: usize = 12;

#[derive(Clone, Copy, Debug)]
struct Flow {
    seq: u32,
    ack: u32,
}

/// The responder with its ring of buffers, in which frames are answered where they lie.
#[derive(Debug)]
pub struct Bare {
    flows: HashMap<Key, Flow, FixedState>,
    buffers: Vec<[u8; BUFFER_BYTES]>,
    lengths: [usize; BUFFERS],
    arrived: usize,
    handled: usize,
    looked: usize,
    offload: bool,
    batch: usize,
    now_ns: u64,
}

impl Bare {
    /// A responder without flows, which answers at most `batch` frames in a turn.
    pub fn new(connections: usize, offload: bool, batch: usize) -> Bare {
        Bare {
            flows: HashMap::with_capacity_and_hasher(connections, FixedState::default()),
            buffers: vec![[0; BUFFER_BYTES]; BUFFERS],
            lengths: [0; BUFFERS],
            arrived: 0,
            handled: 0,
            looked: 0,
            offload,
            batch,
            now_ns: 0,
        }
    }
}

impl Server for Bare {
    fn deliver(&mut self, _i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) {
        let at = self.arrived % BUFFERS;
        self.arrived += 1;
        self.lengths[at] = fill(&mut self.buffers[at][FRAME_OFFSET..]);
    }

    #[inline]
    fn turn(&mut self) {
        let until = self.arrived.min(self.handled + self.batch);
        while self.handled != until {
            let at = self.handled % BUFFERS;
            self.handled += 1;
            let frame = &mut self.buffers[at][FRAME_OFFSET..FRAME_OFFSET + self.lengths[at]];
            self.lengths[at] = respond(&mut self.flows, frame, self.offload).unwrap_or(0);
        }
    }

    fn waiting(&self) -> usize {
        self.arrived - self.handled
    }

    fn next_sent(&mut self, bytes: &mut Vec<u8>) -> bool {
        while self.looked != self.handled {
            let at = self.looked % BUFFERS;
            self.looked += 1;
            let len = self.lengths[at];
            if len > 0 {
                bytes.clear();
                bytes.extend_from_slice(&self.buffers[at][FRAME_OFFSET..FRAME_OFFSET + len]);
                return true;
            }
        }
        false
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

#[inline(always)]
fn put(f: &mut [u8], at: usize, word: u32) {
    f[at..at + 4].copy_from_slice(&word.to_ne_bytes());
}

/// Answers a frame; the answer's length.
#[inline]
fn respond(
    flows: &mut HashMap<Key, Flow, FixedState>,
    f: &mut [u8],
    offload: bool,
) -> Option<usize> {
    if f.len() < TCP + 20 || f[12..14] != [8, 0] || f[14] != 0x45 || f[23] != 6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([f[16], f[17]]));
    let len = ETHERNET + total;
    let data = TCP + usize::from(f[46] >> 4) * 4;
    let fragment = f[20] & 0x3f | f[21];
    if len > f.len() || data < TCP + 20 || data > len || fragment != 0 {
        return None;
    }
    if !offload && !is_intact(f, total) {
        return None;
    }
    let key = Key::of(f);
    let flags = f[47];
    let payload = (len - data) as u32;
    let (seq, ack) = match flows.get_mut(&key) {
        Some(flow) if flags & (SYN | FIN | RST) == 0 => {
            if u32::from_be(word(f, 38)) != flow.ack {
                return None;
            }
            flow.ack = flow.ack.wrapping_add(payload);
            let seq = flow.seq;
            flow.seq = seq.wrapping_add(payload);
            (seq, flow.ack)
        }
        _ => opened(flows, key, f)?,
    };
    if payload == 0 && flags & SYN == 0 {
        return None;
    }
    // In place: addresses and ports change sides, which leaves the sums over them alone.
    let mut mac = [0; 6];
    mac.copy_from_slice(&f[0..6]);
    f.copy_within(6..12, 0);
    f[6..12].copy_from_slice(&mac);
    put(f, 26, key.local);
    put(f, 30, key.remote);
    put(f, 34, key.ports.rotate_left(16));
    put(f, 38, seq.to_be());
    put(f, 42, ack.to_be());
    f[47] = if flags & SYN == 0 { ACK | PSH } else { ACK | SYN };
    if data == 66 {
        // The peer's timestamp back, and one of ours.
        let value = word(f, 58);
        put(f, 62, value);
    }
    f[24..26].fill(0);
    f[50..52].fill(0);
    if !offload {
        sign(&mut f[..len], total, 0);
    }
    Some(len)
}

/// A new flow, so that clients find what they find elsewhere.
#[cold]
fn opened(flows: &mut HashMap<Key, Flow, FixedState>, key: Key, f: &[u8]) -> Option<(u32, u32)> {
    if f[47] & SYN == 0 {
        return None;
    }
    let ack = u32::from_be(word(f, 38)).wrapping_add(1);
    flows.insert(key, Flow { seq: 1, ack });
    Some((0, ack))
}
