//! Flow control by registers.
use crate::rig::{Rig, tcp};

/// Frames without a descriptor wait, and thresholds of 8 and 4 KB.
fn rig() -> Rig {
    let mut rig = Rig::running();
    rig.write(0x1014, 2 | 1 << 25);
    rig.write(0x3200, 0xabcd_0100);
    rig.write(0x3220, 4096 | 1 << 31);
    rig.write(0x3260, 8192 | 1 << 31);
    rig.write(0x32a0, 0x40);
    rig.write(0x3d00, 1 << 3);
    rig
}

/// Posts no more descriptors, and fills the ring and 9 KB more.
fn fill(rig: &mut Rig) {
    while rig.read(0x1010) != rig.read(0x1018) {
        assert!(rig.receive(&tcp(&[1; 946])));
    }
    for _ in 0..9 {
        assert!(rig.receive(&tcp(&[1; 946])));
    }
}

fn sent(rig: &mut Rig) -> Vec<u16> {
    let own = ix_model_ixgbe::Options::default().mac;
    let sent = std::mem::take(&mut rig.wire.sent);
    let quanta = |f: Vec<u8>| {
        assert_eq!((&f[..6], &f[6..12], f.len()), (&[1, 0x80, 0xc2, 0, 0, 1][..], &own[..], 60));
        u16::from_be_bytes([f[16], f[17]])
    };
    sent.into_iter().map(quanta).collect()
}

fn free_all(rig: &mut Rig) {
    let head = rig.read(0x1010);
    let ring = rig.read(0x1008) / 16;
    rig.write(0x1018, (head + ring - 1) % ring);
}

#[test]
fn a_full_buffer_tells_the_partner_again_and_again_until_it_is_half_empty() {
    let mut rig = rig();
    fill(&mut rig);
    assert_eq!(sent(&mut rig), [0x100]);
    // 0x100 less 0x40 units of 51.2 ns.
    let period = 0xc0 * 512 / 10;
    rig.tick(10_000_000 + period - 1);
    assert_eq!(sent(&mut rig), []);
    for n in 1..4 {
        rig.tick(10_000_000 + n * period);
        assert_eq!(sent(&mut rig), [0x100]);
    }
    free_all(&mut rig);
    assert_eq!(sent(&mut rig), [0]);
    rig.tick(20_000_000);
    assert_eq!(sent(&mut rig), []);
    assert_eq!((rig.read(0x3f68), rig.read(0x3f60)), (4, 1));
    assert_eq!(rig.read(0x4080), 5, "GPTC");
}

#[test]
fn it_is_told_to_go_on_only_if_asked_for_and_to_stop_only_where_that_is_on() {
    let mut rig = rig();
    rig.write(0x3220, 4096);
    fill(&mut rig);
    assert_eq!(sent(&mut rig), [0x100]);
    free_all(&mut rig);
    assert_eq!(sent(&mut rig), []);
    for (register, value) in [(0x3d00, 0), (0x3d00, 2 << 3), (0x3260, 8192)] {
        let mut rig = self::rig();
        rig.write(register, value);
        fill(&mut rig);
        assert_eq!(sent(&mut rig), [], "{register:#x}");
    }
}

#[test]
fn what_comes_is_obeyed_discarded_or_shown_to_the_host_as_mflcn_says() {
    let pause = |to: [u8; 6]| {
        let mut f = [&to[..], &[2, 0, 0, 0, 0, 9, 0x88, 8, 0, 1, 0, 10]].concat();
        f.resize(60, 0);
        f
    };
    let group = [1, 0x80, 0xc2, 0, 0, 1];
    let own = ix_model_ixgbe::Options::default().mac;
    for (mflcn, to, shown, held) in [
        (0, group, true, false),
        (1 << 1, group, true, false),
        (1 << 3, group, true, true),
        (1 << 3 | 1 << 1, group, false, true),
        (1 << 3 | 1 << 1, own, false, true),
        (1 << 3 | 1 << 1, [2, 0, 0, 0, 0, 8], false, false),
    ] {
        let mut rig = Rig::running();
        rig.write(0x5080, 1 << 8);
        rig.write(0x4294, mflcn);
        assert_eq!(rig.receive(&pause(to)), shown, "{mflcn:#x}");
        let at = rig.place(&tcp(&[1; 20]));
        let left = rig.send(&[[at, 74 | 1 << 24 | 1 << 25 | 1 << 27]]);
        assert_eq!(left.is_empty(), held, "{mflcn:#x}");
        rig.tick(10_000_512);
        assert_eq!(rig.wire.sent.len(), usize::from(held), "ten units are over");
    }
}
