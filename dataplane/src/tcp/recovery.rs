//! Loss recovery: what acknowledgements do once something is missing, and what timeouts do (RFC 5681
//! §3.2, RFC 6582, RFC 6675, RFC 6937, RFC 8985).
//!
//! A connection has a [`Recovery`] from the first sign of a loss until all that was sent again is
//! acknowledged; in between its records carry marks. Without one, nothing here runs. With selective
//! acknowledgements losses are found by [`rack`](crate::tcp::rack), without by counting duplicate
//! ones; what then is sent, and how much, does not depend on how.
use crate::conn::{Conn, Flags, State};
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::limits::RECOVERIES_PER_GROUP;
use crate::local::Local;
use crate::slab::Slab;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::rack::{self, Newest, Timer};
use crate::tcp::sack::{self, Told};
use crate::tcp::sent::{self, Marks, Record, Records};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, Packet};
use crate::tcp::{acks, pmtu, timers};
use crate::time::{Duration, Instant};
use ix_abi::stats::Counter;

/// Duplicate acknowledgements that mean a loss (RFC 5681 §3.2).
const DUP_ACKS: u8 = 3;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Something is out of order, nothing lost yet; or all that was lost is repaired.
    #[default]
    Disorder,
    /// Fast recovery, until `recover` is acknowledged.
    Fast,
    /// A timeout has marked everything lost; until `recover` is acknowledged.
    Timeout,
}

/// A loss probe that is under way (RFC 8985 §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `TLP.end_seq`.
    pub end: WrappingSeq,
    /// It was a retransmission.
    pub again: bool,
}

/// What is kept while something is missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// See [`Stage`].
    pub stage: Stage,
    /// Duplicate acknowledgements in a row.
    dup_acks: u8,
    /// The newest segment that has arrived.
    pub newest: Newest,
    /// End of the highest that has.
    high: WrappingSeq,
    /// End of the highest that was sent again.
    pub again_end: WrappingSeq,
    /// The loss probe.
    pub probe: Option<Probe>,
    /// Proportional rate reduction (RFC 6937): flight at the beginning, bytes delivered and sent since,
    /// and what may be sent now.
    flight: u32,
    delivered: u32,
    out: u32,
    allowance: u32,
    /// The clock of our timestamps at a timeout that may have been spurious (RFC 4015).
    undo: Option<u32>,
}

/// The recoveries of a group's connections.
pub type Recoveries = Slab<Recovery>;

/// A table of them.
pub const fn recoveries() -> Recoveries {
    Slab::new(RECOVERIES_PER_GROUP)
}

/// What one acknowledgement has brought.
#[derive(Default)]
struct Heard {
    /// Bytes that have arrived at the peer, as far as it was not known.
    delivered: u32,
    /// The round trip of the oldest of them that was sent once.
    rtt: Option<Duration>,
    /// The acknowledgement moved past something that was sent again.
    again: bool,
}

/// Bytes that congestion control lets go out now.
#[inline]
pub fn allowance(conn: &Conn, recoveries: &Recoveries) -> u32 {
    if conn.recovery != NIL && recoveries[conn.recovery].stage == Stage::Fast {
        return recoveries[conn.recovery].allowance;
    }
    conn.cc.window().saturating_sub(conn.pipe())
}

/// `bytes` went out; `again`: not for the first time, and up to `end`.
pub fn went_out(conn: &Conn, recoveries: &mut Recoveries, bytes: u32, again: Option<WrappingSeq>) {
    if conn.recovery == NIL {
        return;
    }
    let recovery = &mut recoveries[conn.recovery];
    recovery.out = recovery.out.saturating_add(bytes);
    recovery.allowance = recovery.allowance.saturating_sub(bytes);
    if let Some(end) = again {
        recovery.again_end = recovery.again_end.later(end);
    }
}

/// Gives the connection a `Recovery` if it has none; `false`: there are too many.
#[cold]
pub fn open(group: &mut FlowGroup, index: u32) -> bool {
    let conn = &mut group.conns[index];
    if conn.recovery != NIL {
        return true;
    }
    let Some(place) = group.recoveries.alloc() else { return false };
    let una = conn.snd_una;
    group.recoveries[place] = Recovery { high: una, again_end: una, ..Recovery::default() };
    conn.recovery = place;
    true
}

