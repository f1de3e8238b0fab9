//! Servers and clients on one core, as libix calls them.
use crate::client::Client;
use crate::options::Options;
use crate::tally::{Counts, Sum, Tally};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kv::limits::WORKERS_MAX;
use kv::worker::{self, Worker, count};
use libix::abi::layout::InfoPage;
use libix::abi::limits::BACKLOG_MAX;
use libix::conns::{Conns, Sweep};
use libix::outbox::SgList;
use libix::{
    App, Cx, DeadReason, Handle, IpAddress, Knock, NoBuf, Op, Outcome, SocketAddress, SpinLock,
    Status, logln,
};

type IxConn = libix::Conn<KvCheck>;

/// Microseconds between two looks at who wants to connect, and at what there is to tell.
const TICK_US: u64 = 10_000;
/// Clients that a core connects in one go.
const CONNECTS_MAX: usize = 64;
/// Lines about how it goes are no closer than this.
const TELL_NS: u64 = 1_000_000_000;
/// A client that waits for longer has found an error. Long: what is lost is sent again, by TCP's own times.
const ANSWER_MAX_NS: u64 = 30_000_000_000;
/// A core refuses connections until it has heard that the port is open, which core 0 tells it: no error for so long.
const HEARD_NS: u64 = 5_000_000_000;
/// Connections that are looked at for that in a tick.
const SWEPT: usize = 64;

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    options: Options,
    kv: worker::Shared,
    tally: Tally,
    /// Since when kv listens, in nanoseconds since boot; 0: it does not yet.
    serves_ns: AtomicU64,
    /// Clients without a connection.
    homeless: SpinLock<Vec<Client>>,
    to: SocketAddress,
}

impl Shared {
    /// For a program that was started so, with the store as [`Options::store`] says.
    pub fn new(options: Options, kv: worker::Shared, info: &InfoPage) -> Shared {
        let Options { connections, seed, value, port, .. } = options;
        let clients = (0..connections).map(|id| {
            let mut client = Client::new(id, seed, value);
            client.left = options.share(id);
            client
        });
        Shared {
            options,
            kv,
            tally: Tally::default(),
            serves_ns: AtomicU64::new(0),
            homeless: SpinLock::new(clients.collect()),
            to: SocketAddress { ip: IpAddress(info.address), port, scope: 0 },
        }
    }
}

/// One end of a connection, both of which are this program's.
#[derive(Debug)]
pub enum Side {
    /// kv's.
    Server(Box<kv::conn::Conn>),
    /// A client's; `None`: it has gone on without this connection.
    Client(Option<Box<Client>>),
}

/// What core 0 has told.
#[derive(Debug, Default)]
struct Told {
    rounds: u64,
    at_ns: u64,
}

/// The application on one core.
#[derive(Debug)]
pub struct KvCheck {
    shared: &'static Shared,
    counts: &'static Counts,
    worker: Worker<'static>,
    sweep: Sweep,
    told: Told,
    began_ns: u64,
    cores: usize,
}

impl KvCheck {
    /// The application of core `index`.
    pub fn new(shared: &'static Shared, index: usize) -> KvCheck {
        let worker = Worker::new(&shared.kv, index % WORKERS_MAX);
        let counts = shared.tally.of(index);
        let (sweep, told) = (Sweep::default(), Told::default());
        KvCheck { shared, counts, worker, sweep, told, began_ns: 0, cores: 0 }
    }

    /// kv answers what has been received, as far as there is room for replies.
    fn serve(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        let worker = &mut self.worker;
        conn.read(cx, |side, bytes| match side {
            Side::Server(conn) => conn.on_data(worker, bytes),
            Side::Client(_) => 0,
        });
        self.after(cx, conn);
    }

    fn after(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        let Side::Server(server) = &conn.data else { return };
        if server.is_closing() || (conn.is_eof() && !server.is_stalled()) {
            conn.close(cx);
        }
    }

    /// A client compares what has come.
    fn verify(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        let mut wrong = None;
        conn.read(cx, |side, bytes| {
            if let (Side::Client(Some(client)), None) = (side, wrong) {
                wrong = client.receive(bytes).err();
            }
            bytes.len()
        });
        match wrong {
            Some(wrong) => {
                self.counts.error(format_args!("{wrong}"));
                self.leave(conn);
                conn.abort(cx);
            }
            None => self.go_on(cx, conn),
        }
    }

    /// The next request, once the last one is answered and none of its bytes is on its way; or the end of the round.
    fn go_on(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        let idle = conn.in_flight() == 0;
        let Side::Client(Some(client)) = &mut conn.data else { return };
        if !client.is_answered() || !idle {
            return;
        }
        count(&self.counts.requests, 1);
        count(&self.counts.bytes, client.bytes());
        client.left -= 1;
        let options = &self.shared.options;
        if client.left == 0 && options.stay && client.rounds + 1 != options.rounds {
            client.rounds += 1;
            client.left = options.share(client.id());
        }
        if client.left > 0 {
            client.since_ns = cx.now_ns();
            client.ask();
            return conn.wake(cx);
        }
        // Nothing is asked any more: the connection's end, in order, is the last that it verifies.
        client.disconnected();
        conn.close(cx);
    }

