//! The driver against the model of the chip: conversations, opening and its failures, lies, a seeded run.
#![deny(unsafe_code)]

mod conformance;
mod diagnosis;
mod flow_control;
mod frames;
mod hostile;
mod link;
mod memory;
mod opening;
mod receive;
mod registers;
mod restart;
mod rig;
mod soak;
mod steering;
mod transmit;
mod vlan;
