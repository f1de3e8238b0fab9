//! A station on a link that brings back what it sends: it may talk to itself there, and nowhere else.
use crate::support::family::V6;
use crate::support::net::End;
use crate::support::station::{Setup, Station};
use crate::support::talk::{Script, any};
use ix_abi::stats::Drop as Reason;
use ix_abi::{Call, Condition, Cookie, SocketAddress, Status};
use ix_dataplane::time::{Duration, Instant};

const SELF: SocketAddress = SocketAddress::v4([10, 0, 0, 1], 7);

struct Looped {
    station: Station,
    now: Instant,
    /// The link brings frames back.
    returns: bool,
}

impl Looped {
    fn new(configure: fn(&mut ix_dataplane::config::Config)) -> Looped {
        let mut setup = Setup::new(1);
        setup.configure = configure;
        let mut station = Station::new(setup);
        station.start(vec![Box::new(Script::default())]);
        let mut looped = Looped { station, now: Instant(1_000_000), returns: true };
        looped.run(10);
        looped
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_ms(ms);
        while self.now < end {
            Station::step(&mut self.station, self.now);
            for frame in self.station.take() {
                if self.returns {
                    self.station.give(frame);
                }
            }
            self.now = self.now + Duration::from_us(20);
        }
    }

    fn call(&mut self, call: Call) -> Vec<Condition> {
        self.station.app::<Script>(0).calls.push(call);
        self.wake();
        self.run(20);
        std::mem::take(&mut self.station.app::<Script>(0).events)
    }

    /// A datagram to the port that the script has bound, from a stranger: an event, at which it leaves its calls.
    fn wake(&mut self) {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&29_u16.to_be_bytes());
        (frame[22], frame[23]) = (64, 17);
        frame[26..34].copy_from_slice(&[10, 0, 0, 9, 10, 0, 0, 1]);
        let header = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&header);
        frame[35] = 9;
        frame[37] = crate::support::talk::WAKE as u8;
        frame[38..40].copy_from_slice(&9_u16.to_be_bytes());
        self.station.give(frame);
    }
}

#[test]
fn it_finds_itself_and_both_ends_of_a_connection_are_its_own() {
    if V6 {
        return;
    }
    let mut looped = Looped::new(|config| config.loopback = true);
    looped.call(Call::listen(any(7), 8));
    let events = looped.call(Call::connect(Cookie(5), SELF));
    let knock = events.iter().find_map(|event| match event {
        Condition::Knock { handle, remote, .. } => Some((*handle, *remote)),
        _ => None,
    });
    let (server, remote) = knock.unwrap_or_else(|| panic!("nobody knocks: {events:?}"));
    assert_eq!(remote.ip, SELF.ip, "it is its own peer");
    let connected = |event: &&Condition| {
        matches!(event, Condition::Connected { cookie: Cookie(5), outcome: Status::Ok, .. })
    };
    assert_eq!(events.iter().filter(connected).count(), 1, "{events:?}");
    looped.call(Call::accept(server, Cookie(6)));
    assert_eq!(looped.station.dropped(Reason::IpMalformed), 0);
    // The link address is confirmed as any other neighbour's, also when it has got old.
    looped.run(100);
    assert_eq!(looped.station.dropped(Reason::ArpTimeout), 0);
}

#[test]
fn where_others_are_nobody_has_its_address_and_it_is_not_to_be_connected_to() {
    if V6 {
        return;
    }
    let mut usual = Looped::new(|_| ());
    let refused = usual.call(Call::connect(Cookie(5), SELF).with_result(3));
    let invalid =
        |event: &Condition| matches!(event, Condition::Result { status: Status::Invalid, .. });
    assert!(refused.iter().any(invalid), "{refused:?}");
    // A SYN that claims to come from us (RFC 1122 §3.2.1.3).
    usual.call(Call::listen(any(7), 8));
    let before = usual.station.dropped(Reason::IpMalformed);
    let mut loops = Looped::new(|config| config.loopback = true);
    loops.returns = false;
    loops.call(Call::listen(any(7), 8));
    loops.station.app::<Script>(0).calls.push(Call::connect(Cookie(5), SELF));
    loops.wake();
    let mut syn = None;
    for _ in 0..2000 {
        Station::step(&mut loops.station, loops.now);
        for frame in loops.station.take() {
            if frame[12..14] == [8, 0] && frame[23] == 6 {
                syn = Some(frame);
            } else {
                loops.station.give(frame);
            }
        }
        loops.now = loops.now + Duration::from_us(20);
    }
    usual.station.give(syn.expect("a SYN to itself"));
    usual.run(10);
    assert_eq!(usual.station.dropped(Reason::IpMalformed), before + 1);
}