/// Ends it.
fn close(group: &mut FlowGroup, index: u32) {
    let conn = &mut group.conns[index];
    if conn.recovery != NIL {
        group.recoveries.release(conn.recovery);
        conn.recovery = NIL;
    }
}

/// The connection is over: forgets what was under way.
pub fn abandon(group: &mut FlowGroup, index: u32) {
    close(group, index);
    let conn = &mut group.conns[index];
    sent::clear(conn, &mut group.sent);
    conn.sacked = 0;
    conn.lost = 0;
}

/// Whether the same acknowledgement again says that a segment has arrived (RFC 5681 §2); with
/// selective acknowledgements only those do.
fn repeats(conn: &Conn, packet: &Packet) -> bool {
    !conn.flags.contains(Flags::SACK)
        && packet.ack == conn.snd_una
        && packet.seq_len() == 0
        && conn.snd_una.before(conn.snd_max)
        && u32::from(packet.window) << conn.snd_shift == conn.snd_wnd
}

/// Takes an acknowledgement of a connection that has a `Recovery`, or that may begin one: it repeats the
/// last or has selective ones. `data` is what its buffer holds.
#[cold]
#[inline(never)]
pub fn acknowledged(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    packet: &Packet,
    data: &[u8],
) {
    let conn = &mut group.conns[index];
    let mut told = Told::default();
    if conn.flags.contains(Flags::SACK) {
        let blocks = wire::parse_options(packet.options(data)).sack;
        told = sack::sort_out(conn, packet.ack, &blocks);
    }
    if told.duplicate.is_some() {
        local.stats.add(Counter::TcpDuplicatesTold, 1);
        rack::duplicated(conn);
    }
    let advances = packet.ack.after(conn.snd_una);
    let repeats = repeats(conn, packet);
    let concerns = conn.recovery != NIL || !told.blocks.is_empty() || repeats;
    if !concerns || !open(group, index) {
        if advances {
            acks::advance(group, local, index, packet.ack);
        }
        return;
    }
    let (before, had_sacked) = (group.conns[index].snd_una, group.conns[index].sacked);
    let outstanding = group.conns[index].flight();
    let heard = deliver(group, local, index, packet, &told);
    let acked = packet.ack.since(before);
    if advances {
        measure(&mut group.conns[index], local, packet, &heard);
        acks::progress(&mut group.conns[index], local);
    }
    probed(group, local, index, packet, &told, outstanding);
    let lost = if group.conns[index].flags.contains(Flags::SACK) {
        heard.delivered
    } else {
        count(group, index, repeats, if advances { acked } else { 0 })
    };
    after(group, local, index, Ack { packet, acked, advances, outstanding, delivered: lost });
    let conn = &group.conns[index];
    if conn.sacked > had_sacked {
        acks::announce_window(group, local, index);
    }
}

/// What is known of an acknowledgement when its records have been dealt with.
struct Ack<'a> {
    packet: &'a Packet,
    acked: u32,
    advances: bool,
    outstanding: u32,
    delivered: u32,
}

/// How long ago what the peer answers was sent, by its echo of our timestamp.
fn echo(conn: &Conn, local: &Local, packet: &Packet) -> Option<Duration> {
    let (_, echo) = packet.ts?;
    let clock = local.ts_clock().wrapping_add(conn.ts_offset);
    let known = conn.flags.contains(Flags::TIMESTAMPS);
    known.then(|| Duration::from_ms(u64::from(clock.wrapping_sub(echo))))
}

