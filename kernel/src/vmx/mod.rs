//! The monitor: where the CPU has Intel's VT-x, the kernel that the loader started puts itself below the dataplanes. It takes
//! VMX root on every core and starts this same kernel afresh, once for each dataplane, behind EPT (`docs/vtx.md`).
//!
//! `memory`, `vmcs`: what a dataplane gets. `serve`, `exits`, `calls`, `ports`: what a core does all the time. `stop`: what
//! becomes of a dataplane that fails. `guest`: the kernel's side, when it is the one that is run.

mod calls;
mod dataplane;
mod exits;
pub mod guest;
pub mod hints;
mod instructions;
mod kept;
mod memory;
mod moves;
mod ports;
mod report;
mod serve;
mod setup;
mod stop;
mod support;
mod vmcs;

use alloc::vec::Vec;

use ix_kernel_core::cmdline::{Iommu, Vmx};
use spin::Once;

use crate::boot::facts;
use crate::pci::Function;
use crate::start::{Machine, machine};
use crate::{smp, time, unsupported};
pub use calls::{MISCONFIGURED, SPOIL, SPOIL_ENTRY, SPOIL_EPT};
use dataplane::Dataplane;
pub use memory::keep_data;
use support::Support;

/// Set once it is decided that this kernel is the monitor.
static SUPPORT: Once<Support> = Once::new();
static DATAPLANES: Once<Vec<Dataplane>> = Once::new();
/// An address behind the BAR of a function that no dataplane has.
static BAR_OF_NOBODY: Once<u64> = Once::new();

fn dataplanes() -> &'static [Dataplane] {
    DATAPLANES.get().map_or(&[], Vec::as_slice)
}

fn a_bar_of_nobody() -> Option<u64> {
    BAR_OF_NOBODY.get().copied()
}

/// On the boot core, with all cores started: becomes the monitor and does not come back, if that is wanted and can be.
pub fn start_if_wanted(m: &Machine, cores: usize, functions: &[Function]) {
    if guest::find() {
        log::info!("VT-x: this is a dataplane under IX's monitor, life {}", guest::life());
        return;
    }
    let wanted = m.config.vmx;
    // A self-test is one of the machine, unless it is of the monitor.
    let tests_machine = m.config.selftest.is_some_and(|name| !name.starts_with("vmx-"));
    if wanted == Vmx::Off {
        log::info!("VT-x: not used: vmx=off");
        return;
    }
    if wanted == Vmx::Auto && tests_machine {
        log::debug!("VT-x: not used: a self-test of the machine is asked for");
        return;
    }
    // The monitor does not drive the IOMMU (`docs/vtx.md`), and a card that is held back is worth more to a machine with one
    // dataplane than its being held back.
    let has_iommu = facts().dmar.is_some() && m.config.iommu != Iommu::Off;
    if wanted == Vmx::On && m.config.iommu == Iommu::On {
        unsupported!("vmx=on and iommu=on: the monitor does not drive the IOMMU");
    }
    if wanted == Vmx::Auto && has_iommu && m.config.dataplanes.is_none() {
        log::info!("VT-x: not used: the IOMMU is (vmx=on for the monitor, without the IOMMU)");
        return;
    }
    let s = match support::find(wanted == Vmx::On) {
        Ok(s) => s,
        Err(why) if wanted == Vmx::On => unsupported!("vmx=on: {why}"),
        Err(why) => {
            log::info!("VT-x: not used: {why}");
            if m.config.dataplanes.is_some() {
                unsupported!("dataplanes= asks for the monitor, which needs VT-x");
            }
            return;
        }
    };
    if has_iommu {
        log::warn!("the IOMMU is left alone: a dataplane's card can write anywhere");
    }
    let began = time::now_ns();
    let s = SUPPORT.call_once(|| s);
    match setup::all(m, s, cores, functions) {
        Ok(all) => DATAPLANES.call_once(|| all),
        Err(why) => unsupported!("{why}"),
    };
    for d in dataplanes() {
        if stop::start(d).is_err() {
            unsupported!("{}: cannot be started", d.name);
        }
        d.run();
    }
    report::costs(cores, began);
    smp::release();
    core_main(0)
}

/// Whether this kernel is the monitor: then a core's place is [`core_main`].
pub fn is_monitor() -> bool {
    SUPPORT.is_completed() && machine().config.vmx != Vmx::Off
}

/// What every core does under the monitor.
pub fn core_main(core: usize) -> ! {
    let s = SUPPORT.get().expect("set before cores are released");
    let region = memory::region(s.revision).expect("memory for VMXON");
    if let Err(why) = instructions::switch_on(region) {
        panic!("core {core}: {why}");
    }
    serve::serve(s, core)
}
