//! Ending the machine. Under QEMU by `isa-debug-exit`: writing `v` to its port ends QEMU with status
//! `v << 1 | 1`. On a machine without that device the core halts for good.
#![allow(unsafe_code, reason = "port I/O and the final halt")]

use x86_64::instructions::{hlt, interrupts, port::PortWriteOnly};

use crate::{boot, console};

const DEBUG_EXIT: u16 = 0xF4;

/// Why the machine ends; the number is QEMU's exit status (`docs/boot.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Exit {
    /// Asked for: `ixcp stop`, a self-test that passed, an application's `exit(0)` with `onexit=stop`.
    Ok = 33,
    /// The kernel panicked.
    Panic = 35,
    /// The kernel ran into a CPU exception.
    Exception = 37,
    /// The application called `exit` with another code than 0 (`onexit=stop`).
    AppFailed = 39,
    /// The kernel ended the application: fault, or not responding (`onexit=stop`).
    AppKilled = 41,
    /// The kernel cannot run here: hardware, archive or command line. The last line says why.
    Unsupported = 43,
    /// A self-test found something wrong.
    SelftestFailed = 45,
    /// The application has ended, and a core that another dataplane has does not come back to let go of it: the monitor boots
    /// the dataplane afresh.
    Afresh = 47,
}

impl Exit {
    pub fn from_status(status: u32) -> Option<Self> {
        let all = [
            Self::Ok,
            Self::Panic,
            Self::Exception,
            Self::AppFailed,
            Self::AppKilled,
            Self::Unsupported,
            Self::SelftestFailed,
        ];
        all.into_iter().find(|why| *why as u32 == status)
    }

    /// In a few words: 33 alone does not look like an end in order.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "in order",
            Self::Panic => "a kernel panic",
            Self::Exception => "an exception in the kernel",
            Self::AppFailed => "the application failed",
            Self::AppKilled => "the kernel ended the application",
            Self::Unsupported => "it cannot run like this",
            Self::SelftestFailed => "a self-test failed",
            Self::Afresh => "to be started afresh",
        }
    }
}

pub fn exit(why: Exit) -> ! {
    interrupts::disable();
    // SAFETY: the port belongs to isa-debug-exit or to nobody.
    unsafe { PortWriteOnly::<u32>::new(DEBUG_EXIT).write(why as u32 >> 1) };
    // Still here: a machine without that device, whose user sees the screen only.
    console::crash_line(format_args!(
        "halted (status {}): {}; the machine can be switched off",
        why as u32,
        why.text()
    ));
    switch_bochs_off();
    loop {
        hlt();
    }
}

/// Bochs ends when this is said at its port (`unmapped.cc` of its I/O devices); no other machine is asked.
fn switch_bochs_off() {
    const PORT: u16 = 0x8900;
    if boot::maker() != "The Bochs Project" {
        return;
    }
    console::drain();
    for byte in *b"Shutdown" {
        // SAFETY: the port is Bochs' own, and this is Bochs.
        unsafe { PortWriteOnly::<u8>::new(PORT).write(byte) };
    }
}

/// Ends with a reason that a person can act on.
#[macro_export]
macro_rules! unsupported {
    ($($arg:tt)*) => {{
        log::error!($($arg)*);
        $crate::exit::exit($crate::exit::Exit::Unsupported)
    }};
}
