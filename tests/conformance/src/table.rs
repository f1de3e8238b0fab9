//! The table of `docs/tcp.md`: what the engine does, by whom it is asked for, which script shows it.
use crate::case;
use std::fmt::Write;

/// Every script's path in the folder, in order.
pub fn scripts() -> Vec<String> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(case::folder()).expect("a folder").flatten() {
        let Ok(files) = std::fs::read_dir(folder.path()) else { continue };
        for file in files.flatten() {
            let path = file.path();
            let relative = path.strip_prefix(case::folder()).expect("within the folder");
            let relative = relative.to_string_lossy().into_owned();
            if relative.ends_with(".pkt") {
                found.push(relative);
            }
        }
    }
    found.sort();
    found
}

/// The table's lines.
pub fn table() -> String {
    let mut text = String::from("| behaviour | asked for by | script |\n|---|---|---|\n");
    let known = case::known_failures();
    for path in scripts() {
        let script = case::load(&path);
        let mark = if known.iter().any(|(name, _)| name.trim_end_matches(":v6") == path) {
            " (fails)"
        } else {
            ""
        };
        for claim in &script.claims {
            let name = path.strip_suffix(".pkt").unwrap_or(&path);
            let _ = writeln!(text, "| {} | {} | `{name}`{mark} |", claim.behaviour, claim.source);
        }
    }
    text
}
