//! Direct system calls. What they are told is an allegation: numbers are ranged, memory is read through
//! the application's own page tables, failures are answers (`-(status)`), never the kernel's problem.

use alloc::sync::Arc;

use ix_abi::call::Direct;
use ix_abi::layout::{HEAP_BASE, PAGE_BYTES};
use ix_abi::limits::{LOG_BYTES_MAX, WAIT_MAX_US};
use ix_abi::status::Status;
use ix_kernel_core::paging::{Access, MapError};
use spin::Mutex;

use super::program::{Leaving, Program, enter_in_map};
use super::space::AddressSpace;
use super::{background, lifecycle};
use crate::{start, time};

/// What becomes of a call.
pub enum Answer {
    /// Goes back to the application in `rax`.
    Value(u64),
    /// The same, but the network goes first: the call took its time.
    Late(u64),
    /// `map`: [`Mapping::step`] does the rest, bit by bit.
    Map(Mapping),
    /// `enter`: the batch is to be run. Elastic threads only.
    Batch,
    /// `wait`. Background threads only.
    Wait(Wait),
    /// `leave`. Background threads only.
    Leave,
    Exit(u64),
}

/// What a background thread waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub addr: u64,
    /// Only if the word is this.
    pub value: u32,
    pub deadline_ns: u64,
}

/// Who calls.
pub struct Caller<'a> {
    pub program: &'a Arc<Program>,
    pub log: &'a Mutex<LogBudget>,
    /// It has rings, and its core a network to serve.
    pub is_elastic: bool,
}

fn failed(status: Status) -> Answer {
    Answer::Value(failure(status))
}

/// A failure, as `rax` tells it.
pub fn failure(status: Status) -> u64 {
    u64::from(status.0).wrapping_neg()
}

/// How much a context may log: a flood must cost the application, not the console's readers, nor the
/// network of its core (a byte takes a real serial line 87 us).
pub struct LogBudget {
    /// Bytes that may be written now.
    bytes: u64,
    /// When that was reckoned.
    at_ns: u64,
    left_out: u64,
}

/// Bytes at once, and then in a second.
const LOG_BURST: u64 = 16 << 10;
const LOG_BYTES_PER_SECOND: u64 = 8 << 10;
/// What a line costs besides its text.
const LOG_LINE: u64 = 24;

impl LogBudget {
    pub const fn new() -> Self {
        Self { bytes: LOG_BURST, at_ns: 0, left_out: 0 }
    }

    fn take(&mut self, len: usize) -> bool {
        const SECOND: u64 = 1_000_000_000;
        let now = time::now_ns();
        let since = now.saturating_sub(self.at_ns).min(8 * SECOND);
        let earned = since * LOG_BYTES_PER_SECOND / SECOND;
        if earned > 0 {
            self.at_ns = now;
            self.bytes = (self.bytes + earned).min(LOG_BURST);
        }
        let cost = len as u64 + LOG_LINE;
        if self.bytes < cost {
            self.left_out += 1;
            return false;
        }
        self.bytes -= cost;
        if self.left_out > 0 {
            log::warn!("{} lines of the app's log were left out", self.left_out);
            self.left_out = 0;
        }
        true
    }
}

pub fn direct(caller: &Caller<'_>, number: u64, args: [u64; 3]) -> Answer {
    let Ok(number) = u16::try_from(number) else { return failed(Status::Invalid) };
    match Direct(number) {
        Direct::Enter if caller.is_elastic => Answer::Batch,
        Direct::Wait | Direct::Leave if caller.is_elastic => failed(Status::Denied),
        Direct::Enter => failed(Status::Denied),
        Direct::Leave => Answer::Leave,
        Direct::Wait => wait(args[0], args[1], args[2]),
        Direct::Exit => Answer::Exit(args[0]),
        Direct::Log => log_line(caller, args[0], args[1], args[2]),
        Direct::Clock => clock(args[0]),
        Direct::Map => map(caller, args[0], args[1]),
        Direct::Unmap => unmap(caller, args[0], args[1]),
        Direct::Ready => {
            lifecycle::app_is_ready();
            Answer::Value(0)
        }
        Direct::Thread => match background::start(caller.program, args) {
            Ok(number) => Answer::Value(number),
            Err(status) => failed(status),
        },
        Direct::Wake => match background::wake(caller.program, args[0], args[1]) {
            Ok(woken) => Answer::Value(woken),
            Err(status) => failed(status),
        },
        _ => failed(Status::Invalid),
    }
}

fn wait(addr: u64, value: u64, timeout_us: u64) -> Answer {
    let (true, Ok(value)) = (addr.is_multiple_of(4), u32::try_from(value)) else {
        return failed(Status::Invalid);
    };
    let deadline_ns = time::now_ns() + timeout_us.min(WAIT_MAX_US) * 1000;
    Answer::Wait(Wait { addr, value, deadline_ns })
}

