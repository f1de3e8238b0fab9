//! Capture files: pcapng (the IETF draft `draft-ietf-opsawg-pcapng`), with an interface for each core,
//! directions, flow groups and counts of missed packets; and the classic format, which has none of that.
use super::merge::Packet;
use ix_abi::capture::{NO_GROUP, flag};
use std::io::{self, Write};

/// Link type Ethernet.
const ETHERNET: u16 = 1;
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// A core, as a capture file knows it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What is captured there.
    pub filter: String,
    /// Bytes of each packet that are kept.
    pub snaplen: u16,
}

/// What a core has counted in the end.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Packets that it looked at.
    pub seen: u64,
    /// Those that the filter let through.
    pub accepted: u64,
    /// Of them, those that were missed.
    pub missed: u64,
}

/// A capture file being written.
pub trait PacketWriter {
    /// A packet at a Unix time in nanoseconds; `missed` packets of its core are missing before it.
    fn packet(&mut self, unix_ns: u64, missed: u64, packet: &Packet) -> io::Result<()>;
    /// What a core has counted.
    fn counts(&mut self, core: usize, counts: Counts) -> io::Result<()>;
    /// Lets a reader on the other end of a pipe see it.
    fn flush(&mut self) -> io::Result<()>;
}

/// The new format.
#[derive(Debug)]
pub struct Pcapng<W> {
    out: W,
    first: Option<u64>,
    last: u64,
}

/// A block under construction.
struct Block(Vec<u8>);

impl Block {
    fn new(kind: u32) -> Block {
        let mut block = Block(Vec::with_capacity(256));
        block.word(kind).word(0);
        block
    }

    fn word(&mut self, word: u32) -> &mut Block {
        self.0.extend_from_slice(&word.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Block {
        self.0.extend_from_slice(bytes);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Block {
        self.word(u32::from(code) | (value.len() as u32) << 16).bytes(value)
    }

    /// A time as the format has it: high half first.
    fn time_option(&mut self, code: u16, unix_ns: u64) -> &mut Block {
        let halves = [(unix_ns >> 32) as u32, unix_ns as u32].map(u32::to_le_bytes);
        self.option(code, halves.as_flattened())
    }

    fn write(&mut self, out: &mut impl Write) -> io::Result<()> {
        let len = self.0.len() as u32 + 4;
        self.0[4..8].copy_from_slice(&len.to_le_bytes());
        self.word(len);
        out.write_all(&self.0)
    }
}

impl<W: Write> Pcapng<W> {
    /// Writes the section's head and an interface for each core.
    pub fn begin(mut out: W, interfaces: &[Interface]) -> io::Result<Pcapng<W>> {
        let program = concat!("ixcp ", env!("CARGO_PKG_VERSION"));
        let mut section = Block::new(SECTION);
        // Byte order, version 1.0, length not known.
        section.word(0x1a2b_3c4d).word(1).word(u32::MAX).word(u32::MAX);
        section.option(3, b"IX").option(4, program.as_bytes()).word(0);
        section.write(&mut out)?;
        for interface in interfaces {
            let mut block = Block::new(INTERFACE);
            block.word(ETHERNET.into()).word(interface.snaplen.into());
            block.option(2, interface.name.as_bytes());
            // Nanoseconds: 10^-9.
            block.option(9, &[9]);
            block.option(11, &[&[0], interface.filter.as_bytes()].concat());
            block.word(0).write(&mut out)?;
        }
        out.flush()?;
        Ok(Pcapng { out, first: None, last: 0 })
    }
}

impl<W: Write> PacketWriter for Pcapng<W> {
    fn packet(&mut self, unix_ns: u64, missed: u64, packet: &Packet) -> io::Result<()> {
        self.first.get_or_insert(unix_ns);
        self.last = self.last.max(unix_ns);
        let head = &packet.head;
        let mut block = Block::new(PACKET);
        block.word(packet.core as u32).word((unix_ns >> 32) as u32).word(unix_ns as u32);
        block.word(packet.bytes.len() as u32).word(head.original.into()).bytes(&packet.bytes);
        if head.group != NO_GROUP {
            block.option(1, format!("group {}", head.group).as_bytes());
        }
        let direction: u32 = if head.flags & flag::OUT != 0 { 2 } else { 1 };
        block.option(2, &direction.to_le_bytes());
        if missed > 0 {
            block.option(4, &missed.to_le_bytes());
        }
        block.word(0).write(&mut self.out)
    }

    fn counts(&mut self, core: usize, counts: Counts) -> io::Result<()> {
        let mut block = Block::new(STATISTICS);
        block.word(core as u32).word((self.last >> 32) as u32).word(self.last as u32);
        block.time_option(2, self.first.unwrap_or(self.last)).time_option(3, self.last);
        let delivered = counts.accepted.saturating_sub(counts.missed);
        for (code, count) in
            [(4, counts.seen), (5, counts.missed), (6, counts.accepted), (8, delivered)]
        {
            block.option(code, &count.to_le_bytes());
        }
        block.word(0).write(&mut self.out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The old format, with nanoseconds.
#[derive(Debug)]
pub struct Classic<W>(W);

impl<W: Write> Classic<W> {
    /// Writes the file's head.
    pub fn begin(mut out: W, snaplen: u16) -> io::Result<Classic<W>> {
        // Magic of nanosecond times, version 2.4, no zone, no accuracy, limit, Ethernet.
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, snaplen.into(), ETHERNET.into()] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.flush()?;
        Ok(Classic(out))
    }
}

impl<W: Write> PacketWriter for Classic<W> {
    fn packet(&mut self, unix_ns: u64, _missed: u64, packet: &Packet) -> io::Result<()> {
        let (seconds, rest) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
        let lengths = [packet.bytes.len() as u32, packet.head.original.into()];
        for word in [seconds as u32, rest as u32].into_iter().chain(lengths) {
            self.0.write_all(&word.to_le_bytes())?;
        }
        self.0.write_all(&packet.bytes)
    }

    fn counts(&mut self, _core: usize, _counts: Counts) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
