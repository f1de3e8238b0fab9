//! Real memcached clients, and the stock server as the judge of a long script.
use crate::common::linear::load::{self, Ask, Load};
use crate::common::memcached::Memcached;
use crate::common::script::{self, Address};
use crate::{Kv, bytes};
use ix_tests::need;
use ix_tests::tools::run;
use ix_tests::vm::{Config, Vm};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::MutexGuard;
use std::time::Duration;

fn kv() -> Option<(MutexGuard<'static, ()>, Vm)> {
    kv_on(2)
}

fn kv_on(cores: u32) -> Option<(MutexGuard<'static, ()>, Vm)> {
    let built = need::built()?;
    let machine = need::machine();
    let config = Config::new(&built, "kv").cores(cores).forward("11211").forward("11211/udp");
    Some((machine, config.app_args(&["-U", "11211"]).boot()))
}

#[test]
fn values_of_every_size_up_to_a_mebibyte_come_back() {
    let Some((_machine, vm)) = kv() else { return };
    let mut client = Kv::connect(&vm);
    for len in [0, 1, 100, 1460, 65_536, 500_000, (1 << 20) - 512] {
        let value = bytes(len as u64, len);
        client.set("value", &value);
        assert!(client.get("value").as_ref() == Some(&value), "{len} bytes");
    }
}

#[test]
fn pymemcache_is_served() {
    const SCRIPT: &str = r#"
import sys
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheIllegalInputError
c = Client(("127.0.0.1", int(sys.argv[1])), timeout=20, connect_timeout=20)
assert c.set("a", b"1", noreply=False)
assert c.get("a") == b"1"
assert c.get("nothing") is None
assert c.add("a", b"2", noreply=False) is False
assert c.replace("a", b"2", noreply=False)
assert c.append("a", b"3", noreply=False) and c.prepend("a", b"1", noreply=False)
assert c.get("a") == b"123"
assert c.incr("a", 7) == 130 and c.decr("a", 30) == 100
value, cas = c.gets("a")
assert value == b"100"
assert c.cas("a", b"new", cas, noreply=False) is True
assert c.cas("a", b"newer", cas, noreply=False) is False
assert c.cas("gone", b"x", cas, noreply=False) is None
assert c.touch("a", 100, noreply=False)
assert c.delete("a", noreply=False) and not c.delete("a", noreply=False)
many = {"key%d" % i: b"v" * i for i in range(500)}
assert c.set_many(many, noreply=False) == []
assert c.get_many(list(many)) == many
for k in many: c.set(k, b"n", noreply=True)
assert c.get("key499") == b"n"
try:
    c.set("k" * 251, b"x", noreply=False)
    assert False
except MemcacheIllegalInputError:
    pass
assert c.set("big", b"b" * 1000000, noreply=False) and c.get("big") == b"b" * 1000000
assert b"version" in c.stats() and c.version()
assert c.flush_all(noreply=False) and c.get("key1") is None
c.quit()
print("done")
"#;
    let python = Command::new("/usr/bin/python3").args(["-c", "import pymemcache"]).output();
    if !python.is_ok_and(|o| o.status.success()) {
        return need::skip("no pymemcache (Debian package python3-pymemcache)");
    }
    let Some((_machine, vm)) = kv() else { return };
    let port = vm.address(11211, "tcp").port().to_string();
    let mut command = Command::new("/usr/bin/python3");
    let done = run(command.args(["-c", SCRIPT, &port]), Duration::from_secs(60));
    assert!(done.ok() && done.out.trim() == "done", "{}{}\n{}", done.out, done.err, vm.log());
}

