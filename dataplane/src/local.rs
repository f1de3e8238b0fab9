//! What a core has beside its flow groups: time, buffers, the transmit stage, addresses, ports, the
//! application. Functions of a group take it as `&mut Local`.
use crate::acl::Firewall;
use crate::acl::answers::Answers;
use crate::app::App;
use crate::config::{Config, Ipv4Config};
use crate::fifo::GroupSet;
use crate::limits::NEIGHBOR_EPOCH;
use crate::mbuf::Pool;
use crate::mesh::Endpoint;
use crate::message::{Change, Message};
use crate::neighbor;
use crate::ports::{Port, Ports, UDP_BASE};
use crate::profile::Profile;
use crate::rng::{Rng, SipKey};
use crate::rss::Toeplitz;
use crate::tap::Tap;
use crate::tcp::challenge::Budget;
use crate::tcp::congestion::Algorithm;
use crate::time::{Duration, Instant};
use crate::tx::Tx;
use crate::udp::Udp;
use crate::usermem::UserMap;
use crate::wheel::Wheel;
use alloc::boxed::Box;
use alloc::sync::Arc;
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
    /// Counters.
    pub stats: CoreStats,
    /// Receive buffers.
    pub pool: Pool,
    /// The transmit stage.
    pub tx: Tx,
    /// Who looks at the packets.
    pub tap: Tap,
    /// Our Ethernet address.
    pub mac: [u8; 6],
    /// Our IPv4 configuration.
    pub ipv4: Option<Ipv4Config>,
    /// Our IPv4 address; 0.0.0.0 while there is none, which matches no packet.
    pub address: [u8; 4],
    /// Largest TCP payload towards the link.
    pub mss: u16,
    /// What new connections control congestion by.
    pub congestion: Algorithm,
    /// Floor of the retransmission timeout.
    pub rto_min: Duration,
    /// Checksums of transmitted frames are the device's.
    pub tx_checksum: bool,
    /// The neighbour cache.
    pub neighbors: neighbor::Table<Waiting>,
    /// Addresses that connections have cached are valid in this epoch of it.
    pub mac_epoch: u32,
    mac_epoch_ends: Instant,
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
    /// How many rejected senders may be told.
    pub acl_answers: Answers,
    /// Core 0 is to be told that rules were taken over.
    pub acl_answer: Option<Option<Box<Firewall>>>,
    /// The RSS hash.
    pub toeplitz: Box<Toeplitz>,
    /// Key of initial sequence numbers.
    pub isn_key: SipKey,
    /// Other randomness.
    pub rng: Rng,
    /// Owner of each group.
    pub owners: Box<[CoreId]>,
    /// The way to the other cores.
    pub mesh: Endpoint<Message>,
    /// Groups that have connections with events to post.
    pub events_ready: GroupSet,
    /// Groups that have connections with something to transmit.
    pub output_ready: GroupSet,
    /// Groups that have connections waiting for frames to complete.
    pub holding: GroupSet,
    /// When groups' wheels have to turn, by group.
    pub due: Wheel,
    /// Counts buffers that came out of order.
    pub out_of_order: u32,
    /// Counts batches of calls.
    pub batch: u32,
    /// Times of TCP.
    pub profile: Profile,
    /// How many challenge ACKs may be sent.
    pub challenges: Budget,
    /// Events that may be posted while frames are received, see `fast::open`.
    pub event_room: u32,
    /// Nothing is predicted: somebody looks at each packet.
    pub slow: bool,
}

impl Local {
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
            stats: CoreStats::new(),
            pool,
            tx,
            tap: Tap::default(),
            mac: config.mac,
            ipv4: None,
            address: [0; 4],
            mss: config.capabilities.mtu - 40,
            congestion: config.congestion,
            rto_min: config.rto_min,
            tx_checksum: config.capabilities.tx_checksum,
            neighbors: neighbor::Table::new(neighbor::Limits::default(), rng.key()),
            mac_epoch: 1,
            mac_epoch_ends: Instant(0),
            listeners: Ports::new(0),
            udp: Udp::new(Ports::new(UDP_BASE)),
            app: None,
            memory: None,
            app_epoch: 0,
            app_ended: 0,
            acl: None,
            acl_generation: 0,
            acl_answers: Answers::default(),
            acl_answer: None,
            toeplitz: Box::new(Toeplitz::new(&config.rss_key)),
            isn_key: SipKey([secret(0), secret(8)]),
            rng,
            owners: (0..groups).map(owner).collect(),
            mesh,
            events_ready: GroupSet::default(),
            output_ready: GroupSet::default(),
            holding: GroupSet::default(),
            due: Wheel::new(Instant(0), u32::from(groups)),
            out_of_order: 0,
            batch: 1,
            profile: config.profile,
            challenges: Budget::default(),
            event_room: 0,
            slow: false,
        }
    }

    /// The clock of timestamps, in milliseconds (RFC 7323 §5.4).
    #[inline(always)]
    pub fn ts_clock(&self) -> u32 {
        (self.now.0 / 1_000_000) as u32
    }

    /// Our address as the ABI writes it.
    pub fn ip(&self) -> IpAddress {
        IpAddress::v4(self.address)
    }

    /// The neighbour through which `remote` is reached, if it is reachable at all.
    pub fn next_hop(&self, remote: [u8; 4]) -> Option<[u8; 4]> {
        let config = self.ipv4?;
        let mask = u32::MAX.checked_shl(32 - u32::from(config.prefix.min(32))).unwrap_or(0);
        let network = |ip: [u8; 4]| u32::from_be_bytes(ip) & mask;
        if network(remote) == network(config.address) { Some(remote) } else { config.gateway }
    }

    /// Whether neighbours' addresses are to be looked up anew.
    #[inline(always)]
    pub fn is_age_over(&self) -> bool {
        self.now >= self.mac_epoch_ends
    }

    /// Forgets cached neighbour addresses: at each change, and from time to time, so that what is
    /// in use is also confirmed.
    pub fn age_neighbors(&mut self, changed: bool) {
        if changed || self.now >= self.mac_epoch_ends {
            self.mac_epoch = self.mac_epoch.wrapping_add(1);
            self.mac_epoch_ends = self.now + NEIGHBOR_EPOCH;
        }
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
