//! The state machine of all policies: a ladder of steps, rules for going up and down, and time between the steps.
use super::ladder::steps;
use super::{Change, Config, CoreLoad, Figures, Kind, Rules, Sample, Step, Why};

/// A step down that is regretted doubles the time until the next, at most to so many times …
const REGRET_MAX: u64 = 32;
/// … unless the load has fallen to this share of what the step below could bear.
const CLEARLY_LESS: f64 = 0.8;

/// Decides about one dataplane.
#[derive(Clone, Debug)]
pub struct Governor {
    kind: Kind,
    rules: Rules,
    ladder: Vec<Step>,
    /// The static policy without a number: nothing is ever decided.
    free: bool,
    at: usize,
    /// When and in which direction the last step went; also a step that somebody else took.
    last: Option<(u64, Way)>,
    /// Factor on the time before a step down.
    regret: u64,
    slow: Slow,
    /// The longest queue, an average that halves with each look, as IX's.
    queue: f64,
    /// When somebody else had given it more cores, and the load has not been spread over them yet.
    uneven: Option<u64>,
    seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Averages over `smooth_ms`, as IX had them.
#[derive(Clone, Copy, Debug, Default)]
struct Slow {
    since: Option<u64>,
    last: u64,
    busy: f64,
    busiest: f64,
    queue: f64,
    delay_us: f64,
}

impl Governor {
    /// For a dataplane of `cores` cores on a host with these frequencies (shares of the highest).
    pub fn new(config: &Config, cores: u32, frequencies: &[f64]) -> Governor {
        let cores = cores.max(1);
        let most = if config.cores.max == 0 { cores } else { config.cores.max.min(cores) };
        let least = config.cores.min.clamp(1, most);
        let fixed = config.fixed.cores.clamp(least, most);
        let (min, max) = match config.policy {
            Kind::Static if config.fixed.cores == 0 => (1, cores),
            Kind::Static => (fixed, fixed),
            _ => (least, most),
        };
        let ladder = steps(config.policy, min, max, frequencies);
        Governor {
            kind: config.policy,
            rules: config.rules().clone(),
            free: config.policy == Kind::Static && config.fixed.cores == 0,
            at: ladder.len() - 1,
            ladder,
            last: None,
            regret: 1,
            slow: Slow::default(),
            queue: 0.0,
            uneven: None,
            seen: false,
        }
    }

    /// What is to serve now.
    pub fn step(&self) -> Step {
        self.ladder[self.at]
    }

    /// The least that may serve.
    pub fn lowest(&self) -> Step {
        self.ladder[0]
    }

    /// It is known what serves, frequency included: one of the steps.
    pub fn begin(&mut self, step: Step) {
        if let Some(at) = self.ladder.iter().position(|s| *s == step) {
            self.at = at;
            self.seen = true;
        }
    }

    /// How many cores may serve before this is asked again: the dataplane may wake those beyond by itself.
    pub fn authorised(&self) -> u32 {
        let most = self.ladder[self.ladder.len() - 1].cores;
        if self.kind == Kind::Static {
            return self.step().cores;
        }
        self.step().cores.saturating_add(self.rules.reserve).min(most)
    }

    /// Looks at a sample; a change is to be carried out at once. If it fails, the next sample says so.
    pub fn decide(&mut self, sample: &Sample) -> Option<Change> {
        let serving = sample.serving();
        if self.free || sample.cores.is_empty() {
            return None;
        }
        let now = sample.now_ms;
        let mut figures = figures(sample);
        self.queue = (self.queue + figures.queue) / 2.0;
        figures.queue = self.queue;
        self.adopt(serving, now);
        let from = Step { cores: serving, ..self.step() };
        if serving != self.step().cores {
            let way = if serving < self.step().cores { Way::Up } else { Way::Down };
            return self
                .may(way, now)
                .then(|| self.go(self.at, way, Why::Bounds, from, figures, now));
        }
        self.slow.add(&figures, mean_queue(sample), now, self.rules.smooth_ms);
        if self.kind == Kind::Static {
            return None;
        }
        if self.uneven.is_some_and(|at| now.saturating_sub(at) >= self.rules.up_after_up_ms) {
            self.uneven = None;
            self.slow = Slow::default();
            return Some(Change { from, to: self.step(), why: Why::Uneven, figures });
        }
        if let Some((to, why)) = self.up(sample, &figures) {
            return self.may(Way::Up, now).then(|| self.go(to, Way::Up, why, from, figures, now));
        }
        if self.at == 0 || !self.may(Way::Down, now) {
            return None;
        }
        let to = self.down(sample, now)?;
        if self.regrets(now) {
            return None;
        }
        Some(self.go(to, Way::Down, Why::Idle, from, figures, now))
    }

