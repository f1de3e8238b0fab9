//! Application deaths and restarts by the hundred under client load: nothing leaks, nothing reboots, and
//! pings are answered all the while.
use crate::bytes;
use hostile::{ECHO_PORT, ORDER_PORT};
use ix_abi::control::{State, header};
use ix_tests::need::{self, Built};
use ix_tests::peer::faults::Faults;
use ix_tests::peer::pinger::Pinger;
use ix_tests::peer::{Conn, GUEST_IP, Host, Listener, Udp};
use ix_tests::vm::{Config, Vm};
use ixcp::page::Page;
use smoltcp::socket::tcp;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// By this machine's clock, which others may be using: a bound for what hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const CLIENTS: usize = 8;
const PING_PACE: Duration = Duration::from_millis(5);
/// The most that the issue allows.
const OUTAGE_MAX: Duration = Duration::from_millis(100);
/// How applications die; `None`: `ixcp restart-app` ends one that is well.
const DEATHS: [Option<&str>; 5] =
    [Some("write-null"), Some("ring-back"), None, Some("ud2"), Some("jump-kernel")];

/// A client that sends and expects its bytes back, for ever, over connection after connection.
struct Client {
    conn: Conn,
    seed: u64,
    sent: usize,
    received: usize,
    data: Vec<u8>,
}

impl Client {
    fn new(host: &mut Host, seed: u64) -> Client {
        let conn = host.start_connect(GUEST_IP, ECHO_PORT);
        Client { conn, seed, sent: 0, received: 0, data: bytes(seed, 3000) }
    }

    /// Whether a round trip was completed.
    fn poll(&mut self, host: &mut Host) -> bool {
        match host.state(self.conn) {
            tcp::State::Established => {}
            tcp::State::SynSent => return false,
            _ => {
                host.forget(self.conn);
                *self = Client::new(host, self.seed + 1);
                return false;
            }
        }
        if self.sent < self.data.len()
            && let Ok(n) = host.try_send(self.conn, &self.data[self.sent..])
        {
            self.sent += n;
        }
        let mut got = [0; 3000];
        if let Ok(Some(n)) = host.try_recv(self.conn, &mut got) {
            assert!(got[..n] == self.data[self.received..self.received + n], "bytes of another");
            self.received += n;
        }
        let done = self.received == self.data.len();
        if done {
            (self.sent, self.received) = (0, 0);
        }
        done
    }
}

/// What must be at the end as it was at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    memory_free: u64,
    heap_used: u64,
    buffers_free: u64,
    connections: u64,
    listeners: u64,
    udp_ports: u64,
    timers: u64,
}

struct Field {
    built: Built,
    vm: Vm,
    host: Host,
    page: Page,
    order: Udp,
    pinger: Pinger,
    clients: Vec<Client>,
    round_trips: u64,
}

impl Field {
    fn boot(counted: bool) -> Option<Field> {
        if counted {
            need::countable()?;
        }
        let built = need::built()?;
        let listener = Listener::bind();
        // Counted, QEMU runs cores in turn, each for up to 100 ms of guest time: one is exact.
        let cores = if counted { 1 } else { 2 };
        let config = Config::new(&built, "hostile").cores(cores).stream(listener.path());
        // With instructions counted, guest time is what the guest did, however busy this machine is; and
        // it must not halt, since halts would take no time.
        let config = if counted { config.counted().with("--idle", "poll") } else { config };
        let vm = config.with("--append", "heap=64").boot();
        let mut host = Host::new(listener.accept(), Faults::NONE);
        let page = vm.page();
        let order = host.udp(6000);
        let pinger = Pinger::new(&mut host, GUEST_IP, PING_PACE);
        let mut field =
            Field { built, vm, host, page, order, pinger, clients: Vec::new(), round_trips: 0 };
        field.warm();
        Some(field)
    }

