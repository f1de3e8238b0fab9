//! An iteration in which nothing rare has come up (`engine/calm.rs`): the same steps, less what finds nothing then. The shortest is one
//! request and its answer.
use super::{
    Turn, bad_ring, count, enter, finish, look_closely, returned_early, take_rest, tell, transmit,
};
use crate::calls;
use crate::device::RxQueue;
use crate::engine::Engine;
use crate::events::RESERVE;
use crate::fast::{self, AHEAD, Request, Way};
use crate::local::Local;
use crate::output;
use crate::platform::{AppReturn, Platform};
use ix_abi::stats::Counter;

/// Steps 2 to 7 while nothing rare has come up: as [`completely`] has them, less what finds nothing then.
#[inline(always)]
pub(super) fn calmly<P: Platform>(engine: &mut Engine, platform: &mut P) -> Turn {
    engine.local.tx.reclaim(platform.tx_queue());
    let received = match receive_calmly(engine, platform) {
        Received::Answered => {
            debug_assert!(engine.local.output_ready.is_empty());
            transmit::<P, true>(engine, platform);
            return Turn::Short;
        }
        Received::Told(returned) => return go_on(engine, platform, returned),
        Received::Taken(turn) => turn,
    };
    if received == Turn::Stirred {
        tell(engine, platform);
        finish(engine, platform);
        return Turn::Stirred;
    }
    let entered = enter_calmly(engine, platform);
    finish_calmly(engine, platform, if entered == Turn::Idle { received } else { entered })
}

/// What a calm iteration has come to when its frames are taken.
enum Received {
    /// They are.
    Taken(Turn),
    /// There was one, a request of which the application was told at once: so it has returned, and left something.
    Told(AppReturn),
    /// The same, and what it has left was the answer, which was sent.
    Answered,
}

/// Steps 2 and 3. The first frame that is not predicted ends the calm.
#[inline(always)]
fn receive_calmly<P: Platform>(engine: &mut Engine, platform: &mut P) -> Received {
    if engine.local.measure.may_be_lone()
        // Of several queues none is to go before the others for ever.
        && let [queue] = platform.rx_queues()
        && let Some(frame) = queue.lone()
        && frame.rest.is_none()
    {
        let Engine { local, groups, .. } = &mut *engine;
        local.measure.found_lone();
        count(&mut local.stats, 1, 1, 0);
        // Bytes apart from the other counts, else vectors are made of them.
        match fast::receive_lone(local, groups, frame) {
            Ok(request) => {
                local.stats.add(Counter::RxBytes, u64::from(frame.len));
                queue.took_lone();
                return exchange(local, platform, request);
            }
            Err(Way::Other) => take_lone(engine, queue),
            Err(_) => {
                local.stats.add(Counter::RxBytes, u64::from(frame.len));
                queue.took_lone();
            }
        }
        return Received::Taken(Turn::of(engine));
    }
    Received::Taken(receive_batch(engine, platform))
}

/// Steps 4 and 5 for a request that has come alone. Nearly always the application answers it, and does nothing else.
#[inline(always)]
fn exchange<P: Platform>(
    local: &mut Local,
    platform: &mut P,
    mut request: Request<'_>,
) -> Received {
    let mut returned = AppReturn::Entered;
    if let Local { app: Some(app), now, measure, stats, .. } = &mut *local {
        returned = enter((&mut app.rings, *now), (measure, stats), platform);
        if returned == AppReturn::Entered
            && let Some((room, words)) = app.rings.lone_call(RESERVE)
        {
            if request.answer(local, platform.tx_queue(), &words) {
                local.event_room = room;
                local.stats.add(Counter::Syscalls, 1);
                return Received::Answered;
            }
            calls::leave(local);
        }
    }
    request.hold::<true>(local);
    Received::Told(returned)
}

/// Goes on with what the application has left when it returned.
#[inline(never)]
fn go_on<P: Platform>(engine: &mut Engine, platform: &mut P, returned: AppReturn) -> Turn {
    let turn = run_left(engine, platform, returned);
    if turn == Turn::Short && engine.local.output_ready.is_empty() {
        transmit::<P, false>(engine, platform);
        return turn;
    }
    finish_calmly(engine, platform, turn)
}

