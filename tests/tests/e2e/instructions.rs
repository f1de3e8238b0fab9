//! Guest instructions per kv GET (design §9): under `-icount shift=0` the time-stamp counter counts
//! instructions, and the kernel sums it over the loop iterations that had something to do.
//! Run with `--nocapture` for the figures.
use crate::Kv;
use ix_abi::stats::Counter;
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use std::io::Write;

/// Requests of one measurement, over all connections.
const REQUESTS: u64 = 2000;

struct Figure {
    per_request: u64,
    user: u64,
    /// Iterations of the loop that found something to do, and frames that came, for 100 requests.
    busy: u64,
    frames: u64,
}

/// One request on each connection at a time; instructions per request.
fn measure(vm: &Vm, connections: usize) -> Figure {
    let mut clients: Vec<Kv> = (0..connections).map(|_| Kv::connect(vm)).collect();
    for client in &mut clients {
        client.set("key", &[b'v'; 64]);
        assert!(client.get("key").is_some());
    }
    let rounds = REQUESTS / connections as u64;
    let before = vm.snapshot().total.counters;
    for _ in 0..rounds {
        for client in &mut clients {
            client.0.get_mut().write_all(b"get key\r\n").expect("written");
        }
        for client in &mut clients {
            assert!(client.line().starts_with("VALUE key 0 64"));
            assert_eq!((client.line().len(), client.line().as_str()), (64, "END"));
        }
    }
    let after = vm.snapshot().total.counters;
    let requests = rounds * connections as u64;
    let grown = |c: Counter| after.get(c.name()) - before.get(c.name());
    Figure {
        per_request: grown(Counter::BusyTsc) / requests,
        user: grown(Counter::UserTsc) / requests,
        busy: 100 * grown(Counter::LoopsBusy) / requests,
        frames: 100 * grown(Counter::RxPackets) / requests,
    }
}

#[test]
fn instructions_per_get_are_counted_at_1_and_16_connections() {
    let (Some(()), Some(built)) = (need::countable(), need::built()) else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "kv").cores(1).counted().forward("11211").boot();
    for connections in [1, 16] {
        let mut figures: Vec<Figure> = (0..3).map(|_| measure(&vm, connections)).collect();
        figures.sort_by_key(|f| f.per_request);
        let all: Vec<u64> = figures.iter().map(|f| f.per_request).collect();
        println!(
            "kv GET, {connections} connections: {} guest instructions per request, {} of them in \
             user mode (three runs: {all:?}); for 100 requests {} busy iterations, {} frames received",
            figures[1].per_request, figures[1].user, figures[1].busy, figures[1].frames
        );
        // No target yet; but a figure outside these bounds would be a broken measurement.
        assert!((500..100_000).contains(&figures[1].per_request), "{all:?}");
        assert!(figures[1].user > 100 && figures[1].user < figures[1].per_request, "{all:?}");
    }
}
