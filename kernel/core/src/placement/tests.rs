//! Random maps and placements against one flag per page: what is kept is never handed out, and
//! what is free is not lost.

use super::*;
use std::vec::Vec;

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Pages of the model machine: 3 MiB, with the first MiB in it.
const PAGES: u64 = 768;
const IMAGE: (u64, u64) = (0x10_0000, 0x2_3450);

struct Machine {
    plan: Plan,
    /// Free according to the firmware and not kept by anyone.
    free: Vec<bool>,
    kept: Vec<(u64, u64)>,
}

/// RAM with holes, and things in any place, at any byte, next to each other or overlapping.
fn random(seed: u64) -> Machine {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut plan = Plan::new();
    let mut free = std::vec![false; PAGES as usize];
    plan.range(0, PAGES * PAGE, Kind::Usable);
    free.fill(true);
    let take = |free: &mut Vec<bool>, start: u64, len: u64| {
        for page in start / PAGE..(start + len).div_ceil(PAGE).min(PAGES) {
            free[page as usize] = false;
        }
    };
    for _ in 0..rng.next(6) {
        let (start, len) = (rng.next(PAGES) * PAGE, 1 + rng.next(20 * PAGE));
        // Not where the image is: that is another test.
        if start < IMAGE.0 + IMAGE.1 + PAGE && IMAGE.0 < start + len {
            continue;
        }
        let kind =
            [Kind::Reserved, Kind::AcpiNvs, Kind::AcpiReclaim, Kind::Bad][rng.next(4) as usize];
        plan.range(start, len, kind);
        take(&mut free, start, len);
    }
    plan.image(IMAGE.0, IMAGE.1).unwrap();
    take(&mut free, IMAGE.0, IMAGE.1);
    let mut kept = std::vec![IMAGE];
    let end = IMAGE.0 + IMAGE.1;
    for n in 0..1 + rng.next(8) {
        let start = match rng.next(5) {
            0 => end,                        // right behind the kernel, in its last page
            1 => end.next_multiple_of(PAGE), // in the page after
            2 => rng.next(0xA0 * PAGE),      // low memory
            3 => 0x1000,                     // where GRUB on EFI puts it
            _ => rng.next((PAGES - 40) * PAGE),
        };
        let mut len = 1 + rng.next(30 * PAGE);
        if start < IMAGE.0 {
            len = len.min(IMAGE.0 - start);
        } else if start < end {
            continue;
        }
        if n % 2 == 0 {
            plan.apart("module", start, len).unwrap();
        } else {
            plan.keep("information", start, len, Kind::Loader);
        }
        take(&mut free, start, len);
        kept.push((start, len));
    }
    Machine { plan, free, kept }
}

fn usable(plan: &Plan) -> impl Iterator<Item = (u64, u64)> + '_ {
    plan.map().entries().iter().filter(|e| e.kind == Kind::Usable).map(|e| (e.start, e.end))
}

#[test]
fn what_is_kept_is_never_allocated_and_all_else_is() {
    for seed in 1..3000 {
        let m = random(seed);
        let mut frames = FrameAllocator::new();
        fill(&mut frames, usable(&m.plan)).unwrap();
        let mut got = std::vec![false; PAGES as usize];
        let mut rng = Rng(seed);
        // By all three ways, until nothing is left.
        loop {
            let (len, frame) = match rng.next(3) {
                0 => (PAGE, frames.alloc_page()),
                1 => (3 * PAGE, frames.alloc_high(3 * PAGE, PAGE)),
                _ => (2 * PAGE, frames.alloc_low(2 * PAGE, 2 * PAGE)),
            };
            let Some(frame) = frame else {
                if len == PAGE {
                    break;
                }
                continue;
            };
            for &(start, bytes) in &m.kept {
                let apart = frame.0 + len <= start || start + bytes <= frame.0;
                assert!(apart, "seed {seed}: {frame:?} is in {start:#x} + {bytes:#x}");
            }
            for page in frame.0 / PAGE..(frame.0 + len) / PAGE {
                assert!(!got[page as usize], "seed {seed}: page {page} twice");
                got[page as usize] = true;
            }
        }
        let low = (LOW_END / PAGE) as usize;
        assert!(got[..low].iter().all(|g| !g), "seed {seed}: something of the first MiB");
        assert_eq!(got[low..], m.free[low..], "seed {seed}");
    }
}

#[test]
fn cores_start_in_a_page_that_nobody_else_has() {
    let mut none = 0;
    for seed in 1..3000 {
        let m = random(seed);
        let free = |page: &u64| m.free[*page as usize];
        let best = (1..REAL_MODE_END / PAGE).rev().find(free).map(|page| Phys(page * PAGE));
        let page = trampoline_page(usable(&m.plan));
        none += u32::from(page.is_none());
        // The highest of the best range; ranges are whole, so it is the highest of all.
        assert_eq!(page, best, "seed {seed}");
    }
    assert!(none < 100, "{none} machines without one");
}

#[test]
fn a_kernel_outside_usable_memory_is_named() {
    for (start, len, kind) in [
        (0x0u64, 0x12_0000u64, Kind::Reserved),
        (0x11_0000, 1, Kind::AcpiNvs),
        (0x12_3000, 0x8_0000, Kind::Bad),
    ] {
        let mut plan = Plan::new();
        plan.range(0, PAGES * PAGE, Kind::Usable);
        plan.range(start, len, kind);
        let error = plan.image(IMAGE.0, IMAGE.1).unwrap_err();
        assert!(matches!(error, Misplaced::Image(_)), "{error}");
    }
    // RAM that ends in the middle of it.
    let mut plan = Plan::new();
    plan.range(0, 0x11_0000, Kind::Usable);
    assert!(plan.image(IMAGE.0, IMAGE.1).is_err());
    assert!(Plan::new().image(IMAGE.0, IMAGE.1).is_err());
}

#[test]
fn a_module_over_the_kernel_is_named() {
    let mut plan = Plan::new();
    plan.range(0, PAGES * PAGE, Kind::Usable);
    plan.image(IMAGE.0, IMAGE.1).unwrap();
    for (start, len) in
        [(IMAGE.0, 1), (IMAGE.0 - 10, 11), (IMAGE.0 + IMAGE.1 - 1, 1), (0, u64::MAX)]
    {
        let error = plan.apart("module", start, len).unwrap_err();
        assert!(std::format!("{error}").contains("over the kernel"), "{error}");
    }
    assert_eq!(plan.apart("module", IMAGE.0 + IMAGE.1, 5), Ok(()));
    assert_eq!(plan.apart("module", IMAGE.0 - 5, 5), Ok(()));
}

#[test]
fn ranges_that_wrap_or_are_empty_do_no_harm() {
    let mut plan = Plan::new();
    plan.range(0, PAGES * PAGE, Kind::Usable);
    plan.image(IMAGE.0, IMAGE.1).unwrap();
    plan.keep("framebuffer", u64::MAX - 10, u64::MAX, Kind::Reserved);
    plan.keep("nothing", 0, 0, Kind::Reserved);
    assert_eq!(plan.areas().len(), 2);
    for n in 0..2 * AREAS_MAX as u64 {
        plan.keep("module", LOW_END * 2 + n * PAGE, 1, Kind::Loader);
    }
    assert_eq!(plan.areas().len(), AREAS_MAX);
    assert!(usable(&plan).all(
        |(start, end)| end <= LOW_END * 2 || start >= LOW_END * 2 + 2 * AREAS_MAX as u64 * PAGE
    ));
}
