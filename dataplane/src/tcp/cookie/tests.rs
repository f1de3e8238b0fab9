use super::*;
use crate::rng::Rng;

const SLOT: u64 = 1 << SLOT_SHIFT;

fn flow(rng: &mut Rng) -> Flow {
    let end = |rng: &mut Rng| {
        let ip = rng.next_u32().to_be_bytes();
        SocketAddress::v4(ip, rng.next_u32() as u16)
    };
    Flow { local: end(rng), remote: end(rng), irs: WrappingSeq(rng.next_u32()) }
}

fn some_extras(rng: &mut Rng) -> Option<Extras> {
    rng.chance(2, 3).then(|| Extras {
        shift: rng.chance(3, 4).then(|| rng.below(15) as u8),
        sack: rng.chance(1, 2),
        ecn: rng.chance(1, 2),
    })
}

#[test]
fn every_segment_size_comes_back_with_and_without_timestamps() {
    let mut rng = Rng::from_seed(1);
    let key = rng.key();
    for extras in [None, Some(Extras { shift: Some(7), sack: true, ecn: false })] {
        let flow = flow(&mut rng);
        for (at, size) in SEGMENT_SIZES.into_iter().enumerate() {
            let next = SEGMENT_SIZES.get(at + 1).copied().unwrap_or(u16::MAX);
            for mss in [size, size + (next - size) / 2, next - 1] {
                let iss = make(&key, &flow, mss, extras, Instant(5 * SLOT));
                assert_eq!(open(&key, &flow, iss, extras, Instant(5 * SLOT)), Some(size), "{mss}");
            }
        }
        let iss = make(&key, &flow, 1, extras, Instant(0));
        assert_eq!(open(&key, &flow, iss, extras, Instant(0)), Some(SEGMENT_SIZES[0]));
    }
}

#[test]
fn every_combination_of_extras_survives_the_echo_of_a_timestamp_that_is_not_ahead() {
    let mut rng = Rng::from_seed(2);
    let shifts = (0..=14).map(Some).chain([None]);
    for shift in shifts {
        for (sack, ecn) in [(false, false), (false, true), (true, false), (true, true)] {
            let extras = Extras { shift, sack, ecn };
            for _ in 0..100 {
                let clock = rng.next_u32();
                let stamp = extras.stamp(clock);
                assert!(clock.wrapping_sub(stamp) < 1 << EXTRAS_BITS, "{clock:#x} {stamp:#x}");
                assert_eq!(Extras::from_echo(stamp), extras);
            }
        }
    }
}

#[test]
fn a_cookie_is_good_for_one_slot_at_least_and_two_at_most() {
    let mut rng = Rng::from_seed(3);
    let key = rng.key();
    for _ in 0..1000 {
        let (flow, extras) = (flow(&mut rng), some_extras(&mut rng));
        let made = Instant(rng.below(1 << 50));
        let iss = make(&key, &flow, 1460, extras, made);
        let good = |at: u64| open(&key, &flow, iss, extras, Instant(at)).is_some();
        assert!(good(made.0) && good(made.0 + SLOT));
        let end = valid_until(made);
        assert!(good(end.0 - 1) && end.0 <= made.0 + 2 * SLOT);
        // Also when the two bits of the slot have come round.
        for later in 0..40 {
            assert!(!good(end.0 + later * SLOT / 4), "seed 3, {later} quarters too late");
        }
    }
}

#[test]
fn a_cookie_of_the_future_or_of_before_the_boot_is_none() {
    let mut rng = Rng::from_seed(4);
    let (key, flow) = (rng.key(), flow(&mut rng));
    let iss = make(&key, &flow, 1460, None, Instant(SLOT));
    assert_eq!(open(&key, &flow, iss, None, Instant(SLOT - 1)), None);
    let forged = WrappingSeq(3 << SLOT_AT);
    assert_eq!(open(&key, &flow, forged, None, Instant(0)), None);
}

#[test]
fn nothing_that_a_cookie_stands_for_can_be_changed() {
    let mut rng = Rng::from_seed(5);
    let key = rng.key();
    let now = Instant(7 * SLOT);
    // 27 bits: of these few thousand, none is right by chance, and the seed is fixed.
    for _ in 0..300 {
        let (flow, extras) = (flow(&mut rng), some_extras(&mut rng));
        let iss = make(&key, &flow, 1460, extras, now);
        let refused = |flow: &Flow, iss, extras| open(&key, flow, iss, extras, now).is_none();
        assert!(!refused(&flow, iss, extras));
        for bit in 0..32 {
            assert!(refused(&flow, WrappingSeq(iss.0 ^ 1 << bit), extras), "bit {bit}");
            let irs = WrappingSeq(flow.irs.0 ^ 1 << bit);
            assert!(refused(&Flow { irs, ..flow }, iss, extras), "bit {bit} of the peer's");
        }
        for bit in 0..16 {
            let mut other = flow;
            other.remote.port ^= 1 << bit;
            assert!(refused(&other, iss, extras));
            let mut other = flow;
            other.local.port ^= 1 << bit;
            assert!(refused(&other, iss, extras));
        }
        for byte in 12..16 {
            let mut other = flow;
            other.remote.ip.0[byte] ^= 1;
            assert!(refused(&other, iss, extras));
            let mut other = flow;
            other.local.ip.0[byte] ^= 1;
            assert!(refused(&other, iss, extras));
        }
        match extras {
            None => assert!(refused(&flow, iss, Some(Extras::from_bits(NO_SHIFT)))),
            Some(extras) => {
                assert!(refused(&flow, iss, None));
                for bit in 0..EXTRAS_BITS {
                    let other = Extras::from_bits(extras.to_bits() ^ 1 << bit);
                    assert!(refused(&flow, iss, Some(other)));
                }
            }
        }
        assert!(open(&rng.key(), &flow, iss, extras, now).is_none(), "another key");
    }
}

#[test]
fn guesses_are_good_as_rarely_as_the_length_of_the_mac_says() {
    let mut rng = Rng::from_seed(6);
    let (key, flow) = (rng.key(), flow(&mut rng));
    let now = Instant(9 * SLOT);
    // Shorter MACs would show: with 16 bits, 30 of these would be good.
    let tries = 2_000_000;
    let good =
        (0..tries).filter(|_| open(&key, &flow, WrappingSeq(rng.next_u32()), None, now).is_some());
    assert!(good.count() <= 2);
}
