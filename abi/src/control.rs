//! The control page: memory shared by the kernel and `ixcp`, in QEMU an ivshmem device.
//!
//! Every field is an aligned little-endian 64-bit word (or an array of them) with one writer, read
//! with one load. The kernel and ixcp access it by word offset; nothing in it is a pointer.
//! `docs/control.md` is the protocol.
use crate::limits::{CORES_MAX, GROUPS_MAX};
use crate::stats::{BATCH_BUCKETS, Counter, Drop};
use crate::status::{Status, open_enum};

/// `"IXCTRL01"`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"IXCTRL01");
/// Size of the page. An ivshmem region is a power of two; it is sparse in the host's memory.
pub const PAGE_BYTES: usize = 8 << 20;
/// Offset of the table of flow groups: a word each, the core that has it. Written by core 0.
pub const OWNERS_BASE: usize = 0x4000;
const _: () = assert!(OWNERS_BASE + GROUPS_MAX * 8 <= LEAVES_BASE);
/// Offset of the table of departures: a word for each core, how often it has gone to another dataplane since the
/// machine has started; bits 0 to 31 as it was asked to, 32 to 63 by force. Written by core 0.
pub const LEAVES_BASE: usize = 0x5000;
const _: () = assert!(LEAVES_BASE + CORES_MAX * 8 <= CORE_BASE);
/// Offset of core 0's block.
pub const CORE_BASE: usize = 0x1_0000;
/// Distance between core blocks.
pub const CORE_STRIDE: usize = 0x1000;
const _: () = assert!(CORE_BASE + CORES_MAX * CORE_STRIDE <= LOG_BASE);

/// Offset of core 0's ring of last events (what the core did, for post-mortems).
pub const LOG_BASE: usize = 0x8_0000;
/// Distance between them.
pub const LOG_STRIDE: usize = 0x2000;
const _: () = assert!(LOG_BASE + CORES_MAX * LOG_STRIDE <= BULK_BASE);

/// Offset of the area in which a client lays what is too long for a command's arguments. Written by
/// ixcp only, and not between a command's sequence number and its outcome.
pub const BULK_BASE: usize = 0x10_0000;
/// Bytes of it.
pub const BULK_BYTES: usize = 0x10_0000;
const _: () = assert!(BULK_BASE + BULK_BYTES <= REPLY_BASE);

/// Offset of the area in which the kernel lays what is too long for an outcome's value. Written by the
/// kernel, before the outcome that tells of it; valid until the next command.
pub const REPLY_BASE: usize = 0x20_0000;
/// Bytes of it.
pub const REPLY_BYTES: usize = 0x10_0000;

/// Offset of core 0's measurements (`crate::measure`).
pub const MEASURE_BASE: usize = 0x30_0000;
/// Distance between them.
pub const MEASURE_STRIDE: usize = 0x4000;
const _: () = assert!(REPLY_BASE + REPLY_BYTES <= MEASURE_BASE);
const _: () = assert!(MEASURE_BASE + CORES_MAX * MEASURE_STRIDE <= CAPTURE_BASE);

/// Offset of the capture rings: `CAPTURE_BYTES / cores` (rounded down to 64 KiB) for each core.
pub const CAPTURE_BASE: usize = 0x40_0000;
/// Bytes of them all.
pub const CAPTURE_BYTES: usize = 0x40_0000;
const _: () = assert!(CAPTURE_BASE + CAPTURE_BYTES <= PAGE_BYTES);

