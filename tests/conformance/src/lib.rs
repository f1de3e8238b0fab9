//! Conversations with the TCP engine, written as scripts.
//!
//! A script says what a peer sends (`<`), what the engine must send (`>`) and when, what the
//! application calls, and what it is told. The runner plays the peer, the wire, the clock and the
//! application; the engine is the real one under the real core loop, behind the real rings. The
//! language is described in `tests/conformance/README.md`.
//!
//! Besides what a script says, each segment of the engine is checked: its checksums (by smoltcp, which
//! shares nothing with the engine), its payload against the stream it belongs to, and timestamps
//! once they are negotiated. What no line of a script accounts for is an error.
#![deny(unsafe_code)]

#[allow(dead_code, unsafe_code, reason = "the engine's own tests have it, and use more of it")]
#[path = "../../../dataplane/tests/support/app.rs"]
mod rings;

#[allow(dead_code, unsafe_code, reason = "the engine's own tests have it, and use more of it")]
#[path = "../../../dataplane/tests/support/nic.rs"]
mod nic;

#[allow(dead_code, reason = "the engine's own tests have it, and use more of it")]
#[path = "../../../dataplane/tests/support/gso.rs"]
mod gso;

#[allow(dead_code, reason = "the engine's own tests have it, and use more of it")]
#[path = "../../../dataplane/tests/support/lro.rs"]
mod lro;

pub mod case;
mod conn;
pub mod failure;
mod frame;
mod options;
pub mod parse;
mod player;
pub mod run;
pub mod script;
pub mod settings;
mod station;
pub mod table;

pub use failure::Failure;
pub use run::run;
pub use script::Script;
