//! Segments without a connection, and the beginnings of connections: SYNs for listeners, the end of
//! the handshake, `connect`.
use crate::acl::answers::may_tell;
use crate::acl::{self, Counts};
use crate::conn::{Conn, Flags, Pending, State};
use crate::family::Family;
use crate::flow_table::FlowKey;
use crate::group::FlowGroup;
use crate::limits::{MSS_DEFAULT, MSS_DEFAULT_V6, MSS_MIN, RECEIVE_WINDOW};
use crate::limits::{PORT_TRIES, PORT_TRIES_PER_CORE};
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::ports::{Port, SLOTS, Waiting};
use crate::profile::Profile;
use crate::settings::Settings;
use crate::tcp::congestion::{Congestion, CongestionControl};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, Emit, Packet, flag};
use crate::tcp::{close, ecn, keep_alive, stateless, time_wait, timestamps};
use crate::time::Instant;
use crate::tx::Staged;
use arrayvec::ArrayVec;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{Handle, SocketAddress};
use ix_acl::{Direction, Flow, Protocol};

/// The window in our SYNs, which is never scaled.
pub const SYN_WINDOW: u16 = if RECEIVE_WINDOW < 0xffff { RECEIVE_WINDOW as u16 } else { 0xffff };

/// A segment that belongs to no connection (RFC 9293 §3.10.7.1 and .2). If a SYN has ended the TIME-WAIT
/// of an old one, the new one's sequence numbers are to lie `after` that's.
#[inline(never)]
pub fn stranger(
    group: &mut FlowGroup,
    local: &mut Local,
    packet: &Packet,
    mbuf: Mbuf,
    after: Option<WrappingSeq>,
) {
    let opens = packet.flags & (flag::SYN | flag::ACK | flag::FIN | flag::RST) == flag::SYN;
    let counts = if opens { Counts::Connection } else { Counts::Nothing };
    let judged = match local.acl {
        None => Ok(acl::UNLIMITED),
        Some(_) => acl::judge(local, &flow(local, Direction::In, packet), counts),
    };
    let rule = *judged.as_ref().unwrap_or(&acl::UNLIMITED);
    if let Err(action) = judged {
        if !packet.has(flag::RST) && may_tell(local, action) {
            reset_answer(local, packet, &mbuf);
        }
    } else if packet.has(flag::RST) {
        local.stats.drop(Drop::TcpNoPort);
    } else if opens {
        open(group, local, packet, &mbuf, rule, after);
    } else {
        let brings_cookie =
            packet.has(flag::ACK) && !packet.has(flag::SYN) && local.now < group.cookies_until;
        let mbuf = if brings_cookie {
            match stateless::complete(group, local, packet, mbuf, rule) {
                Ok(()) => return,
                Err(mbuf) => mbuf,
            }
        } else {
            mbuf
        };
        local.stats.drop(Drop::TcpNoPort);
        refuse(local, packet, &mbuf);
        return local.pool.free(mbuf);
    }
    local.pool.free(mbuf);
}

/// The packet's flow, in either direction.
#[inline(never)]
fn flow(local: &Local, direction: Direction, packet: &Packet) -> Flow {
    let ports = (packet.key.remote_port, packet.key.local_port);
    let here = local.ip_at(packet.local);
    acl::flow(here, direction, Protocol::Tcp, packet.key.remote, ports)
}

/// RST for a segment that concerns nobody, if the rules let it out.
fn refuse(local: &mut Local, packet: &Packet, mbuf: &Mbuf) {
    let answer = flow(local, Direction::Out, packet);
    if acl::judge(local, &answer, Counts::Nothing).is_ok() {
        reset_answer(local, packet, mbuf);
    }
}

