//! Explicit congestion notification (RFC 3168) and what DCTCP makes of it (RFC 8257), as
//! conversations with a peer whose segments are written by hand.
use crate::support::family::{MSS, set_tos};
use crate::support::talk::*;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress, Status};
use ix_dataplane::config::{Algorithm, EcnMode as Mode};
use ix_dataplane::time::Duration;

const ECT0: u8 = 2;
const CE: u8 = 3;
const WINDOW: u16 = 65_000;
const PORT: SocketAddress = any(7);

fn listening(change: impl Fn(&mut crate::support::station::Setup)) -> Talk {
    let mut talk = Talk::new(change);
    talk.call(Call::listen(PORT, 4).with_result(1));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::Ok, .. }]));
    talk
}

/// A peer's SYN with these further bits; the answer.
fn syn(talk: &mut Talk, bits: u8) -> Segment {
    talk.send_options(SYN | bits, (999, 0), WINDOW, &[2, 4, 0x05, 0xb4], &[]);
    talk.one()
}

/// Completes the handshake; the connection, and the station's next sequence number.
fn accept(talk: &mut Talk, answer: &Segment) -> (Handle, u32) {
    let una = answer.seq + 1;
    let handle = talk.accept(una, WINDOW);
    talk.nothing();
    (handle, una)
}

fn accepted(change: impl Fn(&mut crate::support::station::Setup)) -> (Talk, Handle, u32) {
    let mut talk = listening(change);
    let answer = syn(&mut talk, ECE | CWR);
    assert_eq!(answer.flags, SYN | ACK | ECE, "RFC 3168 §6.1.1: an ECN-setup SYN-ACK");
    let (handle, una) = accept(&mut talk, &answer);
    (talk, handle, una)
}

/// The frame with another code point.
fn coded(mut frame: Vec<u8>, code: u8) -> Vec<u8> {
    set_tos(&mut frame, code);
    frame
}

/// Payload from the peer, with this code point and further bits.
fn data(talk: &mut Talk, seq: u32, ack: u32, code: u8, bits: u8) {
    let frame = talk.frame(ACK | bits, seq, ack, WINDOW, &[], &[7; 100]);
    talk.give(coded(frame, code));
}

/// What is acknowledged once the delayed acknowledgement is due.
fn acknowledgement(talk: &mut Talk) -> Segment {
    talk.step();
    talk.pass(Duration::from_ms(100));
    talk.one()
}

fn opening(change: impl Fn(&mut crate::support::station::Setup)) -> Talk {
    let mut talk = Talk::new(change);
    talk.local_port = 80;
    let to = talk.host(80);
    talk.call(Call::connect(Cookie(5), to).with_tag(3));
    talk
}

#[test]
fn new_data_is_capable_and_nothing_else_is() {
    let (mut talk, handle, una) = accepted(|_| {});
    talk.sendv(handle, 100);
    let data = talk.one();
    assert_eq!((data.tos, data.flags & (ECE | CWR)), (ECT0, 0));
    talk.pass(Duration::from_ms(1500));
    let again = talk.sent();
    assert!(!again.is_empty() && again.iter().all(|s| s.seq == una && s.tos == 0), "§6.1.5");
    talk.send(ACK | PSH, 1000, una + 100, WINDOW, &[1; 10]);
    assert_eq!(acknowledgement(&mut talk).tos, 0, "§6.1.4: no bare acknowledgement");
}

#[test]
fn who_does_not_ask_gets_none_and_off_is_off() {
    for (mode, bits) in [(Mode::Accept, 0), (Mode::Accept, ECE), (Mode::Off, ECE | CWR)] {
        let mut talk = listening(|setup| {
            if mode == Mode::Off {
                setup.configure = |config| config.ecn = Mode::Off;
            }
        });
        let answer = syn(&mut talk, bits);
        assert_eq!((answer.flags, answer.tos), (SYN | ACK, 0), "{mode:?}");
        let (handle, una) = accept(&mut talk, &answer);
        data(&mut talk, 1000, una, CE, 0);
        assert_eq!(acknowledgement(&mut talk).flags, ACK);
        talk.sendv(handle, 100);
        assert_eq!(talk.one().tos, 0);
    }
}

