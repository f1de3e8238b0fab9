//! The application's address space: where what lies, and the pages that it shares with the kernel.
//!
//! All mappings are 2 MiB pages. Gaps between the areas are never mapped.
use crate::Version;
use crate::call::Call;
use crate::event::Event;
use crate::limits::{ARGS_BYTES_MAX, CORES_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only page size of user memory.
pub const PAGE_BYTES: u64 = 2 << 20;

/// Where an application's ELF file is linked: code and constants, then (next page) data.
pub const IMAGE_BASE: u64 = 0x4000_0000;
/// End (exclusive) of what an image may occupy.
pub const IMAGE_END: u64 = 0x8000_0000;
/// The heap arena; its size is in [`InfoPage::heap_bytes`].
pub const HEAP_BASE: u64 = 0x10_0000_0000;
/// End (exclusive) of what the heap arena may occupy.
pub const HEAP_END: u64 = 0x20_0000_0000;
/// The receive buffers of all cores, read-only.
pub const RX_BASE: u64 = 0x20_0000_0000;
/// End (exclusive) of what the receive area may occupy.
pub const RX_END: u64 = 0x28_0000_0000;
/// The information page, read-only.
pub const INFO_BASE: u64 = 0x2f_0000_0000;
/// Context `i` has [`CONTEXT_BYTES`] at `CONTEXT_BASE + i * CONTEXT_BYTES`.
pub const CONTEXT_BASE: u64 = 0x30_0000_0000;
/// Five pages: event ring (read-only), syscall ring (read-write), a gap, the stack
/// (read-write), a gap. Rounded up to eight pages.
pub const CONTEXT_BYTES: u64 = 8 * PAGE_BYTES;
/// Offset of the event page in a context.
pub const EVENT_PAGE: u64 = 0;
/// Offset of the syscall page in a context.
pub const CALL_PAGE: u64 = PAGE_BYTES;
/// Offset of the stack's lowest byte; below it is a gap.
pub const STACK_PAGE: u64 = 3 * PAGE_BYTES;
/// Offset of the stack's end: the initial stack pointer, 16-byte aligned.
pub const STACK_TOP: u64 = 4 * PAGE_BYTES;

/// Contexts: one elastic thread per core, and as many again for what may come.
pub const CONTEXTS_MAX: usize = 2 * CORES_MAX;
/// End (exclusive) of user addresses.
pub const USER_END: u64 = CONTEXT_BASE + CONTEXTS_MAX as u64 * CONTEXT_BYTES;

/// Slots of the event ring: several batches' worth. They are used in turn, so that all of them pass through the caches, which
/// connections need more.
pub const EVENT_SLOTS: u32 = 512;
/// Slots of the syscall ring.
pub const CALL_SLOTS: u32 = 512;
/// Offset of the first slot in either page.
pub const RING_SLOTS_OFFSET: usize = 4096;

const _: () = assert!(
    RING_SLOTS_OFFSET as u64 + EVENT_SLOTS as u64 * size_of::<Event>() as u64 <= PAGE_BYTES
);
const _: () =
    assert!(RING_SLOTS_OFFSET as u64 + CALL_SLOTS as u64 * size_of::<Call>() as u64 <= PAGE_BYTES);

/// First bytes of the event page: written by the kernel, read-only to the application.
#[derive(Debug, Default, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct EventHeader {
    /// Events written so far, modulo 2^32 (release store).
    pub produced: u32,
    /// Syscall slots consumed so far, modulo 2^32.
    pub calls_consumed: u32,
    /// Nanoseconds since boot at the last return to the application.
    pub now_ns: u64,
    /// Unix time of the boot, in nanoseconds; 0 if unknown.
    pub boot_unix_ns: u64,
    /// 0.
    pub reserved: [u64; 5],
}

/// First bytes of the syscall page: written by the application.
#[derive(Debug, Default, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct CallHeader {
    /// Syscall slots written so far, modulo 2^32.
    pub produced: u32,
    /// Events read so far, modulo 2^32.
    pub events_consumed: u32,
    /// 0.
    pub reserved: [u64; 7],
}

const _: () = assert!(size_of::<EventHeader>() == 64 && size_of::<CallHeader>() == 64);

/// What a background thread and the kernel tell each other: memory of the application, that it names when it
/// starts the thread.
#[derive(Debug, Default, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct ThreadBlock {
    /// Written by the application. Not 0: the thread holds what others wait for, so that the kernel lets it go on a
    /// little when its turn is over.
    pub hold: u32,
    /// The kernel stores 1 when the thread has left for good, and wakes who waits for this word.
    pub ended: u32,
    /// The application's.
    pub own: [u64; 7],
}

const _: () = assert!(size_of::<ThreadBlock>() == 64);

/// The information page: one for the application, constant while it runs.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InfoPage {
    /// Version of the contract.
    pub version: Version,
    /// Elastic threads, one per core, contexts 0 to `cores - 1`.
    pub cores: u32,
    /// Flow groups of the port.
    pub groups: u32,
    /// Time-stamp counter ticks per second.
    pub tsc_khz: u32,
    /// Bytes of the heap arena that are mapped at start, from [`HEAP_BASE`].
    pub heap_bytes: u64,
    /// Bytes of the heap arena that `map` may reach, from [`HEAP_BASE`].
    pub heap_max_bytes: u64,
    /// Bytes of the receive area, from [`RX_BASE`].
    pub rx_bytes: u64,
    /// The dataplane's IPv4 address, mapped; `::` while DHCP has none.
    pub address: [u8; 16],
    /// Maximum segment size towards the link.
    pub mss: u32,
    /// Bytes of `args` in use.
    pub args_len: u32,
    /// Random, drawn anew at each start: for hash keys and the like, not for secrets that outlive it.
    pub seed: [u64; 4],
    /// The application's arguments, as given to the launcher.
    pub args: [u8; ARGS_BYTES_MAX],
}

const _: () = assert!(size_of::<InfoPage>() as u64 <= PAGE_BYTES);
const _: () = assert!(core::mem::offset_of!(InfoPage, heap_bytes) == 16);

/// Base address of context `index`.
pub const fn context_base(index: usize) -> u64 {
    CONTEXT_BASE + index as u64 * CONTEXT_BYTES
}
