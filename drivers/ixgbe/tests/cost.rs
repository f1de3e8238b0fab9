//! What a packet costs the driver must not rise: instructions under callgrind, the model's own left out, and register
//! writes. The program is `examples/cost.rs`, built as the kernel is.
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions per packet of one piece at batch 64, for all that is called in one direction.
const MOST: f64 = 60.0;
const BATCH: usize = 64;
const ROUNDS: usize = 200;

fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--quiet", "--release", "-p", "ix-ixgbe", "--example", "cost"];
    let status = Command::new(cargo).current_dir(&root).args(build).status().expect("cargo runs");
    assert!(status.success(), "the program does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("release/examples/cost")
}

/// Instructions per packet within these functions.
fn per_packet(program: &Path, functions: [&str; 2]) -> f64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.args(functions.map(|name| format!("--toggle-collect=cost::{name}")));
    let done = command.arg(program).arg(ROUNDS.to_string()).arg("one").output().expect("it runs");
    let text = String::from_utf8_lossy(&done.stderr);
    let count = text.split("Collected : ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let count: f64 =
        count.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    count / (BATCH * ROUNDS) as f64
}

#[test]
fn a_packet_costs_sixty_instructions_at_most_and_a_batch_one_register_write() {
    let program = program();
    let plain = Command::new(&program).arg("10").output().expect("it runs");
    let text = String::from_utf8_lossy(&plain.stdout);
    assert_eq!(text.trim(), "register writes per batch and direction: 1");
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: valgrind is not installed");
        return;
    }
    let receive = per_packet(&program, ["poll", "replenish"]);
    let transmit = per_packet(&program, ["push_and_kick", "reclaim"]);
    println!("receive {receive:.1}, transmit {transmit:.1}");
    assert!((20.0..=MOST).contains(&receive), "receive: {receive:.1}");
    assert!((10.0..=MOST).contains(&transmit), "transmit: {transmit:.1}");
}
