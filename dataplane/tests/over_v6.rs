//! What is tested over IPv4, over IPv6: the same tests, compiled in a program of another name
//! (`support/family.rs`).
#[path = "conversation.rs"]
mod conversation;
#[path = "ecn.rs"]
mod ecn;
#[path = "smoltcp_peer.rs"]
mod smoltcp_peer;
#[path = "timestamps.rs"]
mod timestamps;
