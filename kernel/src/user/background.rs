//! Background threads of the application. They run on cores that are reserved for them and do not serve, one slice after
//! the other, round robin; between two slices the core passes its quiescent point like every other. They share the
//! application's memory, have no rings, and end with it. Nothing here is on the path of a packet.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::layout::{ThreadBlock, USER_END};
use ix_abi::status::Status;
use ix_kernel_core::threads::{Full, Slot, Table};
use spin::Mutex;

use super::calls::{self, Answer, Caller, LogBudget, Mapping, Wait, failure};
use super::lifecycle::{self, Reason};
use super::program::Program;
use super::state::UserState;
use super::{UserExit, enter};
use crate::cpu::percore;
use crate::manager::cores;
use crate::{apic, net, time};

/// Longest time between two looks at the rest of the core.
const SLICE_NS: u64 = 1_000_000;
/// How much longer a thread may go on that holds what others wait for, ...
const GRACE_NS: u64 = 1_000_000;
/// ... and how often that is looked at.
const LOOK_NS: u64 = 100_000;

/// A thread while it does not run.
struct Background {
    number: u64,
    state: Box<[UserState; 1]>,
    /// Address of its `ThreadBlock`.
    block: u64,
    /// A `map` that is not done.
    mapping: Option<Mapping>,
    /// It had to be interrupted although others wait for what it holds.
    holding: bool,
}

/// The background threads of a program.
pub struct Threads {
    table: Mutex<Table<Background>>,
    /// When the next wait is over, as of the last look; `u64::MAX`: none.
    deadline_ns: AtomicU64,
    started: AtomicU64,
    log: Mutex<LogBudget>,
}

/// What became of a thread's slice.
enum Fate {
    /// It goes on another time; at once, if others wait for it.
    Yielded {
        urgent: bool,
    },
    Waits(Wait),
    Left,
}

impl Threads {
    pub fn new() -> Self {
        Self {
            table: Mutex::new(Table::new()),
            deadline_ns: AtomicU64::new(u64::MAX),
            started: AtomicU64::new(0),
            log: Mutex::new(LogBudget::new()),
        }
    }

    /// Whether one could run now.
    #[cold]
    #[inline(never)]
    pub fn has_work(&self) -> bool {
        self.table.lock().ready() > 0 || self.deadline_ns() <= time::now_ns()
    }

    /// When the next wait is over; `u64::MAX`: nobody waits.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns.load(Ordering::Relaxed)
    }

    fn note_deadline(&self, table: &Table<Background>) {
        self.deadline_ns.store(table.next_deadline_ns(), Ordering::Relaxed);
    }

    /// Those whose time has come can run again.
    fn expire(&self, table: &mut Table<Background>) {
        let now = time::now_ns();
        if now >= self.deadline_ns() {
            table.expire(now, |thread| thread.state[0].rax = failure(Status::TimedOut));
            self.note_deadline(table);
        }
    }
}

/// `thread(entry, stack, block)`.
#[cold]
#[inline(never)]
pub fn start(program: &Program, [entry, stack, block]: [u64; 3]) -> Result<u64, Status> {
    if cores::reserved().next().is_none() {
        return Err(Status::State);
    }
    let user = |at: u64| at > 0 && at < USER_END;
    if !user(entry) || !user(stack.wrapping_sub(1)) || !stack.is_multiple_of(16) {
        return Err(Status::Invalid);
    }
    if !block.is_multiple_of(align_of::<ThreadBlock>() as u64) {
        return Err(Status::Invalid);
    }
    program.space.lock().word(block, true).ok_or(Status::Fault)?;
    let threads = &program.threads;
    let number = threads.started.fetch_add(1, Ordering::Relaxed) + 1;
    let state = boxed(UserState::start(entry, stack, block, number)).ok_or(Status::NoMemory)?;
    let thread = Background { number, state, block, mapping: None, holding: false };
    threads.table.lock().add(thread).map_err(|full| match full {
        Full::Limit => Status::Limit,
        Full::NoMemory => Status::NoMemory,
    })?;
    wake_cores(1);
    Ok(number)
}

/// A box, unless memory is out: whoever runs into that is the application's business.
fn boxed(state: UserState) -> Option<Box<[UserState; 1]>> {
    let mut one = Vec::new();
    one.try_reserve_exact(1).ok()?;
    one.push(state);
    one.into_boxed_slice().try_into().ok()
}

/// `wake(addr, count)`.
#[cold]
#[inline(never)]
pub fn wake(program: &Program, addr: u64, count: u64) -> Result<u64, Status> {
    if !addr.is_multiple_of(4) {
        return Err(Status::Invalid);
    }
    let threads = &program.threads;
    let mut table = threads.table.lock();
    let woken = table.wake(addr, count, |thread| thread.state[0].rax = 0);
    if woken > 0 {
        threads.note_deadline(&table);
        drop(table);
        wake_cores(woken);
    }
    Ok(woken)
}

/// As many of the reserved cores as there is new work for look at it, if they halt.
fn wake_cores(most: u64) {
    let halted = |core: &usize| percore::of(*core).sleeping.load(Ordering::Relaxed);
    cores::reserved().filter(halted).take(most as usize).for_each(net::wake_core);
}

