//! A seeded script of mixed operations, valid and malformed, run against two servers and compared
//! answer by answer.
//!
//! Version numbers (`cas`) are compared by relation: each server's are renamed in the order in which
//! they first appear. Left out, because the two need not agree: `version`, `stats`, what eviction
//! does, and the cases where stock memcached itself answers by chance (each is named in [`ops`]).
//!
//! Each batch ends in `version`, whose answer marks the end of the batch's answers; answers are
//! read line by line, with the lengths that `VALUE` lines give, so that no value can be mistaken
//! for an answer.
pub mod ops;

use super::rng::Rng;
use ops::{Batch, Expect, Part, State};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    pub operations: usize,
    pub batches: usize,
    pub connections: usize,
    /// How often each kind of operation came.
    pub kinds: HashMap<&'static str, usize>,
    /// Answers of which first word came how often: shows that all answers do occur.
    pub answers: HashMap<String, usize>,
}

/// The first disagreement.
#[derive(Debug)]
pub struct Mismatch {
    pub seed: u64,
    pub operation: usize,
    pub request: String,
    pub ours: String,
    pub reference: String,
}

/// Runs `operations` operations of the script `seed` against both servers.
pub fn compare(
    ours: SocketAddr,
    reference: SocketAddr,
    seed: u64,
    operations: usize,
) -> Result<Report, Mismatch> {
    let mut rng = Rng::new(seed);
    let mut state = State::default();
    let mut report = Report { connections: 1, ..Report::default() };
    let mut peers = [Peer::connect(ours), Peer::connect(reference)];
    while report.operations < operations {
        let batch = ops::batch(&mut rng, &mut state);
        let [ours, reference] = peers.each_mut().map(|peer| peer.run(&batch));
        if ours != reference {
            return Err(Mismatch {
                seed,
                operation: report.operations,
                request: show(&peers[0].render(&batch)),
                ours: show_answer(&ours),
                reference: show_answer(&reference),
            });
        }
        report.operations += batch.kinds.len();
        report.batches += 1;
        for kind in &batch.kinds {
            *report.kinds.entry(kind).or_default() += 1;
        }
        let answer = ours.unwrap_or_default();
        for line in answer.first_words {
            *report.answers.entry(line).or_default() += 1;
        }
        state.versions_seen = answer.versions_seen;
        if batch.expect == Expect::Hangup {
            report.connections += 1;
            peers.iter_mut().for_each(Peer::reconnect);
        }
    }
    Ok(report)
}

fn show(bytes: &[u8]) -> String {
    let text: String = bytes.escape_ascii().to_string();
    if text.len() <= 4000 {
        return text;
    }
    let chars: Vec<char> = text.chars().collect();
    let head: String = chars[..2000].iter().collect();
    let tail: String = chars[chars.len() - 1500..].iter().collect();
    format!("{head} … {tail}")
}

