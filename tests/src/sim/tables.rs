//! Throughput, fairness and completion times over loss, delay and buffer: two dataplanes and a
//! bottleneck between them, in virtual time, so that a figure changes only when the engine does.
use super::book::{Side, Talk, Weather};
use super::net::{DONE, Done, Faults, StationId};
use super::swarm::{MachineDraw, Swarm};
use super::world::{Watched, watch};
use super::{MS, S, Time};
use ix_dataplane::config::Algorithm;
use ix_dataplane::rng::Rng;
use std::fmt::Write;

/// The algorithms, with their names.
pub const ALGORITHMS: [(Algorithm, &str); 3] =
    [(Algorithm::Cubic, "CUBIC"), (Algorithm::NewReno, "NewReno"), (Algorithm::Dctcp, "DCTCP")];

/// A path: everything but what flows over it.
#[derive(Clone, Copy, Debug)]
struct Path {
    algorithm: Algorithm,
    /// Megabits per second.
    rate: u64,
    rtt: Time,
    /// Bytes of the bottleneck's buffer.
    buffer: u64,
    /// Frames lost, in 10,000, towards the receiver and back.
    loss: u64,
    /// Bytes queued from which on frames are marked.
    mark: u64,
    /// What is added to the delay at random. Without, who comes at a full buffer in step with what leaves it
    /// always finds room, and another never (Floyd and Jacobson 1992).
    jitter: Time,
}

impl Path {
    /// Bytes of the bandwidth-delay product.
    fn bdp(&self) -> u64 {
        self.rate * self.rtt / 8_000
    }

    fn swarm(&self, talks: Vec<(Time, Talk)>) -> Swarm {
        let faults = Faults {
            loss: self.loss,
            delay: self.rtt / 2,
            jitter: self.jitter,
            byte_time: 8_000 / self.rate,
            queue_bytes: self.buffer,
            mark_bytes: self.mark,
            healed_at: Time::MAX,
            ..Faults::default()
        };
        let machine = MachineDraw {
            cores: 1,
            queues: 1,
            groups: 16,
            buffers: 8192,
            rx_ring: 256,
            tx_ring: 1024,
            rx_batch: 64,
            tx_checksum: true,
            rx_checksum: true,
            hash_report: true,
            heap_pages: 8,
            mesh: 64,
            connections: 4096,
            eager: true,
            congestion: self.algorithm,
            ..MachineDraw::default()
        };
        let weather = Weather::Harsh;
        Swarm {
            machines: vec![machine.clone(), machine],
            peers: Vec::new(),
            faults,
            weather,
            talks,
        }
    }

    fn run(&self, talks: Vec<(Time, Talk)>, marks: &[Time]) -> (Vec<Watched>, [u64; DONE], u64) {
        watch(self.swarm(talks), Rng::from_seed(1), marks)
    }
}

/// One way, as fast as it goes.
fn flow(n: u64, start: Time, bytes: u64) -> (Time, Talk) {
    let talk = Talk {
        id: 0x0123_4567_0000_0000 + n,
        start,
        opener: StationId(0),
        acceptor: StationId(1),
        bytes: [bytes, 0],
        echo: false,
        abort: None,
        first: Some(Side::Opener),
        write_max: 14_480,
        read_max: 1 << 20,
        slowness: 0,
        asks: None,
    };
    (start, talk)
}

/// After ARP.
const START: Time = 20 * MS;

fn megabits(bytes: u64, time: Time) -> f64 {
    bytes as f64 * 8_000.0 / time as f64
}

