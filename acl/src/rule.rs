//! What a rule says, and when it matches: the definition that the compiled form is held to.
use ix_abi::IpAddress;
use ix_abi::acl::{Action, CONNECTIONS_MAX, ICMP, IN, OUT, RATE_MAX, Record, TCP, UDP, flags};

/// Which way a flow was opened, or a packet without connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a peer to us.
    In = 0,
    /// From us to a peer.
    Out = 1,
}

/// What the rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP.
    Icmp = 2,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];

    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Icmp => ICMP,
        }
    }
}

/// What is judged: a packet, or a connection by its first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Which way.
    pub direction: Direction,
    /// Of which protocol.
    pub protocol: Protocol,
    /// The peer.
    pub remote: IpAddress,
    /// Us.
    pub local: IpAddress,
    /// The peer's port; 0 for ICMP.
    pub remote_port: u16,
    /// Our port; for ICMP type and code, the type in the high byte.
    pub local_port: u16,
}

impl Flow {
    /// An ICMP message.
    pub const fn icmp(
        direction: Direction,
        remote: IpAddress,
        local: IpAddress,
        kind: u8,
        code: u8,
    ) -> Flow {
        let local_port = u16::from_be_bytes([kind, code]);
        Flow { direction, protocol: Protocol::Icmp, remote, local, remote_port: 0, local_port }
    }

    /// Which of the six combinations of direction and protocol it is.
    #[inline(always)]
    pub(crate) const fn kind(&self) -> usize {
        kind(self.direction, self.protocol)
    }
}

/// Combinations of direction and protocol.
pub(crate) const KINDS: usize = 6;

pub(crate) const fn kind(direction: Direction, protocol: Protocol) -> usize {
    direction as usize * 3 + protocol as usize
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The address, the first byte highest; 0 behind the length.
    pub bits: u128,
    /// 0 to 128.
    pub len: u8,
}

impl Prefix {
    /// Every address.
    pub const ANY: Prefix = Prefix { bits: 0, len: 0 };

    /// The prefix of an address; `None` for a length beyond 128 or bits behind it.
    pub fn new(address: [u8; 16], len: u8) -> Option<Prefix> {
        let bits = u128::from_be_bytes(address);
        (len <= 128 && bits & host_mask(len) == 0).then_some(Prefix { bits, len })
    }

    /// Its last address.
    pub fn last(self) -> u128 {
        self.bits | host_mask(self.len)
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddress) -> bool {
        u128::from_be_bytes(address.0) & !host_mask(self.len) == self.bits
    }
}

fn host_mask(len: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(len)).unwrap_or(0)
}

/// First and last of a range of ports.
pub type Ports = (u16, u16);
/// All ports.
pub const ANY_PORT: Ports = (0, u16::MAX);

/// A rule that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The peer is in it.
    pub remote: Prefix,
    /// Our address is in it.
    pub local: Prefix,
    /// The peer's port is in it.
    pub remote_ports: Ports,
    /// Our port is in it.
    pub local_ports: Ports,
    /// What is done.
    pub action: Action,
    /// [`IN`], [`OUT`] or both.
    pub directions: u8,
    /// `None`: any.
    pub protocol: Option<Protocol>,
    /// ICMP type, and code.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Per second, and how many at once.
    pub rate: Option<(u32, u32)>,
    /// At the same time.
    pub connections: Option<u32>,
}

impl Rule {
    /// A rule that lets everything pass.
    pub const ALLOW: Rule = Rule {
        remote: Prefix::ANY,
        local: Prefix::ANY,
        remote_ports: ANY_PORT,
        local_ports: ANY_PORT,
        action: Action::Allow,
        directions: IN | OUT,
        protocol: None,
        icmp: None,
        rate: None,
        connections: None,
    };

