//! The text exposition format of Prometheus, version 0.0.4. All samples of a metric stand together, whatever
//! dataplane and core they are of.
use crate::measured::{Demand, Measured, Times};
use crate::observe::Observed;
use crate::snapshot::{Core, GAUGES, Snapshot};
use ix_abi::control::State;
use ix_abi::histogram::floor_ns;
use ix_abi::stats::{Counter, Drop};
use std::fmt::{Display, Write};

/// Every state of a dataplane, as the page's texts name them.
const STATES: [State; 8] = [
    State::Empty,
    State::Booting,
    State::Starting,
    State::Ready,
    State::Unresponsive,
    State::AppEnded,
    State::Stopping,
    State::Panicked,
];

/// A dataplane whose page can be read.
type Readable<'a> = (&'a str, &'a Snapshot);

/// Everything about the dataplanes.
pub fn exposition(observed: &[Observed]) -> String {
    let mut out = String::new();
    head(&mut out, "ix_readable", "gauge", "Whether the dataplane's control page can be read.");
    for o in observed {
        sample(&mut out, "ix_readable", &[("dataplane", &o.name)], u8::from(o.snapshot.is_ok()));
    }
    let all: Vec<Readable<'_>> = observed
        .iter()
        .filter_map(|o| Some((o.name.as_str(), o.snapshot.as_ref().ok()?)))
        .collect();
    dataplanes(&mut out, &all);
    states(&mut out, &all);
    cores(&mut out, &all);
    for &counter in Counter::ALL {
        counted(&mut out, &all, counter);
    }
    drops(&mut out, &all);
    batches(&mut out, &all);
    times(&mut out, &all);
    demand(&mut out, &all);
    out
}

/// What there is once for each dataplane.
fn dataplanes(out: &mut String, all: &[Readable<'_>]) {
    head(out, "ix_info", "gauge", "What the dataplane is; always 1.");
    for (name, s) in all {
        let ipv4 = s.ipv4.map(|ip| ip.to_string()).unwrap_or_default();
        let labels =
            [("dataplane", *name), ("app", &s.app), ("ipv4", &ipv4), ("contract", &s.version)];
        sample(out, "ix_info", &labels, 1);
    }
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Snapshot) -> f64| {
        head(out, name, kind, help);
        for (dataplane, s) in all {
            sample(out, name, &[("dataplane", dataplane)], value(s));
        }
    };
    each("ix_alive", "gauge", "Whether the kernel's heart beats.", &|s| {
        f64::from(u8::from(s.alive))
    });
    each("ix_uptime_seconds", "gauge", "Time since the kernel's boot.", &|s| s.now_ns as f64 / 1e9);
    each("ix_app_ready", "gauge", "Whether the application serves.", &|s| {
        f64::from(u8::from(s.ready_ns != 0))
    });
    each("ix_app_starts_total", "counter", "Starts of the application.", &|s| s.app_starts as f64);
    each("ix_cores", "gauge", "Cores of the dataplane.", &|s| s.cores.len() as f64);
    each("ix_cores_active", "gauge", "Cores that serve; the others are parked.", &|s| {
        s.cores.iter().filter(|c| c.serves).count() as f64
    });
    each("ix_group_moves_total", "counter", "Flow groups moved between cores.", &|s| {
        s.moves as f64
    });
    each("ix_batch_bound", "gauge", "Most frames of a receive batch.", &|s| s.batch as f64);
    each("ix_memory_bytes", "gauge", "Memory that the kernel manages.", &|s| s.memory_bytes as f64);
    each("ix_tsc_hertz", "gauge", "Ticks per second of the counters named tsc.", &|s| {
        s.tsc_khz as f64 * 1e3
    });
}

