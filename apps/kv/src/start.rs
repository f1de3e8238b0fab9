//! How a program that holds a store begins: what all its cores share, and the memory for items. kv itself and
//! kvcheck begin so.
use crate::app::Options;
use crate::worker::Shared;
use libix::Context;
use spin::Once;

/// What all cores share: made by core 0, and waited for by the others.
pub fn shared<T>(
    cell: &'static Once<T>,
    context: &mut Context,
    make: impl FnOnce(&Context) -> T,
) -> &'static T {
    if context.index() == 0 {
        return cell.call_once(|| make(context));
    }
    // Nothing comes before core 0 listens: wait in the kernel, which may take a while.
    loop {
        if let Some(shared) = cell.get() {
            return shared;
        }
        context.enter();
    }
}

/// A store in memory of its own; where there is not so much, that is said, and the program ends.
pub fn store(options: &Options, context: &Context) -> Shared {
    let info = context.info();
    let memory = libix::memory::pages(options.memory_pages()).unwrap_or_else(|status| {
        let (wanted, most) = (options.memory_mib, info.heap_max_bytes >> 20);
        log::error!(
            "{wanted} MiB for items: {status}. The application may have {most} MiB in all: give \
             it fewer (kv: -m; kvcheck: connections, value), or the machine more."
        );
        libix::exit(2)
    });
    options.share(memory, info, (context.boot_unix_ns() / 1_000_000_000) as i64)
}
