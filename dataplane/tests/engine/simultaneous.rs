//! Both sides at once (RFC 9293 §3.5 figure 7, §3.6 figure 13), and one side only: half-close.
use crate::support::app::App;
use crate::support::net::{End, Net};
use crate::support::station::{Setup, Station};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::Counter;
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, Op, SocketAddress, Status};
use ix_dataplane::checksum;
use ix_dataplane::time::{Duration, Instant};

const WINDOW: u16 = 1000;

/// A `connect` whose SYN is out: its handle and our first sequence number.
fn connecting() -> (Talk, Handle, u32) {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::connect(Cookie(1), talk.host(80)).with_result(3));
    let [Condition::Result { handle, status: Status::Ok, .. }] = talk.events()[..] else {
        panic!()
    };
    let syn = talk.one();
    assert_eq!(syn.flags, SYN);
    (talk.port, talk.local_port) = (80, syn.from);
    (talk, handle, syn.seq)
}

#[track_caller]
fn connected(talk: &mut Talk) {
    let events = talk.events();
    assert!(matches!(events[..], [Condition::Connected { outcome: Status::Ok, .. }]), "{events:?}");
}

/// Data goes both ways.
#[track_caller]
fn talks(talk: &mut Talk, handle: Handle, una: u32) {
    let entry = SgEntry { addr: HEAP_BASE, len: 5 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    let sent = talk.one();
    assert_eq!((sent.seq, sent.ack, sent.payload.len()), (una, 1000, 5));
    talk.send(ACK | PSH, 1000, una + 5, WINDOW, b"hello");
    let events = talk.events();
    let received = |e: &Condition| {
        matches!(e, Condition::Recv { len: 5, .. } | Condition::RecvSent { len: 5, .. })
    };
    assert!(events.iter().any(received), "{events:?}");
}

#[test]
fn syns_that_cross_are_answered_and_the_peers_syn_ack_establishes() {
    let (mut talk, handle, iss) = connecting();
    talk.send_options(SYN, (999, 0), WINDOW, &[2, 4, 2, 24], &[]);
    let answer = talk.one();
    assert_eq!((answer.flags, answer.seq, answer.ack), (SYN | ACK, iss, 1000));
    assert_eq!(talk.events(), []);
    talk.send(SYN | ACK, 999, iss + 1, WINDOW, &[]);
    connected(&mut talk);
    assert_eq!(talk.station.count(Counter::TcpRetransmits), 1, "our SYN, with its ACK");
    let _ = talk.sent();
    talks(&mut talk, handle, iss + 1);
}

#[test]
fn an_acknowledgement_alone_establishes_as_well() {
    let (mut talk, handle, iss) = connecting();
    talk.send(SYN, 999, 0, WINDOW, &[]);
    assert_eq!(talk.one().flags, SYN | ACK);
    talk.send(ACK, 1000, iss + 1, WINDOW, &[]);
    connected(&mut talk);
    talks(&mut talk, handle, iss + 1);
}

#[test]
fn a_syn_ack_that_came_again_is_acknowledged_by_an_established_connection() {
    // Ours was lost: the peer is still in SYN-RECEIVED.
    let (mut talk, _, iss) = connecting();
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let _ = talk.one();
    talk.send(SYN | ACK, 999, iss + 1, WINDOW, &[]);
    connected(&mut talk);
    let _ = talk.sent();
    talk.send(SYN | ACK, 999, iss + 1, WINDOW, &[]);
    let ack = talk.one();
    assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, iss + 1, 1000));
}

#[test]
fn a_lost_syn_ack_is_sent_again_and_the_connect_times_out_in_the_end() {
    let (mut talk, _, iss) = connecting();
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let first = talk.one();
    talk.pass(Duration::from_ms(2100));
    assert_eq!(talk.sent(), [first]);
    talk.send(SYN | ACK, 999, iss + 2, WINDOW, &[]);
    assert_eq!(talk.one().flags, SYN | ACK, "of another connection: no");
    talk.pass(Duration::from_s(62));
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Connected { outcome: Status::TimedOut, .. }]),
        "{events:?}"
    );
    let _ = talk.sent();
    talk.station.assert_all_quiet();
}

