//! A DHCP client (RFC 2131): sans-IO, from the first DISCOVER to renewing and losing a lease.
//!
//! The caller sends what [`Client::poll`] says from UDP port 68 to 67, and gives [`Client::handle`]
//! what arrives at port 68. Not done: probing the address by ARP before use and DECLINE
//! (§4.4.1 SHOULD), INIT-REBOOT, RELEASE.
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use arrayvec::ArrayVec;
use smoltcp::wire::{
    DHCP_MAX_DNS_SERVER_COUNT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Ipv4Address,
};

#[cfg(test)]
mod tests;

/// The port that the client's messages come from.
pub const CLIENT_PORT: u16 = 68;
/// The port that they go to.
pub const SERVER_PORT: u16 = 67;
/// Bytes of the largest message sent. Short ones are padded: some relays drop what is smaller
/// than a BOOTP message (RFC 1542 §2.1).
const MESSAGE_MAX: usize = 320;
const MESSAGE_MIN: usize = 300;

/// RFC 2131 §4.1: the first repetition after 4 s, doubled up to 64 s, each ±1 s.
const RETRY_MIN: Duration = Duration::from_s(4);
const RETRY_MAX: Duration = Duration::from_s(64);
/// Unanswered requests for an offer until it all begins anew.
const REQUEST_TRIES: u32 = 5;
/// §4.4.5: repetitions while renewing are at least this apart.
const RENEW_RETRY_MIN: Duration = Duration::from_s(60);
/// A shorter lease than this is not believed, or a server could make us flood the link.
const LEASE_MIN_S: u32 = 60;
/// If the server does not say.
const LEASE_DEFAULT_S: u32 = 3600;
const LEASE_INFINITE: u32 = u32::MAX;

const OPTION_MASK: u8 = 1;
const OPTION_ROUTER: u8 = 3;
const OPTION_DNS: u8 = 6;
const OPTION_LEASE: u8 = 51;
const OPTION_T1: u8 = 58;
const OPTION_T2: u8 = 59;

/// What a server leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: [u8; 4],
    /// Bits of the network part.
    pub prefix: u8,
    /// The default gateway.
    pub router: Option<[u8; 4]>,
    /// Name servers.
    pub dns: ArrayVec<[u8; 4], DHCP_MAX_DNS_SERVER_COUNT>,
}

/// A message to send by UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Source address, unspecified while there is none.
    pub src: [u8; 4],
    /// Destination address, often broadcast.
    pub dst: [u8; 4],
    /// The UDP payload.
    pub payload: ArrayVec<u8, MESSAGE_MAX>,
}

/// What the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "moved once, a few times an hour")]
pub enum Action {
    /// Send this.
    Send(Message),
    /// Configure the link so: the first lease, or one that differs from the last.
    Configure(Lease),
    /// The lease is over: stop using the address.
    Deconfigure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    address: Ipv4Address,
    server: Ipv4Address,
}

#[derive(Clone, Debug)]
struct Bound {
    lease: Lease,
    server: Ipv4Address,
    t2: Instant,
    expiry: Instant,
    /// An exchange is under way: renewing, from T2 on rebinding.
    renewing: bool,
}

#[derive(Clone, Debug)]
enum State {
    Selecting,
    Requesting(Offer),
    Bound(Bound),
}

/// The client of one port.
#[derive(Debug)]
pub struct Client {
    mac: EthernetAddress,
    rng: Rng,
    state: State,
    xid: u32,
    /// When the exchange began, for `secs`.
    began: Instant,
    tries: u32,
    /// When something is to be sent, or ends.
    next: Instant,
}

impl Client {
    /// A client that begins at `now`.
    pub fn new(mac: EthernetAddress, rng: Rng, now: Instant) -> Client {
        let state = State::Selecting;
        let mut client = Client { mac, rng, state, xid: 0, began: now, tries: 0, next: now };
        client.restart(now, now);
        client
    }

