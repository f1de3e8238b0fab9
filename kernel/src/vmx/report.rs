//! What the log says of the monitor's work.

use alloc::string::String;
use core::fmt::Write;

use ix_kernel_core::vmx::exits::{COUNTERS, counter_name};

/// How often each dataplane's cores came out, and why; when the machine ends.
pub fn exits() {
    for d in super::dataplanes() {
        for core in 0..d.cores.len() {
            let mut text = String::new();
            for i in 0..COUNTERS {
                let n = d.page.exits(core, i);
                if n > 0 {
                    let _ = write!(
                        text,
                        "{}{} {n}",
                        if text.is_empty() { "" } else { ", " },
                        counter_name(i)
                    );
                }
            }
            log::info!("{}: exits of its core {core}: {text}", d.name);
        }
    }
    super::moves::report();
}
