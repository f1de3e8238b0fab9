//! A peer: smoltcp's stack and sockets, with an application that holds conversations.
use super::asks::Asks;
use super::book::{End, SharedBook, Side, Talk};
use super::net::StationId;
use super::phy::Wire;
use super::swarm::PeerDraw;
use super::wire::align_timestamp;
use super::{MS, S, Time};
use ix_dataplane::rng::Rng;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, RecvError, State};
use smoltcp::socket::{AnySocket, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpProtocol, Ipv4Address,
    Ipv4Packet, TcpPacket,
};
use std::cell::Cell;
use std::collections::VecDeque;

/// The port that every station listens on.
pub const PORT: u16 = 7777;
/// The port for datagrams.
pub const UDP_PORT: u16 = 7778;
/// Listening sockets beyond those for expected conversations: smoltcp has no backlog, and a late
/// duplicate of a SYN may take one.
const SPARE: usize = 4;
/// How long a side waits for a peer whose application has aborted, since RST may be lost.
pub const PATIENCE: Time = 30 * S;
/// How long an acceptor waits for a conversation's number.
pub const ANONYMOUS: Time = 60 * S;

/// A connection of the peer.
struct Conn {
    handle: SocketHandle,
    side: Side,
    /// Known once the number was read.
    talk: Option<Talk>,
    number: Vec<u8>,
    began: Time,
    received: u64,
    written: u64,
    acked: u64,
    opened: bool,
    eof: bool,
    closed: bool,
    ended: bool,
    read_again: Time,
    fin_since: Time,
    /// The end of what it has asked, and when it asks again.
    asked: u64,
    ask_at: Option<Time>,
}

thread_local! {
    /// The clock of timestamps, in milliseconds.
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

/// Begins shortly before it wraps.
fn stamp_at(now: Time) -> u32 {
    ((now / MS) as u32).wrapping_sub(5_000)
}

/// A smoltcp station.
pub struct Peer {
    id: StationId,
    draw: PeerDraw,
    book: SharedBook,
    rng: Rng,
    wire: Wire,
    iface: Interface,
    sockets: SocketSet<'static>,
    datagrams: SocketHandle,
    listening: Vec<SocketHandle>,
    expected: usize,
    conns: Vec<Conn>,
    next_port: u16,
    next: Time,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}

fn packets() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 100_000])
}

/// Where a TCP segment comes from, and whether it is a SYN without ACK.
fn parse(frame: &[u8]) -> Option<(IpEndpoint, bool)> {
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let ip = Ipv4Packet::new_checked(&frame[14..]).ok()?;
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    let remote = IpEndpoint::new(ip.src_addr().into(), tcp.src_port());
    (ip.next_header() == IpProtocol::Tcp).then_some((remote, tcp.syn() && !tcp.ack()))
}

fn instant(now: Time) -> Instant {
    Instant::from_micros((now / 1_000) as i64)
}

