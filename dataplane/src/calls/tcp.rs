//! Calls on connections.
use super::Outcome;
use crate::acl::{self, Counts};
use crate::conn::{Flags, Pending};
use crate::engine::Engine;
use crate::group::FlowGroup;
use crate::ipv6;
use crate::local::Local;
use crate::tcp::{close as ending, keep_alive, listen, receive, time_wait};
use ix_abi::{Cookie, DeadReason, GroupId, Handle, SocketAddress, Status, TcpOption};
use ix_acl::{Direction, Protocol};

/// The connection that a handle names, with its group and the core's things.
#[inline]
pub(super) fn find(
    engine: &mut Engine,
    handle: Handle,
) -> Result<(&mut FlowGroup, &mut Local, u32), Status> {
    let id = handle.group();
    let Engine { local, groups, lend, .. } = engine;
    let status = match groups.get_mut(usize::from(id.0)) {
        Some(Some(group)) if !local.frozen.contains(id) => match group.resolve(handle) {
            Ok(index) => return Ok((group, local, index)),
            Err(status) => status,
        },
        Some(_) => Status::Moved,
        None => Status::BadHandle,
    };
    // It may be over by force, and known to the application still.
    lend.relic(handle).map(|(group, index)| (group, local, index)).ok_or(status)
}

/// The same for calls that only an accepted connection takes.
#[inline]
pub(super) fn find_accepted(
    engine: &mut Engine,
    handle: Handle,
) -> Result<(&mut FlowGroup, &mut Local, u32), Status> {
    let (group, local, index) = find(engine, handle)?;
    if !group.conns[index].flags.contains(Flags::ACCEPTED) {
        return Err(Status::State);
    }
    Ok((group, local, index))
}

pub(super) fn accept(engine: &mut Engine, handle: Handle, cookie: Cookie) -> Result<(), Status> {
    let (group, local, index) = find(engine, handle)?;
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::ACCEPTED) {
        return Err(Status::State);
    }
    conn.flags |= Flags::ACCEPTED;
    conn.cookie = cookie;
    ending::leave_backlog(group, local, index);
    let pending = group.conns[index].pending;
    if !pending.is_empty() {
        group.want_event(index, Pending::empty(), local);
    }
    Ok(())
}

pub(super) fn reject(engine: &mut Engine, handle: Handle) -> Result<(), Status> {
    let (group, local, index) = find(engine, handle)?;
    if group.conns[index].flags.contains(Flags::ACCEPTED) {
        return Err(Status::State);
    }
    group.conns[index].flags |= Flags::APP_CLOSED | Flags::APP_GONE;
    group.conns[index].pending = Pending::empty();
    ending::drop_received(group, local, index);
    if group.conns[index].flags.contains(Flags::ENDED) {
        ending::settle(group, local, index);
    } else {
        ending::abort(group, local, index, DeadReason::Rejected);
    }
    Ok(())
}

#[inline]
pub(super) fn recv_done(engine: &mut Engine, handle: Handle, bytes: u64) -> Result<(), Status> {
    let (group, local, index) = find_accepted(engine, handle)?;
    receive::done(group, local, index, bytes)
}

pub(super) fn close(engine: &mut Engine, handle: Handle) -> Result<(), Status> {
    let (group, local, index) = find_accepted(engine, handle)?;
    ending::close(group, local, index)
}

pub(super) fn abort(engine: &mut Engine, handle: Handle) -> Result<(), Status> {
    let (group, local, index) = find_accepted(engine, handle)?;
    ending::app_abort(group, local, index);
    Ok(())
}

pub(super) fn shutdown(engine: &mut Engine, handle: Handle) -> Result<(), Status> {
    let (group, local, index) = find_accepted(engine, handle)?;
    ending::shutdown(group, local, index)
}

pub(super) fn set_option(
    engine: &mut Engine,
    handle: Handle,
    option: TcpOption,
    value: u64,
) -> Result<(), Status> {
    let (group, local, index) = find_accepted(engine, handle)?;
    let conn = &mut group.conns[index];
    conn.settings.set(option, value)?;
    match option {
        // Before the handshake's end nobody is idle.
        TcpOption::KeepAlive if conn.state.is_synchronized() => {
            keep_alive::restart(group, local, index);
        }
        TcpOption::Congestion => conn.choose_congestion(local.congestion, local.now),
        _ => {}
    }
    Ok(())
}

pub(super) fn connect(engine: &mut Engine, cookie: Cookie, remote: SocketAddress) -> Outcome {
    match open(engine, cookie, remote) {
        Ok(handle) => Outcome { value: handle.0, ..Outcome::new(Status::Ok, handle) },
        Err(status) => Outcome::new(status, Handle::NONE),
    }
}

fn open(engine: &mut Engine, cookie: Cookie, remote: SocketAddress) -> Result<Handle, Status> {
    let Engine { local, groups, .. } = engine;
    let host = match remote.ip.to_v4() {
        Some(to) => to != [0; 4] && to[0] < 224 && (to != local.address || local.loopback),
        None => ipv6::is_host(&remote.ip.0) && !local.is_ours(remote.ip),
    };
    if remote.port == 0 || !host {
        return Err(Status::Invalid);
    }
    let (slot, _) = local.route(remote.ip).ok_or(Status::Unreachable)?;
    let (dial, old) = listen::choose_port(groups, local, remote, slot).ok_or(Status::Limit)?;
    let (key, hash, _) = dial;
    let id: GroupId = crate::rss::group_of(hash, local.groups);
    let group = groups.get_mut(usize::from(id.0)).and_then(Option::as_mut).ok_or(Status::Moved)?;
    let ports = (key.remote_port, key.local_port);
    let flow = acl::flow(local.ip_at(slot), Direction::Out, Protocol::Tcp, key.remote, ports);
    let rule = acl::judge(local, &flow, Counts::Connection).map_err(|_| Status::Denied)?;
    let after = old.map(|old| time_wait::make_way(group, local, old));
    let index = listen::connect(group, local, dial, rule, after).ok_or(Status::Limit)?;
    group.conns[index].cookie = cookie;
    Ok(group.conns[index].name)
}
