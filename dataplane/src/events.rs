//! Event conditions to the application's ring. They come from what objects have pending, so a full
//! ring delays them and loses none.
use crate::addresses::scope_of;
use crate::conn::{Conn, Flags, Pending, State};
use crate::engine::Engine;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, NO_MBUF};
use crate::tcp::{acks, close, crumbs};
use crate::udp;
use ix_abi::stats::Counter;
use ix_abi::{Condition, DeadReason, Event, SocketAddress, Status};

/// Room that is left for results of calls when other events fill the ring.
pub const RESERVE: u32 = 64;

/// Writes what is pending, as far as there is room.
#[inline]
pub fn post_all(engine: &mut Engine) {
    let local = &engine.local;
    let Some(app) = &local.app else { return };
    let quiet = local.events_ready.is_empty() && app.is_quiet(local.now) && !local.udp.has_events();
    if !quiet && !app.condemned {
        post_some(engine);
    }
}

#[inline(never)]
fn post_some(engine: &mut Engine) {
    let Engine { local, groups, .. } = engine;
    let Some(app) = &local.app else { return };
    let mut room = app.rings.room().saturating_sub(RESERVE);
    post_dataplane(local, &mut room);
    let mut from = 0;
    while let Some(id) = local.events_ready.next(from) {
        from = usize::from(id.0) + 1;
        if local.leaving.contains(id) {
            continue;
        }
        let Some(group) = groups.get_mut(usize::from(id.0)).and_then(Option::as_mut) else {
            local.events_ready.remove(id);
            continue;
        };
        while let Some(index) = group.first_event() {
            if !post_connection(group, local, index, &mut room) {
                return;
            }
        }
        local.events_ready.remove(id);
    }
}

/// Results of other cores' work, group arrivals, timers, UDP.
fn post_dataplane(local: &mut Local, room: &mut u32) {
    let now = local.now;
    let Some(app) = &mut local.app else { return };
    while *room > 0 {
        let event = if let Some(event) = app.outcomes.pop_front() {
            event
        } else if let Some(group) = app.group_in.next(0) {
            app.group_in.remove(group);
            let life = (local.ages[usize::from(group.0)] >> 32) as u16;
            Condition::GroupIn { group, life }.encode()
        } else if core::mem::take(&mut app.parking) {
            Condition::Parking.encode()
        } else if let Some(event) = app.fired_timer(now) {
            event
        } else {
            break;
        };
        app.rings.post(&event);
        local.stats.add(Counter::Events, 1);
        *room -= 1;
    }
    while *room > 0 && local.udp.has_events() {
        let Some(event) = udp::next_event(local) else { break };
        post(local, &event, room);
    }
}

#[inline(always)]
fn post(local: &mut Local, event: &Event, room: &mut u32) {
    if let Some(app) = &mut local.app {
        app.rings.post(event);
        local.stats.add(Counter::Events, 1);
        *room -= 1;
    }
}

/// Posts the first connection's events and takes it off the list. `false`: the ring is full.
#[inline]
pub(crate) fn post_connection(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    room: &mut u32,
) -> bool {
    loop {
        let conn = &mut group.conns[index];
        let untold = conn.pending.intersects(Pending::KNOCK.union(Pending::CONNECTED));
        let waits = conn.pending.is_empty()
            || (!conn.flags.contains(Flags::ACCEPTED) && !untold)
            || conn.flags.contains(Flags::APP_GONE);
        if waits {
            group.remove_first_event();
            group.free_if_done(index, local);
            return true;
        }
        if *room == 0 {
            return false;
        }
        let handle = conn.name;
        let cookie = conn.cookie;
        if conn.pending.contains(Pending::SENT) && !untold {
            conn.pending -= Pending::SENT;
            let bytes = core::mem::take(&mut conn.sent_bytes);
            let window = if acks::worth_sending(conn) { conn.send_room() } else { 0 };
            if window > 0 {
                conn.flags -= Flags::REFUSED;
            }
            if bytes > 0 || window > 0 {
                post(local, &Condition::Sent { handle, cookie, bytes, window }.encode(), room);
            }
        } else if conn.pending.contains(Pending::RECV) && !untold {
            receive(group, local, index, room);
        } else {
            rare(group, local, index, room);
        }
    }
}