impl Peer {
    /// A peer that listens.
    pub fn new(id: StationId, draw: PeerDraw, book: SharedBook, mut rng: Rng) -> Peer {
        let to_us = |entry: &&super::book::Entry| entry.talk.acceptor == id;
        let expected = book.borrow().entries().filter(to_us).count() + SPARE;
        let mut wire = Wire { rx: VecDeque::new(), tx: VecDeque::new(), mtu: draw.mtu };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(id.mac())));
        config.random_seed = rng.next_u64();
        let mut iface = Interface::new(config, &mut wire, instant(0));
        iface.update_ip_addrs(|addresses| {
            let cidr = IpCidr::new(Ipv4Address::from(id.ip()).into(), 24);
            addresses.push(cidr).expect("room for an address");
        });
        let next_port = 49_152 + rng.below(10_000) as u16;
        let mut sockets = SocketSet::new(Vec::new());
        let mut datagrams = udp::Socket::new(packets(), packets());
        datagrams.bind(UDP_PORT).expect("a fresh socket");
        let datagrams = sockets.add(datagrams);
        Peer {
            id,
            draw,
            book,
            rng,
            wire,
            iface,
            sockets,
            datagrams,
            listening: Vec::new(),
            expected,
            conns: Vec::new(),
            next_port,
            next: 0,
        }
    }

    /// A frame arrives.
    pub fn receive(&mut self, frame: Vec<u8>, now: Time) {
        if self.is_repeated_syn(&frame) {
            return;
        }
        self.wire.rx.push_back(frame);
        self.next = now;
    }

    /// A SYN for a connection that there is. smoltcp would answer it from a listening socket, and
    /// then reset the connection; lost on the way, it does no harm.
    fn is_repeated_syn(&self, frame: &[u8]) -> bool {
        let Some((remote, true)) = parse(frame) else { return false };
        self.sockets.iter().any(|(_, socket)| {
            let Some(socket) = tcp::Socket::downcast(socket) else { return false };
            socket.remote_endpoint() == Some(remote) && socket.state() != State::Closed
        })
    }

    /// A frame that it sends.
    pub fn transmitted(&mut self) -> Option<Vec<u8>> {
        let mut frame = self.wire.tx.pop_front()?;
        if self.draw.stamps {
            align_timestamp(&mut frame);
        }
        Some(frame)
    }

    /// When it must run next.
    pub fn next_run(&self) -> Time {
        self.next
    }

    /// The state of every connection, for the message of a failure.
    pub fn dump(&self) {
        for conn in &self.conns {
            let socket = self.sockets.get::<tcp::Socket<'_>>(conn.handle);
            eprintln!(
                "{:?} {:?} {:x?}: {} rx {} tx {} received {} written {} acked {} eof {} closed {} ended {}",
                self.id,
                conn.side,
                conn.talk.as_ref().map(|talk| talk.id),
                socket.state(),
                socket.recv_queue(),
                socket.send_queue(),
                conn.received,
                conn.written,
                conn.acked,
                conn.eof,
                conn.closed,
                conn.ended,
            );
        }
    }

    /// Sockets that are not listening.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    fn socket(&mut self) -> SocketHandle {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(self.draw.rx_buffer), buffer(self.draw.tx_buffer));
        socket.set_nagle_enabled(self.draw.nagle);
        socket.set_ack_delay(self.draw.delayed_ack.then_some(Duration::from_millis(10)));
        socket.set_tsval_generator(self.draw.stamps.then_some(|| CLOCK.get()));
        self.sockets.add(socket)
    }

    /// Begins a conversation as its opener.
    pub fn open(&mut self, talk: Talk, now: Time) {
        let handle = self.socket();
        let remote = (Ipv4Address::from(talk.acceptor.ip()), PORT);
        self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.iface.context(), remote, self.next_port).expect("a fresh socket");
        self.conns.push(Conn::new(handle, Side::Opener, Some(talk), now));
        self.next = now;
    }

    /// Runs the stack and the application until they have nothing to do at `now`.
    pub fn run(&mut self, now: Time) {
        CLOCK.set(stamp_at(now));
        for _ in 0..100 {
            self.iface.poll(instant(now), &mut self.wire, &mut self.sockets);
            self.listen(now);
            let mut conns = std::mem::take(&mut self.conns);
            let mut busy = self.echo();
            for conn in &mut conns {
                busy |= self.drive(conn, now);
            }
            conns.retain(|conn| {
                let state = self.sockets.get::<tcp::Socket<'_>>(conn.handle).state();
                let gone = conn.ended && matches!(state, State::Closed);
                if gone && !busy {
                    self.sockets.remove(conn.handle);
                }
                !gone || busy
            });
            self.conns.append(&mut conns);
            if !busy {
                break;
            }
        }
        self.iface.poll(instant(now), &mut self.wire, &mut self.sockets);
        let stack = self.iface.poll_at(instant(now), &self.sockets);
        // In whole microseconds, and not again at `now`.
        let stack =
            stack.map_or(Time::MAX, |at| (at.total_micros() as Time * 1_000).max(now + 1_000));
        let app = self.conns.iter().map(|conn| conn.next(now)).min().unwrap_or(Time::MAX);
        // One that the last look at its stack has closed is given back in the next run.
        let closed = |conn: &Conn| {
            let state = self.sockets.get::<tcp::Socket<'_>>(conn.handle).state();
            conn.ended && matches!(state, State::Closed)
        };
        let gone = if self.conns.iter().any(closed) { now + 1_000 } else { Time::MAX };
        self.next = stack.min(app).min(gone);
    }

    /// Sends every datagram back as a new one; whether there was any.
    fn echo(&mut self) -> bool {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.datagrams);
        let mut busy = false;
        while let Ok((bytes, meta)) = socket.recv() {
            busy = true;
            let IpAddress::Ipv4(from) = meta.endpoint.addr else { continue };
            let mut book = self.book.borrow_mut();
            let (id, sender) = book.datagram_arrived(self.id, from.octets(), bytes);
            // The second of two that are the same is not answered.
            if !book.datagrams.contains_key(&!id) {
                let answer = book.datagram(!id, self.id, sender.0, bytes.len());
                // Without room it is lost, as any may be.
                let _sent = socket.send_slice(&answer, meta.endpoint);
            }
        }
        busy
    }

    fn listen(&mut self, now: Time) {
        let sockets = &self.sockets;
        let taken = |handle: &SocketHandle| {
            let state = sockets.get::<tcp::Socket<'_>>(*handle).state();
            !matches!(state, State::Listen | State::SynReceived)
        };
        let (accepted, listening): (Vec<_>, Vec<_>) = self.listening.iter().partition(|h| taken(h));
        self.listening = listening;
        for handle in accepted {
            self.conns.push(Conn::new(handle, Side::Acceptor, None, now));
        }
        let free = self.listening.iter();
        let free = free.filter(|h| self.sockets.get::<tcp::Socket<'_>>(**h).is_listening()).count();
        for _ in free..self.expected {
            let handle = self.socket();
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.listen(PORT).expect("a fresh socket");
            self.listening.push(handle);
        }
    }

    /// Whether anything changed.
    fn drive(&mut self, conn: &mut Conn, now: Time) -> bool {
        if conn.ended {
            return false;
        }
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(conn.handle);
        let mut book = self.book.borrow_mut();
        let mut busy = false;
        let state = socket.state();
        if conn.side == Side::Opener
            && !conn.opened
            && !matches!(state, State::SynSent | State::Closed)
        {
            conn.opened = true;
            book.opened(conn.talk.as_ref().expect("an opener's plan").id);
        }
        conn.read_number(socket, &mut book, self.id);
        let Some(talk) = conn.talk.clone() else {
            let silent = matches!(state, State::Closed | State::TimeWait) || !socket.may_recv();
            if silent || now > conn.began + ANONYMOUS {
                conn.ended = true;
                socket.abort();
            }
            return conn.ended;
        };
        busy |= conn.read(socket, &talk, &mut book, &mut self.rng, now);
        busy |= conn.write(socket, &talk, &mut book, &mut self.rng, now);
        if state != State::SynSent {
            book.taken(talk.id, conn.side, conn.received + socket.recv_queue() as u64);
        }
        let aborts = talk.abort.is_some_and(|(side, at)| side == conn.side && conn.received >= at);
        let hopeless = book.given_up(talk.id, conn.side.other(), now);
        let end = if aborts && conn.opened {
            socket.abort();
            End::Aborted
        } else if conn.fin_is_stuck(socket, now) {
            socket.abort();
            End::Excused
        } else if hopeless {
            socket.abort();
            End::Orphaned
        } else if conn.eof
            && conn.acked == talk.sends(conn.side)
            && matches!(socket.state(), State::TimeWait | State::Closed)
        {
            End::Clean
        } else if socket.state() != State::Closed || busy {
            return busy;
        } else if conn.opened {
            End::Reset
        } else {
            End::Refused
        };
        conn.ended = true;
        book.end(talk.id, conn.side, end, now);
        true
    }
}

