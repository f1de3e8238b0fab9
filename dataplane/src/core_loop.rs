//! The core loop: one iteration of a core's life, for the kernel, the simulation and benchmarks.
//!
//! What follows an iteration (spinning, halting until `Work::deadline`) is the platform's.
mod calm;

use crate::calls;
use crate::device::{RxBatch, RxFrame, RxQueue, TxQueue};
use crate::engine::Engine;
use crate::events;
use crate::fast::{self, AHEAD, Way};
use crate::input::{chain, eth};
use crate::limits::PUBLISH_EVERY;
use crate::local::Local;
use crate::measure::{Measure, Source};
use crate::moves::relief::Hurry;
use crate::output;
use crate::platform::{AppFault, AppReturn, Platform, Work};
use crate::rings::AppRings;
use crate::tap;
use crate::time::Instant;
use alloc::boxed::Box;
use ix_abi::stats::{CoreStats, Counter, Drop, batch_bucket};

/// One iteration.
#[inline(never)]
pub fn run_once<P: Platform>(engine: &mut Engine, platform: &mut P) -> Work {
    turn(engine, platform)
}

/// The same as a part of its caller, which is a loop.
#[inline(always)]
pub fn turn<P: Platform>(engine: &mut Engine, platform: &mut P) -> Work {
    let now = platform.now();
    let span = now.0.wrapping_sub(core::mem::replace(&mut engine.local.now, now).0);
    if engine.local.measure.begin(span) {
        engine.is_late();
    }

    // 1. The quiescent point: commands, and what other cores say.
    platform.control(engine);
    let busy = if engine.is_calm() {
        match calm::calmly(engine, platform) {
            Turn::Short | Turn::Calm => {
                engine.check_calm();
                return Work { busy: true, deadline: engine.local.now };
            }
            turn => turn == Turn::Stirred,
        }
    } else {
        engine.local.ts_now = engine.local.ts_clock();
        let news = engine.quiescent();
        news | completely(engine, platform)
    };
    end(engine, platform, busy)
}

/// What has become of an iteration, or of a step of it, that began calmly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There was nothing to do.
    Idle,
    /// There was a request, or none, and an answer on a folded connection, and nothing else.
    Short,
    /// There was, and nothing rare has come of it.
    Calm,
    /// Something rare may have come up.
    Stirred,
}

impl Turn {
    /// Of one that had something to do.
    #[inline(always)]
    fn of(engine: &Engine) -> Turn {
        if engine.local.calm { Turn::Calm } else { Turn::Stirred }
    }
}

/// How an iteration ends that had nothing to do, or found something rare.
#[inline(never)]
fn end<P: Platform>(engine: &mut Engine, platform: &mut P, busy: bool) -> Work {
    if !busy {
        engine.local.measure.rest();
        engine.local.mesh.attend();
    }
    if engine.local.calm {
        engine.check_calm();
    } else {
        publish(engine, platform);
        engine.look_around();
    }
    Work { busy, deadline: if busy { engine.local.now } else { engine.deadline() } }
}

/// Steps 2 to 7. Whether there was anything to do.
#[inline(never)]
fn completely<P: Platform>(engine: &mut Engine, platform: &mut P) -> bool {
    // 2., 3. Receive at most B frames, run them through the protocols. What has left is looked at
    // before: so an acknowledgement finds that its frames have, and frees their memory at once.
    engine.local.tx.reclaim(platform.tx_queue());
    let completed = engine.completions();
    let received = receive(engine, platform);
    let told = tell(engine, platform);
    if engine.is_serving() {
        engine.served(platform.now());
    }
    finish(engine, platform) | told | received | completed
}

/// Steps 3 to 5. The application gets all events, consumes them and leaves its batch, which is run.
#[inline(never)]
fn tell<P: Platform>(engine: &mut Engine, platform: &mut P) -> bool {
    events::post_all(engine);
    let told = enter_app(engine, platform);
    engine.owed();
    told
}

/// Steps 6 and 7.
#[inline(never)]
fn finish<P: Platform>(engine: &mut Engine, platform: &mut P) -> bool {
    let due = engine.run_timers();
    if engine.local.tap.is_on() {
        engine.local.tap.stamp();
    }
    output::run(engine, platform.tx_queue());
    transmit::<P, false>(engine, platform);
    engine.local.mesh.flush(|core| platform.wake(core));
    due
}

/// Step 7: one doorbell for all frames; buffers go back to the device and to other cores. `FREED`: one has become free.
#[inline(always)]
fn transmit<P: Platform, const FREED: bool>(engine: &mut Engine, platform: &mut P) {
    // In every iteration: others may send through this queue. Without news it rings no bell.
    platform.tx_queue().kick();
    for queue in platform.rx_queues() {
        queue.replenish(&mut engine.local.pool);
    }
    if engine.local.pool.publish::<FREED>() && engine.local.pool.away() > 0 {
        engine.send_home();
        engine.local.mesh.flush(|core| platform.wake(core));
    }
}

