//! The store as an IX application: from events to [`Conn`]s, and from their replies to `sendv`.
//!
//! Every core runs one [`Kv`]; all share the store. Replies are not copied into any buffer of
//! libix: at the end of a batch it asks for each connection's pieces, and they stay where they are
//! until they have been sent. Received bytes are given back as they are used; while too many
//! replies wait they are not, which closes the client's window.
use crate::conn::{Conn, on_datagram};
use crate::limits::{
    CONNECTIONS_TOLD, IDLE_CONNS_PER_TICK, MAINTAIN_STEPS, TICK_BUSY_US, TICK_IDLE_US, WORKERS_MAX,
};
pub use crate::options::{Options, USAGE};
use crate::store::Tune;
use crate::worker::{Settings, Shared, Worker, count};
use libix::abi::limits::BACKLOG_MAX;
use libix::conns::{Conns, Sweep};
use libix::outbox::SgList;
use libix::{App, Cx, Datagram, DeadReason, Handle, IpAddress, Knock, NoBuf, Op, Outcome};
use libix::{SocketAddress, Status, logln};

/// A connection, as libix shows it.
type IxConn = libix::Conn<Kv>;

/// The port of memcached.
pub const PORT: u16 = 11211;

/// The timer of what is to be done beside requests.
const TICK: u64 = 1;

/// The application on one core.
#[derive(Debug)]
pub struct Kv {
    worker: Worker<'static>,
    /// How far the look for idle connections has come.
    sweep: Sweep,
}

impl Kv {
    /// The application of core `index`.
    pub fn new(shared: &'static Shared, index: usize) -> Kv {
        let worker = Worker::new(shared, index % WORKERS_MAX);
        Kv { worker, sweep: Sweep::default() }
    }

    /// Answers what has been received, as far as there is room for replies.
    fn drive(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        let worker = &mut self.worker;
        conn.read(cx, |conn, bytes| conn.on_data(worker, bytes));
        self.after(cx, conn);
    }

    /// Closes some of the connections that have been silent for too long. Those that wait for their
    /// answers are not silent.
    fn close_idle(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>) {
        let worker = &self.worker;
        let limit = worker.shared.settings.idle_timeout;
        conns.sweep(&mut self.sweep, IDLE_CONNS_PER_TICK, |conn| {
            let idle = conn.data.idle(worker.now).is_some_and(|seconds| seconds > limit);
            if idle && conn.data.out.waiting() + conn.data.out.in_flight() == 0 && !conn.is_ending()
            {
                count(&worker.counters.idle_kicks, 1);
                conn.close(cx);
            }
        });
    }

    /// What is to be done beside requests, unless a background thread does it. Whether there is more soon.
    fn maintain(&self, now_ns: u64) -> bool {
        let (worker, shared) = (&self.worker, self.worker.shared);
        shared.crawler.try_start(shared);
        !shared.crawler.is_at_work(now_ns)
            && (0..MAINTAIN_STEPS).all(|_| worker.store().maintain(worker.now))
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
            self.worker.shared.crawler.try_start(self.worker.shared);
        }
        if cx.index() == 0 || self.worker.shared.settings.idle_timeout != 0 {
            cx.timer_set(TICK, TICK_IDLE_US, 0);
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
            (Op::TimerSet, status) => log::error!("no timer, nothing expires early: {status}"),
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

    /// The crawler, a page in reserve, idle connections: a bounded piece of each.
    fn on_timer(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>, _: Handle, _: u64) {
        self.worker.set_time(cx.now_ns());
        let mut more = false;
        if cx.index() == 0 {
            more = self.maintain(cx.now_ns());
        }
        if self.worker.shared.settings.idle_timeout != 0 {
            self.close_idle(cx, conns);
        }
        let pause = &self.worker.store().tune.lru_crawler_sleep;
        let busy = TICK_BUSY_US.max(u64::from(Tune::get(pause)));
        cx.timer_set(TICK, if more { busy } else { TICK_IDLE_US }, 0);
    }

    fn on_knock(&mut self, cx: &mut Cx<Self>, knock: &Knock) -> Option<Conn> {
        let worker = &mut self.worker;
        let limit = u64::from(worker.shared.settings.max_conns);
        match worker.shared.connections() {
            open if open < limit => {
                worker.set_time(cx.now_ns());
                Some(Conn::of(worker, knock.remote))
            }
            open if open < limit + CONNECTIONS_TOLD => Some(Conn::new_refused(worker)),
            _ => {
                count(&worker.counters.rejected, 1);
                None
            }
        }
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        self.worker.set_time(cx.now_ns());
        conn.data.note(self.worker.now);
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
