//! The safe tier against the kernel in memory: who owns which bytes when, and in which order.

mod ends;
#[path = "../fake/mod.rs"]
mod fake;
mod options;
mod ways;

use fake::{PEER, Tcp, boot, kernel};
use ix_abi::call::Request;
use ix_abi::{Condition, Congestion, Cookie, DeadReason, GroupId, Handle, Status, TcpOption};
use libix::{App, Buf, Conn, Cx, Datagram, EventLoop, Knock};
use std::sync::Arc;
use std::time::Duration;

/// What an application under test does with received bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Forward,
    Consume,
    Keep,
    Answer,
}

struct Shared(Arc<[u8]>);

impl Buf for Shared {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Probe {
    does: Does,
    answer: Arc<[u8]>,
    welcome: bool,
    seen: Vec<String>,
    /// Calls of `on_recv`.
    told: u32,
}

impl Probe {
    fn new(does: Does) -> Probe {
        let answer = (0..5000u32).map(|n| n as u8).collect();
        Probe { does, answer, welcome: true, seen: Vec::new(), told: 0 }
    }
}

impl App for Probe {
    type Conn = u32;
    type Buf = Shared;

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<u32> {
        self.welcome.then_some(7)
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        self.told += 1;
        match self.does {
            Does::Forward => conn.forward(cx, usize::MAX),
            Does::Consume => conn.consume(cx, usize::MAX),
            Does::Keep => {}
            Does::Answer => {
                conn.consume(cx, usize::MAX);
                conn.write(cx, b"head ");
                conn.send(cx, Shared(self.answer.clone()));
                conn.send_static(cx, b" tail");
            }
        }
    }

    fn on_dead(&mut self, _: &mut Cx<Self>, conn: &mut Conn<Self>, reason: DeadReason) {
        self.seen.push(format!("dead {} {reason}", conn.data));
    }

    fn on_connected(&mut self, _: &mut Cx<Self>, conn: &mut Conn<Self>) {
        self.seen.push(format!("connected {}", conn.data));
    }

    fn on_connect_failed(&mut self, _: &mut Cx<Self>, data: u32, status: Status) {
        self.seen.push(format!("failed {data} {status}"));
    }

    fn on_udp(&mut self, cx: &mut Cx<Self>, datagram: Datagram) {
        assert_eq!(datagram.remote(), PEER);
        match self.does {
            Does::Forward => cx.udp_reply(datagram),
            Does::Answer => {
                cx.udp_done(datagram);
                cx.udp_send(Handle(2), PEER, Shared(self.answer.clone()));
                cx.udp_write(Handle(2), PEER, b"copied");
            }
            _ => cx.udp_done(datagram),
        }
    }

    fn on_result(&mut self, _: &mut Cx<Self>, outcome: &libix::Outcome) {
        if outcome.status != Status::Ok {
            self.seen.push(format!("{} {}", outcome.op, outcome.status));
        }
    }

    /// Timers let tests act in a callback: the cookie says what, on all connections.
    fn on_timer(
        &mut self,
        cx: &mut Cx<Self>,
        conns: &mut libix::Conns<Self>,
        _: Handle,
        cookie: u64,
    ) {
        if cookie == DIAL {
            return cx.connect(PEER, 9);
        }
        if cookie == LISTENER_OPTION {
            let listener = Handle::new(GroupId::DATAPLANE, 1, 1);
            return cx.set_listener_option(listener, TcpOption::KeepAlive, 600_000_000, 4);
        }
        for conn in conns.iter_mut() {
            match cookie {
                CLOSE => conn.close(cx),
                ABORT => conn.abort(cx),
                SHUTDOWN => conn.shutdown(cx),
                CONSUME_2 => conn.consume(cx, 2),
                FORWARD_3 => conn.forward(cx, 3),
                READ_TO_BAR => {
                    let seen = &mut self.seen;
                    let read = conn.read(cx, |_, bytes| {
                        seen.push(String::from_utf8_lossy(bytes).into_owned());
                        bytes.iter().take_while(|byte| **byte != b'|').count()
                    });
                    self.seen.push(format!("{read} read"));
                }
                OPTIONS => {
                    conn.set_keep_alive(cx, Some(Duration::from_secs(600)));
                    conn.set_keep_alive_probes(cx, Duration::from_millis(1500), 4);
                    conn.set_user_timeout(cx, Some(Duration::from_nanos(1)));
                    conn.set_congestion(cx, Congestion::NewReno);
                    conn.set_keep_alive(cx, None);
                    conn.set_user_timeout(cx, None);
                }
                DCTCP => conn.set_congestion(cx, Congestion::Dctcp),
                other => panic!("{other}"),
            }
        }
    }
}

const CLOSE: u64 = 1;
const ABORT: u64 = 2;
const SHUTDOWN: u64 = 3;
const CONSUME_2: u64 = 4;
const FORWARD_3: u64 = 5;
const DIAL: u64 = 6;
const OPTIONS: u64 = 7;
const DCTCP: u64 = 8;
const LISTENER_OPTION: u64 = 9;
const READ_TO_BAR: u64 = 10;

struct Rig {
    events: EventLoop<Probe>,
    app: Probe,
}

impl Rig {
    fn new(does: Does) -> Rig {
        let context = boot("");
        kernel(|k| k.patient = true);
        Rig { events: EventLoop::new(context), app: Probe::new(does) }
    }

