//! Every length around the thresholds, every small misalignment, guard bytes on both sides.

use super::*;
use std::vec::Vec;

const LENGTHS: [usize; 28] = [
    0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 66, 127, 128, 129, 191, 192,
    200, 1000, 4099,
];

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 131 + i / 251) as u8).collect()
}

#[test]
fn memcpy_copies_exactly_its_bytes_at_any_alignment() {
    for n in LENGTHS {
        for (s, d) in [(0, 0), (1, 0), (0, 1), (3, 7), (15, 8)] {
            let src = pattern(n + 32);
            let mut dst = std::vec![0xEE; n + 64];
            // SAFETY: both vectors are longer than the offset plus `n`.
            let r = unsafe { memcpy(dst.as_mut_ptr().add(16 + d), src.as_ptr().add(s), n) };
            assert_eq!(r, dst[16 + d..].as_mut_ptr());
            assert_eq!(&dst[16 + d..16 + d + n], &src[s..s + n], "n={n} s={s} d={d}");
            assert!(dst[..16 + d].iter().all(|&b| b == 0xEE), "before, n={n}");
            assert!(dst[16 + d + n..].iter().all(|&b| b == 0xEE), "after, n={n}");
        }
    }
}

#[test]
fn memmove_agrees_with_copy_within_for_every_overlap() {
    for n in LENGTHS {
        for shift in [1usize, 2, 7, 8, 15, 16, 17, 63, 64, 65, 100] {
            for forward in [true, false] {
                let mut ours = pattern(n + shift + 8);
                let mut theirs = ours.clone();
                let (from, to) = if forward { (0, shift) } else { (shift, 0) };
                theirs.copy_within(from..from + n, to);
                // SAFETY: the vector holds `n + shift` bytes.
                unsafe { memmove(ours.as_mut_ptr().add(to), ours.as_ptr().add(from), n) };
                assert_eq!(ours, theirs, "n={n} shift={shift} forward={forward}");
            }
        }
    }
}

#[test]
fn memset_fills_exactly_its_bytes() {
    for n in LENGTHS {
        for d in 0..17 {
            let mut buf = std::vec![0x11; n + 64];
            // SAFETY: the vector holds `n + 64` bytes and `d + 16 < 64`.
            unsafe { memset(buf.as_mut_ptr().add(16 + d), 0x1AB, n) };
            assert!(buf[..16 + d].iter().all(|&b| b == 0x11));
            assert!(buf[16 + d..16 + d + n].iter().all(|&b| b == 0xAB), "n={n} d={d}");
            assert!(buf[16 + d + n..].iter().all(|&b| b == 0x11));
        }
    }
}

#[test]
fn memcmp_orders_by_the_first_difference() {
    for n in LENGTHS {
        let a = pattern(n);
        // SAFETY: both areas are `n` bytes long, here and below.
        assert_eq!(unsafe { memcmp(a.as_ptr(), a.as_ptr(), n) }, 0);
        for at in 0..n.min(300) {
            let mut b = a.clone();
            b[at] = b[at].wrapping_add(100);
            if at + 1 < n {
                b[at + 1] = b[at + 1].wrapping_sub(77);
            }
            // SAFETY: as above.
            let (x, y) =
                unsafe { (memcmp(a.as_ptr(), b.as_ptr(), n), bcmp(b.as_ptr(), a.as_ptr(), n)) };
            assert_eq!(x.signum(), if a[at] < b[at] { -1 } else { 1 }, "n={n} at={at}");
            assert_eq!(y.signum(), -x.signum());
        }
    }
}

#[test]
fn strlen_counts_to_the_first_nul() {
    // SAFETY: both literals are NUL-terminated.
    unsafe {
        assert_eq!(strlen(c"".as_ptr().cast()), 0);
        assert_eq!(strlen(c"ready".as_ptr().cast()), 5);
    }
}
