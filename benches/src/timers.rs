//! Timers: the wheel alone, and the application's through calls and events.
use crate::app::Timers;
use crate::collect;
use crate::server::Server;
use crate::server::engine::EngineServer;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::{Duration, Instant};
use ix_dataplane::wheel::Wheel;

/// Deadlines are drawn from so far ahead.
const AHEAD: Duration = Duration::from_s(60);

/// What is done to a wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A timer that is not armed is.
    Arm,
    /// An armed one is armed for another time: what a retransmission timer does.
    Rearm,
    /// An armed one is cancelled.
    Cancel,
    /// One fires, the wheel's advance included.
    Fire,
}

fn draw(rng: &mut Rng, now: Instant) -> Instant {
    now + Duration(1 + rng.below(AHEAD.0))
}

/// Counts `work` for each of `timers` timers on one wheel.
pub fn wheel(timers: usize, work: Work) -> usize {
    let mut rng = Rng::from_seed(3);
    let now = Instant(0);
    let mut wheel = Wheel::new(now, timers as u32);
    let deadlines: Vec<Instant> = (0..2 * timers).map(|_| draw(&mut rng, now)).collect();
    let (first, second) = deadlines.split_at(timers);
    if work != Work::Arm {
        for (id, at) in first.iter().enumerate() {
            wheel.arm(id as u32, *at);
        }
    }
    collect::instrument();
    match work {
        Work::Arm | Work::Rearm => collect::counted_region(|| {
            for (id, at) in second.iter().enumerate() {
                wheel.arm(id as u32, *at);
            }
        }),
        Work::Cancel => collect::counted_region(|| {
            for id in 0..timers {
                wheel.cancel(id as u32);
            }
        }),
        Work::Fire => {
            let fired = collect::counted_region(|| {
                let mut fired = 0;
                // As a loop does that sleeps until the next deadline.
                while !wheel.is_empty() {
                    wheel.advance(wheel.next_deadline());
                    while wheel.pop_expired().is_some() {
                        fired += 1;
                    }
                }
                fired
            });
            assert_eq!(fired, timers);
        }
    }
    timers
}

/// Counts firings of application timers that are set again each time: event, call, and the loop that sleeps until
/// the next deadline.
pub fn app(server: &mut EngineServer<Timers>, firings: usize) -> usize {
    let turn = |server: &mut EngineServer<Timers>| {
        let now_ns = server.now_ns();
        let work = server.work();
        if !work.busy && work.deadline != Instant::NEVER {
            server.pass_ns(work.deadline.0.saturating_sub(now_ns));
        }
    };
    while server.app().fired < firings as u64 / 4 || server.app().set < server.app().timers {
        turn(server);
        server.turn();
    }
    collect::instrument();
    let before = server.app().fired;
    while server.app().fired < before + firings as u64 {
        turn(server);
        collect::counted_region(|| server.turn());
    }
    (server.app().fired - before) as usize
}
