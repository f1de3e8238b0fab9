//! Conversations: one station, and a peer whose segments the test writes by hand.
use super::app::{App, Context};
use super::family::{self, BELOW, V6, below, pseudo, transport};
use super::net::describe;
use super::station::{Setup, Station};
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress, Status};
use ix_dataplane::checksum;
use ix_dataplane::time::{Duration, Instant};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

/// A segment that the station sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: u16,
    pub to: u16,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// Second byte of the IP header.
    pub tos: u8,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// How what comes is answered at once: by one call that returns it, unless there is a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It is sent back.
    Whole,
    /// Its last byte is.
    Last,
    /// As many bytes of other memory.
    Heap,
    /// Bytes that are not the application's: the call fails. A second returns what came.
    Foreign,
    /// It is sent back, and returned by a second call.
    Twice,
    /// One byte more than came, from its second on: the only call fails.
    Beyond,
}

impl Echo {
    fn calls(self, handle: Handle, addr: u64, len: u64) -> Vec<Call> {
        let send = |addr, len| Call::sendv(handle, 1, SgEntry { addr, len }, SgEntry::default());
        match self {
            Echo::Whole => vec![send(addr, len).with_recv_done(len)],
            Echo::Last => vec![send(addr + len - 1, 1).with_recv_done(len)],
            Echo::Heap => vec![send(HEAP_BASE, len).with_recv_done(len)],
            Echo::Foreign => {
                vec![send(addr + 1, len).with_recv_done(len), Call::recv_done(handle, len)]
            }
            Echo::Beyond => vec![send(addr + 1, len).with_recv_done(len)],
            Echo::Twice => vec![send(addr, len), Call::recv_done(handle, len)],
        }
    }
}

/// Leaves what the test gave it in the ring, keeps what it is told.
#[derive(Default)]
pub struct Script {
    pub calls: Vec<Call>,
    pub events: Vec<Condition>,
    /// Events are left unread.
    pub asleep: bool,
    /// What comes is answered at once, in the iteration in which it came.
    pub echo: Option<Echo>,
    started: bool,
}

/// Datagrams to this port only wake the application, so that it leaves its calls.
pub const WAKE: u16 = 9;
const WAKE_COOKIE: Cookie = Cookie(0xfeed);

