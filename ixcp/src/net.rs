//! What the user says about the network: the back end, forwarded ports, the guest's address.
use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

/// QEMU's network back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// QEMU's own user-mode stack: no rights needed, ports forwarded.
    User,
    /// A Unix socket where a peer listens; each frame is preceded by its length.
    Stream(PathBuf),
    /// A TAP interface that exists already.
    Tap(String),
}

impl FromStr for Backend {
    type Err = String;
    fn from_str(s: &str) -> Result<Backend, String> {
        match s.split_once('=') {
            None if s == "user" => Ok(Backend::User),
            Some(("stream", path)) if !path.is_empty() => Ok(Backend::Stream(path.into())),
            Some(("tap", name))
                if !name.is_empty() && name.len() < 16 && !name.contains(['/', ',']) =>
            {
                Ok(Backend::Tap(name.to_owned()))
            }
            _ => Err("user, stream=PATH or tap=INTERFACE is wanted".to_owned()),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::User => f.write_str("user"),
            Backend::Stream(path) => write!(f, "stream={}", path.display()),
            Backend::Tap(name) => write!(f, "tap={name}"),
        }
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A port of this machine that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Where this machine listens.
    pub host: SocketAddrV4,
    /// The guest's port.
    pub guest: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

impl FromStr for Forward {
    type Err = String;
    fn from_str(s: &str) -> Result<Forward, String> {
        const WANTED: &str = "[ADDRESS:]HOSTPORT:GUESTPORT[/udp] is wanted";
        let (ports, protocol) = match s.split_once('/') {
            None | Some((_, "tcp")) => (s.split('/').next().unwrap_or(s), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(WANTED.to_owned()),
        };
        let (host, guest) = ports.rsplit_once(':').ok_or(WANTED)?;
        let (address, port) = host.rsplit_once(':').unwrap_or(("127.0.0.1", host));
        let address: Ipv4Addr = address.parse().map_err(|_| WANTED)?;
        let port: u16 = port.parse().map_err(|_| WANTED)?;
        let guest: u16 = guest.parse().map_err(|_| WANTED)?;
        if guest == 0 {
            return Err("the guest's port cannot be 0".to_owned());
        }
        Ok(Forward { host: SocketAddrV4::new(address, port), guest, protocol })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.guest, self.protocol)
    }
}

/// A forward whose port can be had.
#[derive(Debug)]
pub struct Claimed {
    /// With the port in place of 0.
    pub forward: Forward,
    /// Keeps a free port from whoever asks the system for one before QEMU listens there.
    _held: Option<OwnedFd>,
}

/// A free TCP port of this address, and a socket that has it and does not listen: so another one may, that says `SO_REUSEADDR`.
fn hold(ip: Ipv4Addr) -> io::Result<(SocketAddrV4, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let held = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&held, sockopt::ReuseAddr, &true)?;
    bind(held.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, 0)))?;
    let bound: SockaddrIn = getsockname(held.as_raw_fd())?;
    Ok((bound.into(), held))
}

impl Forward {
    /// Makes sure that the port can be had; port 0 becomes a free one.
    pub fn claim(self) -> Result<Claimed> {
        let free = || -> io::Result<(u16, Option<OwnedFd>)> {
            Ok(match self.protocol {
                Protocol::Tcp if self.host.port() == 0 => {
                    let (bound, held) = hold(*self.host.ip())?;
                    (bound.port(), Some(held))
                }
                Protocol::Tcp => (TcpListener::bind(self.host)?.local_addr()?.port(), None),
                Protocol::Udp => (UdpSocket::bind(self.host)?.local_addr()?.port(), None),
            })
        };
        let (port, held) = free().with_context(|| {
            format!(
                "cannot listen on {}/{}: choose another host port, for example --forward {}:{}",
                self.host,
                self.protocol,
                self.host.port().checked_add(1000).unwrap_or(10_000),
                self.guest
            )
        })?;
        let forward = Forward { host: SocketAddrV4::new(*self.host.ip(), port), ..self };
        Ok(Claimed { forward, _held: held })
    }
}