/// Takes the frames of the batch that come behind the first `done`; their bytes.
#[inline(never)]
fn take_rest(engine: &mut Engine, done: usize) -> u64 {
    engine.local.stir();
    let Some(mut batch) = engine.batch.take() else { return 0 };
    let rest = batch.get_mut(done..).unwrap_or_default();
    let bytes = take_all(engine, rest);
    batch.clear();
    engine.batch = Some(batch);
    bytes
}

/// Takes frames, whose buffers are then not the caller's any more; their bytes.
#[inline(always)]
fn take_all(engine: &mut Engine, frames: &mut [RxFrame]) -> u64 {
    let mut bytes = 0;
    for some in frames.chunks_mut(AHEAD) {
        fast::look_ahead(&engine.local, &engine.groups, some);
        for frame in some {
            bytes += u64::from(frame.len);
            take_one(engine, frame);
        }
    }
    bytes
}

/// Counts a poll of `total` frames with `bytes`, and `all` with those from other cores.
#[inline(always)]
fn count(stats: &mut CoreStats, total: usize, all: usize, bytes: u64) {
    stats.add(Counter::RxPackets, total as u64);
    stats.add(Counter::RxBytes, bytes);
    stats.add(Counter::RxBatches, u64::from(total > 0));
    if all > 0 {
        stats.batches[batch_bucket(all)] += 1;
    }
}

/// Enters the application, which gets its events.
#[inline(always)]
fn enter<P: Platform>(
    (rings, now): (&mut AppRings, Instant),
    (measure, stats): (&mut Box<Measure>, &mut CoreStats),
    platform: &mut P,
) -> AppReturn {
    rings.publish(now.0);
    let before = platform.tsc();
    let returned = platform.enter_app();
    let user = platform.tsc().wrapping_sub(before);
    measure.used(user);
    stats.add(Counter::UserTsc, user);
    returned
}

/// The application was interrupted, or is to be ended.
#[cold]
fn returned_early(engine: &mut Engine, returned: AppReturn) {
    engine.local.stir();
    if let Some(app) = &mut engine.local.app {
        app.preempted = returned == AppReturn::Preempted;
        app.condemned |= returned == AppReturn::Ended;
    }
}

#[cold]
fn bad_ring<P: Platform>(engine: &mut Engine, platform: &mut P) {
    engine.local.stir();
    if let Some(app) = engine.local.app.as_mut() {
        app.condemned = true;
    }
    platform.app_fault(AppFault::BadRing);
}

/// Steps 2 and 3. Whether there was anything.
#[inline]
fn receive<P: Platform>(engine: &mut Engine, platform: &mut P) -> bool {
    let mut total = 0;
    let Some(mut batch) = engine.batch.take() else { return false };
    for queue in platform.rx_queues() {
        total += queue.poll(engine.rx_batch - total, &mut batch);
        if total >= engine.rx_batch {
            break;
        }
    }
    if engine.local.measure.found(total) && look_closely(engine, platform, total, &mut batch) {
        engine.batch = Some(batch);
        count(&mut engine.local.stats, total, total, 0);
        return true;
    }
    if engine.local.tap.is_on() {
        tap::received(&mut engine.local, &batch);
    }
    fast::open(&mut engine.local);
    let moving = engine.moves.are_under_way();
    let guarded = moving && engine.moves.has_arrivals();
    let bytes = if guarded {
        batch.iter().for_each(|frame| engine.take_guarded(frame.moved(), None));
        batch.iter().map(|frame| u64::from(frame.len)).sum()
    } else {
        take_all(engine, &mut batch)
    };
    batch.clear();
    engine.batch = Some(batch);
    let quiet = engine.local.mesh.is_quiet() && !(moving && engine.moves.has_early());
    let (steered, mesh_is_dry) = if quiet { (0, true) } else { steered(engine, guarded) };
    if moving {
        let waiting = if total < engine.rx_batch { 0 } else { waiting(platform) };
        engine.received_for_moves(total, waiting, mesh_is_dry);
    }
    count(&mut engine.local.stats, total, total + steered, bytes);
    total + steered > 0
}

/// Frames that the queues hold beside what was taken, which was as much as might be.
fn waiting<P: Platform>(platform: &mut P) -> usize {
    platform.rx_queues().iter().map(RxQueue::waiting).sum()
}

/// What the queues hold beside what was taken, and whether that is too much. `true`: what was taken is to wait.
#[cold]
#[inline(never)]
fn look_closely<P: Platform>(
    engine: &mut Engine,
    platform: &mut P,
    taken: usize,
    batch: &mut RxBatch,
) -> bool {
    let waiting = waiting(platform);
    let now = engine.local.now;
    engine.local.measure.found_some_of(Source::Queues, (taken, waiting), now);
    engine.judge(taken + waiting + engine.local.mesh.frames_waiting(), batch);
    match engine.hurry() {
        Hurry::No => false,
        Hurry::Hold => {
            engine.held(platform.now());
            true
        }
        Hurry::Over(group) => {
            let gone = platform.now();
            let mut frames = 0;
            // A capture sees the batch as a whole.
            while !engine.local.tap.is_on()
                && let Some(frame) = engine.pick_out(group, batch)
            {
                frames += 1;
                engine.local.stats.add(Counter::RxBytes, frame.len.into());
                take(engine, &frame);
            }
            engine.local.mesh.flush(|core| platform.wake(core));
            engine.hurried(gone, platform.now(), frames);
            false
        }
    }
}

