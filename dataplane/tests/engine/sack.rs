//! Selective acknowledgements (RFC 2018, RFC 2883, RFC 6675) in conversations, one behaviour each.
use crate::support::sack::*;
use crate::support::talk::*;
use ix_abi::stats::Counter;
use ix_abi::{Call, Condition};
use ix_dataplane::time::Duration;

const RTT: Duration = Duration::from_ms(20);

#[test]
fn what_is_behind_holes_is_told_the_newest_first() {
    // RFC 2018 §4: the first block holds the segment that triggered the acknowledgement.
    let mut talk = Talk::new(|_| {});
    let (_, una) = accepted(&mut talk, RTT);
    let mut told = Vec::new();
    for seq in [1100, 1300, 1500, 1310, 1700, 1900] {
        talk.send(ACK, seq, una, WINDOW, &[7; 10]);
        let ack = talk.one();
        assert_eq!((ack.ack, ack.payload.len()), (1000, 0));
        told = blocks(&ack);
        assert!(told[0].0 <= seq && seq < told[0].1, "{seq} in {told:?}");
    }
    assert_eq!(told, [(1900, 1910), (1700, 1710), (1300, 1320), (1500, 1510)], "four fit");
    // Filling a hole merges runs, and what is in order is told no more.
    talk.send(ACK, 1320, una, WINDOW, &[7; 180]);
    assert_eq!(blocks(&talk.one())[0], (1300, 1510));
    talk.send(ACK, 1000, una, WINDOW, &[7; 300]);
    let ack = talk.one();
    assert_eq!((ack.ack, blocks(&ack)), (1510, vec![(1900, 1910), (1700, 1710)]));
    talk.send(ACK, 1510, una, WINDOW, &[7; 400]);
    let ack = talk.one();
    assert_eq!((ack.ack, blocks(&ack)), (1910, vec![]));
    talk.station.assert_buffers_conserved();
}

#[test]
fn what_came_twice_and_was_thrown_away_since_is_not_told() {
    // RFC 2883 §4: the first block is of what was received twice only if it is acknowledged, or within the second.
    for last in 10..60 {
        let mut talk = Talk::new(|setup| {
            setup.rx_depth = 64;
            setup.buffers = 64 + 96;
        });
        let (_, una) = accepted(&mut talk, RTT);
        let behind_a_hole = (1001..=1000 + last).filter(|seq| *seq != 1005);
        behind_a_hole.for_each(|seq| talk.send(ACK, seq, una, WINDOW, &[7]));
        talk.sent();
        // In one batch: the last comes twice, one more takes the last place there may be, and what continues the stream takes
        // that of the last.
        for seq in [1000 + last, 1005, 1000] {
            let frame = talk.frame(ACK, seq, una, WINDOW, &[], &[7]);
            talk.give(frame);
        }
        talk.step();
        let ack = talk.sent().pop().expect("an acknowledgement");
        for (left, right) in blocks(&ack) {
            assert!(right <= ack.ack || left > ack.ack, "{left} to {right}, up to {}", ack.ack);
        }
    }
}

#[test]
fn three_blocks_fit_beside_timestamps() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(ix_abi::SocketAddress::v4([0; 4], 7), 4));
    let stamp = |value: u32| [&[1, 1, 8, 10][..], &value.to_be_bytes(), &[0; 4]].concat();
    let options = [&[4, 2, 1, 1][..], &stamp(1)].concat();
    talk.send_options(SYN, (999, 0), WINDOW, &options, &[]);
    let una = talk.one().seq + 1;
    talk.send_options(ACK, (1000, una), WINDOW, &stamp(2), &[]);
    let [Condition::Knock { .. }] = talk.events()[..] else { panic!() };
    for seq in [1100, 1300, 1500, 1700] {
        talk.send_options(ACK, (seq, una), WINDOW, &stamp(3), &[7; 10]);
    }
    let ack = talk.sent().pop().unwrap();
    assert_eq!(ack.options.len(), 40);
    let mut without = ack.clone();
    without.options = ack.options[12..].to_vec();
    assert_eq!(blocks(&without), [(1700, 1710), (1500, 1510), (1300, 1310)]);
}

