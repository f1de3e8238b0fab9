//! Numbers in text, read as C's `strtoul` and its relatives do under memcached's own checks.
//!
//! A token ends at its end, at a zero byte, or at white space inside it (only a space separates
//! tokens); leading white space and a sign are allowed. The 32-bit readers wrap as memcached's
//! assignments do.

/// C's `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

struct Number {
    negative: bool,
    magnitude: Option<u64>,
    /// What follows the digits.
    rest_ok: bool,
}

fn scan(text: &[u8]) -> Option<Number> {
    let start = text.iter().position(|&b| !is_space(b))?;
    let mut text = &text[start..];
    let negative = text[0] == b'-';
    if matches!(text[0], b'-' | b'+') {
        text = &text[1..];
    }
    let digits = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    if digits == 0 {
        return None;
    }
    let magnitude = text[..digits]
        .iter()
        .try_fold(0u64, |sum, &b| sum.checked_mul(10)?.checked_add(u64::from(b - b'0')));
    let rest_ok = text.get(digits).is_none_or(|&b| b == 0 || is_space(b));
    Some(Number { negative, magnitude, rest_ok })
}

/// An unsigned 64-bit number.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    // The common case: digits only, too few to overflow.
    if !text.is_empty() && text.len() <= 19 && text.iter().all(u8::is_ascii_digit) {
        return Some(text.iter().fold(0, |sum, &b| sum * 10 + u64::from(b - b'0')));
    }
    let number = scan(text)?;
    let magnitude = number.magnitude.filter(|_| number.rest_ok)?;
    let value = if number.negative { magnitude.wrapping_neg() } else { magnitude };
    // A minus sign anywhere makes a value that looks negative an error.
    let suspicious = (value as i64) < 0 && text.contains(&b'-');
    (!suspicious).then_some(value)
}

/// An unsigned 32-bit number; longer ones wrap.
pub fn parse_u32(text: &[u8]) -> Option<u32> {
    parse_u64(text).map(|value| value as u32)
}

/// A signed 32-bit number; longer ones wrap, up to 64 bits.
pub fn parse_i32(text: &[u8]) -> Option<i32> {
    let number = scan(text)?;
    let magnitude = number.magnitude.filter(|_| number.rest_ok)?;
    let value = if number.negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    };
    value.map(|value| value as i32)
}

/// A decimal fraction, in thousandths; what is finer is cut off.
pub fn parse_thousandths(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    let digits = whole.len() + fraction.len();
    if !(1..=15).contains(&digits) || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let padded = fraction.iter().copied().chain([b'0'; 3]).take(3);
    let value = whole.iter().copied().chain(padded).fold(0, |n, b| n * 10 + i64::from(b - b'0'));
    Some(if negative { -value } else { value })
}

/// Writes `value` in decimal at the start of `out`; how many digits that were.
pub fn write_u64(out: &mut [u8], mut value: u64) -> usize {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let digits = &digits[at..];
    out[..digits.len()].copy_from_slice(digits);
    digits.len()
}

/// The same for 32 bits.
pub fn write_u32(out: &mut [u8], value: u32) -> usize {
    write_u64(out, u64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_memcached_reads_them() {
        assert_eq!(parse_u64(b"0"), Some(0));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"-1"), None);
        assert_eq!(parse_u64(b"-0"), Some(0));
        assert_eq!(parse_u64(b"-18446744073709551615"), Some(1));
        assert_eq!(parse_u64(b"+7"), Some(7));
        assert_eq!(parse_u64(b"\t7\tx"), Some(7));
        assert_eq!(parse_u64(b"7 "), Some(7));
        assert_eq!(parse_u64(b"7\0x"), Some(7));
        assert_eq!(parse_u64(b"7x"), None);
        assert_eq!(parse_u64(b""), None);
        assert_eq!(parse_u64(b"-"), None);
        assert_eq!(parse_u32(b"4294967296"), Some(0));
        assert_eq!(parse_i32(b"-1"), Some(-1));
        assert_eq!(parse_i32(b"2147483648"), Some(i32::MIN));
        assert_eq!(parse_i32(b"9223372036854775808"), None);
        assert_eq!(parse_i32(b"-9223372036854775808"), Some(0));
        assert_eq!(parse_i32(b"1.5"), None);
    }

    #[test]
    fn fractions_are_thousandths() {
        for (text, expected) in [
            ("0.2", Some(200)),
            ("2", Some(2000)),
            ("-.5", Some(-500)),
            ("1.23456", Some(1234)),
            (".", None),
            ("x", None),
            ("", None),
            ("1.2.3", None),
        ] {
            assert_eq!(parse_thousandths(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        let mut out = [0; 20];
        for value in [0, 9, 10, 12345, u64::MAX] {
            let len = write_u64(&mut out, value);
            assert_eq!(core::str::from_utf8(&out[..len]).unwrap().parse(), Ok(value));
        }
    }
}
