//! `selftest=user`: the application alone on core 0, without engine or devices. Each `enter` returns at
//! once, each preemption is resumed. Its end is the machine's, and all its memory must be back.

use alloc::string::{String, ToString};

use ix_dataplane::platform::AppReturn;
use ix_kernel_core::addr::LARGE_PAGE;

use crate::exit::{Exit, exit};
use crate::mem::{self, heap};
use crate::start::machine;
use crate::user::lifecycle::{self, Reason, Wish};
use crate::user::program::{self, Environment, Program};
use crate::user::thread::Thread;

/// Frames that are free or in the kernel's heap.
fn frames() -> u64 {
    mem::free_bytes() + heap::figures().0
}

/// Runs it to its end; `after` may still object.
pub fn run(after: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let m = machine();
    let name = m.config.app.ok_or("app=NAME is needed")?;
    let file = m.archive.and_then(|a| a.find(name)).ok_or("it is not in the archive")?;
    let rx = mem::alloc_contiguous(LARGE_PAGE, LARGE_PAGE).ok_or("no memory")?;
    // The heap's first page costs page tables, which stay.
    drop(core::hint::black_box(alloc::boxed::Box::new([0u8; 64])));
    let before = frames();
    let env = Environment {
        cores: 1,
        groups: 1,
        rx_area: (rx, LARGE_PAGE),
        address: [0; 16],
        mss: 1460,
        args: m.config.args,
        heap_pages: program::heap_pages(m.config.heap_mib),
        boot_unix_ns: m.boot_unix_ns(),
    };
    let program = Program::load(name, file, &env).map_err(|e| e.to_string())?;
    lifecycle::set_cores(1);
    lifecycle::start(program);
    let Wish::Attach(program, generation) = lifecycle::wish(false, 0) else {
        return Err("the started app is not to be attached".to_string());
    };
    let mut thread = Thread::new(program, 0);
    let (mut entered, mut preempted) = (0u64, 0u64);
    loop {
        lifecycle::flush_if_needed(0);
        match thread.run() {
            AppReturn::Entered => entered += 1,
            AppReturn::Preempted => preempted += 1,
            AppReturn::Ended => break,
        }
        lifecycle::reap_current();
    }
    thread.leave();
    after()?;
    lifecycle::released(0, generation, true);
    let reason = lifecycle::finish().ok_or("the ended app was not freed")?;
    log::info!("app {name}: {reason}; {entered} enters, {preempted} preemptions");
    if frames() != before {
        return Err(alloc::format!("{before} bytes were free before, {} are now", frames()));
    }
    exit(match reason {
        Reason::Exit(0) => Exit::Ok,
        Reason::Exit(_) => Exit::AppFailed,
        _ => Exit::AppKilled,
    })
}
