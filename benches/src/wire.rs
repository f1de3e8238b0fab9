//! Frames as the clients' side writes and reads them: Ethernet, IPv4, TCP.
use ix_dataplane::checksum;

/// The server's address.
pub const SERVER: [u8; 4] = [10, 0, 0, 1];
/// The router through which all clients come.
pub const ROUTER: [u8; 4] = [10, 0, 0, 254];
/// The server's Ethernet address.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The router's.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Bytes of the Ethernet header, of it and IPv4's.
pub const ETHERNET: usize = 14;
/// Where TCP begins.
pub const TCP: usize = 34;

/// Bits of TCP's flags.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const PSH: u8 = 8;
/// See [`FIN`].
pub const ACK: u8 = 16;

/// A segment from a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// The client.
    pub from: ([u8; 4], u16),
    /// The server's port.
    pub port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`FIN`].
    pub flags: u8,
    /// As it is in the header.
    pub window: u16,
    /// Options, padded to words.
    pub options: &'a [u8],
    /// Bytes of payload, all the same letter.
    pub payload: usize,
}

impl Segment<'_> {
    /// Writes the frame with right checksums; its length.
    pub fn write(&self, frame: &mut [u8]) -> usize {
        let options = self.options.len();
        let headers = TCP + 20 + options;
        let len = headers + self.payload;
        let f = &mut frame[..len];
        f[headers..].fill(b'a');
        f[..54].fill(0);
        f[0..6].copy_from_slice(&SERVER_MAC);
        f[6..12].copy_from_slice(&ROUTER_MAC);
        f[12..14].copy_from_slice(&[8, 0]);
        f[14] = 0x45;
        f[16..18].copy_from_slice(&((len - ETHERNET) as u16).to_be_bytes());
        f[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        f[26..30].copy_from_slice(&self.from.0);
        f[30..34].copy_from_slice(&SERVER);
        let sum = checksum::finish(checksum::sum(&f[ETHERNET..TCP]));
        f[24..26].copy_from_slice(&sum);
        f[34..36].copy_from_slice(&self.from.1.to_be_bytes());
        f[36..38].copy_from_slice(&self.port.to_be_bytes());
        f[38..42].copy_from_slice(&self.seq.to_be_bytes());
        f[42..46].copy_from_slice(&self.ack.to_be_bytes());
        f[46] = ((20 + options) << 2) as u8;
        f[47] = self.flags;
        f[48..50].copy_from_slice(&self.window.to_be_bytes());
        f[54..headers].copy_from_slice(self.options);
        let pseudo = checksum::pseudo_v4(self.from.0, SERVER, 6, (len - TCP) as u16);
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[TCP..])));
        f[50..52].copy_from_slice(&sum);
        len
    }
}

/// NOP NOP timestamps (RFC 7323 appendix A).
pub fn timestamps(value: u32, echo: u32) -> [u8; 12] {
    let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    options[4..8].copy_from_slice(&value.to_be_bytes());
    options[8..12].copy_from_slice(&echo.to_be_bytes());
    options
}

/// What a SYN offers: segment size, SACK, timestamps, scaling.
pub fn syn_options(mss: u16, shift: u8, value: u32) -> [u8; 20] {
    let mut options = [2, 4, 0, 0, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, shift];
    options[2..4].copy_from_slice(&mss.to_be_bytes());
    options[8..12].copy_from_slice(&value.to_be_bytes());
    options
}

/// A segment from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The client.
    pub to: ([u8; 4], u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`FIN`].
    pub flags: u8,
    /// As it is in the header.
    pub window: u16,
    /// Window scaling's shift.
    pub shift: Option<u8>,
    /// SACK was permitted.
    pub sack: bool,
    /// The timestamp's value.
    pub timestamp: Option<u32>,
    /// Bytes of payload.
    pub payload: usize,
    /// It asks whether the client lives: see `Clients::receive`.
    pub probe: bool,
}

/// What a frame from the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A segment.
    Tcp(Answer),
    /// It asks for the Ethernet address of an IPv4 address.
    ArpRequest([u8; 4]),
    /// Nothing of interest.
    Other,
}

/// Reads a frame; `verify`: its checksums must be right.
pub fn read(f: &[u8], verify: bool) -> Sent {
    let word = |at: usize| u32::from_be_bytes(f[at..at + 4].try_into().expect("four"));
    let half = |at: usize| u16::from_be_bytes(f[at..at + 2].try_into().expect("two"));
    match half(12) {
        0x0806 if half(20) == 1 && f[28..32] != f[38..42] => {
            Sent::ArpRequest(f[38..42].try_into().expect("four"))
        }
        0x0800 if f[23] == 6 => {
            let len = ETHERNET + usize::from(half(16));
            assert!(f.len() >= len && f[14] == 0x45, "an IPv4 header");
            if verify {
                let sum = checksum::sum(&f[ETHERNET..TCP]);
                assert!(checksum::is_good(sum), "IPv4's checksum");
                let to = f[30..34].try_into().expect("four");
                let pseudo = checksum::pseudo_v4(SERVER, to, 6, (len - TCP) as u16);
                let sum = checksum::add(pseudo, checksum::sum(&f[TCP..len]));
                assert!(checksum::is_good(sum), "TCP's checksum");
            }
            let data = TCP + usize::from(f[46] >> 4) * 4;
            let mut answer = Answer {
                to: (f[30..34].try_into().expect("four"), half(36)),
                seq: word(38),
                ack: word(42),
                flags: f[47],
                window: half(48),
                payload: len - data,
                ..Answer::default()
            };
            options(&f[54..data], &mut answer);
            Sent::Tcp(answer)
        }
        _ => Sent::Other,
    }
}

fn options(mut rest: &[u8], answer: &mut Answer) {
    while let [kind, tail @ ..] = rest {
        match kind {
            0 => return,
            1 => {
                rest = tail;
                continue;
            }
            _ => {}
        }
        let len = usize::from(rest[1]);
        match *kind {
            3 => answer.shift = Some(rest[2]),
            4 => answer.sack = true,
            8 => {
                answer.timestamp = Some(u32::from_be_bytes(rest[2..6].try_into().expect("four")));
            }
            _ => {}
        }
        rest = &rest[len..];
    }
}

/// Answers an ARP request of the server for `ip`; the frame's length.
pub fn arp_answer(ip: [u8; 4], f: &mut [u8]) -> usize {
    f[0..6].copy_from_slice(&SERVER_MAC);
    f[6..12].copy_from_slice(&ROUTER_MAC);
    f[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    f[22..28].copy_from_slice(&ROUTER_MAC);
    f[28..32].copy_from_slice(&ip);
    f[32..38].copy_from_slice(&SERVER_MAC);
    f[38..42].copy_from_slice(&SERVER);
    42
}
