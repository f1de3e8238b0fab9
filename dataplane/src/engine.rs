//! The engine: everything of the protocols that one core owns.
use crate::app::{AppPort, Drain};
use crate::config::{Config, Ipv4Config};
use crate::device::DmaRegion;
use crate::mbuf::Pool;
use ix_abi::GroupId;
use ix_abi::stats::CoreStats;

/// One core's protocol engine: owned by that core, never shared.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    #[expect(dead_code, reason = "first cut of the interface")]
    pool: Pool,
    #[expect(dead_code, reason = "first cut of the interface")]
    headers: DmaRegion,
    app: Option<AppPort>,
    stats: CoreStats,
}

impl Engine {
    /// An engine that owns the groups whose `initial_owner` its core is. `headers` is a DMA region
    /// of at least `limits::TX_HEADER_REGION_BYTES` that nobody else uses. A `mesh::Endpoint`
    /// joins the arguments as soon as it exists.
    pub fn new(config: Config, pool: Pool, headers: DmaRegion) -> Engine {
        Engine { config, pool, headers, app: None, stats: CoreStats::new() }
    }

    /// Connects the application's context of this core; `group_in` events are its first.
    pub fn attach_app(&mut self, port: AppPort) {
        self.app = Some(port);
    }

    /// The application is gone: aborts what is its, then [`Engine::drain`] tells when its memory
    /// is free. To be called on every core's engine.
    pub fn detach_app(&mut self) {
        self.app = None;
    }

    /// How far the end of the detached application has come.
    pub fn drain(&mut self) -> Drain {
        Drain::Done
    }

    /// The counters.
    pub fn stats(&self) -> &CoreStats {
        &self.stats
    }

    /// The counters, for what the platform counts itself (halts, overruns).
    pub fn stats_mut(&mut self) -> &mut CoreStats {
        &mut self.stats
    }

    /// The IPv4 configuration in force, once there is one.
    pub fn ipv4(&self) -> Option<Ipv4Config> {
        None
    }

    /// Largest TCP segment towards the link.
    pub fn mss(&self) -> u16 {
        self.config.capabilities.mtu - 40
    }

    /// Whether this core serves the flow group.
    pub fn owns(&self, group: GroupId) -> bool {
        crate::config::initial_owner(group, self.config.cores) == self.config.core
    }

    /// Sets bound B of a receive poll; at most `limits::RX_BATCH_MAX`.
    pub fn set_rx_batch(&mut self, frames: usize) {
        self.config.rx_batch = frames.clamp(1, crate::limits::RX_BATCH_MAX);
    }
}
