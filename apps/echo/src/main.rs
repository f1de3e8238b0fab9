//! The echo server's entry, once per core. What it does is in `lib.rs`.
#![no_std]
#![no_main]

use echo::Echo;
use ix_rt as _;
use libix::{Args, Context};

libix::app!(main);

fn main(context: Context) -> ! {
    match Echo::new(Args::new(context.info())) {
        Ok(mut echo) => libix::run(context, &mut echo),
        Err(error) => {
            log::error!("{error}; usage: echo [-p PORT]");
            libix::exit(2)
        }
    }
}
