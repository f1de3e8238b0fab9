use super::*;
use ix_dataplane::rng::Rng;
use ix_dataplane::rss::{Toeplitz, draw_key};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};

/// Whatever key was drawn, and from whatever row.
#[test]
fn few_ports_of_a_row_reach_every_queue_and_all_of_them_alike() {
    for seed in 0..2_000 {
        let mut rng = Rng::from_seed(seed);
        let toeplitz = Toeplitz::new(&draw_key(|bytes| rng.fill(bytes)));
        let spread = Spread { row: seed as u16, taken: 0 };
        let queues: Vec<u32> = offsets()
            .map(|offset| {
                let port = spread.port(0, offset);
                toeplitz.hash_v4([10, 0, 2, 2], [10, 0, 2, 15], port, 11211)
            })
            .into();
        for (count, enough) in [(2, 7), (4, 22), (8, 42), (16, 64)] {
            let connections = |queue: u32, of: &[u32]| -> usize {
                of.iter().filter(|hash| **hash % count == queue).count()
            };
            for queue in 0..count {
                assert!(connections(queue, &queues[..enough]) > 0, "seed {seed}, {count} queues");
                assert_eq!(connections(queue, &queues), IN_A_ROW / count as usize, "seed {seed}");
            }
        }
    }
}

#[test]
fn each_connection_has_a_port_of_its_own_and_one_that_is_taken_is_passed_over() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let Ok(SocketAddr::V4(to)) = listener.local_addr() else { panic!("bound to IPv4") };
    // In the last row, behind which is the first.
    let mut spread = Spread { row: (PORTS.end - PORTS.start) / ROW - 1, taken: 0 };
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, spread.port(0, 0)));
    let all: Vec<_> = (0..100).map(|_| spread.connect(to).expect("connects")).collect();
    let ports = all.iter().map(|stream| stream.local_addr().expect("bound").port());
    let ports: BTreeSet<u16> = ports.collect();
    assert!(ports.len() == 100 && ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    if let Ok(taken) = taken {
        assert!(!ports.contains(&taken.local_addr().expect("bound").port()));
    }
}
