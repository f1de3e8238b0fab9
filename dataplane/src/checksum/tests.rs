use super::*;
use alloc::vec::Vec;

/// RFC 1071 §4.1, literally.
fn reference(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let step = |_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (x >> 56) as u8
    };
    (0..n).map(step).collect()
}

#[test]
fn any_length_and_alignment_sums_as_the_rfc_says() {
    for len in 0..200 {
        let data = bytes(len + 8, len as u64);
        for shift in 0..8 {
            let part = &data[shift..shift + len];
            assert_eq!(fold(sum(part)).to_be(), reference(part), "length {len}, shift {shift}");
        }
    }
    let ones = [0xff; 1500];
    assert_eq!(fold(sum(&ones)), 0xffff);
}

#[test]
fn parts_add_up_also_at_odd_offsets() {
    let data = bytes(101, 7);
    for cut in 0..data.len() {
        let (a, b) = data.split_at(cut);
        let b = if cut % 2 == 0 { sum(b) } else { at_odd_offset(sum(b)) };
        assert_eq!(fold(add(sum(a), b)).to_be(), reference(&data), "cut at {cut}");
    }
}

#[test]
fn a_datagram_with_its_checksum_is_good_and_a_flipped_bit_is_not() {
    let mut data = bytes(64, 3);
    data[16..18].fill(0);
    let pseudo = pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, 64);
    let field = finish(add(pseudo, sum(&data)));
    data[16..18].copy_from_slice(&field);
    assert!(is_good(add(pseudo, sum(&data))));
    data[40] ^= 4;
    assert!(!is_good(add(pseudo, sum(&data))));
}

#[test]
fn the_pseudo_header_of_ipv6_is_the_sum_of_its_bytes() {
    for seed in 0..50 {
        let data = bytes(32, seed);
        let (src, dst) = (data[..16].try_into().unwrap(), data[16..].try_into().unwrap());
        let whole = [&data[..], &[0, 0, 5, 0xdc, 0, 0, 0, 58]].concat();
        assert_eq!(fold(pseudo_v6(&src, &dst, 58, 1500)).to_be(), reference(&whole));
    }
    assert_eq!(fold(pseudo_v6(&[0xff; 16], &[0xff; 16], 6, 20)).to_be(), 26);
}

#[test]
fn good_is_what_folds_to_all_ones() {
    let mut seed = 7_u64;
    for n in 0..200_000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Small ones, large ones, and multiples and what is beside them.
        let any = seed >> (n % 64);
        let multiple = (any / 0xffff) * 0xffff;
        for partial in
            [n, u64::MAX - n, any, multiple, multiple.wrapping_add(1), multiple.wrapping_sub(1)]
        {
            assert_eq!(is_good(partial), fold(partial) == 0xffff, "{partial:#x}");
        }
    }
}