/// Whether a SYN would get a slot now, as far as handshakes and knocks are concerned.
pub fn has_room(group: &FlowGroup, local: &mut Local, packet: &Packet) -> bool {
    let Some(port) = local.listener(packet.key.local_port, packet.local) else { return true };
    let Waiting { half_open, knocked } = port.waiting;
    half_open < port.backlog && knocked < port.backlog && group.may_begin()
}

/// A SYN: a half-open connection if somebody listens and the backlog has room, a cookie if handshakes
/// fill it, nothing if the application does not accept.
#[inline(always)]
pub fn open(
    group: &mut FlowGroup,
    local: &mut Local,
    packet: &Packet,
    mbuf: &Mbuf,
    rule: u16,
    after: Option<WrappingSeq>,
) {
    let Some(port) = local.listener(packet.key.local_port, packet.local) else {
        local.stats.drop(Drop::TcpNoPort);
        return refuse(local, packet, mbuf);
    };
    let Port { handle: listener, settings, backlog, waiting, .. } = *port;
    if waiting.knocked >= backlog {
        return local.stats.drop(Drop::TcpBacklogFull);
    }
    if waiting.half_open >= backlog || !group.may_begin() {
        return stateless::answer(group, local, packet, mbuf);
    }
    let offer = wire::syn_options(packet.options(local.pool.area().data(mbuf)));
    let opening = Opening { irs: packet.seq, offer: &offer, listener, settings, rule, after };
    let Some(index) = begin(group, local, packet, &opening) else { return };
    // The clock runs from here, not from when the answer's turn to be sent has come.
    let conn = &mut group.conns[index];
    conn.trying_since = local.now;
    // Neither is so long that it would overflow.
    conn.rto_at = Instant(local.now.0 + conn.rtt.timeout().0);
    // The first request wants its acknowledgement by then; so early, the wheel need not be moved for it.
    let at = conn.rto_at.min(Instant(local.now.0 + local.profile.delayed_ack.0));
    conn.timer_at = at;
    conn.flags |= Flags::IN_OUTPUT;
    group.arm_first(index, at, local);
    group.want_first_output(index, local);
}

/// What is known of a connection that a peer opens.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The peer's initial sequence number.
    pub irs: WrappingSeq,
    /// What its SYN offered.
    pub offer: &'a wire::Options,
    /// Whom it wants.
    pub listener: Handle,
    /// What it begins with.
    pub settings: Settings,
    /// The rule by whose limits it counts.
    pub rule: u16,
    /// Ours has to lie after this.
    pub after: Option<WrappingSeq>,
}

/// A connection in SYN-RECEIVED.
#[inline(always)]
pub fn begin(
    group: &mut FlowGroup,
    local: &mut Local,
    packet: &Packet,
    opening: &Opening<'_>,
) -> Option<u32> {
    let index = group.allocate(local)?;
    let conn = &mut group.conns[index];
    conn.set_key(&packet.key);
    conn.hash = packet.hash;
    at_slot(conn, packet.local);
    conn.listener = opening.listener;
    conn.settings = opening.settings;
    conn.state = State::SynReceived;
    start(conn, local, opening.after);
    take_offer(conn, local, opening.irs, packet, opening.offer);
    conn.flags |= Flags::IN_BACKLOG;
    if !acl::opened(conn, local, opening.rule) || !group.enter(index, local) {
        not_begun(group, local, index);
        return None;
    }
    group.half_open += 1;
    group.backlog[opening.listener.index() as usize % SLOTS].half_open += 1;
    if let Some(port) = local.listeners.by_handle(opening.listener) {
        port.waiting.half_open += 1;
    }
    Some(index)
}

/// The connection cannot be counted, or entered.
#[cold]
fn not_begun(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    acl::closed(conn, local);
    conn.state = State::Closed;
    conn.flags = Flags::APP_GONE;
    group.free_if_done(index, local);
}

