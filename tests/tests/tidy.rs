//! Properties of the source itself: what the compiler does not check and readers rely on.
use ix_tests::need::workspace;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Lines of one source file.
const LINES_MAX: usize = 700;
/// The comment that argues for an exception begins at most so many lines above it.
const SAFETY_LINES: usize = 12;
/// Written in two parts, or this file would have to list itself.
const UNSAFE: &str = concat!("un", "safe");

/// A file of the repository.
struct File {
    path: String,
    text: String,
}

/// Every text file that git knows or that is new and not ignored.
fn files() -> Vec<File> {
    let root = workspace();
    let list = Command::new("git")
        .current_dir(&root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git runs");
    assert!(list.status.success(), "git: {}", String::from_utf8_lossy(&list.stderr));
    let names = String::from_utf8(list.stdout).expect("names are text");
    let mut files = Vec::new();
    for name in names.split('\0').filter(|n| !n.is_empty()) {
        if let Ok(text) = std::fs::read_to_string(root.join(name)) {
            files.push(File { path: name.to_owned(), text });
        }
    }
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

fn has_extension(file: &File, wanted: &[&str]) -> bool {
    let extension = Path::new(&file.path).extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| wanted.contains(&e))
}

fn rust_files() -> Vec<File> {
    files().into_iter().filter(|f| has_extension(f, &["rs"])).collect()
}

/// A line without its comment. Good enough for code that rustfmt has laid out: the sources have no
/// string with two slashes after which code that matters here follows.
fn code(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

fn has_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next())
    })
}

#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_unsafe_inventory_names_exactly_the_files_that_need_it() {
    let files = rust_files();
    let found: BTreeSet<&str> = files
        .iter()
        .filter(|f| f.text.lines().any(|line| has_word(code(line), UNSAFE)))
        .map(|f| f.path.as_str())
        .collect();
    let name = format!("docs/{UNSAFE}.md");
    let inventory = std::fs::read_to_string(workspace().join(&name)).expect("an inventory");
    let rows = inventory.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<&str> = rows.collect();
    let missing = found.difference(&listed).map(|f| format!("{name} lacks a row for {f}"));
    let stale = listed.difference(&found).map(|f| format!("{name} lists {f} in vain"));
    none(&missing.chain(stale).collect::<Vec<_>>());
}