    /// A change has been carried out just now. What was measured while groups moved says nothing about what is: the time
    /// until the next step counts from here.
    pub fn carried_out(&mut self, now_ms: u64) {
        if let Some((at, _)) = &mut self.last {
            *at = now_ms.max(*at);
        }
        self.slow = Slow::default();
        self.queue = 0.0;
    }

    /// What serves is a fact: somebody else may have set it, the dataplane have woken a core, or a command failed.
    fn adopt(&mut self, serving: u32, now: u64) {
        let was = self.step().cores;
        if self.seen && serving == was {
            return;
        }
        let inside = serving.clamp(self.ladder[0].cores, self.ladder[self.ladder.len() - 1].cores);
        // Steps that differ in frequency only: the one that is, otherwise the lowest.
        if self.step().cores != inside || !self.seen {
            self.at = self.ladder.iter().position(|s| s.cores == inside).unwrap_or(0);
            // With all cores, the frequency is not known: the highest harms nobody.
            if inside == self.ladder[self.ladder.len() - 1].cores && !self.seen {
                self.at = self.ladder.len() - 1;
            }
        }
        if self.seen && inside != was {
            let way = if inside > was { Way::Up } else { Way::Down };
            self.last = Some((now, way));
            self.slow = Slow::default();
            self.uneven = (way == Way::Up).then_some(now);
        }
        self.seen = true;
    }

    /// Whether enough time has gone by since the last step.
    fn may(&self, way: Way, now: u64) -> bool {
        let Some((at, last)) = self.last else { return true };
        now.saturating_sub(at) >= self.hold(last, way)
    }

    fn hold(&self, last: Way, next: Way) -> u64 {
        let r = &self.rules;
        match (last, next) {
            (Way::Up, Way::Up) => r.up_after_up_ms,
            (Way::Down, Way::Up) => r.up_after_down_ms,
            (Way::Up, Way::Down) => r.down_after_up_ms,
            (Way::Down, Way::Down) => r.down_after_down_ms,
        }
    }

    /// Whether the same step down was a mistake not long ago.
    fn regrets(&self, now: u64) -> bool {
        let Some((at, Way::Up)) = self.last else { return false };
        let r = &self.rules;
        let ratio = self.ladder[self.at - 1].capacity() / self.step().capacity();
        let clearly = self.slow.busiest <= r.down_busy * ratio * CLEARLY_LESS;
        !clearly && now.saturating_sub(at) < r.down_after_up_ms.saturating_mul(self.regret)
    }

    /// A reason to go up, and where to. Of several reasons, the one that asks for most; of equals, the dataplane's own.
    fn up(&self, sample: &Sample, figures: &Figures) -> Option<(usize, Why)> {
        let r = &self.rules;
        let top = self.ladder.len() - 1;
        if self.at == top {
            return None;
        }
        let serving = || sample.cores.iter().filter(|c| c.serves).map(clean);
        let slow =
            |limit: f64| serving().any(|c| c.delay_p99_us >= limit && c.busy >= r.busy_floor);
        let late = slow(r.target_us);
        let reason = if late {
            Some(Why::Late)
        } else if slow(r.up_delay_us) {
            Some(Why::Delay)
        } else if figures.queue > r.up_queue {
            Some(Why::Queue)
        } else if figures.busiest > r.up_busy {
            Some(Why::Busy)
        } else {
            None
        };
        let mut to = reason.map(|why| (self.at + 1, why));
        if late {
            let wanted = self.step().capacity() * r.late_factor;
            let enough = self.ladder.iter().position(|s| s.capacity() >= wanted).unwrap_or(top);
            to = Some((enough.max(self.at + 1), Why::Late));
        }
        if let Some(wants) = sample.wants.filter(|wants| *wants > self.step().cores) {
            let enough = self.ladder.iter().position(|s| s.cores >= wants).unwrap_or(top);
            // With all cores serving already, a wish for more is a wish for a higher frequency.
            let enough = enough.max(self.at + 1).min(top);
            if to.is_none_or(|(at, _)| at <= enough) {
                to = Some((enough, Why::Asked));
            }
        }
        to
    }

