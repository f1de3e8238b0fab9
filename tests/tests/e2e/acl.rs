//! The firewall on a booted machine: rules from the archive and from `ixcp acl`, swapped under load, and
//! floods of nonsense with and without them.
use crate::{Kv, bytes, serves};
use ix_tests::need;
use ix_tests::peer::faults::Faults;
use ix_tests::peer::{GUEST_IP, Host, Listener};
use ix_tests::tap::Tap;
use ix_tests::tools::run;
use ix_tests::vm::{Config, Vm};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(20);

/// Files of rules.
struct Files(temp_dir::TempDir);

impl Files {
    fn new() -> Files {
        Files(temp_dir::TempDir::with_prefix("ix-acl-").expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn shown(vm: &Vm) -> serde_json::Value {
    serde_json::from_str(&vm.ixcp_ok(&["acl", "show", "--json"])).expect("JSON")
}

fn echo(cores: u32, rules: Option<&Path>) -> Option<(MutexGuard<'static, ()>, Vm, Host)> {
    let built = need::built()?;
    let machine = need::machine();
    let (vm, host) = boot_echo(&built, cores, rules);
    Some((machine, vm, host))
}

fn boot_echo(built: &need::Built, cores: u32, rules: Option<&Path>) -> (Vm, Host) {
    let listener = Listener::bind();
    let mut config = Config::new(built, "echo").cores(cores).stream(listener.path());
    if let Some(rules) = rules {
        config = config.with("--acl", rules);
    }
    let vm = config.boot();
    let host = Host::new(listener.accept(), Faults::NONE);
    (vm, host)
}

const ONLY_ECHO: &str = r#"
[default]
in = "deny"
out = "deny"

[[rule]]
name = "echo for the host"
action = "allow"
protocol = "tcp"
remote = "10.0.2.2"
local-ports = 7

[[rule]]
name = "telnet is refused aloud"
action = "reject"
protocol = "tcp"
local-ports = 23
"#;

#[test]
fn rules_of_the_archive_are_in_force_from_the_first_packet_and_show_counts_what_they_do() {
    let files = Files::new();
    let rules = files.write("rules.toml", ONLY_ECHO);
    let Some((_machine, vm, mut host)) = echo(2, Some(&rules)) else { return };
    assert!(vm.log().contains("acl: 2 rules in force from the first packet"), "{}", vm.log());
    assert!(host.ping(GUEST_IP, b"anybody?", Duration::from_secs(1)).is_err());
    let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    let data = bytes(1, 50_000);
    assert!(host.exchange(conn, &data, PATIENCE).unwrap() == data);
    let refused = host.connect(GUEST_IP, 23, PATIENCE).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    assert!(host.connect(GUEST_IP, 80, Duration::from_secs(2)).is_err(), "no answer at all");
    // The last SYN may still have been on its way.
    vm.snapshot_at_rest();
    let shown = shown(&vm);
    assert_eq!(shown["file"], text(&rules));
    assert_eq!(
        (&shown["rules"][0]["name"], &shown["rules"][0]["line"]),
        (&"echo for the host".into(), &6.into())
    );
    let hits = |at: &serde_json::Value| at["hits"].as_u64().expect("a number");
    assert_eq!(hits(&shown["rules"][0]), 1, "one connection, judged once: {shown:#}");
    assert_eq!(hits(&shown["rules"][1]), 1);
    assert!(hits(&shown["default_in"]) >= 2, "the ping and the SYNs to port 80: {shown:#}");
    let table = vm.ixcp_ok(&["acl", "show"]);
    assert!(table.contains("telnet is refused aloud") && table.contains("everything else"));
    let drops = vm.snapshot().total.drops;
    assert_eq!(drops.get("acl_denied_in"), 1 + hits(&shown["default_in"]));
}

#[test]
fn rules_that_are_missing_or_broken_stop_the_boot() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    for (member, words) in [("absent", "no such member"), ("kv", "is not a rule set")] {
        let mut vm = Config::new(&built, "kv").with("--append", format!("acl={member}")).start();
        let code = vm.wait_end(Duration::from_secs(60));
        let log = vm.log();
        assert!(code != 0 && log.contains(&format!("acl={member}")), "{code}: {log}");
        assert!(log.contains(words) && !log.contains("ix: ready"), "{log}");
    }
    let files = Files::new();
    let wrong = files.write("wrong.toml", "[[rule]]\naction = \"alow\"\n");
    let mut vm = Config::new(&built, "kv").with("--acl", &wrong).start();
    assert_eq!(vm.wait_end(Duration::from_secs(10)), 1);
    assert!(vm.log().contains("wrong.toml:2:10: action"), "{}", vm.log());
}

#[test]
fn new_rules_end_the_connections_that_they_do_not_admit_and_no_others() {
    let Some((_machine, vm, mut host)) = echo(2, None) else { return };
    assert_eq!(shown(&vm), serde_json::Value::Null);
    let kept = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    assert!(host.exchange(kept, b"before", PATIENCE).unwrap() == b"before");
    let files = Files::new();
    let open = files.write("open.toml", ONLY_ECHO);
    let shut = files.write("shut.toml", &ONLY_ECHO.replace("\"allow\"", "\"reject\""));
    vm.ixcp_ok(&["acl", "set", text(&open)]);
    assert!(host.exchange(kept, b"under rules", PATIENCE).unwrap() == b"under rules");
    vm.ixcp_ok(&["acl", "set", text(&shut)]);
    let error = host.exchange(kept, b"no more", PATIENCE);
    assert!(error.is_err(), "{error:?}");
    assert_eq!(vm.snapshot().total.drops.get("acl_ended"), 1);
    assert_eq!(vm.snapshot().total.counters.get("tcp_connections"), 0);
    // A broken file changes nothing, and says where it is broken.
    let broken = files.write("broken.toml", "[default]\nin = \"allow\"\nout = 5\n");
    let output = vm.ixcp(&["acl", "set", text(&broken)]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("broken.toml:3:7"), "{said}");
    assert_eq!(shown(&vm)["generation"], 2);
    vm.ixcp_ok(&["acl", "set", text(&open)]);
    let again = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    assert!(host.exchange(again, b"again", PATIENCE).unwrap() == b"again");
}

/// Ten thousand rules that concern nobody here, and then those that do.
fn ten_thousand() -> String {
    let mut text = String::from("[default]\nin = \"deny\"\n");
    for i in 0..10_000_u32 {
        let [a, b, c, _] = (i << 8).wrapping_add(0x0b00_0000).to_be_bytes();
        let (from, to) = (i % 60_000, i % 60_000 + 100);
        write!(
            text,
            "[[rule]]\naction = \"deny\"\nprotocol = \"tcp\"\nremote = \"{a}.{b}.{c}.0/24\"\n\
             local-ports = \"{from}-{to}\"\n"
        )
        .expect("written");
    }
    text + "[[rule]]\naction = \"allow\"\nprotocol = \"tcp\"\nlocal-ports = 11211\n"
}

#[test]
fn rules_are_swapped_again_and_again_while_clients_are_served() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "kv").cores(2).forward("11211").boot();
    let files = Files::new();
    let few = files.write(
        "few.toml",
        "[default]\nin = \"deny\"\n[[rule]]\naction = \"allow\"\nlocal-ports = 11211\nprotocol = \"tcp\"\n",
    );
    let many = files.write("many.toml", &ten_thousand());
    let (stop, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut swaps, mut slowest) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        for client in 0..4_u64 {
            let (vm, stop, requests) = (&vm, &stop, &requests);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // A new connection each time: one judgement by the rules, 20 without.
                    let mut kv = Kv::connect(vm);
                    for i in 0..10 {
                        let value = bytes(client << 32 | i, 100);
                        kv.set(&format!("{client}"), &value);
                        assert!(kv.get(&format!("{client}")).as_ref() == Some(&value));
                        requests.fetch_add(2, Ordering::Relaxed);
                    }
                }
            });
        }
        // 100 swaps, or as many as 15 seconds hold; a large set now and then.
        let end = Instant::now() + Duration::from_secs(if need::prove() { 600 } else { 15 });
        while swaps < if need::prove() { 2000 } else { 100 } && Instant::now() < end {
            let file = if swaps % 20 == 10 { &many } else { &few };
            let start = Instant::now();
            let output = vm.ixcp(&["acl", "set", text(file)]);
            slowest = slowest.max(start.elapsed());
            if !output.status.success() {
                stop.store(true, Ordering::Relaxed);
                panic!("swap {swaps}: {}", String::from_utf8_lossy(&output.stderr));
            }
            swaps += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let requests = requests.into_inner();
    println!("{swaps} swaps under {requests} requests; the slowest took {slowest:?}");
    assert!(swaps >= 20 && requests > 200, "{swaps} swaps, {requests} requests");
    let shown = shown(&vm);
    assert_eq!(shown["generation"], swaps);
    let drops = vm.snapshot().total.drops;
    assert_eq!((drops.get("acl_denied_in"), drops.get("acl_ended")), (0, 0));
    serves(&vm);
}

