//! What the tests share. Not every test uses all of it.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod client;
pub mod memcached;
pub mod rng;
pub mod script;
pub mod server;
