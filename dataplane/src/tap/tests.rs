//! Filters, rings against a client that lies, completed checksums, lines of the trace.
use super::*;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use ix_abi::IpAddress;
use ix_abi::capture::{HEAD_BYTES, ring};

const A: [u8; 4] = [10, 0, 2, 2];
const B: [u8; 4] = [10, 0, 2, 15];

fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = alloc::vec![0; 34];
    f[12..14].copy_from_slice(&[8, 0]);
    crate::ipv4::emit(&mut f[14..], A, B, protocol, (20 + payload.len()) as u16);
    f.extend_from_slice(payload);
    f
}

fn tcp(from: u16, to: u16, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut t = Vec::new();
    t.extend_from_slice(&from.to_be_bytes());
    t.extend_from_slice(&to.to_be_bytes());
    t.extend_from_slice(&[0, 0, 0, 100, 0, 0, 0, 7]);
    t.extend_from_slice(&[((20 + options.len()) as u8 / 4) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    t.extend_from_slice(options);
    t.extend_from_slice(payload);
    ip(TCP, &t)
}

fn line(bytes: &[u8]) -> String {
    let h = Headers::parse(bytes);
    let group = h.ports.map(|_| GroupId(17));
    let now = Instant(1_234_567);
    let direction = Direction::In;
    line::Line { h: &h, bytes, direction, core: CoreId(0), group, now }.to_string()
}

#[test]
fn a_line_reads_as_tcpdump_would_say_it() {
    let syn = tcp(4000, 11211, 0x02, &[2, 4, 5, 180, 1, 3, 3, 7], &[]);
    assert_eq!(
        line(&syn),
        "[1234 us] rx c0 g17 10.0.2.2.4000 > 10.0.2.15.11211 S 100:100 win 64240 \
         <mss 1460,nop,wscale 7> len 0"
    );
    let data = tcp(4000, 11211, 0x18, &[], b"get a\r\n");
    assert!(line(&data).ends_with("11211 P. 100:107 ack 7 win 64240 len 7"), "{}", line(&data));
    let echo = ip(1, &[8, 0, 0, 0, 0, 5, 0, 6, 1, 2, 3]);
    assert!(line(&echo).ends_with("c0 10.0.2.2 > 10.0.2.15 icmp echo request id 5 seq 6 len 3"));
    let udp = ip(UDP, &[0, 9, 0, 7, 0, 12, 0, 0, 1, 2, 3, 4]);
    assert!(line(&udp).ends_with("10.0.2.2.9 > 10.0.2.15.7 udp len 4"));
    let mut arp = alloc::vec![0; 42];
    arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp[28..32].copy_from_slice(&A);
    arp[38..42].copy_from_slice(&B);
    assert!(line(&arp).ends_with("c0 arp who-has 10.0.2.15 tell 10.0.2.2"));
}

#[test]
fn no_bytes_at_all_can_disturb_the_parser() {
    let mut rng = crate::rng::Rng::from_seed(7);
    let syn = tcp(1, 2, 2, &[2, 4, 5, 180, 5, 10, 0, 0, 0, 0, 0, 0], b"x");
    for round in 0..200_000 {
        let mut bytes = syn.clone();
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        for _ in 0..round % 5 {
            if !bytes.is_empty() {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.below(256) as u8;
            }
        }
        let h = Headers::parse(&bytes);
        assert!(h.transport <= h.end || h.end == bytes.len(), "{h:?}");
        assert!(h.end <= bytes.len());
        assert!(line(&bytes).len() < 400);
        let _ = completed(&h, &bytes);
    }
}

#[test]
fn each_criterion_of_a_filter_counts() {
    let h = Headers::parse(&tcp(4000, 11211, 2, &[], &[]));
    let all = Filter::default();
    let yes = |filter: Filter| h.match_filter(&filter, Direction::In);
    assert!(yes(all));
    assert!(yes(Filter { port: Some(4000), ..all }) && yes(Filter { port: Some(11211), ..all }));
    assert!(!yes(Filter { port: Some(80), ..all }));
    let within = |octets, length| Filter { address: Some((IpAddress::v4(octets), length)), ..all };
    assert!(yes(within(A, 128)) && yes(within(B, 128)) && yes(within([10, 0, 2, 99], 120)));
    assert!(!yes(within([10, 0, 3, 2], 120)) && yes(within([10, 0, 3, 2], 96)));
    assert!(yes(within([0; 4], 0)));
    assert!(yes(Filter { protocol: Some(6), ..all }) && !yes(Filter { protocol: Some(17), ..all }));
    assert!(yes(Filter { protocol: Some(0x800), ..all }));
    assert!(!yes(Filter { protocol: Some(0x806), ..all }));
    assert!(yes(Filter { direction: Direction::In, ..all }));
    assert!(!yes(Filter { direction: Direction::Out, ..all }));
}

#[test]
fn a_fragment_that_is_not_the_first_has_no_ports() {
    let mut f = tcp(4000, 11211, 2, &[], &[]);
    f[20..22].copy_from_slice(&[0x20, 0]);
    let first = Headers::parse(&f);
    assert_eq!((first.ports, first.fragment), (Some((4000, 11211)), true));
    f[20..22].copy_from_slice(&[0, 1]);
    assert_eq!(Headers::parse(&f).ports, None);
}

#[test]
fn a_partial_checksum_is_completed_in_the_copy_and_another_is_left_alone() {
    for payload in [&b""[..], b"x", b"an odd number of", b"sixteen letters!"] {
        let mut frame = tcp(4000, 11211, 0x18, &[], payload);
        let pseudo = checksum::pseudo_v4(A, B, TCP, (frame.len() - 34) as u16);
        frame[50..52].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
        let h = Headers::parse(&frame);
        let (at, sum) = completed(&h, &frame).expect("completed");
        let mut whole = frame.clone();
        whole[at..at + 2].copy_from_slice(&sum);
        assert!(checksum::is_good(checksum::add(pseudo, checksum::sum(&whole[34..]))));
        frame[51] ^= 0x55;
        assert!(completed(&h, &frame).is_none());
        assert!(completed(&h, &whole).is_none(), "complete already");
    }
}

fn words(bytes: usize) -> &'static [AtomicU64] {
    let words: Vec<AtomicU64> = (0..bytes / 8).map(|_| AtomicU64::new(0x5a5a)).collect();
    Vec::leak(words)
}

/// The client's side: takes what is there.
fn read(words: &[AtomicU64]) -> Vec<(Head, Vec<u8>)> {
    let get = |at: usize| words[at / 8].load(Ordering::Acquire);
    let capacity = words.len() * 8 - ring::DATA;
    let (mut at, end) = (get(ring::CONSUMED), get(ring::PRODUCED));
    let mut found = Vec::new();
    while at < end {
        let place = (at % capacity as u64) as usize;
        let word =
            |i: usize| if place + i * 8 < capacity { get(ring::DATA + place + i * 8) } else { 0 };
        let head =
            Head::decode([word(0), word(1), word(2), word(3)], capacity - place).expect("a head");
        at += u64::from(head.bytes);
        if head.original > 0 {
            let bytes =
                (0..usize::from(head.captured)).map(|i| word(4 + i / 8).to_le_bytes()[i % 8]);
            found.push((head, bytes.collect()));
        }
    }
    words[ring::CONSUMED / 8].store(at, Ordering::Release);
    found
}

#[test]
fn what_goes_into_a_ring_comes_out_whole_and_in_order_and_the_rest_is_counted() {
    let words = words(8192);
    words[ring::CONSUMED / 8].store(0, Ordering::Relaxed);
    let mut ring = Ring::start(words, 1, 0).expect("large enough");
    let mut rng = crate::rng::Rng::from_seed(3);
    let mut expected = alloc::collections::VecDeque::new();
    let (mut got, mut missed, mut number) = (0, 0, 0);
    for time in 0..50_000u64 {
        let len = rng.below(1600) as usize;
        let bytes: Vec<u8> = (0..len).map(|i| (i as u64 ^ time) as u8).collect();
        let original = len.max(1) as u16;
        let head = Head { time_ns: time, original, ..Head::default() };
        if ring.record(head, &bytes) {
            expected.push_back((number, time, bytes));
        } else {
            missed += 1;
        }
        number += 1;
        if rng.chance(1, 4) {
            for (head, bytes) in read(words) {
                let (number, time, sent) = expected.pop_front().expect("nothing invented");
                assert_eq!((head.number, head.time_ns), (number, time));
                assert_eq!(bytes, sent);
                got += 1;
            }
        }
    }
    assert!(got > 10_000 && missed > 1_000, "{got} got, {missed} missed");
    assert_eq!(words[ring::MISSED / 8].load(Ordering::Relaxed), missed);
    assert_eq!(words[ring::CAPTURED / 8].load(Ordering::Relaxed) as usize, got + expected.len());
}

#[test]
fn whatever_a_client_writes_the_ring_stays_within_its_bounds() {
    // A guard on both sides of the ring's words.
    let all = words(8192 + 128);
    let words = &all[8..8 + 1024];
    let mut ring = Ring::start(words, 1, 0).expect("large enough");
    let mut rng = crate::rng::Rng::from_seed(11);
    let mut recorded = 0u64;
    let mut produced = 0u64;
    for time in 0..100_000u64 {
        let alleged = match rng.below(6) {
            0 => u64::MAX,
            1 => 0,
            2 => rng.next_u64(),
            3 => produced + rng.below(9000),
            4 => produced.wrapping_sub(rng.below(9000)),
            _ => produced,
        };
        words[ring::CONSUMED / 8].store(alleged, Ordering::Relaxed);
        for at in [ring::PRODUCED, ring::CAPTURED, ring::MISSED, ring::SEEN] {
            if rng.chance(1, 10) {
                words[at / 8].store(rng.next_u64(), Ordering::Relaxed);
            }
        }
        let bytes = alloc::vec![7; rng.below(3000) as usize];
        let head = Head { time_ns: time, original: 60, ..Head::default() };
        if ring.record(head, &bytes) {
            recorded += 1;
            produced = words[ring::PRODUCED / 8].load(Ordering::Relaxed);
        }
        ring.saw();
    }
    assert!(recorded > 10_000, "{recorded}");
    let guards = all[..8].iter().chain(&all[8 + 1024..]);
    assert!(guards.into_iter().all(|w| w.load(Ordering::Relaxed) == 0x5a5a));
}

#[test]
fn a_ring_without_room_for_two_records_is_none() {
    assert!(Ring::start(words(ring::DATA), 1, 0).is_none());
    assert!(Ring::start(words(ring::DATA + HEAD_BYTES), 1, 0).is_none());
    assert!(Ring::start(&[], 1, 0).is_none());
}

#[test]
fn a_count_that_cannot_be_means_a_full_ring() {
    let words = words(8192);
    words[ring::CONSUMED / 8].store(0, Ordering::Relaxed);
    let mut ring = Ring::start(words, 1, 0).expect("large enough");
    let head = Head { original: 1000, ..Head::default() };
    while ring.record(head, &[7; 1000]) {}
    let produced = words[ring::PRODUCED / 8].load(Ordering::Relaxed);
    for alleged in [produced + 8, produced + 9000, u64::MAX, 1 << 63] {
        words[ring::CONSUMED / 8].store(alleged, Ordering::Relaxed);
        assert!(!ring.record(head, &[8; 1000]), "{alleged:#x}");
    }
    words[ring::CONSUMED / 8].store(produced, Ordering::Relaxed);
    assert!(ring.record(head, &[9; 1000]));
}

/// TCP over IPv6, its checksum 0.
fn tcp_v6(extension: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut f = alloc::vec![0; 12];
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend(((extension.len() + 20 + payload.len()) as u16).to_be_bytes());
    f.extend([if extension.is_empty() { 6 } else { 60 }, 64]);
    for last in [2, 1] {
        f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    f.extend(extension);
    f.extend([0x0f, 0xa0, 0x2b, 0xcb, 0, 0, 0, 123, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
    f.extend(payload);
    f
}

#[test]
fn ipv6_is_read_behind_extension_headers_too() {
    let plain = tcp_v6(&[], b"xy");
    let said = line(&plain);
    assert!(
        said.ends_with(" 2001:db8::2.4000 > 2001:db8::1.11211 S 123:125 win 256 len 2"),
        "{said}"
    );
    let behind = tcp_v6(&[6, 0, 1, 4, 0, 0, 0, 0], b"xy");
    let h = Headers::parse(&behind);
    assert_eq!((h.ports, h.protocol, h.transport), (Some((4000, 11211)), 6, 62));
    let all = Filter::default();
    let prefix = |length| {
        let address = IpAddress([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        Filter { address: Some((address, length)), ..all }
    };
    assert!(
        h.match_filter(&prefix(120), Direction::In) && !h.match_filter(&prefix(128), Direction::In)
    );
    let fragment = tcp_v6(&[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 9, 0, 0, 0, 0], b"");
    let h = Headers::parse(&fragment);
    assert_eq!((h.ports, h.fragment), (None, true));
}

#[test]
fn a_partial_checksum_over_ipv6_is_completed_too() {
    let mut frame = tcp_v6(&[], b"an odd number of");
    let address = |at: usize| -> [u8; 16] { frame[at..at + 16].try_into().unwrap() };
    let len = (frame.len() - 54) as u16;
    let pseudo = checksum::pseudo_v6(&address(22), &address(38), TCP, len);
    frame[70..72].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
    let (at, sum) = completed(&Headers::parse(&frame), &frame).expect("completed");
    frame[at..at + 2].copy_from_slice(&sum);
    assert!(checksum::is_good(checksum::add(pseudo, checksum::sum(&frame[54..]))));
}
