//! The driver against a device in software: conversations, errors at opening, a device that lies
//! by seed, a device on another thread.
#![deny(unsafe_code)]

mod conformance;
mod fake;
mod hostile;
mod opening;
mod receive;
mod restart;
mod rig;
mod steering;
mod threads;
mod transmit;
