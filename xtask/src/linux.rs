//! A Linux guest in `build/linux`: the kernel of the distribution's cloud images, fetched and unpacked without root,
//! and an archive with the modules of a virtio network card and one static program, which is all its user space.
use crate::cpio::Archive;
use crate::packages::codename;
use crate::qemu;
use crate::workspace::{self, build_dir, cargo, output, target_dir};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that names the newest kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// In the order of their needs; those that a kernel has built in are not there.
const MODULES: [&str; 8] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];
/// What the program is built for: named, so that its flags are not those of everything else.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Fetches the kernel unless it is there, and builds the archive; gives the directory.
pub fn build() -> Result<PathBuf> {
    let dir = build_dir().join("linux");
    if !dir.join("vmlinuz").is_file() {
        fetch(&dir)?;
    }
    let archive = archive(&dir.join("modules"), &std::fs::read(program()?)?)?;
    workspace::write(&dir.join("initrd"), &archive)?;
    Ok(dir)
}

/// Kernel and modules, under names that do not change with its version.
fn fetch(dir: &Path) -> Result<()> {
    let codename = codename()?;
    println!("xtask: fetching the newest kernel of {codename} into {}", dir.display());
    let _ = std::fs::remove_dir_all(dir);
    qemu::unpack_newest(dir, &[&codename], PACKAGE)?;
    let root = dir.join("root");
    let modules = dir.join("modules");
    std::fs::create_dir_all(&modules)?;
    let files = files_below(&root)?;
    for name in MODULES {
        if let Some(path) = files.iter().find(|p| module_name(p) == Some(name)) {
            std::fs::write(modules.join(name), unpacked(path)?)?;
        }
    }
    let named =
        |p: &&PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"));
    let kernel = files.iter().find(named).context("the package has no kernel")?;
    std::fs::copy(kernel, dir.join("vmlinuz"))?;
    Ok(std::fs::remove_dir_all(root)?)
}

/// `virtio_net` of `…/virtio_net.ko` or `….ko.xz`; the kernel takes both characters for the same.
fn module_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))
}

/// A module as the kernel loads it.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|e| e == "xz") {
        let done = Command::new("xz").arg("-dc").arg(path).output().context("cannot start xz")?;
        ensure!(done.status.success(), "xz cannot unpack {}", path.display());
        return Ok(done.stdout);
    }
    Ok(std::fs::read(path)?)
}

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

/// The guest's only program, linked with the static C library: the guest has no other.
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

fn archive(modules: &Path, program: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "modules"] {
        archive.directory(dir);
    }
    archive.device("dev/console", 5, 1);
    for (i, name) in MODULES.iter().enumerate() {
        if let Ok(bytes) = std::fs::read(modules.join(name)) {
            archive.file(&format!("modules/{i}-{name}.ko"), &bytes);
        }
    }
    archive.file("init", program);
    Ok(archive.finish())
}
