//! Every script is a test of its own, over IPv4 and over IPv6: `build.rs` lists them.
use ix_conformance::case::case as run;
use ix_conformance::settings::Version;

include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
