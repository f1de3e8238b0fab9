//! Core 0's millisecond: heartbeat, commands of `ixcp`, the application's start, end and restart.

use core::sync::atomic::{AtomicUsize, Ordering};
use ix_abi::IpAddress;
use ix_abi::control::{State, header};
use ix_abi::event_log::EventKind;
use ix_abi::limits::CORES_MAX;
use ix_dataplane::addresses::Slot;
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::IPV6_ADDRESSES_MAX;
use ix_kernel_core::addr::Phys;

pub mod acl;
mod command;
pub mod cores;
pub mod demand;
pub mod lending;

use crate::cpu::percore;
use crate::exit::{Exit, exit};
use crate::line::Line;
use crate::renew::Renewal;
use crate::user::lifecycle::{self, Reason};
use crate::user::program::{self, Environment, LoadError, Program};
use crate::watch::{self, Watch};
use crate::{control, mem, start, time};

/// How often core 0 looks.
const PERIOD_NS: u64 = 1_000_000;
/// How long `ix: ready` waits for an address from DHCP.
const ADDRESS_NS: u64 = 20_000_000_000;

/// The bound B that `ixcp batch` asked for; each core takes it over. 0: never asked.
static BATCH: AtomicUsize = AtomicUsize::new(0);

/// The batch bound that all cores should have.
#[inline]
pub fn batch_wanted() -> usize {
    BATCH.load(Ordering::Relaxed)
}

/// What a program is given that does not change from one start to the next.
pub struct Fixed {
    pub cores: usize,
    /// Of them, those that are for background threads at first.
    pub background: usize,
    /// Cores whose queue of the network card others send through, a bit each.
    pub sharing: u64,
    pub groups: u16,
    pub rx_area: (Phys, u64),
    pub has_nic: bool,
    /// Largest TCP segment.
    pub mss: u16,
}

pub struct Manager {
    fixed: Fixed,
    next: u64,
    heartbeat: u64,
    restart: bool,
    announced: bool,
    ended: bool,
    watch: Watch,
    /// Over which the control page is told, where it is not shared.
    line: Option<Line>,
    acl: acl::Task,
    cores: cores::Cores,
    renewal: Renewal,
    /// When a restart began that waits for the receive buffers to be scrubbed.
    restarting: Option<u64>,
    scrubbed: bool,
    /// As the control page has them.
    ipv6: [Slot; IPV6_ADDRESSES_MAX],
}

