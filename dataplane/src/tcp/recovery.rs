//! Loss recovery: what acknowledgements do once something is missing, and what timeouts do (RFC 5681
//! §3.2, RFC 6582, RFC 6675, RFC 6937, RFC 8985).
//!
//! A connection has a [`Recovery`] from the first sign of a loss until all that was sent again is
//! acknowledged; in between its records carry marks. Without one, nothing here runs. With selective
//! acknowledgements losses are found by [`rack`](crate::tcp::rack), without by counting duplicate
//! ones; what then is sent, and how much, does not depend on how.
mod books;
mod duplicates;
mod probes;
mod prr;
mod timeouts;

use self::duplicates::{count, repeats};
use self::probes::probed;
use self::prr::{Account, reduce};
use self::timeouts::was_needless;
use crate::conn::{Conn, Flags};
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::limits::RECOVERIES_PER_GROUP;
use crate::local::Local;
use crate::slab::Slab;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::rack::{self, Newest, Timer};
use crate::tcp::sack::{self, Told};
use crate::tcp::sent::{self, Marks, Record};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, Packet};
use crate::tcp::{acks, congestion};
use crate::time::Duration;
use ix_abi::stats::Counter;

pub use self::books::{all_returned, is_consistent};
pub use self::prr::{allowance, went_out};
pub use self::timeouts::{resegment, timer_fired};

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
    /// What may go out during fast recovery.
    account: Account,
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
    let age = clock.wrapping_sub(echo);
    // One of the future was never sent.
    (known && age as i32 >= 0).then(|| Duration::from_ms(u64::from(age)))
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
    // What is under way was sent at most a timeout before anything was missed: an echo of what is older is a lie.
    let longest = local.now.since(conn.trying_since) + conn.rtt.timeout();
    let by_echo = echo(conn, local, packet).filter(|age| age.0 > 0 && *age <= longest);
    let by_echo = by_echo.filter(|_| heard.again);
    if let Some(rtt) = heard.rtt.filter(|_| !heard.again).or(by_echo) {
        conn.timed = conn.snd_max;
        conn.rtt.measured(rtt, local.rto_min_us);
    }
}

/// What follows from an acknowledgement: stages begin and end, losses are found, the window and the
/// timer are set.
fn after(group: &mut FlowGroup, local: &mut Local, index: u32, ack: Ack<'_>) {
    if ack.advances {
        ended(group, local, index, ack.packet);
        let conn = &mut group.conns[index];
        let fast = group.recoveries[conn.recovery].stage == Stage::Fast;
        if !fast {
            congestion::grow(conn, ack.acked, ack.outstanding, local.now);
        }
    }
    let wait = find(group, local, index, ack.outstanding);
    let conn = &mut group.conns[index];
    reduce(conn, &mut group.recoveries, ack.delivered, ack.advances);
    if ack.advances {
        rack::restart(conn, local);
    }
    wait_for_order(conn, wait, local);
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
        recovery.account = Account::new(outstanding, u32::from(conn.mss));
        recovery.probe = None;
        conn.recover = conn.snd_max;
        conn.flags |= Flags::RECOVERY;
        let flight = congestion::within_window(conn, outstanding);
        conn.cc.lost(flight, u32::from(conn.mss), local.now);
    }
    wait
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
            if was_needless(conn, records, recovery, packet) {
                local.stats.add(Counter::TcpSpuriousTimeouts, 1);
                recovery.stage = Stage::Disorder;
            } else if done {
                recovery.stage = Stage::Disorder;
                rack::recovered(conn);
            }
        }
    }
}

/// Waits until what is late has had its time.
fn wait_for_order(conn: &mut Conn, wait: Option<Duration>, local: &Local) {
    if let Some(wait) = wait {
        let at = local.now + wait;
        if at < conn.rto_at {
            conn.timer = Timer::Reorder;
            conn.rto_at = at;
        }
    } else if conn.timer == Timer::Reorder {
        rack::restart(conn, local);
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
