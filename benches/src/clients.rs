//! The far ends: a client for each connection in 16 bytes.
use crate::app::PORT;
use crate::server::Server;
use crate::wire::{self, ACK, Answer, FIN, PSH, RST, SYN, Segment, Sent};

/// Clients behind one address.
const PORTS: usize = 20_000;
const FIRST_PORT: u16 = 1024;
const FIRST_ADDRESS: u32 = u32::from_be_bytes([172, 16, 0, 0]);
/// Segment size and window shift that clients offer.
const MSS: u16 = 1460;
const SHIFT: u8 = 7;
/// SYNs under way at once.
const SYNS: usize = 32;
/// Turns that a batch of handshakes may take.
const TURNS_MAX: usize = 4 * SYNS;

/// A client's end of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// Next to send.
    seq: u32,
    /// Next expected.
    ack: u32,
    /// The server's latest timestamp.
    timestamp: u32,
    /// Oldest that the server has not acknowledged.
    unacknowledged: u32,
}

const _: () = assert!(size_of::<Client>() == 16);

/// All clients of a server.
#[derive(Clone, Debug)]
pub struct Clients {
    list: Vec<Client>,
    /// The window that they announce, before it is scaled.
    pub window: u16,
    /// They offer a segment size and nothing else, and send no options: as the stack of QEMU's user network.
    pub plain: bool,
    /// Time from one batch of handshakes to the next.
    pub open_every_ns: u64,
    /// The server takes part in timestamps, as it answered.
    pub timestamps: bool,
    /// It permits SACK.
    pub sack: bool,
    /// The shift of the windows that it announces.
    pub shift: Option<u8>,
    /// The window that the server announced last, to whichever client.
    pub server_window: u32,
    /// Segments for nobody here.
    pub strangers: u64,
    bytes: Vec<u8>,
}

/// The address of client `i`.
pub fn address(i: usize) -> ([u8; 4], u16) {
    let ip = FIRST_ADDRESS + (i / PORTS) as u32;
    (ip.to_be_bytes(), FIRST_PORT + (i % PORTS) as u16)
}

/// The inverse of [`address`]; too much for others.
fn number((ip, port): ([u8; 4], u16)) -> usize {
    let ip = u32::from_be_bytes(ip).wrapping_sub(FIRST_ADDRESS);
    match port.checked_sub(FIRST_PORT) {
        Some(port) => ip as usize * PORTS + usize::from(port),
        None => usize::MAX,
    }
}

