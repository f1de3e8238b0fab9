//! One client of kv: what it asks, and what the answer must be, byte for byte. No network here: requests go out as a slice, answers
//! come in cut anywhere.
//!
//! Each client has keys of its own, so that it knows what each of them must hold: the value that it has set last, or nothing. One that
//! was being set when the connection ended may be set at any time still, say by a server's core that was stopped and runs again: the
//! client takes another one in its place.
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Keys of one client.
pub const KEYS: usize = 16;

/// What a key must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    /// The value of that number.
    Value(u64),
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Set(usize, u64),
    Get,
}

/// An answer that is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Whose.
    pub client: u32,
    /// To which of its requests, from 0.
    pub request: u64,
    /// The answer's byte.
    pub at: usize,
    /// What it must be; `None`: the answer had ended, or nothing was asked.
    pub expected: Option<u8>,
    /// What it is.
    pub got: u8,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong { client, request, at, got, .. } = self;
        write!(f, "client {client}, request {request}: byte {at} of the answer is {got:#04x}")?;
        match self.expected {
            Some(expected) => write!(f, ", not {expected:#04x}"),
            None => write!(f, ", and there must be none"),
        }
    }
}

/// A client.
#[derive(Debug)]
pub struct Client {
    id: u32,
    seed: u64,
    value_max: usize,
    held: [Held; KEYS],
    /// How often each was replaced by another.
    replaced: [usize; KEYS],
    /// Requests ever made.
    requests: u64,
    asked: Option<Asked>,
    request: Vec<u8>,
    /// Bytes of it that were taken to be sent.
    taken: usize,
    expected: Vec<u8>,
    /// Bytes of it that have come.
    come: usize,
    /// Requests that are left of the round.
    pub left: u64,
    /// Rounds that are over.
    pub rounds: u64,
    /// When it was last given anything to do, in nanoseconds since boot.
    pub since_ns: u64,
}

/// A number from two: well mixed, the same at all times.
fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// For `write!`.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends text, which memory always takes.
fn say(out: &mut Vec<u8>, args: fmt::Arguments<'_>) {
    let _never_fails = Text(out).write_fmt(args);
}

impl Client {
    /// Client number `id`.
    pub fn new(id: u32, seed: u64, value_max: usize) -> Client {
        Client {
            id,
            seed: mix(seed, u64::from(id)),
            value_max,
            held: [Held::Nothing; KEYS],
            replaced: [0; KEYS],
            requests: 0,
            asked: None,
            request: Vec::new(),
            taken: 0,
            expected: Vec::new(),
            come: 0,
            left: 0,
            rounds: 0,
            since_ns: 0,
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Makes the next request. The one before is answered, and none of its bytes is on its way any more.
    pub fn ask(&mut self) {
        let draw = mix(self.seed, self.requests);
        self.requests += 1;
        let key = draw as usize % KEYS;
        self.request.clear();
        self.expected.clear();
        (self.taken, self.come) = (0, 0);
        let sets = (draw >> 32).is_multiple_of(3);
        let name = key + KEYS * self.replaced[key];
        let (id, request) = (self.id, self.requests);
        if sets {
            let len = self.len_of(request);
            say(&mut self.request, format_args!("set c{id}k{name} 0 0 {len}\r\n"));
            append_value(&mut self.request, self.seed, request, len);
            self.request.extend_from_slice(b"\r\n");
            self.expected.extend_from_slice(b"STORED\r\n");
            self.asked = Some(Asked::Set(key, request));
        } else {
            say(&mut self.request, format_args!("get c{id}k{name}\r\n"));
            if let Held::Value(number) = self.held[key] {
                let len = self.len_of(number);
                say(&mut self.expected, format_args!("VALUE c{id}k{name} 0 {len}\r\n"));
                append_value(&mut self.expected, self.seed, number, len);
                self.expected.extend_from_slice(b"\r\n");
            }
            self.expected.extend_from_slice(b"END\r\n");
            self.asked = Some(Asked::Get);
        }
    }

    /// Bytes of value number `number`.
    fn len_of(&self, number: u64) -> usize {
        1 + mix(!self.seed, number) as usize % self.value_max
    }

    /// What of the request is still to be sent.
    pub fn to_send(&self) -> &[u8] {
        self.request.get(self.taken..).unwrap_or_default()
    }

    /// So many bytes of it were taken.
    pub fn took(&mut self, bytes: usize) {
        self.taken = (self.taken + bytes).min(self.request.len());
    }

    /// So many of them were not, after all.
    pub fn untook(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_sub(bytes);
    }

    /// Compares bytes of the answer with what they must be.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let expected = self.expected.get(self.come..).unwrap_or_default();
        let same = bytes.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
        if let Some(got) = bytes.get(same) {
            let (at, expected) = (self.come + same, expected.get(same).copied());
            let request = self.requests.wrapping_sub(1);
            return Err(Wrong { client: self.id, request, at, expected, got: *got });
        }
        self.come += bytes.len();
        if self.come == self.expected.len()
            && let Some(Asked::Set(key, number)) = self.asked
        {
            self.held[key] = Held::Value(number);
        }
        Ok(())
    }

    /// Whether the request was made, and its whole answer has come.
    pub fn is_answered(&self) -> bool {
        self.asked.is_some() && self.come == self.expected.len()
    }

    /// Whether a request is under way.
    pub fn is_waiting(&self) -> bool {
        self.asked.is_some() && !self.is_answered()
    }

    /// Bytes of the request and its answer.
    pub fn bytes(&self) -> u64 {
        (self.request.len() + self.expected.len()) as u64
    }

    /// The connection is gone, with whatever was asked.
    pub fn disconnected(&mut self) {
        if let (Some(Asked::Set(key, _)), true) = (self.asked, self.is_waiting()) {
            self.held[key] = Held::Nothing;
            self.replaced[key] += 1;
        }
        self.asked = None;
        self.request.clear();
        self.expected.clear();
        (self.taken, self.come) = (0, 0);
    }
}

/// The bytes of value `number`: each eight of them tell whose, which and where.
fn append_value(out: &mut Vec<u8>, seed: u64, number: u64, len: usize) {
    let value = mix(seed, !number);
    for at in (0..len).step_by(8) {
        let word = mix(value, at as u64).to_le_bytes();
        out.extend_from_slice(&word[..8.min(len - at)]);
    }
}
