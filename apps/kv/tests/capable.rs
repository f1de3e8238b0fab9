//! libmemcached's own test of a server, against the library behind a socket.
mod common;

use common::memcached::Memcached;
use common::server::Server;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

/// The tests by name, and whether they passed.
fn run(address: SocketAddr) -> Result<BTreeMap<String, bool>, String> {
    let output = Command::new("memccapable")
        .args(["-a", "-t", "5", "-h", "127.0.0.1", "-p", &address.port().to_string()])
        .output()
        .map_err(|error| format!("memccapable does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = text.lines().filter_map(|line| {
        let (name, outcome) = line.rsplit_once('[')?;
        Some((name.trim().to_string(), outcome == "pass]"))
    });
    Ok(tests.collect())
}

#[test]
fn memccapable_passes_what_memcached_passes() {
    let server = Server::start(64 << 20);
    let ours = match run(server.address) {
        Ok(ours) => ours,
        Err(why) => {
            return common::skip(&why);
        }
    };
    assert!(ours.len() >= 27, "only these tests ran: {ours:?}");
    let expected = match Memcached::start(64) {
        Ok(memcached) => run(memcached.address).expect("it ran a moment ago"),
        Err(why) => {
            println!("all must pass, because {why}");
            ours.keys().map(|name| (name.clone(), true)).collect()
        }
    };
    for (name, passes) in expected {
        assert!(!passes || ours.get(&name) == Some(&true), "{name} does not pass");
    }
}
