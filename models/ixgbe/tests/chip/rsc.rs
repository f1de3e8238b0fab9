//! Receive side coalescing by registers: what becomes of segments, descriptor by descriptor.
use crate::rig::{BUFFERS, RING, Rig, is_right, sum, tcp};

const END: u64 = 3;
const DELAY: u64 = 4_000;

/// Up to 16 descriptors for a frame.
fn rig() -> Rig {
    let mut rig = Rig::running();
    rig.write(0x102c, 1 | 3 << 2);
    rig
}

/// A segment of a stream from a port, whose byte `at` is `at` too, and whether it says PSH.
fn segment(port: u16, at: usize, len: usize, pushes: bool) -> Vec<u8> {
    let payload: Vec<u8> = (at..at + len).map(|i| i as u8).collect();
    let mut f = tcp(&payload);
    f[34..36].copy_from_slice(&port.to_be_bytes());
    f[38..42].copy_from_slice(&(at as u32).to_be_bytes());
    f[42..46].copy_from_slice(&(7_000 + at as u32).to_be_bytes());
    f[47] = if pushes { 0x18 } else { 0x10 };
    let header = !sum(&f[14..34]);
    f[24..26].copy_from_slice(&header.to_be_bytes());
    let mut pseudo = f[26..34].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(((f.len() - 34) as u16).to_be_bytes());
    pseudo.extend(&f[34..]);
    let whole = !sum(&pseudo);
    f[50..52].copy_from_slice(&whole.to_be_bytes());
    assert!(is_right(&f));
    f
}

/// Whether, the end, and NEXTP, RSCCNT and length of a descriptor.
fn said(rig: &Rig, slot: u64) -> (bool, bool, u64, u64, u64) {
    let [first, word] = rig.received(slot);
    let end = word & END == END;
    (
        word & 1 != 0,
        end,
        if end { 0 } else { word >> 4 & 0xffff },
        first >> 17 & 0xf,
        word >> 32 & 0xffff,
    )
}

/// The bytes of a frame in these descriptors.
fn gathered(rig: &Rig, slots: &[u64]) -> Vec<u8> {
    let piece = |slot: &u64| rig.bytes(BUFFERS + 2048 * slot, said(rig, *slot).4 as usize);
    slots.iter().flat_map(piece).collect()
}

#[test]
fn segments_in_a_row_become_one_frame_over_as_many_descriptors_as_it_takes() {
    let mut rig = rig();
    for i in 0..5 {
        assert!(rig.receive(&segment(80, 1000 * i, 1000, false)));
    }
    // 5,054 bytes: two buffers are full, and the third has to wait for what may still come.
    assert_eq!(said(&rig, 0), (true, false, 1, 2, 2048));
    assert_eq!(said(&rig, 1), (true, false, 2, 3, 2048));
    assert!(!said(&rig, 2).0);
    rig.tick(10_000_000 + DELAY);
    assert_eq!(said(&rig, 2), (true, true, 0, 0, 958));
    let whole = gathered(&rig, &[0, 1, 2]);
    assert_eq!(u16::from_be_bytes([whole[16], whole[17]]), 5_040, "IPv4's length");
    assert_eq!(sum(&whole[14..34]), 0xffff, "and its sum");
    assert_eq!(whole[42..46], 11_000_u32.to_be_bytes(), "the newest acknowledgement");
    assert!(whole[54..].iter().enumerate().all(|(i, byte)| *byte == i as u8));
}

#[test]
fn flows_lie_between_each_other_and_each_descriptor_says_which_is_next() {
    let mut rig = rig();
    for i in 0..3 {
        for port in [80, 81] {
            assert!(rig.receive(&segment(port, 1400 * i, 1400, i == 2)));
        }
    }
    // Each has two full buffers before its end.
    assert_eq!([0, 1].map(|slot| said(&rig, slot).2), [2, 3]);
    assert_eq!([2, 3].map(|slot| said(&rig, slot).2), [4, 5]);
    for (port, slots) in [(80, [0, 2, 4]), (81, [1, 3, 5])] {
        assert!(said(&rig, slots[2]).1, "PSH is the end");
        let whole = gathered(&rig, &slots);
        assert_eq!(whole.len(), 54 + 4200);
        assert_eq!(u16::from_be_bytes([whole[34], whole[35]]), port);
        assert_eq!(whole[47], 0x18);
        assert!(whole[54..].iter().enumerate().all(|(i, byte)| *byte == i as u8));
    }
}

