//! 100,000 mixed operations, many of them malformed, answered as stock memcached answers them.
mod common;

use common::memcached::Memcached;
use common::script::{self, Address, Mismatch};
use common::server::Server;

const OPERATIONS: usize = 100_000;

#[test]
fn a_script_of_100_000_operations_is_answered_as_memcached_answers_it() {
    let memcached = match Memcached::start(1024) {
        Ok(memcached) => memcached,
        Err(why) => {
            return common::skip(&why);
        }
    };
    // Another server can be named: one that runs on IX, for instance.
    let address = match std::env::var("KV_SCRIPT_SERVER") {
        Ok(named) => {
            let tcp = named.parse().expect("KV_SCRIPT_SERVER is ADDRESS:PORT");
            Address { tcp, udp: None }
        }
        Err(_) => {
            let server = Server::start(256 << 20);
            Address { tcp: server.address, udp: server.udp }
        }
    };
    let reference = Address { tcp: memcached.address, udp: Some(memcached.address) };
    let seed = std::env::var("KV_SCRIPT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    match script::compare(&address, &reference, seed, OPERATIONS) {
        Ok(report) => {
            println!("{report:#?}");
            for answer in [
                "STORED",
                "NOT_STORED",
                "EXISTS",
                "NOT_FOUND",
                "DELETED",
                "TOUCHED",
                "VA",
                "HD",
                "EN",
                "NF",
                "NS",
                "EX",
                "ME",
            ] {
                assert!(report.answers.contains_key(answer), "{answer} never came");
            }
        }
        Err(Mismatch { seed, operation, request, ours, reference }) => panic!(
            "seed {seed}, after {operation} operations\nrequest:   {request}\nours:      {ours}\nmemcached: {reference}"
        ),
    }
}
