//! Large receive, as a device does it: segments of one stream that follow each other, IPv4 without options,
//! headers alike, become one.
use std::collections::VecDeque;

const TCP_AT: usize = 34;
const PSH: u8 = 8;
const ACK: u8 = 16;

fn half(f: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([f[at], f[at + 1]]))
}

fn word(f: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(f[at..at + 4].try_into().unwrap())
}

/// Where the payload starts, if it is a segment with payload that can be merged.
fn payload(f: &[u8]) -> Option<usize> {
    let plain =
        f.len() >= 54 && f[12..15] == [8, 0, 0x45] && f[23] == 6 && half(f, 20) & 0x3fff == 0;
    if !plain || f[47] & !PSH != ACK || half(f, 16) + 14 != f.len() {
        return None;
    }
    let at = TCP_AT + usize::from(f[46] >> 4) * 4;
    (at < f.len()).then_some(at)
}

/// Whether all that must be alike is.
fn alike(a: &[u8], b: &[u8], at: usize) -> bool {
    a[..16] == b[..16]
        && a[22..24] == b[22..24]
        && a[26..38] == b[26..38]
        && a[42..47] == b[42..47]
        && a[48..50] == b[48..50]
        && a[54..at] == b[54..at]
}

/// Takes from `inbox` what continues `first`, as long as it is `intact`. The size of the segments, or 0 if there
/// was nothing to merge. The TCP checksum is not right then; the one of IP is.
pub fn merge(
    first: &mut Vec<u8>,
    inbox: &mut VecDeque<Vec<u8>>,
    intact: impl Fn(&[u8]) -> bool,
) -> u16 {
    let Some(at) = payload(first) else { return 0 };
    let size = first.len() - at;
    let mut merged = 0;
    let mut last = size;
    while let Some(next) = inbox.front() {
        let follows = payload(next) == Some(at)
            && alike(first, next, at)
            && word(next, 38) == word(first, 38).wrapping_add((first.len() - at) as u32)
            && last == size
            && next.len() - at <= size
            && first.len() + next.len() <= 65_535
            && intact(next);
        if !follows {
            break;
        }
        let next = inbox.pop_front().unwrap();
        last = next.len() - at;
        first[47] |= next[47];
        first.extend(&next[at..]);
        let total = (first.len() - 14) as u16;
        first[16..18].copy_from_slice(&total.to_be_bytes());
        first[24..26].fill(0);
        let sum = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&first[14..34]));
        first[24..26].copy_from_slice(&sum);
        merged = size as u16;
    }
    merged
}
