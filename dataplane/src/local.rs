//! What a core has beside its flow groups: time, buffers, the transmit stage, addresses, ports, the
//! application. Functions of a group take it as `&mut Local`.
use crate::acl::Firewall;
use crate::acl::answers::Answers;
use crate::addresses::Ipv6;
use crate::app::App;
use crate::config::{Config, Ipv4Config};
use crate::conn::Unfolding;
use crate::conn::{Conn, Flags};
use crate::device::Pseudo;
use crate::fast::VERSION;
use crate::fifo::GroupSet;
use crate::input::fragments::{self, Fragments};
use crate::limits::{NEIGHBOR_EPOCH, RX_BATCH_MAX};
use crate::mbuf::{Pool, Rest};
use crate::measure::Measure;
use crate::mesh::Endpoint;
use crate::message::{Change, Message};
use crate::neighbor;
use crate::owing::Owing;
use crate::ports::{Port, Ports, UDP_BASE};
use crate::profile::Profile;
use crate::rng::{Rng, SipKey};
use crate::rss::Toeplitz;
use crate::slaac::Mode;
use crate::tap::Tap;
use crate::tcp::challenge::Budget;
use crate::tcp::congestion::Algorithm;
use crate::tcp::ecn;
use crate::time::Instant;
use crate::tx::Tx;
use crate::udp::Udp;
use crate::usermem::UserMap;
use crate::wheel::Wheel;
use alloc::boxed::Box;
use alloc::sync::Arc;
use ix_abi::limits::CORES_MAX;
use ix_abi::stats::CoreStats;
use ix_abi::{CoreId, GroupId, Handle, IpAddress};

/// What waits for a neighbour's address.
#[derive(Clone, Copy, Debug)]
pub enum Waiting {
    /// A connection.
    Connection(Handle),
    /// A datagram of the application, by its index.
    Datagram(u32),
}

/// What numbers of batches differ by, so that each core has its own.
pub const BATCH_STEP: u32 = CORES_MAX as u32;

/// See [`Local::sender`].
const fn sender(mac: [u8; 6]) -> u64 {
    let [_, _, a, b, c, d] = mac;
    u64::from_ne_bytes([a, b, c, d, 8, 0, VERSION[0], VERSION[1]])
}

/// See [`Local::receiver`].
const fn receiver(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

/// The router's link address, as connections have found it last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Router {
    /// Of the neighbour table, in which it is valid.
    epoch: u32,
    /// See [`Conn::ether`].
    ether: [u8; 8],
    /// Our network and its mask, in the order of the wire: who is not of it is reached through the router.
    network: u32,
    mask: u32,
}

/// A tick of the clock of timestamps.
const TS_TICK_NS: u64 = 1_000_000;

