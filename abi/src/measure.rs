//! What each core measures of itself, in its block of the control page at `control::measure_offset(core)`. Written by
//! that core only. `docs/control.md` §9 says what each word means.
use crate::control::MEASURE_STRIDE;
use crate::histogram::BUCKETS;
use crate::limits::GROUPS_MAX;

/// Counts up after each publication, about every millisecond.
pub const PUBLISHED: usize = 0x000;
/// When that was, nanoseconds since boot.
pub const NOW_NS: usize = 0x008;
/// Frames that a poll took on average in the last window, of those that found any.
pub const DEPTH: usize = 0x010;
/// Most frames at one look since the window began: those that a poll took, and those that it left because of the
/// bound B.
pub const DEPTH_MAX: usize = 0x018;
/// Sum of the lengths of all busy iterations.
pub const LOOP_SUM_NS: usize = 0x028;
/// Sum of the times in user mode.
pub const USER_SUM_NS: usize = 0x030;
/// Parked cores that this one has woken, since boot. The next four words are of the last time.
pub const WAKES: usize = 0x040;
/// The beginning of the iteration that found itself congested, nanoseconds since boot.
pub const WAKE_BEGAN_NS: usize = 0x048;
/// When it had sent the first frames after the first group; 0: not yet, or none waited.
pub const WAKE_GIVEN_NS: usize = 0x050;
/// This core was woken: the beginning of the iteration that got the first group.
pub const WOKEN_TAKEN_NS: usize = 0x058;
/// When the application had served the first frame, its calls included; 0: not yet.
pub const WOKEN_SERVED_NS: usize = 0x060;
/// How long the waker waited in between for the device alone: until it had sent what was sent before.
pub const WAKE_WAITED_NS: usize = 0x068;
/// The end of the iteration that began at [`WOKEN_TAKEN_NS`]; 0: not yet.
pub const WOKEN_TOOK_NS: usize = 0x070;
/// The beginning of the iteration that found the first frame for that group; 0: not yet.
pub const WOKEN_FOUND_NS: usize = 0x078;

/// The last complete window, of about [`WINDOW_LENGTH_NS`].
pub mod window {
    /// Counts the windows since boot; stored last (release).
    pub const NUMBER: usize = 0x100;
    /// When it ended, nanoseconds since boot.
    pub const END_NS: usize = 0x108;
    /// Its length.
    pub const LENGTH_NS: usize = 0x110;
    /// Frames taken in it, from queues and from other cores.
    pub const FRAMES: usize = 0x118;
    /// Share of it in busy iterations, ‰.
    pub const BUSY_PERMILLE: usize = 0x120;
    /// Share of it in user mode, ‰.
    pub const USER_PERMILLE: usize = 0x128;
    /// Median of the queueing delay; this and the next two are the ends of buckets; 0: no frames.
    pub const DELAY_P50_NS: usize = 0x130;
    /// Its 99th percentile.
    pub const DELAY_P99_NS: usize = 0x138;
    /// Its largest.
    pub const DELAY_MAX_NS: usize = 0x140;
    /// The most frames at one look.
    pub const DEPTH_MAX: usize = 0x148;
}

/// How long a window is; one may last longer if the core was halted or in user mode when it should have ended.
pub const WINDOW_LENGTH_NS: u64 = 10_000_000;

/// Histogram of the queueing delay: a count for each frame.
pub const DELAY: usize = 0x800;
/// Histogram of the length of busy iterations.
pub const LOOP: usize = 0x1000;
/// Histogram of the time in user mode, of each entry.
pub const USER: usize = 0x1800;
/// Frames of each flow group that this core has taken since boot.
pub const GROUP_FRAMES: usize = 0x2000;
/// Time that this core has spent on each flow group since boot: busy time by the groups' parts of the frames.
pub const GROUP_BUSY_NS: usize = 0x3000;

const _: () = assert!(DELAY + BUCKETS * 8 <= LOOP);
const _: () = assert!(LOOP + BUCKETS * 8 <= USER);
const _: () = assert!(USER + BUCKETS * 8 <= GROUP_FRAMES);
const _: () = assert!(GROUP_FRAMES + GROUPS_MAX * 8 <= GROUP_BUSY_NS);
const _: () = assert!(GROUP_BUSY_NS + GROUPS_MAX * 8 <= MEASURE_STRIDE);