/// Frames that other cores have received for this one; how many, and whether there are no more.
#[inline(never)]
fn steered(engine: &mut Engine, guarded: bool) -> (usize, bool) {
    let most = engine.steered_most();
    if engine.moves.has_early() {
        engine.take_early();
    }
    let mut count = 0;
    let mut dry = false;
    while count < most {
        let Some((from, frame)) = engine.local.mesh.next_frame() else {
            dry = true;
            break;
        };
        count += 1;
        engine.local.forwarded_by = Some(from);
        if guarded {
            engine.take_guarded(frame, Some(from));
        } else {
            take(engine, &frame);
        }
    }
    engine.local.forwarded_by = None;
    if engine.local.measure.found_in_rings(count) {
        let waiting = engine.local.mesh.frames_waiting();
        let now = engine.local.now;
        engine.local.measure.found_some_of(Source::Rings, (count, waiting), now);
        if count > 0 {
            engine.served_some();
        }
    }
    engine.local.stats.add(Counter::RxSteeredIn, count as u64);
    (count, dry)
}

/// Takes a frame, whose buffers are then not the caller's any more.
#[inline(never)]
pub(crate) fn take(engine: &mut Engine, frame: &RxFrame) {
    take_one(engine, frame);
}

/// The same as a part of a loop.
#[inline(always)]
fn take_one(engine: &mut Engine, frame: &RxFrame) {
    if !frame.rest.is_none() {
        engine.local.stir();
        chain::handle(engine, frame.moved());
    } else if fast::receive(&mut engine.local, &mut engine.groups, frame) == Way::Other {
        engine.local.stir();
        eth::handle(engine, frame.moved());
    }
}

/// Steps 4 and 5. Whether the application was entered.
#[inline]
fn enter_app<P: Platform>(engine: &mut Engine, platform: &mut P) -> bool {
    let now = engine.local.now;
    let Some(app) = engine.local.app.as_mut().filter(|app| !app.condemned) else { return false };
    if app.unfinished {
        run_batch(engine, platform);
        return true;
    }
    app.rings.publish(now.0);
    if app.rings.unread() == 0 && !app.preempted {
        return false;
    }
    let before = platform.tsc();
    let returned = platform.enter_app();
    let user = platform.tsc().wrapping_sub(before);
    engine.local.measure.used(user);
    engine.local.stats.add(Counter::UserTsc, user);
    let Some(app) = engine.local.app.as_mut() else { return true };
    app.preempted = returned == AppReturn::Preempted;
    match returned {
        AppReturn::Entered => run_batch(engine, platform),
        AppReturn::Preempted => {}
        AppReturn::Ended => app.condemned = true,
    }
    true
}

fn run_batch<P: Platform>(engine: &mut Engine, platform: &mut P) {
    if calls::run_batch(engine, platform.tx_queue()).is_err() {
        bad_ring(engine, platform);
    }
}

/// Publishes counters and figures when it is time.
#[inline(never)]
fn publish<P: Platform>(engine: &mut Engine, platform: &mut P) {
    if engine.local.now < engine.accounting.publish_at {
        return;
    }
    engine.accounting.publish_at = engine.local.now + PUBLISH_EVERY;
    let Local { stats, measure, pool, listeners, udp, app, now, .. } = &mut engine.local;
    let errors = platform.rx_queues().iter().map(RxQueue::device_errors).sum();
    let before = core::mem::replace(&mut engine.accounting.device_errors, errors);
    // Fewer than before: a queue went to another core.
    stats.drops[Drop::DeviceError as usize] += errors.saturating_sub(before);
    let others = platform.rx_queues().iter().map(RxQueue::other_vlan).sum();
    let before = core::mem::replace(&mut engine.accounting.other_vlan, others);
    stats.drops[Drop::OtherVlan as usize] += others.saturating_sub(before);
    stats.set(Counter::BuffersFree, pool.available() as u64);
    stats.set(Counter::BuffersTotal, pool.capacity() as u64);
    stats.set(Counter::TcpListeners, listeners.len() as u64);
    stats.set(Counter::UdpPorts, udp.ports.len() as u64);
    let timers = app.as_ref().map_or(0, crate::app::App::timers);
    stats.set(Counter::AppTimers, u64::from(timers));
    if measure.sum_up(stats, *now) {
        let groups = engine.groups.iter().flatten();
        measure.loads.close_window(groups.map(|group| (group.id, group.frames)));
    }
    platform.publish(stats, measure);
}