/// Takes out what is acknowledged, and marks what is selectively.
fn deliver(
    group: &mut FlowGroup,
    local: &Local,
    index: u32,
    packet: &Packet,
    told: &Told,
) -> Heard {
    let FlowGroup { conns, sent: records, recoveries, segments, .. } = group;
    let conn = &mut conns[index];
    let recovery = &mut recoveries[conn.recovery];
    let now = sent::clock(local.now);
    let echo = echo(conn, local, packet);
    let (high, mut newest) = (recovery.high.later(conn.snd_una), recovery.newest);
    let mut heard = Heard::default();
    while packet.ack.after(conn.snd_una) {
        let record = conn.first;
        let end = if record.end.after(packet.ack) { packet.ack } else { record.end };
        let len = end.since(conn.snd_una);
        if record.marks.contains(Marks::SACKED) {
            conn.sacked -= len;
        } else {
            heard.delivered += len;
            heard.again |= record.marks.contains(Marks::AGAIN);
            if !record.marks.contains(Marks::AGAIN) && heard.rtt.is_none() {
                heard.rtt = Some(sent::since(now, record.at));
            }
            if end == record.end {
                rack::arrived(conn, &mut newest, &record, high, now, echo);
            }
        }
        if record.marks.contains(Marks::LOST) {
            conn.lost -= len;
        }
        conn.snd_una = end;
        if end == record.end && conn.sent_count > 0 {
            sent::pop(conn, records);
        }
    }
    if conn.snd_nxt.before(conn.snd_una) {
        conn.snd_nxt = conn.snd_una;
        crate::tcp::send_queue::catch_up(conn, segments);
    }
    let mut arrivals = arrayvec::ArrayVec::<Record, 16>::new();
    let delivered = &mut heard.delivered;
    sack::mark(conn, records, &told.blocks, |record, len| {
        *delivered += len;
        // A block that is news covers few records; of many the last ones were sent last.
        if arrivals.is_full() {
            arrivals.remove(0);
        }
        arrivals.push(*record);
    });
    for record in &arrivals {
        rack::arrived(conn, &mut newest, record, high, now, echo);
    }
    recovery.newest = newest;
    let last = told.blocks.last().map_or(conn.snd_una, |(_, right)| *right);
    recovery.high = high.later(conn.snd_una).later(last);
    heard
}

/// Measures the round trip: of what was sent once; else by the echo of a timestamp, which tells
/// transmissions apart, but only in milliseconds (RFC 7323 §4.1).
fn measure(conn: &mut Conn, local: &Local, packet: &Packet, heard: &Heard) {
    if packet.ack.before(conn.timed) {
        return;
    }
    let by_echo = echo(conn, local, packet).filter(|age| age.0 > 0 && heard.again);
    if let Some(rtt) = heard.rtt.filter(|_| !heard.again).or(by_echo) {
        conn.timed = conn.snd_max;
        conn.rtt.measured(rtt, local.profile.rto_min);
    }
}

/// Without selective acknowledgements: counts duplicates, each of which says that some segment has
/// arrived (RFC 6582 §3.2). Returns the bytes that are taken as delivered.
fn count(group: &mut FlowGroup, index: u32, repeats: bool, acked: u32) -> u32 {
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    let recovery = &mut recoveries[conn.recovery];
    let mss = u32::from(conn.mss);
    if repeats {
        recovery.dup_acks = recovery.dup_acks.saturating_add(1);
        if recovery.stage == Stage::Timeout {
            return 0;
        }
        let before = conn.sacked;
        let most = conn.flight().saturating_sub(conn.lost);
        conn.sacked = (before + mss).min(most).max(before);
        let third = recovery.dup_acks == DUP_ACKS && recovery.stage == Stage::Disorder;
        if third && conn.snd_una.after(conn.recover) {
            lose_first(conn, records);
        }
        return conn.sacked - before;
    }
    if acked == 0 {
        return 0;
    }
    let counted = conn.sacked.min(acked.saturating_sub(mss));
    match recovery.stage {
        // A partial acknowledgement: the next hole (§3.2 step 3).
        Stage::Fast if conn.snd_una.before(conn.recover) => {
            conn.sacked -= counted;
            lose_first(conn, records);
        }
        _ => {
            recovery.dup_acks = 0;
            conn.sacked = 0;
        }
    }
    acked - counted
}

/// Takes the first record for lost, unless it was sent again already.
fn lose_first(conn: &mut Conn, records: &Records) {
    let first = sent::get(conn, records, sent::FIRST);
    if conn.snd_una != conn.snd_max && !first.marks.intersects(Marks::LOST | Marks::AGAIN) {
        conn.first.marks |= Marks::LOST;
        let len = first.end.since(conn.snd_una);
        conn.lost += len;
        conn.sacked = conn.sacked.min(conn.flight() - conn.lost.min(conn.flight()));
    }
}

