//! What messages cost must not rise: counts under callgrind against ceilings, idle connections and a flood of SYNs at
//! the sizes that are promised. The program is `benches`', built as the kernel is.
use ix_tests::need;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Instructions per 64-byte echo at batch 1. To be lowered with what is reached, never raised without a word in
/// `docs/performance.md`.
const ECHO: u64 = 730;
/// The same with checksums and hash by the network card.
const ECHO_OFFLOADED: u64 = 550;
/// Both in batches of 64, of 1,000 connections.
const ECHO_OF_64: u64 = 712;
/// See [`ECHO_OF_64`].
const ECHO_OF_64_OFFLOADED: u64 = 534;
/// What timers add to an echo of 10,000 connections, each of which talks a hundred times a second.
const TIMERS: f64 = 15.0;
/// Connect, one request, close.
const LIFE: u64 = 5_570;
/// By payload byte of one stream with offload, in thousandths, into the server and out of it; what a batch asks
/// for ahead (`fast::look_ahead`) included.
const RECEIVE: u64 = 600;
/// See [`RECEIVE`].
const SEND: u64 = 850;
/// Instructions in libix per message, by `libix/benches/events.rs`: its program's arguments, and the ceiling.
const LIBIX: [(&str, &str, u64); 6] = [
    ("echo", "1/1", 390),
    ("echo", "100/64", 305),
    ("talk", "1/1", 250),
    ("talk", "100/64", 210),
    ("pull", "1/1", 290),
    ("pull", "100/64", 250),
];
/// Bytes of a million idle connections, everything included.
const IDLE_BYTES: u64 = 512_000_000;
/// What the first tenth of a flood may add: a chunk of connections for each flow group.
const FLOOD_BYTES: u64 = 4 << 20;

/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(600);

/// The program, built once.
fn program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("-p ix-bench --bin cost")).clone()
}

/// Builds a program as the kernel is; where cargo says that it is.
fn build(what: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(need::workspace())
        .args(["build", "--quiet", "--release", "--message-format=json"])
        .args(what.split(' '))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{what}: it does not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable =
        messages.rsplit_once("\"executable\":\"").and_then(|(_, m)| m.split('"').next());
    executable.expect("cargo names what it has built").into()
}

fn run(args: &str) -> String {
    let mut command = Command::new(program());
    let done = ix_tests::tools::run(command.args(args.split(' ')), LIMIT);
    assert!(done.ok(), "cost {args}: {:?}\n{}{}", done.status, done.out, done.err);
    println!("cost {args}\n{}", done.out);
    done.out
}

/// The number behind `mark`.
fn number(text: &str, mark: &str) -> f64 {
    let rest = text.split(mark).nth(1).unwrap_or_else(|| panic!("no {mark:?} in\n{text}"));
    let digits = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let end = rest.find(|c: char| !digits(c)).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("a number behind {mark:?} in\n{text}"))
}

/// Instructions of one operation; `None` after saying SKIPPED.
fn count(args: &str) -> Option<f64> {
    need::tool(&["valgrind"], "valgrind")?;
    Some(number(&run(&format!("count {args}")), "each: "))
}

#[track_caller]
fn at_most(what: &str, counted: f64, ceiling: f64) {
    println!("{what}: {counted:.3}, ceiling {ceiling}");
    assert!(counted <= ceiling, "{what}: {counted:.3}, more than {ceiling}");
}

#[test]
fn an_echo_costs_no_more_than_its_ceiling() {
    let Some(software) = count("engine") else { return };
    at_most("instructions per echo", software, ECHO as f64);
    let Some(offloaded) = count("engine --offload") else { return };
    at_most("instructions per echo, offloaded", offloaded, ECHO_OFFLOADED as f64);
    let Some(batch) = count("engine -c 1000 -b 64") else { return };
    at_most("instructions per echo in batches of 64", batch, ECHO_OF_64 as f64);
    assert!(batch < software, "{batch} in batches of 64, {software} alone");
    let Some(batch) = count("engine -c 1000 -b 64 --offload") else { return };
    at_most("the same, offloaded", batch, ECHO_OF_64_OFFLOADED as f64);
    assert!(batch < offloaded, "{batch} in batches of 64 and offloaded, {offloaded} alone");
}

