//! Stopping the port and starting it again, across cores, while the rest goes on. Three occasions: before
//! an application is started after another, so that all receive buffers can be scrubbed (posted ones
//! are the device's: only a reset gives them back); when the device does not complete the frames of an
//! ended application; when it has lost count and a queue is in quarantine.
//!
//! Core 0 announces steps (be quiet; the device is stopped; it runs again); each core takes one at its
//! quiescent point, with its own queues, and says so; nobody waits for anybody in the meantime. What
//! was to be sent is sent before the reset, and frames that the device had delivered are polled after
//! it: nothing is lost but what was on its way through the device.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ix_dataplane::device::{NicControl as _, NicRx as _, NicTx as _, Progress};
use ix_dataplane::engine::Engine;
use ix_dataplane::time::Instant;
use spin::Mutex;

use crate::cpu::percore::CORES_MAX;
use crate::net::Tx;
use crate::nic::{Control, Rx, Stopped};
use crate::time;
use crate::user::lifecycle;

/// Steps ever announced; modulo 4 it is a `Phase`.
static STEP: AtomicU32 = AtomicU32::new(0);
/// The step that each core has taken last.
static TAKEN: [AtomicU32; CORES_MAX] = [const { AtomicU32::new(0) }; CORES_MAX];
/// Proof that the device is stopped, while it is.
static STOPPED: Mutex<Option<Stopped>> = Mutex::new(None);
/// The buffers are to be scrubbed this time.
static SCRUB: AtomicBool = AtomicBool::new(false);
/// A core wants it.
static WANTED: AtomicBool = AtomicBool::new(false);
/// Renewals done, well or not.
static DONE: AtomicU32 = AtomicU32::new(0);

/// Renewals for a device that loses count, before it is left alone.
const QUARANTINES_MAX: u32 = 100;
static QUARANTINES: AtomicU32 = AtomicU32::new(0);

/// How long the cores may take for a step before that is said.
const PATIENCE_NS: u64 = 1_000_000_000;

/// How long a core waits for its last frames to leave: if they do not, the reset is what they need.
const QUIET_NS: u64 = 20_000_000;

const IDLE: u32 = 0;
/// Nothing more is received, so that nothing more is answered, and what was sent leaves.
const QUIET: u32 = 1;
const STOPPED_NOW: u32 = 2;
const STARTED: u32 = 3;
const PHASES: u32 = 4;

/// The step that all cores have to take.
#[inline]
pub fn step() -> u32 {
    STEP.load(Ordering::Acquire)
}

/// Between two counters of lost frames that are read: a register read takes a microsecond, in a virtual machine many.
const MISSED_EVERY_NS: u64 = 20_000_000;

/// A core asks for a reset of the device; the number that [`done`] has to exceed.
#[cold]
pub fn ask() -> u32 {
    WANTED.store(true, Ordering::Relaxed);
    done()
}

/// The same for a queue in quarantine. `false`: that was too often.
#[cold]
#[inline(never)]
pub fn ask_for_quarantine() -> bool {
    let again = QUARANTINES.fetch_add(1, Ordering::Relaxed) < QUARANTINES_MAX;
    if again {
        ask();
    }
    again
}

/// Renewals done.
pub fn done() -> u32 {
    DONE.load(Ordering::Acquire)
}

/// A core's queues, for [`CorePart::take`].
pub struct Queues<'a> {
    pub rx: &'a mut alloc::vec::Vec<Rx>,
    pub tx: &'a mut Tx,
}

/// What a core has of a renewal.
#[derive(Default)]
pub struct CorePart {
    /// The step taken last.
    taken: u32,
    /// Its receive queues while nothing may be posted.
    parked: alloc::vec::Vec<Rx>,
    quiet_since: Option<u64>,
}

impl CorePart {
    /// Whether there is a step to be taken: a load.
    #[inline]
    pub fn is_behind(&self) -> bool {
        step() != self.taken
    }

