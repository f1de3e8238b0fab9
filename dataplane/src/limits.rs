//! Every limit and default of the engine, in one place; those that cross a boundary are in
//! `ix_abi::limits`.

use crate::time::Duration;

/// Bytes of a receive buffer.
pub const MBUF_BYTES: usize = 2048;
/// Most buffers of one received frame: an IP packet of 65,535 bytes behind an Ethernet header and what a
/// device may put before it.
pub const FRAME_BUFFERS_MAX: usize = (65_535 + 64_usize).div_ceil(MBUF_BYTES);
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
/// Bytes of the largest Ethernet frame of a link that names no MTU, without FCS.
pub const FRAME_BYTES_MAX: usize = 1514;
/// Header slots of one engine, used in turn; a power of two, and at most that many in flight.
pub const TX_HEADER_SLOTS: usize = TX_INFLIGHT_MAX;
/// Bytes of the DMA region that holds them.
pub const TX_HEADER_REGION_BYTES: usize = TX_HEADER_SLOTS * TX_HEADER_BYTES;
/// Default of the most connections of one flow group, TIME_WAIT included.
pub const CONNECTIONS_PER_GROUP_DEFAULT: u32 = 4096;
/// Longest chain of one bucket of a flow table.
pub const FLOW_CHAIN_MAX: u32 = 64;
/// Segments of application memory that a connection may have queued.
pub const SEGMENTS_PER_CONNECTION: u16 = 256;
/// Segments of all connections of a flow group.
pub const SEGMENTS_PER_GROUP: u32 = 1 << 16;
/// Bytes that a connection may have received and not got back from the application: its largest
/// window.
pub const RECEIVE_WINDOW: u32 = 256 * 1024;
/// Shift of the windows that we announce (RFC 7323 §2).
pub const RECEIVE_SHIFT: u8 = 3;
/// Receive buffers that one connection may hold at most.
pub const RECEIVE_SHARE: u16 = 256;
/// A connection may hold this part of the free buffers, so that many cannot take all.
pub const RECEIVE_SHARE_OF_FREE: usize = 4;
/// Receive buffers that payload may not take, so that ACKs still come in.
pub const RECEIVE_RESERVE: usize = 32;
/// Buffers of out-of-order data of one connection.
pub const REASSEMBLY_MAX: u16 = 256;
/// Frames that one connection may send in one turn of the transmit stage.
pub const TX_BURST: u32 = 64;
/// Largest window that the stack starts with, in segments (RFC 6928).
pub const INITIAL_WINDOW_SEGMENTS: u32 = 10;
/// Segments that one acknowledgement adds to the window in slow start, at most (RFC 3465; RFC 9406 §4.3
/// says eight for senders that do not pace).
pub const SLOW_START_SEGMENTS: u32 = 8;
/// Segment size if the peer names none (RFC 9293 §3.7.1).
pub const MSS_DEFAULT: u16 = 536;
/// The same over IPv6.
pub const MSS_DEFAULT_V6: u16 = 1220;
/// Datagrams of which some fragments have arrived, on one core; the oldest gives way.
pub const FRAGMENTED_DATAGRAMS_MAX: usize = 64;
/// Fragments of one datagram.
pub const FRAGMENTS_PER_DATAGRAM: usize = 16;
/// How long an application may take to consume `group_out`; its group stays then.
pub const MOVE_TOLD_TIMEOUT: Duration = Duration::from_s(1);
/// How long the device may take to send what a group that leaves has sent; it stays then.
pub const MOVE_DRAIN_TIMEOUT: Duration = Duration::from_ms(100);
/// How long the old owner of a group waits until everybody has turned to the new one.
pub const MOVE_FLUSH_TIMEOUT: Duration = Duration::from_ms(100);
/// How long the new owner waits for the old one's last word.
pub const MOVE_SETTLE_TIMEOUT: Duration = Duration::from_ms(200);
/// Frames that the new owner holds meanwhile, of one group; those beyond overtake. A few conversations with full windows of small
/// segments are some hundred, and a core has 4,096 buffers.
pub const MOVE_HELD_MAX: usize = 1024;
/// Frames that a core keeps which were quicker than their groups; for these it has the room beforehand.
pub const MOVE_EARLY_MAX: usize = 256;
/// Messages of other cores, flow groups among them, that a core takes in one iteration.
pub const MESSAGES_PER_TURN: usize = 2;
/// Groups that leave a congested core at the same time, after the first.
pub const RELIEF_ROUND: usize = 4;
/// How long what it has received may wait for the first to go.
pub const RELIEF_HURRY: Duration = Duration::from_us(100);
/// How long a core that was woken waits for the first frame of its first group, whose time it takes.
pub const RELIEF_CALL_MAX: Duration = Duration::from_s(1);
/// How long a datagram waits for its fragments. RFC 1122 §3.3.2 says a minute or two, from times of slow
/// links; RFC 791 §3.2 begins with this.
pub const FRAGMENT_TIMEOUT: Duration = Duration::from_s(15);
/// Smallest packet size that a path is believed to be limited to: less is a forgery, or a network that is
/// not worth it.
pub const PATH_MTU_MIN: u16 = 552;
/// When a larger packet is tried after packets of full size vanished, which may have had another reason.
pub const PATH_MTU_PROBE_FIRST: Duration = Duration::from_s(5);
/// When it is tried after a router has said so, or after a try failed (RFC 1191 §6.3: ten minutes).
pub const PATH_MTU_PROBE_AGAIN: Duration = Duration::from_s(600);
/// Smallest segment size that a peer may ask for.
pub const MSS_MIN: u16 = 64;
/// Retransmission timeout before the first measurement (RFC 6298 §2.1).
pub const RTO_INITIAL: Duration = Duration::from_s(1);
/// The same after a handshake in which a SYN had to be sent again (RFC 6298 §5.7).
pub const RTO_AFTER_SYN_LOSS: Duration = Duration::from_s(3);
/// Default of the floor of the retransmission timeout.
pub const RTO_MIN: Duration = Duration::from_ms(200);
/// The floor where all peers are a few microseconds away and acknowledge at once.
pub const RTO_MIN_DATACENTER: Duration = Duration::from_ms(1);
/// Timeout of a loss probe before the first measurement (RFC 8985 §7.2).
pub const PROBE_TIMEOUT_INITIAL: Duration = Duration::from_s(1);
/// Least timeout of a loss probe: a peer of microseconds is not lost when it takes a little longer once.
pub const PROBE_MIN: Duration = Duration::from_ms(1);
/// The same where hosts answer without being scheduled: a dozen ticks of the wheel.
pub const PROBE_MIN_DATACENTER: Duration = Duration::from_us(200);
/// How long a peer may hold back an acknowledgement (RFC 8985 §7.2).
pub const MAX_ACK_DELAY: Duration = Duration::from_ms(200);
/// Recoveries after which a wider reordering window is given up (RFC 8985 §6.2 step 4).
pub const REORDER_PERSIST: u8 = 16;
/// Records of what one connection has under way, beside the first. No more is sent before some are
/// acknowledged.
pub const SENT_PER_CONNECTION: u16 = 4096;
/// The same of all connections of a flow group.
pub const SENT_PER_GROUP: u32 = 1 << 16;
/// Connections of a flow group that can repair losses at the same time; others do it by timeouts, one
/// segment each.
pub const RECOVERIES_PER_GROUP: u32 = 4096;
/// Ceiling of it (RFC 6298 §2.5).
pub const RTO_MAX: Duration = Duration::from_s(60);
/// How long data is retransmitted in vain before a connection is given up (RFC 1122 §4.2.3.5: at
/// least 100 s).
pub const USER_TIMEOUT: Duration = Duration::from_s(120);
/// The same for SYNs of our own.
pub const CONNECT_TIMEOUT: Duration = Duration::from_s(30);
/// The same for answers to SYNs, which cost a peer nothing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_s(15);
/// Part of a group's connections that may be in handshakes that peers began; beyond it cookies are sent.
pub const HALF_OPEN_SHARE: u32 = 4;
/// Answers in a second to segments that a blind attacker may have sent (RFC 5961 §7), of one core: half to all.
pub const CHALLENGES_PER_SECOND: u32 = 1000;
/// From one keep-alive probe without answer to the next.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_s(75);
/// Keep-alive probes without answer that end a connection.
pub const KEEP_ALIVE_PROBES: u8 = 9;
/// A connection in TIME-WAIT may be opened anew by `connect` after this long, when no other port is free and
/// its timestamps tell both incarnations apart (RFC 6191 §4): a tick of any timestamp clock.
pub const TIME_WAIT_REUSE: Duration = Duration::from_s(1);
/// Longest that an acknowledgement waits for data to ride on (RFC 1122 §4.2.3.2: below 500 ms).
pub const DELAYED_ACK: Duration = Duration::from_ms(40);
/// How long the peer's last timestamp protects an idle connection (RFC 7323 §5.5: 24 days).
pub const TS_RECENT_VALID: Duration = Duration::from_s(24 * 24 * 60 * 60);
/// 2 MSL. RFC 9293 says four minutes; this is what the large systems do.
pub const TIME_WAIT: Duration = Duration::from_s(60);
/// Connections in TIME-WAIT that are looked at for a slot when there is no other.
pub const TIME_WAIT_EVICT_TRIES: u32 = 4;
/// How long a connection that the application has closed waits for the peer's FIN.
pub const FIN_WAIT_2: Duration = Duration::from_s(60);
/// Frames built outside of connections that wait for the transmit stage.
pub const STAGED_MAX: usize = 256;
/// Datagrams of the application that wait for the transmit stage, an address or completion.
pub const DATAGRAMS_MAX: u32 = 1024;
/// Scatter-gather pieces of one datagram.
pub const DATAGRAM_PIECES_MAX: usize = 16;
/// Received datagrams of all bindings that the application may hold, on one core.
pub const UDP_HELD_MAX: u32 = 1024;
/// `listen`, `udp_bind` and the like of one core that wait for core 0.
pub const REQUESTS_MAX: usize = 64;
/// Calls of one batch that run before the rest of the loop gets its turn.
pub const CALLS_PER_TURN: u32 = 1024;
/// For how many of them a `connect` counts, which looks for a port.
pub const CONNECT_COST: u32 = 16;
/// Ports that a `connect` tries at least, and for each core, of which only that part leads to its groups.
pub const PORT_TRIES: usize = 256;
/// See [`PORT_TRIES`].
pub const PORT_TRIES_PER_CORE: usize = 64;
/// How long the end of an application waits for the transmit queue.
pub const DRAIN_TIMEOUT: Duration = Duration::from_s(2);
/// Between two answers to rejected packets, on average; on one core.
pub const REJECTS_EVERY: Duration = Duration::from_ms(5);
/// How far ahead of that average they may be: 50 at once.
pub const REJECTS_BURST: Duration = Duration::from_ms(250);
/// Until what found the ring to another core full is offered to it again.
pub const HOME_RETRY: Duration = Duration::from_ms(1);
/// Between two publications of the counters.
pub const PUBLISH_EVERY: Duration = Duration::from_ms(1);
/// Between two looks of a busy connection at the neighbour table.
pub const NEIGHBOR_EPOCH: Duration = Duration::from_s(8);
/// IPv6 addresses of a station.
pub const IPV6_ADDRESSES_MAX: usize = 8;
/// Prefixes of the link that routers have announced.
pub const IPV6_PREFIXES_MAX: usize = 8;
/// Default routers that are remembered.
pub const IPV6_ROUTERS_MAX: usize = 4;
/// Extension headers of a packet (RFC 8504 §5.3 permits such limits, here and in the next two).
pub const EXTENSION_HEADERS_MAX: usize = 6;
/// Options in them, padding aside.
pub const EXTENSION_OPTIONS_MAX: usize = 8;
/// Bytes of them all.
pub const EXTENSION_BYTES_MAX: usize = 256;
/// Between two ICMPv6 errors, on average (RFC 4443 §2.4 f); on one core.
pub const ICMP_ERRORS_EVERY: Duration = Duration::from_ms(10);
/// How far ahead of that average they may be: 20 at once.
pub const ICMP_ERRORS_BURST: Duration = Duration::from_ms(200);
