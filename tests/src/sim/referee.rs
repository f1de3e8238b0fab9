//! The referee: watches the wire, knows of every byte what was sent and what has arrived, and
//! judges each segment of a dataplane by that. It sees nothing of the engines.
//!
//! A connection whose ports are used a second time is not judged: what is late and what is new
//! cannot be told apart from here.
use super::net::StationId;
use super::wire::{Segment, flag, parse};
use super::{MS, Time};
use ix_dataplane::limits::RECEIVE_WINDOW;
use std::collections::BTreeMap;

/// A set of ranges, in order, none touching the next.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<(i64, i64)>);

impl Spans {
    fn insert(&mut self, from: i64, to: i64) {
        let first = self.0.partition_point(|span| span.1 < from);
        let last = self.0.partition_point(|span| span.0 <= to);
        let (mut from, mut to) = (from, to);
        if first < last {
            from = from.min(self.0[first].0);
            to = to.max(self.0[last - 1].1);
        }
        self.0.splice(first..last, [(from, to)]);
    }

    /// Where the range that begins at 0 ends.
    fn frontier(&self) -> i64 {
        self.0.first().filter(|span| span.0 == 0).map_or(0, |span| span.1)
    }

    fn contains(&self, from: i64, to: i64) -> bool {
        let at = self.0.partition_point(|span| span.1 < to);
        self.0.get(at).is_some_and(|span| span.0 <= from && to <= span.1)
    }
}

/// One direction of a connection. Numbers are relative to its initial sequence number.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// Its initial sequence number, once it has sent a SYN.
    pub iss: Option<u32>,
    /// What its SYN offered.
    syn: Segment,
    /// The stream.
    bytes: Vec<u8>,
    /// The end of all that was sent.
    pub max: i64,
    fin: Option<i64>,
    /// What has arrived of it.
    arrived: Spans,
    /// The edge of the window that it was granted, by what has arrived.
    granted: i64,
    /// The latest acknowledgement, and the widest window, that have arrived for it.
    acked: i64,
    /// See `acked`.
    widest: i64,
    /// The last acknowledgement and window edge that it has sent, relative to the other's number.
    pub told: (i64, i64),
    /// It has sent more than its SYN: it is established.
    pub established: bool,
    /// The window field of its last segment.
    pub window: u16,
    /// Its last timestamps.
    pub ts: Option<(u32, u32)>,
    /// Latest timestamp of it that has arrived at the other side.
    pub ts_arrived: Option<u32>,
    /// Since when something has arrived here that it has not acknowledged.
    owes_since: Option<Time>,
}

impl Half {
    fn rel(&self, seq: u32) -> i64 {
        i64::from(seq.wrapping_sub(self.iss.unwrap_or(0)) as i32)
    }

    /// The sequence number of a position.
    pub fn seq(&self, rel: i64) -> u32 {
        self.iss.unwrap_or(0).wrapping_add(rel as u32)
    }

    /// Whether it has sent its FIN.
    pub fn is_over(&self) -> bool {
        self.fin.is_some()
    }
}

/// A connection: the halves of the station with the smaller number, and of the other.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// What each has sent.
    pub halves: [Half; 2],
    /// Not to be judged.
    pub muddy: bool,
}

impl Flow {
    fn both_offer(&self, has: impl Fn(&Segment) -> bool) -> bool {
        self.halves.iter().all(|half| has(&half.syn))
    }

    /// Whether both have timestamps.
    pub fn has_timestamps(&self) -> bool {
        self.both_offer(|syn| syn.ts.is_some())
    }

    /// Whether both have SACK.
    pub fn has_sack(&self) -> bool {
        self.both_offer(|syn| syn.sack_permitted)
    }

    fn edge(&self, side: usize, segment: &Segment) -> i64 {
        let scaled = !segment.has(flag::SYN) && self.both_offer(|syn| syn.shift.is_some());
        let shift = if scaled { self.halves[side].syn.shift.unwrap_or(0).min(14) } else { 0 };
        self.halves[1 - side].rel(segment.ack) + (i64::from(segment.window) << shift)
    }
}

/// Stations and ports of a connection, the smaller station first.
pub type Key = ((u8, u16), (u8, u16));

