//! Calls on objects of the whole dataplane, which core 0 makes, and on timers, which are the core's.
use super::Outcome;
use crate::engine::Engine;
use crate::limits::REQUESTS_MAX;
use crate::local::Local;
use crate::message::{Change, Message, Request as Order};
use crate::ports::{ANY_V4, UDP_BASE};
use crate::settings::Settings;
use crate::time::Duration;
use ix_abi::{Call, Condition, Cookie, CoreId, Handle, IpAddress, Request, Status};

/// `listen`, `unlisten`, `udp_bind`, `udp_close`, `set_option` of a listener.
pub(super) fn change(engine: &mut Engine, call: &Call, request: &Request) -> Outcome {
    let local = &mut engine.local;
    let change = match *request {
        Request::Listen { local, backlog } => {
            Change::Listen { handle: Handle::NONE, local, backlog }
        }
        Request::UdpBind { local, cookie } => {
            Change::UdpBind { handle: Handle::NONE, local, cookie }
        }
        Request::SetOption { handle, option, value } if handle.index() < UDP_BASE => {
            Change::SetOption { handle, option, value }
        }
        Request::Unlisten { handle } if handle.index() < UDP_BASE => Change::Remove { handle },
        Request::UdpClose { handle } if handle.index() >= UDP_BASE => Change::Remove { handle },
        Request::SetOption { handle, .. }
        | Request::Unlisten { handle }
        | Request::UdpClose { handle } => {
            return Outcome::new(Status::BadHandle, handle);
        }
        _ => return Outcome::new(Status::Invalid, Handle(call.handle)),
    };
    let order = Order {
        from: local.core,
        change,
        op: call.op,
        tag: call.tag,
        wants_result: call.wants_result(),
    };
    let app_epoch = local.app_epoch;
    if local.core == CoreId(0) {
        return match carry_out(local, &order, app_epoch) {
            Ok(handle) => Outcome { value: handle.0, ..Outcome::new(Status::Ok, handle) },
            Err(status) => Outcome::new(status, Handle(call.handle)),
        };
    }
    let Some(app) = &mut local.app else { return Outcome::new(Status::State, Handle::NONE) };
    if app.requests >= REQUESTS_MAX {
        return Outcome::new(Status::Again, Handle(call.handle));
    }
    if local.mesh.send(CoreId(0), Message::Request { request: order, app_epoch }).is_err() {
        return Outcome::new(Status::Again, Handle(call.handle));
    }
    app.requests += 1;
    Outcome { deferred: true, ..Outcome::new(Status::Ok, Handle::NONE) }
}

/// Core 0: makes the change and tells everybody; returns the object.
pub fn carry_out(local: &mut Local, order: &Order, app_epoch: u32) -> Result<Handle, Status> {
    if local.mesh.broadcast_room() == 0 {
        return Err(Status::Again);
    }
    let here = |a: ix_abi::SocketAddress| {
        a.ip == IpAddress::UNSPECIFIED || a.ip == ANY_V4 || local.is_ours(a.ip)
    };
    let change = match order.change {
        Change::Listen { local: at, backlog, .. } if here(at) => {
            Change::Listen { handle: local.listeners.reserve(at)?, local: at, backlog }
        }
        Change::UdpBind { local: at, cookie, .. } if here(at) => {
            Change::UdpBind { handle: local.udp.ports.reserve(at)?, local: at, cookie }
        }
        Change::SetOption { handle, option, value } => {
            let port = local.listeners.by_handle(handle).ok_or(Status::BadHandle)?;
            Settings::clone(&port.settings).set(option, value)?;
            order.change
        }
        Change::Remove { handle } => {
            let known = local.listeners.by_handle(handle).is_some()
                || local.udp.ports.by_handle(handle).is_some();
            if !known {
                return Err(Status::BadHandle);
            }
            order.change
        }
        _ => return Err(Status::Unreachable),
    };
    let (Change::Listen { handle, .. }
    | Change::UdpBind { handle, .. }
    | Change::SetOption { handle, .. }
    | Change::Remove { handle }) = change;
    local.apply(&change, app_epoch);
    for core in local.mesh.others() {
        let sent = local.mesh.send(core, Message::Change { change, app_epoch });
        debug_assert!(sent.is_ok(), "there was room for a broadcast");
    }
    Ok(handle)
}

/// Core 0: a request of another core. What it is told, if there is no room for that.
pub fn answer(local: &mut Local, order: &Order, app_epoch: u32) -> Option<Message> {
    let (status, handle) = if app_epoch <= local.app_ended {
        (Status::State, Handle::NONE)
    } else {
        match carry_out(local, order, app_epoch) {
            Ok(handle) => (Status::Ok, handle),
            Err(status) => (status, Handle::NONE),
        }
    };
    let outcome = Message::Outcome { request: *order, status, handle, app_epoch };
    // There is room for a change and this, unless it has gone away since: see `Engine::may_take_message`.
    let unsent = local.mesh.send(order.from, outcome).err();
    debug_assert!(unsent.is_none() || local.mesh.is_absent(order.from), "there was room for it");
    unsent
}

/// The answer of core 0.
pub fn answered(local: &mut Local, order: &Order, status: Status, handle: Handle, app_epoch: u32) {
    if app_epoch != local.app_epoch {
        return;
    }
    let Some(app) = &mut local.app else { return };
    app.requests = app.requests.saturating_sub(1);
    if status != Status::Ok || order.wants_result {
        let (op, tag, value) = (order.op, order.tag, handle.0);
        app.outcomes.push_back(Condition::Result { op, status, handle, tag, value }.encode());
    }
}

pub(super) fn timer_set(engine: &mut Engine, cookie: Cookie, delay_us: u64) -> Outcome {
    let local = &mut engine.local;
    let at = local.now + Duration::from_us(delay_us);
    match local.app.as_mut().and_then(|app| app.set_timer(cookie, at)) {
        Some(handle) => Outcome { value: handle.0, ..Outcome::new(Status::Ok, handle) },
        None => Outcome::new(Status::Limit, Handle::NONE),
    }
}

pub(super) fn timer_cancel(engine: &mut Engine, handle: Handle) -> Result<(), Status> {
    let found = engine.local.app.as_mut().is_some_and(|app| app.cancel_timer(handle));
    if found { Ok(()) } else { Err(Status::BadHandle) }
}
