//! The control page over a serial line: frames that carry words of it. `docs/control.md` the last section, is the protocol.
//!
//! A frame, little-endian: sync (2 bytes), bytes of payload (2), sequence number (2), kind (1), version of the framing (1), payload,
//! CRC-32 of everything between sync and itself (4). Whatever bytes arrive, nothing here panics, and what is not a
//! whole frame with the right CRC yields nothing.
use crate::control::{BULK_BASE, BULK_BYTES, CAPTURE_BASE, command};
use crate::status::open_enum;
use crc::{CRC_32_ISO_HDLC, Crc};

#[cfg(test)]
mod tests;

/// First two bytes of a frame.
pub const SYNC: [u8; 2] = [0x5a, 0xa5];
/// Of the framing; other versions are not answered.
pub const VERSION: u8 = 1;
/// Bytes before the payload, sync included.
pub const HEAD_BYTES: usize = 8;
/// Bytes behind it.
pub const CRC_BYTES: usize = 4;
/// Bytes before the words of a payload: where they begin in the page, and how many they are.
pub const RANGE_BYTES: usize = 8;
/// Words that one request may read.
pub const READ_WORDS_MAX: usize = 64;
/// Words that one request may write. Few, so that nonsense is cheap to look through.
pub const WRITE_WORDS_MAX: usize = 16;
/// Longest frame to the kernel.
pub const REQUEST_BYTES_MAX: usize = HEAD_BYTES + RANGE_BYTES + 8 * WRITE_WORDS_MAX + CRC_BYTES;
/// Longest frame from it.
pub const REPLY_BYTES_MAX: usize = HEAD_BYTES + RANGE_BYTES + 8 * READ_WORDS_MAX + CRC_BYTES;
/// Bytes of the page that are there over a serial line: all but the capture rings.
pub const PAGE_BYTES: usize = CAPTURE_BASE;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

open_enum! {
    /// Kinds of frames. An answer has its request's sequence number.
    Kind {
        /// To the kernel, no payload: is somebody there?
        Ping = 0x01: "ping",
        /// To the kernel: offset in bytes and number of words, 32 bits each.
        Read = 0x02: "read",
        /// To the kernel: the same, then the words.
        Write = 0x03: "write",
        /// Answer to `ping`: the words MAGIC, VERSION and EPOCH of the page's header, and [`PAGE_BYTES`].
        Pong = 0x81: "pong",
        /// Answer to `read`: offset, number, the words.
        Words = 0x82: "words",
        /// Answer to `write`: offset and number of the words that have been written.
        Written = 0x83: "written",
        /// Answer to anything that asks for what there is not, or that a client may not write; no payload.
        Refused = 0xff: "refused",
    }
}

/// A frame that has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// The number of a request, and of its answer.
    pub sequence: u16,
    /// By kind.
    pub payload: &'a [u8],
}

/// Some words of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Byte offset of the first.
    pub offset: usize,
    /// How many.
    pub words: usize,
}

impl Range {
    /// The range, if it is within the page, at a word, and not longer than `most`.
    pub fn checked(offset: u32, words: u32, most: usize) -> Option<Range> {
        let (offset, words) = (offset as usize, words as usize);
        let fits = (1..=most).contains(&words) && offset.is_multiple_of(8);
        (fits && offset <= PAGE_BYTES - words * 8).then_some(Range { offset, words })
    }

    /// Whether a client may write all of it: the command's words and the bulk area.
    pub fn is_writable(self) -> bool {
        let end = self.offset + self.words * 8;
        let within = |from: usize, to: usize| self.offset >= from && end <= to;
        within(command::SEQUENCE, command::ARGS + 32) || within(BULK_BASE, BULK_BASE + BULK_BYTES)
    }

    /// As a payload begins with it.
    pub fn to_bytes(self) -> [u8; RANGE_BYTES] {
        let mut bytes = [0; RANGE_BYTES];
        bytes[..4].copy_from_slice(&(self.offset as u32).to_le_bytes());
        bytes[4..].copy_from_slice(&(self.words as u32).to_le_bytes());
        bytes
    }

    /// What a payload begins with, and the rest of it.
    pub fn split(payload: &[u8], most: usize) -> Option<(Range, &[u8])> {
        let (head, rest) = payload.split_at_checked(RANGE_BYTES)?;
        let word = |at: usize| head[at..].first_chunk().map(|b| u32::from_le_bytes(*b));
        Some((Range::checked(word(0)?, word(4)?, most)?, rest))
    }
}

