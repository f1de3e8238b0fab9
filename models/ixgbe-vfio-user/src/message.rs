//! Messages of vfio-user: a header of 16 bytes and a body, little-endian. Layouts are those of the specification that
//! QEMU keeps in `docs/interop/vfio-user.rst`; most bodies are the structures of Linux's `vfio.h`.
use nix::errno::Errno;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Most bytes of data that one message may carry (`max_data_xfer_size`); registers need few.
pub const DATA_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + 16 + DATA_BYTES_MAX;
/// Most descriptors of files beside one message (`max_msg_fds`).
pub const FDS_MAX: usize = 16;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The two sides agree on a version and on limits.
    Version,
    /// A piece of the client's memory is there from now on.
    DmaMap,
    /// It is gone from now on.
    DmaUnmap,
    /// What the device has.
    DeviceInfo,
    /// What a region is.
    RegionInfo,
    /// Files that stand for parts of a region.
    RegionIoFds,
    /// What interrupts an index has.
    IrqInfo,
    /// Interrupts get eventfds, or are triggered.
    SetIrqs,
    /// Reads of a region.
    RegionRead,
    /// Writes to a region.
    RegionWrite,
    /// The function is reset.
    DeviceReset,
    /// Anything else: not known here.
    Unknown(u16),
}

impl Command {
    fn of(number: u16) -> Command {
        match number {
            1 => Command::Version,
            2 => Command::DmaMap,
            3 => Command::DmaUnmap,
            4 => Command::DeviceInfo,
            5 => Command::RegionInfo,
            6 => Command::RegionIoFds,
            7 => Command::IrqInfo,
            8 => Command::SetIrqs,
            9 => Command::RegionRead,
            10 => Command::RegionWrite,
            13 => Command::DeviceReset,
            other => Command::Unknown(other),
        }
    }
}

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's number of the message, which an answer repeats.
    pub id: u16,
    /// The command as a number, which an answer repeats.
    pub number: u16,
    /// Bytes of the whole message, header included.
    pub size: u32,
    /// See the constants.
    pub flags: u32,
}

impl Header {
    /// The lowest four bits tell a request (0) from an answer (1).
    const TYPE: u32 = 0xf;
    const REPLY: u32 = 1;
    const NO_REPLY: u32 = 1 << 4;
    const ERROR: u32 = 1 << 5;

    /// A client's header; why not.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, String> {
        let mut body = Body::new(bytes);
        let mut next = || body.u32().expect("16 bytes");
        let (first, size, flags) = (next(), next(), next());
        let header = Header { id: first as u16, number: (first >> 16) as u16, size, flags };
        if header.flags & Header::TYPE != 0 {
            return Err(format!("message {} is no request", header.id));
        }
        if !(HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&(size as usize)) {
            return Err(format!("message {} claims a size of {size} bytes", header.id));
        }
        Ok(header)
    }

    /// What it is about.
    pub fn command(&self) -> Command {
        Command::of(self.number)
    }

    /// Whether the client waits for an answer: it does not for posted writes.
    pub fn wants_reply(&self) -> bool {
        self.flags & Header::NO_REPLY == 0
    }

    /// The answer to it: a body, or an error.
    pub fn answer(&self, outcome: Result<&[u8], Errno>) -> Vec<u8> {
        let (body, flags, error) = match outcome {
            Ok(body) => (body, Header::REPLY, 0),
            Err(errno) => (&[][..], Header::REPLY | Header::ERROR, errno as u32),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(error.to_le_bytes());
        bytes.extend(body);
        bytes
    }
}

/// Takes a body apart from its front.
#[derive(Debug)]
pub struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// All of it.
    pub fn new(bytes: &'a [u8]) -> Body<'a> {
        Body(bytes)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}
