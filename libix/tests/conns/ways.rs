//! The short ways against the general ones: one conversation, brought in different records and pieces, leads to
//! the same calls, or where calls must differ to the same bytes.

use super::*;
use proptest::prelude::*;

/// What happens before an `enter`.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes come, after so many of those in flight (of 255) were acknowledged, with this window.
    News { bytes: usize, acked: u8, window: u16 },
    /// The application does something of [`Rig::act`].
    Act(u64),
    /// The other end sends no more.
    Eof,
}

fn step() -> impl Strategy<Value = Step> {
    let window = prop_oneof![3 => 1000..u16::MAX, 1 => 0..30u16];
    let acked = prop_oneof![2 => Just(255u8), 1 => any::<u8>()];
    prop_oneof![
        12 => (0..40usize, acked, window)
            .prop_map(|(bytes, acked, window)| Step::News { bytes, acked, window }),
        2 => prop_oneof![Just(CONSUME_2), Just(FORWARD_3)].prop_map(Step::Act),
        1 => prop_oneof![Just(SHUTDOWN), Just(CLOSE), Just(ABORT)].prop_map(Step::Act),
        1 => Just(Step::Eof),
    ]
}

/// How the kernel brings news.
#[derive(Clone, Copy, PartialEq)]
enum Brings {
    /// `sent`, then `recv`.
    Apart,
    /// `recv_sent` where there is both.
    Together,
    /// Each byte in a `recv` of its own, so that nothing is one piece.
    Bytewise,
}

fn news(brings: Brings, handle: Handle, bytes: &[u8], acked: u8, window: u16) {
    kernel(|k| {
        let acked = tcp_unacked(k, handle) * u64::from(acked) / 255;
        k.ack(handle, acked, u64::from(window));
        let sent = k.pending.pop_back();
        match brings {
            Brings::Bytewise => {
                k.pending.extend(sent);
                bytes.iter().for_each(|byte| k.recv(handle, &[*byte]));
            }
            _ if bytes.is_empty() => k.pending.extend(sent),
            Brings::Apart => {
                k.pending.extend(sent);
                k.recv(handle, bytes);
            }
            Brings::Together => {
                k.recv(handle, bytes);
                let recv = k.pending.pop_back();
                if let (
                    Some(Condition::Sent { bytes: sent, window, .. }),
                    Some(Condition::Recv { addr, len, cookie, .. }),
                ) = (sent, recv)
                {
                    k.pending.push_back(Condition::RecvSent {
                        handle,
                        cookie,
                        addr,
                        len,
                        sent,
                        window,
                    });
                }
            }
        }
    });
}

fn tcp_unacked(k: &mut fake::Kernel, handle: Handle) -> u64 {
    k.tcp(handle).unacked()
}

/// What came of it: the calls, the stream, bytes held, whether the end was asked for.
#[derive(Debug, PartialEq)]
struct Came {
    calls: Vec<Request>,
    stream: Vec<u8>,
    outstanding: u64,
    unread: Option<usize>,
    ends: (bool, bool, bool),
}

fn play(brings: Brings, does: Does, steps: &[Step]) -> Came {
    let (mut rig, handle) = Rig::with_conn(does);
    calls();
    let mut salt = 0u8;
    let mut eof = false;
    for step in steps {
        if !kernel(|k| k.connections.contains_key(&handle.0)) {
            break;
        }
        match *step {
            Step::News { bytes, acked, window } => {
                let bytes: Vec<u8> = (0..bytes).map(|n| salt.wrapping_add(n as u8)).collect();
                salt = salt.wrapping_add(41);
                let bytes = if eof { &[] } else { &bytes[..] };
                news(brings, handle, bytes, acked, window);
            }
            Step::Act(what) => {
                let cookie = Cookie(what);
                let timer = Condition::Timer { handle: Handle::NONE, cookie };
                kernel(|k| k.pending.push_back(timer));
            }
            Step::Eof if eof => {}
            Step::Eof => {
                eof = true;
                kernel(|k| k.eof(handle));
            }
        }
        rig.turn();
        // Results of what was offered, refusals among them.
        rig.turn();
    }
    // The other end takes everything.
    for _ in 0..400 {
        if kernel(|k| k.connections.contains_key(&handle.0)) {
            news(brings, handle, &[], 255, u16::MAX);
            rig.turn();
        }
    }
    let unread = rig.events.conns().get_mut(handle).map(|conn| conn.received_len());
    let calls = calls();
    let (stream, outstanding, ends) = kernel(|k| match k.connections.get(&handle.0) {
        Some(t) => (t.stream.clone(), t.outstanding, (t.shut, t.closed, t.aborted)),
        None => (Vec::new(), 0, (false, true, true)),
    });
    Came { calls, stream, outstanding, unread, ends }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn news_in_one_record_does_what_two_records_do(
        does in prop_oneof![Just(Does::Forward), Just(Does::Answer), Just(Does::Consume), Just(Does::Keep)],
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let apart = play(Brings::Apart, does, &steps);
        prop_assert_eq!(play(Brings::Together, does, &steps), apart);
    }

    #[test]
    fn pieces_do_what_one_piece_does(
        does in prop_oneof![Just(Does::Forward), Just(Does::Consume), Just(Does::Keep)],
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let whole = play(Brings::Together, does, &steps);
        let pieces = play(Brings::Bytewise, does, &steps);
        prop_assert_eq!(pieces.stream, whole.stream);
        prop_assert_eq!((pieces.outstanding, pieces.unread), (whole.outstanding, whole.unread));
        prop_assert_eq!(pieces.ends, whole.ends);
    }
}
