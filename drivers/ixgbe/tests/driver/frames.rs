//! The suite's frames, addressed to the model.
#![allow(dead_code, unused_imports, reason = "each user takes a part")]

use ix_driver_conformance::frames as suite;
pub use suite::{Flow, TCP, UDP, pseudo, sum, sum_field};

/// The model's address.
pub const MAC: [u8; 6] = [0x02, 0x82, 0x59, 0x90, 0, 1];

/// A frame with this payload, whose transport checksum is right.
pub fn frame(flow: Flow, payload: &[u8]) -> Vec<u8> {
    addressed(suite::frame(flow, payload))
}

/// The same with the pseudo-header's sum in the field.
pub fn without_sum(flow: Flow, payload: &[u8]) -> Vec<u8> {
    addressed(suite::without_sum(flow, payload))
}

fn addressed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[..6].copy_from_slice(&MAC);
    bytes
}
