use super::*;
use alloc::vec::Vec;
use ix_abi::GroupId;

const US: u64 = 1_000;

/// A core's figures and its clock.
struct Core {
    measure: Box<Measure>,
    now: Instant,
}

impl core::ops::Deref for Core {
    type Target = Measure;
    fn deref(&self) -> &Measure {
        &self.measure
    }
}

impl core::ops::DerefMut for Core {
    fn deref_mut(&mut self) -> &mut Measure {
        &mut self.measure
    }
}

impl Core {
    fn start(&mut self, us: u64) {
        let before = core::mem::replace(&mut self.now, Instant(us * US));
        let _late = self.measure.begin(self.now.0 - before.0);
    }

    fn oldest(&self) -> u64 {
        self.measure.oldest_ns(self.now)
    }
}

fn measure(bound: usize) -> Core {
    Core { measure: Measure::new(8, bound), now: Instant(0) }
}

/// An iteration that begins at `us` and finds so many frames; `waiting` are left if that is the bound.
fn turn(m: &mut Core, us: u64, frames: usize, waiting: usize) {
    m.start(us);
    if m.found(frames) {
        let now = m.now;
        m.found_some_of(Source::Queues, (frames, waiting), now);
    }
    if frames == 0 {
        m.rest();
    }
}

fn delays(m: &Measure) -> Vec<(u64, u64)> {
    let [delay, ..] = m.histograms();
    let counts = delay.iter().enumerate().filter(|(_, count)| **count > 0);
    counts.map(|(at, count)| (ix_abi::histogram::floor_ns(at), *count)).collect()
}

fn floor(us: u64) -> u64 {
    ix_abi::histogram::floor_ns(bucket(us * US))
}

#[test]
fn a_core_at_rest_finds_frames_at_once() {
    let mut m = measure(64);
    turn(&mut m, 10, 0, 0);
    turn(&mut m, 5_000, 3, 0);
    assert_eq!(delays(&m), [(0, 3)]);
    assert_eq!((m.busy_ns(), m.depth_max()), (0, 3));
}

#[test]
fn what_a_busy_core_finds_has_waited_since_the_poll_before() {
    let mut m = measure(64);
    turn(&mut m, 10, 1, 0);
    turn(&mut m, 30, 5, 0);
    turn(&mut m, 130, 2, 0);
    assert_eq!(delays(&m), [(0, 1), (floor(20), 5), (floor(100), 2)]);
    assert_eq!(m.busy_ns(), 120 * US);
    let loops = m.histograms()[1];
    assert_eq!((loops[bucket(20 * US)], loops[bucket(100 * US)], sum(&loops)), (1, 1, 2));
    // Once it has found nothing, it is at rest.
    turn(&mut m, 140, 0, 0);
    turn(&mut m, 900, 1, 0);
    assert_eq!(delays(&m)[0], (0, 2));
    assert_eq!(m.busy_ns(), 130 * US);
}

#[test]
fn frames_that_a_full_poll_leaves_are_as_old_as_the_first_poll_that_saw_them() {
    let mut m = measure(4);
    turn(&mut m, 0, 1, 0);
    // Six came since 0; two stay.
    turn(&mut m, 10, 4, 2);
    assert_eq!(m.depth_max(), 6);
    // Those two, and two of three that came since 10; one stays.
    turn(&mut m, 20, 4, 1);
    assert_eq!(m.oldest(), 10 * US);
    turn(&mut m, 30, 1, 0);
    assert_eq!(delays(&m), [(0, 1), (floor(10), 6), (floor(20), 3)]);
    // Nothing is left: the next is an ordinary poll.
    assert!(!m.found(3) && m.found(4));
}

#[test]
fn a_long_backlog_is_rather_too_old_than_too_young() {
    let mut m = measure(1);
    turn(&mut m, 0, 1, 0);
    for at in 1..=40 {
        turn(&mut m, at, 1, at as usize);
    }
    let (mut taken, mut worst) = (0, 0);
    for at in 41..=80 {
        turn(&mut m, at, 1, 80 - at as usize);
        taken += 1;
        worst = worst.max(m.oldest());
    }
    assert_eq!(taken, 40);
    assert_eq!(delays(&m).iter().map(|(_, count)| count).sum::<u64>(), 81);
    // Two came in each microsecond up to 40, so the last of them has waited for 40.
    assert!(worst >= 40 * US, "{worst}");
    assert!(!m.found(0));
}

