//! What a client asks, and what it gets: one function for each message.
use crate::Device;
use crate::config::{BAR4_BYTES, CONFIG_BYTES, Config, Effect};
use crate::eventfd::EventFd;
use crate::irqs::{self, Action, Irqs};
use crate::maps::{Access, MAPS_MAX, Maps, PAGE_BYTES, Range};
use crate::message::{Body, Command, DATA_BYTES_MAX, FDS_MAX, Header};
use crate::socket::Request;
use crate::wire::Transmit;
use ix_model_ixgbe::{Chip, Memory, Outside};
use nix::errno::Errno;
use std::cell::Cell;
use std::os::fd::OwnedFd;

mod refused;
pub use refused::{Complaints, Refused, refuse};

/// The version of the protocol, the only one there is.
const VERSION: (u16, u16) = (0, 1);
/// Regions by their numbers in `vfio.h`: six BARs, ROM, configuration space, VGA.
const REGIONS: u32 = 9;
const BAR0: u32 = 0;
const BAR4: u32 = 4;
const CONFIG: u32 = 7;

/// A function of a PCI device, and the client's memory and interrupts.
#[derive(Debug)]
pub struct Server<D> {
    /// The chip.
    pub device: D,
    config: Config,
    maps: Maps,
    irqs: Irqs,
    agreed: bool,
    /// Accesses of the chip to what it may not reach.
    outside: Cell<u64>,
    /// What the client was refused, for the log.
    pub complaints: Complaints,
}

/// The answer's body. Empty ones are answers, too.
type Answer = Result<Vec<u8>, Refused>;

impl<D: Device> Server<D> {
    /// A function after power-on.
    pub fn new(device: D, config: Config) -> Server<D> {
        Server {
            device,
            config,
            maps: Maps::default(),
            irqs: Irqs::default(),
            agreed: false,
            outside: Cell::new(0),
            complaints: Complaints::default(),
        }
    }

    /// Does what a request asks; gives the answer to send, if the client waits for one.
    pub fn request(&mut self, request: &mut Request, wire: &mut dyn Transmit) -> Option<Vec<u8>> {
        let Request { header, body, fds } = request;
        // What is not used is closed.
        let fds = std::mem::take(fds);
        let answer = self.dispatch(header, Body::new(body), fds, wire);
        let outcome = match &answer {
            Ok(body) => Ok(&body[..]),
            Err(refused) => {
                self.complaints.add(header, refused);
                Err(refused.errno)
            }
        };
        header.wants_reply().then(|| header.answer(outcome))
    }

    /// A frame arrives from the wire.
    pub fn receive(&mut self, frame: &[u8], wire: &mut dyn Transmit) -> bool {
        let (device, memory, mut outside) = self.parts(wire);
        device.receive(frame, &memory, &mut outside)
    }

    /// Lets the chip's time go on.
    pub fn tick(&mut self, now_ns: u64, wire: &mut dyn Transmit) {
        let (device, memory, mut outside) = self.parts(wire);
        device.tick(now_ns, &memory, &mut outside);
    }

    /// How often the chip was led to memory that it may not reach: a driver's mistake.
    pub fn outside(&self) -> u64 {
        self.outside.get()
    }

