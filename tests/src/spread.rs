//! Connections whose ports differ in all bits.
//!
//! The hash that spreads flows (Toeplitz) is linear: of flows that differ in five bits of a port, as those of a client that takes one
//! port after the other, one random key in twenty leaves one of four queues without any.
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;

/// Below those that the system gives out, above those that are well known.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// A port may be another's.
const TRIES: u64 = 64;

/// Connects from a random port.
pub fn connect_from_anywhere(to: SocketAddrV4) -> io::Result<TcpStream> {
    let random = RandomState::new();
    let mut last = io::Error::other("not tried");
    for attempt in 0..TRIES {
        let span = u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + (random.hash_one(attempt) % span) as u16;
        match connect_from(port, to) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

fn connect_from(port: u16, to: SocketAddrV4) -> nix::Result<TcpStream> {
    let kind = (AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let fd = socket(kind.0, kind.1, kind.2, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(fd))
}
