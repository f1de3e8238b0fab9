//! A peer that sends in crumbs to an application that gives nothing back before it has a whole message.
use crate::support::station::Setup;
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Handle, Op, SocketAddress};
use ix_dataplane::limits::RECEIVE_WINDOW;

/// Few buffers: the share of one connection is less than a hundred.
fn few(setup: &mut Setup) {
    setup.buffers = 400;
}

/// A connection that the peer opened with sequence number 1000, accepted.
fn accepted(change: impl Fn(&mut Setup)) -> (Talk, Handle, u32) {
    let mut talk = Talk::new(change);
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.events();
    let (handle, una) = talk.handshake(0, 60_000, &[]);
    talk.sent();
    (talk, handle, una)
}

/// What the application was told of, where.
fn pieces(talk: &mut Talk) -> Vec<(u64, u64)> {
    let piece = |event: &Condition| match *event {
        Condition::Recv { addr, len, .. } => Some((addr, u64::from(len))),
        Condition::Sent { .. } | Condition::Result { .. } => None,
        _ => panic!("{event:?}"),
    };
    talk.events().iter().filter_map(piece).collect()
}

fn bytes(talk: &mut Talk, pieces: &[(u64, u64)]) -> Vec<u8> {
    let context = &talk.station.machines[0].context;
    pieces.iter().flat_map(|(addr, len)| context.bytes(*addr, *len).to_vec()).collect()
}

/// Sends `stream` in segments of the sizes that come round, each told of at once, and gives what was told.
fn send(talk: &mut Talk, una: u32, stream: &[u8], sizes: &[usize]) -> Vec<(u64, u64)> {
    let (mut at, mut told) = (0, Vec::new());
    for size in sizes.iter().cycle() {
        let end = (at + size).min(stream.len());
        talk.send(ACK, 1000 + at as u32, una, 60_000, &stream[at..end]);
        told.extend(pieces(talk));
        at = end;
        if at == stream.len() {
            return told;
        }
    }
    unreachable!("it ends")
}

