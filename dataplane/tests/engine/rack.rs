//! Loss detection by time and by probes (RFC 8985), timeouts (RFC 6298), and what peers without
//! selective acknowledgements get (RFC 6582): conversations, one behaviour each.
use crate::support::sack::*;
use crate::support::talk::*;
use ix_abi::stats::Counter;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress};
use ix_dataplane::time::Duration;

const RTT: Duration = Duration::from_ms(20);
const MS: Duration = Duration::from_ms(1);

/// Segments of SEGMENT bytes on a connection whose peer has SACK: the connection, and its next sequence
/// number before them.
fn sending(segments: u32) -> (Talk, Handle, u32) {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, segments * SEGMENT));
    assert_eq!(payloads(&mut talk, una).len() as u32, segments);
    (talk, handle, una)
}

/// The same with a peer that has none.
fn sending_plain(segments: u32) -> (Talk, Handle, u32) {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.send_options(SYN, (999, 0), WINDOW, &[2, 4, 0x03, 0xe8], &[]);
    let una = talk.one().seq + 1;
    talk.pass(RTT);
    talk.send(ACK, 1000, una, WINDOW, &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.calls(&[Call::accept(handle, Cookie(1)), sendv(handle, segments * SEGMENT)]);
    assert_eq!(payloads(&mut talk, una).len() as u32, segments);
    (talk, handle, una)
}

#[test]
fn a_segment_that_is_overtaken_is_lost_a_quarter_round_trip_later() {
    // RFC 8985 §6.2 step 5: only one has overtaken it, so it may be late.
    let (mut talk, _, una) = sending(4);
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 2000)]);
    talk.pass(Duration::from_ms(4));
    assert_eq!(payloads(&mut talk, una), []);
    talk.pass(Duration::from_ms(2));
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
    // The rest was sent at the same time, but nothing has overtaken it.
    ack(&mut talk, una + 2000, &[]);
    talk.pass(MS);
    assert_eq!(payloads(&mut talk, una), []);
}

#[test]
fn a_segment_that_comes_late_is_not_sent_again_and_leaves_room_for_the_next() {
    let (mut talk, handle, una) = sending(4);
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 2000)]);
    talk.pass(Duration::from_ms(3));
    ack(&mut talk, una + 4000, &[]);
    // Reordering was seen: now even three that overtake it must wait.
    talk.call(sendv(handle, 8 * SEGMENT));
    let _ = talk.sent();
    talk.pass(RTT);
    ack(&mut talk, una + 4000, &[(una + 5000, una + 12_000)]);
    assert_eq!(payloads(&mut talk, una), []);
    talk.pass(Duration::from_ms(3));
    ack(&mut talk, una + 12_000, &[]);
    talk.pass(Duration::from_s(1));
    assert_eq!(talk.station.count(Counter::TcpRetransmits), 0);
}

#[test]
fn a_retransmission_that_is_lost_is_sent_once_more_without_a_timeout() {
    // RFC 8985 §3: what was sent after it has arrived.
    let (mut talk, handle, una) = sending(6);
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 6000)]);
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    talk.pass(MS);
    talk.call(sendv(handle, 2 * SEGMENT));
    assert_eq!(payloads(&mut talk, una), [(6000, 1000), (7000, 1000)]);
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 8000)]);
    talk.pass(Duration::from_ms(10));
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
}

