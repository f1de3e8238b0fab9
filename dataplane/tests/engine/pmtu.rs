//! Path MTU discovery: by what routers say (RFC 1191), and where they are silent (RFC 4821).
use crate::support::icmp::error;
use crate::support::talk::*;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Handle, SocketAddress};
use ix_dataplane::time::Duration;

const MSS: u32 = 1460;
const WINDOW: u16 = 65_000;
const TOO_BIG: (u8, u8) = (3, 4);

fn accepted() -> (Talk, Handle, u32) {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    let (handle, una) = talk.handshake(0, WINDOW, &[2, 4, 0x05, 0xb4]);
    (talk, handle, una)
}

/// Sizes of the payloads that were sent since the last look.
fn sizes(talk: &mut Talk) -> Vec<usize> {
    talk.sent().iter().map(|s| s.payload.len()).collect()
}

fn router(talk: &mut Talk, mtu: u16, seq: u32, packet_len: u16) {
    let frame = error(talk, TOO_BIG.0, TOO_BIG.1, mtu, seq, packet_len);
    talk.give(frame);
    talk.step();
}

#[test]
fn a_router_s_word_makes_smaller_segments_at_once_and_costs_no_window() {
    // RFC 1191 §3, §6.4.
    let (mut talk, handle, una) = accepted();
    talk.sendv(handle, 10 * MSS);
    assert_eq!(sizes(&mut talk), [1460; 10]);
    router(&mut talk, 1400, una, 1500);
    let again = talk.sent();
    assert_eq!(again[0].seq, una);
    let bytes: usize = again.iter().map(|s| s.payload.len()).sum();
    assert!(again.iter().all(|s| s.payload.len() <= 1360), "RFC 1191: no packet beyond the MTU");
    assert_eq!(bytes as u32, 10 * MSS, "all of it, by the same window");
    assert_eq!(talk.station.count(Counter::PathMtuLowered), 1);
    // The other nine are reported too.
    router(&mut talk, 1400, una + MSS, 1500);
    talk.nothing();
    talk.send(ACK, 1000, una + 10 * MSS, WINDOW, &[]);
    talk.sendv(handle, 13_600);
    assert_eq!(sizes(&mut talk), [1360; 10], "and the window is what it was");
}

#[test]
fn a_word_about_nothing_in_flight_is_not_believed() {
    // RFC 5927 §4.1, §7.2.
    let (mut talk, handle, una) = accepted();
    talk.sendv(handle, 2 * MSS);
    let _ = talk.sent();
    for seq in [una - 1, una + 2 * MSS, una.wrapping_add(1 << 31), una - 10_000] {
        router(&mut talk, 1000, seq, 1500);
    }
    assert_eq!(talk.station.dropped(Reason::IcmpUnproven), 4);
    // In flight, but nonsense: larger than what there is, what would have fit, what was never sent.
    router(&mut talk, 1500, una, 1500);
    router(&mut talk, 9000, una, 1500);
    router(&mut talk, 1400, una, 1400);
    router(&mut talk, 1400, una, 1501);
    talk.nothing();
    assert_eq!(talk.station.count(Counter::PathMtuLowered), 0);
}

#[test]
fn a_router_that_names_no_size_means_the_next_below() {
    // RFC 1191 §5, §7.
    let (mut talk, handle, una) = accepted();
    talk.sendv(handle, 2 * MSS);
    let _ = talk.sent();
    let mut before = 1500;
    for size in [1492, 1400, 1280, 552] {
        router(&mut talk, 0, una, before);
        assert_eq!(sizes(&mut talk)[0], usize::from(size) - 40);
        before = size;
    }
}

#[test]
fn no_word_makes_packets_tiny() {
    let (mut talk, handle, una) = accepted();
    talk.sendv(handle, MSS);
    let _ = talk.sent();
    router(&mut talk, 68, una, 1500);
    assert_eq!(sizes(&mut talk), [512, 512, 436]);
}