#[test]
fn every_unsafe_block_and_impl_is_argued_for() {
    let mut complaints = Vec::new();
    // Clippy asks for a comment somewhere; in what ships it also has to be near. Programs that
    // misbehave on purpose argue once for all.
    let ships = |f: &File| f.path.contains("src/") && !f.path.contains("tests");
    for file in rust_files().into_iter().filter(ships) {
        let mut argued = None;
        for (i, line) in file.text.lines().enumerate() {
            if line.contains("SAFETY:") || line.contains("# Safety") {
                argued = Some(i);
            }
            let code = code(line);
            let needs =
                [" {", " impl"].iter().any(|after| code.contains(&format!("{UNSAFE}{after}")));
            if needs && argued.is_none_or(|at| i - at > SAFETY_LINES) {
                complaints.push(format!("{}:{}: no SAFETY comment above", file.path, i + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn no_file_is_too_long_to_be_one_idea() {
    let sources = files().into_iter().filter(|f| has_extension(f, &["rs", "s", "S", "sh"]));
    let complaints: Vec<String> = sources
        .filter(|f| f.text.lines().count() > LINES_MAX)
        .map(|f| format!("{}: {} lines, at most {LINES_MAX}", f.path, f.text.lines().count()))
        .collect();
    none(&complaints);
}

#[test]
fn every_source_file_begins_with_what_it_is_for() {
    // A crate's page may be its README; unit tests are about the file that they lie beside.
    let complaints: Vec<String> = rust_files()
        .into_iter()
        .filter(|f| !f.path.ends_with("/tests.rs") && !f.path.contains("/tests/"))
        .filter(|f| !f.text.starts_with("//") && !f.text.starts_with("#![doc"))
        .map(|f| format!("{}: its first line says nothing about it", f.path))
        .collect();
    none(&complaints);
}

#[test]
fn nothing_names_a_package_host_or_a_directory_of_one_machine() {
    let banned = [
        concat!("crates", ".io"),
        concat!("deb.debian", ".org"),
        concat!("pypi", ".org"),
        concat!("proxy.golang", ".org"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let mut complaints = Vec::new();
    // Cargo writes the source of each package into its lock file.
    for file in files().iter().filter(|f| f.path != "Cargo.lock") {
        for (i, line) in file.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{}:{}: {word}", file.path, i + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn nothing_is_left_for_later_in_the_source() {
    let banned = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("HA", "CK:"),
        concat!("#[ig", "nore"),
    ];
    let mut complaints = Vec::new();
    for file in files().iter().filter(|f| has_extension(f, &["rs", "s", "S", "sh"])) {
        for (i, line) in file.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{}:{}: {word}", file.path, i + 1));
            }
        }
    }
    none(&complaints);
}

/// Which crate may depend on which, at build time (tests may see everything). The order is design §3:
/// abi ← acl ← dataplane ← drivers ← kernel; abi ← libix ← apps; abi ← ixcp.
const DEPENDENCIES: [(&str, &[&str]); 28] = [
    ("ix-abi", &[]),
    ("ix-acl", &["ix-abi"]),
    ("ix-dataplane", &["ix-abi", "ix-acl"]),
    ("ix-ixgbe", &["ix-abi", "ix-dataplane"]),
    ("ix-vtd", &["ix-dataplane"]),
    ("ix-virtio-net", &["ix-abi", "ix-dataplane"]),
    ("ix-loopback", &["ix-dataplane"]),
    ("ix-memory-nic", &["ix-dataplane"]),
    ("ix-driver-conformance", &["ix-abi", "ix-dataplane", "ix-memory-nic"]),
    ("ix-model-ixgbe", &[]),
    ("ixgbe-vfio-user", &["ix-model-ixgbe"]),
    ("ix-kernel-core", &["ix-abi"]),
    ("ix-rt", &[]),
    (
        "ix-kernel",
        &[
            "ix-abi",
            "ix-acl",
            "ix-dataplane",
            "ix-ixgbe",
            "ix-kernel-core",
            "ix-loopback",
            "ix-rt",
            "ix-virtio-net",
            "ix-vtd",
        ],
    ),
    ("ix-testapp", &["ix-abi", "ix-rt"]),
    ("libix", &["ix-abi", "ix-rt"]),
    ("echo", &["ix-abi", "ix-rt", "libix"]),
    ("hostile", &["ix-abi", "ix-rt"]),
    ("kv", &["ix-abi", "ix-rt", "libix"]),
    ("kvcheck", &["ix-rt", "kv", "libix"]),
    ("stream", &["ix-abi", "ix-rt", "libix"]),
    ("ix-linux-guest", &["stream"]),
    ("ixcp", &["ix-abi", "ix-acl", "ix-kernel-core"]),
    ("xtask", &["ix-kernel-core"]),
    ("ix-bench", &["ix-abi", "ix-dataplane"]),
    ("ix-conformance", &["ix-abi", "ix-dataplane"]),
    (
        "ix-fuzz",
        &[
            "ix-abi",
            "ix-acl",
            "ix-dataplane",
            "ix-kernel-core",
            "ix-virtio-net",
            "ixcp",
            "kv",
            "libix",
        ],
    ),
    (
        "ix-tests",
        &[
            "ix-abi",
            "ix-dataplane",
            "ix-kernel-core",
            "ix-memory-nic",
            "ix-virtio-net",
            "hostile",
            "ixcp",
            "kv",
            "libix",
        ],
    ),
];

#[test]
fn each_planted_defect_is_one_of_the_code_of_today() {
    let patches = files().into_iter().filter(|file| has_extension(file, &["patch"]));
    // As `cargo xtask defects` applies them.
    let fails = |file: &File| {
        let mut git = Command::new("git");
        git.current_dir(workspace()).args(["apply", "--check", "-C1", &file.path]);
        let output = git.output().expect("git runs");
        (!output.status.success())
            .then(|| format!("{}: {}", file.path, String::from_utf8_lossy(&output.stderr)))
    };
    let patches: Vec<File> = patches.collect();
    assert!(patches.len() > 10, "{} found", patches.len());
    none(&patches.iter().filter_map(fails).collect::<Vec<_>>());
}

#[test]
fn dependencies_point_one_way() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |p: &serde_json::Value| p["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let allowed: BTreeMap<&str, &[&str]> = DEPENDENCIES.into_iter().collect();
    let mut complaints = Vec::new();
    for package in packages {
        let from = name(package);
        let Some(allowed) = allowed.get(from.as_str()) else {
            complaints.push(format!("{from} has no row in the table of allowed dependencies"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = name(dependency);
            let built_in = dependency["kind"].is_null();
            if built_in && ours.contains(&to) && !allowed.contains(&to.as_str()) {
                complaints.push(format!("{from} must not depend on {to}"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn the_checks_can_fail() {
    assert!(has_word(&format!("let x = {UNSAFE} {{ 1 }};"), UNSAFE));
    assert!(!has_word(&format!("#![deny({UNSAFE}_code)]"), UNSAFE));
    assert!(!has_word(code(&format!("f(); // {UNSAFE} to say")), UNSAFE));
}
