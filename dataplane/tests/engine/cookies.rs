//! SYN cookies (RFC 4987 §3.6) in conversations with peers whose segments are written by hand.
use crate::support::family::{MSS, MSS_OPTION, set_tos};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress};
use ix_dataplane::time::Duration;

const PORT: SocketAddress = any(7);
const COOKIE: Cookie = Cookie(0xc0ffee);
/// What a client offers that has everything, with timestamp 500.
const ALL: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 1, 244, 0, 0, 0, 0, 1, 3, 3, 7];

/// A listener with a backlog of 2 that two clients who never answer have filled.
fn flooded() -> Talk {
    let mut talk = Talk::new(|s| s.groups = 1);
    talk.call(Call::listen(PORT, 2));
    for port in [2001, 2002] {
        talk.port = port;
        talk.send(SYN, 7, 0, 1000, &[]);
    }
    assert_eq!(talk.sent().len(), 2);
    assert_eq!(talk.station.count(Counter::SynCookiesSent), 0);
    talk.port = 4000;
    talk
}

fn stamp(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[track_caller]
fn knock(talk: &mut Talk) -> Handle {
    let events = talk.events();
    let [Condition::Knock { handle, remote, local_port: 7, .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(remote, talk.remote());
    handle
}

fn sendv(handle: Handle, len: u64) -> Call {
    let entry = SgEntry { addr: HEAP_BASE, len };
    Call::sendv(handle, 1, entry, SgEntry::default())
}

#[test]
fn a_client_without_timestamps_connects_through_a_full_backlog_and_keeps_its_segment_size() {
    let mut talk = flooded();
    talk.send_options(SYN, (999, 0), 1000, &[2, 4, 2, 88, 1, 3, 3, 7], &[]);
    let answer = talk.one();
    assert_eq!((answer.flags, answer.ack), (SYN | ACK, 1000));
    assert_eq!(answer.options, MSS_OPTION, "what cannot be remembered is not offered");
    assert_eq!(talk.station.count(Counter::TcpConnections), 2, "no state");
    assert_eq!(talk.events(), []);
    let una = answer.seq + 1;
    talk.send(ACK, 1000, una, 2000, &[]);
    let handle = knock(&mut talk);
    assert_eq!(talk.station.count(Counter::SynCookiesAccepted), 1);
    talk.calls(&[Call::accept(handle, COOKIE), sendv(handle, 1000)]);
    let sent = talk.sent();
    let sizes: Vec<_> = sent.iter().map(|s| (s.seq, s.payload.len())).collect();
    assert_eq!(sizes, [(una, 536), (una + 536, 464)], "600 is rounded down");
    talk.send(ACK | PSH, 1000, una + 1000, 2000, b"question");
    let events = talk.events();
    assert!(
        matches!(
            events[..],
            [Condition::Sent { bytes: 1000, window: 2000, .. }, Condition::Recv { len: 8, .. }]
                | [Condition::RecvSent { len: 8, sent: 1000, .. }]
        ),
        "{events:?}"
    );
}

#[test]
fn scaling_and_sack_survive_in_the_timestamp() {
    let mut talk = flooded();
    talk.send_options(SYN, (999, 0), 1000, &ALL, &[]);
    let answer = talk.one();
    assert_eq!(
        answer.options[..8],
        [&MSS_OPTION[..], &[4, 2, 8, 10]].concat(),
        "RFC 2018, RFC 7323"
    );
    assert_eq!(answer.options[12..], [0, 0, 1, 244, 1, 3, 3, 3]);
    assert_eq!(talk.station.count(Counter::TcpConnections), 2, "no state");
    let (una, value) = (answer.seq + 1, word(&answer.options, 8));
    talk.send_options(ACK, (1000, una), 100, &stamp(501, value), &[]);
    let handle = knock(&mut talk);
    // A segment less 12 bytes for timestamps; the window of 100 is one of 12,800.
    talk.calls(&[Call::accept(handle, COOKIE), sendv(handle, 3000)]);
    let sent = talk.sent();
    let full = MSS as usize - 12;
    let sizes: Vec<_> = sent.iter().map(|s| s.payload.len()).collect();
    assert_eq!(sizes, [full, full, 3000 - 2 * full]);
    for segment in &sent {
        let ours = word(&segment.options, 4);
        assert!(ours.wrapping_sub(value) < 1000, "timestamps go on from the cookie's");
        assert_eq!(word(&segment.options, 8), 501);
    }
    talk.send_options(ACK, (1000, una + 3000), 100, &stamp(502, value), &[]);
    assert!(matches!(talk.events()[..], [Condition::Sent { bytes: 3000, window: 12_800, .. }]));
}

#[test]
fn congestion_notification_survives_in_the_timestamp_too() {
    // RFC 3168 §6.1.1: ECE and CWR ask, ECE agrees; then new data is marked as capable.
    const ECE: u8 = 64;
    const CWR: u8 = 128;
    for asks in [false, true] {
        let mut talk = flooded();
        let flags = if asks { SYN | ECE | CWR } else { SYN };
        talk.send_options(flags, (999, 0), 1000, &ALL, &[]);
        let answer = talk.one();
        assert_eq!(answer.flags, if asks { SYN | ACK | ECE } else { SYN | ACK });
        let (una, value) = (answer.seq + 1, word(&answer.options, 8));
        talk.send_options(ACK, (1000, una), 1000, &stamp(501, value), &[]);
        let handle = knock(&mut talk);
        talk.call(Call::accept(handle, COOKIE));
        // A mark is echoed by those that have agreed.
        let mut frame = talk.frame(ACK | PSH, 1000, una, 1000, &stamp(501, value), b"marked");
        set_tos(&mut frame, 3);
        talk.give(frame);
        talk.step();
        talk.pass(Duration::from_ms(50));
        assert_eq!(talk.one().flags & ECE, if asks { ECE } else { 0 });
    }
}

#[test]
fn a_first_acknowledgement_that_brings_data_or_fin_loses_none_of_it() {
    let mut talk = flooded();
    talk.send(SYN, 999, 0, 1000, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK | PSH | FIN, 1000, una, 1000, b"early");
    let handle = knock(&mut talk);
    talk.call(Call::accept(handle, COOKIE));
    let events = talk.events();
    let [Condition::Recv { addr, len: 5, .. }, Condition::Eof { .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(talk.station.machines[0].context.bytes(addr, 5), b"early");
    assert_eq!(talk.one().ack, 1006);
}

#[test]
fn a_forged_cookie_is_refused_and_counted() {
    let mut talk = flooded();
    talk.send_options(SYN, (999, 0), 1000, &ALL, &[]);
    let answer = talk.one();
    let (una, value) = (answer.seq + 1, word(&answer.options, 8));
    let mut refused = 0;
    let mut forge = |talk: &mut Talk, seq: u32, ack: u32, options: &[u8]| {
        talk.send_options(ACK, (seq, ack), 1000, options, &[]);
        let rst = talk.one();
        assert_eq!((rst.flags, rst.seq), (RST, ack));
        refused += 1;
        assert_eq!(talk.station.dropped(Reason::TcpCookie), refused);
        assert_eq!(talk.events(), []);
    };
    let good = stamp(501, value);
    for bit in 0..32 {
        forge(&mut talk, 1000, ((una - 1) ^ (1 << bit)) + 1, &good);
    }
    forge(&mut talk, 1001, una, &good);
    forge(&mut talk, 1000, una, &[]);
    forge(&mut talk, 1000, una, &stamp(501, value ^ 1));
    forge(&mut talk, 1000, una, &stamp(501, value ^ 16));
    talk.port += 1;
    forge(&mut talk, 1000, una, &good);
    talk.port -= 1;
    // Bits above those of the extras are not the cookie's: whatever the peer's clock made of them.
    talk.send_options(ACK, (1000, una), 1000, &stamp(501, value ^ 64), &[]);
    knock(&mut talk);
}

#[test]
fn a_stale_cookie_is_refused() {
    let mut talk = flooded();
    talk.send(SYN, 999, 0, 1000, &[]);
    let old = talk.one().seq + 1;
    talk.pass(Duration::from_s(70));
    let _ = talk.sent();
    // Nobody has got a cookie for long: ACKs are not even looked at.
    talk.send(ACK, 1000, old, 1000, &[]);
    assert_eq!(talk.one().flags, RST);
    assert_eq!(talk.station.dropped(Reason::TcpCookie), 0);
    // And while others get theirs.
    for port in [2001, 2002, 2003] {
        talk.port = port;
        talk.send(SYN, 7, 0, 1000, &[]);
    }
    assert_eq!(talk.sent().len(), 3);
    assert_eq!(talk.station.count(Counter::SynCookiesSent), 2);
    talk.port = 4000;
    talk.send(ACK, 1000, old, 1000, &[]);
    assert_eq!(talk.one().flags, RST);
    assert_eq!(talk.station.dropped(Reason::TcpCookie), 1);
    assert_eq!(talk.events(), []);
}

#[test]
fn a_cookie_lasts_for_as_long_as_a_handshake_may_take() {
    let mut talk = flooded();
    talk.send(SYN, 999, 0, 1000, &[]);
    let una = talk.one().seq + 1;
    talk.pass(Duration::from_s(30));
    let _ = talk.sent();
    talk.send(ACK, 1000, una, 1000, &[]);
    knock(&mut talk);
}

#[test]
fn an_application_that_does_not_accept_makes_clients_wait_with_and_without_cookies() {
    let mut talk = flooded();
    let mut unas = Vec::new();
    for i in 0..3 {
        talk.port = 4000 + i;
        talk.send(SYN, 999, 0, 1000, &[]);
        unas.push(talk.one().seq + 1);
    }
    let mut handles = Vec::new();
    for (i, una) in unas.iter().take(2).enumerate() {
        talk.port = 4000 + i as u16;
        talk.send(ACK, 1000, *una, 1000, &[]);
        handles.push(knock(&mut talk));
    }
    talk.port = 4002;
    talk.send(ACK | PSH, 1000, unas[2], 1000, b"patience");
    talk.nothing();
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::TcpBacklogFull), 1);
    talk.port = 4003;
    talk.send(SYN, 999, 0, 1000, &[]);
    talk.nothing();
    assert_eq!(talk.station.dropped(Reason::TcpBacklogFull), 2, "no promise that cannot be kept");
    // As a client that was in the handshake before the flood's end.
    talk.port = 2001;
    assert_eq!(talk.station.count(Counter::TcpConnections), 4);
    talk.call(Call::accept(handles[0], COOKIE));
    talk.port = 4002;
    talk.send(ACK | PSH, 1000, unas[2], 1000, b"patience");
    knock(&mut talk);
}

#[test]
fn a_completed_handshake_waits_while_cookies_have_filled_the_knocks() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 1));
    talk.port = 2001;
    talk.send(SYN, 7, 0, 1000, &[]);
    let first = talk.one().seq + 1;
    talk.port = 4000;
    talk.send(SYN, 999, 0, 1000, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, 1000, &[]);
    let handle = knock(&mut talk);
    talk.port = 2001;
    talk.send(ACK, 8, first, 1000, &[]);
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::TcpBacklogFull), 1);
    talk.call(Call::accept(handle, COOKIE));
    // The answer to the SYN comes again, and with it the acknowledgement.
    talk.pass(Duration::from_ms(1100));
    assert_eq!(talk.one().flags, SYN | ACK);
    talk.send(ACK, 8, first, 1000, &[]);
    knock(&mut talk);
}

