//! Segments without a connection, and the beginnings of connections: SYNs for listeners, the end of
//! the handshake, `connect`, and what TIME-WAIT still answers.
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
use crate::ports::SLOTS;
use crate::tcp::congestion::{Congestion, CongestionControl};
use crate::tcp::input::challenge;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, Emit, Packet, flag};
use crate::tcp::{acks, close, timestamps};
use crate::time::Instant;
use crate::tx::Staged;
use arrayvec::ArrayVec;
use ix_abi::SocketAddress;
use ix_abi::stats::{Counter, Drop};
use ix_acl::{Direction, Flow, Protocol};

/// The window in our SYNs, which is never scaled.
pub const SYN_WINDOW: u16 = if RECEIVE_WINDOW < 0xffff { RECEIVE_WINDOW as u16 } else { 0xffff };

/// A segment that belongs to no connection (RFC 9293 §3.10.7.1 and .2).
#[inline(never)]
pub fn stranger(group: &mut FlowGroup, local: &mut Local, packet: &Packet, mbuf: Mbuf) {
    let opens = packet.flags & (flag::SYN | flag::ACK | flag::FIN | flag::RST) == flag::SYN;
    let counts = if opens { Counts::Connection } else { Counts::Nothing };
    let judged = acl::judge(local, &flow(local, Direction::In, packet), counts);
    if let Err(action) = judged {
        if !packet.has(flag::RST) && may_tell(local, action) {
            reset_answer(local, packet, &mbuf);
        }
    } else if packet.has(flag::RST) {
        local.stats.drop(Drop::TcpNoPort);
    } else if opens {
        syn(group, local, packet, &mbuf, judged.unwrap_or(acl::UNLIMITED));
    } else {
        local.stats.drop(Drop::TcpNoPort);
        refuse(local, packet, &mbuf);
    }
    local.pool.free(mbuf);
}

/// The packet's flow, in either direction.
#[inline(always)]
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

/// A SYN: a half-open connection, if somebody listens and the backlog has room.
fn syn(group: &mut FlowGroup, local: &mut Local, packet: &Packet, mbuf: &Mbuf, rule: u16) {
    let here = local.ip_at(packet.local);
    let port = local.listeners.by_port(packet.key.local_port).filter(|port| port.serves(here));
    let Some(port) = port else {
        local.stats.drop(Drop::TcpNoPort);
        return refuse(local, packet, mbuf);
    };
    if port.waiting >= port.backlog {
        return local.stats.drop(Drop::TcpSynQueueFull);
    }
    let listener = port.handle;
    let Some(index) = group.allocate(local) else { return };
    let conn = &mut group.conns[index];
    conn.key = packet.key;
    conn.hash = packet.hash;
    at_slot(conn, packet.local);
    conn.listener = listener;
    conn.state = State::SynReceived;
    start(conn, local);
    take_syn(conn, local, packet, mbuf);
    if !acl::opened(conn, local, rule) || !group.enter(index, local) {
        acl::closed(&mut group.conns[index], local);
        group.conns[index].state = State::Closed;
        group.conns[index].flags |= Flags::APP_GONE;
        return group.free_if_done(index, local);
    }
    group.conns[index].flags |= Flags::IN_BACKLOG;
    group.backlog[listener.index() as usize % SLOTS] += 1;
    if let Some(port) = local.listeners.by_handle(listener) {
        port.waiting += 1;
    }
    group.want_output(index, local);
}

/// Which of our addresses is the connection's.
fn at_slot(conn: &mut Conn, slot: u8) {
    conn.local = slot;
    conn.flags.set(Flags::V6, slot != 0);
}

/// Segment size of a peer that names none.
fn mss_default(slot: u8) -> u16 {
    if slot == 0 { MSS_DEFAULT } else { MSS_DEFAULT_V6 }
}

/// Our side of a new connection: initial sequence number (RFC 6528), sizes until the peer says more.
fn start(conn: &mut Conn, local: &Local) {
    let here = SocketAddress { ip: local.ip_at(conn.local), port: conn.key.local_port, scope: 0 };
    let there = SocketAddress { ip: conn.key.remote, port: conn.key.remote_port, scope: 0 };
    let (iss, ts_offset) = local.isn_key.initial_numbers(here, there, local.now);
    let iss = WrappingSeq(iss);
    conn.ts_offset = ts_offset;
    conn.iss = iss;
    conn.snd_una = iss;
    conn.snd_nxt = iss;
    conn.snd_max = iss;
    conn.snd_end = iss.plus(1);
    conn.released = iss.plus(1);
    conn.recover = iss;
    conn.mss = mss_default(conn.local).min(local.mss_at(conn.local));
    conn.cc = Congestion::new(local.congestion);
}

/// Takes what the peer's SYN says.
pub fn take_syn(conn: &mut Conn, local: &Local, packet: &Packet, mbuf: &Mbuf) {
    let data = local.pool.area().data(mbuf);
    let options = wire::parse_options(packet.options(data));
    conn.rcv_nxt = packet.seq.plus(1);
    // What our own SYN announces, or has announced.
    conn.rcv_edge = conn.rcv_nxt.plus(u32::from(SYN_WINDOW));
    conn.wl1 = packet.seq;
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
}

