//! What the event loop costs per message: `cargo bench -p libix` prints times; the instructions are
//! counted by callgrind, as `docs/libix.md` says. The kernel is silent here: only the program works.

#[path = "../tests/fake/mod.rs"]
mod fake;

use fake::{PEER, boot, kernel};
use ix_abi::{Condition, Cookie, GroupId, Handle};
use libix::{App, Conn, Cx, EventLoop, Knock, NoBuf, SgList};
use std::hint::black_box;
use std::time::Instant;

/// Bytes of a message.
const BYTES: u32 = 64;
static MEMORY: [u8; BYTES as usize] = [7; BYTES as usize];

/// Sends back what comes.
#[derive(Default)]
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

/// Has a queue of output of its own: how many answers wait.
#[derive(Default)]
struct Pull;

impl App for Pull {
    type Conn = usize;
    type Buf = NoBuf;
    const PULLS: bool = true;

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<usize> {
        Some(0)
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.read(cx, |waiting, bytes| {
            *waiting += 1;
            black_box(bytes).len()
        });
    }

    fn pull(&mut self, waiting: &mut usize, sg: &mut SgList) {
        for _ in 0..core::mem::take(waiting) {
            sg.push(&MEMORY);
        }
    }
}

fn handle(n: u32) -> Handle {
    Handle::new(GroupId((n % 128) as u16), 1, n / 128)
}

/// The measured part: one entry's worth of events.
#[inline(never)]
fn turn<A: App>(events: &mut EventLoop<A>, app: &mut A) {
    events.turn(black_box(app));
}

/// What a message brings about, entry by entry.
#[derive(Clone, Copy)]
enum Kind {
    /// Its `recv`, and one entry later the `sent` of its answer.
    Apart,
    /// One `recv_sent`: the `sent` is the former answer's.
    Talk,
}

impl Kind {
    fn entries(self, handle: Handle) -> Vec<Condition> {
        let (cookie, window) = (Cookie(0), 65_535);
        let addr = MEMORY.as_ptr().expose_provenance() as u64;
        let (len, bytes, sent) = (BYTES, BYTES, BYTES);
        match self {
            Kind::Apart => vec![
                Condition::Recv { handle, cookie, addr, len },
                Condition::Sent { handle, cookie, bytes, window },
            ],
            Kind::Talk => vec![Condition::RecvSent { handle, cookie, addr, len, sent, window }],
        }
    }
}

/// `batch` messages per entry.
fn run<A: App + Default>(name: &str, kind: Kind, connections: u32, batch: u32) {
    let mut events = EventLoop::new(boot(""));
    kernel(|k| (k.patient, k.silent) = (true, true));
    let mut app = A::default();
    let knocks: Vec<_> = (0..connections)
        .map(|n| {
            let (handle, listener) = (handle(n), Handle::NONE);
            Condition::Knock { handle, listener, remote: PEER, local_port: 7 }
        })
        .collect();
    // No more than the ring holds.
    for some in knocks.chunks(500) {
        kernel(|k| k.pending.extend(some));
        events.enter();
        events.turn(&mut app);
    }
    let rounds = 10_000 / batch;
    let (mut next, mut nanoseconds) = (0, 0);
    // Each connection once to be warm, then in an order without neighbours.
    let warm = connections.div_ceil(batch) + 10;
    for round in 0..rounds + warm {
        let step = if round < warm { 1 } else { 7919 };
        let these: Vec<_> =
            (0..batch).map(|n| kind.entries(handle((next + n * step) % connections))).collect();
        next = (next + batch * step) % connections;
        for entry in 0..these[0].len() {
            kernel(|k| k.pending.extend(these.iter().map(|conditions| conditions[entry])));
            events.enter();
            if round < warm {
                events.turn(&mut app);
                continue;
            }
            let start = Instant::now();
            turn(&mut events, &mut app);
            nanoseconds += start.elapsed().as_nanos();
        }
    }
    // What the last turn has left, too.
    events.enter();
    let answers = u64::from((rounds + warm) * batch);
    assert_eq!(kernel(|k| k.offered), answers * u64::from(BYTES), "each message is answered");
    let messages = u128::from(batch * rounds);
    println!(
        "{name} {connections}/{batch}: messages: {messages} ({} ns each)",
        nanoseconds / messages
    );
}

const SIZES: [(u32, u32); 4] = [(1, 1), (100, 1), (100, 64), (10_000, 64)];

/// Without arguments (but cargo's own): everything. Else KIND CONNECTIONS/BATCH.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str, size: &str| match &args[..] {
        [kind, sizes] => kind == name && sizes == size,
        _ => args.is_empty(),
    };
    for (connections, batch) in SIZES {
        let size = format!("{connections}/{batch}");
        if wanted("echo", &size) {
            run::<Forward>("echo", Kind::Apart, connections, batch);
        }
        if wanted("talk", &size) {
            run::<Forward>("talk", Kind::Talk, connections, batch);
        }
        if wanted("pull", &size) {
            run::<Pull>("pull", Kind::Talk, connections, batch);
        }
    }
}
