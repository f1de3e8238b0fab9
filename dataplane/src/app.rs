//! The application as a core sees it: its rings, its memory, its timers.
use crate::rings::AppRings;
use crate::usermem::UserMap;
use alloc::sync::Arc;

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
