//! Timestamps (RFC 7323) in conversations with a peer whose segments are written by hand.
use crate::support::family::{MSS, MSS_OPTION};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::Drop as Reason;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress};
use ix_dataplane::time::Duration;

const PORT: SocketAddress = any(7);
const WINDOW: u16 = 60_000;

fn stamp(value: u32, echo: u32) -> Vec<u8> {
    let mut options = vec![1, 1, 8, 10];
    options.extend(value.to_be_bytes());
    options.extend(echo.to_be_bytes());
    options
}

/// The timestamps of a segment of the station's, which must be all its options.
#[track_caller]
fn stamps(segment: &Segment) -> (u32, u32) {
    assert_eq!((segment.options.len(), &segment.options[..4]), (12, &[1, 1, 8, 10][..]));
    let word = |at: usize| u32::from_be_bytes(segment.options[at..at + 4].try_into().unwrap());
    (word(4), word(8))
}

/// A connection with timestamps that the peer opened with sequence number 1000 and timestamp 500:
/// its handle, the station's next sequence number and its first timestamp.
fn accepted(talk: &mut Talk) -> (Handle, u32, u32) {
    talk.call(Call::listen(PORT, 4));
    let options = [&[2, 4, 0x05, 0xb4][..], &stamp(500, 0)].concat();
    talk.send_options(SYN, (999, 0), WINDOW, &options, &[]);
    let answer = talk.one();
    assert_eq!(answer.options[..4], MSS_OPTION);
    let answered = Segment { options: answer.options[4..].to_vec(), ..answer.clone() };
    let (value, echo) = stamps(&answered);
    assert_eq!(echo, 500);
    let una = answer.seq + 1;
    talk.send_options(ACK, (1000, una), WINDOW, &stamp(500, value), &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.call(Call::accept(handle, Cookie(1)));
    (handle, una, value)
}

fn sendv(handle: Handle, len: u64) -> Call {
    let entry = SgEntry { addr: HEAP_BASE, len };
    Call::sendv(handle, 1, entry, SgEntry::default()).with_result(5)
}

#[test]
fn all_that_the_peer_offers_is_agreed_on_in_one_layout() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4));
    // As Linux sends them: MSS, SACK permitted, timestamps, NOP, window scale (RFC 7323 appendix A).
    let options = [&[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0][..], &[1, 3, 3, 7]];
    talk.send_options(SYN, (999, 0), WINDOW, &options.concat(), &[]);
    let answer = talk.one();
    assert_eq!(answer.options[..8], [&MSS_OPTION[..], &[4, 2, 8, 10]].concat());
    assert_eq!(answer.options[12..], [0, 0, 0, 9, 1, 3, 3, 3]);
}

#[test]
fn nothing_is_agreed_on_that_the_peer_does_not_offer() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4));
    talk.send_options(SYN, (999, 0), WINDOW, &[2, 4, 0x05, 0xb4, 4, 2, 1, 1], &[]);
    let answer = talk.one();
    assert_eq!(answer.options, [&MSS_OPTION[..], &[1, 1, 4, 2]].concat());
    talk.send(ACK, 1000, answer.seq + 1, WINDOW, &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.calls(&[Call::accept(handle, Cookie(1)), sendv(handle, 10)]);
    assert_eq!(talk.one().options, []);
}

#[test]
fn a_segment_with_timestamps_has_room_for_them() {
    // RFC 6691 §2: the MSS does not count options.
    let mut talk = Talk::new(|_| {});
    let (handle, _, value) = accepted(&mut talk);
    talk.pass(Duration::from_ms(5));
    talk.call(sendv(handle, u64::from(MSS)));
    let sent = talk.sent();
    assert_eq!(sent.iter().map(|s| s.payload.len()).collect::<Vec<_>>(), [MSS as usize - 12, 12]);
    let (now, echo) = stamps(&sent[0]);
    assert_eq!((now.wrapping_sub(value), echo), (5, 500), "a clock of milliseconds");
}

