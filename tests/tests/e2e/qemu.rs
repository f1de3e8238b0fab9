//! The versions of QEMU that must work: Debian 12's own 7.2, and a 10.x from the backports.
use crate::serves;
use ix_tests::need;
use ix_tests::tools::run;
use ix_tests::vm::Config;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn version(program: &Path) -> String {
    let done = run(Command::new(program).arg("--version"), Duration::from_secs(10));
    done.out.lines().next().unwrap_or_default().to_owned()
}

fn works(program: PathBuf) {
    let usual = need::usual_card("this QEMU has no vfio-user");
    let (Some(()), Some(built)) = (usual, need::built()) else { return };
    println!("{}", version(&program));
    let _machine = need::machine();
    for cores in [1, 2] {
        let vm = Config::new(&built, "kv")
            .cores(cores)
            .with("--qemu", program.clone())
            .forward("11211")
            .boot();
        serves(&vm);
    }
}

#[test]
fn qemu_7_2_boots_it() {
    match need::program("qemu-system-x86_64") {
        Some(program) if version(&program).contains("version 7.2.") => works(program),
        Some(program) => need::skip(&format!("the installed one is {}", version(&program))),
        None => need::skip("no qemu-system-x86_64 (Debian package qemu-system-x86)"),
    }
}

#[test]
fn qemu_10_boots_it() {
    let fetched = need::workspace().join("build/qemu-10/qemu-system-x86_64");
    let candidates = [Some(fetched), need::program("qemu-system-x86_64")];
    let found = candidates
        .into_iter()
        .flatten()
        .find(|program| program.is_file() && version(program).contains("version 10."));
    match found {
        Some(program) => works(program),
        None => need::skip("no QEMU 10: cargo xtask qemu --version 10 fetches it"),
    }
}