/// The referee.
#[derive(Debug)]
pub struct Referee {
    /// Stations below are dataplanes.
    machines: u8,
    /// By ends.
    pub flows: BTreeMap<Key, Flow>,
    /// Bytes of dataplanes that were on the wire more than once.
    pub sent_again: u64,
    /// The longest that a dataplane has left data unacknowledged.
    pub longest_owed: Time,
    /// SYNs that each dataplane had to send again since a smoltcp peer had not said a word: it asks for one
    /// address in a second, whoever waits for another (`neighbor::Cache::SILENT_TIME`), and answers nobody
    /// whose address it lacks.
    syns_unheard: Vec<u64>,
}

fn key(segment: &Segment) -> (Key, usize) {
    let from = (segment.ips.0[3].wrapping_sub(1), segment.ports.0);
    let to = (segment.ips.1[3].wrapping_sub(1), segment.ports.1);
    if from < to { ((from, to), 0) } else { ((to, from), 1) }
}

impl Referee {
    /// For a network whose stations below `machines` are dataplanes.
    pub fn new(machines: u8) -> Referee {
        let syns_unheard = vec![0; usize::from(machines)];
        Referee { machines, flows: BTreeMap::new(), sent_again: 0, longest_owed: 0, syns_unheard }
    }

    /// SYNs that this dataplane had to send again, as a smoltcp peer had not said a word.
    pub fn syns_unheard(&self, machine: StationId) -> u64 {
        self.syns_unheard[usize::from(machine.0)]
    }

    /// A station sends a frame.
    pub fn sent(&mut self, from: StationId, frame: &[u8], now: Time) {
        let Some(segment) = parse(frame) else { return };
        let (key, side) = key(&segment);
        let flow = self.flows.entry(key).or_default();
        if segment.has(flag::SYN) {
            let again = flow.halves[side].iss == Some(segment.seq);
            let unheard = again && flow.halves[1 - side].iss.is_none();
            if unheard && from.0 < self.machines && segment.ips.1[3] > self.machines {
                self.syns_unheard[usize::from(from.0)] += 1;
            }
            begin(flow, side, &segment);
        }
        let known = flow.halves.iter().all(|half| half.iss.is_some());
        if flow.muddy || flow.halves[side].iss.is_none() || segment.has(flag::RST) {
            return;
        }
        let judged = from.0 < self.machines;
        if judged && known && segment.has(flag::ACK) {
            judge(flow, side, &segment);
        }
        self.sent_again += note(flow, side, &segment, judged);
        let half = &mut flow.halves[side];
        if let Some(since) = half.owes_since.take().filter(|_| judged && known) {
            self.longest_owed = self.longest_owed.max(now - since);
        }
    }

    /// An intact frame arrives.
    pub fn arrived(&mut self, frame: &[u8], now: Time) {
        let Some(segment) = parse(frame) else { return };
        let (key, side) = key(&segment);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let edge = flow.edge(side, &segment);
        let [half, other] = if side == 0 { [0, 1] } else { [1, 0] };
        if flow.halves[half].iss.is_none() || segment.has(flag::RST) {
            return;
        }
        let sender = &mut flow.halves[half];
        let from = sender.rel(segment.seq);
        let to = from + span(&segment);
        let before = sender.arrived.frontier();
        if to > from {
            sender.arrived.insert(from, to);
        }
        let in_order = sender.arrived.frontier() > before && !segment.payload.is_empty();
        clock(sender, &segment);
        let receiver = &mut flow.halves[other];
        if in_order {
            receiver.owes_since.get_or_insert(now);
        }
        grant(receiver, edge, &segment);
    }

    /// A frame that was made up is on its way. What it says of acknowledgement, window and time may
    /// be true, though its sender's own word is still on its way.
    pub fn forged(&mut self, frame: &[u8]) {
        let Some(segment) = parse(frame) else { return };
        let (key, side) = key(&segment);
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let edge = flow.edge(side, &segment);
        let [low, high] = &mut flow.halves;
        let (sender, receiver) = if side == 0 { (low, high) } else { (high, low) };
        let end = sender.rel(segment.seq) + span(&segment);
        // What lies before the window says nothing of time.
        if segment.payload.is_empty() || end > receiver.told.0 {
            clock(sender, &segment);
        }
        if receiver.rel(segment.ack) <= receiver.max {
            grant(receiver, edge, &segment);
        }
    }
}

