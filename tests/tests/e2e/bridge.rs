//! Beside Linux: IX and Linux kernels as guests of one QEMU, joined by a bridge that delays, drops and reorders
//! (round trip 2 ms). Each byte is verified where it arrives. The long variant compares throughput:
//! `cargo xtask prove bridge` prints the table of `docs/performance.md`.
use crate::tap::sends_no_reset;
use ix_tests::bridge::{Bridge, Counts, Impairment};
use ix_tests::linux::{self, Linux, Way};
use ix_tests::need;
use ix_tests::peer::Listener;
use ix_tests::vm::{Config, Vm};
use std::net::Ipv4Addr;
use std::sync::MutexGuard;
use std::time::Duration;

const IX: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const RTT: Duration = Duration::from_millis(2);
/// No transfer is slower than that, on a busy machine and with every twentieth frame lost.
const BYTES_PER_SECOND_MIN: u64 = 100_000;
/// What a transfer may take besides.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bridge and those on it; dropped in this order.
struct Rig {
    ix: Vm,
    client: Linux,
    server: Option<Linux>,
    bridge: Bridge,
    _machine: MutexGuard<'static, ()>,
}

impl Rig {
    /// A dataplane and a Linux guest, and a second one to compare with if wanted.
    fn start(compare: bool) -> Option<Rig> {
        let built = need::built()?;
        let images = linux::images()?;
        let machine = need::machine();
        let sockets: Vec<Listener> = (0..3).map(|_| Listener::bind()).collect();
        let mut client = Linux::start(&images, 1, sockets[1].path());
        let mut server = compare.then(|| Linux::start(&images, 2, sockets[2].path()));
        let ix = Config::new(&built, "stream").cores(1).stream(sockets[0].path()).boot();
        let used = sockets.iter().take(if compare { 3 } else { 2 });
        let bridge = Bridge::start(used.map(Listener::accept).collect(), clean(0));
        client.wait_ready();
        if let Some(server) = &mut server {
            server.wait_ready();
        }
        Some(Rig { ix, client, server, bridge, _machine: machine })
    }

    /// One transfer between the Linux guest and `peer`; megabytes in a second.
    #[track_caller]
    fn transfer(&mut self, peer: Ipv4Addr, way: Way, how: Impairment, bytes: u64) -> f64 {
        self.bridge.set(how);
        let before = self.counted();
        let patience = PATIENCE + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        let outcome = self.client.transfer(way, peer, how.seed, bytes, patience);
        let counts = self.bridge.counts();
        let outcome =
            outcome.unwrap_or_else(|e| panic!("{way:?} {peer}: {e}\n{counts:?}\n{}", self.state()));
        assert_eq!((outcome.bytes, outcome.wrong), (bytes, None), "{way:?} {peer}: {counts:?}");
        let rate = outcome.megabytes_per_second();
        // What the sender counted, where it can be asked.
        let sender = match way {
            Way::Send => Some([outcome.retransmitted, outcome.timeouts, outcome.probes]),
            Way::Receive => (peer == IX).then(|| {
                let after = self.counted();
                std::array::from_fn(|i| after[i] - before[i])
            }),
        };
        let sender = sender.map_or(String::new(), |[again, timeouts, probes]| {
            format!("{again} sent again, {timeouts} timeouts, {probes} probes; ")
        });
        println!(
            "bridge: {way:?} {peer} {} permille lost: {bytes} bytes, {rate:.2} MB/s; {sender}{}",
            how.loss_permille,
            summary(&counts)
        );
        rate
    }

    /// The dataplane's counters of segments sent again, timeouts and probes.
    fn counted(&self) -> [u64; 3] {
        let counters = self.ix.snapshot().total.counters;
        ["tcp_retransmits", "tcp_timeouts", "tcp_loss_probes"].map(|name| counters.get(name))
    }

