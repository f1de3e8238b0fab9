//! A CPU that has everything, and what of it a dataplane sees.

use super::*;
use crate::vmx::capability::Instructions;

const ALL: Leaf = Leaf { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };

fn asker() -> Asker {
    Asker {
        apic_id: 0x105,
        cr4: 0,
        page: 0x12_3456_7000,
        tsc_khz: 2_999_998,
        instructions: Instructions { rdtscp: true, invpcid: true, xsaves: true },
    }
}

fn has(word: u32, bit: u32) -> bool {
    word >> bit & 1 != 0
}

#[test]
fn the_monitors_leaves() {
    let l = answer(0x4000_0000, 0, ALL, &asker());
    let name = [l.ebx, l.ecx, l.edx].map(u32::to_le_bytes).concat();
    assert_eq!((l.eax, &name[..]), (0x4000_0010, &b"IXmonitorIX\0"[..]));
    let l = answer(0x4000_0001, 0, ALL, &asker());
    assert_eq!(l, Leaf { eax: 0x3456_7000, ebx: 0x12, ecx: 0, edx: 0 });
    let l = answer(0x4000_0010, 0, ALL, &asker());
    assert_eq!(l, Leaf { eax: 2_999_998, ..Leaf::default() });
    for leaf in (0x4000_0002..0x4000_0010).chain([0x4000_0011, 0x4000_0100]) {
        assert_eq!(answer(leaf, 0, ALL, &asker()), Leaf::default());
    }
}

#[test]
fn features_that_would_exit_are_hidden() {
    let l = answer(1, 0, ALL, &asker());
    for hidden in [2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15, 18, 24, 27] {
        assert!(!has(l.ecx, hidden), "leaf 1 ECX {hidden}");
    }
    for hidden in [11, 12, 14, 18, 21, 22, 29, 30, 31] {
        assert!(!has(l.edx, hidden), "leaf 1 EDX {hidden}");
    }
    assert!(has(l.ecx, 31) && has(l.ecx, 21) && has(l.ecx, 30), "hypervisor, x2APIC, RDRAND");
    assert_eq!(l.ebx >> 24, 5, "the low 8 bits of the APIC id");
    // What the kernel's boot code demands (boot.S): PAE, MSR, TSC, APIC, PGE, FXSR, SSE, SSE2.
    assert!([6, 5, 4, 9, 13, 24, 25, 26].iter().all(|n| has(l.edx, *n)));
    let l = answer(7, 0, ALL, &asker());
    assert!(has(l.ebx, 7) && has(l.ebx, 20) && has(l.ecx, 2), "SMEP, SMAP, UMIP");
    for hidden in [1, 2, 12, 14, 15, 22, 25] {
        assert!(!has(l.ebx, hidden), "leaf 7 EBX {hidden}");
    }
    for hidden in [3, 4, 5, 7, 13, 16, 23, 24, 29, 30, 31] {
        assert!(!has(l.ecx, hidden), "leaf 7 ECX {hidden}");
    }
    for hidden in [5, 9, 18, 19, 20, 22, 24, 25, 26, 27, 28, 29, 30, 31] {
        assert!(!has(l.edx, hidden), "leaf 7 EDX {hidden}");
    }
    assert_eq!(answer(7, 1, ALL, &asker()), Leaf::default());
    let l = answer(0x8000_0001, 0, ALL, &asker());
    assert!(has(l.edx, 29) && has(l.edx, 20) && has(l.edx, 11), "64-bit mode, NX, SYSCALL");
    assert!(!has(l.ecx, 2), "SVM");
}

#[test]
fn a_cpu_that_has_nothing_shows_nothing() {
    let none = Leaf::default();
    let l = answer(1, 0, none, &asker());
    assert_eq!((l.ecx, l.edx), (1 << 31, 0));
    for leaf in [7, 0xD, 0x8000_0001, 0x8000_0007] {
        assert_eq!(answer(leaf, 0, none, &asker()), none, "{leaf:#x}");
    }
}

#[test]
fn instructions_need_their_control() {
    let bare = Asker { instructions: Instructions::default(), ..asker() };
    for (leaf, sub, word, bit) in [
        (7, 0, (|l: Leaf| l.ebx) as fn(Leaf) -> u32, 10),
        (7, 0, |l| l.ecx, 22),
        (0x8000_0001, 0, |l| l.edx, 27),
        (0xD, 1, |l| l.eax, 3),
    ] {
        assert!(has(word(answer(leaf, sub, ALL, &asker())), bit), "{leaf:#x}");
        assert!(!has(word(answer(leaf, sub, ALL, &bare)), bit), "{leaf:#x}");
    }
}

#[test]
fn osxsave_follows_the_guests_cr4() {
    let on = Asker { cr4: 1 << 18, ..asker() };
    assert!(has(answer(1, 0, Leaf::default(), &on).ecx, 27));
    assert!(!has(answer(1, 0, ALL, &asker()).ecx, 27));
}

#[test]
fn xsave_state_is_what_xcr0_may_have() {
    let l = answer(0xD, 0, ALL, &asker());
    assert_eq!((l.eax, l.edx), (0xE7, 0));
    assert_eq!(answer(0xD, 1, ALL, &asker()), Leaf { eax: 0xF, ebx: u32::MAX, ..Leaf::default() });
    assert_eq!(answer(0xD, 2, ALL, &asker()), ALL);
    for sub in [3, 4, 8, 9, 17, 18, 64, u32::MAX] {
        assert_eq!(answer(0xD, sub, ALL, &asker()), Leaf::default(), "{sub}");
    }
}

#[test]
fn xcr0_takes_only_what_a_cpu_takes() {
    let all = u64::MAX;
    for good in [1, 3, 7, 0xE7] {
        assert!(xcr0_allowed(good, all), "{good:#x}");
    }
    for bad in [0, 2, 5, 4, 6, 0x27, 0x67, 0xE3, 0xE6, 0x207, 0x1F, 1 << 63 | 1, 0x6_00E7] {
        assert!(!xcr0_allowed(bad, all), "{bad:#x}");
    }
    assert!(!xcr0_allowed(7, 3) && xcr0_allowed(3, 3), "only what the CPU has");
}

#[test]
fn topology_has_the_cores_own_id() {
    for leaf in [0xB, 0x1F] {
        let l = answer(leaf, 1, Leaf { eax: 4, ebx: 8, ecx: 0x201, edx: 99 }, &asker());
        assert_eq!(l, Leaf { eax: 4, ebx: 8, ecx: 0x201, edx: 0x105 });
    }
}

#[test]
fn leaves_that_are_not_listed_are_empty() {
    for leaf in [3, 5, 9, 0xA, 0xC, 0xF, 0x10, 0x12, 0x14, 0x17, 0x20, 0x8000_0009, 0xC000_0000] {
        assert_eq!(answer(leaf, 0, ALL, &asker()), Leaf::default(), "{leaf:#x}");
    }
    let l = answer(0, 0, ALL, &asker());
    assert_eq!((l.eax, l.ebx), (0x1F, u32::MAX), "the vendor is told");
    assert_eq!(answer(0x8000_0000, 0, ALL, &asker()).eax, 0x8000_0008);
    assert_eq!(answer(0, 0, Leaf { eax: 0xD, ..ALL }, &asker()).eax, 0xD);
}
