//! The engine: everything of the protocols that one core owns.
use crate::acl::swap::Registry;
use crate::app::App;
use crate::calls;
use crate::config::{Addressing, Config, Ipv4Config};
use crate::conn::Flags;
use crate::device::{DmaRegion, RxBatch};
use crate::dhcp;
use crate::group::{FlowGroup, Groups};
use crate::input::{arp, reassembly};
use crate::lend::Lend;
use crate::limits::{HOME_RETRY, MESSAGES_PER_TURN, RX_BATCH_MAX};
use crate::local::{Local, Waiting};
use crate::mbuf::Pool;
use crate::measure::Measure;
use crate::mesh::Endpoint;
use crate::message::Message;
use crate::moves::Moves;
use crate::moves::relief::Relief;
use crate::slaac;
use crate::tcp::{close, timers};
use crate::time::Instant;
use crate::tx::{Staged, Tx};
use crate::udp;
use alloc::boxed::Box;
use ix_abi::stats::{CoreStats, Counter, Drop};
use ix_abi::{CoreId, DeadReason, GroupId};
use smoltcp::wire::EthernetAddress;

mod address;
mod app;
mod books;
mod calm;
mod groups;
mod ipv6;

pub use books::Conservation;

/// One core's protocol engine: owned by that core, never shared.
#[derive(Debug)]
pub struct Engine {
    /// Everything but the groups.
    pub(crate) local: Local,
    /// By number; `None`: on another core.
    pub(crate) groups: Groups,
    pub(crate) rx_batch: usize,
    pub(crate) dhcp_configured: bool,
    dhcp: Option<dhcp::Client>,
    pub(crate) slaac: Option<slaac::Client>,
    ipv6: slaac::Mode,
    addressing: Addressing,
    /// Cores, by bit, that are to be told of the address and were not yet.
    address_untold: u64,
    ipv6_untold: u64,
    started: bool,
    draining: Option<app::Draining>,
    pub(crate) acl: Registry,
    pub(crate) accounting: Accounting,
    pub(crate) moves: Moves,
    pub(crate) relief: Relief,
    pub(crate) lend: Lend,
    /// Frames of one poll; kept, since it is large.
    pub(crate) batch: Option<Box<RxBatch>>,
}

/// When counters were published, and what the receive queues had counted then.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    pub(crate) publish_at: Instant,
    pub(crate) device_errors: u64,
    pub(crate) other_vlan: u64,
    pub(crate) device_missed: u64,
}

impl Engine {
    /// An engine that owns the groups whose `initial_owner` its core is. `headers` is a DMA region
    /// of at least `limits::TX_HEADER_REGION_BYTES` that nobody else uses, `mesh` the core's end of
    /// what [`crate::mesh::build`] made for all.
    pub fn new(config: Config, pool: Pool, mesh: Endpoint<Message>, headers: &DmaRegion) -> Engine {
        let count = config.capabilities.groups;
        assert!(count.is_power_of_two() && usize::from(count) <= ix_abi::limits::GROUPS_MAX);
        assert!(pool.core() == config.core && mesh.core() == config.core);
        let limit = config.connections_per_group;
        // Core 0 keeps the book of who is there.
        let others = if config.core == CoreId(0) { config.cores - 1 } else { 0 };
        let local = Local::new(&config, pool, mesh, Tx::new(headers));
        let unfolding = local.unfolding();
        let group = |number| {
            let id = GroupId(number);
            let ours = crate::config::initial_owner(id, config.cores) == config.core;
            ours.then(|| Box::new(FlowGroup::new(id, limit, count, Instant(0), unfolding)))
        };
        Engine {
            groups: (0..count).map(group).collect(),
            local,
            rx_batch: config.rx_batch.clamp(1, RX_BATCH_MAX),
            dhcp_configured: config.addressing == Addressing::Dhcp,
            dhcp: None,
            slaac: None,
            ipv6: config.ipv6,
            addressing: config.addressing,
            address_untold: 0,
            ipv6_untold: 0,
            started: false,
            draining: None,
            acl: Registry::default(),
            accounting: Accounting::default(),
            moves: Moves::new(count, config.capabilities.rss),
            relief: Relief::default(),
            lend: Lend::new(limit, config.capabilities.queue_pairs, count, others),
            batch: Some(Box::default()),
        }
    }

