//! An iteration that is calm asks nobody for rare things (`engine::calm`): each of them is noticed all the same, in the
//! iteration in which it comes up, while a connection talks on. That calm and complete iterations do the same is
//! what `tests/fast.rs` holds: who is watched is never calm.

use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::{Call, Condition, Cookie, Handle, Op};
use ix_dataplane::time::{Duration, Instant};

const WINDOW: u16 = 60_000;

/// A connection whose peer says something every hundred microseconds and is answered in the same iteration.
struct Chat {
    talk: Talk,
    handle: Handle,
    seq: u32,
    ack: u32,
    told: Vec<Condition>,
}

impl Chat {
    fn new() -> Chat {
        let mut talk = Talk::new(|_| {});
        talk.call(Call::listen(any(7), 4));
        let (handle, ack) = open(&mut talk, 4000);
        Chat { talk, handle, seq: 1000, ack, told: Vec::new() }
    }

    /// Says something; the answer has been sent and what else there is to be told is in `told`.
    fn say(&mut self) {
        let entry = SgEntry { addr: HEAP_BASE, len: 1 };
        let answer = Call::sendv(self.handle, 1, entry, SgEntry::default()).with_recv_done(1);
        self.talk.script().calls.push(answer);
        self.talk.send(ACK | PSH, self.seq, self.ack, WINDOW, b"?");
        self.seq += 1;
        let sent = self.talk.one();
        assert_eq!((sent.seq, sent.ack, sent.payload.len()), (self.ack, self.seq, 1));
        self.ack += 1;
        let rare = |event: &Condition| {
            !matches!(
                event,
                Condition::Recv { .. } | Condition::RecvSent { .. } | Condition::Sent { .. }
            )
        };
        self.told.extend(self.talk.events().into_iter().filter(rare));
    }

    /// Goes on until `until`, one word every hundred microseconds; when something was told first.
    fn go_on(&mut self, until: Instant) -> Option<Instant> {
        let mut first = None;
        while self.talk.now < until {
            self.say();
            if !self.told.is_empty() {
                first = first.or(Some(self.talk.now));
            }
            self.talk.now = self.talk.now + Duration::from_us(100);
        }
        first
    }
}

/// Opens a connection from `port`, which the application accepts.
fn open(talk: &mut Talk, port: u16) -> (Handle, u32) {
    talk.port = port;
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, WINDOW, &[]);
    let knock = |event| match event {
        Condition::Knock { handle, .. } => Some(handle),
        _ => None,
    };
    let handle = talk.events().into_iter().find_map(knock).expect("a knock");
    talk.call(Call::accept(handle, Cookie(u64::from(port))));
    (handle, una)
}

#[test]
fn a_timer_of_the_application_fires_when_it_is_due() {
    let mut chat = Chat::new();
    let start = chat.talk.now;
    chat.go_on(start + Duration::from_ms(1));
    chat.talk.call(Call::timer_set(Cookie(5), 3_000).with_result(1));
    let set = chat.talk.events();
    assert!(matches!(set[..], [Condition::Result { .. }]), "{set:?}");
    let due = chat.talk.now + Duration::from_ms(3);
    let fired = chat.go_on(due + Duration::from_ms(2)).expect("it fires");
    assert!(
        matches!(chat.told[..], [Condition::Timer { cookie: Cookie(5), .. }]),
        "{:?}",
        chat.told
    );
    assert!(fired >= due && fired <= due + Duration::from_us(200), "{fired:?}, due {due:?}");
}

#[test]
fn another_connection_s_acknowledgement_is_not_late() {
    let mut chat = Chat::new();
    let (_, una) = open(&mut chat.talk, 4001);
    chat.talk.send(ACK | PSH, 1000, una, WINDOW, b"silence");
    chat.talk.nothing();
    chat.talk.events();
    chat.talk.port = 4000;
    let start = chat.talk.now;
    let mut late = None;
    while chat.talk.now < start + Duration::from_ms(60) && late.is_none() {
        chat.talk.now = chat.talk.now + Duration::from_us(100);
        chat.talk.station.step(chat.talk.now);
        chat.talk.step();
        let sent = chat.talk.sent();
        if let [ack] = &sent[..] {
            assert_eq!((ack.flags, ack.ack, ack.payload.len()), (ACK, 1007, 0));
            late = Some(chat.talk.now);
        } else {
            chat.say();
        }
    }
    let after = late.expect("it is acknowledged").since(start);
    assert!(after >= Duration::from_ms(39) && after <= Duration::from_ms(41), "{after:?}");
}

#[test]
fn a_datagram_a_stranger_s_handshake_and_an_echo_request_are_answered_at_once() {
    let mut chat = Chat::new();
    let start = chat.talk.now;
    chat.go_on(start + Duration::from_ms(1));
    chat.talk.send_udp(WAKE, b"?");
    chat.talk.script().calls.clear();
    chat.say();
    // A handshake beside it, from the first segment to the end.
    let (other, una) = open(&mut chat.talk, 4002);
    chat.talk.call(Call::new(Op::Abort, other));
    let reset = chat.talk.one();
    assert_eq!((reset.flags & RST, reset.seq), (RST, una));
    chat.talk.port = 4000;
    chat.talk.events();
    chat.go_on(start + Duration::from_ms(3));
    assert!(chat.told.iter().all(|event| !matches!(event, Condition::Result { .. })));
    chat.talk.station.assert_buffers_conserved();
}