/// The timestamp of a segment that has arrived.
fn clock(sender: &mut Half, segment: &Segment) {
    let Some((value, _)) = segment.ts else { return };
    if sender.ts_arrived.is_none_or(|old| value.wrapping_sub(old) as i32 > 0) {
        sender.ts_arrived = Some(value);
    }
}

/// The acknowledgement and window of a segment that has arrived.
fn grant(receiver: &mut Half, edge: i64, segment: &Segment) {
    if segment.has(flag::ACK) {
        let ack = receiver.rel(segment.ack);
        receiver.granted = receiver.granted.max(edge);
        receiver.acked = receiver.acked.max(ack);
        receiver.widest = receiver.widest.max(edge - ack);
    }
}

fn span(segment: &Segment) -> i64 {
    let flags = i64::from(segment.has(flag::SYN)) + i64::from(segment.has(flag::FIN));
    segment.payload.len() as i64 + flags
}

fn begin(flow: &mut Flow, side: usize, segment: &Segment) {
    let half = &mut flow.halves[side];
    if half.iss.is_some_and(|iss| iss != segment.seq) {
        // A second life of the same ports, or of what only its own side remembers.
        flow.muddy = true;
    }
    half.iss = Some(segment.seq);
    half.syn = segment.clone();
}

/// What a dataplane's segment must be.
fn judge(flow: &Flow, side: usize, segment: &Segment) {
    let (ours, theirs) = (&flow.halves[side], &flow.halves[1 - side]);
    let ack = theirs.rel(segment.ack);
    let have = theirs.arrived.frontier();
    assert!(ack <= have, "acknowledges {ack}, has received {have}: {segment:x?}");
    let edge = flow.edge(side, segment);
    let (told_ack, told_edge) = ours.told;
    assert!(ack >= told_ack, "takes an acknowledgement back, {told_ack} to {ack}: {segment:x?}");
    // Of a scaled window the last bits are cut off (RFC 7323 §2.3).
    let grain = 1 << shift_of(ours);
    assert!(edge + grain > told_edge, "takes its window back, {told_edge} to {edge}: {segment:x?}");
    let widest = i64::from(RECEIVE_WINDOW);
    assert!(edge - ack <= widest, "offers more than {widest} bytes of window: {segment:x?}");
    let from = ours.rel(segment.seq);
    let to = from + segment.payload.len() as i64;
    assert!(from <= ours.max, "leaves a hole behind {}: {segment:x?}", ours.max);
    if to > from {
        // A probe is one byte beyond (RFC 9293 §3.8.6.1).
        let probe = i64::from(to - from == 1);
        // RFC 9293 §3.10.7.4 takes the acknowledgement of an old segment, but not its window: what
        // was told before then counts from the new one.
        let granted = ours.granted.max(ours.acked + ours.widest) + probe;
        assert!(to <= granted, "sends up to {to}, beyond the window's {granted}: {segment:x?}");
        assert!(ours.fin.is_none_or(|fin| to <= fin), "sends data behind its FIN: {segment:x?}");
        let mss = i64::from(theirs.syn.mss.unwrap_or(536));
        assert!(to - from <= mss, "{} bytes, its peer takes {mss}: {segment:x?}", to - from);
    }
    timestamps(flow, side, segment);
    sacks(flow, side, segment, ack);
}

fn shift_of(half: &Half) -> u8 {
    half.syn.shift.unwrap_or(0).min(14)
}