    /// Time of the last iteration.
    pub fn now(&self) -> Instant {
        self.local.now
    }

    /// The counters.
    pub fn stats(&self) -> &CoreStats {
        &self.local.stats
    }

    /// The counters, for what the platform counts itself (halts, overruns).
    pub fn stats_mut(&mut self) -> &mut CoreStats {
        &mut self.local.stats
    }

    /// What the core measures of itself.
    pub fn measure(&self) -> &Measure {
        &self.local.measure
    }

    /// The frequency of the platform's time-stamp counter.
    pub fn set_tsc_khz(&mut self, khz: u64) {
        self.local.measure.set_tsc_khz(khz);
    }

    /// Changes when this core's view of the ports in use does.
    pub fn port_changes(&self) -> u32 {
        self.local.listeners.changes().wrapping_add(self.local.udp.ports.changes())
    }

    /// The ports in use, each always at its place: TCP's first, then UDP's; 0: none.
    pub fn ports_in_use(&self) -> impl Iterator<Item = u16> {
        self.local.listeners.in_use().chain(self.local.udp.ports.in_use())
    }

    /// The tap, to switch captures and the packet trace.
    pub fn tap_mut(&mut self) -> &mut crate::tap::Tap {
        self.stir();
        &mut self.local.tap
    }

    /// Whether nothing is to be sent and all that was sent has left.
    pub fn is_tx_idle(&self) -> bool {
        let local = &self.local;
        local.tx.in_flight() == 0 && !local.tx.has_staged() && local.output_ready.next(0).is_none()
    }

    /// The receive buffers of this core, for the platform when it stops and starts a queue.
    pub fn pool_mut(&mut self) -> &mut Pool {
        &mut self.local.pool
    }

    /// The IPv4 configuration in force, once there is one.
    pub fn ipv4(&self) -> Option<Ipv4Config> {
        self.local.ipv4
    }

    /// Largest TCP segment towards the link.
    pub fn mss(&self) -> u16 {
        self.local.mss
    }

    /// Whether this core serves the flow group.
    pub fn owns(&self, group: GroupId) -> bool {
        self.groups.get(usize::from(group.0)).is_some_and(Option::is_some)
    }

    /// Sets bound B of a receive poll; at most `limits::RX_BATCH_MAX`.
    pub fn set_rx_batch(&mut self, frames: usize) {
        self.rx_batch = frames.clamp(1, RX_BATCH_MAX);
        self.local.measure.set_bound(self.rx_batch);
    }

    /// Whether other cores have sent something since the last iteration: to be asked before a halt.
    pub fn has_mail(&mut self) -> bool {
        self.local.mesh.refresh()
    }

    /// The device has lost so many frames since its port was opened, for which it had no buffer.
    pub fn count_missed(&mut self, total: u64) {
        let before = core::mem::replace(&mut self.accounting.device_missed, total);
        self.local.stats.drops[Drop::DeviceMissed as usize] += total.saturating_sub(before);
    }

    /// The quiescent point: messages of other cores, buffers that came home, the address.
    #[inline]
    pub(crate) fn quiescent(&mut self) -> bool {
        let news = self.local.mesh.glance()
            || !self.started
            || self.address_untold | self.ipv6_untold != 0
            || self.local.acl_answer.is_some()
            || self.moves.are_under_way();
        news && self.take_news()
    }

    #[inline(never)]
    fn take_news(&mut self) -> bool {
        if !self.started {
            self.start();
        }
        if self.local.acl_answer.is_some() {
            self.answer_rules();
        }
        if self.address_untold != 0 {
            self.tell_address();
        }
        if self.ipv6_untold != 0 {
            self.tell_ipv6();
        }
        let local = &mut self.local;
        let mut busy = false;
        if local.mesh.refresh() {
            while let Some((_, mbuf)) = local.mesh.next_home() {
                local.pool.free(mbuf);
            }
            // No more than that at once: frames, which may have waited for the first of them, are not to wait for all.
            for _ in 0..MESSAGES_PER_TURN {
                if !self.may_take_message() {
                    break;
                }
                let Some((from, message)) = self.next_message() else { break };
                busy = true;
                self.message(from, message);
            }
        }
        if self.moves.are_under_way() {
            busy |= !self.moves.rest();
            self.run_moves();
            busy |= self.moves.is_lending() && self.run_lend();
        }
        busy
    }