#[test]
fn a_mark_is_echoed_until_the_peer_has_reduced() {
    // §6.1.3.
    let (mut talk, _, una) = accepted(|_| {});
    data(&mut talk, 1000, una, ECT0, 0);
    assert_eq!(acknowledgement(&mut talk).flags, ACK);
    data(&mut talk, 1100, una, CE, 0);
    assert_eq!(acknowledgement(&mut talk).flags, ACK | ECE);
    data(&mut talk, 1200, una, ECT0, 0);
    assert_eq!(acknowledgement(&mut talk).flags, ACK | ECE, "until told");
    data(&mut talk, 1300, una, ECT0, CWR);
    assert_eq!(acknowledgement(&mut talk).flags, ACK);
    data(&mut talk, 1400, una, CE, CWR);
    assert_eq!(acknowledgement(&mut talk).flags, ACK | ECE, "a new mark counts");
}

#[test]
fn a_mark_on_what_is_not_in_the_window_is_ignored() {
    let (mut talk, _, una) = accepted(|_| {});
    data(&mut talk, 1000, una, ECT0, 0);
    acknowledgement(&mut talk);
    data(&mut talk, 1000, una, CE, 0);
    assert_eq!(acknowledgement(&mut talk).flags, ACK, "§6.1.5: sent again, or forged");
    let mut pure = talk.frame(ACK, 1100, una, WINDOW, &[], &[]);
    pure = coded(pure, CE);
    talk.give(pure);
    data(&mut talk, 1100, una, ECT0, 0);
    assert_eq!(acknowledgement(&mut talk).flags, ACK, "§6.1.4: acknowledgements are not capable");
}

#[test]
fn an_echo_reduces_the_window_once_for_all_that_is_in_flight() {
    // §6.1.2, with CUBIC's 0.7 (RFC 9438 §4.6).
    let (mut talk, handle, una) = accepted(|_| {});
    talk.sendv(handle, 10 * MSS);
    assert_eq!(talk.sent().len(), 10);
    talk.send(ACK | ECE, 1000, una + MSS, WINDOW, &[]);
    talk.send(ACK | ECE, 1000, una + 2 * MSS, WINDOW, &[]);
    let _ = talk.events();
    talk.nothing();
    talk.send(ACK | ECE, 1000, una + 10 * MSS, WINDOW, &[]);
    talk.sendv(handle, 20 * MSS);
    let sent = talk.sent();
    let bytes: u32 = sent.iter().map(|s| s.payload.len() as u32).sum();
    assert_eq!(bytes, 7 * MSS, "reduced once, from 10 to 7, and not grown by echoes");
    assert_eq!(sent[0].flags & CWR, CWR, "the first new data tells the peer");
    assert!(sent[1..].iter().all(|s| s.flags & CWR == 0), "and no other");
    assert!(sent.iter().all(|s| s.tos == ECT0));
    // The peer has heard, and its network marks again: again once.
    talk.send(ACK | ECE, 1000, una + 11 * MSS, WINDOW, &[]);
    let _ = talk.events();
    talk.send(ACK, 1000, una + 17 * MSS, WINDOW, &[]);
    talk.sendv(handle, 20 * MSS);
    let sent = talk.sent();
    assert_eq!(sent.iter().map(|s| s.payload.len() as u32).sum::<u32>() / MSS, 4, "0.7 * 7");
    assert_eq!(sent[0].flags & CWR, CWR);
}

#[test]
fn a_connection_asks_when_told_to_and_gives_up_asking_when_not_answered() {
    let mut talk = opening(|setup| setup.configure = |config| config.ecn = Mode::On);
    let first = talk.one();
    assert_eq!((first.flags, first.tos), (SYN | ECE | CWR, 0));
    talk.pass(Duration::from_ms(1100));
    assert_eq!(talk.one().flags, SYN, "§6.1.1.1: perhaps it was dropped for asking");
    assert_eq!(opening(|_| {}).one().flags, SYN, "by default it does not ask");
}