    /// A rig with one accepted connection.
    fn with_conn(does: Does) -> (Rig, Handle) {
        let mut rig = Rig::new(does);
        let handle = kernel(|k| k.knock(3));
        rig.turn();
        rig.turn();
        (rig, handle)
    }

    /// One round: the kernel runs the last batch and delivers, the application handles.
    fn turn(&mut self) {
        self.events.enter();
        self.events.turn(&mut self.app);
    }

    fn act(&mut self, what: u64) {
        let handle = Handle::NONE;
        kernel(|k| k.pending.push_back(Condition::Timer { handle, cookie: Cookie(what) }));
        self.turn();
    }
}

fn tcp<R>(handle: Handle, f: impl FnOnce(&mut Tcp) -> R) -> R {
    kernel(|k| f(k.tcp(handle)))
}

fn calls() -> Vec<Request> {
    kernel(|k| k.calls.drain(..).map(|(request, _)| request).collect())
}

#[test]
fn forwarded_bytes_are_returned_when_the_peer_has_acknowledged_them_and_not_before() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    kernel(|k| k.recv(handle, b"hello"));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| (t.stream.clone(), t.outstanding)), (b"hello".to_vec(), 5));
    kernel(|k| k.ack(handle, 3, 1000));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 5, "a piece is returned as a whole");
    kernel(|k| k.ack(handle, 2, 1000));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 0);
}

#[test]
fn what_arrives_in_one_batch_leaves_in_one_sendv_and_returns_in_one_recv_done() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    calls();
    kernel(|k| (0..20).for_each(|_| k.recv(handle, b"x")));
    rig.turn();
    kernel(|k| k.pending.push_back(Condition::Nop));
    rig.turn();
    assert_eq!(calls(), [Request::Sendv { handle, sg_count: 20, done: 0 }]);
    kernel(|k| k.ack(handle, 20, 1000));
    rig.turn();
    rig.turn();
    assert_eq!(calls(), [Request::RecvDone { handle, bytes: 20 }]);
}

#[test]
fn what_the_window_refuses_goes_on_when_it_opens() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    tcp(handle, |t| t.window = 7);
    kernel(|k| k.recv(handle, b"?"));
    for _ in 0..4 {
        rig.turn();
    }
    let sendvs = tcp(handle, |t| (t.stream.len(), t.sendvs));
    assert_eq!(sendvs, (7, 1), "what is refused is not offered again before news");
    let mut acked = 7;
    while acked < 5010 {
        kernel(|k| {
            let bytes = k.tcp(handle).unacked();
            k.ack(handle, bytes, 333);
        });
        rig.turn();
        rig.turn();
        rig.turn();
        acked = tcp(handle, |t| t.stream.len());
    }
    let mut expected = b"head ".to_vec();
    expected.extend_from_slice(&rig.app.answer);
    expected.extend_from_slice(b" tail");
    assert_eq!(tcp(handle, |t| t.stream.clone()), expected);
}

#[test]
fn a_window_of_nothing_is_waited_out() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    tcp(handle, |t| t.window = 0);
    kernel(|k| k.recv(handle, b"abc"));
    rig.turn();
    rig.turn();
    kernel(|k| k.ack(handle, 0, 0));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| (t.stream.len(), t.sendvs)), (0, 1));
    kernel(|k| k.ack(handle, 0, 3));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.stream.clone()), b"abc");
}

#[test]
fn a_buffer_is_dropped_when_its_last_byte_is_sent() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    kernel(|k| k.recv(handle, b"?"));
    rig.turn();
    rig.turn();
    assert_eq!(Arc::strong_count(&rig.app.answer), 2);
    kernel(|k| k.ack(handle, 5004, 1000));
    rig.turn();
    assert_eq!(Arc::strong_count(&rig.app.answer), 2);
    kernel(|k| k.ack(handle, 1, 1000));
    rig.turn();
    assert_eq!(Arc::strong_count(&rig.app.answer), 1);
}

