use super::*;
use crate::config::initial_owner;
use crate::rng::Rng;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
const KEY: [u8; KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The definition: for each set input bit, XOR the 32 key bits that start at its position.
fn bit_by_bit(key: &[u8; KEY_BYTES], input: &[u8]) -> u32 {
    let key_bit = |i: usize| u32::from(key[i / 8] >> (7 - i % 8) & 1);
    let mut hash = 0;
    for i in 0..input.len() * 8 {
        if input[i / 8] >> (7 - i % 8) & 1 == 1 {
            hash ^= (0..32).fold(0, |window, j| window << 1 | key_bit(i + j));
        }
    }
    hash
}

fn v4(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().unwrap().octets()
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

#[test]
fn ipv4_hashes_agree_with_microsofts_vectors() {
    let toeplitz = Toeplitz::new(&KEY);
    for (dst, dport, src, sport, addresses, ports) in [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
    ] {
        assert_eq!(toeplitz.hash_v4_addresses(v4(src), v4(dst)), addresses, "{src} {dst}");
        assert_eq!(toeplitz.hash_v4(v4(src), v4(dst), sport, dport), ports, "{src} {dst}");
    }
}

#[test]
fn ipv6_hashes_agree_with_microsofts_vectors() {
    let toeplitz = Toeplitz::new(&KEY);
    for (dst, dport, src, sport, addresses, ports) in [
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc1_8cd5, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c_461c, 0xdde5_1bbf),
        (
            "fe80::200:f8ff:fe21:67cf",
            38024,
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ] {
        assert_eq!(toeplitz.hash_v6_addresses(v6(src), v6(dst)), addresses, "{src} {dst}");
        assert_eq!(toeplitz.hash_v6(v6(src), v6(dst), sport, dport), ports, "{src} {dst}");
    }
}

fn any_key() -> impl Strategy<Value = [u8; KEY_BYTES]> {
    proptest::collection::vec(any::<u8>(), KEY_BYTES).prop_map(|v| v.try_into().unwrap())
}

proptest! {
    #[test]
    fn the_tables_agree_with_the_definition(
        key in any_key(), src: [u8; 16], dst: [u8; 16], sport: u16, dport: u16,
    ) {
        let toeplitz = Toeplitz::new(&key);
        let (s4, d4) = ([src[0], src[1], src[2], src[3]], [dst[0], dst[1], dst[2], dst[3]]);
        let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        let input4 = [&s4[..], &d4, &ports].concat();
        let input6 = [&src[..], &dst, &ports].concat();
        prop_assert_eq!(toeplitz.hash_v4(s4, d4, sport, dport), bit_by_bit(&key, &input4));
        prop_assert_eq!(toeplitz.hash_v4_addresses(s4, d4), bit_by_bit(&key, &input4[..8]));
        prop_assert_eq!(toeplitz.hash_v6(src, dst, sport, dport), bit_by_bit(&key, &input6));
        prop_assert_eq!(toeplitz.hash_v6_addresses(src, dst), bit_by_bit(&key, &input6[..32]));
    }

    #[test]
    fn a_source_port_has_the_hash_that_its_answers_will_have(
        key in any_key(), local: [u8; 16], remote: [u8; 16], remote_port: u16, random: u32,
    ) {
        let toeplitz = Toeplitz::new(&key);
        let (l4, r4) = ([local[0]; 4], [remote[0]; 4]);
        for (port, hash) in toeplitz.source_ports_v4(l4, r4, remote_port, random).take(20) {
            prop_assert_eq!(hash, toeplitz.hash_v4(r4, l4, remote_port, port));
        }
        for (port, hash) in toeplitz.source_ports_v6(local, remote, remote_port, random).take(20) {
            prop_assert_eq!(hash, toeplitz.hash_v6(remote, local, remote_port, port));
        }
    }
}

#[test]
fn every_source_port_comes_once() {
    let toeplitz = Toeplitz::new(&KEY);
    for random in [0, 0x1234_5678, u32::MAX] {
        let mut ports: Vec<u16> =
            toeplitz.source_ports_v4([1; 4], [2; 4], 80, random).map(|(port, _)| port).collect();
        ports.sort_unstable();
        assert!(ports.iter().copied().eq(SOURCE_PORT_MIN..=u16::MAX));
    }
}

#[test]
fn a_port_for_a_core_with_its_share_of_the_groups_is_found_within_a_few_candidates() {
    let toeplitz = Toeplitz::new(&KEY);
    for remote_port in 0..500 {
        // Eight cores, 128 groups: one group in eight suits.
        let found = toeplitz
            .source_ports_v4(
                [10, 0, 0, 1],
                [10, 0, 0, 2],
                remote_port,
                u32::from(remote_port) * 77_777,
            )
            .take(200)
            .find(|(_, hash)| group_of(*hash, 128).0 % 8 == 3);
        assert!(found.is_some(), "port {remote_port}");
    }
}

/// Found by the simulation: a `connect` of a core with an eighth of the groups had no port in 512.
#[test]
fn whatever_the_stride_a_port_is_found_for_any_eighth_of_the_groups() {
    let tries = 512;
    let mut rng = Rng::from_seed(3);
    for seed in 0..200 {
        let toeplitz = Toeplitz::new(&drawn(seed));
        for stride in [
            0x67ff_u32, 0x1801, 0x801, 0x7ff, 0x1fff, 0x17ff, 0xfff, 0x2001, 0x7fff, 0x4001, 0x3fff,
        ] {
            let random = stride << 16 | rng.next_u32() & 0xffff;
            let mut owners: Vec<u16> = (0..128).map(|group| group % 8).collect();
            let mut reached = [[false; 8]; 3];
            (1..128).rev().for_each(|i| owners.swap(i, rng.below(i as u64 + 1) as usize));
            let ports = toeplitz.source_ports_v4([10, 0, 0, 1], [10, 0, 0, 2], 80, random);
            for (_, hash) in ports.take(tries) {
                let group = group_of(hash, 128).0;
                let owner = [group % 8, group / 16, owners[usize::from(group)]];
                (0..3).for_each(|way| reached[way][usize::from(owner[way])] = true);
            }
            assert_eq!(reached, [[true; 8]; 3], "seed {seed}, stride {stride:#x}");
        }
    }
}

#[test]
fn the_group_is_the_low_bits_of_the_hash() {
    assert_eq!(group_of(0xffff_ffff, 128), GroupId(127));
    assert_eq!(group_of(0x1234_5680, 128), GroupId(0));
    assert_eq!(group_of(0x1234_5680, 1), GroupId(0));
}

#[test]
fn a_drawn_key_reaches_every_group_from_every_core_by_the_source_port_alone() {
    for seed in 0..50 {
        let key = drawn(seed);
        assert!(spreads(&key));
        let toeplitz = Toeplitz::new(&key);
        let reached = |ports: SourcePorts<'_>| {
            let mut reached = [false; 512];
            ports.for_each(|(_, hash)| reached[usize::from(group_of(hash, 512).0)] = true);
            reached.iter().all(|reached| *reached)
        };
        assert!(reached(toeplitz.source_ports_v4([10, 0, 0, 1], [10, 0, 0, 2], 80, 1)));
        assert!(reached(toeplitz.source_ports_v6([1; 16], [2; 16], 80, 1)));
    }
}

#[test]
fn a_key_that_hides_groups_from_ports_is_told() {
    assert!(spreads(&drawn(1)));
    assert!(!spreads(&[0; KEY_BYTES]));
    // Found by the simulation: the lowest bit of the hash does not depend on the local port.
    let mut key = drawn(1);
    key[14] = 0;
    key[15] = 0;
    assert!(!spreads(&key));
    let toeplitz = Toeplitz::new(&key);
    let mut ports = toeplitz.source_ports_v4([10, 0, 0, 1], [10, 0, 0, 2], 80, 1);
    let first = ports.next().map(|(_, hash)| hash & 1);
    assert!(ports.all(|(_, hash)| Some(hash & 1) == first));
}

#[test]
fn ports_in_a_row_reach_each_of_sixteen_queues_alike() {
    for seed in 0..50 {
        let toeplitz = Toeplitz::new(&drawn(seed));
        for first in [0xc000, 0xc080, 0x8100, 0x2780] {
            for step in [1, 2] {
                let mut queues = [[0; 16]; 2];
                for port in (first..first + 128).step_by(step) {
                    let v4 = toeplitz.hash_v4([10, 0, 2, 2], [10, 0, 2, 15], port, 7);
                    let v6 = toeplitz.hash_v6([1; 16], [2; 16], port, 7);
                    queues[0][usize::from(initial_owner(group_of(v4, 128), 16).0)] += 1;
                    queues[1][usize::from(initial_owner(group_of(v6, 128), 16).0)] += 1;
                }
                assert_eq!(queues, [[8 / step; 16]; 2], "seed {seed}, from {first}, each {step}");
            }
        }
    }
}

#[test]
fn a_key_that_gives_ports_in_a_row_to_one_queue_is_told() {
    // The lowest bit of the hash does not depend on the sender's port's lowest nine bits, IPv4.
    let mut key = drawn(1);
    key[12] &= 0xfc;
    key[13] &= 0x01;
    assert!(reaches(&key, 65..80, GROUP_BITS), "all ports together still reach all groups");
    assert!(!spreads(&key));
    let toeplitz = Toeplitz::new(&key);
    let queue = |port| toeplitz.hash_v4([10, 0, 2, 2], [10, 0, 2, 15], port, 7) & 1;
    assert!((0xc000..0xc0c8).all(|port| queue(port) == queue(0xc000)));
}

fn drawn(seed: u64) -> [u8; KEY_BYTES] {
    let mut rng = Rng::from_seed(seed);
    draw_key(|bytes| rng.fill(bytes))
}

#[test]
fn the_destinations_part_of_the_hash_is_the_same_for_all_packets_to_it() {
    let mut rng = Rng::from_seed(7);
    let toeplitz = Toeplitz::new(&draw_key(|bytes| rng.fill(bytes)));
    for _ in 0..100 {
        let [src, dst, ports] = [(); 3].map(|()| (rng.next_u64() as u32).to_be_bytes());
        let [a, b, c, d] = ports;
        let whole =
            toeplitz.hash_v4(src, dst, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        assert_eq!(toeplitz.hash_to_v4(toeplitz.destination_v4(dst), src, ports), whole);
    }
}