    /// Takes it, if that is possible already.
    #[cold]
    #[inline(never)]
    pub fn take(&mut self, core: usize, queues: Queues<'_>, engine: &mut Engine) {
        let step = step();
        let taken = match step % PHASES {
            QUIET => self.quiet(queues, engine),
            STOPPED_NOW => self.rewind(queues, engine),
            STARTED => self.go_on(queues, engine),
            // Done, or given up: what is parked still comes back.
            _ => {
                queues.rx.append(&mut self.parked);
                true
            }
        };
        if taken {
            self.taken = step;
            TAKEN[core].store(step, Ordering::Release);
        }
    }

    /// The resets of an ended application's connections, the answers to what came before.
    fn quiet(&mut self, queues: Queues<'_>, engine: &Engine) -> bool {
        self.parked.append(queues.rx);
        let now = time::now_ns();
        let since = *self.quiet_since.get_or_insert(now);
        let done = engine.is_tx_idle() || now.saturating_sub(since) > QUIET_NS;
        if done {
            self.quiet_since = None;
        }
        done
    }

    /// The device is stopped: once its last frames are polled, the queues are emptied.
    fn rewind(&mut self, queues: Queues<'_>, engine: &mut Engine) -> bool {
        queues.rx.append(&mut self.parked);
        if queues.rx.iter().any(Rx::has_frames) {
            return false;
        }
        let stopped = STOPPED.lock();
        // Without a device there is no proof, and nothing to rewind.
        if let Some(stopped) = stopped.as_ref() {
            queues.rx.iter_mut().for_each(|rx| rx.rewind(stopped, engine.pool_mut()));
            if let Tx::Queue(tx) = queues.tx {
                tx.queue_mut().rewind(stopped);
            }
        }
        if SCRUB.load(Ordering::Relaxed) {
            self.parked = core::mem::take(queues.rx);
        }
        true
    }

    /// The device runs again. Buffers are posted to it only once all are home and scrubbed.
    fn go_on(&mut self, queues: Queues<'_>, engine: &mut Engine) -> bool {
        if let Tx::Queue(tx) = queues.tx {
            tx.queue_mut().restarted();
        }
        if SCRUB.load(Ordering::Relaxed) {
            let pool = engine.pool_mut();
            if pool.available() < pool.capacity() {
                return false;
            }
            pool.scrub();
            *queues.rx = core::mem::take(&mut self.parked);
        }
        queues.rx.iter_mut().for_each(Rx::restarted);
        true
    }
}

/// Core 0's part: the device, and the order of steps.
pub struct Renewal {
    control: Option<Control>,
    /// A command that changes its table of groups is under way.
    redirecting: bool,
    cores: usize,
    /// A scrubbing is wanted; is done.
    /// When the card is asked next what it has lost.
    next_missed: u64,
    wanted: bool,
    scrubbed: bool,
    since: u64,
    told: bool,
}

impl Renewal {
    pub fn new(control: Option<Control>, cores: usize) -> Self {
        Self {
            control,
            redirecting: false,
            cores,
            next_missed: 0,
            wanted: false,
            scrubbed: false,
            since: 0,
            told: false,
        }
    }

    /// Goes on with what flow groups that move need of the device: one entry of its table, one command, at a time. A
    /// group's frames go to its core's queue, if they went to its old core's and the new one has one: else the core
    /// that has the queue forwards them.
    pub fn redirect(&mut self, engine: &mut Engine) {
        let Some(wish) = engine.redirect() else { return };
        // While the device is stopped it takes no commands; the table is written anew afterwards.
        if step() % PHASES != IDLE {
            return;
        }
        let now = Instant(time::now_ns());
        let Some(control) = &mut self.control else { return engine.redirected() };
        if !self.redirecting {
            let (group, to) = (wish.group.0, wish.to.0);
            if control.queue_of(group) != Some(wish.asker.0) || to >= control.pairs() {
                return engine.redirected();
            }
            if control.set_reta(group, to).is_err() || control.commit(now).is_err() {
                let _as_before = control.set_reta(group, wish.asker.0);
                return engine.redirected();
            }
            self.redirecting = true;
        }
        match control.poll(now) {
            Progress::Pending => {}
            Progress::Done | Progress::Idle => self.is_redirected(engine),
            Progress::Failed(e) => {
                log::warn!("the device does not take its table of groups: {e}");
                // Ours says what the device's does.
                let _as_before = control.set_reta(wish.group.0, wish.asker.0);
                self.is_redirected(engine);
            }
        }
    }

