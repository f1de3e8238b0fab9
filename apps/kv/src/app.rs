//! The store as an IX application: from events to [`Conn`]s, and from their replies to `sendv`.
//!
//! Every core runs one [`Kv`]; all share the store. Replies are not copied into any buffer of
//! libix: at the end of a batch it asks for each connection's pieces, and they stay where they are
//! until they have been sent. Received bytes are given back as they are used; while too many
//! replies wait they are not, which closes the client's window.
use crate::conn::{Conn, on_datagram};
use crate::limits::{
    CONNECTIONS_DEFAULT, CONNECTIONS_TOLD, MEMORY_MIB_DEFAULT, PAGE_BYTES, WORKERS_MAX,
};
use crate::store::Store;
use crate::time::Clock;
use crate::worker::{Settings, Shared, Worker, count};
use libix::abi::layout::{self, InfoPage};
use libix::abi::limits::BACKLOG_MAX;
use libix::args::ArgError;
use libix::outbox::SgList;
use libix::{
    App, Args, Cx, Datagram, DeadReason, IpAddress, Knock, NoBuf, Op, Outcome, SocketAddress,
};
use libix::{Status, logln};

/// A connection, as libix shows it.
type IxConn = libix::Conn<Kv>;

/// The port of memcached.
pub const PORT: u16 = 11211;

/// How to start it.
pub const USAGE: &str = "usage: kv [-p PORT] [-U UDP_PORT] [-m MEGABYTES] [-c CONNECTIONS]";

/// What the operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// TCP port.
    pub port: u16,
    /// UDP port; 0 = none.
    pub udp_port: u16,
    /// Memory for items, in MiB.
    pub memory_mib: usize,
    /// Connections at most.
    pub max_conns: u32,
}

impl Options {
    /// Understands [`USAGE`]. Without `-m`, at most half of what the machine has for us is taken.
    pub fn parse(mut args: Args<'_>, info: &InfoPage) -> Result<Options, ArgError> {
        let half = (info.heap_max_bytes >> 21) as usize;
        let options = Options {
            port: args.option("-p")?.unwrap_or(PORT),
            udp_port: args.option("-U")?.unwrap_or(0),
            memory_mib: args.option("-m")?.unwrap_or(MEMORY_MIB_DEFAULT.min(half)),
            max_conns: args.option("-c")?.unwrap_or(CONNECTIONS_DEFAULT),
        };
        args.finish()?;
        Ok(options)
    }

    fn memory_bytes(&self) -> usize {
        self.memory_mib.max(1).saturating_mul(PAGE_BYTES).saturating_add(64)
    }

    /// Pages of user memory that hold the items.
    pub fn memory_pages(&self) -> usize {
        self.memory_bytes().div_ceil(layout::PAGE_BYTES as usize)
    }

    /// What all cores share. `boot_unix` is 0 where the machine has no clock.
    pub fn share(&self, memory: &'static mut [u8], info: &InfoPage, boot_unix: i64) -> Shared {
        let bytes = self.memory_bytes().min(memory.len());
        let store = Store::new(&mut memory[..bytes], info.seed);
        let settings = Settings {
            port: self.port,
            udp_port: self.udp_port,
            max_conns: self.max_conns,
            threads: info.cores,
            clock: Clock::new(boot_unix),
        };
        Shared::new(store, settings)
    }
}

/// The application on one core.
#[derive(Debug)]
pub struct Kv {
    worker: Worker<'static>,
}

impl Kv {
    /// The application of core `index`.
    pub fn new(shared: &'static Shared, index: usize) -> Kv {
        Kv { worker: Worker::new(shared, index % WORKERS_MAX) }
    }

    /// Answers what has been received, as far as there is room for replies.
    fn drive(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        let worker = &mut self.worker;
        conn.read(cx, |conn, bytes| conn.on_data(worker, bytes));
        self.after(cx, conn);
    }

    fn after(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        if conn.data.is_closing() || (conn.is_eof() && !conn.data.is_stalled()) {
            conn.close(cx);
        }
    }
}

impl App for Kv {
    type Conn = Conn;
    type Buf = NoBuf;
    const PULLS: bool = true;

    fn on_start(&mut self, cx: &mut Cx<Self>) {
        if cx.index() == 0 {
            let Settings { port, udp_port, .. } = self.worker.shared.settings;
            let at = |port| SocketAddress { ip: IpAddress::UNSPECIFIED, port, scope: 0 };
            // Serves when both ports are open: UDP first, then TCP, whose result says so.
            if udp_port != 0 {
                cx.udp_bind(at(udp_port), 0, 0);
            }
            cx.listen(at(port), BACKLOG_MAX, 0);
        }
    }

    fn on_result(&mut self, cx: &mut Cx<Self>, outcome: &Outcome) {
        let Settings { port, udp_port, .. } = self.worker.shared.settings;
        match (outcome.op, outcome.status) {
            (Op::Listen, Status::Ok) => {
                let mib = self.worker.store().limit() >> 20;
                logln!("port {port}, {mib} MiB for items");
                cx.ready();
            }
            (op, Status::Ok) => log::debug!("{op:?}"),
            (Op::UdpBind, status) => {
                log::error!("UDP port {udp_port}: {status}");
                libix::exit(1);
            }
            (op, status) => {
                log::error!("{op:?} on port {port}: {status}");
                libix::exit(1);
            }
        }
    }

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<Conn> {
        let worker = &mut self.worker;
        let limit = u64::from(worker.shared.settings.max_conns);
        match worker.shared.connections() {
            open if open < limit => Some(Conn::new(worker)),
            open if open < limit + CONNECTIONS_TOLD => Some(Conn::new_refused(worker)),
            _ => {
                count(&worker.counters.rejected, 1);
                None
            }
        }
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        self.worker.set_time(cx.now_ns());
        self.drive(cx, conn);
    }

    fn on_sent(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn, bytes: u32) {
        let worker = &mut self.worker;
        conn.data.out.sent(worker.store(), &mut worker.pool, bytes as usize);
        if conn.data.is_stalled() && !conn.data.out.is_full() {
            worker.set_time(cx.now_ns());
            // What is left of a line may have been received long ago.
            conn.data.on_data(worker, &[]);
            self.drive(cx, conn);
        }
    }

    fn on_eof(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        self.after(cx, conn);
    }

    fn on_dead(&mut self, _: &mut Cx<Self>, conn: &mut IxConn, _: DeadReason) {
        conn.data.close(&mut self.worker);
    }

    fn on_udp(&mut self, cx: &mut Cx<Self>, datagram: Datagram) {
        let worker = &mut self.worker;
        worker.set_time(cx.now_ns());
        let (socket, remote) = (datagram.socket(), datagram.remote());
        on_datagram(worker, datagram.bytes(), &mut |answer| cx.udp_write(socket, remote, answer));
        cx.udp_done(datagram);
    }

    fn pull(&mut self, conn: &mut Conn, sg: &mut SgList) {
        let worker = &self.worker;
        let peeked = conn.out.peek(worker.store(), sg.room(), |piece| {
            sg.push(piece);
        });
        conn.out.take(peeked.bytes);
        count(&worker.counters.bytes_written, peeked.bytes as u64);
    }

    fn refused(&mut self, conn: &mut Conn, bytes: u64) {
        conn.out.untake(bytes as usize);
        let written = &self.worker.counters.bytes_written;
        count(written, bytes.wrapping_neg());
    }
}