/// One core's own things.
#[derive(Debug)]
pub struct Local {
    /// The core.
    pub core: CoreId,
    /// Cores of the dataplane.
    pub cores: u16,
    /// Flow groups of the port, a power of two.
    pub groups: u16,
    /// Time of this iteration.
    pub now: Instant,
    /// The clock of timestamps then.
    pub ts_now: u32,
    /// Counters.
    pub stats: CoreStats,
    /// What the core measures of itself.
    pub measure: Box<Measure>,
    /// Receive buffers.
    pub pool: Pool,
    /// The transmit stage.
    pub tx: Tx,
    /// Who looks at the packets.
    pub tap: Tap,
    /// Our Ethernet address.
    pub mac: [u8; 6],
    /// The same, as the first eight bytes of what we receive have it.
    pub receiver: u64,
    /// What follows [`Conn::ether`] in what we send: the rest of our address, the EtherType of IPv4, the version and the service.
    pub sender: u64,
    /// Our IPv4 configuration.
    pub ipv4: Option<Ipv4Config>,
    /// Our IPv4 address; 0.0.0.0 while there is none, which matches no packet.
    pub address: [u8; 4],
    /// What the RSS hash of a packet to it has of it.
    pub address_hash: u32,
    /// What it adds to the checksums of what is sent, see `fast::emit`.
    pub address_sum: u32,
    /// What we have of IPv6.
    pub v6: Ipv6,
    /// Largest TCP payload towards the link, over IPv4.
    pub mss: u16,
    /// Largest IP packet that the device cuts into segments; 0: it does not.
    pub tso: u16,
    /// How it wants their headers.
    pub gso_pseudo: Pseudo,
    /// What new connections control congestion by.
    pub congestion: Algorithm,
    /// Whether connections use explicit congestion notification.
    pub ecn: ecn::Mode,
    /// Checksums of transmitted frames are the device's.
    pub tx_checksum: bool,
    /// Datagrams of which fragments have arrived; `None`: fragments are dropped.
    pub fragments: Option<Fragments>,
    /// The neighbour cache.
    pub neighbors: neighbor::Table<Waiting>,
    /// Addresses that connections have cached are valid in this epoch of it.
    pub mac_epoch: u32,
    mac_epoch_ends: Instant,
    router: Router,
    /// TCP ports that are listened on.
    pub listeners: Ports,
    /// UDP.
    pub udp: Udp,
    /// The application's context on this core.
    pub app: Option<App>,
    /// Its memory; kept after its end until nothing refers to it.
    pub memory: Option<Arc<UserMap>>,
    /// How often an application was attached.
    pub app_epoch: u32,
    /// Starts of applications up to this one have ended here.
    pub app_ended: u32,
    /// The rules in force, if there are any.
    pub acl: Option<Box<Firewall>>,
    /// Which set they are; 0: none.
    pub acl_generation: u32,
    /// [`Conn::form`] of one that was judged by them, is folded, and holds nothing.
    pub form_at_rest: u64,
    /// How many rejected senders may be told.
    pub acl_answers: Answers,
    /// Core 0 is to be told that rules were taken over.
    pub acl_answer: Option<Option<Box<Firewall>>>,
    /// Our own address may be talked to, see `Config::loopback`.
    pub loopback: bool,
    /// The RSS hash.
    pub toeplitz: Box<Toeplitz>,
    /// Key of initial sequence numbers.
    pub isn_key: SipKey,
    /// Other randomness.
    pub rng: Rng,
    /// Owner of each group.
    pub owners: Box<[CoreId]>,
    /// How often each group had moved when that was so: see [`FlowGroup`](crate::FlowGroup).
    pub ages: Box<[u64]>,
    /// The way to the other cores.
    pub mesh: Endpoint<Message>,
    /// Groups that have connections with events to post.
    pub events_ready: GroupSet,
    /// Groups that have connections with something to transmit.
    pub output_ready: GroupSet,
    /// Groups that have connections waiting for frames to complete.
    pub holding: GroupSet,
    /// Groups that leave: the application was told, and gets no more events of them here.
    pub leaving: GroupSet,
    /// Those of them that send nothing any more, so that what they have sent can leave.
    pub frozen: GroupSet,
    /// The core that forwarded the frame which is being taken, if any did.
    pub forwarded_by: Option<CoreId>,
    /// When groups' wheels have to turn, by group.
    pub due: Wheel,
    /// Counts buffers that came out of order.
    pub out_of_order: u32,
    /// Of the segment that is being taken: the buffers that its payload goes on in. Whoever has not use for all of
    /// its payload leaves them.
    pub rest: Rest,
    /// Where its bytes in its first buffer end.
    pub rest_from: u16,
    /// Payload of each segment that the device has made it of, or 0.
    pub rest_merged: u16,
    /// Number of the batch of calls: no two cores have the same, since refusals move with their connections.
    pub batch: u32,
    /// Nothing rare waits for anybody before `calm_until`, see `engine::calm`.
    pub calm: bool,
    /// When the first of what only time does is due, while it is calm; else 0.
    pub calm_until: Instant,
    /// Events that may be posted while frames are received, see `fast::open`.
    pub event_room: u32,
    /// Nothing is predicted: somebody looks at each packet.
    pub slow: bool,
    /// Times of TCP.
    pub profile: Profile,
    /// Of them the floor of the retransmission timeout.
    pub rto_min_us: u32,
    /// Folded connections that were given a request in this iteration.
    pub owing: Owing,
    /// How many challenge ACKs may be sent.
    pub challenges: Budget,
}

impl Local {
    /// What its folded connections are spelled out with.
    pub(crate) fn unfolding(&self) -> Unfolding {
        Unfolding {
            area: self.pool.area(),
            delayed_ack: self.profile.delayed_ack,
            rto_min_us: self.rto_min_us,
        }
    }

