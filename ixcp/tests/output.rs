//! Standard output that takes nothing: a full disk is a failure that is told, a closed pipe is none.
mod scene;

use ix_abi::control::{command, outcome};
use scene::Scene;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `ixcp` with images that can be named, and QEMU's place taken.
fn ixcp(scene: &Scene, args: &str, out: impl Into<Stdio>) -> Output {
    for name in ["kernel", "initrd"] {
        std::fs::write(scene.dir.path().join(name), name).unwrap();
    }
    let mut command = scene.ixcp();
    command.env("IX_IMAGES", scene.dir.path()).args(args.split_whitespace());
    if args.starts_with("run") {
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-qemu.sh");
        command.arg("--qemu").arg(fake);
    }
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// Whatever prints; a recording says so as of any other file.
const PRINTING: [&str; 16] = [
    "run --dry-run",
    "status",
    "status --json",
    "top --once --interval 0.1",
    "top --once --json --interval 0.1",
    "ls",
    "events --json",
    "metrics --once",
    "cores",
    "flows --json",
    "policy show",
    "policy init",
    "policy log",
    "policy simulate --cores 1 --connections 10 --peak 1000",
    "record --write - --seconds 0.1",
    "completions bash",
];

#[test]
fn a_full_disk_is_a_failure_that_is_told() {
    let scene = Scene::new();
    for args in PRINTING {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = ixcp(&scene, args, full);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{args}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("ixcp: cannot write to standard output: No space left"),
            "{args}: {said}"
        );
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_no_failure() {
    let scene = Scene::new();
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = ixcp(&scene, args, writer);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{args}: {said}");
        assert!(!said.contains("standard output"), "{args}: {said}");
    }
}

#[test]
fn what_was_done_is_said_on_standard_output() {
    let scene = Scene::new();
    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        // A kernel that does whatever it is told.
        threads.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let sequence = scene.page.load_acquire(command::SEQUENCE);
                scene.page.store_release(outcome::SEQUENCE, sequence);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let done =
            ["trace on --port 7", "trace off"].map(|args| ixcp(&scene, args, Stdio::piped()));
        // Before anything may fail: this thread waits for that one.
        ended.store(true, Ordering::Relaxed);
        let said = done.map(|done| {
            assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
            String::from_utf8(done.stdout).unwrap()
        });
        assert_eq!(said[0], "kv: packets are printed on its console: port 7\n");
        assert_eq!(said[1], "kv: packets are no longer printed\n");
    });
}
