//! What the program writes, and to whom.
use std::process::{Command, Stdio};

#[test]
fn who_has_read_enough_ends_it_quietly() {
    let mut run = Command::new(env!("CARGO_BIN_EXE_cost"));
    run.args(["run", "engine", "-n", "64"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = run.spawn().expect("it starts");
    drop(running.stdout.take());
    let ended = running.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert!(ended.status.success(), "{}", ended.status);
}
