//! The CMOS clock's registers as Unix time.

/// Registers seconds, minutes, hours, day, month, year; `binary` and `hours24` from status register B.
#[must_use]
pub fn unix_seconds(raw: [u64; 6], binary: bool, hours24: bool) -> Option<u64> {
    let pm = !hours24 && raw[2] & 0x80 != 0;
    let decode = |v: u64| if binary { v } else { (v >> 4) * 10 + (v & 15) };
    let [second, minute, _, day, month, year] = raw.map(decode);
    let mut hour = decode(raw[2] & 0x7F);
    if !hours24 {
        hour = hour % 12 + if pm { 12 } else { 0 };
    }
    let ok = second < 61 && minute < 60 && hour < 24 && (1..=31).contains(&day);
    if !ok || !(1..=12).contains(&month) || year > 99 {
        return None;
    }
    Some(days(2000 + year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01, proleptic Gregorian calendar (from March, so that leap days come last).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let y = if month <= 2 { year - 1 } else { year };
    let m = (month + 9) % 12;
    let of_year = (153 * m + 2) / 5 + day - 1;
    365 * y + y / 4 - y / 100 + y / 400 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_come_out_right() {
        assert_eq!(unix_seconds([0, 0, 0, 1, 1, 0], true, true), Some(946_684_800));
        let bcd = [0x59, 0x59, 0x23, 0x29, 0x02, 0x24];
        assert_eq!(unix_seconds(bcd, false, true), Some(1_709_251_199));
        // 12 hours: 12:30 PM is noon, 12:30 AM midnight.
        assert_eq!(unix_seconds([0, 30, 0x8C, 1, 1, 0], true, false), Some(946_684_800 + 45_000));
        assert_eq!(unix_seconds([0, 30, 12, 1, 1, 0], true, false), Some(946_684_800 + 1800));
    }

    #[test]
    fn rubbish_is_refused() {
        assert_eq!(unix_seconds([0xFF; 6], true, true), None);
        assert_eq!(unix_seconds([0; 6], true, true), None);
    }
}
