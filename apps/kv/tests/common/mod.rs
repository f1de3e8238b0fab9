//! What the tests share. Not every test uses all of it.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod client;
pub mod linear;
pub mod memcached;
pub mod rng;
pub mod script;
pub mod server;

/// Says that the running test is skipped, past the test harness's capture.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("?"));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
