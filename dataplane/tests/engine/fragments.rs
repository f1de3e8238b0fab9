//! IPv4 fragments (RFC 791 §3.2, RFC 815): put together within bounds, or dropped by configuration.
use crate::support::talk::*;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress, Status};
use ix_dataplane::checksum;
use ix_dataplane::time::Duration;

const UDP_PORT: u16 = 53;

/// The frame in pieces, cut at these bytes of its payload, with this identification.
fn cut(frame: &[u8], id: u16, at: &[usize]) -> Vec<Vec<u8>> {
    let payload = &frame[34..];
    let ends: Vec<usize> = at.iter().copied().chain([payload.len()]).collect();
    let mut from = 0;
    let mut pieces = Vec::new();
    for end in ends {
        let mut f = frame[..34].to_vec();
        f[16..18].copy_from_slice(&(20 + (end - from) as u16).to_be_bytes());
        f[18..20].copy_from_slice(&id.to_be_bytes());
        let more = if end == payload.len() { 0 } else { 0x2000 };
        f[20..22].copy_from_slice(&(more | (from / 8) as u16).to_be_bytes());
        f.extend(&payload[from..end]);
        pieces.push(summed(f));
        from = end;
    }
    pieces
}

/// With a right header checksum.
fn summed(mut f: Vec<u8>) -> Vec<u8> {
    f[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f
}

/// A UDP frame to `UDP_PORT`, its checksum right.
fn udp(talk: &Talk, payload: &[u8]) -> Vec<u8> {
    let ours = talk.station.setup.address;
    let len = 8 + payload.len() as u16;
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend((20 + len).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    f.extend(talk.ip);
    f.extend(ours);
    f.extend(talk.port.to_be_bytes());
    f.extend(UDP_PORT.to_be_bytes());
    f.extend(len.to_be_bytes());
    f.extend([0, 0]);
    f.extend(payload);
    let pseudo = checksum::pseudo_v4(talk.ip, ours, 17, len);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[34..])));
    f[40..42].copy_from_slice(&sum);
    summed(f)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn bound(change: impl Fn(&mut crate::support::station::Setup)) -> Talk {
    let mut talk = Talk::new(change);
    let at = SocketAddress { port: UDP_PORT, ..SocketAddress::default() };
    talk.call(Call::udp_bind(at, Cookie(9)).with_result(1));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::Ok, .. }]));
    talk
}

/// The datagrams that arrived since the last look, given back.
fn received(talk: &mut Talk) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut calls = Vec::new();
    for event in talk.events() {
        let Condition::UdpRecv { handle, addr, len, .. } = event else { panic!("{event:?}") };
        got.push(talk.station.machines[0].context.bytes(addr, u64::from(len)).to_vec());
        calls.push(Call::udp_recv_done(handle, addr));
    }
    talk.calls(&calls);
    got
}

fn give(talk: &mut Talk, frames: impl IntoIterator<Item = Vec<u8>>) {
    for frame in frames {
        talk.give(frame);
    }
    talk.step();
}

#[test]
fn a_datagram_in_pieces_arrives_whole_in_any_order() {
    let mut talk = bound(|_| {});
    for (id, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]].into_iter().enumerate() {
        let payload = bytes(1900 + id);
        let pieces = cut(&udp(&talk, &payload), id as u16, &[800, 1480]);
        give(&mut talk, order.map(|i| pieces[i].clone()));
        assert_eq!(received(&mut talk), [payload], "{order:?}");
    }
    assert_eq!(talk.station.count(Counter::DatagramsReassembled), 4);
    let copied = talk.station.count(Counter::FragmentBytes);
    assert_eq!(copied, 4 * 1908 + 1 + 2 + 3, "counted, apart from what zero copy promises");
    assert_eq!(talk.station.count(Counter::PayloadCopied), 0);
    talk.station.assert_all_quiet();
}

#[test]
fn datagrams_that_are_under_way_together_are_kept_apart() {
    let mut talk = bound(|_| {});
    let first = cut(&udp(&talk, &[1; 1000]), 1, &[504]);
    let second = cut(&udp(&talk, &[2; 1000]), 2, &[504]);
    talk.ip = [10, 0, 0, 3];
    let third = cut(&udp(&talk, &[3; 1000]), 1, &[504]);
    let all = [&first[1], &second[0], &third[0], &second[1], &third[1], &first[0]];
    give(&mut talk, all.map(Clone::clone));
    assert_eq!(received(&mut talk), [[2; 1000], [3; 1000], [1; 1000]]);
}

fn accepted(talk: &mut Talk) -> (Handle, u32) {
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.handshake(ECE | CWR, 60_000, &[])
}

#[test]
fn a_segment_in_pieces_is_a_segment_and_a_mark_on_one_piece_marks_it() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = accepted(&mut talk);
    let payload = bytes(1460);
    let segment = talk.frame(ACK, 1000, una, 60_000, &[], &payload);
    let mut pieces = cut(&segment, 77, &[576, 1152]);
    // RFC 3168 §5.3.
    pieces[1][15] = 3;
    pieces[1] = summed(pieces[1].clone());
    pieces.rotate_left(1);
    give(&mut talk, pieces);
    let events = talk.events();
    let [Condition::Recv { addr, len: 1460, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!(talk.station.machines[0].context.bytes(addr, 1460), payload);
    talk.pass(Duration::from_ms(100));
    let answer = talk.one();
    assert_eq!((answer.ack, answer.flags), (2460, ACK | ECE));
}

#[test]
fn what_is_damaged_in_one_piece_is_damaged() {
    let mut talk = bound(|_| {});
    let mut pieces = cut(&udp(&talk, &bytes(1000)), 1, &[504]);
    pieces[1][40] ^= 1;
    give(&mut talk, pieces);
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::UdpChecksum), 1);
    talk.station.assert_all_quiet();
}