#[test]
fn handshakes_take_a_part_of_the_table_only_and_a_good_cookie_without_a_slot_is_refused() {
    let mut talk = Talk::new(|s| {
        s.connections = 8;
        s.groups = 1;
    });
    talk.call(Call::listen(PORT, 1000));
    let mut unas = Vec::new();
    for i in 0..9 {
        talk.port = 4000 + i;
        talk.send(SYN, 999, 0, 1000, &[]);
        unas.push(talk.one().seq + 1);
    }
    assert_eq!(talk.station.count(Counter::TcpConnections), 2);
    assert_eq!(talk.station.count(Counter::SynCookiesSent), 7);
    for (i, una) in unas.iter().enumerate() {
        talk.port = 4000 + i as u16;
        talk.send(ACK, 1000, *una, 1000, &[]);
        if i < 8 {
            knock(&mut talk);
        }
    }
    assert_eq!(talk.one().flags, RST);
    assert_eq!(talk.station.dropped(Reason::TcpTableFull), 1);
    assert_eq!(talk.station.count(Counter::TcpConnections), 8);
    talk.port = 5000;
    talk.send(SYN, 999, 0, 1000, &[]);
    talk.nothing();
    assert_eq!(talk.station.dropped(Reason::TcpTableFull), 2, "it is full of connections");
}
