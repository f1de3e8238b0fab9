//! Background threads: cores that are reserved for them, kv's crawler as one. What they must not do is in `hostile.rs`.
use crate::Kv;
use crate::cores::{json, vcpu_ticks};
use ix_abi::control::CommandCode;
use ix_tests::need;
use ix_tests::tools::run;
use ix_tests::vm::{Config, Vm};
use ixcp::command::Writer;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

const RECLAIMS: &str = "background thread 1 reclaims what has expired";

fn kv(cores: u32, words: &str) -> Option<Vm> {
    let config = Config::new(&need::built()?, "kv").cores(cores).forward("11211");
    Some(config.with("--append", words).boot())
}

/// `stats`, or one of its parts.
fn stats(client: &mut Kv, part: &str) -> BTreeMap<String, u64> {
    client.0.get_mut().write_all(format!("stats {part}\r\n").as_bytes()).expect("written");
    let mut all = BTreeMap::new();
    loop {
        let line = client.line();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["STAT", name, value] => all.insert(name.to_owned(), value.parse().unwrap_or(0)),
            ["END"] => return all,
            _ => None,
        };
    }
}

/// Stores items that live for a second, and waits until nothing is left of them that anybody counts. Nobody asks for one.
#[track_caller]
fn items_expire(client: &mut Kv, count: usize, patience: Duration) {
    let before = stats(client, "")["curr_items"];
    for i in 0..count {
        let request = format!("set short{i} 0 1 100 noreply\r\n{}\r\n", "x".repeat(100));
        client.0.get_mut().write_all(request.as_bytes()).expect("written");
    }
    let most = stats(client, "")["curr_items"];
    assert!(most > before, "nothing was stored");
    let start = Instant::now();
    while stats(client, "")["curr_items"] > before {
        assert!(start.elapsed() < patience, "{:#?}", stats(client, ""));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{most} items, gone after {:?}", start.elapsed());
}

#[test]
fn a_background_thread_reclaims_what_a_real_client_has_let_expire() {
    const SCRIPT: &str = r#"
import sys, time
from pymemcache.client.base import Client
c = Client(("127.0.0.1", int(sys.argv[1])), timeout=20, connect_timeout=20)
number = lambda name: int(c.stats()[name])
chunks = lambda: sum(int(v) for k, v in c.stats("slabs").items() if k.endswith(b":used_chunks"))
assert c.set("stays", b"1", expire=0, noreply=False)
before = chunks()
for i in range(20000):
    c.set("k%d" % i, b"v" * 200, expire=2, noreply=True)
assert c.get("k19999") == b"v" * 200
assert number(b"curr_items") > 10000 and chunks() > 10000
end = time.time() + 40
while number(b"curr_items") > 1:
    assert time.time() < end, c.stats()
    time.sleep(0.1)
assert chunks() == before, (chunks(), before)
reclaimed = number(b"crawler_reclaimed")
assert reclaimed > 10000, reclaimed
assert c.get("stays") == b"1" and c.get("k19999") is None
c.quit()
print("done", reclaimed)
"#;
    let python = Command::new("/usr/bin/python3").args(["-c", "import pymemcache"]).output();
    if !python.is_ok_and(|o| o.status.success()) {
        return need::skip("no pymemcache (Debian package python3-pymemcache)");
    }
    let _machine = need::machine();
    let Some(vm) = kv(3, "background=1") else { return };
    vm.wait_for(RECLAIMS, Duration::from_secs(5));
    let port = vm.address(11211, "tcp").port().to_string();
    let mut command = Command::new("/usr/bin/python3");
    let done = run(command.args(["-c", SCRIPT, &port]), Duration::from_secs(90));
    assert!(done.ok() && done.out.starts_with("done"), "{}{}\n{}", done.out, done.err, vm.log());
    println!("{}", done.out.trim());
}

/// Of four cores two serve, one is parked, and one is reserved for a thread that looks once a second whether there is something
/// to do.
#[test]
fn a_parked_core_and_a_reserved_one_with_nothing_to_run_leave_their_cpus_to_others() {
    let _machine = need::machine();
    let Some(vm) = kv(4, "background=1") else { return };
    let mut client = Kv::connect(&vm);
    vm.wait_for(RECLAIMS, Duration::from_secs(5));
    // The thread begins at once; the core's flow groups go to others one after the other, each when the card has followed.
    vm.wait_for("3 of 4 cores serve", Duration::from_secs(20));
    vm.ixcp_ok(&["cores", "set", "2"]);
    client.set("a", b"1");
    let cores = json(&vm, &["cores"]);
    let of_each = |what: &str| -> Vec<_> {
        cores["cores"].as_array().unwrap().iter().map(|c| c[what].clone()).collect()
    };
    let (states, groups, serve) = (of_each("state"), of_each("groups"), of_each("serves"));
    assert_eq!((&states[2], &states[3]), (&"parked".into(), &"background".into()), "{cores:#}");
    assert_eq!(
        (&groups[2..], &serve[2..]),
        (&[0.into(), 0.into()][..], &[false.into(), false.into()][..])
    );
    let time = Duration::from_secs(10);
    let before = vcpu_ticks(&vm);
    std::thread::sleep(time);
    let after = vcpu_ticks(&vm);
    if after.len() < 4 {
        return need::skip("QEMU does not name its threads: debug-threads=on is needed");
    }
    // A tick is 10 ms: half a per cent of 10 s is five of them.
    let used: Vec<_> = before.iter().zip(&after).map(|(a, b)| b - a).collect();
    println!("clock ticks of the vCPU threads in {time:?}: {used:?}");
    assert!(used[2] <= 5 && used[3] <= 5, "{used:?}");
    assert_eq!(client.get("a"), Some(b"1".to_vec()));
}

#[test]
fn cores_are_reserved_and_taken_back_while_it_runs() {
    let _machine = need::machine();
    let Some(vm) = kv(3, "background=0") else { return };
    let mut client = Kv::connect(&vm);
    // Without a core for it, core 0 does it beside its requests.
    items_expire(&mut client, 1000, Duration::from_secs(40));
    assert!(!vm.log().contains("background thread"), "{}", vm.log());
    let refused = |args: &[&str], words: &str| {
        let out = vm.ixcp(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(words), "{args:?}: {said}");
    };
    refused(&["cores", "reserve", "1"], "only those that do not serve");
    vm.ixcp_ok(&["cores", "set", "2"]);
    refused(&["cores", "reserve", "2"], "only those that do not serve");
    refused(&["cores", "reserve", "3"], "only those that do not serve");
    let said = vm.ixcp_ok(&["cores", "reserve", "1"]);
    assert!(said.contains("1 of 3 cores are reserved"), "{said}");
    vm.wait_for(RECLAIMS, Duration::from_secs(5));
    refused(&["cores", "set", "3"], "1 of the 3 cores are reserved");
    refused(&["flows", "move", "0", "2"], "core 2 does not serve");
    items_expire(&mut client, 1000, Duration::from_secs(40));
    vm.ixcp_ok(&["cores", "reserve", "0"]);
    vm.ixcp_ok(&["cores", "set", "3"]);
    // The thread stands still now: core 0 takes over.
    items_expire(&mut client, 1000, Duration::from_secs(40));
    for round in 0..5 {
        vm.ixcp_ok(&["cores", "set", "1"]);
        vm.ixcp_ok(&["cores", "reserve", if round % 2 == 0 { "2" } else { "1" }]);
        client.set("a", b"1");
        vm.ixcp_ok(&["cores", "reserve", "0"]);
        vm.ixcp_ok(&["cores", "set", "3"]);
    }
    vm.ixcp_ok(&["restart-app"]);
    let mut client = Kv::connect(&vm);
    client.set("a", b"1");
    assert_eq!(client.get("a"), Some(b"1".to_vec()));
}

/// Core 0 looks at its page every millisecond, and parked cores, which look every 100 ms by themselves, are woken by it.
#[test]
fn a_command_wakes_parked_cores_by_interrupt() {
    let _machine = need::machine();
    let Some(vm) = kv(4, "batch=64") else { return };
    let page = vm.page();
    let lock = vm.dir().join("test.lock");
    let writer = Writer::lock(&lock, Duration::from_secs(1)).expect("nobody else's");
    let patience = Duration::from_secs(8);
    let set = |cores: u64| {
        let start = Instant::now();
        let outcome = writer.send(&page, CommandCode::SetCores, [cores, 0, 0, 0], patience);
        assert_eq!(outcome, Ok(cores));
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..25)
        .map(|round| {
            set(1);
            // Halted, and anywhere between two looks.
            std::thread::sleep(Duration::from_millis(150 + 11 * (round % 9)));
            set(4)
        })
        .collect();
    times.sort_unstable();
    println!("from one core to four: {times:?}");
    // Three that look by themselves within 100 ms, and the 10 ms that the rest takes at least, come to less than 50 ms in one round
    // of sixteen; a quarter of the rounds would be one run in a thousand. A busy machine takes longer for some rounds.
    assert!(times[6] < Duration::from_millis(50), "{times:?}");
}
