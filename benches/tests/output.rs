//! What the program writes, and to whom; and what it does not begin.
use std::process::{Command, Output, Stdio};

fn cost() -> Command {
    let mut cost = Command::new(env!("CARGO_BIN_EXE_cost"));
    cost.stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_BACKTRACE");
    cost
}

fn text(of: &[u8]) -> String {
    String::from_utf8_lossy(of).into_owned()
}

#[test]
fn who_has_read_enough_ends_it_quietly() {
    let mut running = cost().args(["run", "engine", "-n", "64"]).spawn().expect("it starts");
    drop(running.stdout.take());
    let ended = running.wait_with_output().expect("it ends");
    assert_eq!(text(&ended.stderr), "");
    assert!(ended.status.success(), "{}", ended.status);
}

#[test]
fn what_cannot_be_is_refused_with_a_line() {
    for (args, told) in [
        ("run engine -c 0", "from 1 to 4000000"),
        ("run engine -c 100000000", "from 1 to 4000000"),
        ("run engine -b 0", "from 1 to 64"),
        ("run engine -b 65", "from 1 to 64"),
        ("run engine -n 0", "at least 1"),
        ("run engine --cores 0", "0 is not in 1..=64"),
        ("run engine --cores 65", "65 is not in 1..=64"),
        ("idle -c 0", "from 1 to"),
        ("scaling --rounds 0", "from 1 to"),
        ("times --rounds 0", "from 1 to"),
        ("run bare -s receive", "Bare does not know the scenario Receive"),
        ("run contract -s life", "Contract does not know the scenario Life"),
        ("run smoltcp -s arm", "Smoltcp does not know the scenario Arm"),
        ("count smoltcp --cores 2", "--cores is for the engine"),
        ("run engine -s life --plain", "--plain is for the scenario echo"),
    ] {
        let Output { status, stdout, stderr } =
            cost().args(args.split(' ')).output().expect("it runs");
        let said = text(&stderr);
        assert!(!status.success() && said.contains(told), "{args}: {status}, {said}");
        assert!(!said.contains("panicked"), "{args}: {said}");
        assert_eq!(text(&stdout), "", "{args}");
    }
}
