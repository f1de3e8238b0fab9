//! What people look with: packet captures, the packet trace, the log of last events.
//!
//! Core 0 executes the commands and keeps the settings; each core takes them over at its quiescent
//! point, when their number has changed. What is off costs a core that one comparison in each
//! iteration of its loop.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::capture::{Filter, LEASE_NS, ring, ring_bytes, ring_offset};
use ix_abi::control::BULK_BASE;
use ix_abi::event_log::EventKind;
use ix_abi::limits::{LISTENERS_MAX, UDP_BINDINGS_MAX};
use ix_abi::stats::CoreStats;
use ix_abi::status::Status;
use ix_dataplane::engine::Engine;
use ix_dataplane::tap::Ring;
use ix_dataplane::time::Instant;
use ix_kernel_core::commands::Command;
use spin::Mutex;

use crate::control::{self, Pending};
use crate::{start, time};

pub mod crash;
pub mod log;
mod trace;

/// What is wanted on all cores.
#[derive(Clone, Copy)]
struct Settings {
    /// Number and filter of the capture.
    capture: Option<(u64, Filter)>,
    trace: Option<Filter>,
    /// How many captures there were.
    captures: u64,
}

static SETTINGS: Mutex<Settings> = Mutex::new(Settings { capture: None, trace: None, captures: 0 });
/// Changes with the settings.
static NUMBER: AtomicU64 = AtomicU64::new(0);

fn change(f: impl FnOnce(&mut Settings)) {
    f(&mut SETTINGS.lock());
    NUMBER.store(NUMBER.load(Ordering::Relaxed) + 1, Ordering::Release);
}

fn now() -> Instant {
    Instant(time::now_ns())
}

/// Before the cores run: the trace that the command line asks for.
pub fn trace_from_boot() {
    change(|s| s.trace = Some(Filter::default()));
}

/// One core's part.
#[derive(Debug)]
pub struct Core {
    core: usize,
    /// The settings that it has taken over.
    number: u64,
    capture: u64,
    follower: log::Follower,
}

impl Core {
    pub fn new(core: usize) -> Self {
        Self { core, number: 0, capture: 0, follower: log::Follower::new() }
    }

    /// Whether the settings have changed: a load and a comparison.
    #[inline]
    pub fn is_behind(&self) -> bool {
        NUMBER.load(Ordering::Acquire) != self.number
    }

    /// Takes the settings over.
    #[cold]
    #[inline(never)]
    pub fn catch_up(&mut self, engine: &mut Engine) {
        self.number = NUMBER.load(Ordering::Acquire);
        let settings = *SETTINGS.lock();
        let tap = engine.tap_mut();
        match settings.trace {
            Some(filter) => tap.start_trace(filter, trace::line, now),
            None => tap.stop_trace(),
        }
        match settings.capture {
            Some((generation, _)) if generation == self.capture => {}
            Some((generation, filter)) => {
                self.capture = generation;
                // First: the old ring's last word is in the new one's memory.
                tap.stop_capture();
                let cores = control::cores();
                let words = control::words(ring_offset(self.core, cores), ring_bytes(cores));
                let boot = start::machine().boot_unix_ns();
                if let Some(ring) = words.and_then(|words| Ring::start(words, generation, boot)) {
                    tap.start_capture(filter, ring, now);
                }
            }
            None => {
                self.capture = 0;
                tap.stop_capture();
            }
        }
    }

    /// About every millisecond: what the counters say of this core's troubles goes to its log.
    pub fn publish(&mut self, stats: &CoreStats) {
        self.follower.look(self.core, stats, time::now_ns());
        trace::tell_skipped(self.core);
    }
}

/// Core 0's part: the capture's lease, and what the log wants to know.
#[derive(Debug, Default)]
pub struct Watch {
    lease: u64,
    renewed_ns: u64,
    address: u64,
    port_changes: u32,
    /// As the engine lists them.
    ports: Vec<u16>,
}