#[test]
fn frames_that_vanish_from_a_queue_are_forgotten() {
    let mut m = measure(4);
    turn(&mut m, 0, 4, 100);
    turn(&mut m, 10, 4, 3);
    turn(&mut m, 20, 0, 0);
    assert_eq!(m.oldest(), 0);
    assert!(!m.found(1));
}

#[test]
fn rings_have_a_backlog_of_their_own() {
    let mut m = measure(4);
    m.start(0);
    assert!(!m.found(0));
    assert!(m.found_in_rings(4));
    m.found_some_of(Source::Rings, (4, 10), Instant(0));
    m.start(50);
    assert!(!m.found(0), "the queues have left nothing");
    assert!(m.found_in_rings(4));
    m.found_some_of(Source::Rings, (4, 6), Instant(50 * US));
    assert_eq!(m.oldest(), 50 * US);
    assert_eq!(m.depth_max(), 14);
}

#[test]
fn time_in_user_mode_is_in_nanoseconds_whatever_the_counter_counts() {
    let mut m = measure(4);
    m.set_tsc_khz(2_500_000);
    m.used(25_000);
    assert_eq!(m.histograms()[2][bucket(9_999)], 1);
    m.set_tsc_khz(0);
    m.used(u64::MAX >> 24);
    assert_eq!(sum(&m.histograms()[2]), 2);
}

#[test]
fn a_window_says_what_has_happened_in_it() {
    let mut m = measure(64);
    let mut stats = CoreStats::new();
    turn(&mut m, 1, 0, 0);
    assert!(!m.sum_up(&mut stats, Instant(US)));
    for at in 0..100 {
        turn(&mut m, 1_000 + at * 10, 2, 0);
    }
    turn(&mut m, 2_000, 0, 0);
    stats.add(Counter::UserTsc, 400 * US);
    stats.batches[2] += 100;
    assert!(!m.sum_up(&mut stats, Instant(9_000 * US)));
    assert!(m.sum_up(&mut stats, Instant(10_001 * US)));
    let window = *m.window();
    assert_eq!((window.number, window.end_ns, window.length_ns), (1, 10_001 * US, 10_000 * US));
    assert_eq!((window.frames, window.busy_permille, window.user_permille), (200, 100, 40));
    let end = ix_abi::histogram::floor_ns(bucket(10 * US) + 1);
    assert_eq!((window.delay_p50_ns, window.delay_p99_ns, window.delay_max_ns), (end, end, end));
    assert_eq!((window.depth_max, window.depth), (2, 2));
    assert_eq!(stats.get(Counter::BusyTsc), 1_000 * US);
    assert_eq!(stats.get(Counter::IdleTsc), 9_000 * US);
    assert_eq!((stats.get(Counter::LoopsBusy), stats.get(Counter::LoopsIdle)), (100, 2));
    // The next has nothing of it.
    assert!(m.sum_up(&mut stats, Instant(20_001 * US)));
    let empty =
        Window { number: 2, end_ns: 20_001 * US, length_ns: 10_000 * US, ..Window::default() };
    assert_eq!(*m.window(), empty);
}

#[test]
fn loads_go_by_frames_and_survive_a_groups_leaving() {
    let mut loads = Loads::new(4);
    loads.window_ns = 1_000;
    loads.close_window([(GroupId(0), 30), (GroupId(2), 10)].into_iter());
    assert_eq!(
        (loads.all()[0].frames, loads.all()[0].busy_ns, loads.all()[0].recent),
        (30, 750, 30)
    );
    assert_eq!(
        (loads.all()[2].frames, loads.all()[2].busy_ns, loads.all()[1].frames),
        (10, 250, 0)
    );
    assert_eq!(loads.now(GroupId(0), 35), 35);
    loads.goes(GroupId(0), 40);
    assert_eq!((loads.all()[0].frames, loads.all()[0].recent), (40, 0));
    // It had 100 more elsewhere.
    loads.came(GroupId(0), 140);
    loads.close_window([(GroupId(0), 141), (GroupId(9), 5)].into_iter());
    assert_eq!((loads.all()[0].frames, loads.all()[0].busy_ns), (41, 1_750));
}