/// What has to be back after a flood: free buffers (one more if none is held just then) and connections.
fn figures(vm: &Vm) -> (u64, u64) {
    let total = vm.snapshot().total.counters;
    (total.get("buffers_free"), total.get("tcp_connections"))
}

/// Waits until the figures are what they were. `meanwhile` keeps the wire going: while nobody takes frames
/// off it, half-open connections wait for their turn to send rather than time out.
#[track_caller]
fn recovers(vm: &Vm, before: (u64, u64), mut meanwhile: impl FnMut()) {
    let deadline = Instant::now() + Duration::from_secs(40);
    let slack = vm.buffers_slack(2);
    let recovered = |now: (u64, u64)| now.0 + slack >= before.0 && now.1 == before.1;
    while !recovered(figures(vm)) {
        assert!(Instant::now() < deadline, "{before:?}, and now {:?}", figures(vm));
        meanwhile();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Frames as isic and its kind make them: plausible at the front, random behind.
fn nonsense(to: [u8; 6], seed: u64, number: u64) -> Vec<u8> {
    let random = bytes(seed << 32 | number, 256);
    let mut f = [&to[..], &[0x52, 0x54, 0, 0, 0, 0xfe, 8, 0]].concat();
    let protocol = [6, 17, 1, random[0]][usize::from(random[1] % 4)];
    let odd = |chance: u8, at: usize| random[at] < chance;
    let payload = usize::from(random[2]).max(8);
    let total = (20 + payload) as u16;
    f.push(if odd(12, 3) { random[4] } else { 0x45 });
    f.push(random[5]);
    f.extend(if odd(12, 6) { [random[7], random[8]] } else { total.to_be_bytes() });
    f.extend([random[9], random[10]]);
    f.extend(if odd(30, 11) { [random[12], random[13]] } else { [0x40, 0] });
    f.extend([64, protocol, 0, 0]);
    f.extend([10, 0, 2, random[14]]);
    f.extend([10, 0, 2, 15]);
    if !odd(12, 15) {
        let sum = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&f[14..34]));
        f[24..26].copy_from_slice(&sum);
    }
    let at = f.len();
    f.extend(random[16..].iter().cycle().take(payload));
    if odd(200, 17) {
        // To the port that is served.
        f[at + 2..at + 4].copy_from_slice(&[0, 7]);
    }
    if odd(230, 18) {
        fix_checksum(&mut f, at, protocol);
    }
    f
}

