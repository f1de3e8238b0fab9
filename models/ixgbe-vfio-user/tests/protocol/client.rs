//! A client of a few messages, with a server of its own on a thread.
use crate::Toy;
use ixgbe_vfio_user::config::Config;
use ixgbe_vfio_user::run;
use ixgbe_vfio_user::server::Server;
use ixgbe_vfio_user::socket::Socket;
use ixgbe_vfio_user::wire::{Place, Wire};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::ftruncate;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;
use temp_dir::TempDir;

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const DEVICE_INFO: u16 = 4;
pub const REGION_INFO: u16 = 5;
pub const IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const RESET: u16 = 13;

pub const BAR0: u32 = 0;
pub const CONFIG: u32 = 7;
pub const MSIX: u32 = 2;

/// What the server's thread leaves: how it ended, and how many requests it refused.
pub type Ended = (Result<(), String>, u64);

pub struct Client {
    pub stream: UnixStream,
    /// The other end of the card's cable.
    pub peer: UnixStream,
    server: JoinHandle<Ended>,
    _dir: TempDir,
    next: u16,
}

impl Client {
    /// Connected, and nothing said yet.
    pub fn connect() -> Client {
        let dir = TempDir::new().unwrap();
        let path = dir.child("wire");
        let mut wire = Wire::open(&Place::Listen(path.clone())).unwrap();
        let (stream, other) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let peer = UnixStream::connect(path).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let server = std::thread::spawn(move || {
            let mut client = Socket::new(other).unwrap();
            let config = Config::new(0x10fb, [2, 0, 0, 0, 0, 1]);
            let mut server = Server::new(Toy::default(), config);
            let requests = run::Requests::open().expect("signals");
            let outcome = run::serve(&mut server, &mut client, &mut wire, &requests);
            (outcome.map_err(|e| format!("{e:#}")), server.complaints.count())
        });
        Client { stream, peer, server, _dir: dir, next: 1 }
    }

    /// With a version agreed and the function a master of the bus.
    pub fn new() -> Client {
        let mut client = Client::connect();
        client.ask(VERSION, &[&[0, 0, 1, 0], &b"{}\0"[..]].concat(), &[]).unwrap();
        client.write(CONFIG, 4, &[6, 0]);
        client
    }

    /// Sends a request and gives the answer's body, or its error.
    pub fn ask(&mut self, command: u16, body: &[u8], fds: &[RawFd]) -> Result<Vec<u8>, Errno> {
        let id = self.say(command, 0, body, fds);
        self.answer(id, command)
    }

    /// Sends a request.
    pub fn say(&mut self, command: u16, flags: u32, body: &[u8], fds: &[RawFd]) -> u16 {
        let id = self.next;
        self.next += 1;
        let bytes = [&header(id, command, 16 + body.len() as u32, flags)[..], body].concat();
        self.raw(&bytes, fds);
        id
    }

    /// Sends anything.
    pub fn raw(&mut self, bytes: &[u8], fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        let fd = self.stream.as_raw_fd();
        let sent = sendmsg::<()>(fd, &parts, rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// The answer to a request.
    pub fn answer(&mut self, id: u16, command: u16) -> Result<Vec<u8>, Errno> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).expect("an answer");
        let [a, b, c, d] =
            [0, 4, 8, 12].map(|i| u32::from_le_bytes(head[i..i + 4].try_into().unwrap()));
        assert_eq!(a, u32::from(id) | u32::from(command) << 16);
        let mut body = vec![0; b as usize - 16];
        self.stream.read_exact(&mut body).unwrap();
        match c {
            1 => Ok(body),
            0x21 => Err(Errno::from_raw(d as i32)),
            _ => panic!("flags {c:#x}"),
        }
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        let head = place(region, offset, count);
        let answer = self.ask(REGION_READ, &head, &[])?;
        assert_eq!(answer[..16], head);
        Ok(answer[16..].to_vec())
    }

    pub fn register(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(BAR0, offset, 4).unwrap().try_into().unwrap())
    }

    pub fn try_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let head = place(region, offset, data.len() as u32);
        self.ask(REGION_WRITE, &[&head, data].concat(), &[]).map(|answer| assert_eq!(answer, head))
    }

    #[track_caller]
    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.try_write(region, offset, data).unwrap();
    }

    #[track_caller]
    pub fn set(&mut self, offset: u64, value: u32) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    pub fn map(
        &mut self,
        at: u64,
        bytes: u64,
        fd: &impl AsRawFd,
        offset: u64,
    ) -> Result<(), Errno> {
        let fds = [fd.as_raw_fd()];
        self.ask(DMA_MAP, &dma_map(at, bytes, offset), &fds)
            .map(|answer| assert!(answer.is_empty()))
    }

    pub fn unmap(&mut self, at: u64, bytes: u64) -> Result<(), Errno> {
        let body = [&[24, 0][..], &[0; 0]].concat();
        let mut body: Vec<u8> = body.iter().flat_map(|w: &u32| w.to_le_bytes()).collect();
        body.extend(at.to_le_bytes());
        body.extend(bytes.to_le_bytes());
        self.ask(DMA_UNMAP, &body, &[]).map(|answer| assert_eq!(answer, body))
    }

    pub fn set_irqs(&mut self, words: [u32; 4], fds: &[RawFd]) -> Result<Vec<u8>, Errno> {
        let [flags, kind, start, count] = words;
        let body = [20, flags, kind, start, count].map(u32::to_le_bytes).concat();
        self.ask(SET_IRQS, &body, fds)
    }

    /// Leaves; how the server took it.
    pub fn leave(self) -> Ended {
        drop(self.stream);
        self.server.join().expect("the server does not panic")
    }
}

pub fn header(id: u16, command: u16, size: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&id.to_le_bytes());
    bytes[2..4].copy_from_slice(&command.to_le_bytes());
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes[8..12].copy_from_slice(&flags.to_le_bytes());
    bytes
}

pub fn place(region: u32, offset: u64, count: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&offset.to_le_bytes());
    head[8..12].copy_from_slice(&region.to_le_bytes());
    head[12..].copy_from_slice(&count.to_le_bytes());
    head
}

pub fn dma_map(at: u64, bytes: u64, offset: u64) -> Vec<u8> {
    let mut body = [32u32, 3].map(u32::to_le_bytes).concat();
    body.extend([offset, at, bytes].map(u64::to_le_bytes).concat());
    body
}

/// Memory that a server can map.
pub fn memory(bytes: u64) -> File {
    let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, bytes as i64).unwrap();
    File::from(fd)
}

pub fn event() -> EventFd {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap()
}

/// Waits for an interrupt; gives how many there were.
#[track_caller]
pub fn interrupts(event: &EventFd) -> u64 {
    let mut fds = [nix::poll::PollFd::new(event.as_fd(), nix::poll::PollFlags::POLLIN)];
    let ready = nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(20_000u16)).unwrap();
    assert_eq!(ready, 1, "no interrupt");
    event.read().unwrap()
}