    fn is_redirected(&mut self, engine: &mut Engine) {
        self.redirecting = false;
        engine.redirected();
    }

    /// Every millisecond: now and then, what the card has lost for want of a buffer. Not while it is being stopped.
    pub fn count_missed(&mut self, engine: &mut Engine, now: u64) {
        if now < self.next_missed || step() % PHASES != IDLE {
            return;
        }
        self.next_missed = now + MISSED_EVERY_NS;
        if let Some(control) = &mut self.control {
            engine.count_missed(control.poll_missed());
        }
    }

    /// Wants the receive buffers scrubbed; no application may be attached.
    pub fn scrub(&mut self) {
        self.wanted = true;
        self.scrubbed = false;
    }

    /// Whether that is done; said once.
    pub fn take_scrubbed(&mut self) -> bool {
        core::mem::take(&mut self.scrubbed)
    }

    /// Every millisecond.
    pub fn tick(&mut self, now: u64) {
        let step = step();
        match step % PHASES {
            IDLE if self.wanted || WANTED.load(Ordering::Relaxed) => self.announce(),
            QUIET if self.all_have(step, now) => self.stop(),
            STOPPED_NOW if self.all_have(step, now) => self.start(),
            STARTED if self.all_have(step, now) => {
                self.scrubbed |= SCRUB.swap(false, Ordering::Relaxed);
                DONE.fetch_add(1, Ordering::Release);
                STEP.store(step.wrapping_add(PHASES - STARTED), Ordering::Release);
            }
            _ => {}
        }
    }

    fn stop(&mut self) {
        WANTED.store(false, Ordering::Relaxed);
        if let Some(control) = &mut self.control {
            match control.reset(&clock) {
                Ok(stopped) => *STOPPED.lock() = Some(stopped),
                Err(e) => {
                    // Its buffers are its own for ever: they can be neither reused nor scrubbed.
                    log::error!("network card: {e}: what it holds is not reused");
                    if core::mem::take(&mut self.wanted) {
                        log::error!("the receive buffers cannot be scrubbed: no app is started");
                    }
                    return self.give_up();
                }
            }
        }
        SCRUB.store(core::mem::take(&mut self.wanted), Ordering::Relaxed);
        self.announce();
    }

    /// The cores go on as they were.
    fn give_up(&mut self) {
        DONE.fetch_add(1, Ordering::Release);
        STEP.store(step().wrapping_add(PHASES - QUIET), Ordering::Release);
        lifecycle::kick_others();
    }

    fn start(&mut self) {
        let stopped = STOPPED.lock().take();
        if let (Some(control), Some(stopped)) = (&mut self.control, stopped)
            && let Err(e) = control.restart(stopped, &clock)
        {
            log::error!("network card: it does not start again after a reset: {e}");
        }
        self.announce();
    }

    fn announce(&mut self) {
        // Not since the tick began: what came before may have taken long.
        self.since = time::now_ns();
        self.told = false;
        STEP.store(step().wrapping_add(1), Ordering::Release);
        lifecycle::kick_others();
    }

    fn all_have(&mut self, step: u32, now: u64) -> bool {
        let behind = (0..self.cores).find(|&c| TAKEN[c].load(Ordering::Acquire) != step);
        if let Some(core) = behind
            && now.saturating_sub(self.since) > PATIENCE_NS
            && !self.told
        {
            self.told = true;
            log::error!("core {core}: receive buffers do not come home: the port stays stopped");
        }
        behind.is_none()
    }
}

fn clock() -> Instant {
    Instant(time::now_ns())
}
