//! The simulator itself; what policies do in it is `ixcp/tests/policies.rs`.
use super::node::{Node, Now};
use super::*;
use crate::policy::{Config, config};

fn setup(policy: &str, curve: &str) -> Setup {
    let changes = config::setting(&format!("policy={policy}")).unwrap();
    let config = Config::from_table(changes, "test").unwrap();
    let points: Vec<(f64, f64)> = curve
        .split_whitespace()
        .map(|p| {
            let (at, load) = p.split_once(':').unwrap();
            (at.parse().unwrap(), load.parse().unwrap())
        })
        .collect();
    let curve = Curve { name: "test".to_owned(), points, peak_rps: None };
    Setup { cores: 4, ..Setup::new(config, curve) }
}

/// A core with a load, served for a second: its queueing delays.
fn alone(rps: f64, service: Service, batch: usize) -> (hist::Hist, u64) {
    let mut node = Node::new(7);
    node.load(0, rps, 1.0);
    for slice in 1..=20_000 {
        let now =
            Now { until: slice * 50_000, frequency: 1.0, batch, ring: 100_000, congested: 100.0 };
        node.run(&now, &service);
    }
    (node.window, node.busy_ns)
}

#[test]
fn a_core_without_batches_is_the_queue_that_textbooks_have() {
    // Poisson arrivals, service times that are drawn: M/G/1, of which the mean wait is known.
    let service = Service { iteration_ns: 0.0, sets: 0.0, slow: 0.0, ..Service::default() };
    for load in [0.3, 0.6, 0.8] {
        let (delays, busy) = alone(load * service.most_per_core(), service, 1);
        let utilisation = busy as f64 / 1e9;
        assert!((utilisation - load).abs() < 0.01, "{load}: busy {utilisation}");
        let n = delays.total() as f64;
        assert!((n / 1e9 * service.request_ns / load - 1.0).abs() < 0.02, "{load}: {n} requests");
        // Pollaczek and Khinchine; the variance is that of a uniform distribution from 0.9 to 1.1.
        let wait = load * (1.0 + 0.04 / 12.0) / (2.0 * (1.0 - load));
        let mean = delays.mean() / service.request_ns;
        assert!((mean / wait - 1.0).abs() < 0.05, "{load}: {mean} services, by the book {wait}");
    }
}

#[test]
fn batches_make_room_when_the_load_grows() {
    let service = Service::default();
    // More than single requests could have, less than large batches can.
    let rps = 0.93 * service.most_per_core();
    let (delays, _) = alone(rps, service, 64);
    assert!(delays.quantile(0.99) < 100_000, "p99 {} ns", delays.quantile(0.99));
    let (delays, _) = alone(rps, service, 1);
    assert!(delays.quantile(0.99) > 10_000_000, "without batches the core is overrun");
}

#[test]
fn requests_are_conserved_when_groups_move() {
    let mut setup = setup("latency", "0:0.1 1:0.9 1:0.1 2:0.9 3:0.2");
    setup.ring = 1_000_000;
    let report = run(&setup);
    let offered = setup.curve.mean() * setup.curve.seconds() * report.peak_rps;
    assert!(
        (report.requests as f64 / offered - 1.0).abs() < 0.005,
        "{} of {offered}",
        report.requests
    );
    assert!(report.moves > 100 && report.dropped == 0, "{} moves", report.moves);
    let served: f64 = report.points.iter().map(|p| p.requests_per_s / 10.0).sum();
    assert!((served - report.requests as f64).abs() < 0.01 * served);
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let mut setup = setup("latency", "0:0 1:0.8 2:0.1");
    let first = serde_json::to_string(&run(&setup)).unwrap();
    assert_eq!(serde_json::to_string(&run(&setup)).unwrap(), first);
    setup.seed = 2;
    assert_ne!(serde_json::to_string(&run(&setup)).unwrap(), first);
}

#[test]
fn the_baseline_serves_with_all_cores_and_saves_nothing() {
    let report = run(&setup("static", "0:0.5 1:0.5"));
    assert_eq!((report.saved, report.steps, report.moves), (0.0, (0, 0, 0), 0));
    assert!(report.energy_saved.abs() < 1e-9 && report.job.is_none());
    assert!(report.points.iter().all(|p| p.cores == 4));
}

#[test]
fn a_jump_in_the_load_wakes_cores_without_the_daemon() {
    let mut setup = setup("latency", "0:0.05 0.3:0.05 0.3:0.4 1:0.4");
    let with = run(&setup);
    assert!(with.steps.2 >= 1, "{}", with.decisions());
    setup.config.latency.reserve = 0;
    let without = run(&setup);
    assert_eq!(without.steps.2, 0);
    assert!(
        with.delay_us.2 < without.delay_us.2,
        "{} µs, {} µs",
        with.delay_us.2,
        without.delay_us.2
    );
}

#[test]
fn an_overload_fills_the_rings_and_is_counted() {
    let mut setup = setup("static", "0:1 0.5:1");
    setup.peak_rps = Some(2.0 * setup.service.most_per_core() * 4.0);
    let report = run(&setup);
    assert!(report.dropped > report.requests / 2, "{} of {}", report.dropped, report.requests);
    assert!(report.late == 1.0 && report.text().contains('!'));
}

#[test]
fn what_is_drawn_names_the_figures() {
    let report = run(&setup("background", "0:0 0.5:0.5 1:0"));
    let text = report.text();
    for words in ["policy background", "background job", "core-seconds", "p99 delay", "seed 1"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let csv = report.csv();
    let again = Curve::parse("csv", &csv).unwrap();
    assert!(again.peak_rps.is_some_and(|p| p > 1e5));
    assert_eq!(csv.lines().count(), 2 + report.points.len());
}
