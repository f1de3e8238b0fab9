//! smoltcp: a socket for each connection, its poll functions, and an echo that knows which socket has news.
use crate::app::PORT;
use crate::server::Server;
use crate::wire;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};
use std::collections::VecDeque;

const BUFFERS: usize = 256;
const BUFFER_BYTES: usize = 2048;
/// Bytes of each socket's two buffers.
const SOCKET_BYTES: usize = 2048;

/// A ring of frames.
#[derive(Debug)]
struct Ring {
    frames: Vec<([u8; BUFFER_BYTES], usize)>,
    written: usize,
    read: usize,
}

impl Ring {
    fn new() -> Ring {
        Ring { frames: vec![([0; BUFFER_BYTES], 0); BUFFERS], written: 0, read: 0 }
    }

    #[inline]
    fn put<R>(&mut self, f: impl FnOnce(&mut [u8]) -> (usize, R)) -> R {
        let (bytes, len) = &mut self.frames[self.written % BUFFERS];
        self.written += 1;
        let result;
        (*len, result) = f(bytes);
        result
    }

    #[inline]
    fn next(&mut self) -> Option<&[u8]> {
        if self.read == self.written {
            return None;
        }
        let (bytes, len) = &self.frames[self.read % BUFFERS];
        self.read += 1;
        Some(&bytes[..*len])
    }
}

#[derive(Debug)]
struct Nic {
    rx: Ring,
    tx: Ring,
    offload: bool,
}

struct Received<'a>(&'a [u8]);
struct Transmit<'a>(&'a mut Ring);

impl RxToken for Received<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Transmit<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.put(|bytes| (len, f(&mut bytes[..len])))
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;
    #[inline]
    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        Some((Received(self.rx.next()?), Transmit(&mut self.tx)))
    }
    #[inline]
    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.tx))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        if self.offload {
            capabilities.checksum.ipv4 = Checksum::None;
            capabilities.checksum.tcp = Checksum::None;
        }
        capabilities
    }
}

/// smoltcp with an echo.
pub struct Smoltcp {
    iface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    nic: Nic,
    /// Clients whose requests have arrived.
    news: VecDeque<usize>,
    now_ns: u64,
}

impl std::fmt::Debug for Smoltcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smoltcp").field("sockets", &self.handles.len()).finish_non_exhaustive()
    }
}

impl Smoltcp {
    /// An interface without sockets.
    pub fn new(offload: bool) -> Smoltcp {
        let mut nic = Nic { rx: Ring::new(), tx: Ring::new(), offload };
        let mac = EthernetAddress(wire::SERVER_MAC);
        let mut iface = Interface::new(Config::new(mac.into()), &mut nic, Instant::ZERO);
        let address = Ipv4Address::from(wire::SERVER);
        iface.update_ip_addrs(|list| {
            list.push(IpCidr::new(address.into(), 24)).expect("room for an address");
        });
        let router = Ipv4Address::from(wire::ROUTER);
        iface.routes_mut().add_default_ipv4_route(router).expect("room for a route");
        let sockets = SocketSet::new(Vec::new());
        Smoltcp { iface, sockets, handles: Vec::new(), nic, news: VecDeque::new(), now_ns: 0 }
    }

    #[inline]
    fn echo(&mut self, i: usize) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handles[i]);
        let mut bytes = [0; 64];
        if let Ok(len @ 1..) = socket.recv_slice(&mut bytes) {
            let sent = socket.send_slice(&bytes[..len]);
            assert_eq!(sent, Ok(len), "room in a socket");
        }
    }
}

impl Server for Smoltcp {
    fn deliver(&mut self, i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) {
        self.nic.rx.put(|bytes| (fill(bytes), ()));
        if i < self.handles.len() {
            self.news.push_back(i);
        }
    }

    #[inline]
    fn turn(&mut self) {
        let now = Instant::from_micros((self.now_ns / 1000) as i64);
        while self.nic.rx.read != self.nic.rx.written {
            let _ = self.iface.poll_ingress_single(now, &mut self.nic, &mut self.sockets);
        }
        while let Some(i) = self.news.pop_front() {
            self.echo(i);
        }
        let _ = self.iface.poll_egress(now, &mut self.nic, &mut self.sockets);
    }

    fn next_sent(&mut self, bytes: &mut Vec<u8>) -> bool {
        let Some(frame) = self.nic.tx.next() else { return false };
        bytes.clear();
        bytes.extend_from_slice(frame);
        true
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn pass_ns(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    fn expect(&mut self, _i: usize) {
        let buffer = || tcp::SocketBuffer::new(vec![0; SOCKET_BYTES]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.listen(PORT).expect("a port");
        self.handles.push(self.sockets.add(socket));
    }

    fn verify(&self) -> bool {
        !self.nic.offload
    }
}
