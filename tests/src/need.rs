//! What a test needs and the machine may not have. Missing means a line `SKIPPED name: reason` on
//! standard error, past the test harness's capture; it is never silently green.
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Says that the running test is skipped.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    // One write, so that no other output comes in between.
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A machine with the usual card; `None` after saying SKIPPED where `IX_RUN_ARGS` asks for another one (`cargo xtask prove
/// e2e-ixgbe`), with which the test cannot be for this reason.
pub fn usual_card(reason: &str) -> Option<()> {
    if std::env::var("IX_RUN_ARGS").is_ok_and(|args| args.contains("--nic")) {
        skip(&format!("not on another card: {reason}"));
        return None;
    }
    Some(())
}

/// The same, for machines whose instructions are counted.
pub fn countable() -> Option<()> {
    usual_card("a card of another program has no place in counted time (QEMU: Bad icount read)")
}

/// The workspace.
pub fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// The boot images' directory and `ixcp`, as `cargo xtask image` leaves them.
#[derive(Clone, Debug)]
pub struct Built {
    /// Directory of kernel and initrd.
    pub images: PathBuf,
    /// The control program.
    pub ixcp: PathBuf,
}

/// Images and tools; `None` after saying SKIPPED. Within `cargo xtask test` they must be there.
pub fn built() -> Option<Built> {
    let root = workspace();
    let images = std::env::var_os("IX_IMAGES").map_or(root.join("build/images"), PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |d| root.join(d));
    let ixcp = std::env::var_os("IX_IXCP").map_or(target.join("release/ixcp"), PathBuf::from);
    let missing = [images.join("kernel"), images.join("initrd"), ixcp.clone()];
    if let Some(path) = missing.iter().find(|p| !p.is_file()) {
        let reason = format!("{} is missing: cargo xtask test builds it", path.display());
        assert!(std::env::var_os("IX_NEED_IMAGES").is_none(), "{reason}");
        skip(&reason);
        return None;
    }
    if program("qemu-system-x86_64").is_none() {
        skip("no qemu-system-x86_64 (Debian package qemu-system-x86)");
        return None;
    }
    Some(Built { images, ixcp })
}

/// The image for real machines; `None` after saying SKIPPED. Where it can be made, `cargo xtask test` must
/// have made it.
pub fn iso() -> Option<PathBuf> {
    let images = built()?.images;
    let iso = images.join("ix.iso");
    if iso.is_file() {
        return Some(iso);
    }
    let makers = [("grub-mkrescue", "grub-common"), ("xorriso", "xorriso"), ("mformat", "mtools")];
    let lacking = makers.iter().find(|(name, _)| program(name).is_none());
    let reason = match lacking {
        Some((name, package)) => {
            format!("no {name} (Debian package {package}) to make an ISO with")
        }
        None => format!("{} is missing: cargo xtask iso makes it", iso.display()),
    };
    let can = lacking.is_none() && std::env::var_os("IX_NEED_IMAGES").is_some();
    assert!(!can, "{reason}");
    skip(&reason);
    None
}

/// Finds a program, also where only root's search path looks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// Finds a program; says SKIPPED with the package if it is missing.
pub fn tool(names: &[&str], package: &str) -> Option<PathBuf> {
    let found = names.iter().find_map(|name| program(name));
    if found.is_none() {
        skip(&format!("no {} (Debian package {package})", names.join(" or ")));
    }
    found
}

/// Root's rights.
pub fn root() -> Option<()> {
    if nix::unistd::geteuid().is_root() {
        return Some(());
    }
    skip("needs root (it makes a TAP interface)");
    None
}

/// One machine at a time: two cores are not enough for more, and times would mean nothing.
pub fn machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the long variant of a test is wanted (`cargo xtask prove`).
pub fn prove() -> bool {
    std::env::var_os("IX_PROVE").is_some()
}