#[test]
fn duplicates_widen_the_window_for_reordering() {
    // RFC 8985 §6.2 step 4: a D-SACK says that the retransmission was needless.
    let (mut talk, handle, una) = sending(1);
    talk.pass(RTT);
    ack(&mut talk, una + 1000, &[]);
    let mut base = una + 1000;
    let mut waits = Vec::new();
    for _ in 0..3 {
        for _ in 0..4 {
            talk.call(sendv(handle, 100));
        }
        assert_eq!(payloads(&mut talk, base).len(), 4);
        talk.pass(RTT);
        ack(&mut talk, base, &[(base + 100, base + 200)]);
        let mut waited = 0;
        while payloads(&mut talk, una).is_empty() {
            talk.pass(MS);
            waited += 1;
            assert!(waited < 100);
        }
        waits.push(waited);
        // It was only late, and the retransmission came after it.
        ack(&mut talk, base + 400, &[]);
        ack(&mut talk, base + 400, &[(base, base + 100)]);
        base += 400;
    }
    assert_eq!(talk.station.count(Counter::TcpDuplicatesTold), 3);
    assert!(waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
}

#[test]
fn the_tail_of_a_flight_is_probed_in_two_round_trips() {
    // RFC 8985 §7.2, §7.3: no new data, so the last segment.
    let (mut talk, _, una) = sending(3);
    talk.pass(Duration::from_ms(39));
    assert_eq!(payloads(&mut talk, una), []);
    talk.pass(Duration::from_ms(2));
    assert_eq!(payloads(&mut talk, una), [(2000, 1000)]);
    assert_eq!(talk.station.count(Counter::TcpLossProbes), 1);
    // All three were lost: the probe's arrival shows it.
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 2000, una + 3000)]);
    talk.pass(Duration::from_ms(6));
    let again = payloads(&mut talk, una);
    assert_eq!(again.first(), Some(&(0, 1000)), "{again:?}");
    ack(&mut talk, una + 1000, &[(una + 2000, una + 3000)]);
    talk.pass(Duration::from_ms(30));
    let rest = payloads(&mut talk, una);
    assert!(again.len() + rest.len() == 2, "{again:?} {rest:?}");
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
}

#[test]
fn a_probe_that_repairs_the_only_loss_costs_what_any_loss_costs() {
    // RFC 8985 §7.4.2; unless the peer says that it has received the segment twice.
    let window = |told| {
        let (mut talk, handle, una) = sending(10);
        talk.pass(RTT);
        ack(&mut talk, una + 8000, &[]);
        talk.pass(Duration::from_ms(45));
        assert_eq!(payloads(&mut talk, una), [(9000, 1000)]);
        ack(&mut talk, una + 10_000, &[]);
        if told {
            ack(&mut talk, una + 10_000, &[(una + 9000, una + 10_000)]);
        }
        talk.call(sendv(handle, 1000));
        let _ = talk.events();
        ack(&mut talk, una + 11_000, &[]);
        assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
        let events = talk.events();
        let window = events.iter().find_map(|event| match event {
            Condition::Sent { window, .. } => Some(*window),
            _ => None,
        });
        window.expect("an event")
    };
    let (reduced, whole) = (window(false), window(true));
    assert!(whole > 10_000 && reduced < whole * 3 / 4, "{reduced} {whole}");
}

#[test]
fn one_segment_alone_is_not_probed() {
    // The peer may hold its acknowledgement back (RFC 8985 §7.2).
    let (mut talk, _, una) = sending(1);
    talk.pass(Duration::from_ms(190));
    assert_eq!(payloads(&mut talk, una), []);
    talk.pass(Duration::from_ms(30));
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 1);
}

#[test]
fn the_floor_of_the_timeout_is_configurable() {
    let mut talk =
        Talk::new(|setup| setup.configure = |config| config.profile.rto_min = Duration::from_ms(1));
    let (handle, una) = accepted(&mut talk, Duration::from_us(100));
    talk.call(sendv(handle, 100));
    let _ = talk.sent();
    talk.pass(Duration::from_us(950));
    talk.nothing();
    talk.pass(Duration::from_us(100));
    assert_eq!(payloads(&mut talk, una), [(0, 100)]);
    talk.pass(Duration::from_us(1900));
    talk.nothing();
    talk.pass(Duration::from_us(200));
    assert_eq!(payloads(&mut talk, una), [(0, 100)], "backed off");
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 2);
}

#[test]
fn what_was_sent_twice_is_not_measured() {
    // Karn (RFC 6298 §3): else the timeout would shrink to nothing, or grow.
    let (mut talk, handle, una) = sending(1);
    talk.pass(Duration::from_ms(500));
    assert_eq!(talk.sent().len(), 1);
    ack(&mut talk, una + 1000, &[]);
    talk.call(sendv(handle, 1000));
    let _ = talk.sent();
    talk.pass(Duration::from_ms(195));
    talk.nothing();
    talk.pass(Duration::from_ms(20));
    assert_eq!(payloads(&mut talk, una), [(1000, 1000)], "the floor, as before");
}

