//! Programs of the distribution for a guest, with the libraries that they are linked with.
use crate::cpio::Archive;
use crate::qemu;
use crate::workspace::output;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a release has its libraries; those since trixie have merged the first into the second.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// What the kernel starts a program by.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Fetches packages with all that they need into `dir/root`.
pub fn fetch(codename: &str, packages: &[&str], dir: &Path) -> Result<()> {
    qemu::unpack(dir, &[codename], packages)
}

/// Puts programs into `/bin`, and what they are linked with where it is looked for.
pub fn add(archive: &mut Archive, root: &Path, programs: &[&str]) -> Result<()> {
    for dir in ["bin", "lib", "lib64", LIBRARIES[0]] {
        archive.directory(dir);
    }
    let mut libraries = BTreeMap::new();
    for program in programs {
        let path = in_root(root, program)?;
        let name = path.file_name().context("a program has a name")?.to_string_lossy();
        archive.file(&format!("bin/{name}"), &std::fs::read(&path)?);
        needs(root, &path, &mut libraries)?;
    }
    for (name, path) in &libraries {
        archive.file(&format!("{}/{name}", LIBRARIES[0]), &std::fs::read(path)?);
    }
    if let Some(loader) = libraries.get(LOADER) {
        archive.file(&format!("lib64/{LOADER}"), &std::fs::read(loader)?);
    }
    Ok(())
}

/// A program may have moved from `bin` to `usr/bin`, as it has in releases since trixie.
fn in_root(root: &Path, program: &str) -> Result<PathBuf> {
    let merged = Path::new("usr").join(program);
    let places = [root.join(program), root.join(merged)];
    let found = places.into_iter().find(|p| p.is_file());
    found.with_context(|| format!("the packages have no {program}"))
}

fn needs(root: &Path, file: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let text = output(Command::new("readelf").arg("-d").arg(file))?;
    for line in text.lines().filter(|line| line.contains("(NEEDED)")) {
        let Some(name) = line.split(['[', ']']).nth(1) else { continue };
        if found.contains_key(name) {
            continue;
        }
        let places = LIBRARIES.map(|dir| root.join(dir).join(name));
        let path = places.into_iter().find(|p| p.is_file());
        let path = path.with_context(|| format!("the packages have no {name}"))?;
        found.insert(name.to_owned(), path.clone());
        needs(root, &path, found)?;
    }
    Ok(())
}
