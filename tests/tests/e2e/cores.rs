//! Cores that come and go, and flow groups that move, while clients talk.
use crate::{Kv, bytes};
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn boot(app: &str, port: &str) -> Option<Vm> {
    Some(Config::new(&need::built()?, app).cores(4).forward(port).boot())
}

pub fn json(vm: &Vm, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&vm.ixcp_ok(&[args, &["--json"]].concat())).expect("JSON")
}

/// Clients that send random bytes and want them back, until they are told to end.
struct Clients {
    stop: Arc<AtomicBool>,
    exchanged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(vm: &Vm, count: usize) -> Clients {
        let (stop, exchanged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..8).map(|thread| {
            let mut streams: Vec<_> = (0..count / 8).map(|_| vm.connect(7)).collect();
            let (stop, exchanged) = (Arc::clone(&stop), Arc::clone(&exchanged));
            std::thread::spawn(move || {
                let mut round = thread as u64;
                while !stop.load(Ordering::Relaxed) {
                    round += 8;
                    for (i, stream) in streams.iter_mut().enumerate() {
                        let data = bytes(round * 1000 + i as u64, 700);
                        stream.write_all(&data).expect("the guest takes it");
                        let mut got = vec![0; data.len()];
                        stream.read_exact(&mut got).expect("an answer in time");
                        assert!(got == data, "round {round}, connection {i}");
                        exchanged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let threads = threads.collect();
        Clients { stop, exchanged, threads }
    }

    /// Waits until they have exchanged so many more messages.
    #[track_caller]
    fn go_on(&self, more: u64) {
        let (from, start) = (self.exchanged.load(Ordering::Relaxed), Instant::now());
        while self.exchanged.load(Ordering::Relaxed) < from + more {
            assert!(start.elapsed() < Duration::from_secs(60), "the clients stand still");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no error"));
        self.exchanged.load(Ordering::Relaxed)
    }
}

#[test]
fn cores_come_and_go_while_two_hundred_connections_exchange_data() {
    let _machine = need::machine();
    let Some(vm) = boot("echo", "7") else { return };
    let clients = Clients::start(&vm, 200);
    clients.go_on(200);
    let before = vm.snapshot().total.counters;
    let rounds = if need::prove() { 50 } else { 5 };
    for round in 0..rounds {
        for count in [1, 4, 2, 1, 4] {
            let said = vm.ixcp_ok(&["cores", "set", &count.to_string()]);
            assert!(said.contains(&format!("{count} of 4 cores serve")), "{said}");
            clients.go_on(50);
            let cores = json(&vm, &["cores"]);
            for core in cores["cores"].as_array().unwrap() {
                let (at, groups) =
                    (core["core"].as_u64().unwrap(), core["groups"].as_u64().unwrap());
                let share = if at < count { 128 / count } else { 0 };
                assert_eq!(
                    (core["serves"].as_bool(), groups),
                    (Some(at < count), share),
                    "{cores:#}"
                );
            }
        }
        println!("round {round}: {} messages", clients.exchanged.load(Ordering::Relaxed));
    }
    let exchanged = clients.end();
    let after = vm.snapshot().total.counters;
    let more = |name: &str| after.get(name) - before.get(name);
    println!(
        "{exchanged} messages; {} groups moved, {} frames held, {} segments sent again, {} out of order",
        more("groups_in"),
        more("frames_held"),
        more("tcp_retransmits"),
        more("tcp_out_of_order")
    );
    assert_eq!(more("groups_in"), more("groups_out"));
    assert!(more("groups_in") >= rounds * 5 * 32);
    assert_eq!((more("tcp_out_of_order"), more("tcp_resets_sent")), (0, 0), "{}", vm.log());
}

#[test]
fn a_group_moves_by_hand_and_nonsense_is_refused_with_words() {
    let _machine = need::machine();
    let Some(vm) = boot("kv", "11211") else { return };
    let mut client = Kv::connect(&vm);
    client.set("a", b"1");
    for core in [3, 1, 0, 2] {
        for group in 0..128 {
            if group % 16 == core {
                vm.ixcp_ok(&["flows", "move", &group.to_string(), &core.to_string()]);
            }
        }
        assert_eq!(client.get("a"), Some(b"1".to_vec()));
    }
    let flows = json(&vm, &["flows"]);
    assert_eq!((&flows["groups"][3], &flows["groups"][18]), (&3.into(), &2.into()), "{flows}");
    let table = vm.ixcp_ok(&["flows"]);
    assert!(table.contains("moves since boot"), "{table}");
    let refused = |args: &[&str], words: &str| {
        let out = vm.ixcp(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(words), "{args:?}: {said}");
    };
    refused(&["flows", "move", "128", "0"], "there is no flow group 128");
    refused(&["flows", "move", "0", "4"], "core 4 does not serve");
    refused(&["cores", "set", "5"], "has 4 cores");
    refused(&["cores", "set", "0"], "0");
    refused(&["cores", "give", "3"], "no monitor runs below its kernel");
    vm.ixcp_ok(&["cores", "set", "2"]);
    refused(&["flows", "move", "0", "3"], "core 3 does not serve");
    vm.ixcp_ok(&["batch", "7"]);
    assert_eq!(vm.page().load(ix_abi::control::header::BATCH), 7);
    assert_eq!(client.get("a"), Some(b"1".to_vec()));
}

/// Clock ticks that each thread of QEMU has used.
pub fn vcpu_ticks(vm: &Vm) -> Vec<u64> {
    let text = std::fs::read_to_string(vm.dir().join("instance.json")).expect("described");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let tasks = format!("/proc/{}/task", json["qemu_pid"]);
    let mut threads: Vec<(String, u64)> = std::fs::read_dir(tasks)
        .expect("QEMU's threads")
        .filter_map(|task| {
            let task = task.ok()?.path();
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            let stat = std::fs::read_to_string(task.join("stat")).ok()?;
            let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks =
                fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
            name.starts_with("CPU ").then(|| (name.trim().to_owned(), ticks))
        })
        .collect();
    threads.sort();
    threads.into_iter().map(|(_, ticks)| ticks).collect()
}

#[test]
fn an_application_starts_afresh_while_cores_are_parked() {
    let _machine = need::machine();
    let Some(vm) = boot("kv", "11211") else { return };
    vm.ixcp_ok(&["cores", "set", "1"]);
    vm.ixcp_ok(&["restart-app"]);
    let mut client = Kv::connect(&vm);
    client.set("a", b"1");
    vm.ixcp_ok(&["cores", "set", "4"]);
    let mut others: Vec<_> = (0..32).map(|_| Kv::connect(&vm)).collect();
    for (i, other) in others.iter_mut().enumerate() {
        other.set(&format!("k{i}"), b"2");
    }
    assert_eq!(client.get("k31"), Some(b"2".to_vec()));
    let cores = json(&vm, &["cores"]);
    let serving = |core: &serde_json::Value| core["connections"].as_u64() > Some(0);
    assert_eq!(
        cores["cores"].as_array().unwrap().iter().filter(|c| serving(c)).count(),
        4,
        "{cores:#}"
    );
}