#[test]
fn what_does_not_go_on_ends_a_frame_and_comes_behind_it() {
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 3] = [
        |f| f[50] ^= 1,                        // A wrong sum.
        |f| *f = segment(80, 900, 100, false), // A hole before it.
        |f| f.truncate(54 + 2),                // Cut short: the sum is wrong then, too.
    ];
    for change in changes {
        let mut rig = rig();
        assert!(rig.receive(&segment(80, 0, 100, false)));
        assert!(rig.receive(&segment(80, 100, 100, false)));
        let mut odd = segment(80, 200, 100, true);
        change(&mut odd);
        assert!(rig.receive(&odd));
        rig.tick(10_000_000 + DELAY);
        assert_eq!(said(&rig, 0), (true, true, 0, 2, 254));
        let (done, end, _, count, _) = said(&rig, 1);
        assert!(done && end && count == 0, "one alone is as ever");
    }
}

#[test]
fn it_is_off_where_it_is_not_asked_for_and_a_frame_takes_no_more_descriptors_than_it_may() {
    let mut rig = Rig::running();
    for i in 0..3 {
        assert!(rig.receive(&segment(80, 100 * i, 100, false)));
        assert_eq!(said(&rig, i as u64), (true, true, 0, 0, 154));
    }
    rig.write(0x102c, 1);
    rig.write(0x5008, 1 << 5);
    assert!(rig.receive(&segment(80, 300, 100, false)));
    assert_eq!(said(&rig, 3), (true, true, 0, 0, 154));
    rig.write(0x5008, 0);
    // One descriptor for each: the second segment does not fit.
    assert!(rig.receive(&segment(80, 400, 1400, false)));
    assert!(rig.receive(&segment(80, 1800, 1400, false)));
    assert_eq!(said(&rig, 4), (true, true, 0, 0, 1454));
    rig.tick(10_000_000 + DELAY);
    assert_eq!(said(&rig, 5), (true, true, 0, 0, 1454));
}

/// What a driver does: it takes descriptors in the order of the ring, each with those before it, and gives each a fresh buffer.
struct Driver {
    next: u64,
    /// Buffers of the frame that goes on in a slot, and what is in them.
    chains: std::collections::BTreeMap<u64, Vec<(u64, usize)>>,
    /// By slot.
    buffers: Vec<u64>,
    fresh: u64,
}

impl Driver {
    /// The next frame that is complete.
    fn take(&mut self, rig: &mut Rig) -> Option<Vec<u8>> {
        loop {
            let slot = self.next % RING;
            let (done, end, next, _, len) = said(rig, slot);
            if !done {
                return None;
            }
            let mut chain = self.chains.remove(&slot).unwrap_or_default();
            chain.push((self.buffers[slot as usize], len as usize));
            self.next += 1;
            self.fresh = (self.fresh + 1) % 256;
            self.buffers[slot as usize] = BUFFERS + 2048 * self.fresh;
            rig.post(slot, self.buffers[slot as usize]);
            rig.write(0x1018, slot as u32);
            if end {
                return Some(chain.iter().flat_map(|(at, len)| rig.bytes(*at, *len)).collect());
            }
            assert!(self.chains.insert(next, chain).is_none(), "two frames go on in one");
        }
    }
}

#[test]
fn every_byte_of_a_long_run_is_there_once() {
    let mut rig = rig();
    let buffers = (0..RING).map(|slot| BUFFERS + 2048 * slot).collect();
    let mut driver = Driver { next: 0, chains: Default::default(), buffers, fresh: RING };
    let (mut sent, mut got, mut state) = ([0_usize; 5], [0_usize; 5], 1_u64);
    for round in 0..20_000_u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let flow = (state >> 33) as usize % 5;
        let len = 6 + (state >> 40) as usize % 1400;
        if rig.receive(&segment(flow as u16, sent[flow], len, state >> 60 == 0)) {
            sent[flow] += len;
        }
        rig.tick(10_000_000 + round * 300);
        while let Some(whole) = driver.take(&mut rig) {
            let flow = usize::from(u16::from_be_bytes([whole[34], whole[35]]));
            let start = u32::from_be_bytes(whole[38..42].try_into().unwrap()) as usize;
            assert_eq!(start, got[flow], "round {round}");
            assert_eq!(usize::from(u16::from_be_bytes([whole[16], whole[17]])), whole.len() - 14);
            assert!(whole[54..].iter().enumerate().all(|(i, byte)| *byte == (start + i) as u8));
            got[flow] += whole.len() - 54;
        }
    }
    rig.tick(1_000_000_000);
    while let Some(whole) = driver.take(&mut rig) {
        got[usize::from(u16::from_be_bytes([whole[34], whole[35]]))] += whole.len() - 54;
    }
    assert_eq!(sent, got);
    assert!(sent.iter().sum::<usize>() > 5_000_000, "{sent:?}");
}
