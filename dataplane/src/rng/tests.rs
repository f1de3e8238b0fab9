use super::{Rng, SipKey};
use crate::time::Instant;
use core::hash::Hasher;
use ix_abi::addr::SocketAddress;
use proptest::prelude::*;
extern crate std;

#[allow(deprecated, reason = "the standard library's SipHash-2-4 with keys is the reference")]
fn reference(key: [u64; 2], words: &[u64]) -> u64 {
    let mut hasher = std::hash::SipHasher::new_with_keys(key[0], key[1]);
    for word in words {
        hasher.write(&word.to_le_bytes());
    }
    hasher.finish()
}

proptest! {
    #[test]
    fn the_hash_is_siphash_2_4(key: [u64; 2], one: [u64; 1], three: [u64; 3], five: [u64; 5]) {
        prop_assert_eq!(SipKey(key).hash(one), reference(key, &one));
        prop_assert_eq!(SipKey(key).hash(three), reference(key, &three));
        prop_assert_eq!(SipKey(key).hash(five), reference(key, &five));
    }

    #[test]
    fn a_number_below_n_is_below_n(seed: u64, n in 1_u64..) {
        prop_assert!(Rng::from_seed(seed).below(n) < n);
    }
}

#[test]
fn siphash_agrees_with_a_vector_of_its_authors() {
    // vectors_sip64 of the reference code: key 00..0f, message 00..07.
    let key = SipKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
    assert_eq!(key.hash([0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_another_seed_others() {
    let numbers = |seed| {
        let mut rng = Rng::from_seed(seed);
        [rng.next_u64(), rng.next_u64(), rng.fork().next_u64(), rng.next_u64()]
    };
    assert_eq!(numbers(7), numbers(7));
    assert!(numbers(7).iter().zip(numbers(8)).all(|(a, b)| *a != b));
}

#[test]
fn small_numbers_are_about_equally_frequent() {
    let mut rng = Rng::from_seed(1);
    let mut counts = [0_u32; 10];
    for _ in 0..10_000 {
        counts[rng.below(10) as usize] += 1;
    }
    assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    let hits = (0..10_000).filter(|_| rng.chance(1, 4)).count();
    assert!((2300..2700).contains(&hits), "{hits}");
}

#[test]
fn filling_covers_every_byte_of_an_odd_length() {
    let mut seen = [0_u8; 13];
    let mut rng = Rng::from_seed(3);
    for _ in 0..50 {
        let mut bytes = [0; 13];
        rng.fill(&mut bytes);
        seen.iter_mut().zip(bytes).for_each(|(s, b)| *s |= b);
    }
    assert_eq!(seen, [0xff; 13]);
}

#[test]
fn a_new_incarnation_of_a_connection_starts_above_the_last() {
    let key = SipKey([1, 2]);
    let local = SocketAddress::v4([10, 0, 2, 15], 11211);
    let remote = SocketAddress::v4([10, 0, 2, 2], 40000);
    let first = key.initial_sequence(local, remote, Instant(5_000_000));
    let later = key.initial_sequence(local, remote, Instant(6_000_000));
    assert_eq!(later.wrapping_sub(first), 250);
}

#[test]
fn initial_sequences_of_other_addresses_ports_and_keys_are_unrelated() {
    let local = SocketAddress::v4([10, 0, 2, 15], 11211);
    let remote = SocketAddress::v4([10, 0, 2, 2], 40000);
    let at = Instant(0);
    let mut all = std::vec![
        SipKey([1, 2]).initial_sequence(local, remote, at),
        SipKey([1, 3]).initial_sequence(local, remote, at),
        SipKey([1, 2]).initial_sequence(remote, local, at),
        SipKey([1, 2]).initial_sequence(local, SocketAddress { port: 40001, ..remote }, at),
        SipKey([1, 2]).initial_sequence(SocketAddress { port: 11212, ..local }, remote, at),
        SipKey([1, 2]).initial_sequence(local, SocketAddress::v4([10, 0, 2, 3], 40000), at),
    ];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6);
}
