//! Two tests for each script, named after its place: `scripts/rfc9293/abort.pkt` is `rfc9293::abort`, over
//! IPv4, and `rfc9293::abort_v6`.
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=scripts");
    println!("cargo::rerun-if-changed=build.rs");
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut code = String::new();
    for (folder, scripts) in folders(&root.join("scripts")) {
        let _ = writeln!(code, "mod {} {{", identifier(&folder));
        for script in scripts {
            let path = format!("{folder}/{script}.pkt");
            let text = std::fs::read_to_string(root.join("scripts").join(&path)).expect("a script");
            for (suffix, version) in versions(&text) {
                let name = identifier(&script) + suffix;
                let call = format!("super::run({path:?}, super::Version::{version})");
                let _ = writeln!(code, "    #[test]\n    fn {name}() {{ {call}; }}");
            }
        }
        code.push_str("}\n");
    }
    std::fs::write(out.join("scripts.rs"), code).expect("the tests are written");
}

/// Those of IP that a script is for: what its `--ip` says, else both.
fn versions(text: &str) -> &'static [(&'static str, &'static str)] {
    let both = &[("", "V4"), ("_v6", "V6")];
    let settings = text.lines().filter(|line| line.starts_with("--"));
    match settings.filter_map(|line| line.split_once("--ip ")).next() {
        Some((_, rest)) if rest.starts_with('4') => &both[..1],
        Some(_) => &both[1..],
        None => both,
    }
}

/// Each folder with the names of its scripts, in order.
fn folders(scripts: &Path) -> Vec<(String, Vec<String>)> {
    let mut folders: Vec<_> = entries(scripts).filter(|path| path.is_dir()).collect();
    folders.sort();
    let named = folders.into_iter().map(|folder| {
        let script = |path: PathBuf| Some(path.to_str()?.strip_suffix(".pkt")?.to_owned());
        let last = |path: String| path.rsplit('/').next().map(str::to_owned);
        let mut names: Vec<_> = entries(&folder).filter_map(script).filter_map(last).collect();
        names.sort();
        (last(folder.to_string_lossy().into_owned()).unwrap_or_default(), names)
    });
    named.collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let list = std::fs::read_dir(folder).expect("a folder of scripts");
    list.filter_map(|entry| Some(entry.ok()?.path()))
}

fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