/// The names and outcomes of memccapable's tests: `ascii get   [pass]`.
fn memccapable(program: &std::path::Path, port: u16) -> Vec<(String, String)> {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-a", "-t", "20"]);
    let done = run(&mut command, Duration::from_secs(120));
    let outcome = |line: &str| {
        let (name, rest) = line.split_once('[')?;
        Some((name.trim().to_owned(), rest.split(']').next()?.to_owned()))
    };
    let results: Vec<_> = done.out.lines().filter_map(outcome).collect();
    assert!(!results.is_empty(), "memccapable said: {}{}", done.out, done.err);
    results
}

#[test]
fn memccapable_passes_every_test_that_the_stock_server_passes() {
    let Some(program) = need::tool(&["memccapable", "memcapable"], "libmemcached-tools") else {
        return;
    };
    let stock = match Memcached::start(64) {
        Ok(stock) => stock,
        Err(why) => return need::skip(&why),
    };
    let Some((_machine, vm)) = kv() else { return };
    let theirs = memccapable(&program, stock.address.port());
    let ours = memccapable(&program, vm.address(11211, "tcp").port());
    println!("ours: {ours:?}\nstock: {theirs:?}");
    let passed: Vec<_> = theirs.iter().filter(|(_, outcome)| outcome == "pass").collect();
    assert!(passed.len() > 10, "the stock server passes only {passed:?}");
    let missing: Vec<_> = passed.iter().filter(|result| !ours.contains(result)).collect();
    assert!(missing.is_empty(), "not passed: {missing:?} of {ours:?}\n{}", vm.log());
}

#[test]
fn a_script_of_100_000_operations_is_answered_as_by_the_stock_server() {
    let stock = match Memcached::start(1024) {
        Ok(stock) => stock,
        Err(why) => return need::skip(&why),
    };
    let Some((_machine, vm)) = kv() else { return };
    let operations = if need::prove() { 1_000_000 } else { 100_000 };
    let address = Address { tcp: vm.address(11211, "tcp"), udp: Some(vm.address(11211, "udp")) };
    let reference = Address { tcp: stock.address, udp: Some(stock.address) };
    match script::compare(&address, &reference, 2, operations) {
        Ok(report) => println!("{report:#?}"),
        Err(difference) => panic!("{difference:#?}\n{}", vm.log()),
    }
}

/// A connection that asks with meta commands: an answer is a line, and a value after `VA`.
struct Meta(BufReader<TcpStream>);

impl Ask for Meta {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.0.get_mut().write_all(request).expect("written");
        let mut answer = Vec::new();
        self.0.read_until(b'\n', &mut answer).expect("an answer");
        let line = String::from_utf8_lossy(&answer).into_owned();
        let mut words = line.split_whitespace();
        if words.next() == Some("VA") {
            let len: usize = words.next().and_then(|len| len.parse().ok()).expect("a length");
            let mut value = vec![0; len + 2];
            self.0.read_exact(&mut value).expect("a value");
            answer.extend(value);
        }
        answer
    }
}

#[test]
fn four_cores_hammering_one_key_set_are_linearisable_per_key() {
    const CORES: u32 = 4;
    let Some((_machine, vm)) = kv_on(CORES) else { return };
    // So many that each core has one at least, whatever the key (`ix_tests::spread`).
    const CLIENTS: usize = 40;
    let clients = (0..CLIENTS).map(|_| Box::new(Meta(BufReader::new(vm.connect(11211)))) as Box<_>);
    let operations = if need::prove() { 4_000 } else { 300 };
    let heavy = Load { seed: 3, keys: 4, operations, lockstep: 20, value_len: 3000 };
    let summary = load::run(clients.collect(), heavy);
    let events: Vec<u64> =
        vm.snapshot().cores.iter().map(|core| core.counters.get("events")).collect();
    println!("{summary:?}; events of each core: {events:?}");
    assert_eq!(summary.operations, CLIENTS * operations);
    assert!(summary.overlaps > 1_000, "the clients hardly met: {summary:?}");
    let busy = events.iter().filter(|&&events| events > 100).count();
    assert_eq!(busy, CORES as usize, "cores that served: {events:?}");
}