impl App for Script {
    fn run(&mut self, context: &mut Context) {
        if !self.started {
            self.started = true;
            let at = SocketAddress { port: WAKE, ..SocketAddress::default() };
            context.call(Call::udp_bind(at, WAKE_COOKIE));
        }
        let events = if self.asleep { Vec::new() } else { context.events() };
        for event in events {
            match event {
                Condition::UdpRecv { handle, cookie: WAKE_COOKIE, addr, .. } => {
                    context.call(Call::udp_recv_done(handle, addr));
                }
                Condition::Recv { handle, addr, len, .. } if let Some(echo) = self.echo => {
                    for call in echo.calls(handle, addr, len.into()) {
                        context.call(call);
                    }
                    self.events.push(event);
                }
                event => self.events.push(event),
            }
        }
        for call in self.calls.drain(..) {
            context.call(call);
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// A port at every address.
pub const fn any(port: u16) -> SocketAddress {
    SocketAddress { ip: ix_abi::IpAddress::UNSPECIFIED, port, scope: 0 }
}

/// Of the peer and the station.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]];

pub struct Talk {
    pub station: Station,
    pub now: Instant,
    pub ip: [u8; 4],
    pub port: u16,
    pub local_port: u16,
    /// Other frames than TCP that the station sent.
    pub others: Vec<Vec<u8>>,
    /// The peer does not say where it is.
    pub deaf: bool,
    sent: Vec<Segment>,
}

impl Talk {
    pub fn new(change: impl Fn(&mut Setup)) -> Talk {
        let mut setup = Setup::new(1);
        change(&mut setup);
        let mut station = Station::new(setup);
        let scripts = |_| Box::new(Script::default()) as Box<dyn App>;
        station.start((0..station.setup.cores).map(scripts).collect());
        let (ip, now) = ([10, 0, 0, 2], Instant(1_000_000));
        let (others, sent) = (Vec::new(), Vec::new());
        let mut talk =
            Talk { station, now, ip, port: 4000, local_port: 7, others, deaf: false, sent };
        talk.step();
        if V6 {
            // Until nobody has claimed our address.
            while talk.station.engines.iter().any(|e| e.ipv6().addresses().count() < 2) {
                talk.pass(Duration::from_ms(100));
            }
            talk.others.clear();
        }
        talk
    }

    /// The peer, as the application sees it.
    pub fn remote(&self) -> SocketAddress {
        self.host(self.port)
    }

    /// Another port of it.
    pub fn host(&self, port: u16) -> SocketAddress {
        SocketAddress { ip: family::ip(self.ip), port, scope: 0 }
    }

    pub fn script(&mut self) -> &mut Script {
        self.station.app(0)
    }

    /// Runs until nothing is to be done, at the present time.
    pub fn step(&mut self) {
        for _ in 0..50 {
            let work = self.station.step(self.now);
            let frames: Vec<_> =
                self.station.machines.iter_mut().flat_map(|m| m.tx.outbox.drain(..)).collect();
            let quiet = !work.busy && frames.is_empty();
            for frame in frames {
                self.take(frame);
            }
            if quiet {
                return;
            }
            self.now = self.now + Duration(1000);
        }
    }

    fn take(&mut self, f: Vec<u8>) {
        if self.deaf && transport(&f).is_none() {
            return;
        }
        if f[12..14] == [8, 6] && f[20..22] == [0, 1] && f[38..42] == self.ip {
            let mut answer = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
            answer.extend([2, 0, 0, 0, 0, 2]);
            answer.extend(self.ip);
            answer.extend([2, 0, 0, 0, 0, 1]);
            answer.extend(self.station.setup.address);
            return self.give(answer);
        }
        if V6 && !self.deaf && family::solicits(&f, self.ip) {
            let mut icmp = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
            icmp.extend(family::v6(self.ip));
            icmp.extend([2, 1, 2, 0, 0, 0, 0, 2]);
            let frame = self.icmp_v6(255, &icmp);
            return self.give(frame);
        }
        let Some((6, total)) = transport(&f) else { return self.others.push(f) };
        let word = |at: usize| u32::from_be_bytes(f[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes(f[at..at + 2].try_into().unwrap());
        let header = usize::from(f[BELOW + 12] >> 4) * 4;
        let pseudo = family::pseudo_of(&f, 6, total - BELOW);
        let sum = checksum::add(pseudo, checksum::sum(&f[BELOW..total]));
        assert!(checksum::is_good(sum), "checksum of {}", describe(&f));
        self.sent.push(Segment {
            from: half(BELOW),
            to: half(BELOW + 2),
            seq: word(BELOW + 4),
            ack: word(BELOW + 8),
            flags: f[BELOW + 13],
            window: half(BELOW + 14),
            tos: family::tos(&f),
            options: f[BELOW + 20..BELOW + header].to_vec(),
            payload: f[BELOW + header..total].to_vec(),
        });
    }

    /// A frame from the wire.
    pub fn give(&mut self, frame: Vec<u8>) {
        self.station.machines[0].rx[0].inbox.push_back(frame);
    }

    /// A segment from the peer; the station then runs.
    pub fn send(&mut self, flags: u8, seq: u32, ack: u32, window: u16, payload: &[u8]) {
        let frame = self.frame(flags, seq, ack, window, &[], payload);
        self.give(frame);
        self.step();
    }

    /// The same with options.
    pub fn send_options(
        &mut self,
        flags: u8,
        (seq, ack): (u32, u32),
        window: u16,
        options: &[u8],
        payload: &[u8],
    ) {
        let frame = self.frame(flags, seq, ack, window, options, payload);
        self.give(frame);
        self.step();
    }

    pub fn frame(
        &self,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        assert!(options.len().is_multiple_of(4));
        let len = 20 + options.len() + payload.len();
        let (us, them) = (self.ip, self.station.setup.address);
        let mut f = below(MACS, us, them, 6, len);
        f.extend(self.port.to_be_bytes());
        f.extend(self.local_port.to_be_bytes());
        f.extend(seq.to_be_bytes());
        f.extend(ack.to_be_bytes());
        f.extend([((20 + options.len()) as u8 / 4) << 4, flags]);
        f.extend(window.to_be_bytes());
        f.extend([0, 0, 0, 0]);
        f.extend(options);
        f.extend(payload);
        let pseudo = pseudo(us, them, 6, len);
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[BELOW..])));
        f[BELOW + 16..BELOW + 18].copy_from_slice(&sum);
        f
    }

    /// A UDP datagram from the peer to `port`; the station then runs.
    pub fn send_udp(&mut self, port: u16, payload: &[u8]) {
        let (us, them) = (self.ip, self.station.setup.address);
        let mut f = below(MACS, us, them, 17, 8 + payload.len());
        f.extend(self.port.to_be_bytes());
        f.extend(port.to_be_bytes());
        f.extend((8 + payload.len() as u16).to_be_bytes());
        f.extend([0, 0]);
        f.extend(payload);
        if V6 {
            let pseudo = pseudo(us, them, 17, 8 + payload.len());
            let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[BELOW..])));
            f[BELOW + 6..BELOW + 8].copy_from_slice(&sum);
        }
        self.give(f);
        self.step();
    }

    /// An ICMPv6 message from the peer, checksum to be filled in.
    pub fn icmp_v6(&self, hops: u8, icmp: &[u8]) -> Vec<u8> {
        let (us, them) = (family::v6(self.ip), family::v6(self.station.setup.address));
        super::wire6::icmp(MACS, (&us, &them), hops, icmp)
    }

    /// What the station has sent since the last look.
    pub fn sent(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.sent)
    }

    /// The only segment that the station has sent since the last look.
    #[track_caller]
    pub fn one(&mut self) -> Segment {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.remove(0)
    }

    #[track_caller]
    pub fn nothing(&mut self) {
        let sent = self.sent();
        assert!(sent.is_empty(), "{sent:#?}");
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let work = self.station.step(self.now);
            self.now = if work.busy { self.now + Duration(1000) } else { work.deadline.min(end) };
            self.step();
        }
    }

    /// Makes calls; they run when the application is next entered, which a timer sees to.
    pub fn call(&mut self, call: Call) {
        self.calls(&[call]);
    }

    pub fn calls(&mut self, calls: &[Call]) {
        self.script().calls.extend(calls);
        self.send_udp(WAKE, b"wake");
    }

    /// The peer opens a connection to a port that listens, with these bits and options in its SYN, and the application
    /// accepts: the connection, and the station's next sequence number. The peer's is 1000.
    #[track_caller]
    pub fn handshake(&mut self, bits: u8, window: u16, options: &[u8]) -> (Handle, u32) {
        self.send_options(SYN | bits, (999, 0), window, options, &[]);
        let una = self.one().seq + 1;
        (self.accept(una, window), una)
    }

    /// The same from the answer to the SYN on.
    #[track_caller]
    pub fn accept(&mut self, una: u32, window: u16) -> Handle {
        self.send(ACK, 1000, una, window, &[]);
        let events = self.events();
        let [Condition::Knock { handle, .. }] = events[..] else { panic!("{events:?}") };
        self.call(Call::accept(handle, Cookie(1)));
        handle
    }

    /// The application sends what is at the beginning of its heap.
    pub fn sendv(&mut self, handle: Handle, len: u32) {
        let entry = SgEntry { addr: HEAP_BASE, len: u64::from(len) };
        self.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    }

    /// Outcomes of calls among the events since the last look.
    pub fn statuses(&mut self) -> Vec<Status> {
        let status = |event| match event {
            Condition::Result { status, .. } => Some(status),
            _ => None,
        };
        self.events().into_iter().filter_map(status).collect()
    }

    /// The events since the last look.
    pub fn events(&mut self) -> Vec<Condition> {
        let events = std::mem::take(&mut self.script().events);
        events.into_iter().filter(|e| !matches!(e, Condition::GroupIn { .. })).collect()
    }
}