#[cold]
#[inline(never)]
fn log_line(caller: &Caller<'_>, addr: u64, len: u64, level: u64) -> Answer {
    let mut buffer = [0; LOG_BYTES_MAX];
    let want = usize::try_from(len).map_or(LOG_BYTES_MAX, |n| n.min(LOG_BYTES_MAX));
    let got = caller.program.space.lock().read(addr, &mut buffer[..want]);
    if got < want {
        return failed(Status::Fault);
    }
    if !caller.log.lock().take(want) {
        return Answer::Value(0);
    }
    // One line of printable text, whatever came: the log must not be forgeable.
    for b in &mut buffer[..want] {
        if !(b' '..=b'~').contains(b) && *b < 0x80 {
            *b = b'.';
        }
    }
    let text = match core::str::from_utf8(&buffer[..want]) {
        Ok(text) => text,
        Err(e) => core::str::from_utf8(&buffer[..e.valid_up_to()]).unwrap_or(""),
    };
    let level = match level {
        0 | 1 => log::Level::Error,
        2 => log::Level::Warn,
        3 => log::Level::Info,
        4 => log::Level::Debug,
        _ => log::Level::Trace,
    };
    log::log!(level, "{}: {text}", caller.program.name);
    Answer::Late(0)
}

fn clock(which: u64) -> Answer {
    match which {
        0 => Answer::Value(time::now_ns()),
        1 => match start::machine().boot_unix_ns() {
            0 => failed(Status::Unsupported),
            boot => Answer::Value(boot + time::now_ns()),
        },
        _ => failed(Status::Invalid),
    }
}

/// Checks a range of heap pages.
fn heap_range(caller: &Caller<'_>, addr: u64, pages: u64) -> Option<core::ops::Range<u64>> {
    let end = pages.checked_mul(PAGE_BYTES).and_then(|n| addr.checked_add(n))?;
    let limit = HEAP_BASE + caller.program.heap_pages_max * PAGE_BYTES;
    let ok = pages > 0 && addr.is_multiple_of(PAGE_BYTES) && addr >= HEAP_BASE && end <= limit;
    ok.then_some(addr..end)
}

fn steps(range: &core::ops::Range<u64>) -> impl Iterator<Item = u64> + use<> {
    range.clone().step_by(PAGE_BYTES as usize)
}

#[cold]
#[inline(never)]
fn map(caller: &Caller<'_>, addr: u64, pages: u64) -> Answer {
    let Some(range) = heap_range(caller, addr, pages) else { return failed(Status::Invalid) };
    let space = caller.program.space.lock();
    if steps(&range).any(|va| space.is_mapped(va)) {
        return failed(Status::InUse);
    }
    // A page that is still leaving may be in another core's TLB.
    let leaving = caller.program.leaving.lock();
    if leaving.iter().any(|l| range.contains(&l.addr)) {
        return failed(Status::Again);
    }
    log::debug!("map of {pages} pages at {addr:#x}");
    Answer::Map(Mapping { next: range.start, range })
}

/// A `map` under way. Zeroing takes time, and the core has a network to serve: so a few pages at a
/// time, the core loop in between.
pub struct Mapping {
    range: core::ops::Range<u64>,
    next: u64,
}

impl Mapping {
    /// Pages of one step.
    const STEP: usize = 4;

    /// Goes on; the call's result once it is done.
    pub fn step(&mut self, program: &Program) -> Option<u64> {
        for _ in 0..Self::STEP {
            if self.next == self.range.end {
                return Some(0);
            }
            let frame = program.space.lock().map_fresh(self.next, Access::Write);
            match frame {
                Ok(frame) => {
                    let entered = enter_in_map(&program.map, self.next, frame);
                    self.next += PAGE_BYTES;
                    if !entered {
                        return Some(self.undo(program, MapError::NoMemory));
                    }
                }
                Err(e) => return Some(self.undo(program, e)),
            }
        }
        (self.next == self.range.end).then_some(0)
    }

    /// All or nothing. Another context may have used the pages meanwhile: that is its own mistake.
    fn undo(&self, program: &Program, why: MapError) -> u64 {
        let mut space = program.space.lock();
        for done in (self.range.start..self.next).step_by(PAGE_BYTES as usize) {
            release(program, &mut space, done);
        }
        let status = match why {
            MapError::NoMemory => Status::NoMemory,
            // Another context has mapped it meanwhile.
            _ => Status::InUse,
        };
        u64::from(status.0).wrapping_neg()
    }
}

#[cold]
#[inline(never)]
fn unmap(caller: &Caller<'_>, addr: u64, pages: u64) -> Answer {
    let Some(range) = heap_range(caller, addr, pages) else { return failed(Status::Invalid) };
    let mut space = caller.program.space.lock();
    if steps(&range).any(|va| !space.is_mapped(va)) {
        return failed(Status::Fault);
    }
    for va in steps(&range) {
        release(caller.program, &mut space, va);
    }
    Answer::Value(0)
}

/// Takes a page out; its frame is freed when every core has flushed its TLB and no frame in flight
/// refers to it (`lifecycle::reap`).
fn release(program: &Program, space: &mut AddressSpace, va: u64) {
    program.map.unmap(va);
    if let Some(frame) = space.unmap(va) {
        let epoch = lifecycle::next_unmap_epoch();
        program.leaving.lock().push(Leaving { addr: va, frame, epoch });
    }
}
