//! smoltcp as the peer: an implementation that shares nothing with the engine.
use super::family::{self, V6};
use super::net::End;
use ix_dataplane::time::{Duration, Instant};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

#[derive(Default)]
pub struct Wire {
    /// Bytes of the largest IP packet.
    mtu: usize,
    inbox: VecDeque<Vec<u8>>,
    outbox: VecDeque<Vec<u8>>,
}

pub struct RxToken(Vec<u8>);
pub struct TxToken<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(
        &mut self,
        _now: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.inbox.pop_front()?;
        Some((RxToken(frame), TxToken(&mut self.outbox)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        Some(TxToken(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = 14 + self.mtu;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

/// Until a station has its address.
pub const SETTLE: Duration = Duration::from_ms(if V6 { 3_000 } else { 1 });

/// What a peer's program does each time it is run: `now` in, when to be run again out.
pub type Program = Box<dyn FnMut(&mut SocketSet<'static>, &mut Interface)>;

pub struct Peer {
    pub wire: Wire,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub program: Option<Program>,
}

fn time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros((now.0 / 1000) as i64)
}

impl Peer {
    pub fn new(last: u8, now: Instant) -> Peer {
        Peer::with_mtu(last, now, 1500)
    }

    /// On a link that takes IP packets of `mtu` bytes.
    pub fn with_mtu(last: u8, now: Instant, mtu: usize) -> Peer {
        let mut wire = Wire { mtu, ..Wire::default() };
        let mac = EthernetAddress([2, 0, 0, 0, 0, last]);
        let mut config = Config::new(mac.into());
        config.random_seed = u64::from(last);
        let mut interface = Interface::new(config, &mut wire, time(now));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, last), 24)).unwrap();
            let v6 = IpAddress::Ipv6(family::v6([10, 0, 0, last]).into());
            addresses.push(IpCidr::new(v6, 64)).unwrap();
        });
        Peer { wire, interface, sockets: SocketSet::new(Vec::new()), program: None }
    }

    /// A TCP socket with buffers of the given size.
    pub fn socket(&mut self, buffer: usize) -> SocketHandle {
        let rx = tcp::SocketBuffer::new(vec![0; buffer]);
        let tx = tcp::SocketBuffer::new(vec![0; buffer]);
        self.sockets.add(tcp::Socket::new(rx, tx))
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn connect(&mut self, handle: SocketHandle, to: [u8; 4], port: u16, from: u16) {
        let [a, b, c, d] = to;
        let v4 = IpAddress::v4(a, b, c, d);
        let to = if V6 { IpAddress::Ipv6(family::v6(to).into()) } else { v4 };
        let remote = (to, port);
        let context = self.interface.context();
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).connect(context, remote, from).unwrap();
    }
}

impl End for Peer {
    fn step(&mut self, now: Instant) -> Instant {
        self.interface.poll(time(now), &mut self.wire, &mut self.sockets);
        if let Some(program) = &mut self.program {
            program(&mut self.sockets, &mut self.interface);
            self.interface.poll(time(now), &mut self.wire, &mut self.sockets);
        }
        match self.interface.poll_at(time(now), &self.sockets) {
            Some(at) => {
                let at = Instant(at.total_micros() as u64 * 1000);
                if at < now { now } else { at }
            }
            None => Instant::NEVER,
        }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.wire.outbox.drain(..).collect()
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.wire.inbox.push_back(frame);
    }
}