    /// Checks a record; the error says what is wrong with it.
    pub fn from_record(r: &Record) -> Result<Rule, &'static str> {
        let remote = Prefix::new(r.remote, r.remote_len).ok_or("its remote prefix is malformed")?;
        let local = Prefix::new(r.local, r.local_len).ok_or("its local prefix is malformed")?;
        let action = Action::from_u8(r.action).ok_or("its action is unknown")?;
        let protocol = match r.protocol {
            0 => None,
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            ICMP => Some(Protocol::Icmp),
            _ => return Err("its protocol is none of TCP, UDP and ICMP"),
        };
        let has = |flag: u8| r.flags & flag != 0;
        check(r.flags & !flags::ALL == 0 && r.reserved == 0, "reserved bits are set")?;
        check((IN..=(IN | OUT)).contains(&r.directions), "its direction is unknown")?;
        let [remote_ports, local_ports] = [r.remote_ports, r.local_ports].map(|[a, b]| (a, b));
        let ordered = |p: Ports| p.0 <= p.1;
        check(ordered(remote_ports) && ordered(local_ports), "a port range ends before it begins")?;
        let ported = remote_ports != ANY_PORT || local_ports != ANY_PORT;
        let has_ports = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
        check(!ported || has_ports, "it has ports, but its protocol is neither TCP nor UDP")?;
        let (kind, code) = (has(flags::ICMP_TYPE), has(flags::ICMP_CODE));
        check(kind || !code, "it has an ICMP code without a type")?;
        check(!kind || protocol == Some(Protocol::Icmp), "an ICMP type needs protocol ICMP")?;
        check(
            (kind || r.icmp_type == 0) && (code || r.icmp_code == 0),
            "an ICMP field is set in vain",
        )?;
        let icmp = kind.then_some((r.icmp_type, code.then_some(r.icmp_code)));
        let within = |n: u32, most: u32, flag: u8| {
            if has(flag) { (1..=most).contains(&n) } else { n == 0 }
        };
        check(
            within(r.rate, RATE_MAX, flags::RATE) && within(r.burst, RATE_MAX, flags::RATE),
            "its rate is out of range",
        )?;
        check(
            within(r.connections, CONNECTIONS_MAX, flags::CONNECTIONS),
            "its number of connections is out of range",
        )?;
        let limited = has(flags::RATE) || has(flags::CONNECTIONS);
        check(!limited || action == Action::Allow, "only a rule that allows can have limits")?;
        let counts = matches!(protocol, None | Some(Protocol::Tcp));
        check(!has(flags::CONNECTIONS) || counts, "only TCP has connections to count")?;
        Ok(Rule {
            remote,
            local,
            remote_ports,
            local_ports,
            action,
            directions: r.directions,
            protocol,
            icmp,
            rate: has(flags::RATE).then_some((r.rate, r.burst)),
            connections: has(flags::CONNECTIONS).then_some(r.connections),
        })
    }

    /// The record of the rule.
    pub fn to_record(&self) -> Record {
        let (kind, code) = self.icmp.unwrap_or((0, None));
        let mut flags = 0;
        if self.icmp.is_some() {
            flags |= flags::ICMP_TYPE;
        }
        if code.is_some() {
            flags |= flags::ICMP_CODE;
        }
        if self.rate.is_some() {
            flags |= flags::RATE;
        }
        if self.connections.is_some() {
            flags |= flags::CONNECTIONS;
        }
        let (rate, burst) = self.rate.unwrap_or((0, 0));
        Record {
            remote: self.remote.bits.to_be_bytes(),
            local: self.local.bits.to_be_bytes(),
            remote_ports: [self.remote_ports.0, self.remote_ports.1],
            local_ports: [self.local_ports.0, self.local_ports.1],
            action: self.action as u8,
            directions: self.directions,
            protocol: self.protocol.map_or(0, Protocol::number),
            flags,
            remote_len: self.remote.len,
            local_len: self.local.len,
            icmp_type: kind,
            icmp_code: code.unwrap_or(0),
            rate,
            burst,
            connections: self.connections.unwrap_or(0),
            reserved: 0,
        }
    }

    /// Whether the rule is about a flow: the definition.
    pub fn matches(&self, flow: &Flow) -> bool {
        let within = |range: Ports, port: u16| (range.0..=range.1).contains(&port);
        let details = match flow.protocol {
            Protocol::Icmp => self.icmp.is_none_or(|(kind, code)| {
                let [is, with] = flow.local_port.to_be_bytes();
                is == kind && code.is_none_or(|code| with == code)
            }),
            _ => {
                within(self.remote_ports, flow.remote_port)
                    && within(self.local_ports, flow.local_port)
            }
        };
        self.has_direction(flow.direction)
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.remote.contains(flow.remote)
            && self.local.contains(flow.local)
            && details
    }

    pub(crate) fn has_direction(&self, direction: Direction) -> bool {
        self.directions & if direction == Direction::In { IN } else { OUT } != 0
    }

    /// The values of [`Flow::local_port`] that it is about: for ICMP types and codes.
    pub(crate) fn details(&self) -> Ports {
        match self.icmp {
            None => self.local_ports,
            Some((kind, None)) => {
                (u16::from_be_bytes([kind, 0]), u16::from_be_bytes([kind, u8::MAX]))
            }
            Some((kind, Some(code))) => {
                let one = u16::from_be_bytes([kind, code]);
                (one, one)
            }
        }
    }
}

fn check(ok: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if ok { Ok(()) } else { Err(otherwise) }
}
