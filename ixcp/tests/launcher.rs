//! `ixcp run` as a program, with a shell script in QEMU's place: what is printed where, what is
//! cleaned, which exit code follows from what. The booted kernel is tested in `tests/tests/e2e`.
use ix_abi::control::{MAGIC, State, header};
use ixcp::page::Page;
use nix::sys::signal::{Signal, kill};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const READY: &str = "echo 'ix: ready: kv at 10.0.2.15 after 1 ms' >> \"$serial\"; ";

struct Scene {
    dir: temp_dir::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene { dir: temp_dir::TempDir::new().unwrap() };
        std::fs::create_dir(scene.path("images")).unwrap();
        for name in ["kernel", "initrd"] {
            std::fs::write(scene.path("images").join(name), name).unwrap();
        }
        std::fs::write(scene.path("images/apps"), "echo\nkv\n").unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ixcp`, with a QEMU that does what `script` says; `$serial` is its serial log.
    fn ixcp(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ixcp"));
        command.env("IX_RUNTIME_DIR", self.path("run")).env_remove("IX_IMAGES");
        command.env("FAKE_QEMU", script).args(args);
        if args[0] == "run" {
            let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-qemu.sh");
            command.arg("--qemu").arg(fake).arg("--images").arg(self.path("images"));
            if !args.contains(&"--forward") {
                command.args(["--forward", "0:11211"]);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, script: &str) -> Output {
        self.ixcp(script, &["run"]).output().unwrap()
    }

    fn wait_for_instance(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !String::from_utf8_lossy(&self.ixcp("", &["ls"]).output().unwrap().stdout)
            .contains("kv")
            || !self.path("run/kv/instance.json").exists()
        {
            assert!(Instant::now() < deadline, "no instance appears");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn end(child: Child, signal: Signal) -> Output {
    kill(ixcp::pid_of(&child), signal).unwrap();
    child.wait_with_output().unwrap()
}

/// Waits until it has said this on standard error, and a little longer, in which it could say so again; then ends it. All that it said.
fn end_when_said(mut child: Child, words: &str) -> String {
    let (to, lines) = std::sync::mpsc::channel();
    let err = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || err.lines().map_while(Result::ok).try_for_each(|l| to.send(l)));
    let (mut said, deadline) = (String::new(), Instant::now() + Duration::from_secs(20));
    while !said.contains(words) {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {words:?} in {said}"));
        said += &(line + "\n");
    }
    std::thread::sleep(Duration::from_millis(500));
    end(child, Signal::SIGTERM);
    said + &lines.iter().collect::<Vec<_>>().join("\n")
}

#[test]
fn standard_output_gets_the_ready_line_once_and_standard_error_the_rest() {
    let scene = Scene::new();
    let script =
        format!("echo 'ix: starts' > \"$serial\"; {READY}{READY}echo last >> \"$serial\"; exit 33");
    let done = scene.run(&script);
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{err}");
    assert_eq!(out.matches("ix: ready").count(), 1, "{out}");
    assert!(out.starts_with("ix: ready: kv at 10.0.2.15 after 1 ms\n"), "{out}");
    assert!(
        out.contains("leads to its port 11211/tcp") && out.contains("status --name kv"),
        "{out}"
    );
    assert!(err.starts_with("ix: starts\n") && err.contains("\nlast\n"), "{err}");
    assert!(!scene.path("run/kv").exists(), "an orderly end leaves nothing");
}

#[test]
fn the_report_of_a_cards_self_test_goes_to_standard_output() {
    let scene = Scene::new();
    let script =
        "echo 'ix: starts' > \"$serial\"; echo 'ix: nictest: PASS link' >> \"$serial\"; exit 45";
    let done = scene.run(script);
    assert_eq!(text(&done.stdout), "ix: nictest: PASS link\n");
    assert!(text(&done.stderr).starts_with("ix: starts\nixcp: a self-test"), "{done:?}");
    assert_eq!(done.status.code(), Some(9));
}

#[test]
fn every_way_to_end_has_its_exit_code_and_message() {
    for (status, code, message) in [
        (33, 0, "has stopped"),
        (35, 3, "panicked"),
        (37, 4, "CPU exception"),
        (39, 6, "application ended with an error"),
        (41, 7, "kernel ended the application"),
        (43, 8, "cannot run like this"),
        (45, 9, "self-test"),
        (1, 5, "QEMU failed"),
        (0, 5, "triple fault"),
    ] {
        let scene = Scene::new();
        let done = scene.run(&format!("echo words of qemu >&2; exit {status}"));
        let err = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{err}");
        assert!(err.contains(message) && err.contains("qemu: words of qemu"), "{err}");
        assert_eq!(scene.path("run/kv/serial.log").exists(), code != 0, "kept to be looked at");
    }
}

#[test]
fn signals_end_qemu_and_count_as_an_orderly_end() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let scene = Scene::new();
        let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
        scene.wait_for_instance();
        let done = end(child, signal);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert!(
            text(&scene.ixcp("", &["ls"]).output().unwrap().stdout).contains("no dataplane runs")
        );
    }
}

#[test]
fn a_qemu_that_ignores_sigterm_is_killed() {
    let scene = Scene::new();
    let script = "trap '' TERM; for i in $(seq 600); do sleep 0.1; done";
    let child = scene.ixcp(script, &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let start = Instant::now();
    let done = end(child, Signal::SIGTERM);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_name_is_taken_while_its_dataplane_lives_and_free_after_a_crash() {
    let scene = Scene::new();
    let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let second = scene.ixcp("exit 33", &["run"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("kv runs already (process"), "{}", text(&second.stderr));
    end(child, Signal::SIGTERM);
    assert_eq!(scene.run("exit 35").status.code(), Some(3));
    let after = scene.run("exit 33");
    assert!(
        text(&after.stderr).contains("cleaned up after an earlier kv"),
        "{}",
        text(&after.stderr)
    );
}

#[test]
fn what_is_missing_is_said_with_the_way_to_get_it() {
    let scene = Scene::new();
    let fails = |args: &[&str], wanted: &str| {
        let done = scene.ixcp("exit 33", args).output().unwrap();
        let err = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{args:?}: {err}");
        assert!(err.starts_with("ixcp: ") && err.contains(wanted), "{args:?}: {err}");
    };
    fails(
        &["run", "--app", "web"],
        "there are: echo, kv (`cargo xtask image` builds whatever is in apps/",
    );
    fails(&["run", "--name", "a/b"], "not a good name");
    fails(&["run", "--net", "tap=nosuch0"], "--forward needs --net user");
    for ip in ["10.0.9.9/24", "10.0.2.2/24", "10.0.2.3/16", "10.0.2.255/16", "10.0.2.20/30"] {
        let wanted = format!("--ip {ip}: nothing would reach it in QEMU's user network");
        fails(&["run", "--ip", ip], &wanted);
    }
    fails(&["run", "--ip", "192.0.2.7/24"], "--net tap=INTERFACE");
    fails(&["status"], "start one with `ixcp run`");
    fails(&["stop", "--name", "x"], "no dataplane named x runs");
    std::fs::remove_file(scene.path("images/initrd")).unwrap();
    fails(&["run"], "cargo xtask image");
    let done = Command::new(env!("CARGO_BIN_EXE_ixcp"))
        .args(["run", "--net", "tap=nosuch0", "--qemu", "sh", "--images"])
        .arg(Scene::new().path("images"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn a_tap_that_is_missing_is_said_with_the_commands_that_make_it() {
    let scene = Scene::new();
    let done = Command::new(env!("CARGO_BIN_EXE_ixcp"))
        .args(["run", "--net", "tap=nosuch0", "--qemu", "sh", "--images"])
        .arg(scene.path("images"))
        .env("IX_RUNTIME_DIR", scene.path("run"))
        .output()
        .unwrap();
    let err = text(&done.stderr);
    assert!(err.contains("ip tuntap add dev nosuch0 mode tap multi_queue"), "{err}");
}

/// No wire, so nothing to be forwarded; the kernel is told of the card, and of no gateway.
#[test]
fn with_the_loopback_card_the_kernel_is_told_and_nothing_is_forwarded() {
    let scene = Scene::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ixcp"));
    command.env("IX_RUNTIME_DIR", scene.path("run")).args(["run", "--dry-run", "--qemu"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-qemu.sh"));
    command.arg("--images").arg(scene.path("images")).args(["--nic", "loopback"]);
    let done = command.output().unwrap();
    let said = text(&done.stdout);
    assert!(said.contains("app=kv cores=2 ip=10.0.2.15/24 nic=loopback'"), "{said}");
    assert!(!said.contains("hostfwd") && !said.contains("gw="), "{said}");
    let args = ["run", "--nic", "loopback", "--forward", "0:11211"];
    let done = scene.ixcp("exit 33", &args).output().unwrap();
    assert!(!done.status.success() && text(&done.stderr).contains("has no wire"), "{done:?}");
}

#[test]
fn a_dry_run_prints_the_command_and_makes_nothing() {
    let scene = Scene::new();
    let args = ["run", "--dry-run", "--forward", "11211:11211", "--cores", "4"];
    let done = scene.ixcp("exit 33", &args).output().unwrap();
    let out = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(
        out.contains(" -smp 4 ") && out.contains("hostfwd=tcp:127.0.0.1:11211-10.0.2.15:11211"),
        "{out}"
    );
    assert!(out.contains("-append 'app=kv cores=4 ip=10.0.2.15/24 gw=10.0.2.2'"), "{out}");
    assert!(!scene.path("run/kv").exists());
    for ip in ["10.0.2.15/16", "10.0.2.99/24", "dhcp"] {
        let done = scene.ixcp("exit 33", &["run", "--dry-run", "--ip", ip]).output().unwrap();
        assert!(text(&done.stdout).contains(&format!("ip={ip}")), "{}", text(&done.stderr));
    }
}

#[test]
fn the_guest_cannot_write_escape_sequences_to_the_terminal() {
    let scene = Scene::new();
    let done = scene.run(r#"printf 'bad \033]0;title\007 \033[2J\n' > "$serial"; exit 33"#);
    assert!(!text(&done.stderr).contains('\u{1b}'), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains(r"\u{1b}[2J"), "{}", text(&done.stderr));
}

#[test]
fn a_page_that_no_kernel_writes_is_reported_as_booting() {
    let scene = Scene::new();
    let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    assert!(text(&scene.ixcp("", &["ls"]).output().unwrap().stdout).contains("booting"));
    let status = scene.ixcp("", &["status"]).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stderr).contains("has not written the control page yet"));
    end(child, Signal::SIGTERM);
}

#[test]
fn an_application_that_ends_before_it_is_ready_is_told_with_its_code_and_what_to_do() {
    let scene = Scene::new();
    let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let page = Page::open(&scene.path("run/kv/control")).unwrap();
    page.store(header::APP_EXIT, 3);
    page.store(header::STATE, State::AppEnded.0.into());
    let err = end_when_said(child, "stop --name kv");
    assert!(err.contains("has ended before it was ready (exit code 3)"), "{err}");
    assert!(err.contains("restart-app --name kv") && err.contains("stop --name kv"), "{err}");
    assert_eq!(err.matches("has ended").count(), 1, "{err}");
}

#[test]
fn a_name_that_is_taken_is_told_before_a_port_that_is() {
    let scene = Scene::new();
    let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:11211", port.local_addr().unwrap().port());
    let second = scene.ixcp("exit 33", &["run", "--forward", &forward]).output().unwrap();
    assert!(text(&second.stderr).contains("kv runs already (process"), "{}", text(&second.stderr));
    end(child, Signal::SIGTERM);
}

#[test]
fn policy_show_and_set_tell_whether_the_daemon_decides_about_this_dataplane() {
    let scene = Scene::new();
    let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let said = |args: &[&str]| text(&scene.ixcp("", args).output().unwrap().stdout);
    assert!(said(&["policy", "show"]).contains("NO DAEMON RUNS"));
    assert_eq!(said(&["policy", "log", "--json"]), "[]\n");
    let daemon = |args: &[&str], words: &str| {
        let daemon = scene.ixcp("", &[&["daemon", "--policy", "latency"], args].concat()).spawn();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !said(&["policy", "show"]).contains(words) {
            assert!(Instant::now() < deadline, "{}", said(&["policy", "show"]));
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon.unwrap()
    };
    let restricted = daemon(&["--name", "nope"], "kv: policy static, but NO DAEMON DECIDES");
    let set = said(&["policy", "set", "static"]);
    assert!(set.contains("NO DAEMON TAKES IT OVER") && set.contains("only nope"), "{set}");
    let told = end(restricted, Signal::SIGTERM);
    assert!(text(&told.stderr).contains("no dataplane named nope runs"), "{}", text(&told.stderr));
    std::fs::remove_file(scene.path("run/kv/policy.toml")).unwrap();
    let all = daemon(&[], "kv: policy latency, daemon");
    assert!(said(&["policy", "set", "static"]).contains(&format!("daemon {} takes it", all.id())));
    end(all, Signal::SIGTERM);
    end(child, Signal::SIGTERM);
}

#[test]
fn a_policy_for_a_job_that_does_not_exist_is_refused_and_nothing_is_changed() {
    let scene = Scene::new();
    let child = scene.ixcp("exec sleep 60", &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let set = |pid: &str| {
        let job = format!("job.pid={pid}");
        scene.ixcp("", &["policy", "--name", "kv", "set", "background", &job]).output().unwrap()
    };
    // Above what Linux gives any process.
    let refused = set("99999999");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was changed: there is no process 99999999"), "{said}");
    assert!(!scene.path("run/kv/policy.toml").exists());
    let mut job = Command::new("sleep").arg("60").spawn().unwrap();
    let taken = set(&job.id().to_string());
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    // Whatever else is set goes on when it has ended.
    job.kill().unwrap();
    job.wait().unwrap();
    let other = scene.ixcp("", &["policy", "set", "background", "cores.min=2"]).output().unwrap();
    assert!(other.status.success(), "{}", text(&other.stderr));
    let init = scene.ixcp("", &["policy", "init", "--name", "kv"]).output().unwrap();
    assert!(text(&init.stderr).contains("leave --name away"), "{}", text(&init.stderr));
    end(child, Signal::SIGTERM);
}

#[test]
fn what_a_machine_with_a_line_only_has_left_behind_is_named() {
    let scene = Scene::new();
    let done = scene.ixcp("exit 35", &["run", "--control", "serial"]).output().unwrap();
    assert_eq!(done.status.code(), Some(3), "{}", text(&done.stderr));
    let events = scene.ixcp("", &["events", "--name", "kv"]).output().unwrap();
    let said = text(&events.stderr);
    assert!(said.contains("--control serial") && said.contains("run/kv/serial.log"), "{said}");
    // One that never was has left nothing.
    let events = scene.ixcp("", &["events", "--name", "nobody"]).output().unwrap();
    assert!(!text(&events.stderr).contains("serial"), "{}", text(&events.stderr));
    assert!(!text(&events.stderr).contains("has left"), "{}", text(&events.stderr));
    // Without a name nothing is looked for.
    let events = scene.ixcp("", &["events"]).output().unwrap();
    let said = text(&events.stderr);
    assert!(said.starts_with("ixcp: no dataplane runs (looked in "), "{said}");
    assert!(said.ends_with("; for one that has ended: --name NAME or --file FILE\n"), "{said}");
}

#[test]
fn of_a_kernel_that_crashed_before_it_wrote_its_page_the_log_is_named() {
    let scene = Scene::new();
    assert_eq!(scene.run("exit 35").status.code(), Some(3));
    let log = scene.path("run/kv/serial.log").canonicalize().unwrap();
    let events = scene.ixcp("", &["events", "--name", "kv"]).output().unwrap();
    let said = text(&events.stderr);
    assert_eq!(events.status.code(), Some(1), "{said}");
    assert!(said.contains("it ended before its kernel wrote the control page"), "{said}");
    assert!(said.ends_with(&format!("see {}\n", log.display())), "{said}");
    assert!(!said.contains("it boots"), "{said}");
}

#[test]
fn who_asks_for_one_that_has_crashed_is_told_what_is_left_of_it() {
    let scene = Scene::new();
    let said = || {
        let done = scene.ixcp("", &["status", "--name", "kv"]).output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        text(&done.stderr)
    };
    assert!(said().ends_with("run)\n"), "{}", said());
    assert_eq!(scene.run("exit 35").status.code(), Some(3));
    let left = scene.path("run/kv").canonicalize().unwrap();
    let words = format!("the last one of that name has left is in {}; its last", left.display());
    assert!(said().contains("no dataplane named kv runs") && said().contains(&words), "{}", said());
    assert!(said().ends_with("events: `ixcp events --name kv`\n"), "{}", said());
}

#[test]
fn a_forwarded_port_on_which_nothing_listens_is_told_once() {
    let scene = Scene::new();
    let child = scene.ixcp(&format!("{READY}exec sleep 60"), &["run"]).spawn().unwrap();
    scene.wait_for_instance();
    let page = Page::open(&scene.path("run/kv/control")).unwrap();
    let version = ix_abi::VERSION;
    page.store(header::VERSION, u64::from(version.major) | u64::from(version.minor) << 16);
    page.store(header::CORES, 1);
    page.store(header::READY_NS, 1);
    page.store_release(header::MAGIC, MAGIC);
    page.store(header::NOW_NS, 10_000_000_000);
    let told =
        "ixcp: warning: nothing listens on the application's port 11211/tcp, where 127.0.0.1:";
    let err = end_when_said(child, told);
    assert_eq!(err.matches(told).count(), 1, "{err}");
}
