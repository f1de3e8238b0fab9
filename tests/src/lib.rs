//! What the end-to-end tests are made of: booted machines ([`vm`]), a network peer in Rust
//! ([`peer`]), clients of real programs ([`tools`]), and the words for what is not there ([`need`]).
#![deny(unsafe_code)]

pub mod need;
pub mod peer;
pub mod tap;
pub mod tools;
pub mod vm;