/// The next buffer that the application was not told all of.
#[inline]
fn receive(group: &mut FlowGroup, local: &mut Local, index: u32, room: &mut u32) {
    let conn = &mut group.conns[index];
    if conn.rx_undelivered == NO_MBUF {
        conn.pending -= Pending::RECV;
        return;
    }
    let area = local.pool.area();
    let mbuf = Mbuf::from_raw(conn.rx_undelivered);
    let meta = area.meta(&mbuf);
    area.set_holder(&mbuf, Holder::group(group.id));
    let told = crumbs::told(conn, &meta);
    let addr = area.user_addr(&mbuf, meta.offset + told);
    let _held_by_the_application = mbuf.into_raw();
    conn.rx_undelivered = meta.next;
    let len = u32::from(meta.len - told);
    conn.rx_held += len;
    conn.rx_waiting -= len;
    if meta.next == NO_MBUF {
        conn.pending -= Pending::RECV;
    }
    let (handle, cookie) = (conn.name, conn.cookie);
    post(local, &Condition::Recv { handle, cookie, addr, len }.encode(), room);
}

/// The record that tells of a connection that waits for `accept`.
#[inline(always)]
pub fn knock(conn: &Conn) -> Event {
    let (ip, port) = (conn.remote, conn.remote_port());
    let remote = SocketAddress { ip, port, scope: scope_of(&ip) };
    let (handle, listener) = (conn.name, conn.listener);
    Condition::Knock { handle, listener, remote, local_port: conn.local_port() }.encode()
}

/// Beginnings and ends.
fn rare(group: &mut FlowGroup, local: &mut Local, index: u32, room: &mut u32) {
    let conn = &mut group.conns[index];
    let (handle, cookie) = (conn.name, conn.cookie);
    let event = if conn.pending.contains(Pending::KNOCK) {
        conn.pending -= Pending::KNOCK;
        conn.flags |= Flags::KNOCKED;
        return post(local, &knock(conn), room);
    } else if conn.pending.contains(Pending::CONNECTED) {
        conn.pending -= Pending::CONNECTED;
        conn.flags |= Flags::CONNECT_TOLD;
        Condition::Connected { handle, cookie, outcome: Status::Ok, window: conn.send_room() }
    } else if conn.pending.contains(Pending::EOF) {
        conn.pending -= Pending::EOF;
        Condition::Eof { handle, cookie }
    } else {
        conn.pending -= Pending::DEAD;
        return dead(group, local, index, room);
    };
    post(local, &event.encode(), room);
}

/// The last event: the handle is gone with it, unless the application did not ask for the end.
fn dead(group: &mut FlowGroup, local: &mut Local, index: u32, room: &mut u32) {
    let conn = &mut group.conns[index];
    debug_assert!(conn.state == State::Closed || conn.state == State::TimeWait);
    let (handle, cookie, reason) = (conn.name, conn.cookie, conn.reason);
    let failed_connect = conn.flags.contains(Flags::ACTIVE)
        && !conn.flags.intersects(Flags::CONNECT_TOLD | Flags::APP_CLOSED);
    let event = if failed_connect {
        let outcome = outcome(reason);
        Condition::Connected { handle, cookie, outcome, window: 0 }
    } else {
        Condition::Dead { handle, cookie, reason }
    };
    post(local, &event.encode(), room);
    if failed_connect || conn.flags.contains(Flags::APP_CLOSED) {
        close::forget(group, local, index);
    } else {
        conn.flags |= Flags::DEAD_TOLD;
    }
}

fn outcome(reason: DeadReason) -> Status {
    match reason {
        DeadReason::Reset => Status::Refused,
        DeadReason::TimedOut => Status::TimedOut,
        DeadReason::Unreachable => Status::Unreachable,
        _ => Status::State,
    }
}
