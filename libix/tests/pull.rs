//! Applications that keep queues of output of their own.

mod fake;

use fake::{boot, kernel};
use ix_abi::{DeadReason, Handle};
use libix::{App, Conn, Cx, EventLoop, Knock, NoBuf, SgList};

/// One connection's queue: a stream of numbers, `made` bytes long, of which `offered` are out.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    offered: usize,
    sent: usize,
}

/// Answers each received byte with 100 bytes, each piece 30 long at most.
struct Puller;

impl App for Puller {
    type Conn = Queue;
    type Buf = NoBuf;
    const PULLS: bool = true;

    fn pull(&mut self, queue: &mut Queue, sg: &mut SgList) {
        while queue.offered < queue.bytes.len() && sg.room() > 0 {
            let end = queue.bytes.len().min(queue.offered + 30);
            queue.offered += sg.push(&queue.bytes[queue.offered..end]);
        }
    }

    fn refused(&mut self, queue: &mut Queue, bytes: u64) {
        queue.offered -= bytes as usize;
    }

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<Queue> {
        // The memory must not move while it is in flight.
        Some(Queue { bytes: Vec::with_capacity(1 << 20), ..Queue::default() })
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.read(cx, |queue, bytes| {
            for &byte in bytes {
                queue.bytes.extend((0..100).map(|n| byte.wrapping_add(n)));
            }
            bytes.len()
        });
    }

    fn on_sent(&mut self, _: &mut Cx<Self>, conn: &mut Conn<Self>, bytes: u32) {
        conn.data.sent += bytes as usize;
        assert!(conn.data.sent <= conn.data.offered);
    }
}

struct Rig {
    events: EventLoop<Puller>,
    handle: Handle,
}

impl Rig {
    fn new() -> Rig {
        let mut events = EventLoop::new(boot(""));
        let handle = kernel(|k| {
            k.patient = true;
            k.knock(1)
        });
        for _ in 0..2 {
            events.enter();
            events.turn(&mut Puller);
        }
        Rig { events, handle }
    }

    fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.events.enter();
            self.events.turn(&mut Puller);
        }
    }
}

#[test]
fn pulled_output_survives_refusals_and_small_windows() {
    let mut rig = Rig::new();
    let handle = rig.handle;
    kernel(|k| {
        k.tcp(handle).window = 55;
        (0..200).for_each(|n| k.recv(handle, &[n]));
    });
    rig.turns(3);
    for n in 0..2000u64 {
        kernel(|k| {
            let bytes = k.tcp(handle).unacked();
            k.ack(handle, bytes, n * 37 % 101);
        });
        rig.turns(2);
    }
    let expected: Vec<u8> =
        (0..200u8).flat_map(|byte| (0..100).map(move |n| byte.wrapping_add(n))).collect();
    kernel(|k| {
        assert_eq!(k.tcp(handle).stream, expected);
        assert!(k.tcp(handle).partial > 100, "windows were small");
    });
    assert_eq!(rig.events.conns().get_mut(handle).unwrap().data.sent, expected.len());
}

#[test]
fn fin_follows_all_pulled_output() {
    let mut rig = Rig::new();
    let handle = rig.handle;
    kernel(|k| {
        k.tcp(handle).window = 150;
        k.recv(handle, &[1, 2, 3]);
        k.eof(handle);
    });
    rig.turns(4);
    assert_eq!(kernel(|k| (k.tcp(handle).stream.len(), k.tcp(handle).closed)), (150, false));
    kernel(|k| k.ack(handle, 150, 1000));
    rig.turns(4);
    assert_eq!(kernel(|k| (k.tcp(handle).stream.len(), k.tcp(handle).closed)), (300, true));
    kernel(|k| {
        k.ack(handle, 150, 1000);
        k.dead(handle, DeadReason::Closed);
    });
    rig.turns(2);
    assert!(rig.events.conns().is_empty());
}