/// A handshake is complete: no longer one of them, but one that knocks. `false`: the application has not
/// accepted those before, and there is no room.
pub fn may_knock(group: &mut FlowGroup, local: &mut Local, index: u32) -> bool {
    let conn = &group.conns[index];
    if !conn.flags.contains(Flags::IN_BACKLOG) {
        return true;
    }
    let listener = conn.listener;
    if let Some(port) = local.listeners.by_handle(listener) {
        if port.waiting.knocked >= port.backlog {
            local.stats.drop(Drop::TcpBacklogFull);
            return false;
        }
        port.waiting.completed();
    }
    group.half_open = group.half_open.saturating_sub(1);
    group.backlog[listener.index() as usize % SLOTS].completed();
    true
}

/// Which of our addresses is the connection's.
fn at_slot(conn: &mut Conn, slot: u8) {
    conn.local = slot;
    conn.flags.set(Flags::V6, slot != 0);
}

/// Segment size of a peer that names none.
pub fn mss_default(slot: u8) -> u16 {
    if slot == 0 { MSS_DEFAULT } else { MSS_DEFAULT_V6 }
}

/// Our side of a new connection: initial sequence number (RFC 6528), sizes until the peer says more.
#[inline(always)]
fn start(conn: &mut Conn, local: &Local, after: Option<WrappingSeq>) {
    let ports = (conn.local_port(), conn.remote_port());
    let (iss, ts_offset) = if conn.local == 0 {
        let [.., a, b, c, d] = conn.remote.0;
        local.isn_key.initial_numbers_v4(local.address, [a, b, c, d], ports, local.now)
    } else {
        let here = SocketAddress { ip: local.ip_at(conn.local), port: ports.0, scope: 0 };
        let there = SocketAddress { ip: conn.remote, port: ports.1, scope: 0 };
        local.isn_key.initial_numbers(here, there, local.now)
    };
    begin_at(conn, time_wait::beyond(WrappingSeq(iss), after));
    conn.ts_offset = ts_offset;
    conn.mss = mss_default(conn.local).min(local.mss_at(conn.local));
    conn.cc = Congestion::new(conn.settings.algorithm(local.congestion));
}

/// Our initial sequence number; nothing is sent yet.
pub fn begin_at(conn: &mut Conn, iss: WrappingSeq) {
    conn.iss = iss;
    conn.snd_una = iss;
    conn.snd_nxt = iss;
    conn.snd_max = iss;
    conn.snd_end = iss.plus(1);
    conn.released = iss.plus(1);
    conn.recover = iss;
    conn.timed = iss;
    conn.duplicate_round = iss;
}

/// Takes what the peer's SYN says.
pub fn take_syn(conn: &mut Conn, local: &Local, packet: &Packet, mbuf: &Mbuf) {
    let data = local.pool.area().data(mbuf);
    let offer = wire::syn_options(packet.options(data));
    take_offer(conn, local, packet.seq, packet, &offer);
}

/// Takes what a SYN with sequence number `irs` has offered.
#[inline(always)]
fn take_offer(
    conn: &mut Conn,
    local: &Local,
    irs: WrappingSeq,
    packet: &Packet,
    options: &wire::Options,
) {
    conn.rcv_nxt = irs.plus(1);
    // What our own SYN announces, or has announced.
    conn.rcv_edge = conn.rcv_nxt.plus(u32::from(SYN_WINDOW));
    conn.wl1 = irs;
    conn.wl2 = packet.ack;
    let peer = options.mss.unwrap_or(mss_default(conn.local)).max(MSS_MIN);
    conn.mss = peer.min(local.mss_at(conn.local));
    if let Some((value, _)) = options.timestamps {
        timestamps::begin(conn, local.now, value);
        // Every segment has them (RFC 6691 §3).
        conn.mss -= wire::TIMESTAMPS as u16;
    }
    if options.sack_permitted {
        conn.flags |= Flags::SACK;
    }
    if let Some(shift) = options.shift {
        conn.snd_shift = shift;
        conn.flags |= Flags::SCALED;
    }
    ecn::take_syn(conn, local, packet);
    // The window of a segment with SYN is never scaled (RFC 7323 §2.2).
    conn.snd_wnd = u32::from(packet.window);
    conn.max_wnd = conn.snd_wnd;
    conn.cc.start(u32::from(conn.mss), local.now);
}