#[test]
fn overlapping_fragments_are_not_put_together() {
    // RFC 1858, RFC 3128, RFC 5722: the way to smuggle a header past a firewall.
    let mut talk = bound(|_| {});
    let frame = udp(&talk, &bytes(1000));
    let pieces = cut(&frame, 1, &[504]);
    let mut overlap = cut(&frame, 1, &[8])[1].clone();
    overlap[34..].fill(0xbb);
    give(&mut talk, [pieces[0].clone(), overlap, pieces[1].clone(), pieces[0].clone()]);
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::FragmentOverlap), 3);
    // An exact repetition is no attack.
    let pieces = cut(&frame, 2, &[504]);
    give(&mut talk, [pieces[0].clone(), pieces[0].clone(), pieces[1].clone()]);
    assert_eq!(received(&mut talk).len(), 1);
    assert_eq!(talk.station.dropped(Reason::FragmentAgain), 1);
    talk.pass(Duration::from_s(20));
    talk.station.assert_all_quiet();
}

#[test]
fn what_does_not_fit_a_buffer_is_dropped_and_counted() {
    let mut talk = bound(|_| {});
    let fits = cut(&udp(&talk, &bytes(2006)), 1, &[1480]);
    give(&mut talk, fits);
    assert_eq!(received(&mut talk), [bytes(2006)], "the longest");
    let long = cut(&udp(&talk, &bytes(4000)), 2, &[1480, 2960]);
    give(&mut talk, long);
    assert_eq!(talk.events(), []);
    assert!(talk.station.dropped(Reason::FragmentTooLong) >= 1);
    talk.pass(Duration::from_s(20));
    talk.station.assert_all_quiet();
}

#[test]
fn what_never_gets_complete_is_given_up_and_a_flood_of_it_shuts_nobody_out() {
    let mut talk = bound(|_| {});
    for id in 0..5000 {
        let half = cut(&udp(&talk, &bytes(1000)), id, &[504])[0].clone();
        give(&mut talk, [half]);
        if id % 100 == 50 {
            let honest = cut(&udp(&talk, &bytes(900)), 60_000, &[504]);
            give(&mut talk, honest);
            assert_eq!(received(&mut talk).len(), 1, "in the midst of {id} halves");
        }
    }
    assert!(talk.station.dropped(Reason::FragmentsFull) > 4900);
    talk.station.assert_buffers_conserved();
    talk.pass(Duration::from_s(16));
    assert_eq!(talk.station.dropped(Reason::FragmentTimeout), 64);
    talk.station.assert_all_quiet();
}

#[test]
fn by_configuration_fragments_are_dropped_and_counted() {
    let mut talk = bound(|setup| setup.configure = |config| config.reassemble = false);
    let pieces = cut(&udp(&talk, &bytes(1000)), 1, &[504]);
    give(&mut talk, pieces);
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::IpFragment), 2);
    talk.station.assert_all_quiet();
}

#[test]
fn fragments_for_others_and_nonsense_are_dropped() {
    let mut talk = bound(|_| {});
    let frame = udp(&talk, &bytes(1000));
    let mut other = cut(&frame, 1, &[504])[0].clone();
    other[33] = 77;
    give(&mut talk, [summed(other)]);
    assert_eq!(talk.station.dropped(Reason::NotForUs), 1);
    let mut odd = cut(&frame, 2, &[500])[0].clone();
    odd[20] = 0x20;
    give(&mut talk, [summed(odd)]);
    let mut empty = cut(&frame, 3, &[504])[0].clone();
    empty.truncate(34);
    empty[16..18].copy_from_slice(&20_u16.to_be_bytes());
    give(&mut talk, [summed(empty)]);
    assert_eq!(talk.station.dropped(Reason::IpMalformed), 2);
    talk.station.assert_all_quiet();
}

#[test]
fn fragments_meet_on_one_core_and_the_whole_goes_where_its_flow_is() {
    let mut talk = Talk::new(|setup| setup.cores = 2);
    talk.local_port = 7;
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 100));
    for port in 4000..4016 {
        talk.port = port;
        talk.send_udp(WAKE, b"wake");
    }
    // A SYN in two pieces, from many hosts: assembled here or there, and answered wherever it belongs.
    for host in 2..34 {
        talk.ip = [10, 0, 0, host];
        let syn = talk.frame(SYN, 999, 0, 1000, &[], &[]);
        let mut pieces = cut(&syn, 5, &[16]);
        pieces.reverse();
        give(&mut talk, pieces);
        assert_eq!(talk.one().flags, SYN | ACK, "host {host}");
    }
    let reassembled =
        |core: usize| talk.station.engines[core].stats().get(Counter::DatagramsReassembled);
    assert!(reassembled(0) > 0 && reassembled(1) > 0);
    assert_eq!(reassembled(0) + reassembled(1), 32);
}
