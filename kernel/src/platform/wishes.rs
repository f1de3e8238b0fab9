//! What others want of a core, between two iterations: the application's life, the network card's, commands, the monitor.
use alloc::boxed::Box;

use ix_abi::control::CoreState;
use ix_abi::event_log::EventKind;
use ix_abi::stats::Counter;
use ix_dataplane::app::{AppPort, Drain};
use ix_dataplane::engine::Engine;

use super::{App, KernelPlatform, Reserved};
use crate::manager::{self, cores, demand, lending};
use crate::user::lifecycle::{self, Wish};
use crate::user::thread::Thread;
use crate::{control, renew, vmx, watch};

/// A core that has something to do in each iteration looks so often; an idle one in each. Others wait for a long iteration
/// no less.
const LOOK_AROUND_NS: u64 = 10_000;

/// Resets of the device for the sake of one application's end.
const RESETS_MAX: u32 = 4;

impl KernelPlatform {
    /// One look at everything.
    #[inline(never)]
    pub(super) fn look_around(&mut self, engine: &mut Engine) {
        self.look_around = self.now + LOOK_AROUND_NS;
        lifecycle::flush_if_needed(self.core);
        if self.renewal.is_behind() {
            let queues = renew::Queues { rx: &mut self.rx, tx: &mut self.tx };
            self.renewal.take(self.core, queues, engine);
        }
        let attached = matches!(self.app, App::Attached(..));
        if lifecycle::has_wish(attached, self.core) || matches!(self.app, App::Draining(..)) {
            self.change_app(engine);
        }
        let batch = manager::batch_wanted();
        if batch != self.batch {
            self.batch = batch;
            engine.set_rx_batch(batch);
        }
        if self.can_be_taken && vmx::guest::is_overdue(self.core) {
            self.leave_late(engine);
        }
        if cores::is_parked(self.core) != self.park {
            self.change_parking(engine);
        }
        if self.published {
            self.after_publication(engine);
        }
        if cores::is_reserved(self.core) != (self.reserved == Reserved::Yes) {
            self.reserved = self.reserved.turned(self.now);
        }
        if self.watch.is_behind() {
            self.watch.catch_up(engine);
        }
        if self.halts | self.overruns != 0 {
            self.hand_over_counts(engine);
        }
        if let Some(manager) = &mut self.manager {
            if manager.is_due(self.now) {
                manager.tick(engine, self.now);
            } else if manager.is_attentive() {
                manager.listen(self.now);
            }
        }
    }

    /// A parked core leaves, as it was asked to; or it was stopped while it was parked, and runs again.
    #[cold]
    #[inline(never)]
    pub(super) fn be_away(&mut self, engine: &mut Engine) {
        if self.gives_up(engine) {
            return;
        }
        control::set_core_state(self.core, CoreState::Away);
        watch::log::record(EventKind::CoreLeaves, 0, 0, 0);
        lending::leave();
        // It may have been stopped on the way out or in.
        if !self.gives_up(engine) {
            engine.come_back();
            watch::log::record(EventKind::CoreReturns, 0, 0, 0);
        }
        control::set_core_state(self.core, CoreState::Running);
    }

    /// The monitor stops this core in a moment, wherever it is: better here, where it holds nothing.
    #[cold]
    #[inline(never)]
    fn leave_late(&mut self, engine: &mut Engine) {
        if lending::is_stubborn() {
            return;
        }
        control::set_core_state(self.core, CoreState::Away);
        watch::log::record(EventKind::CoreLeaves, 1, 0, 0);
        lending::leave_late(self.core, self.taken);
        self.gives_up(engine);
        control::set_core_state(self.core, CoreState::Running);
    }

    /// Whether it was given up for lost since it looked last.
    pub(super) fn was_taken(&self) -> bool {
        lending::times_taken(self.core) != self.taken
    }

    /// Whether others have gone on without this core since it looked last: then it gives up what it had.
    fn gives_up(&mut self, engine: &mut Engine) -> bool {
        let taken = lending::times_taken(self.core);
        if core::mem::replace(&mut self.taken, taken) == taken {
            return false;
        }
        let before = engine.stats().get(Counter::TcpForceResets);
        engine.give_up();
        let reset = engine.stats().get(Counter::TcpForceResets) - before;
        log::info!("core {} is back: {reset} connections of its flow groups are over", self.core);
        watch::log::record(EventKind::CoreReturns, 1, reset, 0);
        true
    }

