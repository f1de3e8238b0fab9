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
pub mod answer;
pub mod ops;

use super::rng::Rng;
use answer::{Answer, Versions, take_line};
use ops::{Batch, Expect, Part, State};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// Where a server is.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub tcp: SocketAddr,
    /// If it takes datagrams.
    pub udp: Option<SocketAddr>,
}

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
    ours: &Address,
    reference: &Address,
    seed: u64,
    operations: usize,
) -> Result<Report, Mismatch> {
    let mut rng = Rng::new(seed);
    let udp = ours.udp.is_some() && reference.udp.is_some();
    let mut state = State { udp, ..State::default() };
    let mut report = Report { connections: 1, ..Report::default() };
    let mut peers = [Peer::connect(ours), Peer::connect(reference)];
    while report.operations < operations {
        let batch = ops::batch(&mut rng, &mut state);
        let [ours, reference] = peers.each_mut().map(|peer| peer.run(&batch));
        let agree = match (&ours, &reference) {
            (Ok(ours), Ok(reference)) => ours.agrees(reference),
            (Err(_), Err(_)) => panic!("neither server answers: {ours:?}, {reference:?}"),
            _ => false,
        };
        if !agree {
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
        state.known.extend(answer.known);
        let old = state.known.len().saturating_sub(100);
        state.known.drain(..old);
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
        Ok(answer) => answer.show(),
        Err(error) => format!("[{error}]"),
    }
}

struct Peer {
    address: SocketAddr,
    stream: TcpStream,
    udp: Option<UdpSocket>,
    /// Received and not yet used.
    buffer: Vec<u8>,
    versions: Versions,
}

impl Peer {
    fn connect(address: &Address) -> Peer {
        let stream = Self::open(address.tcp);
        let udp = address.udp.map(|udp| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a free port");
            socket.connect(udp).expect("an address");
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            socket
        });
        Peer { address: address.tcp, stream, udp, buffer: vec![], versions: Versions::default() }
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
                    let version = self.versions.number(*name);
                    bytes.extend_from_slice(version.to_string().as_bytes());
                }
            }
        }
        bytes
    }

    fn run(&mut self, batch: &Batch) -> Result<Answer, String> {
        let mut request = self.render(batch);
        if let Expect::Datagrams { id, sequence, total } = batch.expect {
            return self.run_datagram(&request, [id, sequence, total]);
        }
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
            let line = self.buffer[at..end].to_vec();
            at = end;
            if line.starts_with(b"VERSION ") {
                break;
            }
            if let Some(len) = take_line(&mut answer, &mut self.versions, &line)? {
                self.need(at, len)?;
                answer.bytes.extend_from_slice(&self.buffer[at..at + len]);
                at += len;
            }
        }
        self.buffer.drain(..at);
        if !self.buffer.is_empty() {
            return Err(format!("more than expected: {}", show(&self.buffer)));
        }
        answer.versions_seen = self.versions.len();
        Ok(answer)
    }

    /// Sends a datagram, and one more whose answer ends that of the first.
    fn run_datagram(&mut self, request: &[u8], frame: [u16; 3]) -> Result<Answer, String> {
        let socket = self.udp.as_ref().ok_or("no datagrams here")?;
        let send = |frame: [u16; 4], request: &[u8]| {
            let mut datagram = frame.map(u16::to_be_bytes).concat();
            datagram.extend_from_slice(request);
            socket.send(&datagram).map_err(|error| format!("datagram: {error}"))
        };
        let [id, sequence, total] = frame;
        let last = id.wrapping_add(1);
        send([id, sequence, total, 0], request)?;
        send([last, 0, 1, 0], b"mn\r\n")?;
        let mut frames = vec![];
        loop {
            let mut datagram = [0; 2048];
            let len = socket.recv(&mut datagram).map_err(|error| {
                format!("datagram: {error} after {frames:?} {}", show(&self.buffer))
            })?;
            let word = |n: usize| u16::from_be_bytes([datagram[n], datagram[n + 1]]);
            // Stock memcached sends empty ones, of no message, for some misses.
            if word(4) != 0 {
                frames.push([word(0), word(2), word(4), word(6)]);
            }
            if word(0) == last {
                break;
            }
            self.buffer.extend_from_slice(&datagram[8..len]);
        }
        self.buffer.extend_from_slice(b"VERSION \r\n");
        Ok(Answer { frames, ..self.read_answer()? })
    }
}