/// What an acknowledgement says about the loss probe (RFC 8985 §7.4.2).
fn probed(
    group: &mut FlowGroup,
    local: &Local,
    index: u32,
    packet: &Packet,
    told: &Told,
    outstanding: u32,
) {
    let conn = &mut group.conns[index];
    let recovery = &mut group.recoveries[conn.recovery];
    let Some(probe) = recovery.probe.filter(|probe| !packet.ack.before(probe.end)) else { return };
    let twice = told.duplicate.is_some_and(|(_, right)| right == probe.end);
    let repeated = packet.ack == probe.end
        && conn.snd_una == packet.ack
        && outstanding == conn.flight()
        && packet.seq_len() == 0
        && told.blocks.is_empty();
    if !probe.again || twice || repeated {
        recovery.probe = None;
    } else if packet.ack.after(probe.end) {
        // It has repaired the only loss of a flight, which is a loss all the same.
        recovery.probe = None;
        if recovery.stage == Stage::Disorder {
            conn.cc.lost(outstanding, u32::from(conn.mss), local.now);
            conn.cc.recovered(conn.pipe(), u32::from(conn.mss), local.now);
        }
    }
}

/// What follows from an acknowledgement: stages begin and end, losses are found, the window and the
/// timer are set.
fn after(group: &mut FlowGroup, local: &mut Local, index: u32, ack: Ack<'_>) {
    let mss = u32::from(group.conns[index].mss);
    if ack.advances {
        ended(group, local, index, ack.packet);
        let conn = &mut group.conns[index];
        let fast = group.recoveries[conn.recovery].stage == Stage::Fast;
        if !fast && ack.outstanding + mss > conn.cc.window() {
            let rtt_us = conn.rtt.smoothed_us();
            conn.cc.acked(ack.acked, mss, rtt_us, local.now);
        }
    }
    let wait = find(group, local, index, ack.outstanding);
    let conn = &mut group.conns[index];
    reduce(conn, &mut group.recoveries, ack.delivered);
    if ack.advances {
        rack::restart(conn, local.now);
    }
    wait_for_order(conn, wait, local.now);
    settle(group, index);
    let conn = &group.conns[index];
    if acks::has_to_send(conn) {
        group.want_output(index, local);
    }
    if ack.advances {
        acks::release(group, local, index);
    }
    group.arm(index, local);
}

/// Looks for losses; with the first, fast recovery begins. Returns how long to wait for more.
fn find(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    outstanding: u32,
) -> Option<Duration> {
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    let recovery = &mut recoveries[conn.recovery];
    let mut wait = None;
    if conn.flags.contains(Flags::SACK) {
        wait = rack::detect(conn, records, recovery, sent::clock(local.now));
    }
    if conn.lost > 0 && recovery.stage == Stage::Disorder {
        local.stats.add(Counter::TcpRecoveries, 1);
        recovery.stage = Stage::Fast;
        recovery.flight = outstanding.max(1);
        recovery.delivered = 0;
        recovery.out = 0;
        recovery.probe = None;
        conn.recover = conn.snd_max;
        conn.flags |= Flags::RECOVERY;
        conn.cc.lost(outstanding, u32::from(conn.mss), local.now);
        // The first goes out whatever the rest says (RFC 6937 §3).
        recovery.allowance = u32::from(conn.mss);
    }
    wait
}

/// Proportional rate reduction (RFC 6937 §3.1, with the slow-start reduction bound).
fn reduce(conn: &Conn, recoveries: &mut Recoveries, delivered: u32) {
    let recovery = &mut recoveries[conn.recovery];
    if recovery.stage != Stage::Fast {
        return;
    }
    let (pipe, target, mss) = (conn.pipe(), conn.cc.window(), u32::from(conn.mss));
    recovery.delivered = recovery.delivered.saturating_add(delivered);
    let allowance = if pipe > target {
        let share = u64::from(recovery.delivered) * u64::from(target);
        let share = share.div_ceil(u64::from(recovery.flight));
        share.saturating_sub(u64::from(recovery.out)).min(u64::from(u32::MAX)) as u32
    } else {
        let limit = recovery.delivered.saturating_sub(recovery.out).max(delivered) + mss;
        (target - pipe).min(limit)
    };
    let first = if recovery.out == 0 { mss } else { 0 };
    recovery.allowance = allowance.max(first);
}

