//! The application's context of a core: attached, taken away, its memory given back.
use super::Engine;
use crate::app::{App, AppPort, Drain};
use crate::limits::DRAIN_TIMEOUT;
use crate::moves::target::end_of_app;
use crate::time::Instant;
use crate::udp;

/// The end of an application: its memory is free when this frame has left.
#[derive(Debug)]
pub(super) struct Draining {
    until: Instant,
    /// The last frame that can refer to it.
    frame: u32,
}

impl Engine {
    /// Connects the application's context of this core; `group_in` events are its first.
    pub fn attach_app(&mut self, port: AppPort) {
        self.stir();
        let local = &mut self.local;
        local.app_epoch += 1;
        local.memory = Some(port.memory);
        let mut app = App::new(port.rings, local.core, local.now);
        for group in self.groups.iter().flatten() {
            app.group_in.insert(group.id);
        }
        local.app = Some(app);
        self.draining = None;
        self.tell_again();
    }

    /// The application is gone: aborts what is its, then [`Engine::drain`] tells when its memory
    /// is free. To be called on every core's engine.
    pub fn detach_app(&mut self) {
        self.stir();
        if self.local.app.take().is_some() {
            self.clear_up();
        }
    }

    /// The platform takes the core away until there is something for it: the application's context is told.
    pub fn tell_parking(&mut self) {
        self.stir();
        if let Some(app) = &mut self.local.app {
            app.parking = true;
        }
    }

    /// An application came and went and was never attached here. It counts all the same, since epochs are
    /// those of all cores; and its ports were known here, so that there may be connections and datagrams.
    pub fn miss_app(&mut self) {
        self.stir();
        if self.local.app.is_none() {
            self.local.app_epoch += 1;
            self.clear_up();
        }
    }

    fn clear_up(&mut self) {
        let Engine { local, groups, .. } = self;
        local.app_ended = local.app_epoch;
        local.listeners.remove_epoch(local.app_ended);
        local.udp.ports.remove_epoch(local.app_ended);
        udp::app_gone(local);
        while let Some(index) = local.tx.take_staged_datagram() {
            udp::finished(local, index);
        }
        for group in groups.iter_mut().flatten() {
            end_of_app(group, local);
        }
        self.end_relics_of_app();
        let local = &mut self.local;
        // Datagrams do not wait for neighbours any more, nor do connections.
        local.neighbors.fail_waiting();
        let frame = local.tx.next().wrapping_sub(1);
        self.draining = Some(Draining { until: local.now + DRAIN_TIMEOUT, frame });
    }

    /// How far the end of the detached application has come. `Done` is said once all that was sent
    /// for it has left; from then on nothing here refers to its memory.
    pub fn drain(&mut self) -> Drain {
        self.stir();
        let Some(draining) = &self.draining else { return Drain::Done };
        let local = &self.local;
        let segments = || self.groups.iter().flatten().all(|group| !group.refers_to_memory());
        let datagrams = local.udp.datagrams.len() == 0;
        // What the network itself sends meanwhile (pings, resets) is none of its memory.
        // Groups that are on their way refer to it, too.
        let left = datagrams && local.tx.has_left(draining.frame);
        if self.is_settled() && left && segments() {
            self.local.memory = None;
            self.draining = None;
            return Drain::Done;
        }
        if local.now >= draining.until { Drain::TimedOut } else { Drain::Pending }
    }
}
