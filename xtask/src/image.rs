//! The boot images: the kernel, stripped, and one archive of applications and kernel symbols.
use crate::packages::{self, Package};
use crate::qemu;
use crate::workspace::{self, build_dir, cargo, target_dir};
use anyhow::{Context, Result, anyhow};
use ix_kernel_core::cmdline::NICTEST;
use ix_kernel_core::{archive, symbols};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The applications: packages of `apps/`, each with a freestanding program of the same name.
fn apps() -> Result<Vec<String>> {
    let dir = workspace::root().join("apps");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("no {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        if entry.path().join("src/main.rs").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds everything into `build/images`.
pub fn build() -> Result<()> {
    let apps = apps()?;
    // Packages by name, not the workspace: a host program's features must not reach the kernel.
    let mut build = cargo();
    build.args(["build", "--release", "-p", "ix-kernel"]).args(workspace::quiet());
    for app in &apps {
        build.args(["-p", app]);
    }
    workspace::run(&mut build)?;
    let images = build_dir().join("images");
    std::fs::create_dir_all(&images)
        .with_context(|| format!("cannot make {}", images.display()))?;
    let built = target_dir().join("release");
    let kernel = std::fs::read(built.join("ix-kernel")).context("cannot read the kernel")?;
    let table = symbols::build(&kernel).ok_or_else(|| anyhow!("the kernel has no symbols"))?;
    let mut members = vec![(symbols::MEMBER, table)];
    for app in &apps {
        members.push((app, stripped(&built.join(app))?));
    }
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, c)| (*n, c.as_slice())).collect();
    let packed = archive::build(&members).map_err(|e| anyhow!("cannot pack the archive: {e}"))?;
    workspace::write(&images.join("kernel"), &stripped(&built.join("ix-kernel"))?)?;
    workspace::write(&images.join("initrd"), &packed)?;
    // One more is in the kernel itself.
    let names = [apps.join("\n").as_str(), NICTEST, ""].join("\n");
    workspace::write(&images.join("apps"), names.as_bytes())
}

fn stripped(program: &Path) -> Result<Vec<u8>> {
    let copy = program.with_extension(format!("stripped-{}", std::process::id()));
    workspace::run(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    let bytes = std::fs::read(&copy).context("cannot read what strip wrote")?;
    std::fs::remove_file(&copy).context("cannot remove what strip wrote")?;
    Ok(bytes)
}

/// `cargo xtask run`: images, then `ixcp run` in this process's place, so that signals reach it.
pub fn run(args: &[OsString]) -> Result<()> {
    if asks_for_help(args) {
        // What prints it is all that is needed.
        build_programs(false)?;
        return start(args);
    }
    let own_qemu = args.iter().any(|a| a.to_string_lossy().starts_with("--qemu"));
    let ixgbe = asks_for_ixgbe(args);
    if !own_qemu {
        packages::install(&[Package::QEMU], true)?;
    }
    // Where `ixcp` finds it, unless it is the installed one.
    if ixgbe && !own_qemu {
        qemu::fetch_vfio_user()?;
    }
    eprintln!("xtask: building (release)");
    build()?;
    build_programs(ixgbe)?;
    start(args)
}

fn build_programs(ixgbe: bool) -> Result<()> {
    let mut programs = cargo();
    programs.args(["build", "--release", "-p", "ixcp"]).args(workspace::quiet());
    if ixgbe {
        programs.args(["-p", "ixgbe-vfio-user"]);
    }
    workspace::run(&mut programs)
}

/// `ixcp run` in this process's place; comes back only if that cannot be.
fn start(args: &[OsString]) -> Result<()> {
    let program = target_dir().join("release/ixcp");
    // Shown in what `ixcp` prints, so: as short as a person would type it.
    let shown = std::env::current_dir()
        .ok()
        .and_then(|here| program.strip_prefix(here).ok().map(|p| Path::new(".").join(p)));
    let error = Command::new(&program)
        .arg0(shown.as_ref().unwrap_or(&program))
        .arg("run")
        .args(args)
        .exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// The launcher's options: what stands before the application's own arguments.
fn launchers(args: &[OsString]) -> Vec<&OsString> {
    args.iter().take_while(|a| *a != "--").collect()
}

fn asks_for_help(args: &[OsString]) -> bool {
    launchers(args).into_iter().any(|a| a == "--help" || a == "-h")
}

/// `--nic ixgbe` or `--nic=ixgbe`.
fn asks_for_ixgbe(args: &[OsString]) -> bool {
    let own = launchers(args);
    own.iter().any(|a| *a == "--nic=ixgbe")
        || own.windows(2).any(|pair| pair[0] == "--nic" && pair[1] == "ixgbe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_and_help_are_looked_for_among_the_launchers_own_options() {
        let args = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let asks = |words: &[&str]| asks_for_ixgbe(&args(words));
        assert!(asks_for_help(&args(&["--cores", "2", "-h"])) && asks_for_help(&args(&["--help"])));
        assert!(!asks_for_help(&args(&["--app", "kv", "--", "-h"])) && !asks_for_help(&[]));
        assert!(asks(&["--cores", "2", "--nic", "ixgbe"]) && asks(&["--nic=ixgbe"]));
        assert!(!asks(&["--nic", "virtio"]) && !asks(&["--", "--nic", "ixgbe"]) && !asks(&[]));
    }
}
