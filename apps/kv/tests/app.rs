//! The application against a kernel in memory, which checks that nothing which is being sent changes
//! before it is reported as sent, and that all received bytes are given back.
mod common;
#[path = "../../../libix/tests/fake/mod.rs"]
mod fake;

use common::client::{Client, shared};
use common::rng::Rng;
use common::script::ops;
use fake::{boot, kernel};
use ix_abi::call::Request;
use ix_abi::{Condition, Cookie, DeadReason, GroupId, Handle};
use kv::app::{Kv, Options};
use kv::worker::Shared;
use libix::{Args, Context, EventLoop};

struct Rig {
    events: EventLoop<Kv>,
    app: Kv,
    shared: &'static Shared,
}

impl Rig {
    fn new(args: &str) -> Rig {
        let context = boot(args);
        let info = context.info();
        let mut options = Options::parse(Args::new(info), info).expect("good arguments");
        options.memory_mib = options.memory_mib.max(32);
        let memory = vec![0u8; options.memory_pages() << 21].leak();
        let shared = Box::leak(Box::new(options.share(memory, info, 0)));
        Rig::over(context, shared)
    }

    fn over(context: Context, shared: &'static Shared) -> Rig {
        let mut rig = Rig { events: EventLoop::new(context), app: Kv::new(shared, 0), shared };
        kernel(|k| k.patient = true);
        rig.events.start(&mut rig.app);
        rig.turns(2);
        rig
    }

    fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.events.enter();
            self.events.turn(&mut self.app);
        }
    }

    fn connect(&mut self, index: u32) -> Handle {
        let handle = kernel(|k| k.knock(index));
        self.turns(1);
        handle
    }

    /// Acknowledges all that is out and opens the window, until nothing moves any more.
    fn drain(&mut self, handle: Handle) {
        for _ in 0..200 {
            kernel(|k| {
                if k.connections.contains_key(&handle.0) {
                    let bytes = k.tcp(handle).unacked();
                    k.ack(handle, bytes, 1 << 20);
                }
            });
            self.turns(2);
        }
    }
}

#[test]
fn it_listens_on_memcacheds_port_or_the_one_named() {
    for (args, expected) in [("", 11211), ("-p 4711 -m 8 -c 10", 4711)] {
        let _rig = Rig::new(args);
        let port = kernel(|k| match k.calls[0].0 {
            Request::Listen { local, .. } => local.port,
            other => panic!("{other:?}"),
        });
        assert_eq!(port, expected);
        assert!(kernel(|k| k.ready));
    }
}

#[test]
fn bad_arguments_are_refused() {
    let context = boot("");
    for args in [
        "-p 70000",
        "-m x",
        "--memory 3",
        "-c -1",
        "-m",
        "-U x",
        "-I 100",
        "-I 17m",
        "-I 1g",
        "-o idle_timeout",
        "-o idle_timeout=x",
        "-o modern",
    ] {
        assert!(Options::parse(Args::parse(args), context.info()).is_err(), "{args}");
    }
}