    fn parts<'a>(&'a mut self, wire: &'a mut dyn Transmit) -> (&'a mut D, Reachable<'a>, Port<'a>) {
        let master = self.config.is_bus_master();
        let memory = Reachable { maps: &self.maps, master, outside: &self.outside };
        (&mut self.device, memory, Port { wire, irqs: &mut self.irqs, master })
    }

    fn dispatch(
        &mut self,
        header: &Header,
        body: Body<'_>,
        fds: Vec<OwnedFd>,
        wire: &mut dyn Transmit,
    ) -> Answer {
        let command = header.command();
        if !self.agreed && command != Command::Version {
            return refuse(Errno::EINVAL, "the client asks before it has agreed on a version");
        }
        match command {
            Command::Version => self.version(body),
            Command::DmaMap => self.dma_map(body, fds),
            Command::DmaUnmap => self.dma_unmap(body),
            Command::DeviceInfo => Ok(device_info()),
            Command::RegionInfo => region_info(body),
            Command::RegionIoFds => refuse(Errno::ENOTSUP, "registers cannot be given as files"),
            Command::IrqInfo => irq_info(body),
            Command::SetIrqs => self.set_irqs(body, fds),
            Command::RegionRead => self.region_read(body),
            Command::RegionWrite => self.region_write(body, wire),
            Command::DeviceReset => {
                self.reset();
                Ok(Vec::new())
            }
            Command::Unknown(number) => {
                refuse(Errno::ENOTSUP, format!("there is no command {number}"))
            }
        }
    }

    fn version(&mut self, mut body: Body<'_>) -> Answer {
        let version = body.u32().ok_or("a version is too short")?;
        let (major, minor) = (version as u16, (version >> 16) as u16);
        if major != VERSION.0 {
            return refuse(Errno::EINVAL, format!("the client speaks version {major}.{minor}"));
        }
        let text = body.rest().strip_suffix(b"\0").unwrap_or(body.rest());
        if !text.is_empty() {
            serde_json::from_slice::<serde_json::Value>(text)
                .map_err(|e| format!("the client's capabilities are no JSON: {e}"))?;
        }
        self.agreed = true;
        let capabilities = serde_json::json!({"capabilities": {
            "max_msg_fds": FDS_MAX,
            "max_data_xfer_size": DATA_BYTES_MAX,
            "max_dma_maps": MAPS_MAX,
            "pgsizes": PAGE_BYTES,
        }});
        let mut answer = Vec::new();
        answer.extend(VERSION.0.to_le_bytes());
        answer.extend(VERSION.1.min(minor).to_le_bytes());
        answer.extend(capabilities.to_string().bytes());
        answer.push(0);
        Ok(answer)
    }

    fn dma_map(&mut self, mut body: Body<'_>, mut fds: Vec<OwnedFd>) -> Answer {
        const READ: u32 = 1;
        const WRITE: u32 = 2;
        const SHORT: &str = "a DMA map is too short";
        let (_, flags) = (body.u32().ok_or(SHORT)?, body.u32().ok_or(SHORT)?);
        let offset = body.u64().ok_or(SHORT)?;
        let range = Range { at: body.u64().ok_or(SHORT)?, bytes: body.u64().ok_or(SHORT)? };
        if fds.len() > 1 {
            return refuse(Errno::EINVAL, "a DMA map has several files");
        }
        let access = Access { read: flags & READ != 0, write: flags & WRITE != 0 };
        let file = fds.pop().map(|fd| (fd, offset));
        let what = file.as_ref().map_or("without a file", |_| "of a file");
        self.maps.add(range, access, file).map_err(|errno| {
            let Range { at, bytes } = range;
            Refused::new(errno, format!("a DMA map of {bytes:#x} bytes at {at:#x} {what}"))
        })?;
        Ok(Vec::new())
    }

    fn dma_unmap(&mut self, mut body: Body<'_>) -> Answer {
        const ALL: u32 = 1 << 1;
        const SHORT: &str = "a DMA unmap is too short";
        let answer = body.rest().get(..24).ok_or(SHORT)?.to_vec();
        let (_, flags) = (body.u32().ok_or(SHORT)?, body.u32().ok_or(SHORT)?);
        let range = Range { at: body.u64().ok_or(SHORT)?, bytes: body.u64().ok_or(SHORT)? };
        match flags {
            0 => self.maps.remove(range).map_err(|errno| {
                let Range { at, bytes } = range;
                Refused::new(errno, format!("a DMA unmap of {bytes:#x} bytes at {at:#x}"))
            })?,
            ALL => self.maps.clear(),
            _ => return refuse(Errno::ENOTSUP, format!("a DMA unmap with flags {flags:#x}")),
        }
        Ok(answer)
    }

    fn set_irqs(&mut self, mut body: Body<'_>, fds: Vec<OwnedFd>) -> Answer {
        const SHORT: &str = "a setting of interrupts is too short";
        let _argsz = body.u32().ok_or(SHORT)?;
        let flags = body.u32().ok_or(SHORT)?;
        let (kind, start) = (body.u32().ok_or(SHORT)?, body.u32().ok_or(SHORT)?);
        let count = body.u32().ok_or(SHORT)?;
        let action = irq_action(flags, count, body.rest(), fds)?;
        let Some(action) = action else { return Ok(Vec::new()) };
        self.irqs.act(kind, start, action).map_err(|errno| {
            Refused::new(errno, format!("interrupts {start} to {start}+{count} of kind {kind}"))
        })?;
        Ok(Vec::new())
    }

    fn region_read(&mut self, body: Body<'_>) -> Answer {
        let (access, _) = RegionAccess::parse(body)?;
        let mut data = vec![0; access.count];
        match access.region {
            CONFIG => self.config.read(access.offset, &mut data),
            BAR0 => self.read_registers(access.offset, &mut data),
            // QEMU keeps table and pending bits itself.
            _ => {}
        }
        let mut answer = access.head().to_vec();
        answer.extend(data);
        Ok(answer)
    }

    /// All registers have 32 bits; who reads less gets a part of one.
    fn read_registers(&mut self, offset: usize, to: &mut [u8]) {
        let mut at = offset;
        let mut left = to;
        while !left.is_empty() {
            let skip = at % 4;
            let len = (4 - skip).min(left.len());
            let (part, rest) = left.split_at_mut(len);
            let register = self.device.read32((at - skip) as u32).to_le_bytes();
            part.copy_from_slice(&register[skip..skip + len]);
            at += len;
            left = rest;
        }
    }

    fn region_write(&mut self, body: Body<'_>, wire: &mut dyn Transmit) -> Answer {
        let (access, data) = RegionAccess::parse(body)?;
        if data.len() != access.count {
            let (given, count) = (data.len(), access.count);
            return refuse(Errno::EINVAL, format!("a write of {count} bytes has {given}"));
        }
        match access.region {
            CONFIG => self.write_config(access.offset, data),
            BAR0 => {
                let (words, rest) = data.as_chunks::<4>();
                if !access.offset.is_multiple_of(4) || !rest.is_empty() {
                    let (count, offset) = (access.count, access.offset);
                    let what = format!("a write of {count} bytes to a register at {offset:#x}");
                    return refuse(Errno::EINVAL, what);
                }
                let (device, memory, mut outside) = self.parts(wire);
                for (i, word) in words.iter().enumerate() {
                    let at = (access.offset + 4 * i) as u32;
                    device.write32(at, u32::from_le_bytes(*word), &memory, &mut outside);
                }
            }
            _ => {}
        }
        Ok(access.head().to_vec())
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if self.config.write(offset, data) == Effect::Reset {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.config.reset();
    }
}