#[test]
fn bytes_consumed_behind_forwarded_ones_are_returned_after_them() {
    let (mut rig, handle) = Rig::with_conn(Does::Keep);
    kernel(|k| {
        k.recv(handle, b"abcd");
        k.recv(handle, b"efgh");
    });
    rig.turn();
    rig.act(FORWARD_3); // abc, which stay held
    rig.act(CONSUME_2); // de
    rig.act(FORWARD_3); // fgh
    rig.turn();
    assert_eq!(tcp(handle, |t| (t.stream.clone(), t.outstanding)), (b"abcfgh".to_vec(), 8));
    kernel(|k| k.ack(handle, 3, 1000));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 3);
    kernel(|k| k.ack(handle, 3, 1000));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 0);
}

#[test]
fn reading_goes_from_piece_to_piece_and_stops_where_a_piece_is_not_used_up() {
    let (mut rig, handle) = Rig::with_conn(Does::Keep);
    rig.act(READ_TO_BAR);
    assert_eq!(rig.app.seen, ["0 read"], "without bytes nothing is shown");
    kernel(|k| ["ab", "cd", "e|f", "gh"].iter().for_each(|piece| k.recv(handle, piece.as_bytes())));
    rig.turn();
    rig.app.seen.clear();
    rig.act(READ_TO_BAR);
    assert_eq!(rig.app.seen, ["ab", "cd", "e|f", "5 read"]);
    rig.app.seen.clear();
    rig.act(READ_TO_BAR);
    assert_eq!(rig.app.seen, ["|f", "0 read"], "the next is not shown before the first is used");
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 4);
}

#[test]
fn more_reported_as_sent_than_is_out_takes_nothing_that_waits() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    tcp(handle, |t| t.window = 3);
    kernel(|k| ["he", "llo"].iter().for_each(|piece| k.recv(handle, piece.as_bytes())));
    rig.turn();
    rig.turn();
    tcp(handle, |t| t.window = 1000);
    let (cookie, bytes, window) = (Cookie(0), 1000, 1000);
    kernel(|k| k.pending.push_back(Condition::Sent { handle, cookie, bytes, window }));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.stream.clone()), b"hello");
}

#[test]
fn a_datagram_sent_back_is_returned_when_it_has_left() {
    let mut rig = Rig::new(Does::Forward);
    let addr = kernel(|k| k.udp_recv(b"ping"));
    rig.turn();
    rig.turn();
    let sent = kernel(|k| k.calls.pop().expect("a call"));
    assert!(matches!(sent.0, Request::UdpSendv { remote: PEER, .. }));
    assert_eq!((sent.1[0].addr, sent.1[0].len), (addr, 4), "from where it lies");
    assert_eq!(kernel(|k| k.datagrams.len()), 1);
    rig.turn();
    assert!(kernel(|k| k.datagrams.is_empty()));
}

#[test]
fn a_datagram_from_own_memory_keeps_it_until_it_has_left() {
    let mut rig = Rig::new(Does::Answer);
    kernel(|k| k.udp_recv(b"ping"));
    rig.turn();
    assert_eq!(Arc::strong_count(&rig.app.answer), 2);
    rig.turn();
    assert_eq!(Arc::strong_count(&rig.app.answer), 1);
    assert!(kernel(|k| k.datagrams.is_empty()));
}

#[test]
fn a_groups_connections_follow_it_to_another_context() {
    // A group of this test's own, since contexts of all threads share the depot.
    let group = GroupId(77);
    let handle = Handle::new(group, 1, 5);
    let mut rig = Rig::new(Does::Keep);
    kernel(|k| {
        k.connections.insert(handle.0, Tcp::new(handle, false));
        let listener = Handle::NONE;
        k.pending.push_back(Condition::Knock { handle, listener, remote: PEER, local_port: 7 });
    });
    rig.turn();
    rig.turn();
    let memory: &'static [u8] = b"travels";
    let addr = memory.as_ptr().expose_provenance() as u64;
    kernel(|k| {
        let recv = Condition::Recv { handle, cookie: Cookie(0), addr, len: 7 };
        // Two bytes are consumed here; there is no time any more to tell the kernel.
        let consume = Condition::Timer { handle: Handle::NONE, cookie: Cookie(CONSUME_2) };
        k.pending.extend([recv, consume, Condition::GroupOut { group, life: 0 }]);
    });
    calls();
    rig.turn();
    rig.turn();
    assert_eq!(calls(), [], "calls would come too late");
    assert!(rig.events.conns().is_empty());
    std::thread::spawn(move || {
        let mut rig = Rig::new(Does::Consume);
        kernel(|k| {
            k.connections.insert(handle.0, Tcp::new(handle, true));
            k.tcp(handle).deliver(b"travels");
            k.pending.push_back(Condition::GroupIn { group, life: 0 });
        });
        rig.turn();
        assert_eq!(rig.events.conns().get_mut(handle).unwrap().front(), b"avels");
        rig.turn();
        assert_eq!(tcp(handle, |t| t.outstanding), 5, "what was consumed there is returned here");
    })
    .join()
    .expect("the other context");
}

