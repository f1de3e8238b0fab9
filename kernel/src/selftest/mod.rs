//! Boot-time self-tests (`selftest=NAME`): each proves one property of the running kernel that the host
//! cannot test, and ends the machine. `kernel/tests/boot.rs` boots them.

mod cores;
mod devices;
mod faults;
mod memory;
mod user;

use crate::exit::{Exit, exit};
use crate::pci::Function;
use crate::start::machine;

/// Runs the test that the command line names, if any.
pub fn run_if_asked(cores: usize, functions: &[Function]) {
    let Some(name) = machine().config.selftest else { return };
    let outcome = match name {
        "boot" | "report" => Ok(()),
        "placement" => memory::placement(),
        "panic" => faults::panic(),
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
        "user" => user::run(|| Ok(())),
        "nmi" => cores::nmi(),
        "wake" => cores::wake(cores),
        "redzone" => cores::red_zone(),
        "panic-other" => cores::panic_other(),
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

/// What another core does during a self-test; comes back if there is none.
pub fn other_core(core: usize) {
    if let Some(name) = machine().config.selftest {
        cores::other_core(core, name)
    }
}
