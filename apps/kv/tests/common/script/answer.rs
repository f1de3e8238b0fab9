//! Answers made comparable: versions renamed in the order of their first appearance, times apart.
use super::show;
use std::collections::HashMap;

/// What a server said to a batch.
#[derive(Debug, Default)]
pub struct Answer {
    /// With versions renamed, and `~` for times and size classes.
    pub bytes: Vec<u8>,
    pub first_words: Vec<String>,
    pub versions_seen: usize,
    /// Keys and versions that were seen together.
    pub known: Vec<(String, usize)>,
    /// Times, in their order: what they are, and how many seconds.
    pub times: Vec<(Time, i64)>,
    /// Frames of datagrams: id, number, total, reserved.
    pub frames: Vec<[u16; 4]>,
}

/// Kinds of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Until an item expires: the same but for the ends of seconds.
    Left,
    /// Since it was last used. Ours may be less: without its maintainer, stock memcached notes a use
    /// after a minute only.
    Idle,
}

impl Answer {
    /// Whether `reference` says the same.
    pub fn agrees(&self, reference: &Answer) -> bool {
        let near = |ours: i64, theirs: i64| (ours - theirs).abs() <= 5;
        let same_time = |(ours, theirs): (&(Time, i64), &(Time, i64))| match (ours.0, theirs.0) {
            (Time::Left, Time::Left) => near(ours.1, theirs.1),
            (Time::Idle, Time::Idle) => ours.1 < theirs.1 || near(ours.1, theirs.1),
            _ => false,
        };
        self.bytes == reference.bytes
            && self.frames == reference.frames
            && self.times.len() == reference.times.len()
            && self.times.iter().zip(&reference.times).all(same_time)
    }

    pub fn show(&self) -> String {
        let times =
            if self.times.is_empty() { String::new() } else { format!(" {:?}", self.times) };
        let frames =
            if self.frames.is_empty() { String::new() } else { format!(" {:?}", self.frames) };
        format!("{}{times}{frames}", show(&self.bytes))
    }
}

/// One server's version numbers.
#[derive(Default)]
pub struct Versions {
    numbers: Vec<u64>,
    names: HashMap<u64, usize>,
}

impl Versions {
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn number(&self, name: usize) -> u64 {
        self.numbers.get(name).copied().unwrap_or(u64::MAX / 2)
    }

    fn name(&mut self, version: u64) -> usize {
        let next = self.numbers.len();
        let name = *self.names.entry(version).or_insert(next);
        if name == next {
            self.numbers.push(version);
        }
        name
    }
}

/// Takes a line of an answer into it; how many bytes of a value follow, with their line end.
pub fn take_line(
    answer: &mut Answer,
    versions: &mut Versions,
    line: &[u8],
) -> Result<Option<usize>, String> {
    let text = String::from_utf8_lossy(line).into_owned();
    let first = text.trim_end().split(' ').next().unwrap_or("").to_string();
    // A number is the answer of `incr`; all numbers count as one kind.
    let number = first.parse::<u64>().is_ok();
    answer.first_words.push(if number { "<number>".into() } else { first.clone() });
    match first.as_str() {
        "VALUE" => value_line(answer, versions, &text).map(Some),
        "VA" | "HD" | "EN" | "NF" | "NS" | "EX" | "ME" => {
            meta_line(answer, versions, line);
            if first != "VA" {
                return Ok(None);
            }
            let len = text.split(' ').nth(1).and_then(|len| len.trim_end().parse::<usize>().ok());
            len.map(|len| Some(len + 2)).ok_or_else(|| format!("strange line: {text}"))
        }
        _ => {
            answer.bytes.extend_from_slice(line);
            Ok(None)
        }
    }
}

/// `VALUE <key> <flags> <bytes> [<version>]`; a key has no spaces.
fn value_line(answer: &mut Answer, versions: &mut Versions, line: &str) -> Result<usize, String> {
    let words: Vec<&str> = line.trim_end().rsplit(' ').collect();
    let (len, key, version) = match words.as_slice() {
        [len, _, key, "VALUE"] => (*len, *key, None),
        [version, len, _, key, "VALUE"] => (*len, *key, Some(*version)),
        _ => return Err(format!("strange line: {line}")),
    };
    let len: usize = len.parse().map_err(|_| format!("strange length: {line}"))?;
    let text = match version {
        None => line.to_owned(),
        Some(version) => {
            let number = version.parse().map_err(|_| format!("strange: {line}"))?;
            let name = versions.name(number);
            answer.known.push((key.to_owned(), name));
            let first = line.trim_end().strip_suffix(version).unwrap_or(line);
            format!("{first}#{name}\r\n")
        }
    };
    answer.bytes.extend_from_slice(text.as_bytes());
    Ok(len + 2)
}

/// A line of a meta command: flags with numbers behind them.
fn meta_line(answer: &mut Answer, versions: &mut Versions, line: &[u8]) {
    let mut words: Vec<Vec<u8>> = vec![];
    for word in line.trim_ascii_end().split(|&b| b == b' ') {
        let text = String::from_utf8_lossy(word).into_owned();
        let after = |prefix: &str| text.strip_prefix(prefix).and_then(|n| n.parse::<i64>().ok());
        let version = |prefix: &str| text.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
        let mut time = |kind, value| {
            answer.times.push((kind, value));
            "~".to_owned()
        };
        let shown = if let Some(left) = after("t").filter(|left| *left >= 0) {
            // Past: a large number, which depends on when the server started.
            time(Time::Left, if left > i64::from(i32::MAX) { -1 } else { left })
        } else if let Some(left) = after("exp=").filter(|left| *left != -1) {
            time(Time::Left, left)
        } else if let Some(idle) = after("l").or_else(|| after("la=")) {
            time(Time::Idle, idle)
        } else if after("cls=").is_some() {
            "cls=~".to_owned()
        } else if let Some(number) = version("cas=").or_else(|| version("c")).filter(|n| *n != 0) {
            format!("#{}", versions.name(number))
        } else {
            words.push(word.to_vec());
            continue;
        };
        words.push(shown.into_bytes());
    }
    answer.bytes.extend_from_slice(&words.join(&b' '));
    answer.bytes.extend_from_slice(b"\r\n");
}