impl Manager {
    pub fn new(fixed: Fixed, renewal: Renewal, line: Option<Line>) -> Self {
        Self {
            cores: cores::Cores::new(fixed.cores, fixed.groups, fixed.background, fixed.sharing),
            fixed,
            next: 0,
            heartbeat: 0,
            restart: false,
            announced: false,
            ended: false,
            watch: Watch::default(),
            line,
            acl: acl::Task::None,
            renewal,
            restarting: None,
            scrubbed: false,
            ipv6: [Slot::FREE; IPV6_ADDRESSES_MAX],
        }
    }

    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.next
    }

    /// How long until then.
    pub fn due_in(&self, now: u64) -> u64 {
        self.next.saturating_sub(now)
    }

    /// Whether bytes come or go on the serial line: then it is to be looked at in each iteration.
    #[inline]
    pub fn is_attentive(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_attentive)
    }

    /// While it is.
    #[cold]
    pub fn listen(&mut self, now: u64) {
        if let Some(line) = &mut self.line {
            line.poll(now);
        }
    }

    /// The device's indirection table says what the flow groups that have moved need.
    #[cold]
    pub fn redirect(&mut self, engine: &mut Engine) {
        self.renewal.redirect(engine);
    }

    /// Loads and starts the application that the command line names.
    pub fn start_app(&mut self, address: Option<[u8; 4]>) -> Result<(), LoadError> {
        let m = start::machine();
        let Some(name) = m.config.app else { return Ok(()) };
        let file = m.archive.and_then(|a| a.find(name)).ok_or(LoadError::NotInArchive)?;
        let mut mapped = [0; 16];
        if let Some(v4) = address {
            mapped[10..12].fill(0xFF);
            mapped[12..].copy_from_slice(&v4);
        }
        let env = Environment {
            cores: self.fixed.cores,
            groups: self.fixed.groups,
            rx_area: self.fixed.rx_area,
            address: mapped,
            mss: self.fixed.mss,
            args: m.config.args,
            heap_pages: program::heap_pages(m.config.heap_mib),
            boot_unix_ns: m.boot_unix_ns(),
        };
        let program = Program::load(name, file, &env)?;
        log::debug!("app {name}: loaded");
        log::info!("app {name}: {} KiB, {} cores", file.len() >> 10, self.fixed.cores);
        self.announced = false;
        self.ended = false;
        lifecycle::start(program);
        control::set(header::APP_STARTS, lifecycle::starts());
        watch::log::record(EventKind::AppStarts, 0, lifecycle::starts(), 0);
        Ok(())
    }

    /// Every millisecond, at core 0's quiescent point.
    #[cold]
    pub fn tick(&mut self, engine: &mut Engine, now: u64) {
        self.next = now + PERIOD_NS;
        self.heartbeat += 1;
        control::set(header::HEARTBEAT, self.heartbeat);
        control::set(header::NOW_NS, now);
        if let Some(v4) = engine.ipv4() {
            control::set(header::IPV4, u64::from(u32::from_le_bytes(v4.address)));
            control::set(header::PREFIX, u64::from(v4.prefix));
        }
        self.show_ipv6(engine);
        self.acl.step(engine);
        self.cores.step(engine, now);
        if let Some(line) = &mut self.line {
            line.poll(now);
        }
        self.command(engine);
        self.watch.tick(engine, now);
        self.announce(engine, now);
        lifecycle::reap_current();
        if self.cores.recall(lifecycle::is_ending()) {
            log::error!("a core that is away has a part of the application, which has ended");
            exit(Exit::Afresh);
        }
        if let Some(reason) = lifecycle::finish() {
            self.app_ended(reason);
        }
        crate::iommu::look(now);
        self.renewal.tick(now);
        self.renewal.count_missed(engine, now);
        self.scrubbed |= self.renewal.take_scrubbed();
        // A frame in each tick: the network is served in between.
        if self.scrubbed && mem::make_ready(program::frames_at_start(self.fixed.cores)) {
            self.scrubbed = false;
            self.restart_scrubbed(engine);
        }
        control::set_state(self.state());
    }

    /// The IPv6 addresses, when they have changed.
    fn show_ipv6(&mut self, engine: &Engine) {
        let slots = engine.ipv6().slots;
        if slots == self.ipv6 {
            return;
        }
        // Without lengths there are no addresses: nobody reads one that is half there.
        control::set(header::IPV6_PREFIXES, 0);
        let mut prefixes = [0; 8];
        for (at, (new, old)) in slots.iter().zip(&self.ipv6).enumerate() {
            let [a, b] = IpAddress(new.address).to_words();
            control::set(header::IPV6 + at * 16, a);
            control::set(header::IPV6 + at * 16 + 8, b);
            prefixes[at] = if new.is_used() { new.prefix } else { 0 };
            if new.is_used() && new.address != old.address {
                log::info!("address {}/{}", IpAddress(new.address), new.prefix);
            }
        }
        control::set(header::IPV6_PREFIXES, u64::from_le_bytes(prefixes));
        self.ipv6 = slots;
    }

    fn state(&self) -> State {
        let overdue = (0..self.fixed.cores.min(CORES_MAX))
            .any(|c| percore::of(c).overdue.load(Ordering::Relaxed));
        if self.ended || !lifecycle::is_running() {
            State::AppEnded
        } else if overdue {
            State::Unresponsive
        } else if lifecycle::ready_ns() != 0 {
            State::Ready
        } else {
            State::Starting
        }
    }

    /// `ix: ready`, once the application said so and there is an address to reach it at.
    fn announce(&mut self, engine: &Engine, now: u64) {
        let ready = lifecycle::ready_ns();
        if self.announced || ready == 0 {
            return;
        }
        let address = engine.ipv4();
        if self.fixed.has_nic && address.is_none() && now - ready < ADDRESS_NS {
            return;
        }
        self.announced = true;
        control::set(header::READY_NS, ready);
        watch::log::record(EventKind::AppReady, 0, lifecycle::starts(), 0);
        let name = start::machine().config.app.unwrap_or("");
        let ms = now / 1_000_000;
        match address.map(|v4| v4.address) {
            Some([a, b, c, d]) => {
                log::info!("ready: {name} at {a}.{b}.{c}.{d} after {ms} ms");
            }
            None => log::info!("ready: {name} without an address after {ms} ms"),
        }
    }

    fn app_ended(&mut self, reason: Reason) {
        let name = start::machine().config.app.unwrap_or("");
        log::info!("app {name}: {reason}");
        // In the kernel's heap or free: what an application's end must bring back to the same figure.
        let (mapped, used) = mem::heap::figures();
        let free = mem::free_bytes() + mapped;
        control::set(header::MEMORY_FREE, free);
        control::set(header::HEAP_USED, used);
        log::debug!("app {name}: {free} bytes free after its end");
        control::set(header::APP_EXIT, reason.code());
        watch::log::record(EventKind::AppEnds, 0, reason.code(), 0);
        control::set(header::READY_NS, 0);
        self.ended = true;
        if self.restart {
            self.restart_app();
        } else if start::machine().config.exit_with_app {
            exit(match reason {
                Reason::Exit(0) | Reason::Command => Exit::Ok,
                Reason::Exit(_) => Exit::AppFailed,
                _ => Exit::AppKilled,
            });
        }
    }

    /// Another application, or the same afresh: the receive area must be as if nobody had used it.
    fn restart_app(&mut self) {
        self.restart = false;
        // One that is under way will do: a second scrubbing would find the new application attached.
        if self.restarting.is_none() {
            self.restarting = Some(time::now_ns());
            self.renewal.scrub();
        }
    }

    fn restart_scrubbed(&mut self, engine: &Engine) {
        let Some(began) = self.restarting.take() else { return };
        match self.start_app(engine.ipv4().map(|v4| v4.address)) {
            Ok(()) => log::info!("app restarted in {} us", (time::now_ns() - began) / 1000),
            Err(e) => log::error!("the app cannot be restarted: {e}"),
        }
    }
}
