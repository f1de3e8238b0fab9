//! Round trips, and archives that lie.

use super::*;

fn sample() -> Vec<u8> {
    build(&[("kv", b"first"), ("kernel.sym", &[7; 100]), ("empty", b"")]).unwrap()
}

#[test]
fn what_was_packed_is_found_again() {
    let bytes = sample();
    let a = Archive::parse(&bytes).unwrap();
    assert_eq!(a.find("kv"), Some(&b"first"[..]));
    assert_eq!(a.find("kernel.sym"), Some(&[7u8; 100][..]));
    assert_eq!(a.find("empty"), Some(&b""[..]));
    assert_eq!(a.find("k"), None);
    assert_eq!(a.members().count(), 3);
    let full = "n".repeat(NAME_MAX);
    let bytes = build(&[(&full, b"x")]).unwrap();
    assert_eq!(Archive::parse(&bytes).unwrap().find(&full), Some(&b"x"[..]));
}

#[test]
fn names_that_do_not_fit_are_refused_when_building() {
    assert_eq!(build(&[("ok", b""), ("", b"")]), Err(BuildError::BadName(1)));
    assert_eq!(build(&[(&"n".repeat(NAME_MAX + 1), b"")]), Err(BuildError::BadName(0)));
}

#[test]
fn every_truncation_is_an_error_or_still_consistent() {
    let bytes = sample();
    for n in 0..bytes.len() {
        if let Ok(a) = Archive::parse(&bytes[..n]) {
            assert_eq!(a.members().count(), 3, "cut at {n}");
        }
    }
}

#[test]
fn flipping_any_byte_never_panics_and_never_reads_outside() {
    let good = sample();
    for at in 0..HEADER + 3 * RECORD {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(a) = Archive::parse(&bad) {
                assert!(a.members().all(|(n, c)| !n.is_empty() && c.len() <= bad.len()));
            }
        }
    }
}

#[test]
fn a_length_that_wraps_is_refused() {
    let mut bad = sample();
    bad[HEADER + NAME_MAX + 8..HEADER + NAME_MAX + 16].fill(0xFF);
    assert_eq!(Archive::parse(&bad).unwrap_err(), ArchiveError::BadRange(0));
    let mut bad = sample();
    bad[8..12].fill(0xFF);
    assert_eq!(Archive::parse(&bad).unwrap_err(), ArchiveError::BadCount(u32::MAX));
}