fn fix_checksum(f: &mut [u8], at: usize, protocol: u8) {
    use ix_dataplane::checksum;
    let (from, to) = ([10, 0, 2, f[29]], [10, 0, 2, 15]);
    let field = match protocol {
        6 if f.len() > at + 18 => 16,
        17 => 6,
        1 => 2,
        _ => return,
    };
    if protocol == 17 {
        let len = (f.len() - at) as u16;
        f[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
    }
    if protocol == 6 {
        f[at + 12] = 0x50 | f[at + 12] & 0x20;
    }
    f[at + field..at + field + 2].fill(0);
    let mut sum = checksum::sum(&f[at..]);
    if protocol != 1 {
        let pseudo = checksum::pseudo_v4(from, to, protocol, (f.len() - at) as u16);
        sum = checksum::add(sum, pseudo);
    }
    let bytes = checksum::finish(sum);
    f[at + field..at + field + 2].copy_from_slice(&bytes);
}

#[test]
fn floods_of_nonsense_leave_it_serving_with_and_without_rules() {
    let files = Files::new();
    let rules = files.write("rules.toml", ONLY_ECHO);
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    // What half-open connections and lone fragments wait for, both machines wait for at once.
    let flooded = [None, Some(rules.as_path())].map(|with| flood(&built, with));
    let waiting = flooded.map(|(vm, host, before)| {
        std::thread::spawn(move || {
            let mut host = host;
            recovers(&vm, before, || host.run(Duration::from_millis(50)));
        })
    });
    for recovery in waiting {
        // Its own words are on standard error already.
        assert!(recovery.join().is_ok(), "it did not recover");
    }
}

/// A machine that was flooded and has served all the while, its peer, and its figures before the flood.
#[track_caller]
fn flood(built: &need::Built, with: Option<&Path>) -> (Vm, Host, (u64, u64)) {
    let frames = if need::prove() { 2_000_000 } else { 6_000 };
    let (vm, mut host) = boot_echo(built, 2, with);
    let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    assert!(host.exchange(conn, b"before", PATIENCE).unwrap() == b"before");
    let before = figures(&vm);
    let to = vm.mac();
    for number in 0..frames {
        host.inject(&nonsense(to, 1, number));
        if number.is_multiple_of(frames / 10) {
            let data = bytes(number, 1000);
            assert!(host.exchange(conn, &data, PATIENCE).unwrap() == data, "frame {number}");
        }
    }
    let drops = vm.snapshot().total.drops;
    for name in ["ip_malformed", "ip_checksum", "ip_protocol", "tcp_checksum"] {
        assert!(drops.get(name) > 0, "{name} is 0");
    }
    // Fragments wait for others that never come, in a table that is soon full.
    let spoilt = ["fragments_full", "fragment_timeout", "fragment_overlap", "fragment_too_long"];
    assert!(spoilt.iter().any(|name| drops.get(name) > 0), "no fragment was dropped: {drops:?}");
    assert_eq!(with.is_some(), drops.get("acl_denied_in") > frames / 10, "{drops:?}");
    assert!(host.exchange(conn, b"after", PATIENCE).unwrap() == b"after");
    (vm, host, before)
}

#[test]
fn the_floods_of_isic_leave_memcached_serving() {
    let Some(isic) = need::tool(&["isic"], "isic, not in every release") else { return };
    let Some(tap) = Tap::make(false) else { return };
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let files = Files::new();
    let allow = "[default]\nin = \"deny\"\n[[rule]]\naction = \"allow\"\nlocal-ports = 11211\n\
                 protocol = \"tcp\"\nrate = \"1000/s burst 1000\"\n";
    let rules = files.write("rules.toml", allow);
    let guest = tap.guest_ip().to_string();
    let here = guest.replace(".2", ".1");
    for with in [false, true] {
        let mut config =
            Config::new(&built, "kv").cores(2).with("--net", format!("tap={}", tap.name));
        config = config.with("--ip", tap.guest.as_str());
        if with {
            config = config.with("--acl", &rules);
        }
        let vm = config.boot();
        let ask = || {
            let stream = std::net::TcpStream::connect((tap.guest_ip(), 11211)).expect("connects");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            let mut kv = Kv(std::io::BufReader::new(stream));
            kv.set("key", b"value");
            assert_eq!(kv.get("key").as_deref(), Some(&b"value"[..]));
        };
        ask();
        let before = figures(&vm);
        for program in ["isic", "tcpsic", "udpsic", "icmpsic"] {
            let to = if program == "tcpsic" || program == "udpsic" { ",11211" } else { "" };
            let mut command = Command::new(isic.with_file_name(program));
            command.args(["-s", &here, "-d", &format!("{guest}{to}"), "-p", "20000", "-r", "1"]);
            let done = run(&mut command, Duration::from_secs(60));
            println!("{program}: {}", done.out.lines().last().unwrap_or(&done.err));
            ask();
        }
        recovers(&vm, before, || ());
    }
}