fn show_answer(answer: &Result<Answer, String>) -> String {
    match answer {
        Ok(answer) => show(&answer.bytes),
        Err(error) => format!("[{error}]"),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// With versions renamed, without the closing `VERSION`.
    bytes: Vec<u8>,
    first_words: Vec<String>,
    versions_seen: usize,
}

struct Peer {
    address: SocketAddr,
    stream: TcpStream,
    /// Received and not yet used.
    buffer: Vec<u8>,
    /// Versions by the order of their first appearance, and back.
    versions: Vec<u64>,
    names: HashMap<u64, usize>,
}

impl Peer {
    fn connect(address: SocketAddr) -> Peer {
        let stream = Self::open(address);
        Peer { address, stream, buffer: vec![], versions: vec![], names: HashMap::new() }
    }

    fn open(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a TCP socket");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a TCP socket");
        stream
    }

    fn reconnect(&mut self) {
        self.stream = Self::open(self.address);
        self.buffer.clear();
    }

    /// The batch as this server is to see it: with its own version numbers.
    fn render(&self, batch: &Batch) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &batch.parts {
            match part {
                Part::Bytes(part) => bytes.extend_from_slice(part),
                Part::Version(name) => {
                    let version = self.versions.get(*name).copied().unwrap_or(u64::MAX / 2);
                    bytes.extend_from_slice(version.to_string().as_bytes());
                }
            }
        }
        bytes
    }

    fn run(&mut self, batch: &Batch) -> Result<Answer, String> {
        let mut request = self.render(batch);
        if batch.expect == Expect::Answers {
            request.extend_from_slice(b"version\r\n");
        }
        // Written beside the reading: a large batch's answers must not block its requests.
        let mut writer = self.stream.try_clone().map_err(|error| error.to_string())?;
        let hangup = batch.expect == Expect::Hangup;
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || writer.write_all(&request));
            let answer = if hangup { self.read_to_end() } else { self.read_answer() };
            match writing.join().expect("no panic in a write") {
                // A server that hangs up need not have read everything.
                Err(error) if !hangup => Err(format!("write: {error}")),
                _ => answer,
            }
        })
    }

    fn read_to_end(&mut self) -> Result<Answer, String> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(format!("no end: {error}")),
            }
        }
        let bytes = std::mem::take(&mut self.buffer);
        Ok(Answer { bytes, versions_seen: self.versions.len(), ..Answer::default() })
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 65536];
        let len = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..len]);
        Ok(len)
    }

    /// Makes sure that `len` bytes from `at` are in the buffer.
    fn need(&mut self, at: usize, len: usize) -> Result<(), String> {
        while self.buffer.len() < at + len {
            match self.fill() {
                Ok(0) => return Err(format!("hung up after: {}", show(&self.buffer))),
                Ok(_) => {}
                Err(error) => return Err(format!("{error} after: {}", show(&self.buffer))),
            }
        }
        Ok(())
    }

    fn line_end(&mut self, at: usize) -> Result<usize, String> {
        let mut from = at;
        loop {
            if let Some(n) = self.buffer[from..].iter().position(|&b| b == b'\n') {
                return Ok(from + n + 1);
            }
            from = self.buffer.len();
            self.need(from, 1)?;
        }
    }

    fn read_answer(&mut self) -> Result<Answer, String> {
        let mut answer = Answer::default();
        let mut at = 0;
        loop {
            let end = self.line_end(at)?;
            let line = String::from_utf8_lossy(&self.buffer[at..end]).into_owned();
            at = end;
            if line.starts_with("VERSION ") {
                break;
            }
            let words: Vec<&str> = line.trim_end().rsplit(' ').collect();
            if !line.starts_with("VALUE ") {
                // A number is the answer of `incr`; all numbers count as one kind.
                let first = line.trim_end().split(' ').next().unwrap_or("").to_string();
                let number = first.parse::<u64>().is_ok();
                answer.first_words.push(if number { "<number>".into() } else { first });
                answer.bytes.extend_from_slice(line.as_bytes());
                continue;
            }
            // VALUE <key> <flags> <bytes> [<version>]; a key has no spaces.
            let (len, version) = match words.as_slice() {
                [len, _, _, "VALUE"] => (*len, None),
                [version, len, _, _, "VALUE"] => (*len, Some(*version)),
                _ => return Err(format!("strange line: {line}")),
            };
            let len: usize = len.parse().map_err(|_| format!("strange length: {line}"))?;
            answer.first_words.push("VALUE".into());
            let text = match version {
                None => line.clone(),
                Some(version) => {
                    let number = version.parse().map_err(|_| format!("strange: {line}"))?;
                    let name = self.name(number);
                    let first = line.trim_end().strip_suffix(version).unwrap_or(&line);
                    format!("{first}#{name}\r\n")
                }
            };
            answer.bytes.extend_from_slice(text.as_bytes());
            self.need(at, len + 2)?;
            answer.bytes.extend_from_slice(&self.buffer[at..at + len + 2]);
            at += len + 2;
        }
        self.buffer.drain(..at);
        if !self.buffer.is_empty() {
            return Err(format!("more than expected: {}", show(&self.buffer)));
        }
        answer.versions_seen = self.versions.len();
        Ok(answer)
    }

    fn name(&mut self, version: u64) -> usize {
        let next = self.versions.len();
        let name = *self.names.entry(version).or_insert(next);
        if name == next {
            self.versions.push(version);
        }
        name
    }
}