/// New data is acknowledged: perhaps all that a stage was about.
fn ended(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet) {
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    let recovery = &mut recoveries[conn.recovery];
    let done = !conn.snd_una.before(conn.recover);
    match recovery.stage {
        Stage::Disorder => {}
        Stage::Fast if done => {
            conn.flags -= Flags::RECOVERY;
            recovery.dup_acks = 0;
            if !conn.flags.contains(Flags::SACK) {
                conn.sacked = 0;
            }
            recovery.stage = Stage::Disorder;
            conn.cc.recovered(conn.pipe(), u32::from(conn.mss), local.now);
            rack::recovered(conn);
        }
        Stage::Fast => {}
        Stage::Timeout => {
            // RFC 3522 §3.2: the answer is to what was sent before the timeout.
            if let Some(at) = recovery.undo.take()
                && let Some((_, echo)) = packet.ts
                && (echo.wrapping_sub(at) as i32) < 0
            {
                local.stats.add(Counter::TcpSpuriousTimeouts, 1);
                conn.cc.undo();
                unlose(conn, records);
                recovery.stage = Stage::Disorder;
            } else if done {
                recovery.stage = Stage::Disorder;
                rack::recovered(conn);
            }
        }
    }
}

/// Nothing was lost after all.
fn unlose(conn: &mut Conn, records: &mut Records) {
    let mut at = sent::head(conn);
    while at != NIL {
        let record = sent::get_mut(conn, records, at);
        record.marks -= Marks::LOST;
        at = record.next;
    }
    conn.lost = 0;
}

/// Waits until what is late has had its time.
fn wait_for_order(conn: &mut Conn, wait: Option<Duration>, now: Instant) {
    if let Some(wait) = wait {
        let at = now + wait;
        if at < conn.rto_at {
            conn.timer = Timer::Reorder;
            conn.rto_at = at;
        }
    } else if conn.timer == Timer::Reorder {
        rack::restart(conn, now);
    }
}

/// Ends the recovery if nothing is left to be recovered.
fn settle(group: &mut FlowGroup, index: u32) {
    let conn = &group.conns[index];
    let recovery = &group.recoveries[conn.recovery];
    let over = recovery.stage == Stage::Disorder
        && recovery.probe.is_none()
        && recovery.dup_acks == 0
        && conn.sacked == 0
        && conn.lost == 0
        && !recovery.again_end.after(conn.snd_una);
    if over {
        close(group, index);
    }
}

/// The connection's timer has fired, for what is under way.
pub fn timer_fired(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if matches!(conn.state, State::SynSent | State::SynReceived) {
        return syn_timed_out(group, local, index);
    }
    if conn.snd_una == conn.snd_max {
        conn.rto_at = timers::next_try(conn, local);
        return group.want_output(index, local);
    }
    match core::mem::take(&mut conn.timer) {
        Timer::Reorder if conn.recovery != NIL => {
            // Not a timeout: some time has passed in which the rest could still have come.
            let outstanding = conn.flight();
            let wait = find(group, local, index, outstanding);
            let conn = &mut group.conns[index];
            rack::restart(conn, local.now);
            wait_for_order(conn, wait, local.now);
            group.want_output(index, local);
        }
        Timer::Probe => {
            conn.rto_at = timers::next_try(conn, local);
            if conn.recovery == NIL {
                conn.flags |= Flags::RETRANSMIT;
                group.want_output(index, local);
            }
        }
        _ => timed_out(group, local, index),
    }
}

/// No answer to our SYN, or SYN-ACK.
fn syn_timed_out(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if conn.snd_una != conn.snd_max {
        local.stats.add(Counter::TcpTimeouts, 1);
        if conn.retries == 0 {
            conn.cc.timed_out(conn.flight(), u32::from(conn.mss), local.now);
        }
        conn.retries = conn.retries.saturating_add(1);
        conn.rtt.back_off();
        conn.flags |= Flags::BACKED_OFF;
        conn.snd_nxt = conn.snd_una;
    }
    conn.rto_at = timers::next_try(conn, local);
    group.want_output(index, local);
}

