//! The boot configuration of a machine with several dataplanes: a line for each, words `key=value`, and
//! after ` : ` its kernel command line. `#` begins a comment line. Mistakes name line and word.
//!
//! A line that begins with `move` is none of a dataplane: see [`schedule`].
//!
//! `kvA cores=0,1,3 memory=96M functions=00:03.0 control=com2 : app=kv ip=10.0.0.1/24`

use core::fmt;
use core::str::FromStr;

use arrayvec::{ArrayString, ArrayVec};

use super::cores::Cores;
use super::page::NAME_BYTES;
use super::pci::Bdf;
use crate::addr::LARGE_PAGE;
use crate::cmdline;

pub mod schedule;
#[cfg(test)]
mod tests;

pub const DATAPLANES_MAX: usize = 16;
/// Functions of one dataplane.
pub const FUNCTIONS_MAX: usize = 8;
/// Bytes of a configuration.
pub const TEXT_MAX: usize = 64 << 10;
/// What a kernel, its page tables and an application's smallest heap fit in.
pub const MEMORY_MIN: u64 = 32 << 20;
const MEMORY_MAX: u64 = 1 << 44;
/// The name of the only dataplane where no configuration is given.
pub const NAME_ALONE: &str = "ix";

/// How much memory a dataplane gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// A multiple of 2 MiB.
    Bytes(u64),
    /// What the others leave.
    Rest,
}

/// A dataplane's way to the control program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    None,
    /// A serial port, from its first I/O port on.
    Serial(u16),
    /// An ivshmem function.
    Function(Bdf),
}

const SERIAL_PORTS: [(&str, u16); 3] = [("com2", 0x2F8), ("com3", 0x3E8), ("com4", 0x2E8)];

/// One dataplane.
#[derive(Clone, Debug)]
pub struct Partition<'a> {
    pub name: &'a str,
    /// The line that tells of it, from 1.
    pub line: usize,
    /// Numbers of physical cores, in the order of the dataplane's own numbers. The first, which starts it,
    /// is its own for good; the others may be listed by several dataplanes, and belong at first to the
    /// one that comes first.
    pub cores: ArrayVec<u8, { Cores::MAX }>,
    pub memory: Memory,
    pub functions: ArrayVec<Bdf, FUNCTIONS_MAX>,
    pub control: Control,
    pub command_line: &'a str,
}

/// What a configuration may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Physical cores that the monitor has started.
    pub cores: usize,
    /// Functions that there are.
    pub functions: &'a [Bdf],
}

pub type Partitions<'a> = ArrayVec<Partition<'a>, DATAPLANES_MAX>;

/// What is wrong, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mistake<'a> {
    /// From 1; 0: it is about the whole.
    pub line: usize,
    pub word: &'a str,
    pub why: &'static str,
}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "dataplanes: {}", self.why);
        }
        write!(f, "dataplanes: line {}: `{}`: {}", self.line, self.word, self.why)
    }
}

/// Reads a configuration and checks it against the machine and itself.
pub fn parse<'a>(text: &'a [u8], machine: &Machine<'_>) -> Result<Partitions<'a>, Mistake<'a>> {
    let whole = |why| Mistake { line: 0, word: "", why };
    if text.len() > TEXT_MAX {
        return Err(whole("longer than 64 KiB"));
    }
    let text = core::str::from_utf8(text).map_err(|_| whole("not UTF-8"))?;
    let mut all = Partitions::new();
    for (i, line) in text.lines().enumerate() {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') || schedule::is_one(text) {
            continue;
        }
        let line = i + 1;
        let one = parse_line(text, line, machine)?;
        apart(&all, &one, text)?;
        if all.try_push(one).is_err() {
            return Err(Mistake { line, word: text, why: "at most 16 dataplanes" });
        }
    }
    if all.is_empty() {
        return Err(whole("no dataplane is named"));
    }
    Ok(all)
}