/// The words of a payload, as far as they are whole.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// What the kernel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Whether it is there.
    Ping,
    /// Words of the page.
    Read(Range),
    /// To write words: their bytes, as many as the range says.
    Write(Range, &'a [u8]),
}

impl<'a> Request<'a> {
    /// What a frame asks for; `None`: it is to be refused.
    pub fn decode(frame: &Frame<'a>) -> Option<Request<'a>> {
        match frame.kind {
            Kind::Ping if frame.payload.is_empty() => Some(Request::Ping),
            Kind::Read => match Range::split(frame.payload, READ_WORDS_MAX)? {
                (range, []) => Some(Request::Read(range)),
                _ => None,
            },
            Kind::Write => {
                let (range, bytes) = Range::split(frame.payload, WRITE_WORDS_MAX)?;
                let whole = bytes.len() == range.words * 8 && range.is_writable();
                whole.then_some(Request::Write(range, bytes))
            }
            _ => None,
        }
    }
}

/// Writes a frame into `out`; its length, or `None` if it does not fit. The payload is what `parts` are one after the other.
pub fn encode(out: &mut [u8], kind: Kind, sequence: u16, parts: &[&[u8]]) -> Option<usize> {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let end = HEAD_BYTES + payload;
    let frame = out.get_mut(..end + CRC_BYTES)?;
    let kind = u8::try_from(kind.0).ok()?;
    frame[..2].copy_from_slice(&SYNC);
    frame[2..4].copy_from_slice(&u16::try_from(payload).ok()?.to_le_bytes());
    frame[4..6].copy_from_slice(&sequence.to_le_bytes());
    frame[6..8].copy_from_slice(&[kind, VERSION]);
    let mut at = HEAD_BYTES;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let crc = CRC.checksum(&frame[2..end]);
    frame[end..].copy_from_slice(&crc.to_le_bytes());
    Some(end + CRC_BYTES)
}

/// Finds frames of at most `N` bytes in a stream of bytes.
#[derive(Clone, Debug)]
pub struct Decoder<const N: usize> {
    bytes: [u8; N],
    /// Bytes of `bytes` that are in use.
    len: usize,
    /// Of them, those that belong to a frame that was given out.
    taken: usize,
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Decoder<N> {
    /// One that has seen nothing.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0, taken: 0 }
    }

    /// Forgets what has come so far of a frame.
    pub fn reset(&mut self) {
        (self.len, self.taken) = (0, 0);
    }

    /// Takes the next byte; a frame, if it is the last of one. Bytes before and between frames are skipped; so is one that begins like a
    /// frame and is none, and what looked like the rest of it is looked at again.
    pub fn push(&mut self, byte: u8) -> Option<Frame<'_>> {
        self.drop_front(self.taken);
        self.taken = 0;
        // There is room: whatever fills the buffer is a frame, or loses its first byte below.
        *self.bytes.get_mut(self.len)? = byte;
        self.len += 1;
        while self.len > 0 {
            match self.look() {
                Look::Incomplete => return None,
                Look::NoFrame => {
                    let next = self.bytes[1..self.len].iter().position(|b| *b == SYNC[0]);
                    self.drop_front(next.map_or(self.len, |at| at + 1));
                }
                Look::Frame(len) => {
                    self.taken = len;
                    return Some(self.frame(len));
                }
            }
        }
        None
    }

    fn look(&self) -> Look {
        let bytes = &self.bytes[..self.len];
        if bytes.iter().zip(SYNC).any(|(byte, sync)| *byte != sync) {
            return Look::NoFrame;
        }
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Look::Incomplete };
        let payload = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let end = HEAD_BYTES + payload;
        if head[7] != VERSION || end + CRC_BYTES > N {
            return Look::NoFrame;
        }
        let Some(crc) = bytes.get(end..end + CRC_BYTES) else { return Look::Incomplete };
        let good = CRC.checksum(&bytes[2..end]).to_le_bytes() == crc;
        if good { Look::Frame(end + CRC_BYTES) } else { Look::NoFrame }
    }

    fn frame(&self, len: usize) -> Frame<'_> {
        let bytes = &self.bytes[..len];
        Frame {
            kind: Kind(bytes[6].into()),
            sequence: u16::from_le_bytes([bytes[4], bytes[5]]),
            payload: &bytes[HEAD_BYTES..len - CRC_BYTES],
        }
    }

    fn drop_front(&mut self, count: usize) {
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

enum Look {
    Incomplete,
    NoFrame,
    Frame(usize),
}
