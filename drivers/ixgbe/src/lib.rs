//! The Intel 82599 for the IX dataplane.
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]
