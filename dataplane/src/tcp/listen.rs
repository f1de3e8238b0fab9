//! Segments without a connection, and the beginnings of connections: SYNs for listeners, the end of
//! the handshake, `connect`, and what TIME-WAIT still answers.
use crate::acl::answers::may_tell;
use crate::acl::{self, Counts};
use crate::conn::{Conn, Flags, Pending, State};
use crate::flow_table::FlowKey;
use crate::group::FlowGroup;
use crate::limits::{MSS_DEFAULT, MSS_MIN, PORT_TRIES, PORT_TRIES_PER_CORE, RECEIVE_WINDOW};
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
use ix_abi::stats::{Counter, Drop};
use ix_abi::{IpAddress, SocketAddress};
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
    acl::flow(local, direction, Protocol::Tcp, packet.key.remote, ports)
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
    let Some(port) = local.listeners.by_port(packet.key.local_port) else {
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

/// Our side of a new connection: initial sequence number (RFC 6528), sizes until the peer says more.
fn start(conn: &mut Conn, local: &Local) {
    let here = SocketAddress { ip: local.ip(), port: conn.key.local_port, scope: 0 };
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
    conn.timed = iss;
    conn.duplicate_round = iss;
    conn.mss = MSS_DEFAULT.min(local.mss);
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
    let peer = options.mss.unwrap_or(MSS_DEFAULT).max(MSS_MIN);
    conn.mss = peer.min(local.mss);
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
    key: FlowKey,
    hash: u32,
    rule: u16,
) -> Option<u32> {
    let index = group.allocate(local)?;
    let conn = &mut group.conns[index];
    conn.key = key;
    conn.hash = hash;
    conn.state = State::SynSent;
    conn.flags |= Flags::ACTIVE | Flags::ACCEPTED;
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
    let data = local.pool.area().data(mbuf);
    let frame = usize::from(packet.frame);
    let Some(mac_to) = data.get(frame + 6..frame + 12).and_then(|b| b.first_chunk::<6>()) else {
        return;
    };
    let Some(ip_to) = packet.key.remote.to_v4() else { return };
    let (seq, ack, flags) = if packet.has(flag::ACK) {
        (packet.ack, WrappingSeq(0), flag::RST)
    } else {
        (WrappingSeq(0), packet.seq.plus(packet.seq_len()), flag::RST | flag::ACK)
    };
    let emit = Emit {
        mac_to: *mac_to,
        mac_from: local.mac,
        ip_from: local.address,
        ip_to,
        port_from: packet.key.local_port,
        port_to: packet.key.remote_port,
        seq,
        ack,
        flags,
        window: 0,
    };
    let mut bytes = ArrayVec::from([0; 96]);
    bytes.truncate(wire::BELOW + wire::HEADER);
    wire::emit(&mut bytes, &emit, 0, 0);
    wire::checksum_in_place(&mut bytes, local.address, ip_to);
    if local.tx.stage(Staged::Bytes(bytes)).is_ok() {
        local.stats.add(Counter::TcpResetsSent, 1);
    } else {
        local.stats.drop(Drop::TxRingFull);
    }
}

/// Looks for a free source port towards `remote` whose answers hash to a group of this core.
pub fn choose_port(
    groups: &[Option<alloc::boxed::Box<FlowGroup>>],
    local: &mut Local,
    remote: SocketAddress,
) -> Option<(FlowKey, u32)> {
    let to = remote.ip.to_v4()?;
    let random = local.rng.next_u32();
    // Bounded: when the ports are used up, each attempt would look at them all.
    let tries = PORT_TRIES.max(PORT_TRIES_PER_CORE * usize::from(local.cores));
    let most = tries.min(crate::rss::SOURCE_PORTS as usize);
    local.toeplitz.source_ports_v4(local.address, to, remote.port, random).take(most).find_map(
        |(port, hash)| {
            let id = crate::rss::group_of(hash, local.groups);
            let group = groups.get(usize::from(id.0))?.as_ref()?;
            let key =
                FlowKey { remote: IpAddress::v4(to), remote_port: remote.port, local_port: port };
            group.table.find(&group.conns, hash, &key).is_none().then_some((key, hash))
        },
    )
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
