//! What is tested over IPv4, over IPv6: the same tests, compiled in a program of another name
//! (`support/family.rs`).
#![allow(
    clippy::duplicate_mod,
    reason = "each has the support of its own that it has as a program"
)]

#[path = "conversation.rs"]
mod conversation;
#[path = "cookies.rs"]
mod cookies;
#[path = "ecn.rs"]
mod ecn;
#[path = "keep_alive.rs"]
mod keep_alive;
#[path = "rfc5961.rs"]
mod rfc5961;
#[path = "smoltcp_peer.rs"]
mod smoltcp_peer;
#[path = "time_wait.rs"]
mod time_wait;
#[path = "timestamps.rs"]
mod timestamps;
