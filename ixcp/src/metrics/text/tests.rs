//! The exposition: names, kinds, the histogram, and that a strict reader takes it.
use super::*;
use crate::fake::{add, scene};
use crate::snapshot;
use ix_abi::control::header;
use std::collections::{HashMap, HashSet};

fn observed(name: &str, cores: usize) -> Observed {
    let snapshot = snapshot::read(&scene(cores).page).unwrap();
    Observed { name: name.to_owned(), snapshot: Ok(snapshot) }
}

/// Checks the format as a strict reader does; the samples by name and labels.
fn parse(text: &str) -> HashMap<String, f64> {
    let (mut samples, mut seen, mut kinds) = (HashMap::new(), HashSet::new(), HashMap::new());
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(family.clone()), "{family} stands in two places");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = labelled.split_once('{').unwrap();
            let suffixes: &[&str] =
                if kinds[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|s| name == format!("{family}{s}")), "{line} in {family}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            assert!(labels.starts_with("dataplane=\"") && labels.ends_with("\"}"), "{line}");
            let new = samples.insert(labelled.to_owned(), value.parse::<f64>().unwrap());
            assert_eq!(new, None, "{labelled} twice");
        }
    }
    assert!(text.ends_with('\n'));
    samples
}

#[test]
fn every_counter_and_drop_of_every_core_is_there_under_its_name() {
    let samples = parse(&exposition(&[observed("kv", 2), observed("echo", 1)]));
    for (dataplane, core) in [("kv", 0), ("kv", 1), ("echo", 0)] {
        for (i, counter) in Counter::ALL.iter().enumerate() {
            let name = metric(*counter).0;
            let sample = format!("{name}{{dataplane=\"{dataplane}\",core=\"{core}\"}}");
            assert_eq!(samples[&sample], (1000 * core + i) as f64, "{sample}");
        }
        for reason in Drop::ALL {
            let expected = if *reason == Drop::TcpNoPort { 3.0 + core as f64 } else { 0.0 };
            let labels = format!("dataplane=\"{dataplane}\",core=\"{core}\"");
            let sample = format!("ix_drops_total{{{labels},reason=\"{}\"}}", reason.name());
            assert_eq!(samples[&sample], expected, "{sample}");
        }
    }
}

#[test]
fn counters_end_in_total_and_gauges_do_not() {
    assert_eq!(metric(Counter::RxPackets), ("ix_rx_packets_total".to_owned(), "counter"));
    assert_eq!(metric(Counter::TcpConnections), ("ix_tcp_connections".to_owned(), "gauge"));
    assert_eq!(metric(Counter::BuffersTotal), ("ix_buffers".to_owned(), "gauge"));
}

#[test]
fn the_dataplane_itself_is_described() {
    let mut kv = observed("kv", 2);
    let s = kv.snapshot.as_mut().unwrap();
    s.alive = true;
    s.cores[1].serves = false;
    let samples = parse(&exposition(&[kv]));
    let of = |metric: &str| samples[&format!("{metric}{{dataplane=\"kv\"}}")];
    assert_eq!((of("ix_readable"), of("ix_alive"), of("ix_uptime_seconds")), (1.0, 1.0, 2.5));
    assert_eq!(
        (of("ix_cores"), of("ix_cores_active"), of("ix_group_moves_total")),
        (2.0, 1.0, 5.0)
    );
    assert_eq!(of("ix_tsc_hertz"), 2.6e9);
    assert_eq!(samples["ix_core_groups{dataplane=\"kv\",core=\"1\"}"], 64.0);
    assert_eq!(samples["ix_core_active{dataplane=\"kv\",core=\"1\"}"], 0.0);
    let state = |state: &str| samples[&format!("ix_state{{dataplane=\"kv\",state=\"{state}\"}}")];
    assert_eq!((state("ready"), state("panicked")), (1.0, 0.0));
    let states: f64 = STATES.iter().map(|s| state(s.text())).sum();
    assert_eq!(states, 1.0);
}

#[test]
fn the_histogram_is_cumulative_and_ends_with_all() {
    let scene = scene(1);
    add(&scene.page, 0, Counter::RxSteeredIn, 100);
    let snapshot = snapshot::read(&scene.page).map_err(|e| e.to_string());
    let samples = parse(&exposition(&[Observed { name: "kv".to_owned(), snapshot }]));
    let labels = "dataplane=\"kv\",core=\"0\"";
    let le = |le: &str| samples[&format!("ix_batch_frames_bucket{{{labels},le=\"{le}\"}}")];
    // Ten batches of 1 and two of 8 to 15.
    let found = ["0", "1", "3", "7", "15", "8191", "+Inf"].map(le);
    assert_eq!(found, [0.0, 10.0, 10.0, 10.0, 12.0, 12.0, 12.0]);
    assert_eq!(samples[&format!("ix_batch_frames_count{{{labels}}}")], 12.0);
    let steered = Counter::RxSteeredIn as u64 as f64;
    assert_eq!(samples[&format!("ix_batch_frames_sum{{{labels}}}")], 100.0 + steered);
}

#[test]
fn what_an_older_kernel_does_not_count_has_no_sample() {
    let scene = scene(1);
    scene.page.store(header::COUNTERS, 2);
    let snapshot = snapshot::read(&scene.page).map_err(|e| e.to_string());
    let samples = parse(&exposition(&[Observed { name: "kv".to_owned(), snapshot }]));
    assert!(samples.contains_key("ix_rx_bytes_total{dataplane=\"kv\",core=\"0\"}"));
    assert!(!samples.contains_key("ix_tx_packets_total{dataplane=\"kv\",core=\"0\"}"));
}

#[test]
fn an_unreadable_dataplane_is_told_and_none_at_all_is_no_error() {
    let broken = Observed { name: "kv".to_owned(), snapshot: Err("corrupted".to_owned()) };
    let samples = parse(&exposition(&[broken]));
    assert_eq!(samples.len(), 1);
    assert_eq!(samples["ix_readable{dataplane=\"kv\"}"], 0.0);
    assert!(parse(&exposition(&[])).is_empty());
}

#[test]
fn an_applications_name_cannot_write_samples() {
    let mut kv = observed("kv", 1);
    kv.snapshot.as_mut().unwrap().app = "a\"} 1\nix_alive{x=\"\\".to_owned();
    let text = exposition(&[kv]);
    parse(&text);
    assert!(text.contains(r#"app="a\"} 1\nix_alive{x=\"\\","#), "{text}");
}

#[test]
fn every_counter_says_what_it_counts() {
    let text = exposition(&[observed("kv", 1)]);
    assert!(text.contains("# HELP ix_rx_packets_total Frames taken from receive queues.\n"));
    for &counter in Counter::ALL {
        let help = format!("# HELP {} {}\n", metric(counter).0, counter.help());
        assert!(text.contains(&help), "{help}");
    }
}
