//! What a request costs in the program: the event loop of libix and the store, in instructions, run under
//! callgrind. The kernel is silent here.
//!
//! ```text
//! cargo build --release -p kv --example turn
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='turn::turn*' \
//!     target/release/examples/turn CONNECTIONS BATCH
//! ```
//! The collected instructions, divided by the requests that it prints, are the cost of one `get` of 64 bytes,
//! which comes with the `sent` of the answer before it. `examples/count.rs` counts the store alone.
#[path = "../../../libix/tests/fake/mod.rs"]
mod fake;

use fake::{PEER, boot, kernel};
use ix_abi::{Condition, Cookie, GroupId, Handle};
use kv::app::Kv;
use kv::store::Store;
use kv::worker::{Settings, Shared};
use libix::EventLoop;
use std::hint::black_box;

fn handle(n: u32) -> Handle {
    Handle::new(GroupId((n % 128) as u16), 1, n / 128)
}

/// The measured part: one entry's worth of events.
#[inline(never)]
fn turn(events: &mut EventLoop<Kv>, app: &mut Kv) {
    events.turn(black_box(app));
}

/// What `handle` gets with a request of these bytes, if so many bytes of answers are out.
fn request(handle: Handle, bytes: &[u8], sent: usize) -> Condition {
    let (cookie, window) = (Cookie(0), 65_535);
    let addr = bytes.as_ptr().expose_provenance() as u64;
    let (len, sent) = (bytes.len() as u32, sent as u32);
    Condition::RecvSent { handle, cookie, addr, len, sent, window }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|n| n.parse::<u32>().expect("a number"));
    let connections = args.next().unwrap_or(1);
    let batch = args.next().unwrap_or(1);
    let settings = Settings { max_conns: connections + 1, ..Settings::default() };
    let shared = Box::leak(Box::new(Shared::new(Store::with_capacity(64 << 20, 1), settings)));
    let mut app = Kv::new(shared, 0);
    let mut events = EventLoop::new(boot(""));
    kernel(|k| (k.patient, k.silent) = (true, true));
    for n in 0..connections {
        let (handle, listener) = (handle(n), Handle::NONE);
        kernel(|k| {
            k.pending.push_back(Condition::Knock { handle, listener, remote: PEER, local_port: 7 });
        });
        events.enter();
        events.turn(&mut app);
    }
    let set = format!("set key:00000500 0 0 64\r\n{}\r\n", "v".repeat(64));
    let get = b"get key:00000500\r\n";
    let answer = "VALUE key:00000500 0 64\r\n".len() + 64 + "\r\nEND\r\n".len();
    kernel(|k| k.pending.push_back(request(handle(0), set.as_bytes(), 0)));
    events.enter();
    events.turn(&mut app);
    let rounds = 10_000 / batch;
    let warm = connections.div_ceil(batch) + 10;
    let mut next = 0;
    for round in 0..rounds + warm {
        kernel(|k| {
            let these = (next..next + batch).map(|n| request(handle(n % connections), get, answer));
            k.pending.extend(these);
        });
        next += batch;
        events.enter();
        if round < warm {
            events.turn(&mut app);
        } else {
            turn(&mut events, &mut app);
        }
    }
    // What the last turn has left, too.
    events.enter();
    let answers = ((rounds + warm) * batch) as usize * answer + "STORED\r\n".len();
    assert_eq!(kernel(|k| k.offered), answers as u64, "each is answered");
    println!("requests: {}", rounds * batch);
}
