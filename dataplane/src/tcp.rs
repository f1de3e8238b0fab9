//! TCP (RFC 9293): the state machine of a connection, over the group that owns it.
//!
//! - [`wire`]: headers; [`seq`]: sequence numbers
//! - [`input`]: what a segment does, with [`acks`], [`receive`], [`reassembly`] and [`listen`]
//! - [`output`]: what a connection sends in the transmit stage, from [`send_queue`]
//! - [`timestamps`]: what they measure and protect
//! - [`timers`], [`rtt`], [`congestion`]
//! - [`close`]: all the ways in which a connection ends
pub mod acks;
pub mod close;
pub mod congestion;
pub mod input;
pub mod listen;
pub mod output;
pub mod reassembly;
pub mod receive;
pub mod rtt;
pub mod send_queue;
pub mod seq;
pub mod timers;
pub mod timestamps;
pub mod wire;
