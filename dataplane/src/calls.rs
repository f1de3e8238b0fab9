//! The batch: every call of the syscall ring, in order, with its result where one is due.
//!
//! A record is copied once, then decoded and checked; a call is consumed only while the event ring
//! has room for its result. Nothing here trusts an index, a count, a handle or an address.
pub(crate) mod dataplane;
pub(crate) mod send;
mod tcp;
mod udp;

pub(crate) use dataplane::{answer, answered};

use crate::device::TxQueue;
use crate::engine::Engine;
use crate::events::RESERVE;
use crate::fast::{self, Way};
use crate::limits::{CALLS_PER_TURN, CONNECT_COST};
use crate::local::{BATCH_STEP, Local};
use crate::rings::{BadRing, Ready, Words};
use ix_abi::stats::Counter;
use ix_abi::{Call, Condition, GroupId, Handle, Op, Request, Status};

/// What a call comes to.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    status: Status,
    handle: Handle,
    value: u64,
    /// The result comes later, from core 0.
    deferred: bool,
}

impl Outcome {
    const fn new(status: Status, handle: Handle) -> Outcome {
        Outcome { status, handle, value: 0, deferred: false }
    }

    const fn of(result: Result<(), Status>, handle: Handle) -> Outcome {
        match result {
            Ok(()) => Outcome::new(Status::Ok, handle),
            Err(status) => Outcome::new(status, handle),
        }
    }
}

/// What is left of a batch, and of what it may do in this turn.
struct Rest {
    /// Slots.
    ready: u32,
    /// Slots of the batches behind it.
    behind: u32,
    /// Free slots of the event ring.
    room: u32,
    executed: u32,
    cost: u32,
}

/// Runs the batch that the application left, or a part of it that the rest of the loop can wait for:
/// then [`crate::app::App::unfinished`] says so, and the next call goes on with it.
#[inline(never)]
pub fn run_batch<T: TxQueue>(engine: &mut Engine, queue: &mut T) -> Result<(), BadRing> {
    let Some(app) = &mut engine.local.app else { return Ok(()) };
    let Ready { slots, room } = app.rings.calls()?;
    if app.carried != 0 || room == 0 || slots > CALLS_PER_TURN || engine.local.slow {
        engine.local.stir();
        run_part(engine, queue, slots, room);
        return Ok(());
    }
    app.unfinished = false;
    run_whole(engine, queue, slots);
    Ok(())
}

/// The same for an application none of whose slots are left over from the last turn, where nothing rare has come up.
#[inline(never)]
pub fn run_calmly<T: TxQueue>(engine: &mut Engine, queue: &mut T, ready: Ready) {
    let Ready { slots, room } = ready;
    // Less room than this is none, for once.
    if room <= RESERVE || slots > CALLS_PER_TURN {
        return run_stirred(engine, queue, ready);
    }
    engine.local.event_room = room - RESERVE;
    run_whole(engine, queue, slots);
}

/// The same of the only slot that was ready, which is consumed, with so much room for events. Whether it was an answer of a folded
/// connection, and so is as calm as before.
#[inline(always)]
pub fn run_lone<T: TxQueue>(
    engine: &mut Engine,
    queue: &mut T,
    (room, words): (u32, Words),
) -> bool {
    engine.local.event_room = room;
    engine.local.batch = engine.local.batch.wrapping_add(BATCH_STEP);
    let way = fast::call(engine, queue, words);
    if way == Way::Other {
        run_unpredicted(engine, queue);
        return false;
    }
    engine.local.stats.add(Counter::Syscalls, 1);
    way == Way::Folded
}

/// The same of one that is not predicted.
#[inline(never)]
fn run_unpredicted<T: TxQueue>(engine: &mut Engine, queue: &mut T) {
    leave(&mut engine.local);
    run_behind(engine, queue, 1, 0);
}

/// The only slot that was ready is not consumed after all.
#[cold]
#[inline(never)]
pub fn leave(local: &mut Local) {
    if let Some(app) = &mut local.app {
        app.rings.unconsume();
    }
}

/// The same where something is in the way.
#[cold]
fn run_stirred<T: TxQueue>(engine: &mut Engine, queue: &mut T, Ready { slots, room }: Ready) {
    engine.local.stir();
    engine.local.event_room = fast::event_room(room);
    run_part(engine, queue, slots, room);
}

/// Runs a batch that is not too long for a turn.
#[inline(never)]
fn run_whole<T: TxQueue>(engine: &mut Engine, queue: &mut T, slots: u32) {
    engine.local.batch = engine.local.batch.wrapping_add(BATCH_STEP);
    // Nobody looks on while it is calm.
    debug_assert!(!engine.local.slow);
    let done = fast::calls(engine, queue, slots, slots);
    if done < slots {
        run_behind(engine, queue, slots, done);
    } else {
        ran(engine, done);
    }
}

/// So many predicted calls were run, and are all there are.
#[inline(always)]
fn ran(engine: &mut Engine, done: u32) {
    if let Some(app) = &mut engine.local.app {
        app.rings.consume(done);
    }
    engine.local.stats.add(Counter::Syscalls, u64::from(done));
}

/// Goes on with a batch behind its first `done` slots, which are predicted calls.
#[inline(never)]
fn run_behind<T: TxQueue>(engine: &mut Engine, queue: &mut T, slots: u32, done: u32) {
    let room = engine.local.app.as_ref().map_or(0, |app| app.rings.room());
    run_rest(engine, queue, Rest { ready: slots, behind: 0, room, executed: 0, cost: 0 }, done);
}