#[test]
fn data_and_fin_with_the_crossing_syn_ack_are_taken() {
    let (mut talk, handle, iss) = connecting();
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let _ = talk.one();
    talk.send(SYN | ACK | FIN, 999, iss + 1, WINDOW, b"hello");
    let events = talk.events();
    assert!(
        matches!(
            events[..],
            [
                Condition::Connected { outcome: Status::Ok, .. },
                Condition::Recv { len: 5, .. },
                Condition::Eof { .. }
            ]
        ),
        "{events:?}"
    );
    assert_eq!(talk.sent().last().map(|s| s.ack), Some(1006));
    talk.call(Call::new(Op::Close, handle));
    talk.send(ACK, 1006, iss + 2, WINDOW, &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
}

#[test]
fn a_close_before_the_crossing_syns_are_acknowledged_sends_fin_then() {
    let (mut talk, handle, iss) = connecting();
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let _ = talk.one();
    talk.call(Call::new(Op::Close, handle));
    talk.nothing();
    talk.send(SYN | ACK, 999, iss + 1, WINDOW, &[]);
    let fin = talk.sent().pop().expect("FIN");
    assert_eq!((fin.flags & FIN, fin.seq), (FIN, iss + 1));
    talk.send(ACK | FIN, 1000, iss + 2, WINDOW, &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
}

#[test]
fn fins_that_cross_close_both_whichever_way_they_are_acknowledged() {
    for together in [false, true] {
        let (mut talk, handle, iss) = connecting();
        talk.send(SYN | ACK, 999, iss + 1, WINDOW, &[]);
        connected(&mut talk);
        let _ = talk.sent();
        talk.call(Call::new(Op::Close, handle));
        let fin = talk.one();
        assert_eq!((fin.flags & FIN, fin.seq), (FIN, iss + 1));
        talk.send(ACK | FIN, 1000, iss + 1, WINDOW, &[]);
        assert_eq!(talk.one().ack, 1001);
        assert_eq!(talk.events(), [], "ours is not acknowledged: CLOSING");
        let flags = if together { ACK | FIN } else { ACK };
        let seq = if together { 1000 } else { 1001 };
        talk.send(flags, seq, iss + 2, WINDOW, &[]);
        if together {
            // The peer's FIN again, with the acknowledgement of ours.
            assert_eq!(talk.sent().pop().map(|s| s.ack), Some(1001));
        }
        talk.pass(Duration::from_ms(300));
        let _ = talk.sent();
        talk.send(ACK, 1001, iss + 2, WINDOW, &[]);
        let events = talk.events();
        assert!(matches!(events[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
        assert_eq!(talk.station.count(Counter::TcpConnections), 1, "TIME-WAIT");
        talk.pass(Duration::from_s(61));
        talk.station.assert_all_quiet();
    }
}

#[test]
fn half_closed_by_us_the_peer_goes_on_for_as_long_as_it_likes() {
    let (mut talk, handle, iss) = connecting();
    talk.send(SYN | ACK, 999, iss + 1, WINDOW, &[]);
    connected(&mut talk);
    let _ = talk.sent();
    talk.call(Call::new(Op::Shutdown, handle));
    assert_eq!(talk.one().flags & FIN, FIN);
    talk.send(ACK, 1000, iss + 2, WINDOW, &[]);
    for i in 0..20 {
        talk.pass(Duration::from_s(600));
        talk.nothing();
        talk.send(ACK | PSH, 1000 + i, iss + 2, WINDOW, b"x");
        assert!(matches!(talk.events()[..], [Condition::Recv { len: 1, .. }]));
        talk.call(Call::recv_done(handle, 1));
        talk.pass(Duration::from_ms(50));
        assert_eq!(talk.one().ack, 1001 + i);
    }
}

/// Two engines whose `connect`s name each other's port: the wire renames ports so that both are the
/// same connection, as if each had bound the other's destination.
struct Renamed {
    station: Station,
    /// What its own port is called on the wire, once it is known.
    called: u16,
    own: Option<u16>,
}

fn rename(frame: &mut [u8], at: usize, to: u16) {
    frame[at..at + 2].copy_from_slice(&to.to_be_bytes());
    frame[50..52].fill(0);
    let total = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let (from, dest) = (frame[26..30].try_into().unwrap(), frame[30..34].try_into().unwrap());
    let pseudo = checksum::pseudo_v4(from, dest, 6, (total - 34) as u16);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&frame[34..total])));
    frame[50..52].copy_from_slice(&sum);
}

impl End for Renamed {
    fn step(&mut self, now: Instant) -> Instant {
        End::step(&mut self.station, now)
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut frames = End::take(&mut self.station);
        for frame in frames.iter_mut().filter(|f| f[12..14] == [8, 0] && f[23] == 6) {
            self.own = Some(u16::from_be_bytes([frame[34], frame[35]]));
            rename(frame, 34, self.called);
        }
        frames
    }

    fn give(&mut self, mut frame: Vec<u8>) {
        if frame[12..14] == [8, 0] && frame[23] == 6 {
            // Before our own SYN there is nobody yet.
            let Some(own) = self.own else { return };
            rename(&mut frame, 36, own);
        }
        End::give(&mut self.station, frame);
    }
}

#[test]
fn two_engines_that_connect_to_each_other_at_once_have_one_connection() {
    for seed in 1..=40 {
        let mut ends: Vec<Renamed> = [(1, 2, 700), (2, 1, 900)]
            .into_iter()
            .map(|(own, other, called)| {
                let mut setup = Setup::new(own);
                setup.seed += seed * 1000;
                let mut station = Station::new(setup);
                let remote = SocketAddress::v4([10, 0, 0, other], 1600 - called);
                let mut script = Script::default();
                script.calls.push(Call::connect(Cookie(1), remote));
                station.start(vec![Box::new(script) as Box<dyn App>]);
                Renamed { station, called, own: None }
            })
            .collect();
        let [a, b] = &mut ends[..] else { panic!() };
        let mut net = Net::new(seed);
        // SYNs or answers get lost, and cross at different points.
        net.faults.loss = seed % 4 * 100;
        net.faults.reorder = seed % 3 * 200;
        let outcome = |end: &mut Renamed| {
            end.station.app::<Script>(0).events.iter().find_map(|e| match e {
                Condition::Connected { outcome, handle, .. } => Some((*outcome, *handle)),
                _ => None,
            })
        };
        net.run_until(a, b, Duration::from_s(60), |a, b| {
            outcome(a).is_some() && outcome(b).is_some()
        });
        for end in [&mut *a, &mut *b] {
            assert_eq!(outcome(end).map(|(status, _)| status), Some(Status::Ok), "seed {seed}");
            assert_eq!(end.station.count(Counter::TcpConnections), 1);
        }
        net.faults.loss = 0;
        net.run_for(a, b, Duration::from_s(2));
        // Both close at once.
        for end in [&mut *a, &mut *b] {
            let (_, handle) = outcome(end).unwrap();
            end.station.app::<Script>(0).calls.push(Call::new(Op::Close, handle));
            wake(end);
        }
        net.run_for(a, b, Duration::from_s(3));
        for end in [&mut *a, &mut *b] {
            let dead = end
                .station
                .app::<Script>(0)
                .events
                .iter()
                .any(|e| matches!(e, Condition::Dead { reason: DeadReason::Closed, .. }));
            assert!(dead, "seed {seed}");
        }
        net.run_for(a, b, Duration::from_s(62));
        a.station.assert_all_quiet();
        b.station.assert_all_quiet();
    }
}

/// Has the application entered, which leaves its calls.
fn wake(end: &mut Renamed) {
    let to = end.station.setup.address;
    let from = [10, 0, 0, 3 - to[3]];
    let mut f =
        vec![2, 0, 0, 0, 0, to[3], 2, 0, 0, 0, 0, from[3], 8, 0, 0x45, 0, 0, 29, 0, 0, 0x40];
    f.extend([0, 64, 17, 0, 0]);
    f.extend(from);
    f.extend(to);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend([4, 0]);
    f.extend(WAKE.to_be_bytes());
    f.extend([0, 9, 0, 0, b'w']);
    End::give(&mut end.station, f);
}