impl Conn {
    fn new(handle: SocketHandle, side: Side, talk: Option<Talk>, now: Time) -> Conn {
        Conn {
            handle,
            side,
            talk,
            number: Vec::new(),
            began: now,
            received: 0,
            written: 0,
            acked: 0,
            opened: side == Side::Acceptor,
            eof: false,
            closed: false,
            ended: false,
            read_again: 0,
            fin_since: now,
            asked: 0,
            ask_at: None,
        }
    }

    fn next(&self, now: Time) -> Time {
        if self.ended {
            Time::MAX
        } else if self.talk.is_none() {
            self.began + ANONYMOUS + MS
        } else if self.read_again > now {
            self.read_again
        } else {
            // Patience is looked at now and then.
            let asks = self.ask_at.unwrap_or(Time::MAX).max(now + 1_000);
            asks.min(now + S)
        }
    }

    /// Everything is acknowledged but the FIN, for a long time: see [`End::Excused`].
    fn fin_is_stuck(&mut self, socket: &tcp::Socket<'_>, now: Time) -> bool {
        let state = matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
        if !state || socket.send_queue() > 0 {
            self.fin_since = now;
        }
        now > self.fin_since + PATIENCE
    }

    /// The end of what it has asked by now.
    fn asks(&mut self, asks: &Asks, total: u64, rng: &mut Rng, now: Time) -> u64 {
        if self.received >= self.asked && self.asked < total {
            let at = *self.ask_at.get_or_insert_with(|| now + asks.wait(rng));
            if at <= now {
                self.ask_at = None;
                self.asked = asks.next(self.asked, total, rng);
            }
        }
        self.asked
    }

