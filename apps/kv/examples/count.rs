//! What a request costs in the library, in instructions: run under callgrind, twice.
//!
//! ```text
//! cargo build --release -p kv --example count
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/count KIND N
//! ```
//! The difference of two runs with different `N`, divided by the difference of `N`, is the cost of one
//! batch of KIND: received bytes in, pieces for `sendv`, `sent`.
use kv::conn::Conn;
use kv::store::Store;
use kv::worker::{Settings, Shared, Worker};

fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_else(|| "get".into());
    let count: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let shared = Shared::new(Store::with_capacity(64 << 20, 1), Settings::default());
    let mut worker = Worker::new(&shared, 0);
    let mut conn = Conn::new(&worker);
    let value = |len: usize| "v".repeat(len);
    for n in 0..1000 {
        let set = format!("set key:{n:08} 0 0 64\r\n{}\r\n", value(64));
        run(&mut conn, &mut worker, set.as_bytes());
    }
    run(&mut conn, &mut worker, format!("set big 0 0 10000\r\n{}\r\n", value(10_000)).as_bytes());
    let sized: usize = kind.strip_prefix("value").and_then(|n| n.parse().ok()).unwrap_or(0);
    let set = format!("set sized 0 0 {sized}\r\n{}\r\n", value(sized));
    run(&mut conn, &mut worker, set.as_bytes());
    run(&mut conn, &mut worker, b"set number 0 0 10\r\n1000000000\r\n");
    let request = match kind.as_str() {
        "get" => "get key:00000500\r\n".into(),
        "get16" => "get key:00000500\r\n".repeat(16),
        "gets" => "gets key:00000500\r\n".into(),
        "miss" => "get nokey:00000500\r\n".into(),
        _ if kind.starts_with("value") => "get sized\r\n".into(),
        "big" => "get big\r\n".into(),
        "set" => format!("set key:00000500 0 0 64\r\n{}\r\n", value(64)),
        "incr" => "incr number 1\r\n".into(),
        other => panic!("no request called {other}"),
    };
    let mut bytes = 0;
    for _ in 0..count {
        bytes += run(&mut conn, &mut worker, request.as_bytes());
    }
    println!("{kind}: {count} batches, {bytes} reply bytes");
}

fn run(conn: &mut Conn, worker: &mut Worker<'_>, request: &[u8]) -> usize {
    let used = conn.on_data(worker, request);
    assert_eq!(used, request.len());
    let peeked = conn.out.peek(worker.store(), 64, |piece| {
        std::hint::black_box((piece.as_ptr(), piece.len()));
    });
    conn.out.take(peeked.bytes);
    conn.out.sent(worker.store(), &mut worker.pool, peeked.bytes);
    peeked.bytes
}