/// The words of one line.
fn parse_line<'a>(
    text: &'a str,
    line: usize,
    machine: &Machine<'_>,
) -> Result<Partition<'a>, Mistake<'a>> {
    let bad = |word: &'a str, why| Mistake { line, word, why };
    let (words, command_line) = match text.split_once(" : ") {
        Some((words, rest)) => (words, rest.trim()),
        None => (text.strip_suffix(" :").unwrap_or(text), ""),
    };
    let mut words = words.split_ascii_whitespace();
    let name = words.next().unwrap_or("");
    check_name(name).map_err(|why| bad(name, why))?;
    let mut one = Partition {
        name,
        line,
        cores: ArrayVec::new(),
        memory: Memory::Bytes(0),
        functions: ArrayVec::new(),
        control: Control::None,
        command_line,
    };
    let mut seen = 0u8;
    for word in words {
        let key = apply(&mut one, word, machine).map_err(|why| bad(word, why))?;
        if seen & key != 0 {
            return Err(bad(word, "given twice"));
        }
        seen |= key;
    }
    if seen & KEY_CORES == 0 {
        return Err(bad(name, "cores= is missing"));
    }
    if seen & KEY_MEMORY == 0 {
        return Err(bad(name, "memory= is missing"));
    }
    if let Control::Function(f) = one.control
        && one.functions.contains(&f)
    {
        return Err(bad(name, "the control channel is no other function of it"));
    }
    check_command_line(command_line).map_err(|(word, why)| bad(word, why))?;
    Ok(one)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(plain) {
        return Err("a name of at most 32 letters, digits, - and _ is wanted");
    }
    Ok(())
}

const KEY_CORES: u8 = 1;
const KEY_MEMORY: u8 = 2;
const KEY_FUNCTIONS: u8 = 4;
const KEY_CONTROL: u8 = 8;

/// Takes one word in; which key it was.
fn apply(one: &mut Partition<'_>, word: &str, machine: &Machine<'_>) -> Result<u8, &'static str> {
    let (key, value) = word.split_once('=').ok_or("not of the form key=value")?;
    match key {
        "cores" => {
            value.split(',').try_for_each(|part| cores(&mut one.cores, part, machine.cores))?;
            Ok(KEY_CORES)
        }
        "memory" => {
            one.memory = memory(value)?;
            Ok(KEY_MEMORY)
        }
        "functions" => {
            for part in value.split(',').filter(|_| value != "none") {
                let f = function(part, machine)?;
                if one.functions.contains(&f) {
                    return Err("a function twice");
                }
                one.functions.try_push(f).map_err(|_| "at most 8 functions")?;
            }
            Ok(KEY_FUNCTIONS)
        }
        "control" => {
            let serial = SERIAL_PORTS.iter().find(|(name, _)| *name == value);
            one.control = match serial {
                Some((_, port)) => Control::Serial(*port),
                None if value == "none" => Control::None,
                None => Control::Function(function(value, machine)?),
            };
            Ok(KEY_CONTROL)
        }
        _ => Err("unknown key"),
    }
}

/// `3` or `2-5`.
fn cores(
    list: &mut ArrayVec<u8, { Cores::MAX }>,
    part: &str,
    count: usize,
) -> Result<(), &'static str> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |s: &str| {
        let plain = !s.is_empty() && s.len() <= 3 && s.bytes().all(|b| b.is_ascii_digit());
        usize::from_str(s).ok().filter(|_| plain).ok_or("numbers of cores are wanted: 0,1 or 0-3")
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err("a range of cores that ends before it begins");
    }
    if last >= count.min(Cores::MAX) {
        return Err("a core that the machine does not have");
    }
    for core in first..=last {
        if list.contains(&(core as u8)) {
            return Err("a core twice in one dataplane");
        }
        list.push(core as u8);
    }
    Ok(())
}