#[test]
fn the_timestamp_of_the_first_unacknowledged_segment_is_echoed() {
    // RFC 7323 §4.3 (A): delayed ACKs echo the earliest; (B): a hole keeps what came before it.
    let mut talk = Talk::new(|_| {});
    let (_, una, value) = accepted(&mut talk);
    talk.send_options(ACK, (1000, una), WINDOW, &stamp(510, value), b"ab");
    talk.nothing();
    talk.send_options(ACK, (1002, una), WINDOW, &stamp(520, value), b"cd");
    talk.pass(Duration::from_ms(50));
    let ack = talk.one();
    assert_eq!((stamps(&ack).1, ack.ack), (510, 1004));
    talk.send_options(ACK, (1006, una), WINDOW, &stamp(530, value), b"gh");
    assert_eq!(stamps(&talk.one()).1, 510, "behind a hole");
    talk.send_options(ACK, (1004, una), WINDOW, &stamp(540, value), b"ef");
    assert_eq!(stamps(&talk.one()).1, 540, "which fills the hole");
}

#[test]
fn what_is_older_by_its_timestamp_is_dropped_and_answered() {
    // RFC 7323 §5.3 R1: PAWS, though the sequence number fits.
    let mut talk = Talk::new(|_| {});
    let (_, una, value) = accepted(&mut talk);
    talk.send_options(ACK, (1000, una), WINDOW, &stamp(499, value), b"old");
    let ack = talk.one();
    assert_eq!((ack.ack, stamps(&ack).1), (1000, 500));
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::TcpTimestamp), 1);
    talk.send_options(ACK, (1000, una), WINDOW, &stamp(500, value), b"new");
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 3, .. }]));
    talk.send_options(RST, (1003, 0), 0, &stamp(1, 0), &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { .. }]), "a reset needs no timestamp");
}

#[test]
fn timestamps_go_round() {
    let mut talk = Talk::new(|_| {});
    let (_, una, value) = accepted(&mut talk);
    for (seq, stamped) in [(1000, 0x7fff_ffff), (1001, 0xffff_fff0), (1002, 0x10)] {
        talk.send_options(ACK, (seq, una), WINDOW, &stamp(stamped, value), b"x");
        assert_eq!(talk.events().len(), 1);
        talk.pass(Duration::from_ms(50));
        assert_eq!(stamps(&talk.one()).1, stamped);
    }
    assert_eq!(talk.station.dropped(Reason::TcpTimestamp), 0);
}

#[test]
fn a_segment_without_the_agreed_timestamp_is_dropped_silently() {
    // RFC 7323 §3.2.
    let mut talk = Talk::new(|_| {});
    let (_, una, _) = accepted(&mut talk);
    talk.send(ACK, 1000, una, WINDOW, b"bare");
    talk.nothing();
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::TcpTimestamp), 1);
    talk.send(SYN, 1000, una, WINDOW, &[]);
    assert_eq!(talk.one().ack, 1000, "but a SYN is challenged");
}

#[test]
fn after_24_days_of_silence_the_last_timestamp_protects_no_more() {
    // RFC 7323 §5.5.
    let day = Duration::from_s(24 * 60 * 60);
    for (days, taken) in [(23, false), (25, true)] {
        let mut talk = Talk::new(|_| {});
        let (_, una, value) = accepted(&mut talk);
        talk.now = talk.now + Duration(day.0 * days);
        talk.send_options(ACK, (1000, una), WINDOW, &stamp(400, value), b"x");
        assert_eq!(!talk.events().is_empty(), taken, "after {days} days");
        if taken {
            talk.pass(Duration::from_ms(50));
            assert_eq!(stamps(talk.sent().last().unwrap()).1, 400);
        }
    }
}

#[test]
fn connections_do_not_show_each_others_clock() {
    // RFC 7323 §7.1.
    let mut talk = Talk::new(|_| {});
    let (_, _, first) = accepted(&mut talk);
    talk.port += 1;
    talk.local_port = 7;
    let options = [&[2, 4, 0x05, 0xb4][..], &stamp(500, 0)].concat();
    talk.send_options(SYN, (999, 0), WINDOW, &options, &[]);
    let answer = talk.one();
    let second = u32::from_be_bytes(answer.options[8..12].try_into().unwrap());
    assert!(first.abs_diff(second) > 1_000_000, "{first} {second}");
}