/// The handshake is complete: a knock, or the outcome of `connect`.
pub fn established(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    if conn.flags.contains(Flags::ACTIVE) {
        local.stats.add(Counter::TcpConnected, 1);
        if !conn.flags.contains(Flags::APP_CLOSED) {
            group.want_event(index, Pending::CONNECTED, local);
        }
    } else {
        local.stats.add(Counter::TcpAccepted, 1);
        if local.listeners.by_handle(conn.listener).is_none() {
            // The listener went away meanwhile: nobody would ever accept it.
            return close::abort(group, local, index, ix_abi::DeadReason::Evicted);
        }
        group.want_event(index, Pending::KNOCK, local);
    }
    if group.conns[index].settings.keep_alive().is_some() {
        keep_alive::restart(group, local, index);
        let conn = &mut group.conns[index];
        // The acknowledgement of our SYN, which is still to be taken, is no sign of life of its own.
        conn.keep_mark = conn.keep_mark.wrapping_add(u32::from(conn.snd_una == conn.iss));
    }
}

/// `connect`: a connection in SYN-SENT in this group, with sequence numbers `after` those of an old one.
pub fn connect(
    group: &mut FlowGroup,
    local: &mut Local,
    (key, hash, slot): Dial,
    rule: u16,
    after: Option<WrappingSeq>,
) -> Option<u32> {
    let index = group.allocate(local)?;
    let conn = &mut group.conns[index];
    conn.set_key(&key);
    conn.hash = hash;
    conn.state = State::SynSent;
    conn.flags |= Flags::ACTIVE | Flags::ACCEPTED;
    at_slot(conn, slot);
    start(conn, local, after);
    conn.cc.start(u32::from(conn.mss), local.now);
    if !acl::opened(conn, local, rule) || !group.enter(index, local) {
        not_begun(group, local, index);
        return None;
    }
    let conn = &mut group.conns[index];
    trying(conn, local.now);
    conn.rto_at = local.now + conn.rtt.timeout();
    group.arm(index, local);
    group.want_output(index, local);
    Some(index)
}

/// RST in answer to a segment (RFC 9293 §3.10.7.1), back to where it came from.
pub fn reset_answer(local: &mut Local, packet: &Packet, mbuf: &Mbuf) {
    let (seq, ack, flags) = if packet.has(flag::ACK) {
        (packet.ack, WrappingSeq(0), flag::RST)
    } else {
        (WrappingSeq(0), packet.seq.plus(packet.seq_len()), flag::RST | flag::ACK)
    };
    if answer(local, packet, mbuf, &Answer { seq, ack, flags, window: 0 }, &[]) {
        local.stats.add(Counter::TcpResetsSent, 1);
    }
}

/// What an answer says that no connection gives.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Sequence number.
    pub seq: WrappingSeq,
    /// Acknowledgement number.
    pub ack: WrappingSeq,
    /// Control bits.
    pub flags: u8,
    /// Window.
    pub window: u16,
}

/// Stages an answer to a segment, back to where it came from. `false`: it could not be.
pub fn answer(
    local: &mut Local,
    packet: &Packet,
    mbuf: &Mbuf,
    answer: &Answer,
    options: &[u8],
) -> bool {
    if packet.local == 0 {
        answer_of::<[u8; 4]>(local, packet, mbuf, answer, options)
    } else {
        answer_of::<[u8; 16]>(local, packet, mbuf, answer, options)
    }
}

