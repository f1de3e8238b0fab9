//! Direct system calls. What they are told is an allegation: numbers are ranged, memory is read through
//! the application's own page tables, failures are answers (`-(status)`), never the kernel's problem.

use ix_abi::call::Direct;
use ix_abi::layout::{HEAP_BASE, PAGE_BYTES};
use ix_abi::limits::LOG_BYTES_MAX;
use ix_abi::status::Status;
use ix_kernel_core::paging::{Access, MapError};

use super::lifecycle;
use super::program::{Leaving, enter_in_map};
use super::thread::Thread;
use crate::{start, time};

/// What becomes of a call.
pub enum Answer {
    /// Goes back to the application in `rax`.
    Value(u64),
    /// `enter`: the batch is to be run.
    Batch,
    Exit(u64),
}

fn failed(status: Status) -> Answer {
    Answer::Value(u64::from(status.0).wrapping_neg())
}

/// How much an application may log: a flood must cost the application, not the console's readers.
pub struct LogBudget {
    second: u64,
    lines: u32,
}

/// Lines of one core in a second.
const LINES_PER_SECOND: u32 = 200;

impl LogBudget {
    pub const fn new() -> Self {
        Self { second: 0, lines: 0 }
    }

    fn take(&mut self) -> bool {
        let second = time::now_ns() / 1_000_000_000;
        if second != self.second {
            if self.lines > LINES_PER_SECOND {
                log::warn!(
                    "{} lines of the app's log were left out",
                    self.lines - LINES_PER_SECOND
                );
            }
            *self = Self { second, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LINES_PER_SECOND
    }
}

pub fn direct(thread: &mut Thread, number: u64, args: [u64; 3]) -> Answer {
    let Ok(number) = u16::try_from(number) else { return failed(Status::Invalid) };
    match Direct(number) {
        Direct::Enter => Answer::Batch,
        Direct::Exit => Answer::Exit(args[0]),
        Direct::Log => log_line(thread, args[0], args[1], args[2]),
        Direct::Clock => clock(args[0]),
        Direct::Map => map(thread, args[0], args[1]),
        Direct::Unmap => unmap(thread, args[0], args[1]),
        Direct::Ready => {
            lifecycle::app_is_ready();
            Answer::Value(0)
        }
        Direct::Thread | Direct::Wait | Direct::Wake => failed(Status::Unsupported),
        _ => failed(Status::Invalid),
    }
}

#[cold]
#[inline(never)]
fn log_line(thread: &mut Thread, addr: u64, len: u64, level: u64) -> Answer {
    let mut buffer = [0; LOG_BYTES_MAX];
    let want = usize::try_from(len).map_or(LOG_BYTES_MAX, |n| n.min(LOG_BYTES_MAX));
    let got = thread.program.space.lock().read(addr, &mut buffer[..want]);
    if got < want {
        return failed(Status::Fault);
    }
    if !thread.log.take() {
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
    log::log!(level, "{}: {text}", thread.program.name);
    Answer::Value(0)
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
fn heap_range(thread: &Thread, addr: u64, pages: u64) -> Option<core::ops::Range<u64>> {
    let end = pages.checked_mul(PAGE_BYTES).and_then(|n| addr.checked_add(n))?;
    let limit = HEAP_BASE + thread.program.heap_pages_max * PAGE_BYTES;
    let ok = pages > 0 && addr.is_multiple_of(PAGE_BYTES) && addr >= HEAP_BASE && end <= limit;
    ok.then_some(addr..end)
}

fn steps(range: &core::ops::Range<u64>) -> impl Iterator<Item = u64> + use<> {
    range.clone().step_by(PAGE_BYTES as usize)
}

#[cold]
#[inline(never)]
fn map(thread: &Thread, addr: u64, pages: u64) -> Answer {
    let Some(range) = heap_range(thread, addr, pages) else { return failed(Status::Invalid) };
    let mut space = thread.program.space.lock();
    if steps(&range).any(|va| space.is_mapped(va)) {
        return failed(Status::InUse);
    }
    // A page that is still leaving may be in another core's TLB.
    let leaving = thread.program.leaving.lock();
    if leaving.iter().any(|l| range.contains(&l.addr)) {
        return failed(Status::Again);
    }
    drop(leaving);
    log::debug!("map of {pages} pages at {addr:#x}");
    for va in steps(&range) {
        match space.map_fresh(va, Access::Write) {
            Ok(frame) => enter_in_map(&thread.program.map, va, frame),
            Err(e) => {
                // Nobody but this core can have used the pages since: the lock is held.
                for done in (range.start..va).step_by(PAGE_BYTES as usize) {
                    release(thread, &mut space, done);
                }
                let no_memory = e == MapError::NoMemory;
                return failed(if no_memory { Status::NoMemory } else { Status::Fault });
            }
        }
    }
    Answer::Value(0)
}

#[cold]
#[inline(never)]
fn unmap(thread: &Thread, addr: u64, pages: u64) -> Answer {
    let Some(range) = heap_range(thread, addr, pages) else { return failed(Status::Invalid) };
    let mut space = thread.program.space.lock();
    if steps(&range).any(|va| !space.is_mapped(va)) {
        return failed(Status::Fault);
    }
    for va in steps(&range) {
        release(thread, &mut space, va);
    }
    Answer::Value(0)
}

/// Takes a page out; its frame is freed when every core has flushed its TLB and no frame in flight
/// refers to it (`lifecycle::reap`).
fn release(thread: &Thread, space: &mut super::space::AddressSpace, va: u64) {
    thread.program.map.unmap(va);
    if let Some(frame) = space.unmap(va) {
        let epoch = lifecycle::next_unmap_epoch();
        thread.program.leaving.lock().push(Leaving { addr: va, frame, epoch });
    }
}
