//! Every script is a test of its own, over IPv4 and over IPv6: `build.rs` lists them.
use ix_conformance::case::case as run;
use ix_conformance::settings::Version;
use ix_conformance::{case, table};

include!(concat!(env!("OUT_DIR"), "/scripts.rs"));

/// The same conversations where the device sums, verifies and cuts: nothing on the wire is different.
#[test]
fn a_device_that_offloads_changes_nothing() {
    let known = case::known_failures();
    let mut complaints = Vec::new();
    for path in table::scripts() {
        let mut script = case::load(&path);
        script.settings.offload = true;
        script.settings.tso = 65_535;
        for version in script.settings.versions {
            let result = ix_conformance::run(&script, *version);
            let failing = known.iter().any(|(name, _)| name.trim_end_matches(":v6") == path);
            if let (Err(failure), false) = (result, failing) {
                complaints.push(failure.to_string());
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
