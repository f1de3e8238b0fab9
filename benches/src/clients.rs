//! The far ends: a client for each connection in 16 bytes.
use crate::app::PORT;
use crate::server::Server;
use crate::wire::{self, ACK, Answer, PSH, SYN, Segment, Sent};

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
const TURNS_MAX: usize = 16;

/// A client's end of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// Next to send.
    seq: u32,
    /// Next expected.
    ack: u32,
    /// The server's latest timestamp.
    timestamp: u32,
    /// What a scenario likes.
    pub word: u32,
}

const _: () = assert!(size_of::<Client>() == 16);

/// All clients of a server.
#[derive(Debug)]
pub struct Clients {
    list: Vec<Client>,
    /// The server takes part in timestamps, as it answered.
    pub timestamps: bool,
    /// It permits SACK.
    pub sack: bool,
    /// The shift of the windows that it announces.
    pub shift: Option<u8>,
    bytes: Vec<u8>,
}

/// The address of client `i`.
pub fn address(i: usize) -> ([u8; 4], u16) {
    let ip = FIRST_ADDRESS + (i / PORTS) as u32;
    (ip.to_be_bytes(), FIRST_PORT + (i % PORTS) as u16)
}

/// The inverse of [`address`].
fn number(address: ([u8; 4], u16)) -> usize {
    let ip = u32::from_be_bytes(address.0).wrapping_sub(FIRST_ADDRESS);
    ip as usize * PORTS + usize::from(address.1 - FIRST_PORT)
}

impl Clients {
    /// `count` clients that have not connected.
    pub fn new(count: usize) -> Clients {
        let client = |i: usize| Client { seq: (i as u32).wrapping_mul(77), ..Client::default() };
        Clients {
            list: (0..count).map(client).collect(),
            timestamps: false,
            sack: false,
            shift: None,
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

    /// Client `i` sends a segment.
    pub fn send<S: Server>(&mut self, server: &mut S, i: usize, flags: u8, payload: usize) {
        let clock = (server.now_ns() / 1_000_000) as u32 + 1;
        let client = &mut self.list[i];
        let (syn, timestamps) =
            (wire::syn_options(MSS, SHIFT, clock), wire::timestamps(clock, client.timestamp));
        let options: &[u8] = match (flags & SYN != 0, self.timestamps) {
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
            window: u16::MAX,
            options,
            payload,
        };
        let length = payload as u32 + u32::from(flags & (SYN | wire::FIN) != 0);
        client.seq = client.seq.wrapping_add(length);
        server.deliver(i, &mut |frame| segment.write(frame));
    }

    /// Client `i` sends a request.
    pub fn request<S: Server>(&mut self, server: &mut S, i: usize, payload: usize) {
        self.send(server, i, ACK | PSH, payload);
    }

    /// Takes in what the server has sent; `each` sees the segments. How many frames there were.
    pub fn receive<S: Server>(
        &mut self,
        server: &mut S,
        mut each: impl FnMut(&mut Clients, &mut S, usize, &Answer),
    ) -> usize {
        let mut frames = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        while server.next_sent(&mut bytes) {
            frames += 1;
            match wire::read(&bytes, server.verify()) {
                Sent::Tcp(answer) => {
                    let i = number(answer.to);
                    self.take(i, &answer);
                    each(self, server, i, &answer);
                }
                Sent::ArpRequest(ip) => {
                    server.deliver(usize::MAX, &mut |frame| wire::arp_answer(ip, frame));
                }
                Sent::Other => {}
            }
        }
        self.bytes = bytes;
        frames
    }

    fn take(&mut self, i: usize, answer: &Answer) {
        assert!(answer.flags & wire::RST == 0, "connection {i} was reset");
        let client = &mut self.list[i];
        if answer.flags & SYN != 0 {
            client.ack = answer.seq;
            self.timestamps = answer.timestamp.is_some();
            self.sack = answer.sack;
            self.shift = answer.shift;
        }
        assert_eq!(answer.seq, client.ack, "connection {i}: a segment in order");
        assert!(answer.flags & ACK != 0 && answer.ack == client.seq, "connection {i}: {answer:?}");
        let flags = answer.flags & (SYN | wire::FIN) != 0;
        client.ack = client.ack.wrapping_add(answer.payload as u32 + u32::from(flags));
        client.timestamp = answer.timestamp.unwrap_or(0);
    }

    /// Opens all connections.
    pub fn open<S: Server>(&mut self, server: &mut S) {
        // The first alone: it makes the server ask for the router's Ethernet address.
        self.open_some(server, 0, 1);
        for from in (1..self.len()).step_by(SYNS) {
            let to = (from + SYNS).min(self.len());
            self.open_some(server, from, to);
        }
    }

    fn open_some<S: Server>(&mut self, server: &mut S, from: usize, to: usize) {
        for i in from..to {
            server.expect(i);
            self.send(server, i, SYN, 0);
        }
        let mut answered = 0;
        for _ in 0..TURNS_MAX {
            server.pass_ns(10_000);
            server.turn();
            let frames = self.receive(server, |clients, server, i, answer| {
                if answer.flags & SYN != 0 {
                    answered += 1;
                    clients.send(server, i, ACK, 0);
                }
            });
            if answered == to - from && frames == 0 {
                return;
            }
        }
        panic!("{answered} of {} connections opened", to - from);
    }
}
