//! Packet captures: per-core rings of records in the control page, and the filter that decides what
//! enters them. `docs/control.md` §7 describes both word by word.
//!
//! A ring has one writer, its core; the client only moves its consumer's count, which the core takes
//! for an allegation: whatever stands there, the core writes within its ring and waits for nobody.
use crate::control::{CAPTURE_BASE, CAPTURE_BYTES};
use crate::status::open_enum;
use crate::{GroupId, IpAddress, Status};

/// Bytes of each core's ring when `cores` cores share the area; 0 if they cannot.
pub const fn ring_bytes(cores: usize) -> usize {
    match CAPTURE_BYTES.checked_div(cores) {
        Some(share) => share & !0xffff,
        None => 0,
    }
}

/// Where core `core`'s ring is in the control page.
pub const fn ring_offset(core: usize, cores: usize) -> usize {
    CAPTURE_BASE + core * ring_bytes(cores)
}

/// Byte offsets of a ring's words. Written by the core unless said otherwise; counts never wrap.
pub mod ring {
    /// Number of the capture that the ring is of, stored last when it begins; 0: never used.
    pub const GENERATION: usize = 0x00;
    /// Bytes of records written since the capture began.
    pub const PRODUCED: usize = 0x08;
    /// Packets that the filter let through and for which there was no room.
    pub const MISSED: usize = 0x10;
    /// Packets that the core has looked at.
    pub const SEEN: usize = 0x18;
    /// Packets that were recorded.
    pub const CAPTURED: usize = 0x20;
    /// Unix time of the boot in nanoseconds; 0: unknown.
    pub const BOOT_UNIX_NS: usize = 0x28;
    /// 1 while the capture runs.
    pub const RUNNING: usize = 0x30;
    /// Written by the client: bytes of records that it has read.
    pub const CONSUMED: usize = 0x80;
    /// Written by the client, in core 0's ring only: changes at least every [`super::LEASE_NS`].
    pub const LEASE: usize = 0x88;
    /// Where the records begin.
    pub const DATA: usize = 0x100;
}

/// A capture whose client does not change its `LEASE` word for so long is ended.
pub const LEASE_NS: u64 = 5_000_000_000;

/// Bytes of a record's head; the packet's bytes follow, padded to a multiple of 8.
pub const HEAD_BYTES: usize = 32;
/// Most bytes of a packet that are recorded.
pub const SNAP_MAX: u16 = 2048;

/// Record flags.
pub mod flag {
    /// It was sent; else received.
    pub const OUT: u16 = 1;
    /// Its checksum was the device's to complete; the record has the complete one.
    pub const COMPLETED: u16 = 2;
}

/// The head of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole record, a multiple of 8. Records do not wrap: one with `original` 0 fills
    /// the rest of the ring.
    pub bytes: u32,
    /// Bytes of the packet that are in the record.
    pub captured: u16,
    /// Bytes of the packet.
    pub original: u16,
    /// Nanoseconds since boot.
    pub time_ns: u64,
    /// Its flow group; [`NO_GROUP`] if it has none.
    pub group: u16,
    /// The core.
    pub core: u16,
    /// See [`flag`].
    pub flags: u16,
    /// Counts the packets of this ring that the filter let through, the missed ones too.
    pub number: u64,
}

/// The group of what has no ports.
pub const NO_GROUP: u16 = u16::MAX;

impl Head {
    /// The record of a packet.
    pub const fn bytes_for(captured: u16) -> u32 {
        HEAD_BYTES as u32 + (captured as u32).next_multiple_of(8)
    }

    /// As it stands in the ring.
    pub const fn encode(&self) -> [u64; 4] {
        let lengths = (self.captured as u64) << 32 | (self.original as u64) << 48;
        let place = self.group as u64 | (self.core as u64) << 16 | (self.flags as u64) << 32;
        [self.bytes as u64 | lengths, self.time_ns, place, self.number]
    }

