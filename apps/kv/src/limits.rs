//! Every bound of the application, in one place.

/// Longest key, as memcached's.
pub const KEY_BYTES_MAX: usize = 250;
/// Largest item by memcached's own accounting (see [`crate::store::stock_item_bytes`]), unless the
/// operator says otherwise; as memcached's.
pub const ITEM_BYTES_DEFAULT: usize = 1 << 20;
/// What the operator may make of that.
pub const ITEM_BYTES_RANGE: core::ops::RangeInclusive<usize> = 1 << 10..=16 << 20;
/// Above this much (by the same accounting) an item is kept in parts; as memcached, which then refuses
/// `incr` and `decr` on it.
pub const STOCK_CHUNK_BYTES_MAX: usize = 512 << 10;
/// Longest command line that is not a `get` or `gets`.
pub const LINE_BYTES_MAX: usize = 2048;
/// Spaces before the command word of a longer `get` or `gets`.
pub const LEADING_SPACES_MAX: usize = 100;
/// Tokens of a command line, memcached's closing token included; what follows is not looked at.
pub const TOKENS_MAX: usize = 24;

/// Words of a meta command at most, memcached's closing token included.
pub const META_TOKENS_MAX: usize = 20;
/// Longest opaque of a meta command, with its `O`.
pub const META_OPAQUE_MAX: usize = 32;

/// The frame before a datagram's payload.
pub const UDP_FRAME_BYTES: usize = 8;
/// Payload of a datagram of an answer: with its frame 1,400 bytes, as memcached's.
pub const UDP_PAYLOAD_BYTES: usize = 1400 - UDP_FRAME_BYTES;
/// Room for the answer to a datagram that a core keeps for the next one.
pub const UDP_BUFFER_KEPT_MAX: usize = 64 << 10;

/// A `get` hit whose whole reply is at most this long is copied behind the other replies of the
/// batch instead of being sent from the item. Measured here (`examples/count.rs`): a reference costs
/// 200 instructions more than no copy at all, whatever the length, before the kernel has seen its
/// scatter-gather entry and descriptor; a copy costs some 100 for each KiB.
pub const COPY_BYTES_MAX: usize = 512;
/// Scatter-gather pieces queued on a connection before its input waits; with what the last command
/// may add, one `sendv` still takes them all.
pub const OUT_PIECES_MAX: usize = 60;
/// Bytes queued on a connection before its input waits.
pub const OUT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one chunk of rendered replies.
pub const CHUNK_BYTES: usize = 4096;
/// Chunks that a core keeps for reuse.
pub const CHUNKS_KEPT_MAX: usize = 1024;

/// Connections at most, unless the operator says otherwise.
pub const CONNECTIONS_DEFAULT: u32 = 65_536;
/// Connections beyond the limit that are told so; more are turned away without a word.
pub const CONNECTIONS_TOLD: u64 = 64;
/// Connections that `stats conns` shows.
pub const CONNECTIONS_SHOWN: usize = 1000;
/// Places of connections that are looked at each second for idle ones, on each core.
pub const IDLE_CONNS_PER_TICK: usize = 4096;
/// Silence of the background crawler after which core 0 does its work.
pub const CRAWLER_SILENT_NS: u64 = 3_000_000_000;
/// Steps of the crawler at a time.
pub const MAINTAIN_STEPS: usize = 8;
/// Microseconds between two looks at whether there is something to do beside requests, ...
pub const TICK_IDLE_US: u64 = 1_000_000;
/// ... and between two pieces of it, if there is.
pub const TICK_BUSY_US: u64 = 1_000;
/// Memory for items, in MiB, unless the operator says otherwise; as memcached's.
pub const MEMORY_MIB_DEFAULT: usize = 64;

/// Cores that one store can serve.
pub const WORKERS_MAX: usize = 64;
/// Shards of the hash table, each under its own lock.
pub const SHARDS: usize = 256;
/// A slab page: the largest item fits, in parts with headers and with the rendered first reply line.
pub const PAGE_BYTES: usize = (1 << 20) + 1024;
/// Largest store: item numbers are 32 bits, in units of 8 bytes.
pub const MEMORY_BYTES_MAX: usize = 32 << 30;
/// Items looked at from the cold end of a size class before an eviction gives up.
pub const EVICT_TRIES: usize = 64;
/// Rounds of evicting and stealing before an allocation fails.
pub const ALLOC_ROUNDS: usize = 16;
/// Times that no class could give a page before an allocation fails.
pub const STARVED_ROUNDS: usize = 3;
/// Chunks of a page that are emptied under one hold of the class's lock: a few microseconds.
pub const DRAIN_CHUNKS: usize = 64;
/// Further rounds over a page with items in use before emptying it is given up for now.
pub const DRAIN_ROUNDS: usize = 1;
/// Evictions of a class between two looks at whether another one keeps much older items.
pub const REBALANCE_EVICTIONS: u64 = 32;
/// Pages of a store that keeps one free in advance.
pub const RESERVE_PAGES_MIN: usize = 16;
/// Chunks that the crawler looks at in a step.
pub const CRAWL_CHUNKS: usize = 32;
/// Seconds between two crawls that begin by themselves.
pub const CRAWL_PAUSE: u32 = 10;
/// Optimistic rounds of a read-modify-write before it is refused.
pub const UPDATE_ROUNDS: usize = 64;
