//! A host on the other end of QEMU's `-netdev stream`: smoltcp's TCP/IP stack behind a Unix socket,
//! with faults by seed and a packet capture that is written when the test fails.
//!
//! Everything is one thread: a call polls the stack until what it waits for has come, or fails at
//! its deadline.
pub mod device;
pub mod faults;
pub mod pcap;
pub mod pinger;

use device::StreamDevice;
use faults::Faults;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpEndpoint,
    Ipv4Address, Ipv6Address,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of each TCP socket's buffers.
const TCP_BUFFER: usize = 256 * 1024;
/// This host's address unless told otherwise: what the guest takes for its gateway.
pub const HOST_IP: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// The guest's address unless told otherwise.
pub const GUEST_IP: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);

/// What went wrong, with what was waited for.
pub type Result<T> = std::result::Result<T, String>;

/// A socket where QEMU will connect.
#[derive(Debug)]
pub struct Listener {
    _dir: temp_dir::TempDir,
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// Listens at a fresh path.
    pub fn bind() -> Listener {
        let dir = temp_dir::TempDir::with_prefix("ix-peer-").expect("a directory");
        let path = dir.path().join("net");
        let listener = UnixListener::bind(&path).expect("a socket");
        Listener { _dir: dir, path, listener }
    }

    /// For `--net stream=PATH`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes QEMU's connection.
    pub fn accept(&self) -> UnixStream {
        self.listener.set_nonblocking(true).expect("a mode");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok((stream, _)) = self.listener.accept() {
                return stream;
            }
            assert!(Instant::now() < deadline, "QEMU does not connect to the peer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A TCP connection of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn(SocketHandle);

/// A UDP socket of the host.
#[derive(Clone, Copy, Debug)]
pub struct Udp(SocketHandle);

/// A host with one network card.
pub struct Host {
    interface: Interface,
    device: StreamDevice,
    sockets: SocketSet<'static>,
    epoch: Instant,
    next_port: u16,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Host {
    /// The usual peer of a guest: 10.0.2.2.
    pub fn new(stream: UnixStream, faults: Faults) -> Host {
        Host::with_address(stream, faults, HOST_IP, 0xfe)
    }

    /// A host with another address; `station` ends its hardware address.
    pub fn with_address(stream: UnixStream, faults: Faults, ip: Ipv4Address, station: u8) -> Host {
        let mut device = StreamDevice::new(stream, faults);
        let mac = EthernetAddress([0x52, 0x54, 0, 0, 0, station]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = 1;
        let mut interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(ip), 24)).expect("room for two addresses");
            let six = Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(station));
            addresses.push(IpCidr::new(IpAddress::Ipv6(six), 64)).expect("room for two addresses");
        });
        Host {
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            epoch: Instant::now(),
            next_port: 49_152,
        }
    }

    /// From now on in this VLAN: what is sent has its tag, what comes without is not seen.
    pub fn set_vlan(&mut self, vlan: Option<u16>) {
        self.device.set_vlan(vlan);
    }

    /// Frames lost, doubled and delayed so far.
    pub fn faults(&self) -> faults::Counts {
        self.device.faults()
    }

    /// Moves frames and time on.
    pub fn poll(&mut self) {
        let now = SmolInstant::from_micros(self.epoch.elapsed().as_micros() as i64);
        self.device.pump();
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        self.device.pump();
    }

