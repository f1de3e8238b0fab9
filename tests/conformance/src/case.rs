//! Scripts as test cases: from the folder, with the list of those that are known to fail.
use crate::settings::Version;
use crate::{Script, parse, run};
use std::io::Write;
use std::path::PathBuf;

/// The folder of scripts.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Reads and parses the script at `path` in the folder. Panics with the reason.
pub fn load(path: &str) -> Script {
    let text = std::fs::read_to_string(folder().join(path)).expect("a script");
    parse::parse(path, &text).unwrap_or_else(|failure| panic!("{failure}"))
}

/// The scripts that show an open fault of the engine: path (with `:v6`: over IPv6 only) and reason, one
/// a line.
pub fn known_failures() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("KNOWN_FAILURES")).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let entry = |line: &str| {
        let (path, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (path.to_owned(), reason.trim().to_owned())
    };
    lines.map(entry).collect()
}

/// Runs the script at `path` over a version of IP. One that is listed as failing must fail, and says so
/// past the test harness's capture.
pub fn case(path: &str, version: Version) {
    let script = load(path);
    let result = run(&script, version);
    let name = name(path, version);
    let known = known_failures().into_iter().find(|(known, _)| known == path || *known == name);
    match (result, known) {
        (Ok(()), None) => {}
        (Err(failure), None) => panic!("\n{failure}"),
        (Ok(()), Some(_)) => panic!("{name} passes: take it off KNOWN_FAILURES"),
        (Err(failure), Some((_, why))) => {
            println!("{failure}");
            let line = format!("KNOWN FAILURE {name}: {why}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// The path, with `:v6` over IPv6.
fn name(path: &str, version: Version) -> String {
    match version {
        Version::V4 => path.to_owned(),
        Version::V6 => format!("{path}:v6"),
    }
}