    /// Every flow group and table has been used once: what grows has grown.
    fn warm(&mut self) {
        for _ in 0..20 {
            let host = &mut self.host;
            let mut start = || {
                host.skip_ports(4972);
                host.start_connect(GUEST_IP, ECHO_PORT)
            };
            let conns: Vec<Conn> = (0..100).map(|_| start()).collect();
            for &conn in &conns {
                host.established(conn, PATIENCE).unwrap();
                assert!(host.exchange(conn, b"warm", PATIENCE).unwrap() == b"warm");
            }
            for conn in conns {
                host.abort(conn);
                host.forget(conn);
            }
        }
        for port in 5000..5016 {
            let socket = self.host.udp(port);
            self.host.udp_send(socket, GUEST_IP, ECHO_PORT, b"warm").unwrap();
            self.host.udp_recv(socket, PATIENCE).unwrap();
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.page.load(at)
    }

    fn serves(&self, starts: u64) -> bool {
        self.word(header::APP_STARTS) == starts && self.word(header::READY_NS) != 0
    }

    fn poll(&mut self) {
        self.host.poll();
        let guest = Duration::from_nanos(self.word(header::NOW_NS));
        self.pinger.poll(&mut self.host, guest);
        for client in &mut self.clients {
            self.round_trips += u64::from(client.poll(&mut self.host));
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Field) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            self.poll();
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            assert!(self.pinger.waiting() < PATIENCE / 2, "{what}: pings unanswered");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// `ixcp restart-app`, beside everything else.
    fn restart(&self) -> JoinHandle<bool> {
        let mut command = Command::new(&self.built.ixcp);
        let base = self.vm.dir().parent().expect("within the base").to_owned();
        command.env("IX_RUNTIME_DIR", base).arg("restart-app");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        std::thread::spawn(move || command.status().is_ok_and(|s| s.success()))
    }

    /// One death, and the restart.
    fn death(&mut self, how: Option<&str>, starts: u64) {
        // It has clients, and serves them.
        let before = self.round_trips;
        self.until("service", |f| f.round_trips >= before + 4);
        if let Some(name) = how {
            let mut given: Option<Instant> = None;
            self.until("the end", |f| {
                if given.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                    given = Some(Instant::now());
                    f.host.udp_send(f.order, GUEST_IP, ORDER_PORT, name.as_bytes()).unwrap();
                }
                f.word(header::STATE) == u64::from(State::AppEnded.0)
            });
        }
        let mut restart = Some(self.restart());
        self.until("the restart", |f| {
            let finished = restart.as_ref().is_some_and(JoinHandle::is_finished);
            if finished && let Some(handle) = restart.take() {
                assert!(handle.join().expect("no panic"), "ixcp restart-app failed");
            }
            restart.is_none() && f.serves(starts + 1)
        });
    }

    /// Without clients, after a decent end.
    fn figures(&mut self) -> Figures {
        for client in core::mem::take(&mut self.clients) {
            self.host.abort(client.conn);
            self.host.forget(client.conn);
        }
        let starts = self.word(header::APP_STARTS);
        let restart = self.restart();
        self.until("the restart", |f| f.serves(starts + 1));
        assert!(restart.join().expect("no panic"), "ixcp restart-app failed");
        // A ping that is being answered has a buffer: without any.
        self.host.run(Duration::from_millis(200));
        let total = ixcp::snapshot::read(&self.page).expect("a readable control page").total;
        let count = |name: &str| total.counters.get(name);
        Figures {
            memory_free: self.word(header::MEMORY_FREE),
            heap_used: self.word(header::HEAP_USED),
            buffers_free: count("buffers_free"),
            connections: count("tcp_connections"),
            listeners: count("tcp_listeners"),
            udp_ports: count("udp_ports"),
            timers: count("app_timers"),
        }
    }
}

/// So many deaths under load; the outages of pings, sorted, by this machine's clock and by the guest's.
fn deaths(count: u64, counted: bool) -> Option<(Vec<Duration>, Vec<Duration>)> {
    let mut field = Field::boot(counted)?;
    let epoch = field.word(header::EPOCH);
    field.figures();
    let clean = field.figures();
    field.clients = (0..CLIENTS as u64).map(|i| Client::new(&mut field.host, i << 32)).collect();
    field.pinger = Pinger::new(&mut field.host, GUEST_IP, PING_PACE);
    let began = Instant::now();
    let first = field.word(header::APP_STARTS);
    for death in 0..count {
        let how = DEATHS[death as usize % DEATHS.len()];
        field.death(how, first + death);
    }
    let took = began.elapsed();
    let (trips, answered) = (field.round_trips, field.pinger.answered);
    let sorted = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        core::mem::take(times)
    };
    let times = sorted(&mut field.pinger.times);
    let guest_times = sorted(&mut field.pinger.guest_times);
    note(&format!(
        "{count} deaths and restarts in {:.1} s, {trips} round trips of {CLIENTS} clients, {answered} pings \
         answered; longest without an answer {:?} of guest time (99 %: {:?}), {:?} by this machine's clock",
        took.as_secs_f64(),
        guest_times[guest_times.len() - 1],
        guest_times[(guest_times.len() - 1) * 99 / 100],
        times[times.len() - 1],
    ));
    assert_eq!(field.word(header::EPOCH), epoch, "the machine was booted anew");
    let mut end = field.figures();
    if end.buffers_free.abs_diff(clean.buffers_free) <= field.vm.buffers_slack(2) {
        end.buffers_free = clean.buffers_free;
    }
    note(&format!("before {clean:?}\nafter  {end:?}"));
    assert_eq!(end, clean, "something leaks");
    Some((times, guest_times))
}

fn note(line: &str) {
    // Past the harness's capture: what was measured is to be seen in the log of a run.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}

#[test]
fn applications_die_and_are_restarted_under_load_without_a_leak() {
    let _machine = need::machine();
    let Some((times, _)) = deaths(if need::prove() { 1000 } else { 100 }, false) else { return };
    // By this machine's clock, which others may be using: a bound for what hangs.
    let longest = times[times.len() - 1];
    assert!(longest < Duration::from_secs(2), "pings were not answered for {longest:?}");
}

#[test]
fn no_ping_waits_for_100_ms_of_guest_time_while_applications_die() {
    let _machine = need::machine();
    let Some((_, times)) = deaths(if need::prove() { 1000 } else { 20 }, true) else { return };
    let longest = times[times.len() - 1];
    assert!(longest <= OUTAGE_MAX, "pings were not answered for {longest:?} of guest time");
}
