//! Bit for bit, with the SDM's offsets typed once more.

use super::*;

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// How many bits of `b` are 0, and whether bit `n` is.
fn zeros(b: &[u8]) -> u32 {
    b.iter().map(|x| x.count_zeros()).sum()
}

fn is_zero(b: &[u8], n: usize) -> bool {
    b[n / 8] >> (n % 8) & 1 == 0
}

#[test]
fn every_msr_has_exactly_its_own_bits() {
    for n in 0..0x2000u32 {
        // SDM 25.6.9: byte offsets 0, 1024, 2048, 3072.
        for (msr, read_at, write_at) in [(n, 0, 2048), (0xC000_0000 + n, 1024, 3072)] {
            let mut b = MsrBitmap::none();
            b.allow(msr, Pass::Read).unwrap();
            assert!(is_zero(b.bytes(), read_at * 8 + n as usize) && zeros(b.bytes()) == 1);
            assert!(b.reads(msr) && !b.writes(msr));
            let mut b = MsrBitmap::none();
            b.allow(msr, Pass::Write).unwrap();
            assert!(is_zero(b.bytes(), write_at * 8 + n as usize) && zeros(b.bytes()) == 1);
            assert!(!b.reads(msr) && b.writes(msr));
            b.allow(msr, Pass::Both).unwrap();
            assert!(zeros(b.bytes()) == 2 && b.reads(msr) && b.writes(msr));
        }
    }
}

#[test]
fn msrs_outside_the_ranges_are_refused() {
    let mut b = MsrBitmap::none();
    for msr in [0x2000, 0x4000_0000, 0xBFFF_FFFF, 0xC000_2000, u32::MAX] {
        assert_eq!(b.allow(msr, Pass::Both), Err(NotCovered(msr)));
        assert!(!b.reads(msr) && !b.writes(msr));
    }
    assert_eq!(b, MsrBitmap::none());
}

#[test]
fn every_port_has_exactly_its_own_bit() {
    assert_eq!(align_of::<IoBitmap>(), 4096);
    assert_eq!((size_of::<IoBitmap>(), size_of::<MsrBitmap>()), (8192, 4096));
    for port in 0..=0xFFFFu16 {
        let mut b = IoBitmap::none();
        b.allow(port, 1);
        // SDM 25.6.4: A holds 0000h to 7FFFh, B the others.
        let (page, n) = if port < 0x8000 { (0, port) } else { (4096, port - 0x8000) };
        assert!(is_zero(&b.bytes()[page..page + 4096], usize::from(n)));
        assert!(b.passes(port, 1) && !b.passes(port, 2) && !b.passes(port.wrapping_add(1), 1));
        if port % 97 == 0 {
            assert_eq!(zeros(b.bytes()), 1);
        }
    }
}

#[test]
fn an_access_passes_only_if_all_its_ports_do() {
    let mut rng = Rng(0x1234_5678_9ABC_DEF1);
    for _ in 0..200 {
        let mut b = IoBitmap::none();
        let mut model = std::vec![false; 0x1_0004];
        for _ in 0..10 {
            let base = [0x3F8, 0x7FF8, 0xFFF8][rng.next(3) as usize];
            let (first, count) = (base + rng.next(8) as u16, rng.next(9) as u16);
            b.allow(first, count);
            let end = (usize::from(first) + usize::from(count)).min(0x1_0000);
            model[usize::from(first)..end].fill(true);
        }
        for port in (0x3F0..0x410).chain(0x7FF0..0x8010).chain(0xFFF0..=0xFFFF) {
            for width in [1u8, 2, 4] {
                let all = (0..usize::from(width)).all(|i| model[usize::from(port) + i]);
                assert_eq!(b.passes(port, width), all, "{port:#x} {width}");
            }
        }
    }
}

/// What reaches other cores, or raises SMIs, is never written past the monitor.
#[test]
fn the_x2apic_list_lets_nothing_out() {
    let mut b = MsrBitmap::none();
    for (msr, pass) in X2APIC_PASSED {
        b.allow(*msr, *pass).unwrap();
    }
    for never in [0x830, 0x82F, 0x833, 0x834, 0x835, 0x836, 0x83F, 0x1B] {
        assert!(!b.writes(never), "{never:#x}");
    }
    // EOI, TPR and the timer: the steady state has no exits.
    for hot in [0x80B, 0x808, 0x838] {
        assert!(b.writes(hot), "{hot:#x}");
    }
    // Everything outside the x2APIC's range stays as it was.
    assert!((0..0x2000).filter(|m| !(0x800..0x840).contains(m)).all(|m| !b.reads(m)));
    assert!(!b.reads(0x80E), "there is no such register in x2APIC mode: reading it is a #GP");
}

#[test]
fn lint_may_only_be_masked() {
    assert!(lint_allowed(0x1_0000) && lint_allowed(0x1_00FF));
    for bad in [0, 0x700, 0x1_0700, 0x1_0200, 0x1_0400, 1 << 32 | 0x1_0000, 0x1_8000] {
        assert!(!lint_allowed(bad), "{bad:#x}");
    }
}

#[test]
fn no_vector_below_32_becomes_an_interrupt() {
    const MASKED: u64 = 1 << 16;
    for msr in X2APIC_VECTORS {
        assert!(vector_allowed(msr, 32) && vector_allowed(msr, 0xFF), "{msr:#x}");
        assert!(!vector_allowed(msr, 31) && !vector_allowed(msr, 0), "{msr:#x}");
        assert!(!vector_allowed(msr, 0x40 | 1 << 18), "TSC deadline, reserved bits: {msr:#x}");
        assert!(X2APIC_PASSED.contains(&(msr, Pass::Read)), "{msr:#x}");
    }
    assert!(vector_allowed(0x832, MASKED) && vector_allowed(0x837, MASKED | 3));
    assert!(vector_allowed(0x832, 1 << 17 | 0xF2) && !vector_allowed(0x837, 1 << 17 | 0xF2));
    assert!(vector_allowed(0x80F, 0x1FF) && !vector_allowed(0x80F, MASKED | 0xFF));
    assert!(!vector_allowed(0x80F, 0x10F), "it is never masked");
}
