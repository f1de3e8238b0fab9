//! Limits that both sides of a boundary know. The engine's own are in `dataplane/src/limits.rs`.

/// Cores of one dataplane.
pub const CORES_MAX: usize = 64;
/// Flow groups of one port; 128 on the 82599 and in QEMU's virtio-net, 512 on later chips.
pub const GROUPS_MAX: usize = 512;
/// Scatter-gather entries of one `sendv` or `udp_sendv`.
pub const SG_MAX: usize = 64;
/// Bytes of one scatter-gather entry.
pub const SG_BYTES_MAX: u32 = 1 << 30;
/// Bytes of one `log` call; the rest is cut off.
pub const LOG_BYTES_MAX: usize = 1024;
/// Bytes of the application's argument string.
pub const ARGS_BYTES_MAX: usize = 1024;
/// Listening ports of one dataplane.
pub const LISTENERS_MAX: usize = 64;
/// UDP bindings of one dataplane.
pub const UDP_BINDINGS_MAX: usize = 64;
/// Application timers per context.
pub const TIMERS_MAX: usize = 4096;
/// Largest backlog of a listener: connections that are established and not yet accepted.
pub const BACKLOG_MAX: u32 = 65_536;
/// Longest application timer, in microseconds (an hour).
pub const TIMER_MAX_US: u64 = 3_600_000_000;
/// Background threads of an application.
pub const BACKGROUND_THREADS_MAX: usize = 64;
/// Longest `wait`, in microseconds (an hour); longer ones end then.
pub const WAIT_MAX_US: u64 = 3_600_000_000;
/// Longest time that an option of a connection may be set to, in microseconds (a week).
pub const OPTION_TIME_MAX_US: u64 = 7 * 24 * 3_600_000_000;
/// Most keep-alive probes without answer that an option may ask for.
pub const KEEP_ALIVE_PROBES_MAX: u64 = 127;
