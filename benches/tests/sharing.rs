//! No cache line is written by two cores while connections talk. Two cores of one dataplane run by turns on one
//! thread; after each turn the whole heap is compared with what it was: the lines that have changed are that core's.
//! The heap is laid out as the kernel's is, in whole lines. Nor does a turn take anything from it.
#![allow(unsafe_code, reason = "an allocator whose memory can be looked at")]
use ix_abi::stats::Counter;
use ix_bench::clients::Clients;
use ix_bench::echo::Echo;
use ix_bench::server::Server;
use ix_bench::server::engine::{EngineServer, Setup};
use ix_bench::{app, team::Team};
use ix_kernel_core::lines::{LINE_BYTES, whole_lines};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough for all that is ever allocated: nothing is given back.
const BYTES: usize = 1 << 28;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; BYTES]>);

// SAFETY: each byte is given out once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; BYTES]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

struct Lines;

// SAFETY: blocks are disjoint, aligned and within the arena.
unsafe impl GlobalAlloc for Lines {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(layout) = whole_lines(layout) else { return std::ptr::null_mut() };
        let mut from = TAKEN.load(Ordering::Relaxed);
        loop {
            let at = from.next_multiple_of(layout.align());
            let Some(end) = at.checked_add(layout.size()).filter(|end| *end <= BYTES) else {
                return std::ptr::null_mut();
            };
            match TAKEN.compare_exchange(from, end, Ordering::Relaxed, Ordering::Relaxed) {
                // SAFETY: within the arena.
                Ok(_) => return unsafe { ARENA.0.get().cast::<u8>().add(at) },
                Err(now) => from = now,
            }
        }
    }
    unsafe fn dealloc(&self, _ptr: *mut u8, _layout: Layout) {}
}

#[global_allocator]
static LINES: Lines = Lines;

/// What has been given out so far.
fn heap() -> &'static [u8] {
    // SAFETY: nothing runs beside the caller, who has done with it before anything is written.
    unsafe { std::slice::from_raw_parts(ARENA.0.get().cast::<u8>(), TAKEN.load(Ordering::Relaxed)) }
}

/// The heap as it was; not part of it.
static BEFORE: Mutex<[u8; BYTES]> = Mutex::new([0; BYTES]);

/// The lines of the heap that `work` changes, by number.
fn changed_by(work: impl FnOnce()) -> BTreeSet<usize> {
    let mut before = BEFORE.lock().expect("no panic before");
    let len = heap().len();
    before[..len].copy_from_slice(heap());
    work();
    let now = &heap()[..len];
    let pages = now.chunks(4096).zip(before.chunks(4096)).enumerate();
    let mut lines = BTreeSet::new();
    for (page, (now, before)) in pages.filter(|(_, (now, before))| now != &&before[..now.len()]) {
        let pairs = now.chunks(LINE_BYTES).zip(before.chunks(LINE_BYTES)).enumerate();
        let changed = pairs.filter(|(_, (now, before))| now != &&before[..now.len()]);
        lines.extend(changed.map(|(line, _)| page * (4096 / LINE_BYTES) + line));
    }
    lines
}

type Core = Box<Echo<EngineServer<app::Echo>>>;

/// A turn over requests of all its connections, what plays the network not included.
fn turn(core: &mut Core) -> BTreeSet<usize> {
    let Echo { server, clients, .. } = &mut **core;
    let lines = changed_by(|| {
        let taken = TAKEN.load(Ordering::Relaxed);
        server.turn();
        let more = TAKEN.load(Ordering::Relaxed) - taken;
        assert!(more == 0, "a warm loop allocates nothing, not {more} bytes");
    });
    let answers = clients.receive(server, |_, _, _, _| ());
    assert!(answers > 0, "{}", server.explain());
    lines
}

#[test]
fn no_line_is_written_by_two_cores_while_connections_talk() {
    let connections = 64;
    let setup = Setup { connections, buffers: 256, offload: true, tso: false, batch: 64 };
    let mut cores: Vec<Core> =
        Team::new(setup, 2).split(connections).into_iter().map(Box::new).collect();
    let mut written = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..40 {
        for (core, written) in cores.iter_mut().zip(&mut written) {
            for i in core.talking().to_vec() {
                let Echo { server, clients, .. } = &mut **core;
                Clients::request(clients, server, i, 64);
            }
            core.server.pass_ns(1_000_000);
            written.extend(turn(core));
        }
    }
    let [a, b] = &written;
    println!("{} and {} lines of {} bytes", a.len(), b.len(), heap().len());
    for core in &cores {
        assert!(core.server.stats().get(Counter::AppEntries) >= 40);
    }
    // Connections, their memory, rings, counters: at least a few lines for each connection.
    assert!(a.len() > connections && b.len() > connections);
    let both: Vec<_> = a.intersection(b).collect();
    assert!(both.is_empty(), "written by both cores: {both:x?}");

    // It would have been seen.
    let words: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
    let one = changed_by(|| words[0].store(1, Ordering::Relaxed));
    let other = changed_by(|| words[7].store(1, Ordering::Relaxed));
    assert!(one.len() == 1 && one == other);
}