/// Byte offsets of the header's words. Written by the kernel unless said otherwise.
pub mod header {
    /// [`super::MAGIC`], stored last when the kernel has initialised the page.
    pub const MAGIC: usize = 0x00;
    /// Contract version: `major | minor << 16`.
    pub const VERSION: usize = 0x08;
    /// Drawn anew at each boot; a command must name it.
    pub const EPOCH: usize = 0x10;
    /// Time-stamp counter frequency in kHz.
    pub const TSC_KHZ: usize = 0x18;
    /// Cores of the dataplane.
    pub const CORES: usize = 0x20;
    /// Flow groups of the port.
    pub const GROUPS: usize = 0x28;
    /// Counts up about every millisecond while core 0 lives.
    pub const HEARTBEAT: usize = 0x30;
    /// A [`super::State`].
    pub const STATE: usize = 0x38;
    /// How often the application was started.
    pub const APP_STARTS: usize = 0x40;
    /// Exit code of the last application, or the kernel's reason (`docs/control.md`).
    pub const APP_EXIT: usize = 0x48;
    /// IPv4 address, network order in the low 32 bits; 0 while there is none.
    pub const IPV4: usize = 0x50;
    /// Prefix length of it.
    pub const PREFIX: usize = 0x58;
    /// Receive batch bound B.
    pub const BATCH: usize = 0x60;
    /// Number of [`crate::stats::Counter`]s in each block.
    pub const COUNTERS: usize = 0x68;
    /// Number of [`crate::stats::Drop`] reasons in each block.
    pub const DROPS: usize = 0x70;
    /// Number of batch-size buckets in each block.
    pub const BATCH_BUCKETS: usize = 0x78;
    /// The application's name, four words of UTF-8, padded with 0.
    pub const APP_NAME: usize = 0x80;
    /// Nanoseconds since boot at the last heartbeat.
    pub const NOW_NS: usize = 0xa0;
    /// Nanoseconds since boot when the application became ready; 0 before.
    pub const READY_NS: usize = 0xa8;
    /// RAM that the kernel manages, in bytes.
    pub const MEMORY_BYTES: usize = 0xb0;
    /// Queue pairs in use.
    pub const QUEUES: usize = 0xb8;
    /// MAC address in the low 48 bits, first octet lowest.
    pub const MAC: usize = 0xc0;
    /// Prefix lengths of the IPv6 addresses, a byte each, the first lowest; 0: there is none.
    pub const IPV6_PREFIXES: usize = 0xc8;
    /// Eight IPv6 addresses of two words each, in network order.
    pub const IPV6: usize = 0xd0;
    /// Cores that serve, a bit each; the others are parked.
    pub const ACTIVE: usize = 0x150;
    /// Flow groups that have moved since boot.
    pub const MOVES: usize = 0x158;
    /// Buckets of each histogram of measurements; 0: the kernel does not measure.
    pub const HISTOGRAM_BUCKETS: usize = 0x160;
    /// Counters of VM exits in each core's block, by reason; 0: no monitor runs below the kernel.
    pub const EXIT_COUNTERS: usize = 0x168;
    /// How often the monitor has started the dataplane.
    pub const LIVES: usize = 0x170;
    /// How often it has stopped it for a misdeed.
    pub const CONTAINMENTS: usize = 0x178;
    /// The last of those, in ten words: cause, core, exit reason, its qualification, what it is about, RIP, RSP, CR3,
    /// RFLAGS, time-stamp counter. A cause of 0: there was none.
    pub const CONTAINMENT: usize = 0x190;
    /// Words of it.
    pub const CONTAINMENT_WORDS: usize = 10;
    const _: () = assert!(CONTAINMENT + CONTAINMENT_WORDS * 8 <= BACKGROUND);
    /// Bytes of RAM that were free, or mapped for the kernel's heap, when the application had ended the last
    /// time; 0 before.
    pub const MEMORY_FREE: usize = 0x180;
    /// Bytes of the kernel's heap in use at that moment.
    pub const HEAP_USED: usize = 0x188;
    /// Cores that are reserved for background threads, a bit each; they do not serve.
    pub const BACKGROUND: usize = 0x1f0;
    /// Cores that the monitor has lent to another dataplane, or is about to, a bit each; they do not serve.
    pub const AWAY: usize = 0x1f8;
}

/// Byte offsets of the command words, written by ixcp only. `SEQUENCE` is stored last (release).
pub mod command {
    /// One more than the last; the kernel executes a command when this differs from
    /// [`super::outcome::SEQUENCE`].
    pub const SEQUENCE: usize = 0x200;
    /// The epoch that the writer saw; another epoch is refused with `Stale`.
    pub const EPOCH: usize = 0x208;
    /// A [`super::CommandCode`].
    pub const CODE: usize = 0x210;
    /// Four arguments.
    pub const ARGS: usize = 0x218;
}

/// Byte offsets of the outcome words, written by the kernel. `SEQUENCE` is stored last (release).
pub mod outcome {
    /// The sequence number of the command that this is the outcome of.
    pub const SEQUENCE: usize = 0x280;
    /// A [`crate::Status`].
    pub const STATUS: usize = 0x288;
    /// By command.
    pub const VALUE: usize = 0x290;
}

/// Byte offsets in a core's block, which starts at `CORE_BASE + core * CORE_STRIDE`. Written by
/// that core only.
pub mod core_block {
    use super::{BATCH_BUCKETS, Counter, Drop};
    /// Counts up with each publication.
    pub const PUBLISHED: usize = 0x00;
    /// APIC id.
    pub const APIC_ID: usize = 0x08;
    /// A [`super::CoreState`].
    pub const STATE: usize = 0x10;
    /// Counters, in the order of [`Counter`].
    pub const COUNTERS: usize = 0x100;
    /// Drops, in the order of [`Drop`].
    pub const DROPS: usize = 0x600;
    /// Receive batch sizes, by bucket.
    pub const BATCHES: usize = 0xa00;
    const _: () = assert!(COUNTERS + Counter::COUNT * 8 <= DROPS);
    const _: () = assert!(DROPS + Drop::COUNT * 8 <= BATCHES);
    /// VM exits by reason, in the order of the SDM's numbers (appendix C), the last for all others.
    pub const EXITS: usize = 0xb00;
    /// Places for them.
    pub const EXITS_MAX: usize = 80;
    const _: () = assert!(BATCHES + BATCH_BUCKETS * 8 <= EXITS);
    const _: () = assert!(EXITS + EXITS_MAX * 8 <= super::CORE_STRIDE);
}

