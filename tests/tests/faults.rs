//! Scarcity inside: the simulation with allocations, queues and pools that fail by seed. Streams must
//! stay whole, nothing may leak, and everything goes on when the faults end.
//!
//! `IX_SIM_SEED=n` runs one seed, `IX_SIM_SECONDS=n` as many as it can in that time.
#![allow(unsafe_code, reason = "the allocator that fails")]

use ix_tests::sim::{self, faults};
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Seeds of a normal run.
const SEEDS: usize = 80;
/// Seeds that have found something: a SYN that was about to be repeated when it was answered, and a large frame that was lost
/// when there was no memory to split it.
const FOUND: [u64; 2] = [420, 638];

/// The system's allocator, which refuses an engine what the run's plan says.
struct Scarce;

#[global_allocator]
static SCARCE: Scarce = Scarce;

// SAFETY: the system's allocator does all; a null pointer is what there is no memory means.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if faults::refuses_allocation() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if faults::refuses_allocation() {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs a seed, and says which one it was if it fails.
fn run(seed: u64) -> sim::Report {
    catch_unwind(AssertUnwindSafe(|| sim::run_scarce(seed))).unwrap_or_else(|panic| {
        eprintln!("seed {seed} fails: IX_SIM_SEED={seed} repeats it");
        resume_unwind(panic)
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn streams_stay_whole_while_memory_queues_and_buffers_fail_by_seed() {
    // An engine that panics has the memory that it takes to say so, and to unwind.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        std::mem::forget(faults::Scope::simulation());
        usual(info);
    }));
    if let Some(seed) = number("IX_SIM_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let prove = std::env::var_os("IX_PROVE").is_some().then_some(3600);
    let until = number("IX_SIM_SECONDS").or(prove).map(Duration::from_secs);
    let started = Instant::now();
    // What fails is each thread's own.
    let all = Mutex::new(FOUND.into_iter().chain(1..).enumerate());
    let total = Mutex::new((0, [0; faults::KINDS], 0));
    let worker = || {
        loop {
            let (at, seed) = all.lock().expect("no panic").next().expect("endless");
            if until.map_or(at >= SEEDS, |until| started.elapsed() >= until) {
                return;
            }
            let report = run(seed);
            let (seeds, struck, talks) = &mut *total.lock().expect("no panic");
            *seeds += 1;
            *talks += report.talks;
            for (sum, n) in struck.iter_mut().zip(report.struck) {
                *sum += n;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let (seeds, struck, talks) = total.into_inner().expect("no panic");
    let took = started.elapsed().as_secs();
    println!("{seeds} seeds in {took} s: {talks} conversations, faults {struck:?}");
    assert!(struck.iter().all(|n| *n > 0), "not every kind of fault was tried: {struck:?}");
}
