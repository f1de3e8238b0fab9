//! Connections that reach all cores, whatever the key is.
//!
//! The hash that spreads flows (Toeplitz) is linear, and its key another at each boot: of a few connections from any ports, a core
//! may get none. What each key holds (`rss::spreads` of the dataplane) is that the sender's port's bits 1 to 6 reach each of
//! 16 queues. So ports differ in these bits only, 64 in a row, and those come first that differ in few of them: with the first 7
//! each of two queues has a connection, with 22 each of four, with 42 each of eight, and with all 64 each has as many.
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;

/// Below those that the system gives out, above those that are well known.
const PORTS: std::ops::Range<u16> = 10_240..31_744;
/// Ports from one row to the next.
const ROW: u16 = 128;
/// Connections of a row.
const IN_A_ROW: usize = 64;
/// A port may be another's; then it is the one of the next row.
const TRIES: u16 = 64;

/// The ports of one client's connections.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Of the row that is next.
    row: u16,
    taken: usize,
}

impl Default for Spread {
    /// Beginning with any row, so that two programs on one machine hardly meet.
    fn default() -> Spread {
        let rows = (PORTS.end - PORTS.start) / ROW;
        Spread { row: (RandomState::new().hash_one(0) % u64::from(rows)) as u16, taken: 0 }
    }
}

impl Spread {
    /// Connects from the next port.
    pub fn connect(&mut self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let mut last = io::Error::other("not tried");
        if self.taken == IN_A_ROW {
            (self.row, self.taken) = (self.row + 1, 0);
        }
        let offset = offsets()[self.taken];
        self.taken += 1;
        for attempt in 0..TRIES {
            match connect_from(self.port(attempt, offset), to) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = e.into(),
            }
        }
        Err(last)
    }

    fn port(&self, further: u16, offset: u16) -> u16 {
        let rows = (PORTS.end - PORTS.start) / ROW;
        PORTS.start + (self.row + further) % rows * ROW + offset
    }
}

/// Bits 1 to 6, by how many are set.
fn offsets() -> [u16; IN_A_ROW] {
    let mut all: [u16; IN_A_ROW] = std::array::from_fn(|i| 2 * i as u16);
    all.sort_by_key(|offset| offset.count_ones());
    all
}

fn connect_from(port: u16, to: SocketAddrV4) -> nix::Result<TcpStream> {
    let kind = (AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let fd = socket(kind.0, kind.1, kind.2, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(fd))
}

#[cfg(test)]
mod tests;
