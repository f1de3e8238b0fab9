//! The key-value store's entry, once per core. What it does is in `lib.rs`.
#![no_std]
#![no_main]

use ix_rt as _;
use kv::app::{Kv, Options, USAGE};
use kv::worker::Shared;
use libix::{Args, Context};
use spin::Once;

libix::app!(main);

/// Made by core 0.
static SHARED: Once<Shared> = Once::new();

fn main(mut context: Context) -> ! {
    let shared = kv::start::shared(&SHARED, &mut context, start);
    if context.index() == 0 {
        shared.crawler.offer(kv::crawler::spawn);
    }
    let mut app = Kv::new(shared, context.index());
    libix::run(context, &mut app)
}

fn start(context: &Context) -> Shared {
    let info = context.info();
    let options = Options::parse(Args::new(info), info).unwrap_or_else(|error| {
        log::error!("{error}; {USAGE}");
        libix::exit(2)
    });
    kv::start::store(&options, context)
}