#[test]
fn full_segments_that_vanish_without_a_word_get_smaller() {
    // RFC 4821 §7.7, RFC 2923 §2.1.
    let (mut talk, handle, una) = accepted();
    talk.sendv(handle, 4 * MSS);
    let _ = talk.sent();
    talk.pass(Duration::from_s(60));
    let sent = talk.sent();
    assert!(sent.iter().all(|s| s.seq == una || s.seq.wrapping_sub(una) < 4 * MSS));
    let sizes: Vec<usize> = sent.iter().filter(|s| s.seq == una).map(|s| s.payload.len()).collect();
    assert_eq!(sizes[..2], [1460, 1460], "twice as it was");
    assert_eq!(sizes[2..4], [1240, 1240], "IPv6's least passes nearly everywhere");
    assert_eq!(sizes[4], 512);
    // That gets through: everything does.
    let mut ack = una + 512;
    for _ in 0..20 {
        talk.send(ACK, 1000, ack, WINDOW, &[]);
        let sent = talk.sent();
        assert!(sent.iter().all(|s| s.payload.len() <= 512));
        ack = sent.last().map_or(ack, |s| s.seq + s.payload.len() as u32);
        if ack == una + 4 * MSS {
            return;
        }
    }
    panic!("{} of {}", ack - una, 4 * MSS);
}

#[test]
fn small_segments_that_vanish_say_nothing_of_sizes() {
    let (mut talk, handle, _) = accepted();
    talk.sendv(handle, 1000);
    talk.pass(Duration::from_s(60));
    assert!(sizes(&mut talk).iter().all(|size| *size == 1000));
    assert_eq!(talk.station.count(Counter::PathMtuLowered), 0);
}

/// A connection whose path takes 1280 bytes as far as it knows, with nothing in flight.
fn narrow() -> (Talk, Handle, u32) {
    let (mut talk, handle, una) = accepted();
    talk.sendv(handle, 4 * MSS);
    let _ = talk.sent();
    router(&mut talk, 1280, una, 1500);
    let una = una + 4 * MSS;
    talk.send(ACK, 1000, una, WINDOW, &[]);
    assert!(sizes(&mut talk).iter().all(|size| *size <= 1240));
    // Beyond what was sent again, so that duplicates count again (RFC 6582 §3.2 step 2).
    talk.sendv(handle, 100);
    talk.send(ACK, 1000, una + 100, WINDOW, &[]);
    let _ = talk.sent();
    (talk, handle, una + 100)
}

#[test]
fn after_ten_minutes_single_larger_segments_find_out_that_more_passes_again() {
    // RFC 1191 §6.3, RFC 4821 §7.
    let (mut talk, handle, mut una) = narrow();
    talk.pass(Duration::from_s(590));
    talk.sendv(handle, 4000);
    assert_eq!(sizes(&mut talk), [1240, 1240, 1240, 280], "not yet");
    una += 4000;
    talk.send(ACK, 1000, una, WINDOW, &[]);
    talk.pass(Duration::from_s(20));
    for size in [1360, 1452, 1460] {
        let before =
            [1240, 1360, 1452][[1360, 1452, 1460].iter().position(|s| *s == size).unwrap()];
        talk.sendv(handle, 4000);
        let sent = sizes(&mut talk);
        assert_eq!(sent[0], size, "a probe");
        assert_eq!(sent[1], before, "and one only");
        una += 4000;
        talk.send(ACK, 1000, una, WINDOW, &[]);
    }
    talk.sendv(handle, 5 * MSS);
    assert_eq!(sizes(&mut talk), [1460; 5], "as at first");
}

#[test]
fn a_probe_that_is_lost_costs_a_retransmission_and_ten_more_minutes() {
    let (mut talk, handle, una) = narrow();
    talk.pass(Duration::from_s(620));
    talk.sendv(handle, 6000);
    assert_eq!(sizes(&mut talk)[..2], [1360, 1240]);
    // All behind it arrives.
    for _ in 0..4 {
        talk.send(ACK, 1000, una, WINDOW, &[]);
    }
    let again = talk.sent();
    assert!(
        !again.is_empty() && again[0].seq == una && again[0].payload.len() == 1240,
        "{again:?}"
    );
    talk.pass(Duration::from_ms(250));
    talk.send(ACK, 1000, una + 6000, WINDOW, &[]);
    let _ = talk.sent();
    talk.sendv(handle, 2000);
    assert_eq!(sizes(&mut talk), [1240, 760]);
    talk.send(ACK, 1000, una + 8000, WINDOW, &[]);
    talk.pass(Duration::from_s(610));
    talk.sendv(handle, 2000);
    assert_eq!(sizes(&mut talk), [1360, 640], "once more");
}
