//! What the end-to-end tests are made of: booted machines ([`vm`]), a network peer in Rust
//! ([`peer`]), a Linux guest ([`linux`]), also with an Intel 82599 ([`ixgbe`]), and a bridge that joins machines ([`bridge`]), clients of real programs ([`tools`]), seeded simulation of whole engines ([`sim`]), and the words for what is not there ([`need`]).
#![deny(unsafe_code)]

pub mod bare;
pub mod bochs;
pub mod bridge;
pub mod ixgbe;
pub mod linux;
pub mod monitor;
pub mod need;
pub mod peer;
pub mod sim;
pub mod spread;
pub mod tap;
pub mod tools;
pub mod vm;