    fn read_number(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        book: &mut super::book::Book,
        station: StationId,
    ) {
        if self.talk.is_some() {
            return;
        }
        let mut bytes = [0; 8];
        if let Ok(len) = socket.recv_slice(&mut bytes[..8 - self.number.len()]) {
            self.number.extend_from_slice(&bytes[..len]);
        }
        if let Ok(number) = <[u8; 8]>::try_from(&self.number[..]) {
            self.talk = Some(book.claim(u64::from_le_bytes(number), station));
            self.received = 8;
        }
    }

    fn read(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        talk: &Talk,
        book: &mut super::book::Book,
        rng: &mut Rng,
        now: Time,
    ) -> bool {
        // smoltcp throws unread bytes away at the end of TIME_WAIT: no slowness then.
        let patient = !matches!(socket.state(), State::TimeWait | State::Closed);
        if patient && now < self.read_again || self.eof {
            return false;
        }
        if patient && rng.chance(talk.slowness, 16) && socket.can_recv() {
            self.read_again = now + 1 + rng.below(20 * MS);
            return false;
        }
        let mut bytes = vec![0; talk.read_max.min(socket.recv_queue().max(1))];
        match socket.recv_slice(&mut bytes) {
            Ok(0) => false,
            Ok(len) => {
                book.read(talk.id, self.side, &bytes[..len]);
                self.received += len as u64;
                true
            }
            Err(RecvError::Finished) => {
                self.eof = true;
                book.eof(talk.id, self.side);
                true
            }
            Err(RecvError::InvalidState) => false,
        }
    }

    fn write(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        talk: &Talk,
        book: &mut super::book::Book,
        rng: &mut Rng,
        now: Time,
    ) -> bool {
        let mut busy = false;
        let total = talk.sends(self.side);
        let ready = match (self.side, &talk.asks) {
            // An echo sends what it has.
            (Side::Acceptor, _) if talk.echo => self.received,
            (Side::Opener, Some(asks)) => self.asks(asks, total, rng, now),
            _ => total,
        };
        if socket.can_send() && self.written < ready {
            let mut bytes = vec![0; talk.write_max.min((ready - self.written) as usize)];
            talk.fill(self.side, self.written, &mut bytes);
            let len = socket.send_slice(&bytes).expect("it can send") as u64;
            self.written += len;
            busy = len > 0;
        }
        if socket.state() != State::SynSent {
            let acked = self.written - socket.send_queue() as u64;
            if acked > self.acked {
                book.sent(talk.id, self.side, acked - self.acked);
                self.acked = acked;
            }
        }
        let all =
            self.opened && self.written == total && (self.eof || talk.closes_early(self.side));
        if all && !self.closed && socket.state() != State::Closed {
            self.closed = true;
            socket.close();
            busy = true;
        }
        busy
    }
}