/// A batch of which not all can be done in this turn, or of which some was done in the last.
#[inline(never)]
fn run_part<T: TxQueue>(engine: &mut Engine, queue: &mut T, slots: u32, room: u32) {
    let Some(app) = &mut engine.local.app else { return };
    // What was cut off stays in its batch, whatever the application has added behind it since.
    let ready = if app.carried == 0 { slots } else { slots.min(app.carried) };
    if app.carried == 0 {
        engine.local.batch = engine.local.batch.wrapping_add(BATCH_STEP);
    }
    let rest = Rest { ready, behind: slots - ready, room, executed: 0, cost: 0 };
    run_rest(engine, queue, rest, 0);
}

/// Goes on behind the `done` calls at the head of the ring that were run and not consumed.
#[inline(never)]
fn run_rest<T: TxQueue>(engine: &mut Engine, queue: &mut T, mut rest: Rest, mut done: u32) {
    loop {
        let most = if rest.room > 0 {
            rest.ready.min(CALLS_PER_TURN.saturating_sub(rest.cost))
        } else {
            0
        };
        // Those at the head of the ring were run.
        if done == 0 && !engine.local.slow {
            done = fast::calls(engine, queue, most, rest.ready);
        }
        let Some(app) = &mut engine.local.app else { break };
        app.rings.consume(done);
        rest.ready -= done;
        rest.executed += done;
        rest.cost += done;
        if done == most {
            app.carried = rest.ready;
            // Without room it is the application's turn.
            app.unfinished = rest.ready + rest.behind > 0 && rest.room > 0;
            break;
        }
        done = 0;
        run_call(engine, &mut rest);
    }
    engine.local.stats.add(Counter::Syscalls, u64::from(rest.executed));
}

/// Runs the call at the head of the ring, whatever it is.
#[inline(never)]
fn run_call(engine: &mut Engine, rest: &mut Rest) {
    engine.local.stir();
    let Some(app) = &mut engine.local.app else { return };
    let call = app.rings.call(0);
    let slots = call.slots() as u32;
    let (slots, outcome) = if slots > rest.ready {
        // Continues beyond what is there: the rest of the ring is this call.
        (rest.ready, Outcome::new(Status::Invalid, Handle(call.handle)))
    } else {
        (slots, execute(engine, &call))
    };
    let Some(app) = &mut engine.local.app else { return };
    app.rings.consume(slots);
    rest.ready -= slots;
    rest.executed += 1;
    rest.cost += if call.op == Op::Connect.0 { CONNECT_COST } else { 1 };
    let failed = outcome.status != Status::Ok;
    if !outcome.deferred && (failed || call.wants_result()) {
        app.rings.post(&result(&call, &outcome));
        engine.local.stats.add(Counter::Events, 1);
        rest.room -= 1;
    }
    engine.local.stats.add(Counter::SyscallErrors, u64::from(failed));
}

fn result(call: &Call, outcome: &Outcome) -> ix_abi::Event {
    let Outcome { status, handle, value, .. } = *outcome;
    Condition::Result { op: call.op, status, handle, tag: call.tag, value }.encode()
}

#[inline]
fn execute(engine: &mut Engine, call: &Call) -> Outcome {
    let request = match call.decode() {
        Ok(request) => request,
        Err(status) => return Outcome::new(status, Handle(call.handle)),
    };
    match request {
        Request::Sendv { handle, sg_count, done } => {
            send::sendv(engine, call, handle, sg_count, done)
        }
        Request::RecvDone { handle, bytes } => {
            Outcome::of(tcp::recv_done(engine, handle, bytes), handle)
        }
        Request::Nop => Outcome::new(Status::Ok, Handle::NONE),
        Request::Accept { handle, cookie } => {
            Outcome::of(tcp::accept(engine, handle, cookie), handle)
        }
        Request::Reject { handle } => Outcome::of(tcp::reject(engine, handle), handle),
        Request::Connect { cookie, remote } => tcp::connect(engine, cookie, remote),
        Request::Close { handle } => Outcome::of(tcp::close(engine, handle), handle),
        Request::Abort { handle } => Outcome::of(tcp::abort(engine, handle), handle),
        Request::Shutdown { handle } => Outcome::of(tcp::shutdown(engine, handle), handle),
        Request::UdpSendv { handle, remote, sg_count } => {
            Outcome::of(udp::sendv(engine, call, handle, remote, sg_count), handle)
        }
        Request::UdpRecvDone { handle, addr } => {
            Outcome::of(crate::udp::recv_done(&mut engine.local, handle, addr), handle)
        }
        Request::Listen { .. }
        | Request::Unlisten { .. }
        | Request::UdpBind { .. }
        | Request::UdpClose { .. } => dataplane::change(engine, call, &request),
        Request::SetOption { handle, .. } if handle.group() == GroupId::DATAPLANE => {
            dataplane::change(engine, call, &request)
        }
        Request::SetOption { handle, option, value } => {
            Outcome::of(tcp::set_option(engine, handle, option, value), handle)
        }
        Request::TimerSet { cookie, delay_us } => dataplane::timer_set(engine, cookie, delay_us),
        Request::TimerCancel { handle } => {
            Outcome::of(dataplane::timer_cancel(engine, handle), handle)
        }
    }
}
