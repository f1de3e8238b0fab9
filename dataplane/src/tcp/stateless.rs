//! Handshakes of which nothing is kept (RFC 4987 §3.6): when there is no room for more of those that
//! peers begin, SYNs are answered with cookies, and the connection is made when one comes back.
//! See [`cookie`] for what survives of the peer's offers.
use crate::acl;
use crate::group::FlowGroup;
use crate::limits::RECEIVE_SHIFT;
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::tcp::cookie::{self, Extras, Flow};
use crate::tcp::ecn::{self, Ecn};
use crate::tcp::input;
use crate::tcp::listen::{self, Answer, Opening, SYN_WINDOW};
use crate::tcp::sent::{self, FIRST};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, Packet, flag};
use ix_abi::SocketAddress;
use ix_abi::stats::{Counter, Drop};

fn flow(local: &Local, packet: &Packet, irs: WrappingSeq) -> Flow {
    let key = &packet.key;
    Flow {
        local: SocketAddress { ip: local.ip_at(packet.local), port: key.local_port, scope: 0 },
        remote: SocketAddress { ip: key.remote, port: key.remote_port, scope: 0 },
        irs,
    }
}

/// Answers a SYN with a cookie. Touches no connection, and keeps nothing but the time.
#[cold]
pub fn answer(group: &mut FlowGroup, local: &mut Local, packet: &Packet, mbuf: &Mbuf) {
    let offer = wire::syn_options(packet.options(local.pool.area().data(mbuf)));
    let flow = flow(local, packet, packet.seq);
    let extras = offer.timestamps.map(|_| Extras {
        shift: offer.shift,
        sack: offer.sack_permitted,
        ecn: ecn::asked(local, packet),
    });
    let mss = offer.mss.unwrap_or(listen::mss_default(packet.local));
    let iss = cookie::make(&local.isn_key, &flow, mss, extras, local.now);
    let (_, offset) = local.isn_key.initial_numbers(flow.local, flow.remote, local.now);
    let clock = local.ts_clock().wrapping_add(offset);
    let said = wire::SynOptions {
        mss: local.mss_at(packet.local),
        shift: extras.and_then(|extras| extras.shift).map(|_| RECEIVE_SHIFT),
        sack_permitted: extras.is_some_and(|extras| extras.sack),
        timestamps: extras.zip(offer.timestamps).map(|(e, (value, _))| (e.stamp(clock), value)),
    };
    let mut options = [0; wire::SYN_OPTIONS_MAX];
    let (len, _) = wire::emit_syn_options(&mut options, &said);
    let agrees = extras.is_some_and(|extras| extras.ecn);
    let flags = flag::SYN | flag::ACK | if agrees { flag::ECE } else { 0 };
    let answer = Answer { seq: iss, ack: packet.seq.plus(1), flags, window: SYN_WINDOW };
    if listen::answer(local, packet, mbuf, &answer, &options[..len]) {
        local.stats.add(Counter::SynCookiesSent, 1);
        group.cookies_until = cookie::valid_until(local.now);
    }
}

/// An ACK for nobody while cookies may come back. If it brings one, the connection is made, and the
/// segment is its first. Else the buffer comes back: it is to be refused.
#[cold]
pub fn complete(
    group: &mut FlowGroup,
    local: &mut Local,
    packet: &Packet,
    mbuf: Mbuf,
    rule: u16,
) -> Result<(), Mbuf> {
    let found = local.listener(packet.key.local_port, packet.local).map(|port| *port);
    let Some(port) = found else { return Err(mbuf) };
    let irs = packet.seq.minus(1);
    let iss = packet.ack.minus(1);
    let extras = packet.ts.map(|(_, echo)| Extras::from_echo(echo));
    let flow = flow(local, packet, irs);
    let Some(mss) = cookie::open(&local.isn_key, &flow, iss, extras, local.now) else {
        local.stats.drop(Drop::TcpCookie);
        return Err(mbuf);
    };
    let full = port.waiting.knocked >= port.backlog;
    if full || !acl::may_open(local, rule, packet.key.remote) {
        if full {
            local.stats.drop(Drop::TcpBacklogFull);
        }
        // The peer sends what it has to say again, and there may be room then.
        local.pool.free(mbuf);
        return Ok(());
    }
    let offer = wire::Options {
        mss: Some(mss),
        shift: extras.and_then(|extras| extras.shift),
        sack_permitted: extras.is_some_and(|extras| extras.sack),
        timestamps: packet.ts,
        ..wire::Options::default()
    };
    let (listener, settings) = (port.handle, port.settings);
    let opening = Opening { irs, offer: &offer, listener, settings, rule, after: None };
    let Some(index) = listen::begin(group, local, packet, &opening) else {
        // No slot: the peer takes itself for connected and has to hear of it.
        return Err(mbuf);
    };
    let conn = &mut group.conns[index];
    listen::begin_at(conn, iss);
    conn.ecn.set(Ecn::ON, extras.is_some_and(|extras| extras.ecn));
    conn.snd_nxt = iss.plus(1);
    conn.snd_max = conn.snd_nxt;
    // When the answer went out is not known: measured is what comes behind it.
    conn.timed = iss.plus(2);
    sent::push(conn, &mut group.sent, FIRST, conn.snd_nxt, sent::clock(local.now));
    local.stats.add(Counter::SynCookiesAccepted, 1);
    input::handle(group, local, packet, mbuf);
    Ok(())
}
