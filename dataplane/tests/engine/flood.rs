//! Nonsense by seed, most of it for the port that is served: what it leaves behind ends by time, on
//! every core.
use crate::support::apps::Echo;
use crate::support::station::{Setup, Station};
use ix_abi::stats::{Counter, Drop as Reason};
use ix_dataplane::checksum;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::{Duration, Instant};

/// A frame to the station: TCP, UDP or ICMP from some neighbour, more or less right.
fn nonsense(rng: &mut Rng) -> Vec<u8> {
    let protocol = [6, 6, 17, 1][rng.below(4) as usize];
    let payload = 8 + rng.below(200) as usize;
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend(((20 + payload) as u16).to_be_bytes());
    f.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, rng.next_u32() as u8, 10, 0, 0, 1]);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend((0..payload).map(|_| rng.next_u32() as u8));
    if protocol != 1 && rng.below(5) != 0 {
        f[36..38].copy_from_slice(&[0, 7]);
    }
    let field = match protocol {
        6 => 50,
        17 => 40,
        _ => 36,
    };
    if protocol == 17 {
        f[38..40].copy_from_slice(&(payload as u16).to_be_bytes());
    }
    if f.len() > field + 2 && rng.below(10) != 0 {
        f[field..field + 2].fill(0);
        let from = [10, 0, 0, f[29]];
        let pseudo = checksum::pseudo_v4(from, [10, 0, 0, 1], protocol, payload as u16);
        let pseudo = if protocol == 1 { 0 } else { pseudo };
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[34..])));
        f[field..field + 2].copy_from_slice(&sum);
    }
    f
}

#[test]
fn half_open_connections_of_a_flood_end_by_time_on_every_core() {
    for seed in 1..=4 {
        let mut setup = Setup::new(1);
        setup.cores = 2;
        setup.buffers = 4096;
        setup.groups = 128;
        let mut station = Station::new(setup);
        station.start(vec![Box::new(Echo::new(7)), Box::new(Echo::new(7))]);
        let mut rng = Rng::from_seed(seed);
        let mut now = Instant(1_000_000);
        let mut most = 0;
        for ms in 0..100_000_u64 {
            now = now + Duration::from_ms(1);
            if ms < 4_000 {
                for _ in 0..3 {
                    let frame = nonsense(&mut rng);
                    station.machines[0].rx[0].inbox.push_back(frame);
                }
            }
            for _ in 0..3 {
                station.step(now);
            }
            for machine in &mut station.machines {
                machine.tx.outbox.clear();
            }
            most = most.max(station.count(Counter::TcpConnections));
        }
        let left: Vec<u64> =
            station.engines.iter().map(|e| e.stats().get(Counter::TcpConnections)).collect();
        assert!(most > 30, "{most}");
        assert!(station.dropped(Reason::ArpTimeout) > 100);
        assert_eq!(left, [0, 0], "seed {seed}, of {most}");
    }
}