impl Clients {
    /// `count` clients that have not connected.
    pub fn new(count: usize) -> Clients {
        let client = |i: usize| Client { seq: (i as u32).wrapping_mul(77), ..Client::default() };
        Clients {
            list: (0..count).map(client).collect(),
            window: u16::MAX,
            plain: false,
            open_every_ns: 10_000,
            timestamps: false,
            sack: false,
            shift: None,
            server_window: 0,
            strangers: 0,
            bytes: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Largest payload of a segment towards the server.
    pub fn segment_bytes(&self) -> usize {
        usize::from(MSS) - if self.timestamps { 12 } else { 0 }
    }

    /// Bytes that client `i` has sent and that are not acknowledged.
    pub fn in_flight(&self, i: usize) -> u32 {
        self.list[i].seq.wrapping_sub(self.list[i].unacknowledged)
    }

    /// Client `i` sends a segment.
    pub fn send<S: Server>(&mut self, server: &mut S, i: usize, flags: u8, payload: usize) {
        let clock = (server.now_ns() / 1_000_000) as u32 + 1;
        let client = &mut self.list[i];
        let (syn, timestamps) =
            (wire::syn_options(MSS, SHIFT, clock), wire::timestamps(clock, client.timestamp));
        let options: &[u8] = match (flags & SYN != 0, self.timestamps) {
            (true, _) if self.plain => &syn[..4],
            (true, _) => &syn,
            (false, true) => &timestamps,
            (false, false) => &[],
        };
        let segment = Segment {
            from: address(i),
            port: PORT,
            seq: client.seq,
            ack: client.ack,
            flags,
            window: if flags & SYN != 0 { u16::MAX } else { self.window },
            options,
            payload,
        };
        let length = payload as u32 + u32::from(flags & (SYN | FIN) != 0);
        client.seq = client.seq.wrapping_add(length);
        server.deliver(i, &mut |frame| segment.write(frame));
    }

    /// Client `i` sends a request.
    pub fn request<S: Server>(&mut self, server: &mut S, i: usize, payload: usize) {
        self.send(server, i, ACK | PSH, payload);
    }

    /// Client `i` acknowledges what it has received, and says nothing else.
    pub fn acknowledge<S: Server>(&mut self, server: &mut S, i: usize) {
        self.send(server, i, ACK, 0);
    }

    /// Client `i` sends a request and the next one will acknowledge its answer, of which the bytes are known
    /// before it is sent: so requests can be laid up.
    pub fn request_ahead<S: Server>(&mut self, server: &mut S, i: usize, payload: usize) {
        self.request(server, i, payload);
        self.list[i].ack = self.list[i].ack.wrapping_add(payload as u32);
    }

    /// Takes in what the server has sent; `each` sees the segments. How many frames there were.
    pub fn receive<S: Server>(
        &mut self,
        server: &mut S,
        mut each: impl FnMut(&mut Clients, &mut S, usize, &Answer),
    ) -> usize {
        self.receive_all(server, |clients, server, i, answer| {
            let mut answer = *answer;
            clients.take(i, &mut answer);
            each(clients, server, i, &answer);
        })
    }

    /// Looks at what the server has sent for requests that were laid up: frames, and their bytes of payload.
    pub fn look<S: Server>(&mut self, server: &mut S) -> (usize, usize) {
        let mut bytes = 0;
        let frames = self.receive_all(server, |clients, _, i, answer| {
            bytes += answer.payload;
            clients.list[i].timestamp = answer.timestamp.unwrap_or(0);
        });
        (frames, bytes)
    }

    fn receive_all<S: Server>(
        &mut self,
        server: &mut S,
        mut each: impl FnMut(&mut Clients, &mut S, usize, &Answer),
    ) -> usize {
        let mut frames = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        while server.next_sent(&mut bytes) {
            frames += 1;
            match wire::read(&bytes, server.verify()) {
                Sent::Tcp(answer) => match number(answer.to) {
                    i if i < self.len() => each(self, server, i, &answer),
                    _ => self.strangers += 1,
                },
                Sent::ArpRequest(ip) => {
                    server.deliver(usize::MAX, &mut |frame| wire::arp_answer(ip, frame));
                }
                Sent::Other => {}
            }
        }
        self.bytes = bytes;
        frames
    }

    fn take(&mut self, i: usize, answer: &mut Answer) {
        assert!(answer.flags & RST == 0, "connection {i} was reset");
        let client = &mut self.list[i];
        if answer.flags & SYN != 0 {
            client.ack = answer.seq;
            self.timestamps = answer.timestamp.is_some();
            self.sack = answer.sack;
            self.shift = answer.shift;
        }
        let shift = if answer.flags & SYN == 0 { self.shift.unwrap_or(0) } else { 0 };
        self.server_window = u32::from(answer.window) << shift;
        assert!(answer.flags & ACK != 0, "connection {i}: {answer:?}");
        let acknowledged = answer.ack.wrapping_sub(client.unacknowledged);
        let in_flight = client.seq.wrapping_sub(client.unacknowledged);
        assert!(acknowledged <= in_flight, "connection {i}: {answer:?}");
        client.unacknowledged = answer.ack;
        client.timestamp = answer.timestamp.unwrap_or(0);
        // RFC 1122 §4.2.3.6.
        answer.probe = answer.seq.wrapping_add(1) == client.ack && answer.payload <= 1;
        if !answer.probe {
            assert_eq!(answer.seq, client.ack, "connection {i}: a segment in order");
            let flags = u32::from(answer.flags & (SYN | FIN) != 0);
            client.ack = client.ack.wrapping_add(answer.payload as u32 + flags);
        }
    }

    /// Opens all connections.
    pub fn open<S: Server>(&mut self, server: &mut S) {
        self.open_first(server, self.len());
    }

    /// Opens the first `count`.
    pub fn open_first<S: Server>(&mut self, server: &mut S, count: usize) {
        // The first alone: it makes the server ask for the router's Ethernet address.
        self.open_some(server, 0, 1);
        for from in (1..count).step_by(SYNS) {
            let to = (from + SYNS).min(count);
            self.open_some(server, from, to);
        }
    }

    fn open_some<S: Server>(&mut self, server: &mut S, from: usize, to: usize) {
        for i in from..to {
            server.expect(i);
            self.send(server, i, SYN, 0);
        }
        let mut answered = 0;
        server.pass_ns(self.open_every_ns);
        for _ in 0..TURNS_MAX {
            server.pass_ns(1_000);
            server.turn();
            let frames = self.receive(server, |clients, server, i, answer| {
                if answer.flags & SYN != 0 {
                    answered += 1;
                    clients.send(server, i, ACK, 0);
                }
            });
            if answered == to - from && frames == 0 && server.waiting() == 0 {
                return;
            }
        }
        panic!("{answered} of {} connections opened: {}", to - from, server.explain());
    }
}
