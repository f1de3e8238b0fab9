//! A key-value store with memcached's text protocol, for IX.
//!
//! [`store`] is shared by all cores; a [`conn::Conn`] is one client's parser and reply queue; a
//! [`worker::Worker`] is what one core brings along. No I/O, no clock, no threads here: received
//! bytes and the time come in as arguments, replies go out as a list of memory pieces
//! ([`out::Out`]), so that the same code runs on IX and under the tests on a host. [`app`] joins all
//! that to libix; [`start`] is how a program of it begins.
#![no_std]
#![deny(unsafe_code, missing_docs)]

extern crate alloc;

pub mod app;
pub mod base64;
pub mod clients;
pub mod conn;
pub mod crawler;
pub mod limits;
pub mod num;
mod options;
pub mod out;
mod scan;
pub mod start;
pub mod store;
pub mod time;
pub mod worker;