    /// From the ring, of which `left` bytes are before its end; `None` if it cannot be.
    pub const fn decode(words: [u64; 4], left: usize) -> Option<Head> {
        let head = Head {
            bytes: words[0] as u32,
            captured: (words[0] >> 32) as u16,
            original: (words[0] >> 48) as u16,
            time_ns: words[1],
            group: words[2] as u16,
            core: (words[2] >> 16) as u16,
            flags: (words[2] >> 32) as u16,
            number: words[3],
        };
        let room = head.bytes as usize;
        if !room.is_multiple_of(8) || room == 0 || room > left {
            return None;
        }
        if head.original == 0 {
            // Filling; only its first word counts.
            return if room == left { Some(Head { captured: 0, ..head }) } else { None };
        }
        let fits = head.captured <= head.original && head.captured <= SNAP_MAX;
        if fits && head.bytes == Head::bytes_for(head.captured) { Some(head) } else { None }
    }
}

open_enum! {
    /// Which way a packet went.
    Direction {
        /// Either.
        Both = 0: "both",
        /// Received.
        In = 1: "in",
        /// Sent.
        Out = 2: "out",
    }
}

/// What a packet must be like. The default lets everything through, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Source or destination is in this prefix (of 128 bits).
    pub address: Option<(IpAddress, u8)>,
    /// Source or destination port.
    pub port: Option<u16>,
    /// IP protocol number, or EtherType if at least 0x600.
    pub protocol: Option<u16>,
    /// Flow group.
    pub group: Option<GroupId>,
    /// Which way it goes.
    pub direction: Direction,
    /// Bytes of it that are recorded, 1 to [`SNAP_MAX`].
    pub snaplen: u16,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter {
            address: None,
            port: None,
            protocol: None,
            group: None,
            direction: Direction::Both,
            snaplen: SNAP_MAX,
        }
    }
}

/// Words of an encoded [`Filter`].
pub const FILTER_WORDS: usize = 9;

const ADDRESS: u64 = 1;
const PORT: u64 = 2;
const PROTOCOL: u64 = 4;
const GROUP: u64 = 8;

impl Filter {
    /// As it stands in the bulk area.
    pub fn encode(&self) -> [u64; FILTER_WORDS] {
        let bit = |set: bool, bit| if set { bit } else { 0 };
        let (address, prefix) = self.address.unwrap_or_default();
        let half = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&address.0[at..at + 8]);
            u64::from_le_bytes(word)
        };
        [
            bit(self.address.is_some(), ADDRESS)
                | bit(self.port.is_some(), PORT)
                | bit(self.protocol.is_some(), PROTOCOL)
                | bit(self.group.is_some(), GROUP),
            half(0),
            half(8),
            u64::from(prefix),
            u64::from(self.port.unwrap_or(0)),
            u64::from(self.protocol.unwrap_or(0)),
            u64::from(self.group.map_or(0, |g| g.0)),
            u64::from(self.direction.0),
            u64::from(self.snaplen),
        ]
    }

    /// What a client has laid there.
    pub fn decode(words: &[u64; FILTER_WORDS]) -> Result<Filter, Status> {
        let [which, low, high, prefix, port, protocol, group, direction, snaplen] = *words;
        let narrow = |word: u64| u16::try_from(word).map_err(|_| Status::Invalid);
        let prefix = u8::try_from(prefix).ok().filter(|p| *p <= 128).ok_or(Status::Invalid)?;
        let (port, protocol, group) = (narrow(port)?, narrow(protocol)?, narrow(group)?);
        let (direction, snaplen) = (Direction(narrow(direction)?), narrow(snaplen)?);
        let known = which & !(ADDRESS | PORT | PROTOCOL | GROUP) == 0;
        if !known || direction.0 > Direction::Out.0 || !(1..=SNAP_MAX).contains(&snaplen) {
            return Err(Status::Invalid);
        }
        let mut address = [0; 16];
        address[..8].copy_from_slice(&low.to_le_bytes());
        address[8..].copy_from_slice(&high.to_le_bytes());
        Ok(Filter {
            address: (which & ADDRESS != 0).then_some((IpAddress(address), prefix)),
            port: (which & PORT != 0).then_some(port),
            protocol: (which & PROTOCOL != 0).then_some(protocol),
            group: (which & GROUP != 0).then_some(GroupId(group)),
            direction,
            snaplen,
        })
    }
}
