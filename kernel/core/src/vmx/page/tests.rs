//! What one side writes the other reads; what is no page is refused; torn containments are not read.

use super::*;
use std::thread;
use std::vec::Vec;

fn memory(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0xDEAD_BEEF)).collect()
}

fn containment(n: u64) -> Containment {
    Containment {
        cause: Cause::EptViolation,
        core: 1,
        exit: 48,
        qualification: n,
        detail: n + 1,
        rip: n + 2,
        rsp: n + 3,
        cr3: n + 4,
        rflags: n + 5,
        tsc: n + 6,
    }
}

#[test]
fn what_the_monitor_writes_the_guest_reads() {
    let m = memory(words(4));
    let ours = Page::create(&m, "kvA", 4, (1, 3)).unwrap();
    let theirs = Page::open(&m).unwrap();
    assert_eq!((theirs.cores(), theirs.place(), theirs.lives()), (4, (1, 3), 0));
    assert_eq!(&theirs.name()[..5], b"kvA\0\0");
    ours.set_neighbour(2, "kvB");
    ours.set_neighbour(15, &"n".repeat(40));
    ours.set_neighbour(16, "nobody");
    assert_eq!(
        (theirs.find_neighbour(b"kvB"), theirs.find_neighbour(&[b'n'; 32])),
        (Some(2), Some(15))
    );
    // Whatever a client says is a name; its own is none of a neighbour.
    for name in [&b"kvA"[..], b"kv", b"kvB ", b"", b"\0", b"nobody", &[b'n'; 33]] {
        assert_eq!(theirs.find_neighbour(name), None, "{name:?}");
    }
    assert_eq!(
        (theirs.neighbour(1), theirs.neighbour(16), theirs.neighbour(255)),
        (None, None, None)
    );
    assert_eq!(theirs.neighbour(2).map(|name| name[2]), Some(b'B'));
    ours.set_lives(2);
    (0..5).for_each(|_| ours.count_exit(3, 52));
    ours.count_exit(3, 1000);
    assert_eq!(
        (theirs.exits(3, 52), theirs.exits(2, 52), theirs.exits(3, COUNTERS - 1)),
        (5, 0, 1)
    );
    assert_eq!(theirs.wish(2), Wish::Keep);
    ours.set_wish(2, Wish::Leave { deadline: 77 });
    assert_eq!((theirs.wish(2), theirs.wish(1)), (Wish::Leave { deadline: 77 }, Wish::Keep));
    ours.set_away(0, true);
    assert!(theirs.is_away(0) && !theirs.is_away(1));
    ours.count_leave(0, true);
    ours.count_leave(0, false);
    ours.count_leave(0, false);
    assert_eq!((theirs.leaves(0), theirs.lives()), ((2, 1), 2));
    assert_eq!(theirs.containment(), None);
    ours.set_containment(containment(10));
    assert_eq!(theirs.containment(), Some(containment(10)));
    ours.set_containment(containment(20));
    assert_eq!((theirs.containment(), theirs.containments()), (Some(containment(20)), 2));
}

#[test]
fn cores_that_are_not_there_do_no_harm() {
    let m = memory(words(2));
    let p = Page::create(&m, "x", 2, (0, 1)).unwrap();
    let before: Vec<u64> = m.iter().map(|w| w.load(Ordering::Relaxed)).collect();
    for core in [2, 3, 64, usize::MAX] {
        p.count_exit(core, 0);
        p.set_wish(core, Wish::Leave { deadline: 1 });
        p.set_away(core, true);
        p.count_leave(core, true);
        assert_eq!((p.exits(core, 0), p.wish(core), p.is_away(core)), (0, Wish::Keep, false));
    }
    assert_eq!(p.exits(0, usize::MAX), 0);
    let after: Vec<u64> = m.iter().map(|w| w.load(Ordering::Relaxed)).collect();
    assert_eq!(before, after);
}

#[test]
fn whatever_is_no_page_is_refused() {
    assert!(Page::open(&memory(1024)).is_none() && Page::open(&[]).is_none());
    assert!(Page::create(&memory(words(2) - 1), "x", 2, (0, 1)).is_none());
    assert!(Page::create(&memory(words(65)), "x", 65, (0, 1)).is_none());
    for (word, value) in [(WORD_MAGIC, 1), (WORD_VERSION, 1), (WORD_CORES, 65), (WORD_CORES, 40)] {
        let m = memory(words(4));
        Page::create(&m, "x", 4, (0, 1)).unwrap();
        assert_eq!(Page::len_of(&m[..4]), Some(words(4)));
        m[word].store(value, Ordering::Relaxed);
        assert!(Page::open(&m).is_none(), "{word}");
    }
    let m = memory(words(4));
    Page::create(&m, "x", 4, (0, 1)).unwrap();
    assert!(Page::open(&m[..words(4) - 512]).is_none(), "mapped too little");
    m[WORD_LEN].store(1 << 40, Ordering::Relaxed);
    assert_eq!(Page::len_of(&m), None);
    m[WORD_CONTAINMENT].store(99, Ordering::Relaxed);
    assert_eq!(words(64) % 512, 0);
}

#[test]
fn long_names_are_cut() {
    let m = memory(words(1));
    let p = Page::create(&m, &"n".repeat(40), 1, (0, 1)).unwrap();
    assert_eq!(p.name(), [b'n'; NAME_BYTES]);
}

#[test]
fn a_containment_is_read_whole_or_not_at_all() {
    let m = memory(words(1));
    let p = Page::create(&m, "x", 1, (0, 1)).unwrap();
    thread::scope(|s| {
        s.spawn(|| (0..200_000u64).for_each(|n| p.set_containment(containment(n * 100))));
        let mut last = 0;
        while last < 199_999 * 100 {
            if let Some(c) = p.containment() {
                assert_eq!(c, containment(c.qualification), "torn");
                assert!(c.qualification >= last);
                last = c.qualification;
            }
        }
    });
}

#[test]
fn causes_have_numbers_and_names() {
    for (i, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(cause as usize, i + 1);
        assert_eq!(Cause::from_number(cause as u64), Some(cause));
        assert!(!cause.name().is_empty());
    }
    assert_eq!(Cause::from_number(0), None);
    assert_eq!(Cause::from_number(16), None);
}
