//! The application as a core sees it: its rings, its memory, its timers.
use crate::fifo::GroupSet;
use crate::limits::REQUESTS_MAX;
use crate::ports::TIMER_BASE;
use crate::rings::AppRings;
use crate::slab::Slab;
use crate::time::Instant;
use crate::usermem::UserMap;
use crate::wheel::Wheel;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use ix_abi::limits::TIMERS_MAX;
use ix_abi::{Condition, Cookie, CoreId, Event, GroupId, Handle};

/// The way to the application on one core; given to `Engine::attach_app`.
#[derive(Debug)]
pub struct AppPort {
    /// The context that this core runs: its number is the core's.
    pub context: u16,
    /// The context's rings, empty.
    pub rings: AppRings,
    /// The address space; the same for all cores.
    pub memory: Arc<UserMap>,
}

/// How far the end of an application has come on a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Frames in flight still refer to its memory: run the loop and ask again.
    Pending,
    /// Nothing of this core refers to its memory any more.
    Done,
    /// The device did not complete in time: reset it before the memory is used again.
    TimedOut,
}

/// A timer of the application.
#[derive(Debug)]
pub struct AppTimer {
    cookie: Cookie,
    generation: u32,
    armed: bool,
}

impl Default for AppTimer {
    fn default() -> AppTimer {
        AppTimer { cookie: Cookie(0), generation: 1, armed: false }
    }
}

/// Says no more than that there is an application: so that whether there is none is one comparison with a small number.
#[derive(Debug)]
#[repr(u64)]
enum There {
    Is = 1,
}

/// The application's context, with what waits to be told.
#[derive(Debug)]
pub struct App {
    #[allow(dead_code, reason = "what it says is that it is there")]
    there: There,
    /// Its rings.
    pub rings: AppRings,
    /// Results of calls that core 0 executed for this one; at most `limits::REQUESTS_MAX`.
    pub outcomes: VecDeque<Event>,
    /// Requests to core 0 that are not answered.
    pub requests: usize,
    /// Groups that have come and were not announced.
    pub group_in: GroupSet,
    /// It was taken off the core before it returned: resume it, leave its calls alone.
    pub preempted: bool,
    /// A part of its batch waits for the loop's next turn: it is still in `enter`.
    pub unfinished: bool,
    /// Slots at the head of its ring that belong to a batch whose first part has been run.
    pub carried: u32,
    /// It is to be told that its core is parked.
    pub parking: bool,
    /// It is to be ended: leave it alone.
    pub condemned: bool,
    timers: Slab<AppTimer>,
    wheel: Wheel,
    /// Makes timer handles of different cores differ.
    salt: u32,
}

impl App {
    /// Whether it is in `enter`, with all that it has called executed.
    pub fn rests(&self) -> bool {
        !self.preempted && !self.unfinished && self.carried == 0
    }

    /// A context that starts at `now` on `core`.
    pub fn new(rings: AppRings, core: CoreId, now: Instant) -> App {
        App {
            there: There::Is,
            rings,
            outcomes: VecDeque::with_capacity(REQUESTS_MAX),
            requests: 0,
            group_in: GroupSet::default(),
            preempted: false,
            unfinished: false,
            carried: 0,
            parking: false,
            condemned: false,
            timers: Slab::new(TIMERS_MAX as u32),
            wheel: Wheel::new(now, 0),
            salt: u32::from(core.0) << 17,
        }
    }

    /// `timer_set`.
    pub fn set_timer(&mut self, cookie: Cookie, at: Instant) -> Option<Handle> {
        let index = self.timers.alloc()?;
        if self.wheel.capacity() < self.timers.capacity()
            && !self.wheel.grow(self.timers.capacity())
        {
            self.timers.release(index);
            return None;
        }
        let timer = &mut self.timers[index];
        timer.cookie = cookie;
        timer.armed = true;
        self.wheel.arm(index, at);
        Some(self.timer_handle(index))
    }

    /// `timer_cancel`; whether there was such a timer.
    pub fn cancel_timer(&mut self, handle: Handle) -> bool {
        let Some(index) = handle.index().checked_sub(TIMER_BASE) else { return false };
        let armed = self.timers.get(index).is_some_and(|timer| timer.armed);
        if !armed || self.timer_handle(index) != handle {
            return false;
        }
        self.wheel.cancel(index);
        self.free_timer(index);
        true
    }

    /// Whether nothing of the dataplane's own waits to be told.
    #[inline]
    pub fn is_quiet(&self, now: Instant) -> bool {
        !self.has_news() && (self.wheel.is_empty() || !self.wheel.is_due(now))
    }

    /// The same but for timers.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.outcomes.is_empty() || !self.group_in.is_empty() || self.parking
    }

    /// The event of a timer that has fired.
    #[inline]
    pub fn fired_timer(&mut self, now: Instant) -> Option<Event> {
        if self.wheel.is_empty() {
            return None;
        }
        self.wheel.advance(now);
        let index = self.wheel.pop_expired()?;
        let handle = self.timer_handle(index);
        let cookie = self.timers[index].cookie;
        self.free_timer(index);
        Some(Condition::Timer { handle, cookie }.encode())
    }

    /// Timers that are set.
    pub fn timers(&self) -> u32 {
        self.timers.len()
    }

    /// When the next timer fires.
    pub fn deadline(&self) -> Instant {
        self.wheel.next_deadline()
    }

    fn timer_handle(&self, index: u32) -> Handle {
        let generation = (self.timers[index].generation ^ self.salt) & Handle::FIELD_MAX;
        Handle::new(GroupId::DATAPLANE, generation, TIMER_BASE + index)
    }

    fn free_timer(&mut self, index: u32) {
        let timer = &mut self.timers[index];
        timer.armed = false;
        timer.generation = Handle::next_generation(timer.generation);
        self.timers.release(index);
    }
}