open_enum! {
    /// What the dataplane is doing.
    State {
        /// The page was made by ixcp, no kernel has written it.
        Empty = 0: "empty",
        /// The kernel boots.
        Booting = 1: "booting",
        /// The application runs and has not said that it is ready.
        Starting = 2: "starting",
        /// The application serves.
        Ready = 3: "ready",
        /// The application does not return to the kernel.
        Unresponsive = 4: "unresponsive",
        /// The application has ended; the kernel goes on.
        AppEnded = 5: "application ended",
        /// The kernel stops.
        Stopping = 6: "stopping",
        /// The kernel has panicked.
        Panicked = 7: "panicked",
    }
}

open_enum! {
    /// What a core is doing.
    CoreState {
        /// Not started.
        Off = 0: "off",
        /// Polling.
        Running = 1: "running",
        /// Waiting in a halt.
        Halted = 2: "halted",
        /// Given back.
        Parked = 3: "parked",
        /// Reserved for background threads.
        Background = 4: "background",
        /// Another dataplane has it.
        Away = 5: "away",
    }
}

open_enum! {
    /// Commands.
    CommandCode {
        /// Nothing; answered with `Ok`.
        Nop = 0: "nop",
        /// Ends the machine.
        Stop = 1: "stop",
        /// Ends the application and starts it afresh.
        RestartApp = 2: "restart-app",
        /// Sets the receive batch bound: argument 0, 1 to 1024.
        SetBatch = 3: "batch",
        /// Takes the rules of the bulk area into force.
        AclSet = 4: "acl-set",
        /// Lays the rules' verdict counters into the reply area.
        AclRead = 5: "acl-read",
        /// Starts capturing packets; the filter is in the bulk area.
        CaptureStart = 6: "capture-start",
        /// Ends it.
        CaptureStop = 7: "capture-stop",
        /// Switches the packet trace: argument 0, 0 or 1.
        Trace = 8: "trace",
        /// Moves flow group (argument 0) to core (argument 1).
        MoveGroup = 9: "move-group",
        /// Spreads the groups over so many cores, from core 0 on (argument 0); the others are parked.
        SetCores = 10: "cores",
        /// Takes the limits of the bulk area into force (`crate::demand::Limits`): argument 0, its words.
        SetLimits = 11: "limits",
        /// Spreads the groups over the cores of a set (argument 0, a bit each, core 0 among them); the others
        /// are parked.
        SetCoreSet = 12: "core-set",
        /// Reserves the last so many cores for background threads (argument 0): cores that do not serve.
        Reserve = 16: "reserve",
        /// Gives a core (argument 0) to another dataplane that lists it: to the one whose name is in the bulk area,
        /// of so many bytes (argument 1), or to the next if there are none. A refusal's value is a
        /// [`GiveRefusal`]; the outcome's otherwise the number of the dataplane that gets it, whose name is then in the reply area.
        GiveCore = 17: "give-core",
    }
}

/// Bytes of a dataplane's name, padded with 0.
pub const DATAPLANE_NAME_BYTES: usize = 32;

open_enum! {
    /// Why a core is not given to another dataplane.
    GiveRefusal {
        /// No monitor runs below the kernel.
        NoMonitor = 1: "no monitor",
        /// The dataplane has no such core.
        NoSuchCore = 2: "no such core",
        /// Core 0 manages the others.
        Core0 = 3: "core 0 never leaves",
        /// Cores without a queue of the network card send through this one's.
        SharesQueue = 4: "other cores send through its queue",
        /// It is reserved for background threads of the application.
        Reserved = 5: "reserved for background threads",
        /// No other dataplane lists it.
        NotShared = 6: "no other dataplane lists it",
        /// No other dataplane that shares a core has such a name.
        NoSuchDataplane = 7: "no such dataplane",
        /// That dataplane does not list this core.
        NotListed = 8: "that dataplane does not list it",
        /// That dataplane, or each that lists the core, has ended or stays down.
        Down = 9: "that dataplane does not run",
        /// Another dataplane has it already.
        Away = 10: "it is away already",
        /// It is about to leave, or just back.
        UnderWay = 11: "another move is under way",
    }
}

impl GiveRefusal {
    /// The status that goes with it.
    pub const fn status(self) -> Status {
        match self {
            GiveRefusal::NoMonitor => Status::Unsupported,
            GiveRefusal::NoSuchCore | GiveRefusal::NoSuchDataplane => Status::Invalid,
            GiveRefusal::Away => Status::Away,
            GiveRefusal::UnderWay => Status::Again,
            _ => Status::Denied,
        }
    }
}

/// Offset of core `core`'s block.
pub const fn core_offset(core: usize) -> usize {
    CORE_BASE + core * CORE_STRIDE
}

/// Offset of core `core`'s measurements.
pub const fn measure_offset(core: usize) -> usize {
    MEASURE_BASE + core * MEASURE_STRIDE
}

/// Offset of core `core`'s ring of last events.
pub const fn log_offset(core: usize) -> usize {
    LOG_BASE + core * LOG_STRIDE
}

/// Offset of the word of core `core`'s departures.
pub const fn leaves_offset(core: usize) -> usize {
    LEAVES_BASE + core * 8
}

#[cfg(test)]
mod tests;
