//! The card's self-test without the card: the report's form, the frames that go round, and what is said of one that comes back wrong.
//!
//! A frame is UDP over IPv4 between addresses of no network (RFC 2544's), its payload a number and bytes that follow from it.
use core::fmt::{self, Write};

/// Ethernet, IPv4, UDP.
pub const HEADERS: usize = 42;
/// The smallest frame, without FCS, and the largest of an MTU of 1,500.
pub const LEN_MIN: usize = 60;
pub const LEN_MAX: usize = 1514;
/// Who talks to whom, and to which port.
pub const SOURCE: [u8; 4] = [198, 18, 0, 1];
pub const DESTINATION: [u8; 4] = [198, 18, 0, 2];
pub const PORT: u16 = 9;
/// Where UDP begins, and its checksum in it.
pub const UDP_START: u16 = 34;
pub const UDP_SUM_OFFSET: u16 = 6;

/// What came of one item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Fail,
    /// The card, its driver or the surroundings do not have it.
    NotOffered,
}

impl Verdict {
    pub const fn text(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::NotOffered => "NOT OFFERED",
        }
    }
}

/// How many items of each verdict there were.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub not_offered: u32,
}

impl Tally {
    pub fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::NotOffered => self.not_offered += 1,
        }
    }

    /// Whether the card is all right, as far as it was tried.
    pub const fn all_passed(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = if self.all_passed() { "ALL PASSED" } else { "NOT ALL PASSED" };
        let Tally { passed, failed, not_offered } = self;
        write!(f, "{head}: {passed} passed, {failed} failed, {not_offered} not offered")
    }
}

/// A line of the report, of fixed columns: verdict, item, what was found.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub verdict: Verdict,
    pub item: &'a str,
    pub found: fmt::Arguments<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {:<11} {}", self.verdict.text(), self.item, self.found)
    }
}

/// A hardware address of which the part that tells cards apart is left out.
#[derive(Clone, Copy, Debug)]
pub struct Anonymous(pub [u8; 6]);

impl fmt::Display for Anonymous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:xx:xx:xx")
    }
}

/// Text out of a module's memory: printable ASCII, without the blanks that pad it.
#[derive(Clone, Copy, Debug)]
pub struct Padded<'a>(pub &'a [u8]);

impl fmt::Display for Padded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.trim_ascii() {
            f.write_char(if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' })?;
        }
        Ok(())
    }
}

/// What a frame is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The card, which sends it to itself.
    pub mac: [u8; 6],
    /// Its number.
    pub number: u32,
    /// The sender's port, by which flows differ.
    pub port: u16,
    /// Bytes without FCS, at least [`LEN_MIN`].
    pub len: usize,
}

/// How UDP's checksum is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sum {
    Right,
    Wrong,
    /// The pseudo-header's: the card is to do the rest.
    Pseudo,
}

impl Frame {
    /// Writes it into the first `len` bytes, of which there must be as many.
    pub fn write(&self, to: &mut [u8], sum: Sum) {
        let to = &mut to[..self.len];
        let ip_len = (self.len - 14) as u16;
        to[..6].copy_from_slice(&self.mac);
        to[6..12].copy_from_slice(&self.mac);
        to[12..14].copy_from_slice(&[8, 0]);
        to[14..34]
            .copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        to[16..18].copy_from_slice(&ip_len.to_be_bytes());
        to[26..30].copy_from_slice(&SOURCE);
        to[30..34].copy_from_slice(&DESTINATION);
        let header = !fold(add(0, &to[14..34]));
        to[24..26].copy_from_slice(&header.to_be_bytes());
        let udp_len = ip_len - 20;
        for (at, value) in [(34, self.port), (36, PORT), (38, udp_len), (40, 0)] {
            to[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
        to[HEADERS..HEADERS + 4].copy_from_slice(&self.number.to_be_bytes());
        let mut byte = self.number.wrapping_mul(0x9e37_79b1);
        for place in &mut to[HEADERS + 4..] {
            byte = byte.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            *place = (byte >> 24) as u8;
        }
        let pseudo = add(17 + u32::from(udp_len), &to[26..34]);
        let value = match sum {
            Sum::Pseudo => fold(pseudo),
            Sum::Right => no_zero(!fold(add(pseudo, &to[34..]))),
            // Never 0, which would say that there is none.
            Sum::Wrong => no_zero(!fold(add(pseudo, &to[34..])) ^ 0x0101),
        };
        to[40..42].copy_from_slice(&value.to_be_bytes());
    }
}

/// 0 stands for no checksum (RFC 768).
const fn no_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

fn add(sum: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
    words.iter().fold(sum + last, |sum, word| sum + u32::from(u16::from_be_bytes(*word)))
}

const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The number of a frame of this test; `None`: it is another.
pub fn number_of(bytes: &[u8]) -> Option<u32> {
    let ours = bytes.get(26..34)?;
    if ours[..4] != SOURCE || ours[4..] != DESTINATION {
        return None;
    }
    bytes.get(HEADERS..HEADERS + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// How what came back differs from what was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Difference {
    Length { sent: usize, came: usize },
    Byte { at: usize, sent: u8, came: u8 },
}

impl Difference {
    /// The first, if there is one.
    pub fn between(sent: &[u8], came: &[u8]) -> Option<Difference> {
        if sent.len() != came.len() {
            return Some(Difference::Length { sent: sent.len(), came: came.len() });
        }
        let at = sent.iter().zip(came).position(|(a, b)| a != b)?;
        Some(Difference::Byte { at, sent: sent[at], came: came[at] })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Length { sent, came } => write!(f, "{sent} bytes sent, {came} came back"),
            Difference::Byte { at, sent, came } => {
                write!(f, "byte {at} was sent as {sent:#04x} and came back as {came:#04x}")
            }
        }
    }
}

/// A request for the hardware address of `target` (RFC 826), as a frame of [`LEN_MIN`] bytes.
pub fn arp_request(mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> [u8; LEN_MIN] {
    let mut frame = [0; LEN_MIN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&sender);
    frame[38..42].copy_from_slice(&target);
    frame
}

/// Whether a frame answers that request.
pub fn is_arp_answer(frame: &[u8], sender: [u8; 4], target: [u8; 4]) -> bool {
    frame.len() >= HEADERS
        && frame[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]
        && frame[28..32] == target
        && frame[38..42] == sender
}

#[cfg(test)]
mod tests;
