//! What a script says, after parsing.
use crate::settings::Settings;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{DeadReason, SocketAddress, Status, TcpOption};

/// A whole script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its path, relative to the folder of scripts.
    pub name: String,
    /// What it shows, and by what it is asked for: the header comments.
    pub claims: Vec<Claim>,
    /// The `--key value` lines.
    pub settings: Settings,
    /// The rest.
    pub lines: Vec<Line>,
}

/// A header comment `# RFC 9293 §3.5: text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `RFC 9293 §3.5`
    pub source: String,
    /// The behaviour.
    pub behaviour: String,
}

/// One thing that happens, or must.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the file, from 1.
    pub number: usize,
    /// As written.
    pub text: String,
    /// When.
    pub when: When,
    /// How often in a row.
    pub times: u32,
    /// Which connection: `a` unless the line says so.
    pub conn: String,
    /// What.
    pub what: What,
}

/// Times in nanoseconds, from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After the line before.
    After(u64, u64),
    /// Since the script's beginning.
    At(u64, u64),
    /// Whenever it comes.
    Any,
}

/// See [`Line`].
#[derive(Clone, Debug)]
pub enum What {
    /// The peer sends a segment.
    Inject(Segment),
    /// The engine sends a segment.
    Expect(Segment),
    /// The last of the segments that have come; those before it do not matter.
    ExpectLast(Segment),
    /// The network sends a message.
    InjectIcmp(Icmp),
    /// The engine sends a message.
    ExpectIcmp(Icmp),
    /// Calls in one batch of the application.
    Calls(Vec<(Call, Outcome)>),
    /// The application is told.
    Told(Event),
    /// For this long the engine sends nothing and the application is told nothing.
    Quiet(u64),
    /// A counter's growth since the beginning, or a gauge's value.
    Counted(Counted, Relation, u64),
    /// The connection's next SYN of the engine begins another sequence space.
    Fresh,
    /// Frames wait, to arrive in one batch.
    Hold,
    /// They arrive.
    Release,
    /// `established`: all of a handshake that the peer begins, after `listen`.
    Established(Segment),
    /// `joined`: the same without `listen`.
    Joined(Segment),
    /// `dialled`: all of a handshake that the application begins.
    Dialled(Segment),
    /// The peer's window field from now on.
    Window(Option<u16>),
}

/// A number of a header, or a pattern for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Num {
    /// `*`
    Any,
    /// Counted from its side's first sequence number, or first timestamp.
    Relative(i64),
    /// `=N`
    Absolute(u32),
}

/// Control bits.
pub mod flag {
    /// `F`
    pub const FIN: u16 = 1;
    /// `S`
    pub const SYN: u16 = 2;
    /// `R`
    pub const RST: u16 = 4;
    /// `P`
    pub const PSH: u16 = 8;
    /// `.`
    pub const ACK: u16 = 16;
    /// `U`
    pub const URG: u16 = 32;
    /// `E`
    pub const ECE: u16 = 64;
    /// `W`
    pub const CWR: u16 = 128;
    /// By letter.
    pub const LETTERS: [(char, u16); 8] = [
        ('F', FIN),
        ('S', SYN),
        ('R', RST),
        ('P', PSH),
        ('U', URG),
        ('E', ECE),
        ('W', CWR),
        ('.', ACK),
    ];
}

/// A segment to send, or a pattern for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Of [`flag`].
    pub flags: u16,
    /// First sequence number.
    pub seq: Num,
    /// Bytes of payload.
    pub len: Option<u32>,
    /// Acknowledgement number.
    pub ack: Num,
    /// The field, not scaled.
    pub win: Option<u16>,
    /// The urgent pointer.
    pub urg: Option<u16>,
    /// `None`: not said.
    pub options: Option<Vec<Opt>>,
    /// `...`: others may be there.
    pub more_options: bool,
    /// Of the IP header.
    pub ip: Ip,
    /// So many segments in a row; 0, which is `in *`: as many as it takes.
    pub parts: Option<u32>,
    /// Cut into fragments.
    pub fragments: Option<Fragments>,
}

/// What is said of an IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ip {
    /// The lower two bits of the traffic class.
    pub ecn: Option<u8>,
    /// The upper six.
    pub dscp: Option<u8>,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// Do not fragment.
    pub df: Option<bool>,
    /// The TCP checksum is wrong.
    pub bad_sum: bool,
}

/// How a packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Bytes of IP payload in each.
    pub bytes: usize,
    /// The last first.
    pub reverse: bool,
    /// This one gets lost.
    pub lost: Option<usize>,
    /// Every one twice.
    pub twice: bool,
}

/// A TCP option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opt {
    /// Maximum segment size.
    Mss(Option<u16>),
    /// Window shift.
    Wscale(Option<u8>),
    /// Selective acknowledgements are permitted.
    SackOk,
    /// Selective acknowledgements.
    Sack(Vec<(Num, Num)>),
    /// Value and echo; `None`: what fits.
    Ts(Option<(Num, Num)>),
    /// Padding.
    Nop,
    /// The end of the list.
    Eol,
    /// Any bytes.
    Raw(Vec<u8>),
}

/// An ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// See [`IcmpKind`].
    pub kind: IcmpKind,
    /// The next hop's, if it says so.
    pub mtu: Option<u32>,
    /// The sequence number of the segment that it quotes.
    pub seq: Num,
    /// Bytes of an echo.
    pub len: usize,
    /// The sender: an address other than the peer's last byte.
    pub from: Option<u8>,
}

/// Kinds of ICMP messages, of both versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// Fragmentation needed, or packet too big.
    TooBig,
    /// Network unreachable, or no route.
    Net,
    /// Host unreachable, or address unreachable.
    Host,
    /// Protocol unreachable, or unrecognised next header.
    Protocol,
    /// Port unreachable.
    Port,
    /// Administratively prohibited.
    Prohibited,
    /// Time exceeded in transit.
    Ttl,
    /// Source quench.
    Quench,
    /// Echo request.
    Ping,
    /// Echo reply.
    Pong,
}

/// What the application calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `listen BACKLOG`
    Listen(u32),
    /// `unlisten`
    Unlisten,
    /// `accept`
    Accept,
    /// `reject`
    Reject,
    /// `connect`: the runner fills the address in
    Connect(SocketAddress),
    /// `sendv BYTES`
    Sendv(u64),
    /// `write BYTES`: as many calls of `sendv` as it takes, when `sent` announces room.
    Write(u64),
    /// `recv_done BYTES`
    RecvDone(u64),
    /// `close`
    Close,
    /// `shutdown`
    Shutdown,
    /// `abort`
    Abort,
    /// `set_option NAME VALUE`, or `set_listener_option`.
    SetOption(bool, TcpOption, u64),
}

/// How a call must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, all of it.
    Ok,
    /// So many bytes were taken.
    Took(u64),
    /// Refused so.
    Status(Status),
}

/// An event condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `knock`
    Knock,
    /// `connected`
    Connected(Status),
    /// `recv BYTES`, in however many pieces.
    Recv(u64),
    /// `sent BYTES`, in however many pieces.
    Sent(u64),
    /// `window BYTES`: the window of the last `sent`.
    Window(u32),
    /// `eof`
    Eof,
    /// `dead REASON`
    Dead(DeadReason),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// `counter NAME`
    Counter(Counter),
    /// `drop NAME`
    Drop(Drop),
}

/// How a counter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The default.
    Equal,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}