    /// The lease in force.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(bound) => Some(&bound.lease),
            _ => None,
        }
    }

    /// When to poll next.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        self.next
    }

    /// What is to be done by `now`; to be called until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if now < self.next {
            return None;
        }
        let message = match &mut self.state {
            State::Selecting => {
                self.retry(now);
                self.discover(now)
            }
            State::Requesting(_) if self.tries >= REQUEST_TRIES => {
                self.restart(now, now);
                self.retry(now);
                self.discover(now)
            }
            State::Requesting(offer) => {
                let offer = *offer;
                self.retry(now);
                self.request(offer, now)
            }
            State::Bound(bound) if now >= bound.expiry => {
                self.restart(now, now);
                return Some(Action::Deconfigure);
            }
            State::Bound(bound) => {
                if !bound.renewing {
                    bound.renewing = true;
                    self.xid = self.rng.next_u32();
                    self.began = now;
                }
                let rebinding = now >= bound.t2;
                let end = if rebinding { bound.expiry } else { bound.t2 };
                let wait = Duration(end.since(now).0 / 2).max(RENEW_RETRY_MIN);
                self.next = end.min(now + wait);
                let address = Ipv4Address::from(bound.lease.address);
                let server = if rebinding { Ipv4Address::BROADCAST } else { bound.server };
                self.renew(address, server, now)
            }
        };
        Some(Action::Send(message))
    }

    /// The UDP payload of a datagram to port 68. What is not an answer to this client's last
    /// question is ignored.
    pub fn handle(&mut self, payload: &[u8], now: Instant) -> Option<Action> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let repr = DhcpRepr::parse(&packet).ok()?;
        if repr.transaction_id != self.xid || repr.client_hardware_address != self.mac {
            return None;
        }
        match (&self.state, repr.message_type) {
            (State::Selecting, DhcpMessageType::Offer) if self.tries > 0 => {
                let server = repr.server_identifier.filter(is_host)?;
                let address = Some(repr.your_ip).filter(is_host)?;
                self.state = State::Requesting(Offer { address, server });
                self.tries = 0;
                self.next = now;
                None
            }
            (State::Requesting(offer), DhcpMessageType::Ack) => {
                let (server, address) = (offer.server, offer.address);
                if repr.server_identifier != Some(server) || repr.your_ip != address {
                    return None;
                }
                self.bind(&packet, &repr, server, now)
            }
            (State::Bound(bound), DhcpMessageType::Ack) if bound.renewing => {
                let server = repr.server_identifier.unwrap_or(bound.server);
                self.bind(&packet, &repr, server, now)
            }
            (State::Requesting(offer), DhcpMessageType::Nak)
                if repr.server_identifier == Some(offer.server) =>
            {
                // Not at once: a server that offers and refuses in turn must not make a storm.
                self.restart(now, now + RETRY_MIN);
                None
            }
            (State::Bound(bound), DhcpMessageType::Nak) if bound.renewing => {
                self.restart(now, now);
                Some(Action::Deconfigure)
            }
            _ => None,
        }
    }

    fn bind(
        &mut self,
        packet: &DhcpPacket<&[u8]>,
        repr: &DhcpRepr<'_>,
        server: Ipv4Address,
        now: Instant,
    ) -> Option<Action> {
        let lease = lease(packet, repr)?;
        let seconds = repr.lease_duration.unwrap_or(LEASE_DEFAULT_S).max(LEASE_MIN_S);
        let (t1, t2, expiry) = if seconds == LEASE_INFINITE {
            (Instant::NEVER, Instant::NEVER, Instant::NEVER)
        } else {
            let (t1, t2) = match (repr.renew_duration, repr.rebind_duration) {
                (Some(t1), Some(t2)) if t1 >= LEASE_MIN_S / 2 && t1 < t2 && t2 < seconds => {
                    (t1, t2)
                }
                // §4.4.5
                _ => (seconds / 2, seconds - seconds / 8),
            };
            let after = |s: u32| now + Duration::from_s(u64::from(s));
            (after(t1), after(t2), after(seconds))
        };
        let news = self.lease() != Some(&lease);
        let configure = news.then(|| Action::Configure(lease.clone()));
        self.state = State::Bound(Bound { lease, server, t2, expiry, renewing: false });
        self.next = t1;
        configure
    }

    /// Begins anew with a DISCOVER at `at`.
    fn restart(&mut self, now: Instant, at: Instant) {
        self.state = State::Selecting;
        self.xid = self.rng.next_u32();
        self.began = now;
        self.tries = 0;
        self.next = at;
    }

    /// Counts a try and sets the time of the next.
    fn retry(&mut self, now: Instant) {
        let doubled = Duration(RETRY_MIN.0 << self.tries.min(8)).min(RETRY_MAX);
        let jitter = self.rng.below(2 * Duration::from_s(1).0);
        self.next = now + Duration(doubled.0 - Duration::from_s(1).0 + jitter);
        self.tries = self.tries.saturating_add(1);
    }

    fn discover(&self, now: Instant) -> Message {
        self.message(Ipv4Address::BROADCAST, self.repr(DhcpMessageType::Discover, now))
    }

    fn request(&self, offer: Offer, now: Instant) -> Message {
        let repr = DhcpRepr {
            requested_ip: Some(offer.address),
            server_identifier: Some(offer.server),
            ..self.repr(DhcpMessageType::Request, now)
        };
        self.message(Ipv4Address::BROADCAST, repr)
    }

    /// §4.3.2: `ciaddr` is filled in, the two options must not be.
    fn renew(&self, address: Ipv4Address, to: Ipv4Address, now: Instant) -> Message {
        let repr = DhcpRepr {
            client_ip: address,
            broadcast: false,
            ..self.repr(DhcpMessageType::Request, now)
        };
        self.message(to, repr)
    }

    fn repr(&self, message_type: DhcpMessageType, now: Instant) -> DhcpRepr<'static> {
        let seconds = now.since(self.began).0 / Duration::from_s(1).0;
        DhcpRepr {
            message_type,
            transaction_id: self.xid,
            secs: seconds.min(u64::from(u16::MAX)) as u16,
            client_hardware_address: self.mac,
            client_ip: Ipv4Address::UNSPECIFIED,
            your_ip: Ipv4Address::UNSPECIFIED,
            server_ip: Ipv4Address::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Address::UNSPECIFIED,
            // The stack takes no unicast before it has an address.
            broadcast: true,
            requested_ip: None,
            client_identifier: Some(self.mac),
            server_identifier: None,
            parameter_request_list: Some(&[
                OPTION_MASK,
                OPTION_ROUTER,
                OPTION_DNS,
                OPTION_LEASE,
                OPTION_T1,
                OPTION_T2,
            ]),
            dns_servers: None,
            max_size: Some(576),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    fn message(&self, dst: Ipv4Address, repr: DhcpRepr<'_>) -> Message {
        let mut payload = ArrayVec::from([0; MESSAGE_MAX]);
        let len = repr.buffer_len();
        debug_assert!(len <= MESSAGE_MAX);
        // It fits: its options are those above.
        let emitted = repr.emit(&mut DhcpPacket::new_unchecked(&mut payload[..len]));
        debug_assert!(emitted.is_ok());
        payload.truncate(len.max(MESSAGE_MIN));
        Message { src: repr.client_ip.octets(), dst: dst.octets(), payload }
    }
}

/// The configuration in an ACK, if it makes sense.
fn lease(packet: &DhcpPacket<&[u8]>, repr: &DhcpRepr<'_>) -> Option<Lease> {
    let address = Some(repr.your_ip).filter(is_host)?;
    let prefix = match repr.subnet_mask {
        Some(mask) => {
            let bits = u32::from(mask);
            (bits.leading_ones() + bits.trailing_zeros() == 32).then_some(bits.leading_ones())?
        }
        // RFC 950: the class decides.
        None => match address.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        },
    };
    // Not `repr.router`: that is empty if the server names several.
    let router = packet
        .options()
        .find(|option| option.kind == OPTION_ROUTER)
        .and_then(|option| option.data.first_chunk::<4>())
        .copied()
        .filter(|router| is_host(&Ipv4Address::from(*router)));
    let dns = repr.dns_servers.iter().flatten().map(|server| server.octets()).collect();
    Some(Lease { address: address.octets(), prefix: prefix as u8, router, dns })
}

/// Can be the address of one host.
fn is_host(address: &Ipv4Address) -> bool {
    !(address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_loopback())
}
