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
    let shared = if context.index() == 0 {
        let shared = SHARED.call_once(|| start(&context));
        shared.crawler.offer(kv::crawler::spawn);
        shared
    } else {
        // Nothing comes before core 0 listens: wait in the kernel, which may take a while.
        loop {
            if let Some(shared) = SHARED.get() {
                break shared;
            }
            context.enter();
        }
    };
    let mut app = Kv::new(shared, context.index());
    libix::run(context, &mut app)
}

fn start(context: &Context) -> Shared {
    let info = context.info();
    let options = Options::parse(Args::new(info), info).unwrap_or_else(|error| {
        log::error!("{error}\n{USAGE}");
        libix::exit(2)
    });
    let memory = libix::memory::pages(options.memory_pages()).unwrap_or_else(|status| {
        let (wanted, most) = (options.memory_mib, info.heap_max_bytes >> 20);
        log::error!(
            "{wanted} MiB for items: {status}. The application may have {most} MiB in all: give \
             it fewer with -m, or the machine more."
        );
        libix::exit(2)
    });
    options.share(memory, info, (context.boot_unix_ns() / 1_000_000_000) as i64)
}
