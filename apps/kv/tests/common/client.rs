//! A connection without a network: what is said goes straight into the library.
use kv::conn::Conn;
use kv::store::Store;
use kv::time::Clock;
use kv::worker::{Settings, Shared, Worker};

/// Seconds of Unix time at which a test's clock starts.
pub const UNIX_START: i64 = 1_700_000_000;

pub fn shared(memory_bytes: usize) -> Shared {
    let settings = Settings { clock: Clock::new(UNIX_START), ..Settings::default() };
    Shared::new(Store::with_capacity(memory_bytes, 1), settings)
}

pub struct Client<'s> {
    pub conn: Conn,
    pub worker: Worker<'s>,
}

impl<'s> Client<'s> {
    pub fn new(shared: &'s Shared, index: usize) -> Client<'s> {
        let mut worker = Worker::new(shared, index);
        worker.set_time(0);
        Client { conn: Conn::new(&worker), worker }
    }

    /// Gives everything, and takes all replies: they count as sent at once.
    pub fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let mut replies = Vec::new();
        let mut at = 0;
        loop {
            at += self.conn.on_data(&mut self.worker, &request[at..]);
            replies.extend(self.drain());
            if !self.conn.is_stalled() {
                break;
            }
        }
        assert_eq!(at, request.len());
        replies
    }

    /// The same as text.
    pub fn say(&mut self, request: &str) -> String {
        String::from_utf8(self.ask(request.as_bytes())).expect("text")
    }

    /// All replies that wait, which then count as sent.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut replies = Vec::new();
        while self.conn.out.waiting() > 0 {
            let taken = self.take(64);
            self.sent(taken.len());
            replies.extend(taken);
        }
        replies
    }

    /// One `sendv` of at most `pieces` pieces.
    pub fn take(&mut self, pieces: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.conn.out.peek(self.worker.store(), pieces, |piece| {
            assert!(!piece.is_empty(), "an empty piece");
            bytes.extend_from_slice(piece);
        });
        self.conn.out.take(bytes.len());
        bytes
    }

    pub fn sent(&mut self, bytes: usize) {
        self.conn.out.sent(self.worker.store(), &mut self.worker.pool, bytes);
    }

    pub fn close(mut self) {
        self.conn.close(&mut self.worker);
    }
}
