//! Every limit and default of the engine, in one place; those that cross a boundary are in
//! `ix_abi::limits`.

/// Bytes of a receive buffer.
pub const MBUF_BYTES: usize = 2048;
/// Most frames that one poll may take; the bound B is at most this.
pub const RX_BATCH_MAX: usize = 1024;
/// The default of the bound B.
pub const RX_BATCH_DEFAULT: usize = 64;
/// Most pieces of a frame to transmit, the header included.
pub const TX_FRAGS_MAX: usize = 18;
/// Bytes of a header slot: Ethernet, IPv6 and TCP with all options, and small inlined payloads.
pub const TX_HEADER_BYTES: usize = 256;
/// Frames that one engine may have in flight to its transmit queue; a power of two.
pub const TX_INFLIGHT_MAX: usize = 1024;
/// Bytes of the largest Ethernet frame, without FCS.
pub const FRAME_BYTES_MAX: usize = 1514;
/// Header slots of one engine, used in turn; a power of two, and at most that many in flight.
pub const TX_HEADER_SLOTS: usize = TX_INFLIGHT_MAX;
/// Bytes of the DMA region that holds them.
pub const TX_HEADER_REGION_BYTES: usize = TX_HEADER_SLOTS * TX_HEADER_BYTES;
/// Default of the most connections of one flow group, TIME_WAIT included.
pub const CONNECTIONS_PER_GROUP_DEFAULT: u32 = 4096;