/// What the client's file descriptors and flags come to; `None`: nothing.
fn irq_action(
    flags: u32,
    count: u32,
    data: &[u8],
    fds: Vec<OwnedFd>,
) -> Result<Option<Action>, Refused> {
    const NONE: u32 = 1;
    const BOOL: u32 = 1 << 1;
    const EVENTFD: u32 = 1 << 2;
    const MASK: u32 = 1 << 3;
    const UNMASK: u32 = 1 << 4;
    const TRIGGER: u32 = 1 << 5;
    let wrong = |why: &str| Err(Refused::new(Errno::EINVAL, format!("interrupts: {why}")));
    let (kind, action) = (flags & (NONE | BOOL | EVENTFD), flags & (MASK | UNMASK | TRIGGER));
    if flags != kind | action || kind.count_ones() != 1 || action.count_ones() != 1 {
        return wrong("flags that contradict each other");
    }
    if kind != EVENTFD && !fds.is_empty() {
        return wrong("files without need");
    }
    Ok(Some(match (kind, action) {
        (EVENTFD, TRIGGER) if fds.is_empty() => Action::Remove(count),
        (EVENTFD, TRIGGER) if fds.len() == count as usize => {
            let events: Result<_, Errno> = fds.into_iter().map(EventFd::take).collect();
            match events {
                Ok(events) => Action::Assign(events),
                Err(_) => return wrong("a file that is no eventfd"),
            }
        }
        (EVENTFD, TRIGGER) => return wrong("not as many files as interrupts"),
        (EVENTFD, _) => return Err(Refused::new(Errno::ENOTSUP, "interrupts masked by files")),
        (NONE, TRIGGER) if count == 0 => Action::Remove(0),
        (NONE, TRIGGER) => Action::Trigger(count),
        (NONE, MASK) => Action::Mask(count),
        (NONE, _) => Action::Unmask(count),
        // One byte for each: as the client of today does not ask, only for one.
        _ if data.len() != 1 || count != 1 => return wrong("several switches at once"),
        _ if data == [0] => return Ok(None),
        (_, TRIGGER) => Action::Trigger(1),
        (_, MASK) => Action::Mask(1),
        (_, _) => Action::Unmask(1),
    }))
}

fn device_info() -> Vec<u8> {
    const RESET: u32 = 1;
    const PCI: u32 = 1 << 1;
    words([16, RESET | PCI, REGIONS, irqs::KINDS])
}

