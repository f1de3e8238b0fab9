//! smoltcp: a socket for each connection, its poll functions, and an echo that knows which socket has news.
use crate::app::PORT;
use crate::server::Server;
use crate::wire;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};
use std::collections::VecDeque;

const BUFFERS: usize = 256;
const BUFFER_BYTES: usize = 2048;
/// Bytes of each of a socket's two buffers.
const SOCKET_BYTES: usize = 2048;
/// The same where one connection carries much.
const BULK_SOCKET_BYTES: usize = 256 * 1024;

/// What its application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Sends back what came, and closes after its peer.
    Echo,
    /// Takes what comes.
    Sink,
    /// Sends what the buffer takes.
    Source,
}

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
    does: Does,
    batch: usize,
    /// Sockets; more clients than that use them in turn.
    sockets_max: usize,
    now_ns: u64,
}

impl std::fmt::Debug for Smoltcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smoltcp").field("sockets", &self.handles.len()).finish_non_exhaustive()
    }
}

impl Smoltcp {
    /// An interface without sockets, which takes at most `batch` frames in a turn.
    pub fn new(does: Does, offload: bool, batch: usize, sockets_max: usize) -> Smoltcp {
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
        let (handles, news) = (Vec::new(), VecDeque::new());
        Smoltcp { iface, sockets, handles, nic, news, does, batch, sockets_max, now_ns: 0 }
    }

    /// The application: what client `i` has sent, or acknowledged.
    #[inline]
    fn app(&mut self, i: usize) {
        let handle = self.handles[i % self.sockets_max];
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        match self.does {
            Does::Echo => {
                let mut bytes = [0; 64];
                if let Ok(len @ 1..) = socket.recv_slice(&mut bytes) {
                    let sent = socket.send_slice(&bytes[..len]);
                    assert_eq!(sent, Ok(len), "room in a socket");
                } else if socket.state() == tcp::State::CloseWait {
                    socket.close();
                }
            }
            Does::Sink => while let Ok(1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) {},
            Does::Source => while let Ok(1..) = socket.send(|room| (room.len(), room.len())) {},
        }
    }
}

impl Server for Smoltcp {
    fn deliver(&mut self, i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) {
        self.nic.rx.put(|bytes| (fill(bytes), ()));
        if i != usize::MAX {
            self.news.push_back(i);
        }
    }

    #[inline]
    fn turn(&mut self) {
        let now = Instant::from_micros((self.now_ns / 1000) as i64);
        for _ in 0..self.batch {
            if self.nic.rx.read == self.nic.rx.written {
                break;
            }
            let _ = self.iface.poll_ingress_single(now, &mut self.nic, &mut self.sockets);
            if let Some(i) = self.news.pop_front() {
                self.app(i);
            }
        }
        let mut left = if self.does == Does::Source { self.batch } else { 1 };
        while left > 0
            && self.iface.poll_egress(now, &mut self.nic, &mut self.sockets)
                == PollResult::SocketStateChanged
        {
            left -= 1;
        }
    }

    fn waiting(&self) -> usize {
        self.nic.rx.written - self.nic.rx.read
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

    fn expect(&mut self, i: usize) {
        let bytes = if self.does == Does::Echo { SOCKET_BYTES } else { BULK_SOCKET_BYTES };
        let buffer = || tcp::SocketBuffer::new(vec![0; bytes]);
        while self.handles.len() <= i % self.sockets_max {
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            self.handles.push(self.sockets.add(socket));
        }
        let handle = self.handles[i % self.sockets_max];
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).listen(PORT).expect("a closed socket");
    }

    fn verify(&self) -> bool {
        !self.nic.offload
    }
}