    /// The client of a connection goes on without it.
    fn leave(&mut self, conn: &mut IxConn) {
        let Side::Client(client) = &mut conn.data else { return };
        if let Some(mut client) = client.take() {
            client.disconnected();
            self.shared.homeless.lock().push(*client);
        }
    }

    /// The end of a client's connection, after the last request of a round.
    fn round_over(&mut self, mut client: Box<Client>) {
        let options = &self.shared.options;
        client.rounds += 1;
        if client.rounds == options.rounds {
            count(&self.counts.finished, 1);
            return;
        }
        client.left = options.share(client.id());
        self.shared.homeless.lock().push(*client);
    }

    /// Clients without a connection get one, here.
    fn connect_some(&mut self, cx: &mut Cx<Self>) {
        let cores = cx.info().cores.max(1) as usize;
        let most = (self.shared.options.connections as usize).div_ceil(cores).min(CONNECTS_MAX);
        for _ in 0..most {
            let Some(mut client) = self.shared.homeless.lock().pop() else { return };
            if client.left == 0 {
                // More clients than requests.
                self.round_over(Box::new(client));
                continue;
            }
            client.since_ns = cx.now_ns();
            cx.connect(self.shared.to, Side::Client(Some(Box::new(client))));
        }
    }

    /// Looks at some clients that may wait for too long.
    fn look_for_silent(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>) {
        let now = cx.now_ns();
        let (counts, homeless) = (self.counts, &self.shared.homeless);
        conns.sweep(&mut self.sweep, SWEPT, |conn| {
            let Side::Client(place) = &mut conn.data else { return };
            if place.as_ref().is_some_and(|c| now.saturating_sub(c.since_ns) > ANSWER_MAX_NS)
                && let Some(mut client) = place.take()
            {
                counts.error(format_args!("client {}: no answer for 30 s", client.id()));
                client.disconnected();
                homeless.lock().push(*client);
                conn.abort(cx);
            }
        });
    }

    /// Core 0: a line for each round, one a second at most; the last one, and the end.
    fn tell(&mut self, now_ns: u64) {
        let Options { connections, requests, rounds, .. } = self.shared.options;
        let sum = self.shared.tally.sum();
        if sum.finished == u64::from(connections) {
            self.end(sum, now_ns);
        }
        let over = sum.requests / requests;
        if over > self.told.rounds && now_ns.saturating_sub(self.told.at_ns) >= TELL_NS {
            self.told = Told { rounds: over, at_ns: now_ns };
            if rounds != 1 {
                logln!("round {over}: {connections} connections, {sum}");
                self.tell_resets();
            }
        }
    }

    /// Where ends of connections were reset, if that is to be told.
    fn tell_resets(&self) {
        if self.shared.options.resets {
            let Sum { resets, lost, .. } = self.shared.tally.sum();
            let (cores, tally) = (self.cores, &self.shared.tally);
            let on: Vec<u64> =
                (0..cores).map(|core| tally.of(core).resets.load(Ordering::Relaxed)).collect();
            logln!(
                "{lost} clients lost their connection, {resets} ends were reset, on cores {on:?}"
            );
        }
    }

    fn end(&self, sum: Sum, now_ns: u64) -> ! {
        let Options { connections, requests, rounds, .. } = self.shared.options;
        let ms = now_ns.saturating_sub(self.began_ns) / 1_000_000;
        logln!("{connections} connections, {sum}, {ms} ms");
        let complete = sum.requests == requests.saturating_mul(rounds);
        if !complete {
            log::error!("{} requests were to be made", requests.saturating_mul(rounds));
        }
        libix::exit(u64::from(sum.errors > 0 || !complete))
    }
}

impl App for KvCheck {
    type Conn = Side;
    type Buf = NoBuf;
    const PULLS: bool = true;

    fn on_start(&mut self, cx: &mut Cx<Self>) {
        self.cores = cx.info().cores as usize;
        if cx.index() == 0 {
            if self.shared.to.ip == IpAddress::UNSPECIFIED {
                log::error!("there is no address yet to connect to: ip=ADDRESS/LEN is wanted");
                libix::exit(2);
            }
            let port = self.shared.options.port;
            let at = SocketAddress { ip: IpAddress::UNSPECIFIED, port, scope: 0 };
            cx.listen(at, BACKLOG_MAX, 0);
        }
        cx.timer_set(0, TICK_US, 0);
    }