fn memory(value: &str) -> Result<Memory, &'static str> {
    if value == "rest" {
        return Ok(Memory::Rest);
    }
    const WANTED: &str = "a size like 96M or 2G, or rest, is wanted";
    let (digits, unit) = match value.as_bytes().last() {
        Some(b'M') => (&value[..value.len() - 1], 1 << 20),
        Some(b'G') => (&value[..value.len() - 1], 1 << 30),
        _ => return Err(WANTED),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WANTED);
    }
    let bytes = u64::from_str(digits).ok().and_then(|n| n.checked_mul(unit)).ok_or(WANTED)?;
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes) {
        return Err("32M to 16384G");
    }
    if !bytes.is_multiple_of(LARGE_PAGE) {
        return Err("a multiple of 2M is wanted");
    }
    Ok(Memory::Bytes(bytes))
}

fn function(value: &str, machine: &Machine<'_>) -> Result<Bdf, &'static str> {
    let f = Bdf::parse(value).ok_or("a function like 00:03.0 is wanted")?;
    if !machine.functions.contains(&f) {
        return Err("a function that the machine does not have");
    }
    Ok(f)
}

/// The dataplane's kernel must take it, and the monitor's own words have no meaning there.
fn check_command_line(line: &str) -> Result<(), (&str, &'static str)> {
    if line.len() > cmdline::BYTES_MAX {
        return Err(("", "a command line of at most 2048 bytes is wanted"));
    }
    let ours = line.split(" -- ").next().unwrap_or("").split_ascii_whitespace();
    if let Some(word) = ours.into_iter().find(|w| is_monitors(w)) {
        return Err((word, "the monitor's own word, not a dataplane's"));
    }
    cmdline::parse(line).map(|_| ()).map_err(|e| (e.word, e.why))
}

fn is_monitors(word: &str) -> bool {
    word.starts_with("vmx=") || word.starts_with("dataplanes=")
}

/// Checks a dataplane against those before it: nothing but a core that may move is anybody else's.
fn apart<'a>(
    before: &[Partition<'a>],
    one: &Partition<'a>,
    text: &'a str,
) -> Result<(), Mistake<'a>> {
    // The word of the line that begins so.
    let bad = |key: &str, why| {
        let word = text.split_ascii_whitespace().find(|w| w.starts_with(key)).unwrap_or("");
        Err(Mistake { line: one.line, word, why })
    };
    for other in before {
        if other.name == one.name {
            return bad(one.name, "a name twice");
        }
        let (mine, theirs) = (one.cores.first(), other.cores.first());
        if mine.is_some_and(|c| other.cores.contains(c)) {
            return bad("cores=", "the first core must be in no other dataplane");
        }
        if theirs.is_some_and(|c| one.cores.contains(c)) {
            return bad("cores=", "the first core of another dataplane");
        }
        if one.memory == Memory::Rest && other.memory == Memory::Rest {
            return bad("memory=", "the rest of the memory goes to one dataplane only");
        }
        let has = |p: &Partition<'_>, f: Bdf| {
            p.functions.contains(&f) || p.control == Control::Function(f)
        };
        if one.functions.iter().any(|f| has(other, *f)) {
            return bad("functions=", "a function of another dataplane");
        }
        let taken = match one.control {
            Control::None => false,
            Control::Serial(_) => other.control == one.control,
            Control::Function(f) => has(other, f),
        };
        if taken {
            return bad("control=", "the control channel of another dataplane");
        }
    }
    Ok(())
}

/// The command line of the only dataplane where no configuration is given: the monitor's without its own
/// words. What comes after ` -- ` is the application's and stays as it is.
#[must_use]
pub fn command_line_alone(line: &str) -> ArrayString<{ cmdline::BYTES_MAX }> {
    let (ours, rest) = match line.find(" -- ") {
        Some(at) => line.split_at(at),
        None if line.starts_with("-- ") => ("", line),
        None => (line, ""),
    };
    let mut out = ArrayString::new();
    for word in ours.split_ascii_whitespace().filter(|w| !is_monitors(w)) {
        let space = if out.is_empty() { "" } else { " " };
        // It is shorter than what it is made of, which the boot code has cut to the same length.
        let _ = out.try_push_str(space).and_then(|()| out.try_push_str(word));
    }
    let _ = out.try_push_str(rest);
    out
}