fn knock(handle: Handle) {
    kernel(|k| {
        k.connections.insert(handle.0, Tcp::new(handle, false));
        let listener = Handle::NONE;
        k.pending.push_back(Condition::Knock { handle, listener, remote: PEER, local_port: 7 });
    });
}

#[test]
fn lives_of_a_group_that_was_taken_by_force_do_not_mix() {
    let group = GroupId(78);
    // The same place in both lives.
    let [old, new] = [1, 0x9e_3779].map(|generation| Handle::new(group, generation, 5));
    let mut rig = Rig::new(Does::Keep);
    knock(old);
    rig.turn();
    rig.turn();
    kernel(|k| k.pending.push_back(Condition::GroupOut { group, life: 0 }));
    rig.turn();
    assert!(rig.events.conns().is_empty(), "it is laid aside");
    std::thread::spawn(move || {
        let mut rig = Rig::new(Does::Keep);
        kernel(|k| k.pending.push_back(Condition::GroupIn { group, life: 1 }));
        rig.turn();
        assert!(rig.events.conns().is_empty(), "that is another life's");
        knock(new);
        rig.turn();
        rig.turn();
        assert!(rig.events.conns().get_mut(new).is_some());
        kernel(|k| k.pending.push_back(Condition::GroupOut { group, life: 1 }));
        rig.turn();
    })
    .join()
    .expect("the other context");
    // What was laid aside comes back to its end; the other life comes to the same context meanwhile.
    kernel(|k| k.pending.push_back(Condition::GroupIn { group, life: 0 }));
    rig.turn();
    assert_eq!(rig.events.conns().len(), 1);
    kernel(|k| k.pending.push_back(Condition::GroupIn { group, life: 1 }));
    rig.turn();
    assert_eq!(rig.events.conns().len(), 2);
    assert!(rig.events.conns().get_mut(old).is_some());
    assert!(rig.events.conns().get_mut(new).is_some());
    kernel(|k| {
        let (cookie, reason) = (Cookie(0), DeadReason::Reset);
        k.pending.push_back(Condition::Dead { handle: old, cookie, reason });
    });
    rig.turn();
    assert!(rig.events.conns().get_mut(old).is_none());
    assert!(rig.events.conns().get_mut(new).is_some());
}

#[test]
fn events_of_unknown_handles_are_ignored() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    let stranger = Handle::new(handle.group(), 9, handle.index());
    let beyond = Handle::new(GroupId(600), 1, 1);
    // As many groups further on as there can be.
    let namesake = Handle::new(GroupId(handle.group().0 + 512), 1, handle.index());
    kernel(|k| {
        for handle in [stranger, beyond, namesake, Handle::NONE, Handle(u64::MAX)] {
            let cookie = Cookie(0);
            k.pending.extend([
                Condition::Recv { handle, cookie, addr: 8, len: 8 },
                Condition::Sent { handle, cookie, bytes: 8, window: 8 },
                Condition::Eof { handle, cookie },
                Condition::Dead { handle, cookie, reason: DeadReason(99) },
                Condition::Connected { handle, cookie, outcome: Status::Ok, window: 1 },
                Condition::UdpSent { handle, cookie, tag: 77, bytes: 1 },
                Condition::Result { op: 99, status: Status(99), handle, tag: 1 << 63, value: 1 },
            ]);
        }
    });
    calls();
    rig.turn();
    rig.turn();
    assert_eq!(calls(), []);
    assert_eq!(rig.events.conns().len(), 1);
}

#[test]
fn more_pieces_than_a_sendv_takes_go_one_sendv_after_the_other() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    kernel(|k| (0..150).for_each(|n| k.recv(handle, &[n as u8])));
    rig.turn();
    for sendvs in 0..3 {
        assert_eq!(tcp(handle, |t| t.sendvs), sendvs);
        rig.turn();
    }
    let expected: Vec<u8> = (0..150).collect();
    assert_eq!(tcp(handle, |t| t.stream.clone()), expected);
}

#[test]
fn no_sendv_follows_one_whose_result_is_unknown() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    tcp(handle, |t| t.window = 3);
    kernel(|k| k.recv(handle, b"first"));
    rig.turn();
    kernel(|k| k.stalled = true);
    kernel(|k| k.recv(handle, b" second"));
    rig.turn();
    rig.turn();
    kernel(|k| k.stalled = false);
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| (t.stream.clone(), t.sendvs)), (b"fir".to_vec(), 1));
    kernel(|k| k.ack(handle, 3, 1000));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.stream.clone()), b"first second");
}
