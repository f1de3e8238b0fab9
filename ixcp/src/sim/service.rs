//! What a request costs: kv's GET, counted in the booted kernel (`docs/performance.md`).
use super::rng::Rng;

/// Instructions of an iteration that are shared by what is in its batch, at least: a GET alone costs 3,599, one of sixteen
/// connections 2,906. How many came together there is not known; if few did, more is shared than this.
const ITERATION: f64 = 3_599.0 - 2_906.0;
/// Instructions for each request of a batch.
const REQUEST: f64 = 2_906.0;
/// Instructions of a flow group's move, of both cores together (2,000 connections).
const MOVE: f64 = 12_690.0;
/// Cycles to an instruction: what IX's authors measured of their stack, 3,358 cycles for 2,958 instructions. An assumption for
/// this one: here only instructions are counted.
const CYCLES: f64 = 3_358.0 / 2_958.0;
/// The frequency of the machine they measured on, GHz.
const GHZ: f64 = 2.4;

/// What requests cost at the highest frequency, ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// An iteration of the core loop that has requests.
    pub iteration_ns: f64,
    /// Each request of it, on average.
    pub request_ns: f64,
    /// A flow group's move, on each of the two cores.
    pub move_ns: f64,
    /// From the wish until a parked core polls: interrupt, leaving the halt, the first iteration. An assumption.
    pub wake_ns: f64,
    /// Share of requests that are SETs (memcached's trace ETC has 1 in 30), which cost half as much again.
    pub sets: f64,
    /// Share of requests that take ten times as long: misses in all caches, a table that grows. An assumption.
    pub slow: f64,
}

impl Default for Service {
    fn default() -> Service {
        let ns = |instructions: f64| instructions * CYCLES / GHZ;
        Service {
            iteration_ns: ns(ITERATION),
            request_ns: ns(REQUEST),
            move_ns: ns(MOVE / 2.0),
            wake_ns: 20_000.0,
            sets: 1.0 / 30.0,
            slow: 0.001,
        }
    }
}

impl Service {
    /// One request's cost, ns: a tenth of it varies from one to the next.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        let kind = rng.unit();
        let factor = if kind < self.slow {
            10.0
        } else if kind < self.slow + self.sets {
            1.5
        } else {
            1.0
        };
        // The mean of all kinds is `request_ns`.
        let mean = 1.0 + self.sets * 0.5 + self.slow * 9.0;
        // Of the same draw, the digits that the kind has left over.
        let rest = kind * 65_536.0;
        self.request_ns * factor * (0.9 + 0.2 * (rest - rest.floor())) / mean
    }

    /// Requests per second that a core serves at most, in batches so large that an iteration costs nothing.
    pub fn most_per_core(&self) -> f64 {
        1e9 / self.request_ns
    }
}
