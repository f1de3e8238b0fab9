//! What came of a simulation: figures, and pictures in text.
use super::hist::Hist;
use super::world::Setup;
use crate::policy::{Change, Kind};
use serde::Serialize;
use std::fmt::Write;

/// Sums over the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Time that cores served.
    pub core_ns: u64,
    /// Time that the job had CPUs.
    pub lent_ns: u64,
    /// Energy.
    pub joules: f64,
    /// Moves of flow groups.
    pub moves: u64,
    /// Steps up.
    pub ups: u64,
    /// Steps down.
    pub downs: u64,
    /// Cores that the dataplane has woken by itself.
    pub wakes: u64,
    /// Requests processed.
    pub requests: u64,
    /// Requests that found no room.
    pub dropped: u64,
}

/// A tenth of a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Its middle, seconds from the beginning.
    pub seconds: f64,
    /// The load then, a share of the peak.
    pub load: f64,
    /// Requests processed per second.
    pub requests_per_s: f64,
    /// Cores that served at its end.
    pub cores: u32,
    /// Their frequency, a share of the highest.
    pub frequency: f64,
    /// Median of the queueing delay, µs.
    pub p50_us: f64,
    /// Its 99th percentile, µs.
    pub p99_us: f64,
    /// CPUs that the job had.
    pub lent: u32,
}

/// Something was decided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub seconds: f64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The policy took a step.
    Change(Change),
    /// The dataplane woke a core; so many serve now.
    Woken(u32),
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The policy.
    pub policy: Kind,
    /// The load's name.
    pub load: String,
    /// Its length.
    pub seconds: f64,
    /// Its average, a share of the peak.
    pub mean_load: f64,
    /// Cores of the dataplane.
    pub cores: u32,
    /// From what everything random came.
    pub seed: u64,
    /// The peak, requests per second.
    pub peak_rps: f64,
    /// What a request costs at the highest frequency, µs: in the largest batches, and alone.
    pub service_us: (f64, f64),
    /// What the queueing delay is to stay under, µs.
    pub target_us: f64,
    /// Requests processed.
    pub requests: u64,
    /// Requests that found no room in a receive ring.
    pub dropped: u64,
    /// Queueing delay of all requests, µs: median, 99th percentile, 99.9th.
    pub delay_us: (f64, f64, f64),
    /// Share of the tenths of a second in which the 99th percentile was above the target.
    pub late: f64,
    /// Time that cores served, in seconds of a core.
    pub core_seconds: f64,
    /// The same if all cores always do.
    pub all_core_seconds: f64,
    /// Share of it saved.
    pub saved: f64,
    /// Share that nobody can save: cores busy all the time, in the largest batches.
    pub saved_at_most: f64,
    /// Energy by the model of `sim::power`, J.
    pub joules: f64,
    /// The same if all cores always poll at the highest frequency.
    pub all_joules: f64,
    /// Share of it saved.
    pub energy_saved: f64,
    /// What the job did, as a share of what it does with the whole machine for itself (`background` only).
    pub job: Option<f64>,
    /// Steps up, steps down, cores that the dataplane woke.
    pub steps: (u64, u64, u64),
    /// Moves of flow groups.
    pub moves: u64,
    /// What was decided.
    pub events: Vec<Event>,
    /// By tenths of a second.
    pub points: Vec<Point>,
}

