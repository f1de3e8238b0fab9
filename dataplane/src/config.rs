//! What an engine is told when it is made.
use crate::device::Capabilities;
use crate::limits::{CONNECTIONS_PER_GROUP_DEFAULT, RX_BATCH_DEFAULT};
use crate::profile::Profile;
use crate::slaac::Mode;
pub use crate::tcp::congestion::Algorithm;
pub use crate::tcp::ecn::Mode as EcnMode;
use ix_abi::{CoreId, GroupId};

/// A station's IPv4 configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Config {
    /// Its address.
    pub address: [u8; 4],
    /// Bits of the network part.
    pub prefix: u8,
    /// Where everything outside of the network goes.
    pub gateway: Option<[u8; 4]>,
}

/// Where the IPv4 configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Given.
    Static(Ipv4Config),
    /// From a DHCP server, asked by core 0.
    Dhcp,
}

/// What differs between engines or dataplanes. All engines of a dataplane get the same but for
/// `core` and `seed`.
#[derive(Clone, Debug)]
pub struct Config {
    /// This engine's core.
    pub core: CoreId,
    /// Cores of the dataplane.
    pub cores: u16,
    /// The port's Ethernet address.
    pub mac: [u8; 6],
    /// What the port offers; its `groups` (a power of two) is the number of flow groups.
    pub capabilities: Capabilities,
    /// The IPv4 configuration.
    pub addressing: Addressing,
    /// Where IPv6 addresses come from; off by default.
    pub ipv6: Mode,
    /// What is sent comes back, so that the station can talk to itself: its own address is a host as any other. On a link with
    /// others nobody else may use that address, and what claims to come from it is dropped.
    pub loopback: bool,
    /// Toeplitz key: the port's, drawn at boot.
    pub rss_key: [u8; 40],
    /// Key of the initial sequence numbers (RFC 6528), drawn at boot.
    pub secret: [u8; 16],
    /// Seed of what else is random; another one for each core.
    pub seed: u64,
    /// Most connections of one flow group, TIME_WAIT included: up to [`crate::flow_table::CAPACITY_MAX`].
    pub connections_per_group: u32,
    /// What new connections control congestion by.
    pub congestion: Algorithm,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: EcnMode,
    /// Whether fragmented datagrams are put together; else fragments are dropped.
    pub reassemble: bool,
    /// Bound B of a receive poll.
    pub rx_batch: usize,
    /// Times of TCP.
    pub profile: Profile,
}

impl Config {
    /// The defaults for a core of a dataplane; the keys are all zero, to be set.
    pub fn new(
        core: CoreId,
        cores: u16,
        mac: [u8; 6],
        capabilities: Capabilities,
        addressing: Addressing,
    ) -> Config {
        Config {
            core,
            cores,
            mac,
            capabilities,
            addressing,
            ipv6: Mode::Off,
            loopback: false,
            rss_key: [0; 40],
            secret: [0; 16],
            seed: 0,
            connections_per_group: CONNECTIONS_PER_GROUP_DEFAULT,
            congestion: Algorithm::default(),
            ecn: EcnMode::default(),
            reassemble: true,
            rx_batch: RX_BATCH_DEFAULT,
            profile: Profile::INTERNET,
        }
    }
}

/// The core that owns a flow group at first. The device's indirection table starts the same way.
pub const fn initial_owner(group: GroupId, cores: u16) -> CoreId {
    CoreId(group.0 % cores)
}