#[test]
fn only_an_echo_alone_is_consent() {
    for (bits, capable) in [(ECE, true), (ECE | CWR, false), (0, false), (CWR, false)] {
        let mut talk = opening(|setup| setup.configure = |config| config.ecn = Mode::On);
        let asked = talk.one();
        talk.port = asked.to;
        talk.local_port = asked.from;
        talk.send(SYN | ACK | bits, 2000, asked.seq + 1, WINDOW, &[]);
        let events = talk.events();
        let [Condition::Connected { handle, outcome: Status::Ok, .. }] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(talk.one().flags, ACK);
        talk.sendv(handle, 100);
        assert_eq!(talk.one().tos == ECT0, capable, "{bits:#x}");
    }
}

#[test]
fn a_syn_that_comes_again_without_asking_is_believed() {
    let mut talk = listening(|_| {});
    let answer = syn(&mut talk, ECE | CWR);
    assert_eq!(answer.flags, SYN | ACK | ECE);
    let answer = syn(&mut talk, 0);
    assert_eq!(answer.flags, SYN | ACK, "§6.1.1.1");
    let (handle, _) = accept(&mut talk, &answer);
    talk.sendv(handle, 100);
    assert_eq!(talk.one().tos, 0);
}

fn dctcp(setup: &mut crate::support::station::Setup) {
    setup.configure = |config| config.congestion = Algorithm::Dctcp;
}

#[test]
fn dctcp_asks_by_itself_and_its_handshake_is_capable() {
    // RFC 8257 §3.6.
    let asked = opening(dctcp).one();
    assert_eq!((asked.flags, asked.tos), (SYN | ECE | CWR, ECT0));
    let answer = syn(&mut listening(dctcp), ECE | CWR);
    assert_eq!((answer.flags, answer.tos), (SYN | ACK | ECE, ECT0));
}

#[test]
fn dctcp_echoes_each_change_of_marks_at_once() {
    // RFC 8257 §3.2: all in one batch, and still the peer can count.
    let (mut talk, _, una) = accepted(dctcp);
    for (i, code) in [ECT0, ECT0, CE, CE, CE, ECT0].into_iter().enumerate() {
        data(&mut talk, 1000 + 100 * i as u32, una, code, 0);
    }
    talk.step();
    talk.pass(Duration::from_ms(100));
    let told: Vec<_> = talk.sent().iter().map(|s| (s.ack, s.flags)).collect();
    assert_eq!(told, [(1200, ACK), (1500, ACK | ECE), (1600, ACK)]);
    // Without a change acknowledgements are delayed as ever.
    data(&mut talk, 1600, una, CE, CWR);
    let one = acknowledgement(&mut talk);
    assert_eq!((one.ack, one.flags), (1700, ACK | ECE), "and CWR changes nothing");
}

#[test]
fn dctcp_s_window_shrinks_by_as_much_as_is_marked() {
    let (mut talk, handle, una) = accepted(dctcp);
    let mut at = una;
    // Ten windows without a mark: alpha falls from 1 to (15/16)^10 = 0.52.
    for _ in 0..10 {
        talk.sendv(handle, 4 * MSS);
        assert_eq!(talk.sent().len(), 4);
        at += 4 * MSS;
        talk.send(ACK, 1000, at, WINDOW, &[]);
    }
    let _ = talk.events();
    talk.sendv(handle, 10 * MSS);
    assert_eq!(talk.sent().len(), 10);
    talk.send(ACK | ECE, 1000, at + 10 * MSS, WINDOW, &[]);
    let _ = talk.events();
    talk.sendv(handle, 40 * MSS);
    let sent: u32 = talk.sent().iter().map(|s| s.payload.len() as u32).sum();
    // That last window was marked wholly: alpha = 0.52 * 15/16 + 1/16 = 0.55; 10 * (1 - 0.55 / 2).
    let window = f64::from(sent) / f64::from(MSS);
    assert!((7.0..7.5).contains(&window), "{window}");
}