/// A sample for each state, of which one is 1: so a state can be averaged and alerted on.
fn states(out: &mut String, all: &[Readable<'_>]) {
    head(out, "ix_state", "gauge", "What the dataplane does: 1 for the state it is in.");
    for (name, s) in all {
        for state in STATES.map(State::text) {
            let labels = [("dataplane", *name), ("state", state)];
            sample(out, "ix_state", &labels, u8::from(s.state == state));
        }
    }
}

/// What there is once for each core and is no counter.
fn cores(out: &mut String, all: &[Readable<'_>]) {
    let value = |c: &Core| u64::from(c.state == "running");
    per_core(
        out,
        all,
        "ix_core_running",
        "gauge",
        "Whether the core polls (0: halted or parked).",
        value,
    );
    let value = |c: &Core| u64::from(c.serves);
    per_core(out, all, "ix_core_active", "gauge", "Whether the core serves.", value);
    let value = |c: &Core| u64::from(c.away);
    per_core(out, all, "ix_core_away", "gauge", "Whether another dataplane has the core.", value);
    per_core(out, all, "ix_core_groups", "gauge", "Flow groups at the core.", |c| c.groups);
}

/// A counter's name and kind. The ending `_total` is a counter's alone: the gauge `buffers_total` is `ix_buffers`.
pub fn metric(counter: Counter) -> (String, &'static str) {
    let text = counter.name();
    if GAUGES.contains(&counter) {
        (format!("ix_{}", text.trim_end_matches("_total")), "gauge")
    } else {
        (format!("ix_{text}_total"), "counter")
    }
}

fn counted(out: &mut String, all: &[Readable<'_>], counter: Counter) {
    let text = counter.name();
    let (name, kind) = metric(counter);
    // An older kernel does not have it: no sample, rather than one that says 0.
    let has = |s: &Snapshot| s.cores.first().is_some_and(|c| c.counters.has(text));
    let all: Vec<Readable<'_>> = all.iter().copied().filter(|(_, s)| has(s)).collect();
    per_core(out, &all, &name, kind, counter.help(), |c| c.counter(counter));
}

fn drops(out: &mut String, all: &[Readable<'_>]) {
    head(out, "ix_drops_total", "counter", "What was dropped, by reason.");
    for_cores(all, |name, core, c| {
        for reason in Drop::ALL.iter().map(|r| r.name()).filter(|r| c.drops.has(r)) {
            let labels = [("dataplane", name), ("core", core), ("reason", reason)];
            sample(out, "ix_drops_total", &labels, c.drops.get(reason));
        }
    });
}

/// Batches by size, cumulative as the format wants it. A batch is of frames from the queue and from other cores.
fn batches(out: &mut String, all: &[Readable<'_>]) {
    head(out, "ix_batch_frames", "histogram", "Frames of a receive batch.");
    for (name, s) in all {
        for c in &s.cores {
            let core = c.core.to_string();
            let labels = [("dataplane", *name), ("core", &core)];
            let mut count = 0u64;
            for (bucket, n) in c.batches.iter().enumerate() {
                count = count.wrapping_add(*n);
                // The last bucket has no upper end: it is all of them.
                let Some(next) = s.batch_buckets.get(bucket + 1) else { break };
                let le = (next - 1).to_string();
                sample(out, "ix_batch_frames_bucket", &[labels[0], labels[1], ("le", &le)], count);
            }
            sample(out, "ix_batch_frames_bucket", &[labels[0], labels[1], ("le", "+Inf")], count);
            let frames =
                c.counter(Counter::RxPackets).wrapping_add(c.counter(Counter::RxSteeredIn));
            sample(out, "ix_batch_frames_sum", &labels, frames);
            sample(out, "ix_batch_frames_count", &labels, count);
        }
    }
}

/// The histograms of times, with a bucket for each octave.
fn times(out: &mut String, all: &[Readable<'_>]) {
    type Get = fn(&Measured) -> &Times;
    let each: [(&str, &str, Get); 3] = [
        ("ix_queueing_delay_seconds", "Time that a frame has waited for its core, at most.", |m| {
            &m.queueing_delay
        }),
        ("ix_loop_seconds", "Length of busy iterations of the core loop.", |m| &m.loop_time),
        ("ix_user_seconds", "Time in user mode, of each entry.", |m| &m.user_time),
    ];
    for (metric, help, get) in each {
        head(out, metric, "histogram", help);
        for_cores(all, |name, core, c| {
            let Some(times) = c.measured.as_ref().map(get) else { return };
            let labels = [("dataplane", name), ("core", core)];
            histogram(out, metric, labels, times);
        });
    }
}

/// Buckets of an octave, of the page's histograms.
const OCTAVE: usize = 8;

fn histogram(out: &mut String, metric: &str, labels: [(&str, &str); 2], times: &Times) {
    let bucket = format!("{metric}_bucket");
    let (mut count, mut at) = (0u64, 0);
    while at + OCTAVE < times.counts.len() {
        count = times.counts[at..at + OCTAVE].iter().fold(count, |sum, n| sum.wrapping_add(*n));
        at += OCTAVE;
        let le = (floor_ns(at) as f64 / 1e9).to_string();
        sample(out, &bucket, &[labels[0], labels[1], ("le", &le)], count);
    }
    sample(out, &bucket, &[labels[0], labels[1], ("le", "+Inf")], times.count);
    sample(out, &format!("{metric}_sum"), &labels, times.sum_ns as f64 / 1e9);
    sample(out, &format!("{metric}_count"), &labels, times.count);
}

/// Cores that the dataplane wants, and has woken.
fn demand(out: &mut String, all: &[Readable<'_>]) {
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Demand) -> u64| {
        head(out, name, kind, help);
        for (dataplane, s) in all {
            if let Some(demand) = &s.demand {
                sample(out, name, &[("dataplane", dataplane)], value(demand));
            }
        }
    };
    each("ix_cores_wanted", "gauge", "Cores that the dataplane wants.", &|d| d.cores.into());
    each("ix_wakes_total", "counter", "Cores that it has woken by itself.", &|d| d.wakes);
}

fn per_core(
    out: &mut String,
    all: &[Readable<'_>],
    metric: &str,
    kind: &str,
    help: &str,
    value: impl Fn(&Core) -> u64,
) {
    head(out, metric, kind, help);
    for_cores(all, |name, core, c| {
        sample(out, metric, &[("dataplane", name), ("core", core)], value(c));
    });
}

fn for_cores(all: &[Readable<'_>], mut each: impl FnMut(&str, &str, &Core)) {
    for (name, s) in all {
        for c in &s.cores {
            each(name, &c.core.to_string(), c);
        }
    }
}

fn head(out: &mut String, metric: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
}

fn sample(out: &mut String, metric: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(metric);
    for (i, (name, text)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(text));
    }
    let _ = writeln!(out, "}} {value}");
}

/// A label's value; the application chooses its name.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