#[test]
fn a_peer_that_did_not_ask_is_told_nothing() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(ix_abi::SocketAddress::v4([0; 4], 7), 4));
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, WINDOW, &[]);
    talk.send(ACK, 1100, una, WINDOW, &[7; 10]);
    assert_eq!(talk.one().options, []);
}

#[test]
fn what_came_twice_is_told_once() {
    // RFC 2883 §4.1.1: a duplicate of what was acknowledged.
    let mut talk = Talk::new(|_| {});
    let (_, una) = accepted(&mut talk, RTT);
    talk.send(ACK, 1000, una, WINDOW, &[7; 100]);
    talk.send(ACK, 1000, una, WINDOW, &[7; 100]);
    let ack = talk.one();
    assert_eq!((ack.ack, blocks(&ack)), (1100, vec![(1000, 1100)]));
    talk.send(ACK, 1300, una, WINDOW, &[7; 100]);
    assert_eq!(blocks(&talk.one()), [(1300, 1400)], "the duplicate only once");
    // §4.1.2, §4.2.2: a duplicate behind a hole, then its run.
    talk.send(ACK, 1400, una, WINDOW, &[7; 100]);
    let _ = talk.sent();
    talk.send(ACK, 1300, una, WINDOW, &[7; 100]);
    assert_eq!(blocks(&talk.one()), [(1300, 1400), (1300, 1500)]);
    // §4.2.1: a part of a segment.
    talk.send(ACK, 1050, una, WINDOW, &[7; 100]);
    let ack = talk.one();
    assert_eq!((ack.ack, blocks(&ack)), (1150, vec![(1050, 1100), (1300, 1500)]));
}

#[test]
fn exactly_what_is_missing_is_sent_again() {
    // RFC 6675 §5: of ten segments two are lost, and nothing else goes twice.
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, 10 * SEGMENT));
    assert_eq!(payloads(&mut talk, una).len(), 10);
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 2000)]);
    ack(&mut talk, una, &[(una + 1000, una + 3000)]);
    assert_eq!(payloads(&mut talk, una), [], "not yet: it may be late");
    ack(&mut talk, una, &[(una + 1000, una + 4000)]);
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    ack(&mut talk, una, &[(una + 5000, una + 6000), (una + 1000, una + 4000)]);
    ack(&mut talk, una, &[(una + 5000, una + 8000), (una + 1000, una + 4000)]);
    assert_eq!(payloads(&mut talk, una), [(4000, 1000)]);
    ack(&mut talk, una, &[(una + 5000, una + 10_000), (una + 1000, una + 4000)]);
    assert_eq!(payloads(&mut talk, una), []);
    talk.pass(RTT);
    ack(&mut talk, una + 10_000, &[]);
    let sent = |e: &Condition| matches!(e, Condition::Sent { bytes: 10_000, .. });
    assert!(talk.events().iter().any(sent));
    talk.pass(Duration::from_s(1));
    assert_eq!(payloads(&mut talk, una), []);
    assert_eq!(talk.station.count(Counter::TcpRetransmits), 2);
    assert_eq!(talk.station.count(Counter::TcpRecoveries), 1);
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_block_that_cuts_a_segment_saves_what_it_covers() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, 6 * SEGMENT));
    let _ = talk.sent();
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 400, una + 6000)]);
    assert_eq!(payloads(&mut talk, una), [(0, 400)]);
    ack(&mut talk, una + 6000, &[]);
    talk.station.assert_buffers_conserved();
}

#[test]
fn selectively_acknowledged_memory_stays_the_stacks() {
    // RFC 2018 §8: the peer may drop it.
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.calls(&[sendv(handle, 1000), sendv(handle, 1000)]);
    let _ = (talk.sent(), talk.events());
    ack(&mut talk, una, &[(una + 1000, una + 2000)]);
    let gave = |e: &Condition| matches!(e, Condition::Sent { bytes: 1.., .. });
    assert!(!talk.events().iter().any(gave));
    assert_eq!(talk.station.memory.pins_total(), 2);
}

