//! Throughput, fairness and completion times as reviewed tables: `tests/snapshots`. A change of the
//! engine that changes a figure shows as a diff of a table, to be looked at and then taken over by
//!
//! ```text
//! IX_SNAPSHOTS=write cargo test -p ix-tests --test tables
//! ```
use ix_tests::sim::tables;
use std::path::PathBuf;

/// Compares a table with the one that was reviewed, or writes it.
fn check(name: &str, table: &str) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("snapshots");
    let path = directory.join(name);
    if std::env::var_os("IX_SNAPSHOTS").is_some_and(|what| what == "write") {
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(&path, table).expect("a file");
        return;
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    if reviewed == table {
        return;
    }
    println!("{name} has changed: - as reviewed, + as it is");
    let (mut old, mut new) = (reviewed.lines(), table.lines());
    loop {
        let (a, b) = (old.next(), new.next());
        if a.is_none() && b.is_none() {
            break;
        }
        if a != b {
            a.iter().for_each(|line| println!("-{line}"));
            b.iter().for_each(|line| println!("+{line}"));
        }
    }
    panic!("{name} is not as reviewed: `IX_SNAPSHOTS=write cargo test -p ix-tests --test tables`");
}

#[test]
fn throughput_over_loss_and_delay_is_as_reviewed() {
    check("loss_and_delay.txt", &tables::loss_and_delay());
}

#[test]
fn throughput_over_the_buffer_is_as_reviewed() {
    check("buffers.txt", &tables::buffers());
}

#[test]
fn shares_of_a_bottleneck_are_as_reviewed() {
    check("fairness.txt", &tables::fairness());
}

#[test]
fn completion_times_of_short_flows_are_as_reviewed() {
    check("short_flows.txt", &tables::short_flows());
}