impl Report {
    pub(super) fn new(
        setup: &Setup,
        peak: f64,
        t: Totals,
        all: &Hist,
        points: Vec<Point>,
        events: Vec<Event>,
    ) -> Report {
        let seconds = setup.curve.seconds();
        let cores = setup.cores.clamp(1, 64);
        let target_us = setup.config.rules().target_us;
        // Rounded, so that nothing is nothing.
        let saved = |part: f64, all: f64| ((1.0 - part / all) * 1e9).round() / 1e9 + 0.0;
        let share = |part: f64, all: f64| if all > 0.0 { saved(part, all) } else { 0.0 };
        let us = |q: f64| all.quantile(q) as f64 / 1e3;
        let core_seconds = t.core_ns as f64 / 1e9;
        let all_core_seconds = f64::from(cores) * seconds;
        let all_joules = setup.power.watts(cores, 1.0) * seconds;
        let most = setup.service.most_per_core();
        let least = |p: &Point| (p.load * peak / most).ceil().max(1.0);
        let least_cores = points.iter().map(least).sum::<f64>() / points.len().max(1) as f64;
        let late = points.iter().filter(|p| p.p99_us > target_us).count();
        let cost = setup.service.request_ns;
        Report {
            policy: setup.config.policy,
            load: setup.curve.name.clone(),
            seconds,
            mean_load: setup.curve.mean(),
            cores,
            seed: setup.seed,
            peak_rps: peak,
            service_us: (cost / 1e3, (cost + setup.service.iteration_ns) / 1e3),
            target_us,
            requests: t.requests,
            dropped: t.dropped,
            delay_us: (us(0.5), us(0.99), us(0.999)),
            late: late as f64 / points.len().max(1) as f64,
            core_seconds,
            all_core_seconds,
            saved: share(core_seconds, all_core_seconds),
            saved_at_most: share(least_cores, f64::from(cores)),
            joules: t.joules,
            all_joules,
            energy_saved: share(t.joules, all_joules),
            job: (setup.config.policy == Kind::Background)
                .then_some(t.lent_ns as f64 / 1e9 / all_core_seconds),
            steps: (t.ups, t.downs, t.wakes),
            moves: t.moves,
            events,
            points,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "policy {}, load {} ({} s, {:.0} % of the peak on average), {} cores, seed {}",
            self.policy,
            self.load,
            self.seconds,
            self.mean_load * 100.0,
            self.cores,
            self.seed
        );
        let _ = writeln!(
            out,
            "  peak {:.2} M requests/s; a request costs {:.2} µs in a large batch, {:.2} µs alone",
            self.peak_rps / 1e6,
            self.service_us.0,
            self.service_us.1
        );
        out.push('\n');
        self.draw(&mut out);
        out.push('\n');
        let _ = writeln!(
            out,
            "  queueing delay     p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs of {} requests (target {:.0} µs; \
             missed in {:.1} % of the tenths of a second), {} dropped",
            self.delay_us.0,
            self.delay_us.1,
            self.delay_us.2,
            self.requests,
            self.target_us,
            self.late * 100.0,
            self.dropped
        );
        let _ = writeln!(
            out,
            "  core-seconds       {:.1} of {:.1}: {:.1} % fewer (at most {:.1} % can be saved)",
            self.core_seconds,
            self.all_core_seconds,
            self.saved * 100.0,
            self.saved_at_most * 100.0
        );
        let _ = writeln!(
            out,
            "  energy (a model)   {:.0} J of {:.0} J: {:.1} % less",
            self.joules,
            self.all_joules,
            self.energy_saved * 100.0
        );
        if let Some(job) = self.job {
            let _ = writeln!(
                out,
                "  background job     {:.1} % of what it does with all cores for itself",
                job * 100.0
            );
        }
        let (ups, downs, wakes) = self.steps;
        let _ = writeln!(
            out,
            "  steps              {ups} up, {downs} down; {wakes} cores woken by the dataplane itself; {} flow groups moved",
            self.moves
        );
        out
    }

    /// What was decided, a line each.
    pub fn decisions(&self) -> String {
        let mut out = String::new();
        for event in &self.events {
            let _ = match event.what {
                What::Change(change) => writeln!(out, "  {:8.3} s  {change}", event.seconds),
                What::Woken(serving) => writeln!(
                    out,
                    "  {:8.3} s  the dataplane wakes a core: {serving} serve",
                    event.seconds
                ),
            };
        }
        out
    }

    /// Rows of bars over the time.
    fn draw(&self, out: &mut String) {
        const WIDTH: usize = 72;
        type Value = fn(&Point) -> f64;
        let rows: [(&str, Value, f64); 4] = [
            ("load", |p| p.load, 1.0),
            ("cores", |p| f64::from(p.cores), f64::from(self.cores)),
            ("frequency", |p| p.frequency, 1.0),
            ("p99 delay", |p| p.p99_us, self.target_us),
        ];
        for (name, value, most) in rows {
            if name == "frequency" && self.points.iter().all(|p| p.frequency == 1.0) {
                continue;
            }
            let column = |at: usize| {
                let part = |i: usize| i * self.points.len() / WIDTH;
                let all =
                    &self.points[part(at)..part(at + 1).max(part(at) + 1).min(self.points.len())];
                all.iter().map(value).fold(0.0, f64::max)
            };
            let bars: String = match self.points.is_empty() {
                true => String::new(),
                false => (0..WIDTH).map(|at| bar(column(at) / most)).collect(),
            };
            let _ = writeln!(out, "  {name:<9} {}│ {most:.0}{}", bars, unit(name));
        }
    }

    /// Comma-separated values, as `ixcp plot` and `ixcp policy simulate --load` read them.
    pub fn csv(&self) -> String {
        let mut out = format!(
            "# ixcp policy simulate: policy {}, load {}, {} cores, seed {}, target {} us\n",
            self.policy, self.load, self.cores, self.seed, self.target_us
        );
        out += "seconds,requests_per_s,cores,frequency,p50_us,p99_us\n";
        for p in &self.points {
            let _ = writeln!(
                out,
                "{:.3},{:.0},{},{:.4},{:.3},{:.3}",
                p.seconds, p.requests_per_s, p.cores, p.frequency, p.p50_us, p.p99_us
            );
        }
        out
    }
}

fn unit(name: &str) -> &'static str {
    if name == "p99 delay" { " µs" } else { "" }
}

/// One of nine heights; what is above 1 is marked.
fn bar(part: f64) -> char {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if part > 1.0 { '!' } else { BARS[((part * 8.0).ceil() as usize).min(8)] }
}