#[test]
fn a_peer_that_dropped_what_it_had_told_of_gets_it_again() {
    // RFC 2018 §8: the acknowledgement stops where it had told of more.
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, 5 * SEGMENT));
    let _ = talk.sent();
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 5000)]);
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    ack(&mut talk, una + 1000, &[]);
    talk.nothing();
    talk.pass(Duration::from_ms(500));
    assert_eq!(payloads(&mut talk, una), [(1000, 1000)], "one, by timeout");
    ack(&mut talk, una + 2000, &[]);
    assert_eq!(payloads(&mut talk, una), [(2000, 1000), (3000, 1000)]);
    ack(&mut talk, una + 4000, &[]);
    assert_eq!(payloads(&mut talk, una), [(4000, 1000)]);
    ack(&mut talk, una + 5000, &[]);
    assert_eq!(talk.station.memory.pins_total(), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn after_a_timeout_what_the_peer_has_is_not_sent_again() {
    // RFC 6675 §5.1.
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, 6 * SEGMENT));
    let _ = talk.sent();
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 2000, una + 3000)]);
    talk.pass(Duration::from_ms(30));
    let mut again = payloads(&mut talk, una);
    talk.pass(Duration::from_s(1));
    again.extend(payloads(&mut talk, una));
    assert!(talk.station.count(Counter::TcpTimeouts) > 0);
    for right in [1000, 3000, 4000] {
        ack(&mut talk, una + right, &[(una + 2000, una + 3000)][..usize::from(right < 2000)]);
        again.extend(payloads(&mut talk, una));
    }
    let mut seqs: Vec<u32> = again.iter().map(|(seq, _)| *seq).collect();
    seqs.dedup();
    assert!(!seqs.contains(&2000), "{again:?}");
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs, [0, 1000, 3000, 4000, 5000], "{again:?}");
    ack(&mut talk, una + 6000, &[]);
    assert_eq!(talk.station.memory.pins_total(), 0);
}

#[test]
fn during_recovery_new_data_follows_the_lost() {
    // RFC 6675 §4, NextSeg: what is lost, then what is new, as far as the window allows.
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, 10 * SEGMENT));
    let _ = (talk.sent(), talk.events());
    talk.pass(RTT);
    ack(&mut talk, una, &[(una + 1000, una + 2000)]);
    talk.call(sendv(handle, SEGMENT));
    assert_eq!(payloads(&mut talk, una), [(10_000, 1000)], "limited transmit, RFC 3042");
    ack(&mut talk, una, &[(una + 1000, una + 4000)]);
    assert_eq!(payloads(&mut talk, una), [(0, 1000)]);
    for right in [6000, 8000, 10_000] {
        ack(&mut talk, una, &[(una + 1000, una + right)]);
    }
    talk.call(sendv(handle, 2 * SEGMENT));
    let new = payloads(&mut talk, una);
    assert!(!new.is_empty() && new[0].0 == 11_000, "{new:?}");
}

#[test]
fn nonsense_in_blocks_hurts_nobody() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk, RTT);
    talk.call(sendv(handle, 5 * SEGMENT));
    let _ = talk.sent();
    for (left, right) in [
        (una + 5000, una + 6000),
        (una + 2000, una + 1000),
        (una.wrapping_sub(1 << 31), una + 1),
        (0, u32::MAX),
        (una + 1000, una + 1000),
    ] {
        ack(&mut talk, una, &[(left, right), (left, right)]);
    }
    // One byte at a time, backwards, and over and over.
    for at in (1..300).rev() {
        ack(&mut talk, una, &[(una + 2 * at, una + 2 * at + 1)]);
    }
    talk.station.assert_buffers_conserved();
    ack(&mut talk, una + 5000, &[]);
    talk.pass(Duration::from_s(1));
    assert_eq!(talk.station.memory.pins_total(), 0);
    talk.station.assert_buffers_conserved();
}