/// RFC 7323 §3.2.
fn timestamps(flow: &Flow, side: usize, segment: &Segment) {
    if segment.has(flag::SYN) {
        return;
    }
    let has = segment.ts.is_some();
    assert_eq!(has, flow.has_timestamps(), "timestamps against what was agreed: {segment:x?}");
    let (Some((value, echo)), ours) = (segment.ts, &flow.halves[side]) else { return };
    if let Some((old_value, old_echo)) = ours.ts {
        let later = |new: u32, old: u32| new.wrapping_sub(old) as i32 >= 0;
        assert!(later(value, old_value), "its clock goes back from {old_value}: {segment:x?}");
        assert!(later(echo, old_echo), "echoes older than {old_echo}: {segment:x?}");
    }
    let newest = flow.halves[1 - side].ts_arrived.unwrap_or(echo);
    assert!(newest.wrapping_sub(echo) as i32 >= 0, "echoes what has not arrived: {segment:x?}");
}

/// RFC 2018 §3, §4; RFC 2883 §4.
fn sacks(flow: &Flow, side: usize, segment: &Segment, ack: i64) {
    if segment.sacks.is_empty() {
        return;
    }
    assert!(flow.has_sack(), "SACK that was not agreed: {segment:x?}");
    let most = if segment.ts.is_some() { 3 } else { 4 };
    assert!(segment.sacks.len() <= most, "too many SACK blocks: {segment:x?}");
    let theirs = &flow.halves[1 - side];
    let block = |(from, to): (u32, u32)| (theirs.rel(from), theirs.rel(to));
    for (at, (from, to)) in segment.sacks.iter().copied().map(block).enumerate() {
        assert!(from < to, "an empty SACK block: {segment:x?}");
        let duplicate = at == 0
            && (to <= ack
                || segment.sacks.get(1).is_some_and(|second| {
                    let (start, end) = block(*second);
                    start <= from && to <= end
                }));
        assert!(from > ack || duplicate, "a SACK block at or below {ack}: {segment:x?}");
        let have = theirs.arrived.contains(from, to);
        assert!(have, "SACK of {from}..{to}, which has not arrived: {segment:x?}");
    }
}

/// Takes down what was sent; returns how many bytes were sent before.
fn note(flow: &mut Flow, side: usize, segment: &Segment, judged: bool) -> u64 {
    let edge = flow.edge(side, segment);
    let ack = flow.halves[1 - side].rel(segment.ack);
    let half = &mut flow.halves[side];
    let from = half.rel(segment.seq);
    // Byte 0 is the SYN's.
    let at = (from - 1 + i64::from(segment.has(flag::SYN))).max(0) as usize;
    let mut again = 0;
    if !segment.payload.is_empty() {
        let known = half.bytes.len().saturating_sub(at).min(segment.payload.len());
        let same = half.bytes.get(at..at + known).unwrap_or_default() == &segment.payload[..known];
        assert!(same || !judged, "sends other bytes than before at {at}: {segment:x?}");
        if at <= half.bytes.len() {
            half.bytes.extend_from_slice(&segment.payload[known..]);
        }
        again = if judged { known as u64 } else { 0 };
    }
    let to = from + span(segment);
    half.max = half.max.max(to);
    if segment.has(flag::FIN) {
        let fin = to - 1;
        let moved = half.fin.is_some_and(|old| old != fin);
        assert!(!moved || !judged, "its FIN moves from {:?} to {fin}", half.fin);
        half.fin = Some(fin);
    }
    if segment.has(flag::ACK) {
        if !segment.has(flag::SYN) {
            half.established = true;
            half.window = segment.window;
        }
        // (The first SYN's echo means nothing.)
        half.ts = segment.ts.or(half.ts);
        half.told = (half.told.0.max(ack), half.told.1.max(edge));
    }
    again
}

/// How late a delayed acknowledgement may be at most (RFC 1122 §4.2.3.2).
pub const ACK_MAX: Time = 500 * MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_merge_and_know_what_they_contain() {
        let mut spans = Spans::default();
        spans.insert(0, 1);
        spans.insert(5, 8);
        assert_eq!(
            (spans.frontier(), spans.contains(5, 8), spans.contains(4, 8)),
            (1, true, false)
        );
        spans.insert(3, 5);
        spans.insert(1, 3);
        assert_eq!(spans.0, [(0, 8)]);
        spans.insert(10, 12);
        spans.insert(20, 22);
        spans.insert(11, 21);
        assert_eq!(spans.0, [(0, 8), (10, 22)]);
        assert!(spans.contains(10, 22) && !spans.contains(7, 11));
    }
}
