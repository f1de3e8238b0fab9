//! The core loop: one iteration of a core's life, for the kernel, the simulation and benchmarks.
//!
//! What follows an iteration (spinning, halting until `Work::deadline`) is the platform's.
use crate::calls;
use crate::device::{RxBatch, RxFrame, RxQueue, take_each};
use crate::engine::Engine;
use crate::events;
use crate::fast;
use crate::input::{chain, eth};
use crate::limits::PUBLISH_EVERY;
use crate::local::Local;
use crate::measure::Source;
use crate::moves::relief::Hurry;
use crate::output;
use crate::platform::{AppFault, AppReturn, Platform, Work};
use crate::tap;
use ix_abi::stats::{Counter, Drop, batch_bucket};

/// One iteration.
pub fn run_once<P: Platform>(engine: &mut Engine, platform: &mut P) -> Work {
    let now = platform.now();
    let span = now.0.wrapping_sub(core::mem::replace(&mut engine.local.now, now).0);
    if engine.local.measure.begin(span) {
        engine.is_late();
    }

    // 1. The quiescent point: commands, and what other cores say.
    platform.control(engine);
    let mut busy = engine.quiescent();

    // 2., 3. Receive at most B frames, run them through the protocols. What has left is looked at
    // before: so an acknowledgement finds that its frames have, and frees their memory at once.
    engine.local.tx.reclaim(platform.tx_queue());
    busy |= engine.completions();
    busy |= receive(engine, platform);
    events::post_all(engine);

    // 4., 5. The application consumes all events and leaves its batch, which is run.
    busy |= enter_app(engine, platform);

    // 6. Timers.
    busy |= engine.run_timers();

    // 7. Transmit, one doorbell; give buffers back to the device and to other cores.
    if engine.local.tap.is_on() {
        engine.local.tap.stamp();
    }
    output::run(engine, platform.tx_queue());
    for queue in platform.rx_queues() {
        queue.replenish(&mut engine.local.pool);
    }
    engine.local.pool.publish();
    engine.send_home();
    engine.local.mesh.flush(|core| platform.wake(core));

    engine.local.measure.end(busy);
    if engine.local.now >= engine.accounting.publish_at {
        publish(engine, platform);
    }
    Work { busy, deadline: if busy { engine.local.now } else { engine.deadline() } }
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
    if engine.local.measure.found(total) {
        if look_closely(engine, platform, total, &mut batch) {
            engine.local.stats.add(Counter::RxPackets, total as u64);
            engine.batch = Some(batch);
            return true;
        }
    }
    if engine.local.tap.is_on() {
        tap::received(&mut engine.local, &batch);
    }
    fast::open(engine);
    let mut bytes = 0;
    let moving = engine.moves.are_under_way();
    let guarded = moving && engine.moves.has_arrivals();
    if guarded {
        bytes = batch.iter().map(|frame| u64::from(frame.len)).sum();
        take_each(&mut batch, |frame, _| engine.take_guarded(frame.moved(), None));
    } else {
        take_each(&mut batch, |frame, rest| {
            fast::look_ahead(engine, frame, rest);
            bytes += u64::from(frame.len);
            take(engine, frame);
        });
    }
    engine.batch = Some(batch);
    let quiet = engine.local.mesh.is_quiet() && !(moving && engine.moves.has_early());
    let steered = if quiet { 0 } else { steered(engine, guarded) };
    if moving {
        engine.received_for_moves(total < engine.rx_batch, steered < engine.rx_batch);
    }
    let stats = &mut engine.local.stats;
    stats.add(Counter::RxPackets, total as u64);
    stats.add(Counter::RxBytes, bytes);
    stats.add(Counter::RxBatches, u64::from(total > 0));
    if total + steered > 0 {
        stats.batches[batch_bucket(total + steered)] += 1;
    }
    total + steered > 0
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
    let waiting = platform.rx_queues().iter().map(RxQueue::waiting).sum();
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

/// Frames that other cores have received for this one; how many.
#[inline(never)]
fn steered(engine: &mut Engine, guarded: bool) -> usize {
    if engine.moves.has_early() {
        engine.take_early();
    }
    let mut count = 0;
    while count < engine.rx_batch {
        let Some((from, frame)) = engine.local.mesh.next_frame() else { break };
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
    count
}

/// Takes a frame, whose buffers are then not the caller's any more.
#[inline(always)]
pub(crate) fn take(engine: &mut Engine, frame: &RxFrame) {
    if !frame.rest.is_none() {
        chain::handle(engine, frame.moved());
    } else if !fast::receive(engine, frame) {
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

#[inline]
fn run_batch<P: Platform>(engine: &mut Engine, platform: &mut P) {
    if calls::run_batch(engine, platform.tx_queue()).is_err() {
        if let Some(app) = engine.local.app.as_mut() {
            app.condemned = true;
        }
        platform.app_fault(AppFault::BadRing);
    }
}

/// The counters and figures for the outside.
#[cold]
#[inline(never)]
fn publish<P: Platform>(engine: &mut Engine, platform: &mut P) {
    engine.accounting.publish_at = engine.local.now + PUBLISH_EVERY;
    let Local { stats, measure, pool, listeners, udp, app, now, .. } = &mut engine.local;
    let errors = platform.rx_queues().iter().map(RxQueue::device_errors).sum();
    let before = core::mem::replace(&mut engine.accounting.device_errors, errors);
    // Fewer than before: a queue went to another core.
    stats.drops[Drop::DeviceError as usize] += errors.saturating_sub(before);
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
