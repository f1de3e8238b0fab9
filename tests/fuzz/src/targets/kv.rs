//! kv's protocols: streams cut anywhere, replies sent in any portions, clients that go away.
use crate::input::Input;
use kv::conn::Conn;
use kv::store::Store;
use kv::time::Clock;
use kv::worker::{Settings, Shared, Worker};

/// Memory of the store: small, so that it is full soon.
const MEMORY: usize = 3 << 20;
const UNIX_START: i64 = 1_700_000_000;
/// Longest reply to what one input can ask.
const REPLY_MAX: usize = 64 << 20;

/// Some clients of one store, whose bytes, cuts and ends are the input's.
pub fn streams(bytes: &[u8]) {
    let settings = Settings { clock: Clock::new(UNIX_START), ..Settings::default() };
    let shared = Shared::new(Store::with_capacity(MEMORY, 1), settings);
    let mut worker = Worker::new(&shared, 0);
    worker.set_time(0);
    let mut input = Input::new(bytes);
    let mut conns: Vec<Conn> = (0..2).map(|_| Conn::new(&worker)).collect();
    let mut seconds = 0;
    let mut sent = 0;
    while !input.is_empty() {
        let how = input.u8();
        let at = usize::from(how & 1);
        match how >> 1 & 15 {
            0 => {
                seconds += u64::from(input.u8());
                worker.set_time(seconds * 1_000_000_000);
                continue;
            }
            1 => {
                conns[at].close(&mut worker);
                conns[at] = Conn::new(&worker);
                continue;
            }
            _ => {}
        }
        // Up to a line's end, or cut earlier.
        let rest = input.clone().rest();
        let line = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |end| end + 1);
        let len = if how & 32 == 0 { line } else { line.min(1 + input.below(40)) };
        let data = input.take(len);
        let hold = how & 64 != 0;
        let mut used = 0;
        loop {
            let took = conns[at].on_data(&mut worker, &data[used..]);
            assert!(took <= data.len() - used);
            used += took;
            if !conns[at].is_stalled() {
                break;
            }
            let progress = drain(&mut conns[at], &mut worker);
            assert!(progress > 0 || took > 0, "it waits for output, and there is none");
            sent += progress;
            assert!(sent < REPLY_MAX);
        }
        assert_eq!(used, data.len());
        if !hold {
            sent += drain(&mut conns[at], &mut worker);
        }
        if conns[at].is_closing() {
            conns[at].close(&mut worker);
            conns[at] = Conn::new(&worker);
        }
    }
    for conn in &mut conns {
        conn.close(&mut worker);
    }
    assert_eq!(shared.connections(), 0);
}

/// All replies that wait, in portions as `sendv` takes them; how many bytes.
fn drain(conn: &mut Conn, worker: &mut Worker<'_>) -> usize {
    let mut all = 0;
    while conn.out.waiting() > 0 {
        let mut bytes = 0;
        conn.out.peek(worker.store(), 64, |piece| {
            assert!(!piece.is_empty(), "an empty piece");
            bytes += piece.len();
        });
        assert!(bytes > 0, "bytes wait, and none can be sent");
        conn.out.take(bytes);
        // Acknowledged in two parts.
        let first = bytes / 2;
        conn.out.sent(worker.store(), &mut worker.pool, first);
        conn.out.sent(worker.store(), &mut worker.pool, bytes - first);
        all += bytes;
    }
    all
}
