//! Linux guests, of the distribution's kernels, fetched and unpacked without root: an archive with the modules of a network
//! card and one static program of ours, which is `/init`. One has a virtio card and nothing else (`build/linux`); one has an
//! Intel 82599 and some programs of the distribution that look at it (`build/linux-ixgbe`).
use crate::cpio::Archive;
use crate::packages::codename;
use crate::qemu;
use crate::workspace::{self, build_dir, cargo, output, target_dir};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

mod modules;
mod programs;

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// Its directory below `build`.
    directory: &'static str,
    /// The package that names the newest kernel of its kind.
    package: &'static str,
    /// What it loads, with all that these need; those that a kernel has built in are not there.
    modules: &'static [&'static str],
    /// Packages of programs, and where these are in them.
    packages: &'static [&'static str],
    programs: &'static [&'static str],
}

/// The kernel for virtual machines, with a virtio card.
pub const VIRTIO: Guest = Guest {
    directory: "linux",
    package: "linux-image-cloud-amd64",
    modules: &["virtio_pci", "virtio_net"],
    packages: &[],
    programs: &[],
};

/// The kernel for all machines, since the other one has no driver for an 82599.
pub const IXGBE: Guest = Guest {
    directory: "linux-ixgbe",
    package: "linux-image-amd64",
    modules: &["ixgbe", "8021q"],
    packages: &["busybox-static", "ethtool", "iperf3"],
    programs: &["bin/busybox", "sbin/ethtool", "usr/bin/iperf3"],
};

/// The file that says which modules were fetched.
const HAS: &str = "modules.fetched";

/// What the program is built for: named, so that its flags are not those of everything else.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Fetches a guest's kernel and programs unless they are there, and builds the archive; gives the directory.
pub fn build(guest: &Guest) -> Result<PathBuf> {
    let dir = build_dir().join(guest.directory);
    // Fetched when it had other modules, it lacks some.
    let has = std::fs::read_to_string(dir.join(HAS)).unwrap_or_default();
    if !dir.join("vmlinuz").is_file() || has != guest.modules.join(" ") {
        fetch(guest, &dir)?;
    }
    let archive = archive(guest, &dir, &std::fs::read(program()?)?)?;
    workspace::write(&dir.join("initrd"), &archive)?;
    Ok(dir)
}

/// Kernel, modules and programs, under names that do not change with its version.
fn fetch(guest: &Guest, dir: &Path) -> Result<()> {
    let codename = codename()?;
    let package = guest.package;
    eprintln!("xtask: fetching the newest {package} of {codename} into {}", dir.display());
    let _ = std::fs::remove_dir_all(dir);
    qemu::unpack_newest(dir, &[&codename], package)?;
    let root = dir.join("root");
    let files = files_below(&root)?;
    modules::copy(guest.modules, &files, &dir.join("modules"))?;
    let named =
        |p: &&PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"));
    let kernel = files.iter().find(named).context("the package has no kernel")?.clone();
    if !guest.packages.is_empty() {
        programs::fetch(&codename, guest.packages, &dir.join("programs"))?;
    }
    // Last: its being there says that all is.
    std::fs::write(dir.join(HAS), guest.modules.join(" "))?;
    std::fs::copy(kernel, dir.join("vmlinuz"))?;
    Ok(std::fs::remove_dir_all(root)?)
}

/// All files, links left out.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => dirs.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// The guest's `/init`, linked with the static C library.
fn program() -> Result<PathBuf> {
    const PACKAGE: &str = "ix-linux-guest";
    let mut build = cargo();
    build.args(["build", "--release", "-p", PACKAGE, "--target", TARGET]).args(workspace::quiet());
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    workspace::run(&mut build)?;
    let program = target_dir().join(TARGET).join("release/linux-guest-init");
    let described = output(Command::new("readelf").arg("-l").arg(&program))?;
    if described.contains("INTERP") {
        bail!("{} is not static: the C library's package has no libc.a", program.display());
    }
    Ok(program)
}

fn archive(guest: &Guest, dir: &Path, program: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "sys", "tmp", "modules"] {
        archive.directory(dir);
    }
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.device("dev/urandom", 1, 9);
    for (i, (name, bytes)) in modules::load(guest.modules, &dir.join("modules"))?.iter().enumerate()
    {
        archive.file(&format!("modules/{i:02}-{name}.ko"), bytes);
    }
    if !guest.programs.is_empty() {
        programs::add(&mut archive, &dir.join("programs/root"), guest.programs)?;
    }
    archive.file("init", program);
    Ok(archive.finish())
}