    fn on_result(&mut self, cx: &mut Cx<Self>, outcome: &Outcome) {
        match (outcome.op, outcome.status) {
            (Op::Listen, Status::Ok) => {
                self.began_ns = cx.now_ns();
                self.shared.serves_ns.store(cx.now_ns().max(1), Ordering::Release);
                cx.ready();
            }
            (_, Status::Ok) => {}
            (op, status) => {
                log::error!("{op:?}: {status}");
                libix::exit(2);
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>, _: Handle, _: u64) {
        self.worker.set_time(cx.now_ns());
        if self.shared.serves_ns.load(Ordering::Acquire) != 0 {
            self.connect_some(cx);
            self.look_for_silent(cx, conns);
        }
        if cx.index() == 0 {
            self.tell(cx.now_ns());
            self.worker.store().maintain(self.worker.now);
        }
        cx.timer_set(0, TICK_US, 0);
    }

    fn on_knock(&mut self, cx: &mut Cx<Self>, knock: &Knock) -> Option<Side> {
        self.worker.set_time(cx.now_ns());
        Some(Side::Server(Box::new(kv::conn::Conn::of(&self.worker, knock.remote))))
    }

    fn on_connected(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        count(&self.counts.connects, 1);
        if let Side::Client(Some(client)) = &mut conn.data {
            client.since_ns = cx.now_ns();
            client.ask();
            conn.wake(cx);
        }
    }

    fn on_connect_failed(&mut self, cx: &mut Cx<Self>, data: Side, status: Status) {
        let Side::Client(Some(client)) = data else { return };
        let since = cx.now_ns().saturating_sub(self.shared.serves_ns.load(Ordering::Relaxed));
        match status {
            // Not here and now: this core has no flow groups, or no free port in them.
            Status::Limit | Status::Moved | Status::Again => {}
            Status::Refused if since < HEARD_NS => {}
            Status::Invalid => {
                log::error!(
                    "nobody brings back what is sent to the own address: nic=loopback is wanted"
                );
                libix::exit(2);
            }
            Status::Refused if self.shared.options.resets => count(&self.counts.lost, 1),
            _ => self.counts.error(format_args!("client {}: {status}", client.id())),
        }
        self.shared.homeless.lock().push(*client);
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        if let Side::Server(server) = &conn.data {
            self.worker.set_time(cx.now_ns());
            server.note(self.worker.now);
            self.serve(cx, conn);
        } else {
            self.verify(cx, conn);
        }
    }

    fn on_sent(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn, bytes: u32) {
        let worker = &mut self.worker;
        let Side::Server(server) = &mut conn.data else { return self.go_on(cx, conn) };
        server.out.sent(worker.store(), &mut worker.pool, bytes as usize);
        if server.is_stalled() && !server.out.is_full() {
            worker.set_time(cx.now_ns());
            // What is left of a line may have been received long ago.
            server.on_data(worker, &[]);
            self.serve(cx, conn);
        }
    }

    fn on_eof(&mut self, cx: &mut Cx<Self>, conn: &mut IxConn) {
        match &conn.data {
            Side::Server(_) => self.after(cx, conn),
            // The server has nothing to end: what this is, the connection's death says.
            Side::Client(_) => conn.close(cx),
        }
    }

    fn on_dead(&mut self, _: &mut Cx<Self>, conn: &mut IxConn, reason: DeadReason) {
        let may_be = self.shared.options.resets && reason == DeadReason::Reset;
        if may_be {
            count(&self.counts.resets, 1);
        }
        match &mut conn.data {
            Side::Server(server) => server.close(&mut self.worker),
            Side::Client(client) => {
                let Some(mut client) = client.take() else { return };
                if client.left == 0 && reason == DeadReason::Closed {
                    return self.round_over(client);
                }
                let left = client.left;
                let id = client.id();
                if may_be {
                    count(&self.counts.lost, 1);
                } else {
                    self.counts.error(format_args!("client {id}: {reason}, {left} requests left"));
                }
                client.disconnected();
                if client.left == 0 {
                    return self.round_over(client);
                }
                self.shared.homeless.lock().push(*client);
            }
        }
    }

    fn pull(&mut self, side: &mut Side, sg: &mut SgList) {
        match side {
            Side::Server(conn) => {
                let worker = &self.worker;
                let peeked = conn.out.peek(worker.store(), sg.room(), |piece| {
                    sg.push(piece);
                });
                conn.out.take(peeked.bytes);
                count(&worker.counters.bytes_written, peeked.bytes as u64);
            }
            Side::Client(Some(client)) => {
                let bytes = client.to_send();
                if !bytes.is_empty() {
                    let taken = sg.push(bytes);
                    client.took(taken);
                }
            }
            Side::Client(None) => {}
        }
    }

    fn refused(&mut self, side: &mut Side, bytes: u64) {
        match side {
            Side::Server(conn) => {
                conn.out.untake(bytes as usize);
                count(&self.worker.counters.bytes_written, bytes.wrapping_neg());
            }
            Side::Client(Some(client)) => client.untook(bytes as usize),
            Side::Client(None) => {}
        }
    }
}
