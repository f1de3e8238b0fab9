//! The allocator against a plain array of booleans, one per page.

use super::*;
use std::vec::Vec;

const PAGES: usize = 4096;

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[test]
fn random_allocations_and_frees_agree_with_a_page_map() {
    for seed in 1..40u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut a = FrameAllocator::new();
        a.free(Phys(0), PAGES as u64 * PAGE).unwrap();
        let mut used = std::vec![false; PAGES];
        let mut held: Vec<(u64, u64)> = Vec::new();
        for _ in 0..400 {
            if rng.next(3) < 2 {
                let align = PAGE << rng.next(10);
                let len = (1 + rng.next(20)) * PAGE;
                let got = if rng.next(2) == 0 {
                    a.alloc_low(len, align)
                } else {
                    a.alloc_high(len, align)
                };
                let Some(p) = got else { continue };
                assert_eq!(p.0 % align, 0);
                for page in p.0 / PAGE..(p.0 + len) / PAGE {
                    assert!(!used[page as usize], "seed {seed}: page handed out twice");
                    used[page as usize] = true;
                }
                held.push((p.0, len));
            } else if !held.is_empty() {
                let (p, len) = held.swap_remove(rng.next(held.len() as u64) as usize);
                a.free(Phys(p), len).unwrap();
                assert_eq!(a.free(Phys(p), len), Err(FrameError::DoubleFree), "seed {seed}");
                used[(p / PAGE) as usize..((p + len) / PAGE) as usize].fill(false);
            }
            let free = used.iter().filter(|u| !**u).count() as u64 * PAGE;
            assert_eq!(a.free_bytes(), free, "seed {seed}");
        }
        for (p, len) in held {
            a.free(Phys(p), len).unwrap();
        }
        assert_eq!(a.len, 1, "seed {seed}: everything joined again");
    }
}

#[test]
fn large_frames_come_from_the_top_and_pages_from_the_bottom() {
    let mut a = FrameAllocator::new();
    a.free(Phys(0x1000), 64 << 20).unwrap();
    assert_eq!(a.alloc_page(), Some(Phys(0x1000)));
    assert_eq!(a.alloc_large(), Some(Phys(62 << 20)));
}

#[test]
fn reserving_takes_out_exactly_the_free_part() {
    let mut a = FrameAllocator::new();
    a.free(Phys(0x10_0000), 0x10_0000).unwrap();
    a.free(Phys(0x40_0000), 0x10_0000).unwrap();
    a.reserve(Phys(0x18_0001), 0x30_0000).unwrap();
    assert_eq!(a.free_bytes(), 0x10_0000 + 0x10_0000 - 0x8_0000 - 0x8_1000);
    a.reserve(Phys(0x11_0000), 0x1000).unwrap();
    assert_eq!(a.alloc_low(0x1_0000, PAGE), Some(Phys(0x10_0000)));
    assert_eq!(a.alloc_low(PAGE, PAGE), Some(Phys(0x11_1000)));
}

#[test]
fn bad_ranges_are_refused() {
    let mut a = FrameAllocator::new();
    assert_eq!(a.free(Phys(1), PAGE), Err(FrameError::BadRange));
    assert_eq!(a.free(Phys(0), 0), Err(FrameError::BadRange));
    assert_eq!(a.free(Phys(u64::MAX - PAGE + 1), PAGE), Err(FrameError::BadRange));
    assert_eq!(a.alloc_page(), None);
    assert_eq!(a.alloc_large(), None);
}

#[test]
fn a_full_range_list_refuses_and_keeps_its_count() {
    let mut a = FrameAllocator::new();
    for i in 0..MAX_RANGES as u64 {
        a.free(Phys(i * 2 * PAGE), PAGE).unwrap();
    }
    let before = a.free_bytes();
    assert_eq!(a.free(Phys(1 << 40), PAGE), Err(FrameError::TooFragmented));
    assert_eq!(a.free_bytes(), before);
    a.free(Phys(PAGE), PAGE).unwrap();
}