/// Where QEMU's user network, 10.0.2.0/24, has this machine.
pub const USER_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// The guest's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// From a DHCP server.
    Dhcp,
    /// Fixed.
    Static {
        /// The address.
        ip: Ipv4Addr,
        /// Length of the network's prefix.
        prefix: u8,
    },
}

impl Address {
    /// What QEMU's user network gives its first guest.
    pub const USUAL: Address = Address::Static { ip: Ipv4Addr::new(10, 0, 2, 15), prefix: 24 };
}

impl FromStr for Address {
    type Err = String;
    fn from_str(s: &str) -> Result<Address, String> {
        if s == "dhcp" {
            return Ok(Address::Dhcp);
        }
        let parse = || {
            let (ip, prefix) = s.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|p| (1..=32).contains(p))?;
            Some(Address::Static { ip: ip.parse().ok()?, prefix })
        };
        parse().ok_or_else(|| "dhcp or A.B.C.D/LENGTH is wanted".to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Dhcp => f.write_str("dhcp"),
            Address::Static { ip, prefix } => write!(f, "{ip}/{prefix}"),
        }
    }
}

/// The guest's IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address6 {
    /// None.
    Off,
    /// From routers, with hashed identifiers.
    Auto,
    /// From routers, with identifiers made of the hardware address.
    Eui64,
    /// Fixed.
    Static {
        /// The address.
        ip: Ipv6Addr,
        /// Length of the network's prefix.
        prefix: u8,
    },
}

impl FromStr for Address6 {
    type Err = String;
    fn from_str(s: &str) -> Result<Address6, String> {
        let parse = || {
            let (ip, prefix) = s.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|p| (1..=128).contains(p))?;
            Some(Address6::Static { ip: ip.parse().ok()?, prefix })
        };
        match s {
            "off" => Ok(Address6::Off),
            "auto" => Ok(Address6::Auto),
            "eui64" => Ok(Address6::Eui64),
            _ => parse().ok_or_else(|| "auto, eui64, off or ADDRESS/LENGTH is wanted".to_owned()),
        }
    }
}

impl fmt::Display for Address6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address6::Off => f.write_str("off"),
            Address6::Auto => f.write_str("auto"),
            Address6::Eui64 => f.write_str("eui64"),
            Address6::Static { ip, prefix } => write!(f, "{ip}/{prefix}"),
        }
    }
}

/// What is known about a TAP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// It takes several queues.
    pub multi_queue: bool,
}

/// Looks a TAP interface up; `sys` is where sysfs is mounted.
pub fn find_tap(sys: &Path, name: &str) -> Result<Tap> {
    const IFF_TAP: u32 = 0x0002;
    const IFF_MULTI_QUEUE: u32 = 0x0100;
    let interface = sys.join("class/net").join(name);
    ensure!(
        interface.exists(),
        "there is no network interface {name}; make one (as root):\n  \
         ip tuntap add dev {name} mode tap multi_queue user {user}\n  \
         ip address add 10.0.2.2/24 dev {name}\n  ip link set {name} up",
        user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned())
    );
    let flags = std::fs::read_to_string(interface.join("tun_flags"))
        .with_context(|| format!("{name} is a network interface, but not a TAP"))?;
    let text = flags.trim().trim_start_matches("0x");
    let flags = u32::from_str_radix(text, 16)
        .with_context(|| format!("the flags of {name} are not a number: {flags:?}"))?;
    ensure!(flags & IFF_TAP != 0, "{name} is a TUN interface; a TAP is needed (mode tap)");
    Ok(Tap { multi_queue: flags & IFF_MULTI_QUEUE != 0 })
}

/// Checks that a peer can be expected behind a socket.
pub fn check_stream(path: &Path) -> Result<()> {
    let meta = std::fs::metadata(path).with_context(|| {
        format!("no peer listens at {}: start it first, it makes the socket", path.display())
    })?;
    if !meta.file_type().is_socket() {
        bail!("{} is not a Unix socket", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