    /// The same transfers with IX and with the other Linux by turns: a row of the table, and the ratio.
    fn alternate(&mut self, way: Way, loss: u32, megabytes: u64, turns: u64) -> (String, f64) {
        let linux = self.server.as_ref().expect("started").ip();
        let (mut ix, mut other) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            let how = lossy(100 + turn, loss);
            ix.push(self.transfer(IX, way, how, megabytes * 1_000_000));
            other.push(self.transfer(linux, way, how, megabytes * 1_000_000));
        }
        let all =
            |rates: &[f64]| rates.iter().map(|r| format!("{r:.1}")).collect::<Vec<_>>().join(" ");
        let (ix_all, other_all) = (all(&ix), all(&other));
        let (ix, other) = (median(&mut ix), median(&mut other));
        let (way, loss) = match way {
            Way::Send => ("to IX", f64::from(loss) / 10.0),
            Way::Receive => ("from IX", f64::from(loss) / 10.0),
        };
        let row = format!(
            "| {loss} % | {way} | {megabytes} MB | {ix:.2} ({ix_all}) | {other:.2} ({other_all}) | {:.2} |",
            ix / other
        );
        (row, ix / other)
    }

    /// What the dataplane says of itself.
    fn state(&self) -> String {
        ixcp::render::status("ix", &self.ix.snapshot())
    }
}

fn clean(seed: u64) -> Impairment {
    Impairment { seed, ..Impairment::round_trip(RTT) }
}

fn lossy(seed: u64, loss_permille: u32) -> Impairment {
    Impairment { loss_permille, ..clean(seed) }
}

fn summary(counts: &[Counts]) -> String {
    let sum = |f: fn(&Counts) -> u64| counts.iter().map(f).sum::<u64>();
    let queued = counts.iter().map(|c| c.queued_max).max().unwrap_or(0);
    let late = counts.iter().map(Counts::late_us).fold(0.0, f64::max);
    format!(
        "{} frames, {} dropped, {} reordered, {} overflowed, at most {queued} under way, {late:.0} us late",
        sum(|c| c.frames),
        sum(|c| c.lost),
        sum(|c| c.reordered),
        sum(|c| c.overflowed)
    )
}

#[test]
fn streams_of_linux_arrive_intact_over_a_faulty_bridge() {
    let Some(mut rig) = Rig::start(false) else { return };
    let [whole, lost, much_lost] = match need::prove() {
        false => [50_000_000, 10_000_000, 1_000_000],
        true => [1_000_000_000, 100_000_000, 100_000_000],
    };
    for way in [Way::Send, Way::Receive] {
        rig.transfer(IX, way, clean(1), whole);
        rig.transfer(IX, way, lossy(2, 10), lost);
        rig.transfer(IX, way, lossy(3, 50), much_lost);
        let reordering = Impairment { reorder_permille: 20, ..lossy(4, 10) };
        rig.transfer(IX, way, reordering, 5_000_000);
    }
    let total = rig.ix.snapshot().total.counters;
    assert_eq!((total.get("tcp_accepted"), total.get("payload_copied")), (8, 0));
    sends_no_reset(&rig.ix);
}

/// A number from the environment, for short runs by hand.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The aim: at least this part of what Linux and Linux reach.
const RATIO_MIN: f64 = 0.8;

#[test]
fn throughput_is_near_that_of_linux() {
    if !need::prove() {
        // Throughput of a machine that does other things proves nothing.
        return need::skip("throughput is for `cargo xtask prove bridge`");
    }
    let Some(mut rig) = Rig::start(true) else { return };
    let alternations = number("IX_BRIDGE_ALTERNATIONS", 5);
    // A lossy path is slow: each transfer takes some seconds.
    let losses = [
        (0, number("IX_BRIDGE_CLEAN_MB", 100)),
        (10, number("IX_BRIDGE_LOSSY_MB", 20)),
        (50, number("IX_BRIDGE_VERY_LOSSY_MB", 10)),
    ];
    let mut table = vec![
        "| loss | direction | each | IX, MB/s (all) | Linux, MB/s (all) | ratio |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    let mut low = Vec::new();
    for (loss, megabytes) in losses.into_iter().filter(|l| l.1 > 0) {
        for way in [Way::Send, Way::Receive] {
            let (row, ratio) = rig.alternate(way, loss, megabytes, alternations);
            table.push(row);
            if ratio < RATIO_MIN {
                low.push(format!("{loss} permille {way:?}: {ratio:.2}"));
            }
        }
    }
    println!("{}", table.join("\n"));
    assert_eq!(rig.ix.snapshot().total.counters.get("payload_copied"), 0);
    assert!(low.is_empty(), "below {RATIO_MIN}: {low:?}");
}
