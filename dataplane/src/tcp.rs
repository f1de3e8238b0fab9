//! TCP (RFC 9293): the state machine of a connection, over the group that owns it.
//!
//! - [`wire`]: headers; [`seq`]: sequence numbers
//! - [`input`]: what a segment does, with [`acks`], [`receive`], [`crumbs`], [`reassembly`] and [`listen`]
//! - [`output`]: what a connection sends in the transmit stage, from [`send_queue`], and how [`gso`] makes
//!   large frames
//! - [`sent`]: what is under way; [`recovery`], [`sack`] and [`rack`]: how losses are found and
//!   repaired
//! - [`blocks`]: what the peer is told to have arrived out of order
//! - [`timestamps`]: what they measure and protect
//! - [`timers`], [`rtt`], [`congestion`], [`ecn`]
//! - [`pmtu`], [`reports`]: what the path takes, and what routers say
//! - [`stateless`], [`cookie`]: handshakes of which nothing is kept; [`challenge`]: what may be an attack
//! - [`close`]: all the ways in which a connection ends; [`time_wait`], [`keep_alive`]
pub mod acks;
pub mod blocks;
pub mod challenge;
pub mod close;
pub mod congestion;
pub mod cookie;
pub mod crumbs;
pub mod ecn;
pub mod gso;
pub mod input;
pub mod keep_alive;
pub mod listen;
pub mod output;
pub mod pmtu;
pub mod rack;
pub mod reassembly;
pub mod receive;
pub mod recovery;
pub mod repair;
pub mod reports;
pub mod rtt;
pub mod sack;
pub mod send_queue;
pub mod sent;
pub mod seq;
pub mod stateless;
pub mod time_wait;
pub mod timers;
pub mod timestamps;
pub mod wire;