impl Watch {
    /// Every millisecond.
    pub fn tick(&mut self, engine: &Engine, now: u64) {
        let v4 = engine.ipv4();
        let address = v4.map_or(0, |v4| u64::from(u32::from_le_bytes(v4.address)));
        if address != self.address {
            self.address = address;
            log::record(EventKind::Address, 0, address, v4.map_or(0, |v4| u64::from(v4.prefix)));
        }
        if engine.port_changes() != self.port_changes {
            self.port_changes = engine.port_changes();
            self.note_ports(engine);
        }
        let running = SETTINGS.lock().capture;
        if let Some((generation, _)) = running {
            let lease = control::get(ring_offset(0, control::cores()) + ring::LEASE);
            if lease != self.lease {
                self.lease = lease;
                self.renewed_ns = now;
            } else if now.saturating_sub(self.renewed_ns) > LEASE_NS {
                ::log::warn!("capture {generation} ends: its client was silent for 5 s");
                end_capture(1);
            }
        }
        crate::selftest::crash_late(now);
    }

    #[cold]
    fn note_ports(&mut self, engine: &Engine) {
        self.ports.resize(LISTENERS_MAX + UDP_BINDINGS_MAX, 0);
        for (i, (was, port)) in self.ports.iter_mut().zip(engine.ports_in_use()).enumerate() {
            let protocol = if i < LISTENERS_MAX { 6 } else { 17 };
            if *was == port {
                continue;
            }
            if *was != 0 {
                log::record(EventKind::Unlisten, *was, protocol, 0);
            }
            if port != 0 {
                log::record(EventKind::Listen, port, protocol, 0);
            }
            *was = port;
        }
    }

    /// `CaptureStart`, `CaptureStop`, `Trace`.
    pub fn command(&mut self, c: Pending, command: Command) {
        let (status, value) = match command {
            Command::CaptureStart => self.start_capture(),
            Command::CaptureStop(number) => {
                let running = SETTINGS.lock().capture;
                match running {
                    Some((generation, _)) if number == 0 || number == generation => {
                        end_capture(0);
                        (Status::Ok, generation)
                    }
                    _ => (Status::State, 0),
                }
            }
            Command::Trace(false) => {
                change(|s| s.trace = None);
                (Status::Ok, 0)
            }
            Command::Trace(true) => match filter() {
                Ok(filter) => {
                    change(|s| s.trace = Some(filter));
                    (Status::Ok, 1)
                }
                Err(status) => (status, 0),
            },
            _ => (Status::Invalid, 0),
        };
        if matches!(command, Command::Trace(_)) && status == Status::Ok {
            log::record(EventKind::Trace, 0, value, 0);
        }
        control::answer(c, status, value);
    }

    fn start_capture(&mut self) -> (Status, u64) {
        // A page over a serial line has no rings.
        let cores = control::cores();
        if control::words(ring_offset(0, cores), ring_bytes(cores)).is_none() {
            return (Status::Unsupported, 0);
        }
        if SETTINGS.lock().capture.is_some() {
            return (Status::InUse, 0);
        }
        let filter = match filter() {
            Ok(filter) => filter,
            Err(status) => return (status, 0),
        };
        self.lease = control::get(ring_offset(0, control::cores()) + ring::LEASE);
        self.renewed_ns = time::now_ns();
        change(|s| {
            s.captures += 1;
            s.capture = Some((s.captures, filter));
        });
        let generation = SETTINGS.lock().captures;
        log::record(EventKind::CaptureStarts, 0, generation, 0);
        (Status::Ok, generation)
    }
}

fn end_capture(why: u16) {
    let generation = SETTINGS.lock().capture.map_or(0, |(generation, _)| generation);
    log::record(EventKind::CaptureEnds, why, generation, 0);
    change(|s| s.capture = None);
}

/// The filter in the bulk area: copied once, then checked.
fn filter() -> Result<Filter, Status> {
    Filter::decode(&core::array::from_fn(|i| control::get(BULK_BASE + i * 8)))
}