/// Steps 6 and 7 of an iteration that has come to `turn` so far.
#[inline(never)]
fn finish_calmly<P: Platform>(engine: &mut Engine, platform: &mut P, turn: Turn) -> Turn {
    if turn == Turn::Stirred {
        finish(engine, platform);
        return Turn::Stirred;
    }
    let all_sent = output::run_calmly(engine, platform.tx_queue());
    transmit::<P, false>(engine, platform);
    if all_sent { turn } else { Turn::Stirred }
}

/// Takes the frame that the queue has shown, which is not predicted, and was counted.
#[inline(never)]
fn take_lone<Q: RxQueue>(engine: &mut Engine, queue: &mut Q) {
    let (Some(frame), Some(batch)) = (queue.lone(), &mut engine.batch) else { return };
    // There is room: it is empty.
    let _always = batch.try_push(frame.moved());
    queue.took_lone();
    let bytes = take_rest(engine, 0);
    engine.local.stats.add(Counter::RxBytes, bytes);
}

/// The same for as many frames as there may be.
#[inline(never)]
fn receive_batch<P: Platform>(engine: &mut Engine, platform: &mut P) -> Turn {
    let Engine { local, batch: Some(batch), rx_batch, .. } = &mut *engine else {
        return Turn::Idle;
    };
    let mut total = 0;
    for queue in platform.rx_queues() {
        total += queue.poll(*rx_batch - total, batch);
        if total >= *rx_batch {
            break;
        }
    }
    let closely = local.measure.found(total);
    if total == 0 {
        return Turn::Idle;
    }
    if closely {
        receive_closely(engine, platform, total);
    } else {
        receive_several(engine, total);
    }
    Turn::of(engine)
}

/// Takes the `total` frames of the batch, until one is not predicted; then the rest of them otherwise.
#[inline(always)]
fn receive_several(engine: &mut Engine, total: usize) {
    let Engine { local, groups, batch: Some(batch), .. } = engine else { return };
    let (mut bytes, mut done) = (0, 0);
    'predicted: while done < batch.len() {
        let end = batch.len().min(done + AHEAD);
        fast::look_ahead(local, groups, &mut batch[done..end]);
        for frame in &batch[done..end] {
            if !frame.rest.is_none() || fast::receive(local, groups, frame) == Way::Other {
                break 'predicted;
            }
            bytes += u64::from(frame.len);
            done += 1;
        }
    }
    if done == batch.len() {
        batch.clear();
    } else {
        bytes += take_rest(engine, done);
    }
    count(&mut engine.local.stats, total, total, bytes);
}

/// The same for what is to be looked at closely: `total` frames are in the batch.
#[cold]
#[inline(never)]
fn receive_closely<P: Platform>(engine: &mut Engine, platform: &mut P, total: usize) {
    engine.local.stir();
    let Some(mut batch) = engine.batch.take() else { return };
    let waits = look_closely(engine, platform, total, &mut batch);
    engine.batch = Some(batch);
    let mut bytes = 0;
    if !waits {
        fast::open(&mut engine.local);
        bytes = take_rest(engine, 0);
    }
    count(&mut engine.local.stats, total, total, bytes);
}

/// Steps 4 and 5; idle if the application was not entered.
#[inline(always)]
fn enter_calmly<P: Platform>(engine: &mut Engine, platform: &mut P) -> Turn {
    let Local { app: Some(app), now, measure, stats, .. } = &mut engine.local else {
        return Turn::Idle;
    };
    if app.rings.unread_then() == 0 {
        app.rings.publish(now.0);
        return Turn::Idle;
    }
    let returned = enter((&mut app.rings, *now), (measure, stats), platform);
    run_left(engine, platform, returned)
}

/// Runs what the application has left when it returned.
#[inline(always)]
fn run_left<P: Platform>(engine: &mut Engine, platform: &mut P, returned: AppReturn) -> Turn {
    let Some(app) = &mut engine.local.app else { return Turn::Idle };
    if returned != AppReturn::Entered {
        returned_early(engine, returned);
    } else if let Some(call) = app.rings.lone_call(RESERVE) {
        if calls::run_lone(engine, platform.tx_queue(), call) {
            return if engine.owed() { Turn::of(engine) } else { Turn::Short };
        }
    } else if let Ok(ready) = app.rings.calls() {
        calls::run_calmly(engine, platform.tx_queue(), ready);
    } else {
        bad_ring(engine, platform);
    }
    engine.owed();
    Turn::of(engine)
}