/// `connect`: a connection in SYN-SENT in this group.
pub fn connect(
    group: &mut FlowGroup,
    local: &mut Local,
    (key, hash, slot): Dial,
    rule: u16,
) -> Option<u32> {
    let index = group.allocate(local)?;
    let conn = &mut group.conns[index];
    conn.key = key;
    conn.hash = hash;
    conn.state = State::SynSent;
    conn.flags |= Flags::ACTIVE | Flags::ACCEPTED;
    at_slot(conn, slot);
    start(conn, local);
    conn.cc.start(u32::from(conn.mss), local.now);
    if !acl::opened(conn, local, rule) || !group.enter(index, local) {
        let conn = &mut group.conns[index];
        acl::closed(conn, local);
        conn.state = State::Closed;
        conn.flags = Flags::APP_GONE;
        group.free_if_done(index, local);
        return None;
    }
    group.want_output(index, local);
    Some(index)
}

/// A segment for a connection in TIME-WAIT (RFC 9293 §3.10.7.4; a SYN beyond the old stream opens a
/// new connection, RFC 1122 §4.2.2.13).
pub fn in_time_wait(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    packet: &Packet,
    mbuf: Mbuf,
) {
    let conn = &mut group.conns[index];
    if packet.has(flag::RST) {
        // RFC 1337: ignored, so that TIME-WAIT cannot be assassinated.
        local.stats.drop(Drop::TcpOutOfWindow);
    } else if packet.has(flag::SYN) && !packet.has(flag::ACK) && packet.seq.after(conn.rcv_nxt) {
        close::time_wait_over(group, local, index);
        return stranger(group, local, packet, mbuf);
    } else if packet.seq_len() > 0 {
        if packet.has(flag::FIN) {
            acks::enter_time_wait(group, local, index);
        }
        challenge(group, local, index);
    }
    local.pool.free(mbuf);
}

/// RST in answer to a segment (RFC 9293 §3.10.7.1), back to where it came from.
pub fn reset_answer(local: &mut Local, packet: &Packet, mbuf: &Mbuf) {
    if packet.local == 0 {
        reset_answer_of::<[u8; 4]>(local, packet, mbuf);
    } else {
        reset_answer_of::<[u8; 16]>(local, packet, mbuf);
    }
}

fn reset_answer_of<A: Family>(local: &mut Local, packet: &Packet, mbuf: &Mbuf) {
    let data = local.pool.area().data(mbuf);
    let frame = usize::from(packet.frame);
    let Some(mac_to) = data.get(frame + 6..frame + 12).and_then(|b| b.first_chunk::<6>()) else {
        return;
    };
    let (ip_from, ip_to) = (A::own(local, packet.local), A::from_ip(packet.key.remote));
    let (seq, ack, flags) = if packet.has(flag::ACK) {
        (packet.ack, WrappingSeq(0), flag::RST)
    } else {
        (WrappingSeq(0), packet.seq.plus(packet.seq_len()), flag::RST | flag::ACK)
    };
    let emit = Emit {
        mac_to: *mac_to,
        mac_from: local.mac,
        ip_from,
        ip_to,
        port_from: packet.key.local_port,
        port_to: packet.key.remote_port,
        seq,
        ack,
        flags,
        window: 0,
        hops: local.v6.config.hops,
    };
    let mut bytes = ArrayVec::from([0; 96]);
    bytes.truncate(A::BELOW + wire::HEADER);
    wire::emit(&mut bytes, &emit, 0, 0);
    wire::checksum_in_place(&mut bytes, ip_from, ip_to);
    if local.tx.stage(Staged::Bytes(bytes)).is_ok() {
        local.stats.add(Counter::TcpResetsSent, 1);
    } else {
        local.stats.drop(Drop::TxRingFull);
    }
}

/// A flow that is to be opened: its key and hash, and the slot of our address.
pub type Dial = (FlowKey, u32, u8);

/// Looks for a free source port from our address in `slot` towards `remote` whose answers hash to a group
/// of this core.
pub fn choose_port(
    groups: &[Option<alloc::boxed::Box<FlowGroup>>],
    local: &mut Local,
    remote: SocketAddress,
    slot: u8,
) -> Option<Dial> {
    let random = local.rng.next_u32();
    // Bounded: when the ports are used up, each attempt would look at them all.
    let tries = PORT_TRIES.max(PORT_TRIES_PER_CORE * usize::from(local.cores));
    let most = tries.min(crate::rss::SOURCE_PORTS as usize);
    let ports = match remote.ip.to_v4() {
        Some(to) => local.toeplitz.source_ports_v4(local.address, to, remote.port, random),
        None => {
            let from = local.v6.address(slot);
            local.toeplitz.source_ports_v6(from, remote.ip.0, remote.port, random)
        }
    };
    ports.take(most).find_map(|(port, hash)| {
        let id = crate::rss::group_of(hash, local.groups);
        let group = groups.get(usize::from(id.0))?.as_ref()?;
        let key = FlowKey { remote: remote.ip, remote_port: remote.port, local_port: port };
        let taken = group.table.find_at(&group.conns, hash, &key, slot).is_some();
        (!taken).then_some((key, hash, slot))
    })
}

/// Time-outs in a row without any answer end an attempt after this long.
pub fn patience(state: State) -> crate::time::Duration {
    use crate::limits::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, USER_TIMEOUT};
    match state {
        State::SynSent => CONNECT_TIMEOUT,
        State::SynReceived => HANDSHAKE_TIMEOUT,
        _ => USER_TIMEOUT,
    }
}

/// Starts the clock of [`patience`].
pub fn trying(conn: &mut Conn, now: Instant) {
    if conn.trying_since == Instant::NEVER {
        conn.trying_since = now;
    }
}