fn answer_of<A: Family>(
    local: &mut Local,
    packet: &Packet,
    mbuf: &Mbuf,
    answer: &Answer,
    options: &[u8],
) -> bool {
    let data = local.pool.area().data(mbuf);
    let frame = usize::from(packet.frame);
    let Some(mac_to) = data.get(frame + 6..frame + 12).and_then(|b| b.first_chunk::<6>()) else {
        return false;
    };
    let (ip_from, ip_to) = (A::own(local, packet.local), A::from_ip(packet.key.remote));
    let emit = Emit {
        mac_to: *mac_to,
        mac_from: local.mac,
        ip_from,
        ip_to,
        port_from: packet.key.local_port,
        port_to: packet.key.remote_port,
        seq: answer.seq,
        ack: answer.ack,
        flags: answer.flags,
        window: answer.window,
        tos: 0,
        hops: local.v6.config.hops,
    };
    let mut bytes = ArrayVec::from([0; 96]);
    let headers = A::BELOW + wire::HEADER;
    bytes.truncate(headers + options.len());
    wire::emit(&mut bytes, &emit, options.len(), 0);
    bytes[headers..].copy_from_slice(options);
    wire::checksum_in_place(&mut bytes, ip_from, ip_to);
    let staged = local.tx.stage(Staged::Bytes(bytes)).is_ok();
    if !staged {
        local.stats.drop(Drop::TxRingFull);
    }
    staged
}

/// A flow that is to be opened: its key and hash, and the slot of our address.
pub type Dial = (FlowKey, u32, u8);

/// Looks for a source port from our address in `slot` towards `remote` whose answers hash to a group of this
/// core: a free one, or if there is none, that of a connection in TIME-WAIT, which is then given as well,
/// whose place may be taken.
pub fn choose_port(
    groups: &[Option<alloc::boxed::Box<FlowGroup>>],
    local: &mut Local,
    remote: SocketAddress,
    slot: u8,
) -> Option<(Dial, Option<u32>)> {
    let random = local.rng.next_u32();
    // Bounded: when the ports are used up, each attempt would look at them all.
    let tries = PORT_TRIES.max(PORT_TRIES_PER_CORE * usize::from(local.cores));
    let most = tries.min(crate::rss::SOURCE_PORTS as usize);
    let mut spare = None;
    let ports = match remote.ip.to_v4() {
        Some(to) => local.toeplitz.source_ports_v4(local.address, to, remote.port, random),
        None => {
            let from = local.v6.address(slot);
            local.toeplitz.source_ports_v6(from, remote.ip.0, remote.port, random)
        }
    };
    for (port, hash) in ports.take(most) {
        let id = crate::rss::group_of(hash, local.groups);
        if local.leaving.contains(id) {
            continue;
        }
        let Some(group) = groups.get(usize::from(id.0)).and_then(Option::as_ref) else { continue };
        let key = FlowKey { remote: remote.ip, remote_port: remote.port, local_port: port };
        let dial = (key, hash, slot);
        match group.table.find_at(&group.conns, hash, &key, slot) {
            None => return Some((dial, None)),
            Some(old) if spare.is_none() && time_wait::may_reopen(group.conns.at(old), local) => {
                spare = Some((dial, Some(old)));
            }
            Some(_) => {}
        }
    }
    spare
}

/// How long it is tried in vain before an attempt, or the connection, is given up.
pub fn patience(conn: &Conn, profile: &Profile) -> crate::time::Duration {
    let ours = conn.flags.contains(Flags::ACTIVE);
    match (conn.state, conn.settings.user_timeout()) {
        // Answers to SYNs cost a peer nothing.
        (State::SynReceived, _) if !ours => profile.handshake_timeout,
        (_, Some(wanted)) => wanted,
        (State::SynSent | State::SynReceived, None) => profile.connect_timeout,
        (_, None) => profile.user_timeout,
    }
}

/// Starts the clock of [`patience`].
pub fn trying(conn: &mut Conn, now: Instant) {
    if conn.trying_since == Instant::NEVER {
        conn.trying_since = now;
    }
}
