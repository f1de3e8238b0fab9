use super::*;

#[test]
fn limits_survive_their_words() {
    let limits = Limits { grant: 0b1110, lease_ns: 3_000_000_000, ..Limits::DEFAULT };
    assert_eq!(Limits::decode(&limits.encode()), Ok(limits));
    assert_eq!(Limits::decode(&Limits::DEFAULT.encode()), Ok(Limits::DEFAULT));
}

#[test]
fn what_are_no_limits_is_refused() {
    let good = Limits::DEFAULT.encode();
    let bad = |at: usize, word: u64| {
        let mut words = good;
        words[at] = word;
        assert_eq!(Limits::decode(&words), Err(Status::Invalid), "word {at}: {word:#x}");
    };
    let max = CORES_MAX as u64;
    for cores in [0, 1, 0x2_0000, 3 | 2 << 16, 1 | (max + 1) << 16, good[0] | 1 << 32, u64::MAX] {
        bad(0, cores);
    }
    for time in [2, 3, 4, 5, 8, 9] {
        bad(time, LIMIT_NS_MAX + 1);
        bad(time, u64::MAX);
    }
    for at in [2, 5, 6] {
        bad(at, 0);
    }
    for shares in [0, 500, 500 | 500 << 16, 500 | 600 << 16, 1001 | 1 << 16, good[7] | 1 << 63] {
        bad(7, shares);
    }
    bad(10, 1);
    bad(11, 1);
}

#[test]
fn any_words_are_limits_or_refused() {
    // SplitMix64 from a fixed seed.
    let mut state = 5u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    for _ in 0..10_000 {
        let mut words = Limits::DEFAULT.encode();
        for _ in 0..next() % 3 {
            words[(next() % LIMIT_WORDS as u64) as usize] = next() >> (next() % 64);
        }
        if let Ok(limits) = Limits::decode(&words) {
            assert_eq!(limits.encode(), words);
        }
    }
}

#[test]
fn a_wish_is_a_word() {
    let want = Want { cores: 3, reason: Reason::Delay, number: u32::MAX };
    assert_eq!(Want::decode(want.encode()), want);
    assert_eq!(Want::decode(0), Want { cores: 0, reason: Reason::Enough, number: 0 });
}
