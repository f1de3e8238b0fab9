//! Policies: how many cores a dataplane has, and how fast they run. State machines without clock, files or control
//! page: samples in, changes out (`docs/policies.md`). The daemon feeds them from the page, the simulator from a model.
use serde::{Deserialize, Serialize};
use std::fmt;

pub mod command;
pub mod config;
pub mod governor;
pub mod ladder;

pub use config::{Config, Rules};
pub use governor::Governor;
pub use ladder::Step;

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// So many cores, or as many as somebody sets by hand.
    Static,
    /// The fewest cores that keep the queueing delay under a target.
    Latency,
    /// The fewest cores at the lowest frequency that do.
    Efficient,
    /// The fewest cores that do; what is free works for a job of the host's.
    Background,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Static, Kind::Latency, Kind::Efficient, Kind::Background];

    /// As it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Static => "static",
            Kind::Latency => "latency",
            Kind::Efficient => "efficient",
            Kind::Background => "background",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A core between two looks. The numbers come from a kernel that is not trusted: anything may be in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CoreLoad {
    /// Whether it serves.
    pub serves: bool,
    /// Share of the time in busy iterations, 0 to 1.
    pub busy: f64,
    /// 99th percentile of the queueing delay of what it took, µs.
    pub delay_p99_us: f64,
    /// The most frames that one poll found.
    pub queue: f64,
}

/// A dataplane between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When, on a clock that only goes forward, ms.
    pub now_ms: u64,
    /// Every core.
    pub cores: Vec<CoreLoad>,
    /// How many cores the dataplane itself asks for, or would do with; `None`: it says nothing.
    pub wants: Option<u32>,
}

impl Sample {
    /// Cores that serve.
    pub fn serving(&self) -> u32 {
        self.cores.iter().filter(|core| core.serves).count() as u32
    }
}

/// What a decision came from: of the cores that serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Cores that serve.
    pub serving: u32,
    /// Average share of the time in busy iterations.
    pub busy: f64,
    /// The busiest core's.
    pub busiest: f64,
    /// The worst core's 99th percentile of the queueing delay, µs.
    pub delay_p99_us: f64,
    /// The most frames that one poll of a core found, on average of the last looks.
    pub queue: f64,
    /// The dataplane's own wish.
    pub wants: Option<u32>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p99 queueing delay {:.0} µs, queue {:.0} frames, busy {:.0} % (busiest {:.0} %)",
            self.delay_p99_us,
            self.queue,
            self.busy * 100.0,
            self.busiest * 100.0
        )?;
        match self.wants {
            Some(wants) => write!(f, ", the dataplane asks for {wants}"),
            None => Ok(()),
        }
    }
}

/// Why a plan changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The dataplane asks for more cores.
    Asked,
    /// Requests wait for too long.
    Delay,
    /// They wait beyond the target.
    Late,
    /// Too many wait.
    Queue,
    /// A core is too busy.
    Busy,
    /// Less would do.
    Idle,
    /// The configuration allows no such number.
    Bounds,
    /// The dataplane has woken a core: now all share the load evenly.
    Uneven,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Why::Asked => "the dataplane asks for it",
            Why::Delay => "requests wait too long",
            Why::Late => "requests wait beyond the target",
            Why::Queue => "queues are too long",
            Why::Busy => "a core is too busy",
            Why::Idle => "less will do",
            Why::Bounds => "the configuration says so",
            Why::Uneven => "the dataplane has woken a core, all are to share the load",
        })
    }
}

/// From one step to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What serves now.
    pub from: Step,
    /// What is to serve.
    pub to: Step,
    /// For which reason.
    pub why: Why,
    /// From which figures.
    pub figures: Figures,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { from, to, why, figures } = self;
        match from == to {
            true => write!(f, "{to}, load spread anew: {why} ({figures})"),
            false => write!(f, "{from} → {to}: {why} ({figures})"),
        }
    }
}

#[cfg(test)]
mod tests;
