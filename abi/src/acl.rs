//! The wire format of a firewall's rule set: what a client lays into the control page's bulk area (or a
//! loader into the boot archive), and what the kernel lays into the reply area.
//!
//! Little-endian. A header of 64 bytes, then 64 bytes a rule, then text that only clients read (where
//! the set came from, the rules' names). `docs/control.md` describes it field by field; the meaning
//! of the rules is `docs/acl.md`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `"IXACLSET"`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"IXACLSET");
/// Version of the format.
pub const VERSION: u32 = 1;
/// Most rules of one set.
pub const RULES_MAX: usize = 10_240;
/// Most bytes of the text behind the rules.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a whole set; with counters it fits the reply area.
pub const SET_BYTES_MAX: usize = 64 + RULES_MAX * 64 + TEXT_BYTES_MAX;
const _: () = assert!(SET_BYTES_MAX <= crate::control::BULK_BYTES);
const _: () = assert!(64 + (RULES_MAX + 2) * 8 + SET_BYTES_MAX <= crate::control::REPLY_BYTES);

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Rules that follow.
    pub rules: u32,
    /// Bytes of text behind them.
    pub text_bytes: u32,
    /// What is done with incoming packets that no rule is about: an [`Action`].
    pub default_in: u8,
    /// The same for what leaves.
    pub default_out: u8,
    /// 0.
    pub reserved: [u8; 2],
    /// [`checksum`] of everything behind the header.
    pub checksum: u64,
    /// 0.
    pub reserved_2: [u64; 4],
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Record {
    /// The peer's prefix; bits behind its length are 0.
    pub remote: [u8; 16],
    /// Our prefix.
    pub local: [u8; 16],
    /// First and last port of the peer; `[0, 65535]`: any.
    pub remote_ports: [u16; 2],
    /// First and last port of ours.
    pub local_ports: [u16; 2],
    /// An [`Action`].
    pub action: u8,
    /// [`IN`], [`OUT`] or both.
    pub directions: u8,
    /// IP protocol: [`TCP`], [`UDP`], [`ICMP`], or 0 for any.
    pub protocol: u8,
    /// Of [`flags`].
    pub flags: u8,
    /// Length of `remote`, 0 to 128; IPv4 prefixes are mapped, so a /24 is 120.
    pub remote_len: u8,
    /// Length of `local`.
    pub local_len: u8,
    /// ICMP type, if `flags` says so.
    pub icmp_type: u8,
    /// ICMP code, if `flags` says so.
    pub icmp_code: u8,
    /// Per remote address: new connections, and packets of what has no connections, per second.
    pub rate: u32,
    /// How many of them may come at once.
    pub burst: u32,
    /// Per remote address: connections at the same time.
    pub connections: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Header>() == 64 && size_of::<Record>() == 64);

/// [`Record::directions`]: what arrives, and connections that a peer opens.
pub const IN: u8 = 1;
/// [`Record::directions`]: what leaves, and connections that the application opens.
pub const OUT: u8 = 2;
/// [`Record::protocol`].
pub const ICMP: u8 = 1;
/// [`Record::protocol`].
pub const TCP: u8 = 6;
/// [`Record::protocol`].
pub const UDP: u8 = 17;

/// Bits of [`Record::flags`].
pub mod flags {
    /// `icmp_type` counts.
    pub const ICMP_TYPE: u8 = 1;
    /// `icmp_code` counts (with `ICMP_TYPE` only).
    pub const ICMP_CODE: u8 = 2;
    /// `rate` and `burst` count.
    pub const RATE: u8 = 4;
    /// `connections` counts.
    pub const CONNECTIONS: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;
}

/// Largest `rate` and `burst`.
pub const RATE_MAX: u32 = 1_000_000;
/// Largest `connections`.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// The packet passes.
    Allow = 0,
    /// It is dropped without a word.
    Deny = 1,
    /// It is dropped and its sender is told (RST, ICMP unreachable).
    Reject = 2,
}

impl Action {
    /// The action of a number.
    pub const fn from_u8(value: u8) -> Option<Action> {
        match value {
            0 => Some(Action::Allow),
            1 => Some(Action::Deny),
            2 => Some(Action::Reject),
            _ => None,
        }
    }

    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
        }
    }
}

/// The reply of `acl-read`: this, then a counter for each rule and two more for the defaults (in, out),
/// then the set as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReplyHeader {
    /// Counts the sets that were taken into force since boot; 0: there is none, and nothing follows.
    pub generation: u64,
    /// Bytes of the set.
    pub set_bytes: u64,
    /// Counters, `rules + 2`.
    pub counters: u64,
    /// 0.
    pub reserved: [u64; 5],
}

const _: () = assert!(size_of::<ReplyHeader>() == 64);

/// A checksum against accidents: FNV-1a over little-endian 64-bit words, the last one padded with 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    let sum = words.iter().fold(0xcbf2_9ce4_8422_2325, |s, w| mix(s, u64::from_le_bytes(*w)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(sum, u64::from_le_bytes(last) ^ (bytes.len() as u64) << 32)
}
