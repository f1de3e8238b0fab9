//! The other end of the chip's cable: frames to and from a socket in QEMU's framing, or a TAP interface. Never waits:
//! who serves a guest's register access must not depend on who reads the wire, since that may be the same QEMU.
use anyhow::{Context, Result};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::str::FromStr;

mod datagram;
mod stream;
mod tap;
use datagram::Datagram;
use stream::Stream;
use tap::Tap;

/// Longest frame that the chip knows, without FCS (datasheet §7.1, 15.5 KiB).
pub const FRAME_BYTES_MAX: usize = 15_872;
/// Shortest frame on a cable, without FCS: shorter ones arrive padded.
pub const FRAME_BYTES_MIN: usize = 60;
/// Room for what a socket may give: QEMU's own limit is below that.
pub const BUFFER_BYTES: usize = 128 * 1024;

/// Takes frames from the chip.
pub trait Transmit {
    /// One frame, without FCS.
    fn transmit(&mut self, frame: &[u8]);
}

/// Where the cable leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: what is sent is lost.
    Nowhere,
    /// A Unix socket where a peer listens (as QEMU's `-netdev stream,server=on`): a frame is preceded by its length, 32 bits, big-endian.
    Connect(PathBuf),
    /// The same, but the peer comes here (`server=off`).
    Listen(PathBuf),
    /// Datagrams, a frame each (`-netdev dgram`): our path and the peer's.
    Datagram(PathBuf, PathBuf),
    /// A TAP interface that exists already.
    Tap(String),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Place, String> {
        match text.split_once('=') {
            None if text == "none" => Ok(Place::Nowhere),
            Some(("stream", path)) if !path.is_empty() => Ok(Place::Connect(path.into())),
            Some(("listen", path)) if !path.is_empty() => Ok(Place::Listen(path.into())),
            Some(("dgram", paths)) => match paths.split_once(',') {
                Some((ours, theirs)) if !ours.is_empty() && !theirs.is_empty() => {
                    Ok(Place::Datagram(ours.into(), theirs.into()))
                }
                _ => Err("dgram=OUR_PATH,PEERS_PATH is wanted".to_owned()),
            },
            Some(("tap", name)) if !name.is_empty() && name.len() < 16 => {
                Ok(Place::Tap(name.to_owned()))
            }
            _ => Err("none, stream=PATH, listen=PATH, dgram=PATH,PATH or tap=INTERFACE is wanted"
                .to_owned()),
        }
    }
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the peer.
    pub sent: u64,
    /// Not sent: the peer reads too slowly.
    pub full: u64,
    /// Not sent: there is no peer.
    pub nobody: u64,
    /// Come from the peer.
    pub received: u64,
    /// Come from the peer and dropped: longer than a frame can be, or empty.
    pub odd: u64,
}

enum Kind {
    Nowhere,
    Stream(Stream),
    Datagram(Datagram),
    Tap(Tap),
}

/// The cable.
pub struct Wire {
    kind: Kind,
    /// What became of frames.
    pub counts: Counts,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// What a try to send came to.
enum Sent {
    Yes,
    Full,
    Nobody,
}

impl Wire {
    /// Plugs it in.
    ///
    /// # Errors
    /// The socket or interface is not there, or not to be had.
    pub fn open(place: &Place) -> Result<Wire> {
        let kind = match place {
            Place::Nowhere => Kind::Nowhere,
            Place::Connect(path) => Kind::Stream(Stream::connect(path).with_context(|| {
                format!("no peer listens at {}: start it first", path.display())
            })?),
            Place::Listen(path) => Kind::Stream(Stream::listen(path)?),
            Place::Datagram(ours, theirs) => Kind::Datagram(Datagram::bind(ours, theirs)?),
            Place::Tap(name) => Kind::Tap(Tap::open(name)?),
        };
        Ok(Wire { kind, counts: Counts::default() })
    }

    /// For waiting until there is something to receive, or a peer.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Nowhere => None,
            Kind::Stream(stream) => stream.as_fd(),
            Kind::Datagram(datagram) => Some(datagram.as_fd()),
            Kind::Tap(tap) => Some(tap.as_fd()),
        }
    }

    /// Whether to wait until more can be sent, too.
    pub fn is_behind(&self) -> bool {
        matches!(&self.kind, Kind::Stream(stream) if stream.is_behind())
    }

    /// Whether there is something to receive that no waiting would tell of.
    pub fn has_input(&self) -> bool {
        matches!(&self.kind, Kind::Stream(stream) if stream.has_input())
    }

    /// Sends what has gathered.
    pub fn flush(&mut self) {
        if let Kind::Stream(stream) = &mut self.kind {
            stream.flush();
        }
    }

    /// The next frame, put at the front of `to` ([`BUFFER_BYTES`]) and padded; `None`: no more for now.
    pub fn receive(&mut self, to: &mut [u8]) -> Option<usize> {
        loop {
            let len = match &mut self.kind {
                Kind::Nowhere => None,
                Kind::Stream(stream) => stream.receive(to),
                Kind::Datagram(datagram) => datagram.receive(to),
                Kind::Tap(tap) => tap.receive(to),
            }?;
            if (1..=FRAME_BYTES_MAX).contains(&len) {
                self.counts.received += 1;
                let padded = len.max(FRAME_BYTES_MIN);
                to[len..padded].fill(0);
                return Some(padded);
            }
            self.counts.odd += 1;
        }
    }
}

impl Transmit for Wire {
    fn transmit(&mut self, frame: &[u8]) {
        let sent = match &mut self.kind {
            Kind::Nowhere => Sent::Nobody,
            Kind::Stream(stream) => stream.send(frame),
            Kind::Datagram(datagram) => datagram.send(frame),
            Kind::Tap(tap) => tap.send(frame),
        };
        *match sent {
            Sent::Yes => &mut self.counts.sent,
            Sent::Full => &mut self.counts.full,
            Sent::Nobody => &mut self.counts.nobody,
        } += 1;
    }
}

#[cfg(test)]
mod tests;
