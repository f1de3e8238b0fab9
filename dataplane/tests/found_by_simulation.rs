//! Defects that the simulation found, each as the shortest conversation that shows it.
mod support;

use ix_abi::{Call, Condition, Cookie, SocketAddress};
use support::talk::*;

/// A connection that the peer opened with sequence number 1000, accepted.
fn accepted(talk: &mut Talk) -> u32 {
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.events();
    talk.send(SYN, 999, 0, 60_000, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, 60_000, &[]);
    let events = talk.events();
    let [Condition::Knock { handle, .. }] = events[..] else { panic!("{events:?}") };
    talk.call(Call::accept(handle, Cookie(1)));
    una
}

#[test]
fn data_behind_a_hole_cannot_keep_the_hole_open() {
    let mut talk = Talk::new(|setup| {
        setup.rx_depth = 64;
        setup.buffers = 64 + 96;
    });
    let una = accepted(&mut talk);
    talk.sent();
    // More one-byte segments behind a hole than the connection may hold buffers.
    for i in 1..60 {
        talk.send(ACK, 1000 + i, una, 60_000, &[i as u8]);
        assert_eq!(talk.sent().last().map(|segment| segment.ack), Some(1000));
    }
    talk.send(ACK, 1000, una, 60_000, &[0]);
    let ack = talk.sent().last().map(|segment| segment.ack);
    assert!(ack > Some(1000), "the hole is still open");
}
