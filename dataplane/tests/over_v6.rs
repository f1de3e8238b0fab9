//! What is tested over IPv4, over IPv6: the same tests, compiled in a program of another name
//! (`support/family.rs`).
#[path = "engine/conversation.rs"]
mod conversation;
#[path = "engine/cookies.rs"]
mod cookies;
#[path = "engine/ecn.rs"]
mod ecn;
#[path = "engine/keep_alive.rs"]
mod keep_alive;
#[path = "engine/rfc5961.rs"]
mod rfc5961;
#[path = "engine/smoltcp_peer.rs"]
mod smoltcp_peer;
mod support;
#[path = "engine/time_wait.rs"]
mod time_wait;
#[path = "engine/timestamps.rs"]
mod timestamps;
