//! The door for libFuzzer: runs the target that `IX_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("IX_FUZZ_TARGET").expect("IX_FUZZ_TARGET names the target");
        let target = ix_fuzz::target(&name).unwrap_or_else(|| panic!("no target {name}"));
        TARGET.set(target.run).expect("initialised once");
    },
    |data: &[u8]| (TARGET.get().expect("initialised"))(data)
);
