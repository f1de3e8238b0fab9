//! The hostile application: echoes, takes orders by datagram, and then does what no application may,
//! to see that it hurts nobody. It speaks the raw ABI: libix would not let it.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod app;
mod misdeeds;
mod raw;

use ix_rt as _;

/// Called by `raw::_start` once per context.
fn main(context: usize) -> ! {
    app::App::new(context).run()
}