/// Throughput of one flow over loss and delay, in Mb/s.
pub fn loss_and_delay() -> String {
    const BYTES: u64 = 3_000_000;
    let mut text = String::from(
        "One flow of 3 MB, 100 Mb/s, buffer of one bandwidth-delay product (at least 30 kB).\n\
         Goodput in Mb/s from SYN to the last byte read; frames are lost in both directions.\n\n\
         algorithm  loss %    RTT 1 ms   RTT 10 ms   RTT 50 ms\n",
    );
    for (algorithm, name) in ALGORITHMS {
        for loss in [0, 10, 100, 500] {
            let _ = write!(text, "{name:9} {:>7.2} ", loss as f64 / 100.0);
            for rtt in [MS, 10 * MS, 50 * MS] {
                let path = Path { algorithm, rate: 100, rtt, buffer: 0, loss, mark: 0, jitter: 0 };
                let buffer = path.bdp().max(30_000);
                let path = Path { buffer, mark: mark(algorithm, buffer), ..path };
                let (flows, _, _) = path.run(vec![flow(1, START, BYTES)], &[]);
                let end = flows[0].complete_at.expect("it completes");
                let _ = write!(text, "{:>11.2} ", megabits(BYTES, end - START));
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}

/// DCTCP's queue marks at a part of its buffer (RFC 8257 §4.1); others' do not.
fn mark(algorithm: Algorithm, buffer: u64) -> u64 {
    if algorithm == Algorithm::Dctcp { (buffer / 5).max(15_000) } else { 0 }
}

/// Throughput of one flow over the bottleneck's buffer, and what it costs.
pub fn buffers() -> String {
    const BYTES: u64 = 4_000_000;
    let mut text = String::from(
        "One flow of 4 MB, 100 Mb/s, RTT 10 ms: a bandwidth-delay product of 125 kB.\n\
         Goodput in Mb/s; frames that the buffer had no room for, and that it marked; bytes sent again, in %\n\
         of the flow.\n\n\
         algorithm  buffer kB    Mb/s  overflows  marks  again %\n",
    );
    for (algorithm, name) in ALGORITHMS {
        for buffer in [8_000, 16_000, 32_000, 64_000, 128_000, 256_000] {
            let mark = mark(algorithm, buffer);
            let path =
                Path { algorithm, rate: 100, rtt: 10 * MS, buffer, loss: 0, mark, jitter: 0 };
            let (flows, done, again) = path.run(vec![flow(1, START, BYTES)], &[]);
            let end = flows[0].complete_at.expect("it completes");
            let _ = writeln!(
                text,
                "{name:9} {:>10} {:>7.2} {:>10} {:>6} {:>8.2}",
                buffer / 1000,
                megabits(BYTES, end - START),
                done[Done::Overflowed as usize],
                done[Done::Marked as usize],
                again as f64 * 100.0 / BYTES as f64
            );
        }
    }
    text
}

/// Shares of flows in one bottleneck.
pub fn fairness() -> String {
    let mut text = String::from(
        "Flows that begin 100 ms apart share 10 Mb/s, RTT 20 ms, buffer of one bandwidth-delay product\n\
         (25 kB), from second 4 to second 14. Jain's index; the least and the most share in Mb/s.\n\n\
         algorithm  flows   index    least     most    sum\n",
    );
    for (algorithm, name) in ALGORITHMS {
        for count in [2, 4, 8] {
            let path = Path {
                algorithm,
                rate: 10,
                rtt: 20 * MS,
                buffer: 0,
                loss: 0,
                mark: 0,
                jitter: 2 * MS,
            };
            let buffer = path.bdp();
            let path = Path { buffer, mark: mark(algorithm, buffer), ..path };
            let talks = (0..count).map(|n| flow(n, START + n * 100 * MS, 60_000_000)).collect();
            let (flows, _, _) = path.run(talks, &[4 * S, 14 * S]);
            let share = |flow: &Watched| megabits(flow.received[1] - flow.received[0], 10 * S);
            let shares: Vec<f64> = flows.iter().map(share).collect();
            let sum: f64 = shares.iter().sum();
            let squares: f64 = shares.iter().map(|share| share * share).sum();
            let _ = writeln!(
                text,
                "{name:9} {count:>6} {:>7.3} {:>8.2} {:>8.2} {sum:>6.2}",
                sum * sum / (count as f64 * squares),
                shares.iter().copied().fold(f64::MAX, f64::min),
                shares.iter().copied().fold(0.0, f64::max)
            );
        }
    }
    text
}

/// How long short flows take.
pub fn short_flows() -> String {
    const COUNT: u64 = 200;
    let mut text = String::from(
        "200 flows, one after the other at random, 20 ms apart on average, 100 Mb/s, RTT 10 ms, buffer of\n\
         one bandwidth-delay product. Milliseconds from SYN to the last byte read.\n\n\
         algorithm     kB  loss %      p50      p99      max\n",
    );
    for (algorithm, name) in ALGORITHMS {
        for bytes in [1_000, 10_000, 50_000] {
            for loss in [0, 100, 300] {
                let path = Path {
                    algorithm,
                    rate: 100,
                    rtt: 10 * MS,
                    buffer: 0,
                    loss,
                    mark: 0,
                    jitter: 0,
                };
                let buffer = path.bdp();
                let path = Path { buffer, mark: mark(algorithm, buffer), ..path };
                let mut rng = Rng::from_seed(bytes + loss);
                let mut start = START;
                let mut talks = Vec::new();
                for n in 0..COUNT {
                    talks.push(flow(n, start, bytes));
                    start += rng.below(40 * MS);
                }
                let (flows, _, _) = path.run(talks, &[]);
                let took = |flow: &Watched| flow.complete_at.map(|at| at - flow.talk.start);
                let mut took: Vec<Time> = flows.iter().filter_map(took).collect();
                assert_eq!(took.len() as u64, COUNT, "not all completed");
                took.sort_unstable();
                let at = |part: f64| took[(part * (COUNT - 1) as f64) as usize] as f64 / 1e6;
                let _ = writeln!(
                    text,
                    "{name:9} {:>6} {:>7.2} {:>8.2} {:>8.2} {:>8.2}",
                    bytes / 1000,
                    loss as f64 / 100.0,
                    at(0.5),
                    at(0.99),
                    at(1.0)
                );
            }
        }
    }
    text
}
