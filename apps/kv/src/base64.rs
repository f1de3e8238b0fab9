//! Base64 (RFC 4648), for keys of meta commands; lenient in the ways in which memcached is.
use crate::limits::KEY_BYTES_MAX;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Longest encoding of a key.
pub const ENCODED_MAX: usize = KEY_BYTES_MAX.div_ceil(3) * 4;

/// Writes `bytes` at the start of `out`; how much that is.
pub fn encode(bytes: &[u8], out: &mut [u8]) -> usize {
    let mut len = 0;
    for block in bytes.chunks(3) {
        let word = block.iter().fold(0u32, |word, &b| word << 8 | u32::from(b));
        let word = word << (8 * (3 - block.len()));
        for n in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * n)) as usize & 63];
            out[len + n] = if n <= block.len() { digit } else { b'=' };
        }
        len += 4;
    }
    len
}

fn value_of(byte: u8) -> Option<u32> {
    match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}

/// Decodes into `out`, which is at least as long as `text`; how much came out. Bytes that are not of
/// the alphabet do not count, nor does anything behind a block with padding.
pub fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let digits = text.iter().filter(|&&b| value_of(b).is_some()).count();
    if digits == 0 || !digits.is_multiple_of(4) {
        return None;
    }
    let (mut word, mut count, mut padding, mut len) = (0, 0, 0, 0);
    for &byte in text {
        let Some(value) = value_of(byte) else { continue };
        padding += usize::from(byte == b'=');
        word = word << 6 | value;
        count += 1;
        if count < 4 {
            continue;
        }
        if padding > 2 {
            return None;
        }
        out[len..len + 3].copy_from_slice(&word.to_be_bytes()[1..]);
        len += 3 - padding;
        (word, count) = (0, 0);
        if padding > 0 {
            break;
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        let bytes: [u8; KEY_BYTES_MAX] = core::array::from_fn(|n| (n * 37) as u8);
        for len in 1..=KEY_BYTES_MAX {
            let (mut text, mut back) = ([0; ENCODED_MAX], [0; ENCODED_MAX]);
            let encoded = encode(&bytes[..len], &mut text);
            assert_eq!(decode(&text[..encoded], &mut back), Some(len));
            assert_eq!(back[..len], bytes[..len]);
        }
    }

    #[test]
    fn what_is_no_base64_is_refused_as_memcached_refuses_it() {
        let mut out = [0; 32];
        for bad in ["", "Zm9", "Z", "....", "A===", "===="] {
            assert_eq!(decode(bad.as_bytes(), &mut out), None, "{bad}");
        }
        assert_eq!(decode(b"Zm9v", &mut out), Some(3));
        assert_eq!(&out[..3], b"foo");
        assert_eq!(decode(b"Z.m-9v", &mut out), Some(3), "foreign bytes are skipped");
        assert_eq!(decode(b"Zg==Zm9v", &mut out), Some(1), "nothing counts behind padding");
        assert_eq!(decode(b"=AAA", &mut out), Some(2));
    }
}
