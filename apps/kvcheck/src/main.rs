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
    let shared = kv::start::shared(&SHARED, &mut context, start);
    let mut app = KvCheck::new(shared, context.index());
    libix::run(context, &mut app)
}

fn start(context: &Context) -> Shared {
    let info = context.info();
    let options = Options::of(info).unwrap_or_else(|error| {
        log::error!("{error}; {USAGE}");
        libix::exit(2)
    });
    Shared::new(options, kv::start::store(&options.store(), context), info)
}