    /// Whether a congested core has called this one, which serves from now on then.
    pub(super) fn is_called(&mut self, engine: &mut Engine) -> bool {
        let called = engine.take_call();
        if called {
            self.parked = false;
            watch::log::record(EventKind::CoreServes, 0, 0, 0);
        }
        called
    }

    /// What core 0 says: park, or serve.
    #[cold]
    #[inline(never)]
    fn change_parking(&mut self, engine: &mut Engine) {
        self.park = !self.park;
        // Core 0 parks a core that was stopped: this is the first that it does when it runs again.
        self.gives_up(engine);
        // It may have been called, and serve already.
        if self.park == self.parked {
            return;
        }
        self.parked = self.park;
        if self.parked {
            let _of_the_past = engine.take_call();
            engine.tell_parking();
            watch::log::record(EventKind::CoreParked, 0, 0, 0);
        } else {
            watch::log::record(EventKind::CoreServes, 0, 0, 0);
        }
    }

    /// After each publication: what this core may do when it is congested, and what it has done.
    #[cold]
    #[inline(never)]
    fn after_publication(&mut self, engine: &mut Engine) {
        self.published = false;
        let wake = *engine.measure().wake();
        let (number, grant) = demand::grant_of(self.core);
        if number != self.grant.0 {
            self.grant = (number, wake.count);
        }
        if wake.count != self.wakes {
            self.wakes = wake.count;
            watch::log::record(EventKind::CoreWoken, wake.to, wake.delay_ns, wake.late_ns);
        }
        // Each serves once.
        engine.set_grant(grant.filter(|_| self.grant.1 == wake.count && !self.parked));
    }

    fn attach(&mut self, engine: &mut Engine, wish: Wish) {
        let Wish::Attach(program, generation) = wish else { return };
        let port = AppPort {
            context: self.core as u16,
            rings: program.rings(self.core),
            memory: alloc::sync::Arc::clone(&program.map),
        };
        let thread = Box::new(Thread::new(program, self.core));
        engine.attach_app(port);
        self.app = App::Attached(thread, generation);
    }

    fn detach(&mut self, engine: &mut Engine) {
        match core::mem::replace(&mut self.app, App::None) {
            App::Attached(thread, generation) => {
                engine.detach_app();
                thread.leave();
                self.app = App::Draining(generation, 0, 0);
            }
            other => self.app = other,
        }
    }

    /// The rare part of the quiescent point.
    #[cold]
    #[inline(never)]
    fn change_app(&mut self, engine: &mut Engine) {
        let wish = lifecycle::wish(matches!(self.app, App::Attached(..)), self.core);
        match wish {
            Wish::Attach(..) => self.attach(engine, wish),
            Wish::Detach => self.detach(engine),
            Wish::Nothing => {}
        }
        if let App::Draining(generation, asked, then) = self.app {
            match engine.drain() {
                Drain::Pending => {}
                Drain::TimedOut if asked > 0 && then == renew::done() => {}
                // Each time the device had what fits; other cores' frames wait behind.
                Drain::TimedOut if asked < RESETS_MAX => {
                    log::warn!("core {}: frames of the ended app do not leave", self.core);
                    self.app = App::Draining(generation, asked + 1, renew::ask());
                }
                end => {
                    self.app = App::None;
                    lifecycle::released(self.core, generation, end == Drain::Done);
                }
            }
        } else if let App::None = self.app
            && let Some(generation) = lifecycle::missed(self.core)
        {
            engine.miss_app();
            self.app = App::Draining(generation, 0, 0);
        }
    }

    /// What the platform counts itself goes to the engine's counters.
    fn hand_over_counts(&mut self, engine: &mut Engine) {
        let stats = engine.stats_mut();
        stats.add(Counter::Halts, core::mem::take(&mut self.halts));
        stats.add(Counter::AppOverruns, core::mem::take(&mut self.overruns));
    }
}