fn region_info(mut body: Body<'_>) -> Answer {
    const READ: u32 = 1;
    const WRITE: u32 = 1 << 1;
    const SHORT: &str = "a question about a region is too short";
    let (_, _) = (body.u32().ok_or(SHORT)?, body.u32().ok_or(SHORT)?);
    let index = body.u32().ok_or(SHORT)?;
    if index >= REGIONS {
        return refuse(Errno::EINVAL, format!("there is no region {index}"));
    }
    let bytes = region_bytes(index);
    let flags = if bytes == 0 { 0 } else { READ | WRITE };
    let mut answer = words([32, flags, index, 0]);
    answer.extend((bytes as u64).to_le_bytes());
    answer.extend(0u64.to_le_bytes());
    Ok(answer)
}

fn region_bytes(index: u32) -> usize {
    match index {
        BAR0 => Chip::BAR0_BYTES as usize,
        BAR4 => BAR4_BYTES as usize,
        CONFIG => CONFIG_BYTES,
        _ => 0,
    }
}

fn irq_info(mut body: Body<'_>) -> Answer {
    const EVENTFD: u32 = 1;
    const MASKABLE: u32 = 1 << 1;
    const AUTOMASKED: u32 = 1 << 2;
    const SHORT: &str = "a question about interrupts is too short";
    let (_, _) = (body.u32().ok_or(SHORT)?, body.u32().ok_or(SHORT)?);
    let kind = body.u32().ok_or(SHORT)?;
    let flags = match kind {
        irqs::INTX => EVENTFD | MASKABLE | AUTOMASKED,
        irqs::MSI | irqs::MSIX | irqs::ERROR => EVENTFD,
        _ if kind < irqs::KINDS => 0,
        _ => return refuse(Errno::EINVAL, format!("there are no interrupts of kind {kind}")),
    };
    Ok(words([16, flags, kind, Irqs::count(kind)]))
}

fn words(words: [u32; 4]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A part of a region that is there.
struct RegionAccess {
    region: u32,
    offset: usize,
    count: usize,
}

impl RegionAccess {
    /// Takes it and what follows out of a message.
    fn parse(mut body: Body<'_>) -> Result<(RegionAccess, &[u8]), Refused> {
        const SHORT: &str = "an access to a region is too short";
        let offset = body.u64().ok_or(SHORT)?;
        let (region, count) = (body.u32().ok_or(SHORT)?, body.u32().ok_or(SHORT)? as usize);
        let place = usize::try_from(offset).ok().filter(|offset| {
            let end = offset.checked_add(count);
            count <= DATA_BYTES_MAX && end.is_some_and(|end| end <= region_bytes(region))
        });
        match place {
            Some(offset) => Ok((RegionAccess { region, offset, count }, body.rest())),
            None => {
                let what = format!("{count} bytes at {offset:#x} of region {region}");
                Err(Refused::new(Errno::EINVAL, what))
            }
        }
    }

    /// How an answer about it begins.
    fn head(&self) -> [u8; 16] {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&(self.offset as u64).to_le_bytes());
        head[8..12].copy_from_slice(&self.region.to_le_bytes());
        head[12..].copy_from_slice(&(self.count as u32).to_le_bytes());
        head
    }
}

/// Memory as long as the function may reach it.
struct Reachable<'a> {
    maps: &'a Maps,
    master: bool,
    outside: &'a Cell<u64>,
}

impl Reachable<'_> {
    /// Says whether an access was done; counts and tells those that were not.
    fn told(&self, done: bool, what: &str, at: u64, len: usize) -> bool {
        const LINES_MAX: u64 = 20;
        if !done {
            let count = self.outside.get() + 1;
            self.outside.set(count);
            if count <= LINES_MAX {
                let why = if self.master { "no memory is mapped there" } else { "no bus master" };
                eprintln!("ixgbe-vfio-user: refused {what} of {len} bytes at {at:#x}: {why}");
            }
        }
        done
    }
}

impl Memory for Reachable<'_> {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        let done = self.master && self.maps.read(at, to);
        self.told(done, "a DMA read", at, to.len())
    }

    fn write(&self, at: u64, from: &[u8]) -> bool {
        let done = self.master && self.maps.write(at, from);
        self.told(done, "a DMA write", at, from.len())
    }
}

/// The wire, and the client's processors.
struct Port<'a> {
    wire: &'a mut dyn Transmit,
    irqs: &'a mut Irqs,
    master: bool,
}

impl Outside for Port<'_> {
    fn transmit(&mut self, frame: &[u8]) {
        self.wire.transmit(frame);
    }

    /// A message is a write to memory, which only a master of the bus may do.
    fn interrupt(&mut self, vector: u16) {
        if self.master {
            self.irqs.interrupt(vector);
        }
    }
}