#[test]
fn a_syn_that_was_sent_again_leaves_a_long_timeout() {
    // RFC 6298 §5.7.
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let una = talk.one().seq + 1;
    talk.pass(Duration::from_ms(1100));
    assert_eq!(talk.sent().len(), 1);
    talk.send(ACK, 1000, una, WINDOW, &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.calls(&[Call::accept(handle, Cookie(1)), sendv(handle, 100)]);
    let _ = talk.sent();
    talk.pass(Duration::from_ms(2900));
    talk.nothing();
    talk.pass(Duration::from_ms(200));
    assert_eq!(talk.one().payload.len(), 100);
}

#[test]
fn without_selective_acknowledgements_partial_ones_show_the_next_hole() {
    // RFC 6582 §3.2.
    let (mut talk, _, una) = sending_plain(8);
    for _ in 0..2 {
        ack(&mut talk, una, &[]);
        talk.nothing();
    }
    ack(&mut talk, una, &[]);
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    for _ in 0..3 {
        ack(&mut talk, una, &[]);
    }
    assert_eq!(payloads(&mut talk, una), []);
    ack(&mut talk, una + 3000, &[]);
    assert_eq!(payloads(&mut talk, una), [(3000, 1000)]);
    ack(&mut talk, una + 8000, &[]);
    assert_eq!(talk.station.memory.pins_total(), 0);
    assert_eq!(talk.station.count(Counter::TcpRecoveries), 1);
    assert_eq!(talk.station.count(Counter::TcpRetransmits), 2);
    talk.station.assert_buffers_conserved();
}

#[test]
fn duplicates_of_what_a_recovery_was_about_begin_no_other() {
    // RFC 6582 §3.2 step 1: `recover` must be passed.
    let (mut talk, handle, una) = sending_plain(4);
    talk.pass(Duration::from_ms(300));
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    ack(&mut talk, una + 1000, &[]);
    assert_eq!(payloads(&mut talk, una), [(1000, 1000), (2000, 1000)]);
    for _ in 0..5 {
        ack(&mut talk, una + 1000, &[]);
    }
    talk.nothing();
    ack(&mut talk, una + 4000, &[]);
    talk.call(sendv(handle, 2 * SEGMENT));
    let _ = talk.sent();
    for _ in 0..3 {
        ack(&mut talk, una + 4000, &[]);
    }
    talk.nothing();
    assert_eq!(talk.station.count(Counter::TcpRecoveries), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn new_data_goes_out_with_the_first_two_duplicates() {
    // RFC 3042. What the window refused must be with us: it is the peer's window that held it.
    let (mut talk, handle, una) = sending_plain(5);
    talk.call(sendv(handle, 5 * SEGMENT));
    assert_eq!(payloads(&mut talk, una).len(), 5);
    let _ = talk.events();
    talk.call(sendv(handle, SEGMENT));
    let refused = |e: &Condition| matches!(e, Condition::Result { value: 0, .. });
    assert!(talk.events().iter().any(refused), "the window is full");
    ack(&mut talk, una, &[]);
    let room = |e: &Condition| matches!(e, Condition::Sent { window: 1000, .. });
    assert!(talk.events().iter().any(room), "a segment has arrived");
    talk.call(sendv(handle, SEGMENT));
    assert_eq!(payloads(&mut talk, una), [(10_000, 1000)]);
}

#[test]
fn a_timeout_that_was_needless_is_undone() {
    // RFC 3522, RFC 4015: the acknowledgement answers what was sent before the timeout.
    let stamp = |value: u32, echo: u32| {
        [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
    };
    for (original, more) in [(true, 0), (false, 2)] {
        let mut talk = Talk::new(|_| {});
        talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
        let options = [&[2, 4, 0x03, 0xf4][..], &stamp(1, 0)].concat();
        talk.send_options(SYN, (999, 0), WINDOW, &options, &[]);
        let una = talk.one().seq + 1;
        talk.pass(RTT);
        talk.send_options(ACK, (1000, una), WINDOW, &stamp(2, 0), &[]);
        let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
        talk.calls(&[Call::accept(handle, Cookie(1)), sendv(handle, 4 * SEGMENT)]);
        let sent = talk.sent();
        let value = |s: &Segment| u32::from_be_bytes(s.options[4..8].try_into().unwrap());
        let first = value(&sent[0]);
        talk.pass(Duration::from_ms(250));
        let again = value(&talk.one());
        assert!(again > first);
        let echo = if original { first } else { again };
        talk.send_options(ACK, (1000, una + 1000), WINDOW, &stamp(3, echo), &[]);
        assert_eq!(payloads(&mut talk, una).len(), more);
        assert_eq!(talk.station.count(Counter::TcpSpuriousTimeouts), u64::from(original));
    }
}

#[test]
fn what_is_lost_waits_for_a_window_that_the_peer_has_taken_back() {
    // RFC 9293 §3.8.6: probes, not timeouts, while the window is shut.
    let (mut talk, _, una) = sending(4);
    talk.send(ACK, 1000, una, 0, &[]);
    talk.pass(Duration::from_ms(500));
    let _ = talk.sent();
    for _ in 0..20 {
        talk.pass(Duration::from_s(10));
        for probe in talk.sent() {
            assert_eq!((probe.seq, probe.payload.len()), (una - 1, 0));
        }
        talk.send(ACK, 1000, una, 0, &[]);
    }
    assert!(!talk.events().iter().any(|e| matches!(e, Condition::Dead { .. })));
    let _ = talk.sent();
    talk.send(ACK, 1000, una, WINDOW, &[]);
    assert_eq!(payloads(&mut talk, una)[0], (0, 1000));
    ack(&mut talk, una + 1000, &[]);
    ack(&mut talk, una + 4000, &[]);
    assert_eq!(talk.station.memory.pins_total(), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_smaller_window_is_reached_step_by_step() {
    // RFC 6937 §3.1: what goes out follows what arrives, neither a pause of half a round trip nor a burst.
    let (mut talk, handle, una) = sending(10);
    talk.pass(RTT);
    for acked in 1..=30 {
        ack(&mut talk, una + acked * SEGMENT, &[]);
        talk.call(sendv(handle, 2 * SEGMENT));
    }
    let base = una + 30 * SEGMENT;
    let sent = talk.sent();
    let end = sent.last().map(|s| s.seq.wrapping_sub(base) + s.payload.len() as u32);
    assert_eq!(end, Some(40 * SEGMENT), "in flight");
    talk.pass(RTT);
    // Four are lost, and the window is to shrink by more than what has arrived so far.
    let mut out = Vec::new();
    for arrived in 1..=20 {
        ack(&mut talk, base, &[(base + 4000, base + 4000 + arrived * SEGMENT)]);
        out.push(payloads(&mut talk, base).len());
    }
    assert_eq!(talk.station.count(Counter::TcpRecoveries), 1);
    assert_eq!(talk.station.count(Counter::TcpRetransmits), 4);
    assert_eq!(out[..4], [0, 0, 1, 0], "{out:?}");
    assert!(out.iter().all(|sent| *sent <= 1), "{out:?}");
    assert_eq!(out[..8].iter().sum::<usize>(), 4, "{out:?}");
}

#[test]
fn what_a_peer_may_acknowledge_late_is_not_probed_early() {
    // RFC 8985 §7.2: less than two full segments.
    let (mut talk, handle, una) = sending(1);
    talk.pass(RTT);
    ack(&mut talk, una + SEGMENT, &[]);
    talk.call(sendv(handle, 100));
    talk.call(sendv(handle, 100));
    assert_eq!(talk.sent().len(), 2);
    talk.pass(Duration::from_ms(190));
    talk.nothing();
    talk.pass(Duration::from_ms(30));
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 1);
}