fn stream(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn a_message_in_crumbs_comes_whole_to_an_application_that_waits_for_its_end() {
    let message = stream(20_000);
    for sizes in [&[1_usize][..], &[7], &[1, 300], &[900], &[1, 1, 1, 1460]] {
        let (mut talk, handle, una) = accepted(few);
        let told = send(&mut talk, una, &message, sizes);
        assert_eq!(bytes(&mut talk, &told), message, "in segments of {sizes:?}");
        assert_eq!(talk.station.dropped(Reason::TcpReceiveShare), 0);
        let books = talk.station.engines[0].conservation();
        assert!(books.received < 100 && books.broken == 0, "{books:?}");
        talk.call(Call::recv_done(handle, message.len() as u64));
        talk.events();
        assert_eq!(talk.station.engines[0].conservation().received, 0);
    }
}

#[test]
fn nothing_is_copied_while_the_connection_holds_less_than_half_of_its_share() {
    let (mut talk, handle, una) = accepted(|setup| setup.buffers = 4096);
    let message = stream(127);
    let told = send(&mut talk, una, &message, &[1]);
    assert_eq!(talk.station.count(Counter::PayloadCopied), 0);
    assert!(told.iter().all(|(_, len)| *len == 1));
    for byte in 0..10 {
        talk.send(ACK, 1127 + byte, una, 60_000, b"x");
    }
    // Of which one took a buffer.
    assert_eq!(talk.station.count(Counter::PayloadCopied), 9);
    // Where it gives back what it was told, none is ever copied again.
    let told = pieces(&mut talk).len() as u64;
    talk.call(Call::recv_done(handle, 127 + told));
    let copied = talk.station.count(Counter::PayloadCopied);
    for byte in 0..300 {
        talk.send(ACK, 1137 + byte, una, 60_000, b"y");
        let told = pieces(&mut talk).len() as u64;
        talk.call(Call::recv_done(handle, told));
    }
    assert_eq!(talk.station.count(Counter::PayloadCopied), copied);
}

#[test]
fn what_is_joined_is_given_back_by_the_byte() {
    let (mut talk, handle, una) = accepted(few);
    let message = stream(500);
    let told = send(&mut talk, una, &message, &[1]);
    for left in (0..500).rev() {
        talk.call(Call::recv_done(handle, 1));
        assert_eq!(talk.station.engines[0].conservation().received > 0, left > 0, "{left} left");
    }
    assert_eq!(told.len(), 500);
    talk.call(Call::recv_done(handle, 1));
    let invalid = talk.statuses();
    assert_eq!(invalid.last(), Some(&ix_abi::Status::Invalid));
}

#[test]
fn the_rest_of_a_buffer_is_told_of_after_its_front_was_given_back() {
    let (mut talk, handle, una) = accepted(few);
    let message = stream(200);
    send(&mut talk, una, &message, &[1]);
    // The application sleeps; what comes goes behind what it was told of.
    talk.script().asleep = true;
    for byte in 0..5 {
        talk.send(ACK, 1200 + byte, una, 60_000, &[byte as u8]);
    }
    talk.script().asleep = false;
    talk.call(Call::recv_done(handle, 200));
    let told = pieces(&mut talk);
    assert_eq!(bytes(&mut talk, &told), [0, 1, 2, 3, 4]);
    talk.call(Call::recv_done(handle, 5));
    talk.events();
    assert_eq!(talk.station.engines[0].conservation().received, 0);
}

#[test]
fn crumbs_behind_a_hole_are_joined_when_it_is_filled() {
    let (mut talk, handle, una) = accepted(few);
    let message = stream(300);
    let told = send(&mut talk, una, &message[..200], &[1]);
    for at in 201..211 {
        talk.send(ACK, 1000 + at, una, 60_000, &message[at as usize..][..1]);
    }
    let held = talk.station.engines[0].conservation().received;
    talk.send(ACK, 1200, una, 60_000, &message[200..201]);
    let mut all = told;
    all.extend(pieces(&mut talk));
    assert!(talk.station.engines[0].conservation().received <= held - 9);
    assert_eq!(bytes(&mut talk, &all), message[..211]);
    talk.call(Call::recv_done(handle, 211));
    talk.events();
    assert_eq!(talk.station.engines[0].conservation().received, 0);
}

#[test]
fn a_fin_behind_joined_crumbs_does_not_shift_what_is_told() {
    let (mut talk, handle, una) = accepted(few);
    let message = stream(120);
    let mut told = send(&mut talk, una, &message, &[1]);
    talk.script().asleep = true;
    talk.send(ACK, 1120, una, 60_000, b"end");
    talk.send(ACK | FIN, 1123, una, 60_000, b"!");
    talk.script().asleep = false;
    talk.call(Call::recv_done(handle, 0));
    let mut eof = false;
    for event in talk.events() {
        match event {
            Condition::Recv { addr, len, .. } => told.push((addr, u64::from(len))),
            Condition::Eof { .. } => eof = true,
            _ => {}
        }
    }
    assert!(eof);
    let whole = bytes(&mut talk, &told);
    assert_eq!(&whole[120..], b"end!");
    talk.call(Call::new(Op::Close, handle));
    talk.events();
}

#[test]
fn what_is_joined_can_be_sent_in_place() {
    let (mut talk, handle, una) = accepted(few);
    let message = stream(400);
    let told = send(&mut talk, una, &message, &[1]);
    talk.sent();
    // The last 200 bytes lie behind each other.
    let (addr, len) = told[200];
    assert!(told[200..].windows(2).all(|two| two[0].0 + two[0].1 == two[1].0));
    assert_eq!(len, 1);
    let entry = SgEntry { addr, len: 200 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    talk.call(Call::recv_done(handle, 400));
    let sent = talk.sent();
    let data: Vec<u8> = sent.iter().flat_map(|segment| segment.payload.clone()).collect();
    assert_eq!(data, message[200..]);
}

#[test]
fn what_fills_its_buffers_is_not_copied_when_the_share_is_full() {
    let (mut talk, _, una) = accepted(few);
    let message = stream(60 * 1400);
    let mut at = 0;
    while talk.station.dropped(Reason::TcpReceiveShare) == 0 {
        talk.send(ACK, 1000 + at as u32, una, 60_000, &message[at..at + 1400]);
        at += 1400;
    }
    // Not even a small one, which would have room.
    talk.send(ACK, 1000 + at as u32 - 1400, una, 60_000, b"crumb");
    assert_eq!(talk.station.dropped(Reason::TcpReceiveShare), 2);
    assert_eq!(talk.station.count(Counter::PayloadCopied), 0);
}

#[test]
fn a_whole_window_of_small_segments_is_held() {
    let mut talk = Talk::new(|setup| setup.buffers = 4096);
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.events();
    // MSS 1460, and a scale.
    let (handle, una) = talk.handshake(0, 60_000, &[2, 4, 5, 0xb4, 1, 3, 3, 7]);
    talk.sent();
    let message = stream(RECEIVE_WINDOW as usize);
    let told = send(&mut talk, una, &message, &[300]);
    assert_eq!(bytes(&mut talk, &told), message);
    assert_eq!(talk.station.dropped(Reason::TcpReceiveShare), 0);
    talk.call(Call::recv_done(handle, message.len() as u64));
    talk.events();
    assert_eq!(talk.station.engines[0].conservation().received, 0);
}