#[test]
fn a_batch_of_requests_is_answered_by_one_sendv() {
    let mut rig = Rig::new("");
    let handle = rig.connect(1);
    let big = "b".repeat(5000);
    kernel(|k| k.recv(handle, format!("set big 0 0 5000\r\n{big}\r\n").as_bytes()));
    rig.turns(2);
    let before = kernel(|k| k.tcp(handle).sendvs);
    kernel(|k| {
        k.recv(handle, b"get big\r\nset a 0 0 1\r\nx\r\nge");
        k.recv(handle, b"t a\r\nget big\r\n");
    });
    rig.turns(2);
    let answer = format!("VALUE big 0 5000\r\n{big}\r\nEND\r\n");
    kernel(|k| {
        assert_eq!(k.tcp(handle).sendvs, before + 1);
        let all = format!("STORED\r\n{answer}STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n{answer}");
        assert_eq!(String::from_utf8_lossy(&k.tcp(handle).stream), all);
        assert_eq!(k.tcp(handle).outstanding, 0, "received bytes were given back");
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut rig = Rig::new("");
    let handle = rig.connect(1);
    let big = "b".repeat(200_000);
    kernel(|k| k.recv(handle, format!("set big 0 0 200000\r\n{big}\r\n").as_bytes()));
    rig.turns(2);
    kernel(|k| {
        k.tcp(handle).window = 1000;
        for _ in 0..1000 {
            k.recv(handle, b"get big\r\n");
        }
    });
    rig.turns(20);
    let held = kernel(|k| k.tcp(handle).outstanding);
    assert!(held > 990 * 9 - 9, "{held} bytes of 9,000 still held back");
    kernel(|k| k.eof(handle));
    rig.drain(handle);
    kernel(|k| {
        let answers = 1000 * (200_000 + "VALUE big 0 200000\r\n\r\nEND\r\n".len());
        assert_eq!(k.tcp(handle).stream.len(), answers + "STORED\r\n".len());
        assert!(k.tcp(handle).closed, "closed when all was answered");
        k.dead(handle, DeadReason::Closed);
    });
    rig.turns(2);
    assert_eq!(rig.shared.connections(), 0);
    // All references are back: the item and nothing else.
    assert_eq!(rig.shared.store.figures().used_chunks, 1);
}

#[test]
fn a_connection_that_dies_in_the_middle_leaves_nothing_behind() {
    let mut rig = Rig::new("");
    let handle = rig.connect(1);
    let big = "b".repeat(5000);
    kernel(|k| {
        k.recv(handle, format!("set big 0 0 5000\r\n{big}\r\n").as_bytes());
        k.recv(handle, "get big\r\n".repeat(100).as_bytes());
        k.recv(handle, b"delete big\r\nset half 0 0 100\r\nhal");
    });
    rig.turns(2);
    kernel(|k| k.dead(handle, DeadReason::Reset));
    rig.turns(2);
    let other = rig.connect(2);
    kernel(|k| k.recv(other, b"delete big\r\n"));
    rig.turns(2);
    assert_eq!(rig.shared.store.figures().used_chunks, 0);
    assert_eq!(rig.shared.connections(), 1);
}

#[test]
fn clients_over_the_limit_are_told_so() {
    let mut rig = Rig::new("-c 1");
    let first = rig.connect(1);
    let second = rig.connect(2);
    kernel(|k| {
        k.recv(first, b"get a\r\n");
        k.recv(second, b"get a\r\n");
    });
    rig.turns(2);
    kernel(|k| {
        assert_eq!(k.tcp(first).stream, b"END\r\n");
        assert_eq!(k.tcp(second).stream, b"ERROR Too many open connections\r\n");
    });
    rig.turns(2);
    assert!(kernel(|k| k.tcp(second).closed));
}

/// Random operations in random pieces, windows and acknowledgements of any size: the answers are
/// those of the library without a network.
#[test]
fn any_pace_of_the_network_gives_the_same_answers() {
    for seed in 1..=20 {
        let mut rng = Rng::new(seed);
        let stream = ops::requests(&mut rng, 60_000);
        let direct = shared(64 << 20);
        let mut client = Client::new(&direct, 0);
        let mut expected = Vec::new();
        for piece in stream.chunks(1000) {
            expected.extend(client.ask(piece));
        }

        // The same seed for the hash: version numbers depend on it.
        let mut rig = Rig::over(boot(""), Box::leak(Box::new(shared(64 << 20))));
        let handle = rig.connect(1);
        let mut at = 0;
        while at < stream.len() {
            let len = (1 + rng.below(2000)).min(stream.len() - at);
            kernel(|k| {
                k.recv(handle, &stream[at..at + len]);
                if rng.one_in(3) {
                    let bytes = k.tcp(handle).unacked();
                    let acked = if bytes == 0 { 0 } else { rng.below(bytes as usize + 1) as u64 };
                    let window = [0, 10, 1000, 100_000][rng.below(4)];
                    k.ack(handle, acked, window);
                }
            });
            at += len;
            rig.turns(1);
        }
        rig.drain(handle);
        kernel(|k| {
            let tcp = k.tcp(handle);
            let same = tcp.stream.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            assert!(
                tcp.stream == expected,
                "seed {seed}: differs at {same}: {} not {}",
                tcp.stream[same.saturating_sub(50)..(same + 50).min(tcp.stream.len())]
                    .escape_ascii(),
                expected[same.saturating_sub(50)..(same + 50).min(expected.len())].escape_ascii()
            );
            assert_eq!(tcp.outstanding, 0);
        });
    }
}

/// Fires the timer at a second since the start.
fn tick(rig: &mut Rig, second: u64) {
    kernel(|k| {
        k.now_ns = second * 1_000_000_000;
        let handle = Handle::new(GroupId::DATAPLANE, 1, 3);
        k.pending.push_back(Condition::Timer { handle, cookie: Cookie(1) });
    });
    rig.turns(2);
}

#[test]
fn connections_that_say_nothing_are_closed_and_shown_until_then() {
    let mut rig = Rig::new("-o idle_timeout=10 -I 512k");
    let (talks, silent) = (rig.connect(1), rig.connect(2));
    tick(&mut rig, 8);
    kernel(|k| k.recv(talks, b"stats conns\r\n"));
    rig.turns(2);
    let shown = kernel(|k| String::from_utf8_lossy(&k.tcp(talks).stream).into_owned());
    for line in [
        "STAT 1:state conn_listening",
        "STAT 10:addr tcp:10.0.2.2:",
        "STAT 10:state conn_parse_cmd",
        "STAT 10:secs_since_last_cmd 0",
        "STAT 11:state conn_read",
        "STAT 11:secs_since_last_cmd 8",
    ] {
        assert!(shown.contains(line), "{line} not in {shown}");
    }
    kernel(|k| {
        let bytes = k.tcp(talks).unacked();
        k.ack(talks, bytes, 1 << 20);
    });
    tick(&mut rig, 12);
    assert!(kernel(|k| k.tcp(silent).closed && !k.tcp(talks).closed));
    kernel(|k| k.dead(silent, DeadReason::Closed));
    rig.turns(1);
    kernel(|k| k.recv(talks, b"stats conns\r\nstats\r\nstats settings\r\n"));
    rig.turns(2);
    let shown = kernel(|k| {
        let stream = k.tcp(talks).stream.split_off(shown.len());
        String::from_utf8_lossy(&stream).into_owned()
    });
    assert!(!shown.contains("STAT 11:"), "{shown}");
    for line in ["STAT idle_kicks 1", "STAT idle_timeout 10", "STAT item_size_max 524288"] {
        assert!(shown.contains(line), "{line} not in {shown}");
    }
}

#[test]
fn expired_items_go_without_anybody_asking() {
    let mut rig = Rig::new("");
    let handle = rig.connect(1);
    kernel(|k| k.recv(handle, b"set a 0 5 1\r\nx\r\nset b 0 0 1\r\nx\r\n"));
    rig.turns(2);
    for second in 1..60 {
        tick(&mut rig, second);
    }
    let figures = rig.shared.store.figures();
    assert_eq!((figures.curr_items, figures.crawler_reclaimed), (1, 1));
}
