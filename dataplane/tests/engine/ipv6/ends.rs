//! Connections and listeners of several addresses, and of addresses that go.
use super::*;

#[test]
fn the_same_ports_at_two_addresses_are_two_connections() {
    let mut talk = routed();
    assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
    let (first, una) = accepted(&mut talk, OWN, 4000);
    let (second, other) = accepted(&mut talk, GLOBAL, 4000);
    assert_ne!(first, second);
    assert_ne!(una, other, "sequence numbers are of the address too");
    hear(&mut talk, tcp(GLOBAL, 4000, RST, 1000, 0));
    let events = talk.events();
    let [Condition::Dead { handle, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!(handle, second, "and only it");
}

#[test]
fn connections_of_an_address_that_goes_end_and_others_stay() {
    let mut talk = routed();
    assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
    let (first, una) = accepted(&mut talk, OWN, 4000);
    let (second, _) = accepted(&mut talk, GLOBAL, 4001);
    // Deprecated at once, gone after two hours.
    say(&mut talk, PEER, ALL_NODES, 255, &advert(1800, 0, 0));
    talk.pass(Duration::from_s(7_190));
    assert_eq!(talk.events(), []);
    talk.pass(Duration::from_s(20));
    let events = talk.events();
    let [Condition::Dead { handle, reason, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!((handle, reason), (second, DeadReason::Evicted));
    let sent = std::mem::take(&mut talk.others);
    assert!(sent.iter().all(|f| f[20] != 6 || f[67] & RST == 0), "there is nobody to say it");
    say(&mut talk, PEER, OWN, 255, &advertisement(PEER, 0x60, 2));
    let entry = SgEntry { addr: HEAP_BASE, len: 5 };
    talk.call(Call::sendv(first, 1, entry, SgEntry::default()).with_result(3));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::Ok, .. }]));
    hear(&mut talk, tcp(OWN, 4000, ACK, 1000, una + 5));
    assert!(matches!(talk.events()[..], [Condition::Sent { bytes: 5, .. }]));
    talk.call(Call::new(ix_abi::Op::Abort, first));
    talk.call(Call::new(ix_abi::Op::Close, second));
    talk.pass(Duration::from_ms(10));
    talk.station.assert_all_quiet();
}

#[test]
fn a_connection_in_time_wait_goes_with_its_address_and_leaves_no_trace_in_lists() {
    let mut talk = routed();
    assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
    let peers = [(OWN, 4000), (GLOBAL, 4001)].map(|(to, port)| {
        let (handle, una) = accepted(&mut talk, to, port);
        (to, port, handle, una)
    });
    say(&mut talk, PEER, ALL_NODES, 255, &advert(1800, 0, 0));
    talk.pass(Duration::from_s(7_190));
    for (to, port, handle, una) in peers {
        talk.call(Call::new(ix_abi::Op::Close, handle));
        say(&mut talk, PEER, OWN, 255, &advertisement(PEER, 0x60, 2));
        hear(&mut talk, tcp(to, port, FIN | ACK, 1000, una + 1));
        let events = talk.events();
        let (cookie, reason) = (Cookie(u64::from(port)), DeadReason::Closed);
        let closed = Condition::Dead { handle, cookie, reason };
        assert_eq!(events, [closed], "TIME-WAIT is the engine's alone");
    }
    for (seconds, left) in [(0, 2), (20, 1), (60, 0)] {
        talk.pass(Duration::from_s(seconds));
        assert_eq!(talk.station.count(Counter::TcpConnections), left, "after {seconds} s");
        assert_eq!(talk.station.engines[0].conservation().broken, 0, "after {seconds} s");
    }
}

#[test]
fn a_listener_serves_the_addresses_that_it_was_opened_for() {
    for (at, served) in [
        (IpAddress::UNSPECIFIED, [true, true]),
        (IpAddress(ip(OWN)), [true, false]),
        (IpAddress(ip(GLOBAL)), [false, true]),
        (IpAddress::v4([0; 4]), [false, false]),
    ] {
        let mut talk = routed();
        assert_eq!(listen(&mut talk, at), Status::Ok);
        for (to, served) in [OWN, GLOBAL].into_iter().zip(served) {
            let (flags, _) = segment(&mut talk, to, 4000, SYN, 999, 0);
            let expected = if served { SYN | ACK } else { RST | ACK };
            assert_eq!(flags, expected, "{at} reached at {to}");
        }
    }
    let mut talk = settled();
    assert_eq!(listen(&mut talk, IpAddress(ip("2001:db8::5"))), Status::Unreachable);
}
