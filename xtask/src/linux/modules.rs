//! Modules of a kernel, with those that they need, in an order in which they can be loaded.
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies modules, and all that they need, out of a kernel's files.
pub fn copy(roots: &[&str], files: &[PathBuf], to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let find = |name: &str| -> Result<Option<Vec<u8>>> {
        files.iter().find(|p| name_of(p).as_deref() == Some(name)).map(|p| unpacked(p)).transpose()
    };
    for (name, bytes) in closure(roots, find)? {
        std::fs::write(to.join(name), bytes)?;
    }
    Ok(())
}

/// Those that were copied, in the order of their needs.
pub fn load(roots: &[&str], from: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    closure(roots, |name| Ok(std::fs::read(from.join(name)).ok()))
}

/// What a module needs comes before it. Those that are not found are built into the kernel.
fn closure(
    roots: &[&str],
    find: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<(String, Vec<u8>)>> {
    fn add(
        name: &str,
        find: &dyn Fn(&str) -> Result<Option<Vec<u8>>>,
        done: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        if done.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let Some(bytes) = find(name)? else { return Ok(()) };
        for need in needs(&bytes) {
            add(&need, find, done)?;
        }
        done.push((name.to_owned(), bytes));
        Ok(())
    }
    let mut done = Vec::new();
    for root in roots {
        add(root, &find, &mut done)?;
    }
    Ok(done)
}

/// A module says what it needs in its section `.modinfo`, as `depends=a,b`.
fn needs(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(at) = module.windows(MARK.len()).position(|w| w == MARK) else { return Vec::new() };
    let rest = &module[at + MARK.len()..];
    let list = rest.split(|b| *b == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(list);
    names.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

/// `virtio_net` of `…/virtio_net.ko` or `….ko.xz`; the kernel takes `-` and `_` for the same.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let find = |name: &str| {
            let needs = match name {
                "a" => "b,c-d",
                "b" => "c_d",
                "c_d" => "built_in",
                _ => return Ok(None),
            };
            Ok(Some(format!("ELF\0license=GPL\0depends={needs}\0name={name}\0").into_bytes()))
        };
        let names: Vec<String> =
            closure(&["a", "b"], find).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["c_d", "b", "a"]);
    }
}