#[test]
fn a_message_costs_libix_no_more_than_its_ceiling() {
    let Some(valgrind) = need::tool(&["valgrind"], "valgrind") else { return };
    let program = build("-p libix --bench events");
    for (kind, size, ceiling) in LIBIX {
        let mut command = Command::new(&valgrind);
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.args(["--toggle-collect=events::turn*"]).arg(&program).args([kind, size]);
        let done = ix_tests::tools::run(&mut command, LIMIT);
        assert!(done.ok(), "events {kind} {size}: {:?}\n{}{}", done.status, done.out, done.err);
        let each = number(&done.err, "Collected : ") / number(&done.out, "messages: ");
        at_most(&format!("instructions in libix, {kind} {size}"), each, ceiling as f64);
    }
}

#[test]
fn an_echo_costs_the_same_however_many_connections_there_are() {
    let Some(one) = count("engine --offload") else { return };
    for connections in [100, 10_000, 1_000_000] {
        let Some(many) = count(&format!("engine --offload -c {connections}")) else { return };
        let off = (many / one - 1.0).abs();
        assert!(off <= 0.05, "{many} at {connections} connections, {one} at one");
    }
}

#[test]
fn an_echo_costs_hardly_more_while_the_timers_of_all_connections_fire() {
    // Over 200 ms of the server's time, with what each connection's first request has armed.
    let Some(one) = count("engine -n 200000") else { return };
    let Some(many) = count("engine -n 200000 -c 10000") else { return };
    let more = many / one - 1.0;
    assert!(more <= 0.05, "{many} at 10,000 connections, {one} at one");
    at_most("instructions more at 10,000 connections, over 200 ms", many - one, TIMERS);
    // And over twice that, with the next round.
    let Some(one) = count("engine -n 400000") else { return };
    let Some(many) = count("engine -n 400000 -c 10000") else { return };
    at_most("instructions more at 10,000 connections, over 400 ms", many - one, TIMERS);
}

#[test]
fn an_echo_costs_the_same_on_one_of_several_cores() {
    let Some(alone) = count("engine --offload") else { return };
    for cores in [2, 8] {
        let Some(beside) = count(&format!("engine --offload --cores {cores}")) else { return };
        let off = beside / alone - 1.0;
        assert!(off <= 0.02, "{beside} on one of {cores} cores, {alone} alone");
    }
}

#[test]
fn a_connection_s_life_costs_no_more_than_its_ceiling() {
    let Some(life) = count("engine -s life -n 256") else { return };
    at_most("instructions per life", life, LIFE as f64);
}

#[test]
fn a_stream_costs_no_more_than_its_ceiling_and_copies_nothing() {
    for (what, ceiling) in [("receive", RECEIVE), ("send", SEND)] {
        let Some(by_byte) = count(&format!("engine -s {what} -n 2000000 -b 64 --offload")) else {
            return;
        };
        at_most(&format!("instructions by byte, {what}"), by_byte, ceiling as f64 / 1000.0);
    }
}

#[test]
fn a_million_idle_connections_fit_and_are_kept_alive() {
    let text = run("idle --hours 0");
    at_most("bytes", number(&text, "allocated: "), IDLE_BYTES as f64);
    let connections = if need::prove() { 1_000_000 } else { 100_000 };
    let text = run(&format!("idle -c {connections}"));
    assert_eq!(number(&text, "alive: "), f64::from(connections));
    // Once in ten minutes each, the first after ten minutes.
    let probes = number(&text, "questions answered: ");
    assert!(probes >= f64::from(connections) * 11.0, "{probes} questions");
    assert_eq!(number(&text, "more memory: "), 0.0);
}

#[test]
fn a_million_spoofed_syns_hurt_nobody() {
    let text = run("flood");
    assert!(number(&text, "spoofed SYNs: ") >= 1e6);
    assert!(number(&text, "newcomers served: ") >= 10.0);
    at_most("bytes more", number(&text, "more during the first tenth: "), FLOOD_BYTES as f64);
    assert_eq!(number(&text, "after that: "), 0.0);
}

#[test]
fn times_are_what_they_should_be_beside_others() {
    if !need::prove() {
        // Times of a machine that does other things prove nothing.
        return need::skip("times are for `cargo xtask prove`");
    }
    let text = run("scaling");
    let ratio = number(&text, "two dataplanes: ");
    assert!(ratio >= 0.95, "two cores reach {ratio} of two dataplanes");
    let text = run("times");
    at_most("engine by smoltcp at 1 connection", number(&text, "at 1 connection: "), 0.6);
    at_most("engine by smoltcp at 10000", number(&text, "at 10000 connections: "), 1.0 / 200.0);
    let batches = number(&text, "in batches of 64, by the bare responder's: ");
    at_most("growth in batches by the bare responder's", batches, 1.25);
    at_most("growth by the bare responder's", number(&text, "bare responder's: "), 1.25);
}
