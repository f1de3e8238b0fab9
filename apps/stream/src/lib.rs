//! Checked data in bulk. A client says what it wants ([`Request`]): the server then takes a stream and
//! verifies every byte of it, or makes one for the client to verify. What a TCP stack is measured and
//! held against with, so it does as little besides as it can.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod pattern;
mod wire;

pub use pattern::Pattern;
pub use wire::{REQUEST_BYTES, Request, Role, VERDICT_BYTES, Verdict};

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use libix::abi::limits::BACKLOG_MAX;
use libix::args::ArgError;
use libix::{App, Args, Conn, Cx, IpAddress, Knock, Op, Outcome, SocketAddress, Status, logln};

/// The port that it listens on if it is not told another one.
pub const PORT: u16 = 5001;
/// Bytes that a source makes at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// How far a source is ahead of the peer's acknowledgements.
const AHEAD_BYTES: u64 = 4 << 20;
/// Pieces that are kept for use again; more go back to the heap.
const PIECES_KEPT_MAX: usize = 1024;
/// How many of them are looked at for one that is free.
const TRIES: usize = 4;

/// The server on one core.
#[derive(Debug)]
pub struct Stream {
    local: SocketAddress,
    /// Memory that was sent from, oldest first: what nobody else refers to is used again.
    sent: VecDeque<Arc<[u8]>>,
}

/// How far a connection is.
#[derive(Debug)]
pub enum Transfer {
    /// Its request is not complete yet.
    Asked,
    /// Data comes.
    Sink {
        /// What is expected next.
        pattern: Pattern,
        /// Bytes to come.
        left: u64,
        /// Where the first wrong byte was.
        wrong: Option<u64>,
    },
    /// Data goes.
    Source {
        /// What is sent next.
        pattern: Pattern,
        /// Bytes to be made.
        left: u64,
    },
    /// Nothing more is to be done.
    Done,
}

impl Stream {
    /// Understands `-p PORT`.
    pub fn new(mut args: Args<'_>) -> Result<Stream, ArgError> {
        let port = args.option("-p")?.unwrap_or(PORT);
        args.finish()?;
        let local = SocketAddress { ip: IpAddress::UNSPECIFIED, port, scope: 0 };
        Ok(Stream { local, sent: VecDeque::new() })
    }

    fn begin(&mut self, cx: &mut Cx<Stream>, conn: &mut Conn<Stream>) {
        let mut bytes = [0; REQUEST_BYTES];
        if conn.peek(&mut bytes) < REQUEST_BYTES {
            return;
        }
        conn.consume(cx, REQUEST_BYTES);
        let Some(request) = Request::parse(&bytes) else {
            log::warn!("a strange request");
            return conn.abort(cx);
        };
        let (pattern, left) = (Pattern::new(request.seed), request.bytes);
        conn.data = match request.role {
            Role::Sink => Transfer::Sink { pattern, left, wrong: None },
            Role::Source => Transfer::Source { pattern, left },
        };
    }

    fn take(&mut self, cx: &mut Cx<Stream>, conn: &mut Conn<Stream>) {
        conn.read(cx, |data, bytes| {
            let Transfer::Sink { pattern, left, wrong } = data else { return 0 };
            let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let found = pattern.check(&bytes[..used]);
            *wrong = wrong.or(found);
            *left -= used as u64;
            used
        });
        if let Transfer::Sink { left: 0, .. } = conn.data {
            self.judge(cx, conn);
        }
    }

    /// Answers with what was found so far.
    fn judge(&mut self, cx: &mut Cx<Stream>, conn: &mut Conn<Stream>) {
        if let Transfer::Sink { pattern, wrong, .. } = conn.data {
            let verdict = Verdict { bytes: pattern.at(), wrong };
            conn.write(cx, &verdict.to_bytes());
            conn.data = Transfer::Done;
        }
    }

    /// Keeps the source ahead of the acknowledgements.
    fn make(&mut self, cx: &mut Cx<Stream>, conn: &mut Conn<Stream>) {
        while conn.unsent() + conn.in_flight() < AHEAD_BYTES {
            let Transfer::Source { pattern, left } = &mut conn.data else { return };
            if *left == 0 {
                conn.data = Transfer::Done;
                return conn.shutdown(cx);
            }
            let mut piece = if *left < PIECE_BYTES as u64 {
                Arc::from(&[0; PIECE_BYTES][..*left as usize])
            } else {
                self.free_piece()
            };
            let bytes = Arc::get_mut(&mut piece).expect("nobody else has it");
            pattern.fill(bytes);
            *left -= bytes.len() as u64;
            if bytes.len() == PIECE_BYTES && self.sent.len() < PIECES_KEPT_MAX {
                self.sent.push_back(piece.clone());
            }
            conn.send(cx, piece);
        }
    }

    /// A piece that nobody refers to: nearly always the one that was sent the longest ago.
    fn free_piece(&mut self) -> Arc<[u8]> {
        for _ in 0..TRIES {
            let Some(mut piece) = self.sent.pop_front() else { break };
            if Arc::get_mut(&mut piece).is_some() {
                return piece;
            }
            // Of a connection that is slower than others.
            self.sent.push_back(piece);
        }
        Arc::from(&[0; PIECE_BYTES][..])
    }
}

impl App for Stream {
    type Conn = Transfer;
    type Buf = Arc<[u8]>;

    fn on_start(&mut self, cx: &mut Cx<Self>) {
        if cx.index() == 0 {
            cx.listen(self.local, BACKLOG_MAX, 0);
        }
    }

    fn on_result(&mut self, cx: &mut Cx<Self>, outcome: &Outcome) {
        match (outcome.op, outcome.status) {
            (Op::Listen, Status::Ok) => {
                logln!("TCP port {}", self.local.port);
                cx.ready();
            }
            (op, Status::Ok) => log::debug!("{op:?}"),
            (Op::Listen, status) => {
                log::error!("port {}: {status}", self.local.port);
                libix::exit(1);
            }
            (op, status) => log::warn!("{op:?}: {status}"),
        }
    }

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<Transfer> {
        Some(Transfer::Asked)
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        if let Transfer::Asked = conn.data {
            self.begin(cx, conn);
        }
        match conn.data {
            Transfer::Asked => {}
            Transfer::Sink { .. } => self.take(cx, conn),
            Transfer::Source { .. } => self.make(cx, conn),
            // More than was announced: nobody wants it.
            Transfer::Done => conn.consume(cx, usize::MAX),
        }
    }

    fn on_sent(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>, _: u32) {
        self.make(cx, conn);
    }

    /// A client that ends its direction too early still learns what came.
    fn on_eof(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        self.judge(cx, conn);
        conn.close(cx);
    }
}
