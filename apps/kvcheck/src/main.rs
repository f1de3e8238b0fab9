//! The entry of `kvcheck`, once per core. What it does is in `lib.rs`.
#![no_std]
#![no_main]

use ix_rt as _;
use kvcheck::{KvCheck, Options, Shared, USAGE};
use libix::Context;
use spin::Once;

libix::app!(main);

/// Made by core 0.
static SHARED: Once<Shared> = Once::new();

fn main(mut context: Context) -> ! {
    let shared = if context.index() == 0 {
        SHARED.call_once(|| start(&context))
    } else {
        // Nothing comes before core 0 listens: wait in the kernel, which may take a while.
        loop {
            if let Some(shared) = SHARED.get() {
                break shared;
            }
            context.enter();
        }
    };
    let mut app = KvCheck::new(shared, context.index());
    libix::run(context, &mut app)
}

fn start(context: &Context) -> Shared {
    let info = context.info();
    let options = Options::of(info).unwrap_or_else(|error| {
        log::error!("{error}\n{USAGE}");
        libix::exit(2)
    });
    let pages = options.store().memory_pages();
    let memory = libix::memory::pages(pages).unwrap_or_else(|status| {
        log::error!("{pages} frames of 2 MiB for items: {status}: give the machine more memory");
        libix::exit(2)
    });
    Shared::new(options, memory, info, (context.boot_unix_ns() / 1_000_000_000) as i64)
}