    /// Core 0 answers a request with a change for all and an outcome for the asker. Without room for
    /// both it leaves requests where they are: an outcome that is lost is missed for ever. Other cores
    /// send nothing when they are told something, so nobody waits for somebody who waits.
    pub(crate) fn may_take_message(&self) -> bool {
        self.local.core != CoreId(0) || self.local.mesh.broadcast_room() >= 2
    }

    pub(crate) fn message(&mut self, from: CoreId, message: Message) {
        let local = &mut self.local;
        match message {
            Message::Request { request, app_epoch } => {
                if let Some(unsent) = calls::answer(local, &request, app_epoch) {
                    self.lend.keep(from, unsent);
                }
            }
            Message::Outcome { request, status, handle, app_epoch } => {
                calls::answered(local, &request, status, handle, app_epoch);
            }
            Message::Change { change, app_epoch } => local.apply(&change, app_epoch),
            Message::Neighbor { ip, mac } => {
                if local.neighbors.confirm(ip, EthernetAddress(mac), local.now) {
                    local.age_neighbors(true);
                }
            }
            Message::Address(config) => self.set_address(config),
            Message::Ipv6(config) => self.set_ipv6(*config),
            Message::Rules(rules) => self.change_rules(rules),
            Message::RulesTaken { core, generation, .. } => self.rules_taken(core, generation),
            about_a_move => self.move_message(from, about_a_move),
        }
    }

    fn start(&mut self) {
        self.started = true;
        match self.addressing {
            Addressing::Static(config) => self.set_address(Some(config)),
            Addressing::Dhcp if self.local.core == CoreId(0) => {
                let (mac, now) = (EthernetAddress(self.local.mac), self.local.now);
                self.dhcp = Some(dhcp::Client::new(mac, self.local.rng.fork(), now));
            }
            Addressing::Dhcp => {}
        }
        self.start_ipv6();
    }

    /// Step 6: everything that time does. Whether anything was due.
    #[inline]
    pub(crate) fn run_timers(&mut self) -> bool {
        let local = &self.local;
        let due = local.due.is_due(local.now)
            || local.neighbors.has_work(local.now)
            || self.dhcp.is_some()
            || self.slaac.as_ref().is_some_and(|slaac| slaac.next_deadline() <= local.now)
            || local.fragments.as_ref().is_some_and(|table| table.next_deadline() <= local.now)
            || local.is_age_over();
        due && self.run_due()
    }

    #[inline(never)]
    fn run_due(&mut self) -> bool {
        let now = self.local.now;
        let mut busy = false;
        busy |= self.run_slaac();
        while let Some(action) = self.dhcp.as_mut().and_then(|dhcp| dhcp.poll(now)) {
            busy = true;
            self.dhcp_action(action);
        }
        let Engine { local, groups, .. } = self;
        local.age_neighbors(false);
        if local.neighbors.next_deadline() <= now {
            arp::send_requests(local);
            busy = true;
        }
        busy |= reassembly::expire(local);
        while let Some((mac, waiting)) = local.neighbors.pop_ready() {
            busy = true;
            resolved(groups, local, waiting, Some(mac.0));
        }
        while let Some((ip, waiting)) = local.neighbors.pop_failed() {
            busy = true;
            if local.v6.unreachable(ip) {
                local.age_neighbors(true);
            }
            local.stats.drop(Drop::ArpTimeout);
            resolved(groups, local, waiting, None);
        }
        local.due.advance(now);
        while let Some(number) = local.due.pop_expired() {
            let Some(Some(group)) = groups.get_mut(number as usize) else { continue };
            busy = true;
            group.turn(now);
            while let Some(index) = group.pop_timer(local) {
                timers::fired(group, local, index);
            }
        }
        busy
    }