/// Runs the thread whose turn it is, until `until_ns` or the end of its slice; `holders`: only one that others wait
/// for. Whether there was one.
#[cold]
#[inline(never)]
pub fn run_slice(program: &Arc<Program>, until_ns: u64, holders: bool) -> bool {
    let threads = &program.threads;
    let taken = {
        let mut table = threads.table.lock();
        threads.expire(&mut table);
        if holders { table.take_if(|thread| thread.holding) } else { table.take() }
    };
    let Some((slot, mut thread)) = taken else { return false };
    let end = until_ns.min(time::now_ns() + SLICE_NS);
    let me = percore::this();
    me.background.store(true, Ordering::Relaxed);
    let fate = thread.run(program, end);
    me.background.store(false, Ordering::Relaxed);
    settle(program, slot, thread, fate);
    true
}

/// What becomes of it is seen by others from now on.
fn settle(program: &Program, slot: Slot, mut thread: Background, fate: Fate) {
    let threads = &program.threads;
    let mut table = threads.table.lock();
    match fate {
        Fate::Yielded { urgent } => table.yielded(slot, thread, urgent),
        Fate::Waits(wait) => {
            // Under the table's lock: whoever changes the word and wakes comes before or after.
            let word =
                program.space.lock().word(wait.addr, false).map(|w| w.load(Ordering::Acquire));
            match word {
                Some(word) if word == wait.value => {
                    table.waits(slot, thread, wait.addr, wait.deadline_ns);
                    threads.note_deadline(&table);
                    return;
                }
                Some(_) => thread.state[0].rax = failure(Status::Again),
                None => thread.state[0].rax = failure(Status::Fault),
            }
            table.yielded(slot, thread, false);
        }
        Fate::Left => {
            table.ended(slot);
            let ended = thread.block + offset_of!(ThreadBlock, ended) as u64;
            if let Some(word) = program.space.lock().word(ended, true) {
                word.store(1, Ordering::Release);
            }
            let woken = table.wake(ended, u64::MAX, |waiting| waiting.state[0].rax = 0);
            threads.note_deadline(&table);
            drop(table);
            wake_cores(woken);
        }
    }
}

impl Background {
    fn run(&mut self, program: &Arc<Program>, end: u64) -> Fate {
        if let Some(mapping) = &mut self.mapping {
            let Some(result) = mapping.step(program) else {
                return Fate::Yielded { urgent: false };
            };
            self.state[0].rax = result;
            self.mapping = None;
        }
        arm(end.saturating_sub(time::now_ns()));
        loop {
            if lifecycle::is_ending() {
                return Fate::Yielded { urgent: false };
            }
            match enter(&mut self.state[0], percore::this()) {
                UserExit::Syscall { number, args } => {
                    if let Some(fate) = self.call(program, number, args) {
                        return fate;
                    }
                }
                UserExit::Preempted => {
                    let over = time::now_ns();
                    let holds = self.holds(program);
                    if holds && over < end + GRACE_NS {
                        arm(LOOK_NS);
                        continue;
                    }
                    // Who says so for ever has no more turns than others.
                    let urgent = holds && !self.holding;
                    self.holding = holds;
                    return Fate::Yielded { urgent };
                }
                UserExit::Fault(fault) => {
                    let (name, number) = (&program.name, self.number);
                    log::error!("app {name}: {fault} in background thread {number}");
                    lifecycle::end(Reason::Fault(fault.vector));
                    return Fate::Left;
                }
            }
        }
    }

    /// A direct call; `Some` if the slice is over by it.
    fn call(&mut self, program: &Arc<Program>, number: u64, args: [u64; 3]) -> Option<Fate> {
        let caller = Caller { program, log: &program.threads.log, is_elastic: false };
        let later = Some(Fate::Yielded { urgent: false });
        match calls::direct(&caller, number, args) {
            Answer::Value(v) => {
                self.state[0].rax = v;
                None
            }
            Answer::Late(v) => {
                self.state[0].rax = v;
                later
            }
            Answer::Map(mapping) => {
                self.mapping = Some(mapping);
                later
            }
            Answer::Wait(wait) => Some(Fate::Waits(wait)),
            Answer::Leave => Some(Fate::Left),
            // Refused to background threads where it is decoded.
            Answer::Batch => {
                self.state[0].rax = failure(Status::Denied);
                None
            }
            Answer::Exit(code) => {
                lifecycle::end(Reason::Exit(code));
                Some(Fate::Left)
            }
        }
    }

    /// Whether it says that others wait for it. An allegation: it buys little.
    fn holds(&self, program: &Program) -> bool {
        let hold = self.block + offset_of!(ThreadBlock, hold) as u64;
        program.space.lock().word(hold, false).is_some_and(|w| w.load(Ordering::Relaxed) != 0)
    }
}

/// One interrupt after so long; if that was before, at once.
fn arm(ns: u64) {
    percore::this().timer_armed.store(true, Ordering::Relaxed);
    apic::arm_timer(ns.max(1));
}
