//! What the two ends say to each other besides the data: all words are little-endian, 8 bytes each.

/// A request in bytes.
pub const REQUEST_BYTES: usize = 24;
/// A verdict in bytes.
pub const VERDICT_BYTES: usize = 16;

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes the data that follows the request, checks it and answers with a verdict.
    Sink,
    /// Sends the data, then ends its direction.
    Source,
}

/// The first words of a connection: role, seed of the pattern, bytes of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the server is to do.
    pub role: Role,
    /// Which pattern.
    pub seed: u64,
    /// How much of it.
    pub bytes: u64,
}

impl Request {
    /// As it is sent.
    pub fn to_bytes(&self) -> [u8; REQUEST_BYTES] {
        let role = match self.role {
            Role::Sink => 1u64,
            Role::Source => 2,
        };
        let mut out = [0; REQUEST_BYTES];
        for (word, value) in out.chunks_exact_mut(8).zip([role, self.seed, self.bytes]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// As it was received; `None` if it makes no sense.
    pub fn parse(bytes: &[u8; REQUEST_BYTES]) -> Option<Request> {
        let role = match word(bytes, 0) {
            1 => Role::Sink,
            2 => Role::Source,
            _ => return None,
        };
        Some(Request { role, seed: word(bytes, 1), bytes: word(bytes, 2) })
    }
}

/// What a sink has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Bytes that came.
    pub bytes: u64,
    /// Where the first byte is that differs from the pattern.
    pub wrong: Option<u64>,
}

impl Verdict {
    /// As it is sent.
    pub fn to_bytes(&self) -> [u8; VERDICT_BYTES] {
        let mut out = [0; VERDICT_BYTES];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8..].copy_from_slice(&self.wrong.unwrap_or(u64::MAX).to_le_bytes());
        out
    }

    /// As it was received.
    pub fn parse(bytes: &[u8; VERDICT_BYTES]) -> Verdict {
        let wrong = Some(word(bytes, 1)).filter(|at| *at != u64::MAX);
        Verdict { bytes: word(bytes, 0), wrong }
    }
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    u64::from_le_bytes(words[index])
}
