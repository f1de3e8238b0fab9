//! Looking for bytes eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES * 0x80;

/// Where the first `byte` is.
#[inline]
pub fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        // Zero where the byte is; the lowest zero borrows into its own high bit.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        let zero = word.wrapping_sub(ONES) & !word & HIGHS;
        if zero != 0 {
            return Some(n * 8 + zero.trailing_zeros() as usize / 8);
        }
    }
    let done = words.len() * 8;
    rest.iter().position(|&b| b == byte).map(|n| done + n)
}

/// The first byte of at most 0x20 for which `f` has an answer, with its place and the answer.
#[inline]
pub fn find_low<R>(bytes: &[u8], mut f: impl FnMut(usize, u8) -> Option<R>) -> Option<R> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Bytes below 0x21 borrow into their high bit. So may the byte behind such a one: each is
        // looked at.
        let mut low = word.wrapping_sub(ONES * 0x21) & !word & HIGHS;
        while low != 0 {
            let at = low.trailing_zeros() & 56;
            let byte = (word >> at) as u8;
            if byte <= b' '
                && let Some(answer) = f(n * 8 + at as usize / 8, byte)
            {
                return Some(answer);
            }
            low &= low - 1;
        }
    }
    let done = words.len() * 8;
    let mut rest = rest.iter().enumerate().filter(|&(_, &byte)| byte <= b' ');
    rest.find_map(|(n, &byte)| f(done + n, byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// All bytes that can confuse the arithmetic, at all places of a word and its neighbours.
    #[test]
    fn bytes_are_found_wherever_they_are() {
        for filler in [0u8, 1, 0x0a, 0x0d, 0x1f, 0x20, 0x21, 0x22, 0x7f, 0x80, 0xa0, 0xff] {
            for wanted in [0u8, b'\n', b' '] {
                for len in 0..20 {
                    for at in 0..len {
                        let mut bytes = alloc::vec![filler; len];
                        bytes[at] = wanted;
                        let expected = bytes.iter().position(|&b| b == wanted);
                        assert_eq!(find(&bytes, wanted), expected);
                        let low: Vec<usize> = (0..len).filter(|&n| bytes[n] <= b' ').collect();
                        let mut seen = Vec::new();
                        find_low(&bytes, |n, byte| {
                            assert_eq!(byte, bytes[n]);
                            seen.push(n);
                            None::<()>
                        });
                        assert_eq!(seen, low);
                    }
                }
            }
        }
    }
}