    /// What the queue has completed is the owner's again.
    #[inline]
    pub(crate) fn completions(&mut self) -> bool {
        let some = self.local.tx.has_completions() || !self.local.holding.is_empty();
        some && self.complete()
    }

    #[inline(never)]
    fn complete(&mut self) -> bool {
        let Engine { local, groups, .. } = self;
        let mut busy = false;
        while let Some(done) = local.tx.pop_completion() {
            busy = true;
            match done {
                crate::tx::Completion::Buffer(mbuf) => local.pool.free(mbuf),
                crate::tx::Completion::Datagram(index) => udp::finished(local, index),
            }
        }
        let mut from = 0;
        while let Some(id) = local.holding.next(from) {
            from = usize::from(id.0) + 1;
            let Some(Some(group)) = groups.get_mut(usize::from(id.0)) else {
                local.holding.remove(id);
                continue;
            };
            // A connection may be held again for a later frame: only those that wait now.
            while let Some(index) = group.pop_hold(local) {
                busy = true;
                crate::tcp::acks::held_frame_left(group, local, index);
            }
            if !group.has_hold() {
                local.holding.remove(id);
            }
        }
        busy
    }

    /// When the loop has to run again at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        let local = &self.local;
        let app = local.app.as_ref().map_or(Instant::NEVER, App::deadline);
        let dhcp = self.dhcp.as_ref().map_or(Instant::NEVER, dhcp::Client::next_deadline);
        // What waits for room in a ring to another core: that core may starve for it.
        let waits = local.pool.away() > 0 || (self.address_untold | self.ipv6_untold) != 0;
        let home = if waits { local.now + HOME_RETRY } else { Instant::NEVER };
        let timers = local.due.next_deadline().min(local.neighbors.next_deadline());
        let slaac = self.slaac.as_ref().map_or(Instant::NEVER, slaac::Client::next_deadline);
        let fragments =
            local.fragments.as_ref().map_or(Instant::NEVER, |table| table.next_deadline());
        timers.min(app).min(dhcp).min(slaac).min(home).min(fragments)
    }

    /// Sends buffers home, as far as the rings take them.
    #[inline]
    pub(crate) fn send_home(&mut self) {
        if self.local.pool.away() > 0 {
            self.send_some_home();
        }
    }

    #[inline(never)]
    fn send_some_home(&mut self) {
        let local = &mut self.local;
        while let Some(mbuf) = local.pool.take_away() {
            let home = local.pool.area().home(&mbuf);
            if local.mesh.is_absent(home) {
                local.pool.strand(mbuf);
            } else if let Err(mbuf) = local.mesh.send_home(home, mbuf) {
                local.pool.free(mbuf);
                break;
            }
        }
    }
}

/// A neighbour has answered what waited for it, or will not.
fn resolved(
    groups: &mut [Option<Box<FlowGroup>>],
    local: &mut Local,
    waiting: Waiting,
    mac: Option<[u8; 6]>,
) {
    match (waiting, mac) {
        (Waiting::Connection(handle), _) => {
            let Some(Some(group)) = groups.get_mut(usize::from(handle.group().0)) else { return };
            let index = handle.index();
            let Some(conn) = group.conns.whole(index) else { return };
            if conn.name != handle || conn.flags.contains(Flags::FREED) {
                return;
            }
            group.is_reached(index);
            if mac.is_some() {
                group.want_output(index, local);
            } else if group.conns[index].state == crate::conn::State::SynSent {
                close::end(group, local, index, DeadReason::Unreachable);
            }
        }
        (Waiting::Datagram(index), Some(mac)) => {
            if local.tx.stage(Staged::Datagram { index, mac }).is_err() {
                local.stats.drop(Drop::TxRingFull);
                udp::finished(local, index);
            }
        }
        (Waiting::Datagram(index), None) => udp::finished(local, index),
    }
}

/// Changes a gauge.
pub(crate) fn gauge(stats: &mut CoreStats, counter: Counter, by: i64) {
    stats.set(counter, stats.get(counter).wrapping_add_signed(by));
}
