//! What the log says of the monitor's work.

use alloc::string::String;
use core::fmt::Write;

use ix_kernel_core::addr::PAGE;
use ix_kernel_core::stacks::{IST_BYTES, Ist, MAIN_BYTES};
use ix_kernel_core::vmx::exits::{COUNTERS, counter_name};

use crate::{mem, time};

/// Stacks, the VMXON region and a VMCS.
const CORE_BYTES: u64 = MAIN_BYTES + Ist::ALL.len() as u64 * IST_BYTES + 2 * PAGE;

/// What the monitor costs: memory that no dataplane has, and the time from this kernel's first moment until dataplanes boot,
/// which since `began` was work for them.
pub fn costs(cores: usize, began: u64) {
    let now = time::now_ns();
    let dataplanes: u64 = super::dataplanes().iter().map(|d| d.memory.bytes()).sum();
    let used = mem::total_bytes().saturating_sub(mem::free_bytes() + dataplanes);
    log::info!(
        "monitor: {} KiB used beside the dataplanes' {} MiB, {} KiB of them for each of {cores} cores",
        used >> 10,
        dataplanes >> 20,
        CORE_BYTES >> 10
    );
    log::info!(
        "monitor: dataplanes boot {} us after the loader, {} us of them to make and load them",
        now / 1000,
        (now - began) / 1000
    );
}

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