    /// The lowest step that would do, if any below does; not below what `down_factor` allows at once.
    fn down(&self, sample: &Sample, now: u64) -> Option<usize> {
        let r = &self.rules;
        let s = &self.slow;
        // Averages of less than the time are averages of nothing much.
        let ripe = s.since.is_some_and(|since| now.saturating_sub(since) >= r.smooth_ms);
        if !ripe || s.queue >= r.down_queue || s.delay_us >= r.down_delay_us {
            return None;
        }
        let here = self.step().capacity();
        let does = |below: &Step| {
            let ratio = below.capacity() / here;
            1.0 - s.busy > r.down_margin * (1.0 - ratio)
                && s.busiest <= r.down_busy * ratio
                && sample.wants.is_none_or(|wants| wants <= below.cores)
        };
        let next = self.at - 1;
        if !does(&self.ladder[next]) {
            return None;
        }
        let far = |step: &Step| step.capacity() * r.down_factor >= here && does(step);
        Some(self.ladder.iter().position(far).map_or(next, |at| at.min(next)))
    }

    fn go(
        &mut self,
        to: usize,
        way: Way,
        why: Why,
        from: Step,
        figures: Figures,
        now: u64,
    ) -> Change {
        match (self.last, way) {
            // Up again soon after a step down: it was a mistake.
            (Some((at, Way::Down)), Way::Up) => {
                let soon = now.saturating_sub(at) < self.rules.down_after_up_ms;
                self.regret = if soon { (self.regret * 2).min(REGRET_MAX) } else { 1 };
            }
            (Some((_, Way::Down)), Way::Down) => self.regret = 1,
            _ => {}
        }
        self.at = to;
        self.last = Some((now, way));
        self.slow = Slow::default();
        self.queue = 0.0;
        self.uneven = None;
        Change { from, to: self.step(), why, figures }
    }
}

impl Slow {
    fn add(&mut self, f: &Figures, queue: f64, now: u64, smooth_ms: u64) {
        let Some(since) = self.since else {
            *self = Slow {
                since: Some(now),
                last: now,
                busy: f.busy,
                busiest: f.busiest,
                queue,
                delay_us: f.delay_p99_us,
            };
            return;
        };
        // The average of all so far, then one that forgets: steady from the first sample on.
        let age = now.saturating_sub(since).min(smooth_ms).max(1);
        let weight = (now.saturating_sub(self.last) as f64 / age as f64).min(1.0);
        self.last = now;
        let mix = |old: &mut f64, new: f64| *old += (new - *old) * weight;
        mix(&mut self.busy, f.busy);
        mix(&mut self.busiest, f.busiest);
        mix(&mut self.queue, queue);
        mix(&mut self.delay_us, f.delay_p99_us);
    }
}

/// Numbers that can be reckoned with: none of them is NaN, negative or beyond all bounds.
fn clean(core: &CoreLoad) -> CoreLoad {
    let within = |x: f64, most: f64| if x.is_nan() { 0.0 } else { x.clamp(0.0, most) };
    CoreLoad {
        serves: core.serves,
        busy: within(core.busy, 1.0),
        delay_p99_us: within(core.delay_p99_us, 1e12),
        queue: within(core.queue, 1e12),
    }
}

fn figures(sample: &Sample) -> Figures {
    let mut f = Figures { serving: sample.serving(), wants: sample.wants, ..Figures::default() };
    for core in sample.cores.iter().filter(|c| c.serves).map(clean) {
        f.busy += core.busy / f64::from(f.serving);
        f.busiest = f.busiest.max(core.busy);
        f.delay_p99_us = f.delay_p99_us.max(core.delay_p99_us);
        f.queue = f.queue.max(core.queue);
    }
    f
}

fn mean_queue(sample: &Sample) -> f64 {
    let serving = sample.serving().max(1);
    let queues = sample.cores.iter().filter(|c| c.serves).map(|c| clean(c).queue);
    queues.sum::<f64>() / f64::from(serving)
}