    /// The things of `config.core`, at time 0.
    pub fn new(config: &Config, pool: Pool, mesh: Endpoint<Message>, tx: Tx) -> Local {
        let groups = config.capabilities.groups;
        let mut rng = Rng::from_seed(config.seed);
        let secret = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&config.secret[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let owner = |group| crate::config::initial_owner(GroupId(group), config.cores);
        Local {
            core: config.core,
            cores: config.cores,
            groups,
            now: Instant(0),
            ts_now: 0,
            stats: CoreStats::new(),
            measure: Measure::new(groups, config.rx_batch.clamp(1, RX_BATCH_MAX)),
            pool,
            tx,
            tap: Tap::default(),
            mac: config.mac,
            receiver: receiver(config.mac),
            sender: sender(config.mac),
            ipv4: None,
            address: [0; 4],
            address_hash: 0,
            address_sum: 0,
            v6: Ipv6::new(config.ipv6 != Mode::Off, config.capabilities.mtu),
            mss: config.capabilities.mtu - 40,
            congestion: config.congestion,
            ecn: config.ecn,
            tso: if config.capabilities.tx_checksum { config.capabilities.tso } else { 0 },
            gso_pseudo: config.capabilities.gso_pseudo,
            tx_checksum: config.capabilities.tx_checksum,
            fragments: config.reassemble.then(fragments::table),
            neighbors: neighbor::Table::new(neighbor::Limits::default(), rng.key()),
            mac_epoch: 1,
            mac_epoch_ends: Instant(0),
            router: Router::default(),
            listeners: Ports::new(0),
            udp: Udp::new(Ports::new(UDP_BASE)),
            app: None,
            memory: None,
            app_epoch: 0,
            app_ended: 0,
            acl: None,
            acl_generation: 0,
            form_at_rest: Conn::form_at_rest(0),
            acl_answers: Answers::default(),
            acl_answer: None,
            loopback: config.loopback,
            toeplitz: Box::new(Toeplitz::new(&config.rss_key)),
            isn_key: SipKey([secret(0), secret(8)]),
            rng,
            owners: (0..groups).map(owner).collect(),
            ages: (0..groups).map(|_| 0).collect(),
            mesh,
            events_ready: GroupSet::default(),
            output_ready: GroupSet::default(),
            holding: GroupSet::default(),
            leaving: GroupSet::default(),
            frozen: GroupSet::default(),
            forwarded_by: None,
            due: Wheel::new(Instant(0), u32::from(groups)),
            out_of_order: 0,
            rest: Rest::NONE,
            rest_from: 0,
            rest_merged: 0,
            batch: BATCH_STEP + u32::from(config.core.0),
            calm: false,
            calm_until: Instant(0),
            event_room: 0,
            slow: false,
            profile: config.profile,
            rto_min_us: config.profile.rto_min.as_us() as u32,
            owing: Owing::new(),
            challenges: Budget::default(),
        }
    }

    /// Something rare has come up, see `engine::calm`.
    #[inline(always)]
    pub fn stir(&mut self) {
        self.calm = false;
        self.calm_until = Instant(0);
    }

    /// The clock of timestamps, in milliseconds (RFC 7323 §5.4).
    #[inline(always)]
    pub fn ts_clock(&self) -> u32 {
        (self.now.0 / TS_TICK_NS) as u32
    }

    /// Until when that stays as it is.
    pub fn ts_tick_ends(&self) -> Instant {
        Instant((self.now.0 / TS_TICK_NS + 1) * TS_TICK_NS)
    }

    /// Our IPv4 address as the ABI writes it.
    pub fn ip(&self) -> IpAddress {
        IpAddress::v4(self.address)
    }

    /// Our address in a slot; slot 0 is IPv4's.
    #[inline]
    pub fn ip_at(&self, slot: u8) -> IpAddress {
        if slot == 0 { self.ip() } else { IpAddress(self.v6.address(slot)) }
    }

    /// Largest TCP payload of a connection of that address.
    #[inline]
    pub fn mss_at(&self, slot: u8) -> u16 {
        if slot == 0 { self.mss } else { self.v6.mss() }
    }

    /// Who listens on a port at our address in `slot`.
    #[inline(always)]
    pub fn listener(&mut self, port: u16, slot: u8) -> Option<&mut Port> {
        let Local { listeners, v6, address, .. } = self;
        listeners.by_port(port).filter(|port| {
            let here =
                || if slot == 0 { IpAddress::v4(*address) } else { IpAddress(v6.address(slot)) };
            port.local.ip == IpAddress::UNSPECIFIED || port.serves(here())
        })
    }

    /// Whether an address is ours.
    pub fn is_ours(&self, ip: IpAddress) -> bool {
        match ip.to_v4() {
            Some(v4) => v4 == self.address && self.ipv4.is_some(),
            None => self.v6.slot_of(&ip.0) != 0,
        }
    }

    /// From which of our addresses `remote` is reached and through which neighbour. `None`: from none.
    pub fn route(&self, remote: IpAddress) -> Option<(u8, IpAddress)> {
        if let Some(v4) = remote.to_v4() {
            return self.next_hop(v4).map(|hop| (0, IpAddress::v4(hop)));
        }
        let slot = self.v6.source_for(&remote.0)?;
        self.v6.next_hop(&remote.0).map(|hop| (slot, IpAddress(hop)))
    }

    /// The neighbour through which `remote` is reached from the address in `slot`, if that is still ours.
    pub fn hop_from(&self, slot: u8, remote: IpAddress) -> Option<IpAddress> {
        match remote.to_v4() {
            Some(v4) => self.next_hop(v4).map(IpAddress::v4),
            None if self.v6.address(slot) == crate::ipv6::UNSPECIFIED => None,
            None => self.v6.next_hop(&remote.0).map(IpAddress),
        }
    }

    /// The neighbour through which `remote` is reached, if it is reachable at all.
    pub fn next_hop(&self, remote: [u8; 4]) -> Option<[u8; 4]> {
        let config = self.ipv4?;
        let mask = u32::MAX.checked_shl(32 - u32::from(config.prefix.min(32))).unwrap_or(0);
        let network = |ip: [u8; 4]| u32::from_be_bytes(ip) & mask;
        if network(remote) == network(config.address) { Some(remote) } else { config.gateway }
    }

    /// Gives a connection the router's link address, if that was found in this epoch and leads to its peer.
    #[inline(always)]
    pub fn through_router(&self, conn: &mut Conn) -> bool {
        let Router { epoch, ether, network, mask } = self.router;
        let outside = (conn.tuple as u32 ^ network) & mask != 0;
        let known = epoch == self.mac_epoch && outside && !conn.flags.contains(Flags::V6);
        if known {
            conn.ether = ether;
            conn.mac_epoch = epoch;
        }
        known
    }

    /// What a frame to that neighbour begins with, see [`Conn::ether`].
    pub fn ether(&self, [a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
        [a, b, c, d, e, f, self.mac[0], self.mac[1]]
    }

    /// Remembers the link address of `hop` for the next connections, if it is the router's.
    pub fn found(&mut self, hop: IpAddress, mac: [u8; 6]) {
        let Some(config) = self.ipv4 else { return };
        if hop.to_v4().is_some() && hop.to_v4() == config.gateway {
            let mask = u32::MAX.checked_shl(32 - u32::from(config.prefix.min(32))).unwrap_or(0);
            let network = u32::from_ne_bytes(config.address);
            let ether = self.ether(mac);
            self.router = Router { epoch: self.mac_epoch, ether, network, mask: mask.to_be() };
        }
    }

    /// Whether neighbours' addresses are to be looked up anew.
    #[inline(always)]
    pub fn is_age_over(&self) -> bool {
        self.now >= self.mac_epoch_ends
    }

    /// When that is so.
    pub fn age_ends(&self) -> Instant {
        self.mac_epoch_ends
    }

    /// Forgets cached neighbour addresses: at each change, and from time to time, so that what is
    /// in use is also confirmed.
    pub fn age_neighbors(&mut self, changed: bool) {
        if changed || self.now >= self.mac_epoch_ends {
            self.mac_epoch = self.mac_epoch.wrapping_add(1);
            self.mac_epoch_ends = self.now + NEIGHBOR_EPOCH;
        }
    }

    /// Which life of a group this core knows of: how often it was taken by force.
    pub fn life(&self, group: GroupId) -> u16 {
        self.ages.get(usize::from(group.0)).map_or(0, |age| (age >> 32) as u16)
    }

    /// Applies a change of the dataplane-wide tables.
    pub fn apply(&mut self, change: &Change, app_epoch: u32) {
        if app_epoch <= self.app_ended {
            return;
        }
        let port = Port::from_change(change, app_epoch, self.cores);
        match (change, port) {
            (Change::Listen { .. }, Some(port)) => self.listeners.insert(port),
            (Change::UdpBind { .. }, Some(port)) => self.udp.ports.insert(port),
            (Change::SetOption { handle, option, value }, _) => {
                // Core 0 has found that it can be set.
                let port = self.listeners.by_handle(*handle);
                let _set = port.map(|port| port.settings.set(*option, *value));
            }
            (Change::Remove { handle }, _) => {
                let _was_there = self.listeners.remove(*handle) || self.udp.ports.remove(*handle);
            }
            _ => {}
        }
    }
}