    /// Polls until `done` gives something.
    pub fn until<T>(
        &mut self,
        patience: Duration,
        what: &str,
        mut done: impl FnMut(&mut Host) -> Option<Result<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            self.poll();
            if let Some(result) = done(self) {
                return result.map_err(|e| format!("{what}: {e}"));
            }
            if self.device.ended() {
                return Err(format!("{what}: the other side of the link is gone"));
            }
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {patience:?}"));
            }
            self.device.wait(Duration::from_millis(1));
        }
    }

    /// Polls for a while.
    pub fn run(&mut self, time: Duration) {
        let _ = self.until(time, "", |_| None::<Result<()>>);
    }

    /// Sends an ICMP echo request and waits for its answer; the time between.
    pub fn ping(&mut self, to: Ipv4Address, data: &[u8], patience: Duration) -> Result<Duration> {
        const IDENT: u16 = 0x1234;
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 8192]);
        let handle = self.sockets.add(icmp::Socket::new(buffer(), buffer()));
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(handle);
        socket.bind(icmp::Endpoint::Ident(IDENT)).map_err(|e| e.to_string())?;
        let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: 1, data };
        let out = socket.send(request.buffer_len(), to.into()).map_err(|e| e.to_string())?;
        request.emit(&mut Icmpv4Packet::new_unchecked(out), &ChecksumCapabilities::default());
        let start = Instant::now();
        let result = self.until(patience, "ping", |host| {
            let socket = host.sockets.get_mut::<icmp::Socket<'_>>(handle);
            let (bytes, _) = socket.recv().ok()?;
            let packet = Icmpv4Packet::new_checked(bytes).ok()?;
            match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()) {
                Ok(Icmpv4Repr::EchoReply { ident: IDENT, seq_no: 1, data: got }) => {
                    let same = got == data;
                    Some(if same { Ok(()) } else { Err("other data came back".to_owned()) })
                }
                other => Some(Err(format!("unexpected answer {other:?}"))),
            }
        });
        self.sockets.remove(handle);
        result.map(|()| start.elapsed())
    }

    /// The next connection's port is so many further on (an even number, to meet all). Ports in a row may
    /// hash to few flow groups.
    pub fn skip_ports(&mut self, count: u16) {
        self.next_port = 49_152 + (self.next_port - 49_152 + count) % 16_384;
    }

    /// Begins a TCP connection.
    pub fn start_connect(&mut self, to: impl Into<IpAddress>, port: u16) -> Conn {
        let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let local = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
        socket
            .connect(self.interface.context(), IpEndpoint::new(to.into(), port), local)
            .expect("a fresh socket can connect");
        Conn(self.sockets.add(socket))
    }

    /// Opens a TCP connection.
    pub fn connect(
        &mut self,
        to: impl Into<IpAddress>,
        port: u16,
        patience: Duration,
    ) -> Result<Conn> {
        let conn = self.start_connect(to, port);
        self.established(conn, patience).map(|()| conn)
    }

    /// Waits until a connection is open.
    pub fn established(&mut self, conn: Conn, patience: Duration) -> Result<()> {
        self.until(patience, "connect", |host| match host.tcp(conn).state() {
            tcp::State::Established | tcp::State::CloseWait => Some(Ok(())),
            tcp::State::Closed => Some(Err("refused or reset".to_owned())),
            _ => None,
        })
    }

    /// Waits for a connection to one of this host's ports.
    pub fn accept(&mut self, port: u16, patience: Duration) -> Result<Conn> {
        let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).map_err(|e| e.to_string())?;
        let conn = Conn(self.sockets.add(socket));
        self.established(conn, patience).map(|()| conn)
    }

    fn tcp(&mut self, conn: Conn) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(conn.0)
    }

    /// The connection's state.
    pub fn state(&mut self, conn: Conn) -> tcp::State {
        self.tcp(conn).state()
    }

    /// Puts what fits of `data` into the send buffer; how much that was.
    pub fn try_send(&mut self, conn: Conn, data: &[u8]) -> Result<usize> {
        let socket = self.tcp(conn);
        if !socket.may_send() {
            return Err(format!("cannot send in state {}", socket.state()));
        }
        socket.send_slice(data).map_err(|e| e.to_string())
    }

    /// Takes what has come, at most `into.len()`; `None` at the end of the stream.
    pub fn try_recv(&mut self, conn: Conn, into: &mut [u8]) -> Result<Option<usize>> {
        let socket = self.tcp(conn);
        if socket.can_recv() {
            return socket.recv_slice(into).map(Some).map_err(|e| e.to_string());
        }
        if socket.may_recv() {
            return Ok(Some(0));
        }
        match socket.state() {
            tcp::State::Closed => Err("reset".to_owned()),
            _ => Ok(None),
        }
    }

    /// Sends everything.
    pub fn send(&mut self, conn: Conn, data: &[u8], patience: Duration) -> Result<()> {
        let mut rest = data;
        self.until(patience, "send", |host| {
            match host.try_send(conn, rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) => return Some(Err(e)),
            }
            rest.is_empty().then_some(Ok(()))
        })
    }

    /// Receives exactly `len` bytes.
    pub fn recv(&mut self, conn: Conn, len: usize, patience: Duration) -> Result<Vec<u8>> {
        let mut got = vec![0; len];
        let mut at = 0;
        self.until(patience, "receive", |host| {
            match host.try_recv(conn, &mut got[at..]) {
                Ok(Some(n)) => at += n,
                Ok(None) if at < len => {
                    return Some(Err(format!("the stream ends after {at} of {len} bytes")));
                }
                Ok(None) => {}
                Err(e) => return Some(Err(e)),
            }
            (at == len).then_some(Ok(()))
        })?;
        Ok(got)
    }

    /// Sends `data` and at the same time receives as much; what came.
    pub fn exchange(&mut self, conn: Conn, data: &[u8], patience: Duration) -> Result<Vec<u8>> {
        let mut got = vec![0; data.len()];
        let (mut sent, mut at) = (0, 0);
        self.until(patience, "exchange", |host| {
            if sent < data.len() {
                match host.try_send(conn, &data[sent..]) {
                    Ok(n) => sent += n,
                    Err(e) => return Some(Err(e)),
                }
            }
            match host.try_recv(conn, &mut got[at..]) {
                Ok(Some(n)) => at += n,
                Ok(None) => return Some(Err(format!("the stream ends after {at} bytes"))),
                Err(e) => return Some(Err(e)),
            }
            (at == data.len()).then_some(Ok(()))
        })
        .map_err(|e| format!("{e} (sent {sent}, received {at} of {})", data.len()))?;
        Ok(got)
    }

    /// Ends our direction of the stream.
    pub fn shutdown(&mut self, conn: Conn) {
        self.tcp(conn).close();
    }

    /// Ends our direction, expects the other's end, and waits until the connection is over.
    pub fn close(&mut self, conn: Conn, patience: Duration) -> Result<()> {
        self.shutdown(conn);
        self.until(patience, "close", |host| match host.state(conn) {
            tcp::State::TimeWait | tcp::State::Closed => Some(Ok(())),
            _ => None,
        })?;
        self.forget(conn);
        Ok(())
    }

    /// Sends RST.
    pub fn abort(&mut self, conn: Conn) {
        self.tcp(conn).abort();
        self.poll();
    }

    /// Frees the connection's socket.
    pub fn forget(&mut self, conn: Conn) {
        self.sockets.remove(conn.0);
    }

    /// A UDP socket on a port.
    pub fn udp(&mut self, port: u16) -> Udp {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 128 * 1024]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a fresh socket can bind");
        Udp(self.sockets.add(socket))
    }

    /// Sends a datagram.
    pub fn udp_send(&mut self, from: Udp, to: Ipv4Address, port: u16, data: &[u8]) -> Result<()> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(from.0);
        let to = IpEndpoint::new(to.into(), port);
        let sent = socket.send_slice(data, to).map_err(|e| e.to_string());
        self.poll();
        sent
    }

    /// Receives a datagram and where it came from.
    pub fn udp_recv(&mut self, at: Udp, patience: Duration) -> Result<(Vec<u8>, IpEndpoint)> {
        self.until(patience, "datagram", |host| {
            let socket = host.sockets.get_mut::<udp::Socket<'_>>(at.0);
            socket.recv().ok().map(|(data, meta)| Ok((data.to_vec(), meta.endpoint)))
        })
    }

    /// Sends a frame as it is.
    pub fn inject(&mut self, frame: &[u8]) {
        self.device.inject(frame);
        self.poll();
    }
}

#[cfg(test)]
mod tests;
