//! Machines as they are, and random ones against a page-by-page count.

use super::*;
use std::format;
use std::vec::Vec;

const MIB: u64 = 1 << 20;
const LOW: u64 = 8 * MIB;

fn span(start: u64, end: u64) -> Span {
    Span { start, end }
}

/// 4 GiB with the hole below 4 GiB, an image at 2 MiB and an archive.
const PC: [Span; 3] = [
    Span { start: 0x1000, end: 0x9_F000 },
    Span { start: MIB, end: 0xC000_0000 },
    Span { start: 0x1_0000_0000, end: 0x1_4000_0000 },
];
const MONITOR: [Span; 3] = [
    Span { start: 0, end: MIB },
    Span { start: 2 * MIB, end: 7 * MIB + 0x1000 },
    Span { start: 0xB000_0000, end: 0xB012_3000 },
];

#[test]
fn two_dataplanes_and_the_rest() {
    let wanted = [Memory::Bytes(96 * MIB), Memory::Rest, Memory::Bytes(2048 * MIB)];
    let p = place(&PC, &MONITOR, LOW, &wanted).unwrap();
    assert_eq!(p[0].bytes(), 96 * MIB);
    assert_eq!((p[0].low.bytes(), p[0].ram.len()), (LOW, 1));
    assert_eq!((p[2].bytes(), p[2].ram.len()), (2048 * MIB, 1));
    let all: u64 = p.iter().map(Place::bytes).sum();
    // Below 3 GiB from 8 MiB on but for the archive's 2 MiB, and 1 GiB above 4.
    assert_eq!(all, 3072 * MIB - 8 * MIB - 2 * MIB + 1024 * MIB);
}

#[test]
fn alone_it_gets_everything() {
    let p = place(&PC, &MONITOR, LOW, &[Memory::Rest]).unwrap();
    assert_eq!(p[0].bytes(), 3072 * MIB - 8 * MIB - 2 * MIB + 1024 * MIB);
    assert!(p[0].ram.iter().all(|r| r.start >= LOW));
}

#[test]
fn what_is_not_there_is_not_given() {
    let small = [span(0, 64 * MIB)];
    let error = place(&small, &[], LOW, &[Memory::Bytes(96 * MIB)]).unwrap_err();
    assert_eq!(error, PlaceError::NoMemory { dataplane: 0, wanted: 96 * MIB, left: 56 * MIB });
    assert_eq!(format!("{error}"), "dataplane 0 wants 96 MiB of memory, 56 are left");
    assert!(place(&small, &[], LOW, &[Memory::Bytes(64 * MIB)]).is_ok());
    assert!(place(&small, &[], LOW, &[Memory::Bytes(LOW)]).is_err(), "no RAM beside the image");
    assert_eq!(place(&small, &[], MIB, &[Memory::Rest]).unwrap_err(), PlaceError::BadLow);
    assert_eq!(place(&small, &[], 0, &[Memory::Rest]).unwrap_err(), PlaceError::BadLow);
    assert!(place(&small, &[], LOW, &[Memory::Rest; 17]).is_err());
    assert!(place(&[], &[], LOW, &[Memory::Rest]).is_err());
    let wraps = [span(0, u64::MAX)];
    let everything = place(&wraps, &[], LOW, &[Memory::Rest]).unwrap();
    assert_eq!(everything[0].bytes(), align_down(u64::MAX, LARGE_PAGE));
}

#[test]
fn too_many_pieces_are_told() {
    let usable: Vec<Span> = (1..60).map(|i| span(i * 32 * MIB, i * 32 * MIB + 4 * MIB)).collect();
    let mut usable2 = usable.clone();
    usable2.push(span(1 << 40, (1 << 40) + LOW));
    let error = place(&usable2, &[], LOW, &[Memory::Bytes(100 * MIB)]).unwrap_err();
    assert_eq!(error, PlaceError::Fragmented { dataplane: 0 });
    let p = place(&usable2, &[], LOW, &[Memory::Rest]).unwrap();
    assert_eq!((p[0].ram.len(), p[0].bytes()), (16, LOW + 64 * MIB));
}

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Every 2 MiB page has at most one owner, was usable, is not the monitor's; sizes are what was asked.
#[test]
fn random_machines_are_divided_without_overlap() {
    let (mut placed, mut refused) = (0, 0);
    for seed in 1..4000u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut random = |n: u64, max: u64| -> Vec<Span> {
            let one = |rng: &mut Rng| {
                let start = rng.next(1024 * MIB) & !0xFFF;
                span(start, start + (rng.next(max) & !0xFFF))
            };
            (0..rng.next(n)).map(|_| one(&mut rng)).collect()
        };
        let (usable, reserved) = (random(8, 600 * MIB), random(8, 40 * MIB));
        let mut wanted = Vec::new();
        for i in 0..1 + rng.next(4) {
            let rest = i == 1 && rng.next(2) == 0;
            let bytes = (16 + rng.next(60)) * 2 * MIB;
            wanted.push(if rest { Memory::Rest } else { Memory::Bytes(bytes) });
        }
        let Ok(places) = place(&usable, &reserved, LOW, &wanted) else {
            refused += 1;
            continue;
        };
        placed += 1;
        let mut owned = std::collections::BTreeSet::new();
        for (place, wanted) in places.iter().zip(&wanted) {
            assert_eq!(place.low.bytes(), LOW);
            if let Memory::Bytes(bytes) = wanted {
                assert_eq!(place.bytes(), *bytes, "seed {seed}");
            }
            assert!(place.ram.is_sorted() && place.ram.iter().all(|r| r.start >= LOW), "{seed}");
            for s in place.ram.iter().chain([&place.low]) {
                assert!(s.start < s.end && (s.start | s.end) % LARGE_PAGE == 0);
                for page in s.start / LARGE_PAGE..s.end / LARGE_PAGE {
                    let (a, b) = (page * LARGE_PAGE, (page + 1) * LARGE_PAGE);
                    assert!(owned.insert(page), "seed {seed}: {a:#x} has two owners");
                    assert!(
                        !reserved.iter().any(|r| r.start < r.end.min(b) && a < r.end),
                        "{seed}: {a:#x}"
                    );
                    let is_usable = usable.iter().any(|u| u.start <= a && b <= u.end);
                    assert!(is_usable, "seed {seed}: {a:#x}");
                }
            }
        }
    }
    assert!(placed > 500 && refused > 100, "{placed} {refused}");
}
