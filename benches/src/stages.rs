//! Where the instructions go: callgrind's cost of each instruction, put to the innermost function of this
//! project that it was inlined from, whatever the compiler made of the calls.
use crate::say;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Stages by the path of the source file, the first that fits; what fits none is `other`.
const STAGES: [(&str, &[&str]); 9] = [
    ("network card, application (the harness)", &["benches/src/"]),
    (
        "input: Ethernet, IPv4, checksums, hash",
        &[
            "dataplane/src/input",
            "dataplane/src/checksum",
            "dataplane/src/rss",
            "dataplane/src/ipv4",
        ],
    ),
    (
        "connection look-up, tables, lists",
        &[
            "dataplane/src/flow_table",
            "dataplane/src/slab",
            "dataplane/src/fifo",
            "dataplane/src/group",
            "dataplane/src/conn.rs",
        ],
    ),
    ("fast path", &["dataplane/src/fast"]),
    ("TCP", &["dataplane/src/tcp", "dataplane/src/neighbor"]),
    (
        "events and calls",
        &[
            "dataplane/src/events",
            "dataplane/src/calls",
            "dataplane/src/rings",
            "dataplane/src/app",
            "abi/src/",
        ],
    ),
    ("timers", &["dataplane/src/wheel", "dataplane/src/time"]),
    (
        "transmit, buffers, user memory",
        &[
            "dataplane/src/output",
            "dataplane/src/tx",
            "dataplane/src/mbuf",
            "dataplane/src/usermem",
            "dataplane/src/device",
        ],
    ),
    (
        "the loop",
        &[
            "dataplane/src/core_loop",
            "dataplane/src/engine",
            "dataplane/src/local",
            "dataplane/src/mesh",
            "dataplane/src/spsc",
            "dataplane/src/acl",
            "dataplane/src/tap",
            "dataplane/src/udp",
            "dataplane/src/dhcp",
        ],
    ),
];

/// The parts of a source path that count as this project's.
const OURS: [&str; 4] = ["/dataplane/src/", "/abi/src/", "/acl/src/", "/benches/src/"];

/// Sums by stage, by file and by function.
#[derive(Debug, Default)]
pub struct Sums {
    stages: BTreeMap<&'static str, u64>,
    files: BTreeMap<String, u64>,
    functions: BTreeMap<String, u64>,
    lines: BTreeMap<String, u64>,
    total: u64,
    title: &'static str,
}

/// Callgrind's events that are summed, and what they are called.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    names: &'static [&'static str],
    title: &'static str,
}

/// Instructions.
pub const INSTRUCTIONS: Events = Events { names: &["Ir"], title: "instructions" };
/// Reads and writes of data that is not in the second-level cache.
pub const MISSES: Events = Events { names: &["DLmr", "DLmw"], title: "misses" };

/// Reads a profile that was made with `--dump-instr=yes` of `program`.
pub fn sums(program: &Path, profile: &Path, events: Events) -> Result<Sums> {
    let text = std::fs::read_to_string(profile).context("no profile")?;
    let loader = addr2line::Loader::new(program)
        .map_err(|error| anyhow::anyhow!("{}: {error}", program.display()))?;
    let name = program.file_name().and_then(|n| n.to_str()).context("a program's name")?;
    let mut sums = Sums { title: events.title, ..Sums::default() };
    for ((ours, address), cost) in costs(&text, name, events) {
        let place = if ours { place(&loader, address) } else { None };
        let place = place.unwrap_or_else(|| Place {
            file: "libraries".to_owned(),
            function: "libraries".to_owned(),
            line: 0,
        });
        sums.add(&place, cost);
    }
    Ok(sums)
}

/// Cost by address, and whether the address is of the program itself.
fn costs(text: &str, program: &str, events: Events) -> HashMap<(bool, u64), u64> {
    let header = text.lines().find_map(|line| line.strip_prefix("events: ")).unwrap_or("");
    let wanted: Vec<bool> = header.split(' ').map(|name| events.names.contains(&name)).collect();
    let mut costs = HashMap::new();
    let (mut ours, mut inclusive) = (false, false);
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            ours = object.ends_with(program);
        } else if line.starts_with("calls=") {
            inclusive = true;
        } else if let Some(rest) = line.strip_prefix("0x") {
            let mut words = rest.split(' ');
            let address = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
            // Trailing zeros are left out.
            let cost: u64 = words
                .zip(&wanted)
                .filter(|(_, wanted)| **wanted)
                .filter_map(|(word, _)| word.parse::<u64>().ok())
                .sum();
            if let (Some(address), false, 1..) = (address, inclusive, cost) {
                *costs.entry((ours, address)).or_default() += cost;
            }
            inclusive = false;
        }
    }
    costs
}

struct Place {
    file: String,
    function: String,
    line: u32,
}

/// The innermost of the functions inlined at an address that is this project's.
fn place(loader: &addr2line::Loader, address: u64) -> Option<Place> {
    let mut frames = loader.find_frames(address).ok()?;
    while let Ok(Some(frame)) = frames.next() {
        let Some(location) = &frame.location else { continue };
        let file = location.file.unwrap_or("");
        let Some(at) = OURS.iter().find_map(|part| file.rfind(part)) else { continue };
        let function = frame.function.as_ref().and_then(|f| f.demangle().ok());
        let function = function.map_or_else(|| "?".to_owned(), |name| shorten(&name));
        let line = location.line.unwrap_or(0);
        return Some(Place { file: file[at + 1..].to_owned(), function, line });
    }
    None
}

/// Without generic arguments, which say nothing here.
fn shorten(name: &str) -> String {
    let mut depth = 0_usize;
    let mut short = String::new();
    for c in name.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => short.push(c),
            _ => {}
        }
    }
    short.trim_end_matches(':').to_owned()
}

impl Sums {
    fn add(&mut self, place: &Place, cost: u64) {
        let fits = |(_, parts): &&(&str, &[&str])| parts.iter().any(|p| place.file.starts_with(p));
        let stage = STAGES.iter().find(fits).map_or("other", |(stage, _)| stage);
        *self.stages.entry(stage).or_default() += cost;
        *self.files.entry(place.file.clone()).or_default() += cost;
        let function = format!("{} ({})", place.function, place.file);
        *self.functions.entry(function).or_default() += cost;
        *self.lines.entry(format!("{}:{}", place.file, place.line)).or_default() += cost;
        self.total += cost;
    }

    /// Prints the tables, per operation; of functions and lines the most expensive.
    pub fn print(&self, operations: u64, functions: usize) {
        say!("{} each: {:.2}", self.title, self.total as f64 / operations as f64);
        let list = |title: &str, costs: Vec<(&str, u64)>, most: usize| {
            let mut costs = costs;
            costs.sort_by_key(|(name, cost)| (std::cmp::Reverse(*cost), name.to_owned()));
            say!("\n| {title} | {} | share |\n|---|---|---|", self.title);
            for (name, cost) in costs.into_iter().take(most) {
                let each = cost as f64 / operations as f64;
                let share = 100.0 * cost as f64 / self.total as f64;
                say!("| {name} | {each:.2} | {share:.1} % |");
            }
        };
        list("stage", self.stages.iter().map(|(n, c)| (*n, *c)).collect(), usize::MAX);
        list("file", pairs(&self.files), usize::MAX);
        list("function", pairs(&self.functions), functions);
        list("line", pairs(&self.lines), functions);
    }
}

fn pairs(map: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    map.iter().map(|(name, cost)| (name.as_str(), *cost)).collect()
}
