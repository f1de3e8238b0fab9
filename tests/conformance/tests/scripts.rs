//! Every script is a test of its own: `build.rs` lists them.
use ix_conformance::case::case as run;

include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
