//! Boot-time self-tests (`selftest=NAME`): each proves one property of the running kernel that the host
//! cannot test, and ends the machine. `kernel/tests/boot.rs` boots them.

mod cores;
mod devices;
mod faults;
mod memory;
mod nic;
mod user;
pub mod vmx;

use ix_kernel_core::cmdline::NICTEST;

use crate::exit::{Exit, exit};
use crate::pci::Function;
use crate::start::machine;
use crate::user::lifecycle;

/// How long the application has served when `crash_late` crashes.
const CRASH_AFTER_NS: u64 = 1_000_000_000;

/// Runs the test that the command line names, if any.
pub fn run_if_asked(cores: usize, functions: &[Function]) {
    let Some(name) = machine().config.selftest else { return };
    let outcome = match name {
        "boot" | "report" => Ok(()),
        "placement" => memory::placement(),
        "panic" => faults::panic(name),
        "fault" => faults::page_fault(),
        "exec" => faults::execute_data(),
        "rodata" => faults::write_constants(),
        "stack" => faults::overflow_stack(),
        "double" => faults::double_fault(),
        "undefined" => faults::undefined(),
        "wxcheck" => memory::wx_check(),
        "memory" => memory::use_memory(),
        "high" => memory::use_high_memory(),
        "smap" => memory::read_user(),
        "smep" => memory::execute_user(),
        "timers" => devices::timers(),
        "msix" => devices::msix(functions),
        "iommu" => devices::iommu(functions),
        NICTEST => nic::run(cores, functions),
        "user" => user::run(|| Ok(())),
        "nmi" => cores::nmi(),
        "wake" => cores::wake(cores),
        "redzone" => cores::red_zone(),
        "panic-other" => cores::panic_other(),
        // Later, with everything set up (`crash_late`).
        "panic-late" | "fault-late" => return,
        // Comes back in a life that is to serve.
        _ if vmx::is_mine(name) => match vmx::run(name) {
            Ok(()) if machine().config.app.is_some() => return,
            outcome => outcome,
        },
        other => crate::unsupported!("no self-test is called {other}"),
    };
    match outcome {
        Ok(()) => {
            log::info!("selftest {name}: passed");
            exit(Exit::Ok)
        }
        Err(why) => {
            log::error!("selftest {name}: {why}");
            exit(Exit::SelftestFailed)
        }
    }
}

/// `selftest=panic-late` and `fault-late`: a crash while the application serves. Every millisecond.
pub fn crash_late(now: u64) {
    let Some(name) = machine().config.selftest else { return };
    let ready = lifecycle::ready_ns();
    if ready == 0 || now - ready < CRASH_AFTER_NS {
        return;
    }
    let _survived = match name {
        "panic-late" => faults::panic(name),
        "fault-late" => faults::page_fault(),
        _ => Ok(()),
    };
}

/// What another core does during a self-test; comes back if there is none.
pub fn other_core(core: usize) {
    match machine().config.selftest {
        // It serves, until core 0 crashes.
        None | Some("panic-late" | "fault-late") => {}
        Some(names) if vmx::is_mine(names) => vmx::other_core(names),
        Some(name) => cores::other_core(core, name),
    }
}
