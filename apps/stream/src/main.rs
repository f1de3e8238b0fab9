//! The entry of `stream`, once per core. What it does is in `lib.rs`.
#![no_std]
#![no_main]

use ix_rt as _;
use libix::{Args, Context};
use stream::Stream;

libix::app!(main);

fn main(context: Context) -> ! {
    match Stream::new(Args::new(context.info())) {
        Ok(mut stream) => libix::run(context, &mut stream),
        Err(error) => {
            log::error!("{error}; usage: stream [-p PORT]");
            libix::exit(2)
        }
    }
}
