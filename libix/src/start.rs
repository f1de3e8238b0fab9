//! From the kernel's jump to the program's main function, and the way out when it panics.
#![allow(unsafe_code, reason = "makes the context out of what the kernel passed in registers")]

use crate::context::Context;
use crate::logging::Line;
use crate::syscall::{exit, log_line};
use core::panic::PanicInfo;
use ix_abi::VERSION;
use ix_abi::layout::InfoPage;

/// Exit code of a program that panicked, as Rust programs have on Linux.
pub const EXIT_PANIC: u64 = 101;
/// Exit code of a program that the kernel's version of the contract does not suit.
pub const EXIT_VERSION: u64 = 102;

/// Makes a binary an IX application: `libix::app!(main);` with `fn main(context: Context) -> !`.
///
/// Every context starts there. The macro defines `_start`, the panic handler and the global
/// allocator, which a library must not: it stands in the binary only. The binary is `#![no_std]` and
/// `#![no_main]`, says `use ix_rt as _;`, and has the `build.rs` that `docs/libix.md` shows.
#[macro_export]
macro_rules! app {
    ($main:path) => {
        #[global_allocator]
        static IX_HEAP: $crate::heap::Heap = $crate::heap::Heap::new($crate::heap::Growing::new());

        #[panic_handler]
        fn ix_panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::start::panic(info)
        }

        /// The ELF entry: the kernel leaves the stack as after a call.
        #[allow(unsafe_code, reason = "the kernel enters here, in each context once")]
        // SAFETY: no other symbol has this name; a freestanding program has no C start code.
        #[unsafe(no_mangle)]
        extern "C" fn _start(index: usize, info: *const $crate::abi::layout::InfoPage) -> ! {
            let main: fn($crate::Context) -> ! = $main;
            // SAFETY: these are the values that the kernel passed to this context.
            main(unsafe { $crate::start::begin(index, info) })
        }
    };
}

/// What `_start` does before the program's main function.
///
/// # Safety
/// Called once in each context, with what the kernel passed in `rdi` and `rsi`.
pub unsafe fn begin(index: usize, info: *const InfoPage) -> Context {
    // SAFETY: passed on.
    let context = unsafe { Context::start(index, info) };
    crate::logging::init();
    let version = context.info().version;
    if !VERSION.accepts(version) {
        log::error!(
            "this program was built for version {}.{} of the kernel's interface, the kernel has {}.{}",
            VERSION.major,
            VERSION.minor,
            version.major,
            version.minor
        );
        exit(EXIT_VERSION);
    }
    context
}

/// What the panic handler does: says what and where, and ends the program on all cores.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    let say = |args| log_line(Line::format(args).as_str(), log::Level::Error as u64);
    match info.location() {
        Some(at) => say(format_args!("panicked at {at}: {}", info.message())),
        None => say(format_args!("panicked: {}", info.message())),
    }
    exit(EXIT_PANIC)
}
