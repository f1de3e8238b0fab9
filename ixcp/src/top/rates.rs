//! Two snapshots become rates. Pure: no clock, no page.
use crate::render;
use crate::snapshot::{Core, Named, Snapshot};
use ix_abi::histogram::{BUCKETS, quantile_ns};
use ix_abi::stats::Counter;
use serde::Serialize;
use std::time::Duration;

/// A dataplane between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Frame {
    /// Its name.
    pub name: String,
    /// Its application.
    pub app: String,
    /// What it does.
    pub state: &'static str,
    /// Whether its heart has beaten between the looks; unknown at the first look at a boot.
    pub alive: Option<bool>,
    /// Its addresses.
    pub address: String,
    /// Drawn at boot.
    pub epoch: String,
    /// Seconds since boot.
    pub uptime_s: f64,
    /// Bound of a receive batch, frames.
    pub batch: u64,
    /// Cores that serve.
    pub serving: usize,
    /// Flow groups moved since boot.
    pub moves: u64,
    /// Every core.
    pub cores: Vec<Row>,
    /// All of them.
    pub total: Rates,
}

/// A core between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its number.
    pub core: usize,
    /// What it does.
    pub state: &'static str,
    /// What it has and does.
    #[serde(flatten)]
    pub rates: Rates,
}

/// Levels, and rates that are unknown (`None`) as long as there is only one look.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Flow groups.
    pub groups: u64,
    /// TCP connections.
    pub connections: u64,
    /// Frames received per second.
    pub rx_pps: Option<f64>,
    /// Frames sent per second.
    pub tx_pps: Option<f64>,
    /// Events given to the application per second: its requests.
    pub events_ps: Option<f64>,
    /// Share of the time in busy iterations, 0 to 1. Unknown also while no iteration has ended (a long halt).
    pub busy: Option<f64>,
    /// Share of the time in user mode, 0 to 1.
    pub user: Option<f64>,
    /// 99th percentile of the queueing delay between the looks, in nanoseconds; of all cores together in the sum.
    pub delay_p99_ns: Option<u64>,
    /// Drops per second, for whatever reason.
    pub drops_ps: Option<f64>,
}

/// What has happened between an earlier snapshot (and how long ago that was) and `now`. One of another boot says
/// nothing about this one.
pub fn frame(name: &str, before: Option<(&Snapshot, Duration)>, now: &Snapshot) -> Frame {
    let before = before.filter(|(s, elapsed)| s.epoch == now.epoch && !elapsed.is_zero());
    let rows = now.cores.iter().map(|core| {
        let earlier = before.and_then(|(s, elapsed)| Some((s.cores.get(core.core)?, elapsed)));
        Row { core: core.core, state: state(core), rates: of_core(earlier, core) }
    });
    let rows: Vec<Row> = rows.collect();
    let part = |s: &Snapshot| (s.total.counters.clone(), s.total.drops.clone());
    let (counters, drops) = part(now);
    let earlier = before.map(|(s, elapsed)| (part(s), elapsed));
    let levels = Rates {
        groups: rows.iter().map(|r| r.rates.groups).sum(),
        connections: counters.get(Counter::TcpConnections.name()),
        ..Rates::default()
    };
    Frame {
        name: name.to_owned(),
        app: now.app.clone(),
        state: now.state,
        alive: before.map(|(s, _)| s.heartbeat != now.heartbeat),
        address: render::addresses(now),
        epoch: now.epoch.clone(),
        uptime_s: now.now_ns as f64 / 1e9,
        batch: now.batch,
        serving: now.cores.iter().filter(|c| c.serves).count(),
        moves: now.moves,
        cores: rows,
        total: match &earlier {
            None => levels,
            Some(((c, d), elapsed)) => Rates {
                delay_p99_ns: before.and_then(|(s, _)| p99(&all_delays(s, now))),
                ..rates(levels, (c, &counters), (d, &drops), *elapsed)
            },
        },
    }
}

/// A core that does not serve is parked, whether or not it halts right now.
fn state(core: &Core) -> &'static str {
    match core {
        _ if core.away => "away",
        _ if core.serves || core.state == "off" => core.state,
        _ => "parked",
    }
}

fn of_core(before: Option<(&Core, Duration)>, now: &Core) -> Rates {
    let connections = now.counter(Counter::TcpConnections);
    let levels = Rates { groups: now.groups, connections, ..Rates::default() };
    let Some((before, elapsed)) = before else { return levels };
    let counters = (&before.counters, &now.counters);
    let grown = delays(before, now);
    Rates {
        delay_p99_ns: grown.and_then(|counts| p99(&counts)),
        ..rates(levels, counters, (&before.drops, &now.drops), elapsed)
    }
}

/// Queueing delays between two looks, by bucket.
fn delays(before: &Core, now: &Core) -> Option<Vec<u64>> {
    let counts = |core: &'_ Core| Some(core.measured.as_ref()?.queueing_delay.counts.clone());
    let (before, now) = (counts(before)?, counts(now)?);
    Some(now.iter().zip(&before).map(|(now, before)| now.wrapping_sub(*before)).collect())
}

/// Nothing if there were no frames.
fn p99(counts: &[u64]) -> Option<u64> {
    Some(quantile_ns(counts, 990)).filter(|ns| *ns > 0)
}

/// Of all cores together.
fn all_delays(before: &Snapshot, now: &Snapshot) -> Vec<u64> {
    let mut all = vec![0u64; BUCKETS];
    for counts in before.cores.iter().zip(&now.cores).filter_map(|(b, n)| delays(b, n)) {
        all.iter_mut().zip(counts).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
    }
    all
}

/// `levels` with rates: (before, now) each.
fn rates(
    levels: Rates,
    counters: (&Named, &Named),
    drops: (&Named, &Named),
    elapsed: Duration,
) -> Rates {
    // Counters begin at 0 again beyond 2^64 - 1.
    let grown = |c: Counter| counters.1.get(c.name()).wrapping_sub(counters.0.get(c.name()));
    let per_second = |n: u64| Some(n as f64 / elapsed.as_secs_f64());
    let dropped = drops.1.0.iter().map(|(reason, n)| n.wrapping_sub(drops.0.get(reason)));
    let (busy, idle) = (grown(Counter::BusyTsc), grown(Counter::IdleTsc));
    let share = |part: u64| match busy as f64 + idle as f64 {
        0.0 => None,
        all => Some(part as f64 / all),
    };
    Rates {
        rx_pps: per_second(grown(Counter::RxPackets)),
        tx_pps: per_second(grown(Counter::TxPackets)),
        events_ps: per_second(grown(Counter::Events)),
        busy: share(busy),
        user: share(grown(Counter::UserTsc)),
        drops_ps: per_second(dropped.fold(0, u64::wrapping_add)),
        delay_p99_ns: None,
        ..levels
    }
}

#[cfg(test)]
mod tests;
