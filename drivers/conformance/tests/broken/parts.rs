//! Queues and control part with their defects.
mod control;
mod receive;
mod transmit;

pub use control::{BrokenControl, Proof};
pub use receive::BrokenRx;
pub use transmit::BrokenTx;
