//! What the event loop costs per message: `cargo bench -p libix` prints times; the instructions are
//! counted by callgrind, as `docs/libix.md` says. The kernel is silent here: only the program works.

#[path = "../tests/fake/mod.rs"]
mod fake;

use fake::{PEER, boot, kernel};
use ix_abi::{Condition, Cookie, GroupId, Handle};
use libix::{App, Conn, Cx, EventLoop, Knock, NoBuf};
use std::hint::black_box;
use std::time::Instant;

/// Sends back what comes.
struct Forward;

impl App for Forward {
    type Conn = ();
    type Buf = NoBuf;

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<()> {
        Some(())
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.forward(cx, usize::MAX);
    }
}

fn handle(n: u32) -> Handle {
    Handle::new(GroupId((n % 128) as u16), 1, n / 128)
}

/// The measured part: one entry's worth of events.
#[inline(never)]
fn turn(events: &mut EventLoop<Forward>) {
    events.turn(black_box(&mut Forward));
}

/// `batch` messages per entry, each a `recv` to be echoed and, one entry later, its `sent`.
fn echo(connections: u32, batch: u32, rounds: u32) {
    let mut events = EventLoop::new(boot(""));
    kernel(|k| (k.patient, k.silent) = (true, true));
    let knocks: Vec<_> = (0..connections)
        .map(|n| {
            let (handle, listener) = (handle(n), Handle::NONE);
            Condition::Knock { handle, listener, remote: PEER, local_port: 7 }
        })
        .collect();
    for some in knocks.chunks(1000) {
        kernel(|k| k.pending.extend(some));
        events.enter();
        events.turn(&mut Forward);
    }
    let memory: &'static [u8] = &[7; 64];
    let addr = memory.as_ptr().expose_provenance() as u64;
    let (mut next, mut nanoseconds) = (0, 0);
    // Each connection once to be warm, then in an order without neighbours.
    let warm = connections.div_ceil(batch) + 10;
    for round in 0..rounds + warm {
        let step = if round < warm { 1 } else { 7919 };
        let these: Vec<_> = (0..batch).map(|n| handle((next + n * step) % connections)).collect();
        next = (next + batch * step) % connections;
        let cookie = Cookie(0);
        for sent in [false, true] {
            kernel(|k| {
                k.pending.extend(these.iter().map(|&handle| match sent {
                    false => Condition::Recv { handle, cookie, addr, len: 64 },
                    true => Condition::Sent { handle, cookie, bytes: 64, window: 65_535 },
                }));
            });
            events.enter();
            if round < warm {
                events.turn(&mut Forward);
                continue;
            }
            let start = Instant::now();
            turn(&mut events);
            nanoseconds += start.elapsed().as_nanos();
        }
    }
    let messages = u128::from(batch * rounds);
    println!(
        "{connections:>7} connections, batch {batch:>2}: {} messages, {} ns each",
        messages,
        nanoseconds / messages
    );
}

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    for (connections, batch) in [(1, 1), (100, 1), (100, 64), (10_000, 64)] {
        if only.starts_with("--") || only.is_empty() || only == format!("{connections}/{batch}") {
            echo(connections, batch, 10_000 / batch);
        }
    }
}