/// The retransmission timer (RFC 6298 §5.4–5.6, RFC 5681 §3.1): all that the peer has not told of is
/// lost.
fn timed_out(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let opened = open(group, index);
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    local.stats.add(Counter::TcpTimeouts, 1);
    pmtu::timed_out(conn, local);
    if conn.retries == 0 {
        conn.cc.timed_out(conn.flight(), u32::from(conn.mss), local.now);
    }
    conn.retries = conn.retries.saturating_add(1);
    conn.rtt.back_off();
    conn.flags |= Flags::BACKED_OFF;
    conn.flags -= Flags::RECOVERY;
    conn.recover = conn.snd_max;
    if opened {
        let recovery = &mut recoveries[conn.recovery];
        recovery.undo = None;
        if conn.retries == 1 && conn.flags.contains(Flags::TIMESTAMPS) {
            recovery.undo = Some(local.ts_clock().wrapping_add(conn.ts_offset));
        }
        recovery.stage = Stage::Timeout;
        recovery.dup_acks = 0;
        recovery.probe = None;
        lose_all(conn, records);
    } else {
        // No place for marks: the oldest alone, again and again, is slow but gets there.
        conn.flags |= Flags::RETRANSMIT;
    }
    // Also if its turn to be sent does not come: time runs out all the same.
    conn.rto_at = timers::next_try(conn, local);
    group.want_output(index, local);
}

/// What is under way is in segments that the path does not take: all of it goes out again in smaller ones.
/// That says nothing of the network's load (RFC 1191 §6.4).
#[cold]
pub fn resegment(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let opened = open(group, index);
    let FlowGroup { conns, sent: records, .. } = group;
    let conn = &mut conns[index];
    if opened {
        lose_all(conn, records);
    } else {
        conn.flags |= Flags::RETRANSMIT;
    }
    group.want_output(index, local);
}

/// Marks all as lost that the peer has not told of.
fn lose_all(conn: &mut Conn, records: &mut Records) {
    if !conn.flags.contains(Flags::SACK) {
        conn.sacked = 0;
    } else if conn.first.marks.contains(Marks::SACKED) {
        // It has told of the first, and does not acknowledge it: it has dropped what it had.
        sack::forget(conn, records);
    }
    conn.lost = 0;
    let mut at = sent::head(conn);
    let mut start = conn.snd_una;
    while at != NIL {
        let record = sent::get_mut(conn, records, at);
        let (end, next) = (record.end, record.next);
        if !record.marks.contains(Marks::SACKED) {
            record.marks |= Marks::LOST;
            conn.lost += end.since(start);
        }
        (start, at) = (end, next);
    }
}

/// Whether the records of a connection cover what is under way without a gap, and its counts are
/// those of their marks; for tests. Walks them all.
pub fn is_consistent(group: &FlowGroup, conn: &Conn) -> bool {
    let (mut sacked, mut lost, mut count) = (0, 0, 0);
    let mut start = conn.snd_una;
    let mut at = sent::head(conn);
    let mut last = sent::FIRST;
    while at != NIL && count <= u32::from(conn.sent_count) {
        let record = sent::get(conn, &group.sent, at);
        let len = record.end.since(start);
        if len == 0 || record.end.after(conn.snd_max) {
            return false;
        }
        sacked += if record.marks.contains(Marks::SACKED) { len } else { 0 };
        lost += if record.marks.contains(Marks::LOST) { len } else { 0 };
        count += 1;
        (start, last, at) = (record.end, at, record.next);
    }
    let by_marks = conn.flags.contains(Flags::SACK);
    let idle = conn.snd_una == conn.snd_max;
    at == NIL
        && (idle && conn.sent_count == 0 || start == conn.snd_max && last == conn.sent_tail)
        && (idle || count == u32::from(conn.sent_count) + 1)
        && (sacked == conn.sacked || !by_marks)
        && lost == conn.lost
        && (conn.recovery != NIL || sacked + lost == 0)
}

/// Whether all records and recoveries in use are some connection's; for tests.
pub fn all_returned(group: &FlowGroup) -> bool {
    let used = |index| &group.conns[index];
    let live = |conn: &&Conn| !conn.flags.contains(Flags::FREED);
    let conns = || (0..group.conns.capacity()).map(used).filter(live);
    let records: u32 = conns().map(|conn| u32::from(conn.sent_count)).sum();
    let recoveries = conns().filter(|conn| conn.recovery != NIL).count();
    records == group.sent.len() && recoveries == group.recoveries.len() as usize
}
