//! Calm: an iteration of the loop asks once whether anything rare has come up, not everybody who may have something.
//!
//! Whoever makes work for a later step or iteration ends the calm: a frame or a call that is not predicted, what enters
//! a list of a flow group (but for that of connections that have something to send, which is looked at in any case), a timer that is due before all others, and what is asked of the engine from outside. Then each
//! step looks for itself, and at the end of the iteration [`Engine::look_around`] looks at everything at once.
use super::Engine;
use crate::app::App;
use crate::dhcp;
use crate::fast;
use crate::local::Local;
use crate::slaac;
use crate::time::Instant;
use crate::wheel::TICK_NS;

impl Engine {
    /// Something has come up.
    pub(crate) fn stir(&mut self) {
        self.local.stir();
    }

    /// Whether the iteration that begins finds nothing rare to do so far: no time has come, nobody has sent anything,
    /// nobody looks on.
    #[inline(always)]
    pub(crate) fn is_calm(&mut self) -> bool {
        let local = &mut self.local;
        // In the past, if it is not.
        let calm = local.now < local.calm_until && !local.mesh.glance();
        if !calm {
            local.stir();
        }
        calm
    }

    /// At the end of an iteration that was calm: nobody has forgotten to say that it is not any more.
    #[inline(always)]
    pub(crate) fn check_calm(&self) {
        debug_assert!(self.is_still_calm());
    }

    /// A wheel may want to turn before a timer that was armed since is due, which can wait: the timers themselves count.
    fn is_still_calm(&self) -> bool {
        let until = self.local.calm_until;
        // Wheels round up to their ticks, and what is overdue to the next.
        let in_time = |at: Instant| at.max(self.local.now).0.saturating_add(TICK_NS) > until.0;
        let due = self.groups.iter().flatten().all(|group| in_time(group.due_at()));
        let app = self.local.app.as_ref();
        let room = app.map(|app| fast::event_room(app.rings.room_then()));
        let rest = app.map(|app| self.first_deadline_but_timers(&self.local).min(app.deadline()));
        let counted = room == Some(self.local.event_room);
        self.quiet_until().is_some() && due && counted && rest.is_some_and(|at| at >= until)
    }

    /// At the end of another one: whether the next can be calm.
    #[inline(never)]
    pub(crate) fn look_around(&mut self) {
        if let Some(until) = self.quiet_until()
            && let Some(app) = &self.local.app
        {
            self.local.event_room = fast::event_room(app.rings.room_then());
            self.local.calm = true;
            self.local.calm_until = until;
            self.local.slow = false;
        }
    }

    /// Until when nothing but frames and calls gives anybody anything to do, `None`: somebody has.
    fn quiet_until(&self) -> Option<Instant> {
        let local = &self.local;
        let app = local.app.as_ref()?;
        let told = self.started
            && self.address_untold | self.ipv6_untold == 0
            && local.acl_answer.is_none()
            && !self.moves.are_under_way()
            && local.leaving.is_empty();
        let sent = !local.tx.has_completions()
            && !local.tx.has_staged()
            && local.holding.is_empty()
            && local.output_ready.is_empty();
        let rests = !app.condemned && app.rests() && !app.has_news();
        let events = local.events_ready.is_empty() && !local.udp.has_events();
        let neighbors = !local.neighbors.has_work(local.now);
        let quiet = told && sent && rests && events && neighbors && !local.tap.is_on();
        quiet.then(|| self.first_deadline(local, app).min(local.ts_tick_ends()))
    }

    fn first_deadline(&self, local: &Local, app: &App) -> Instant {
        let timers = local.due.next_deadline().min(app.deadline());
        timers.min(self.first_deadline_but_timers(local))
    }

    fn first_deadline_but_timers(&self, local: &Local) -> Instant {
        let dhcp = self.dhcp.as_ref().map_or(Instant::NEVER, dhcp::Client::next_deadline);
        let slaac = self.slaac.as_ref().map_or(Instant::NEVER, slaac::Client::next_deadline);
        let fragments =
            local.fragments.as_ref().map_or(Instant::NEVER, |table| table.next_deadline());
        let tables = local.neighbors.next_deadline().min(local.age_ends()).min(fragments);
        dhcp.min(slaac).min(tables).min(self.accounting.publish_at)
    }
}
