//! Counters: every one has a name, a fixed place in a core's block, and one writer. Kernels and `ixcp` of different age know each other's by
//! place: new ones come last.

/// Makes an enumeration of counters with their names and what they count; the order is the layout.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $help:literal])+ $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum $name { $($(#[doc = $help])+ $variant),* }

        impl $name {
            /// Every counter, in layout order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The stable name, as `ixcp` prints it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
            /// What it counts, in a sentence: the documentation of its variant, which stands alone.
            pub const fn help(self) -> &'static str {
                match self { $($name::$variant => concat!($($help),+).trim_ascii()),* }
            }
        }
    };
}

counters! {
    /// What a core has done since boot.
    Counter {
        /// Frames taken from receive queues.
        RxPackets = "rx_packets",
        /// Bytes of frames taken from receive queues.
        RxBytes = "rx_bytes",
        /// Frames handed to transmit queues.
        TxPackets = "tx_packets",
        /// Bytes of frames handed to transmit queues.
        TxBytes = "tx_bytes",
        /// Polls that found at least one frame.
        RxBatches = "rx_batches",
        /// Frames that other cores have handed over (software steering).
        RxSteeredIn = "rx_steered_in",
        /// Frames handed to the core that owns their group.
        RxSteeredOut = "rx_steered_out",
        /// Core-loop iterations that had something to do.
        LoopsBusy = "loops_busy",
        /// Core-loop iterations that had nothing to do.
        LoopsIdle = "loops_idle",
        /// Halts of the core.
        Halts = "halts",
        /// Time-stamp counter ticks in busy iterations.
        BusyTsc = "busy_tsc",
        /// Time-stamp counter ticks in idle iterations and halts.
        IdleTsc = "idle_tsc",
        /// Time-stamp counter ticks in user mode (part of `busy_tsc`).
        UserTsc = "user_tsc",
        /// Entries into the application.
        AppEntries = "app_entries",
        /// Event records written for the application.
        Events = "events",
        /// Batched calls executed.
        Syscalls = "syscalls",
        /// Batched calls that failed.
        SyscallErrors = "syscall_errors",
        /// Connections opened by peers.
        TcpAccepted = "tcp_accepted",
        /// Connections opened by the application.
        TcpConnected = "tcp_connected",
        /// Connections ended, for whatever reason.
        TcpClosed = "tcp_closed",
        /// Connections that exist now, TIME_WAIT included (a gauge).
        TcpConnections = "tcp_connections",
        /// Segments retransmitted.
        TcpRetransmits = "tcp_retransmits",
        /// Retransmission timeouts.
        TcpTimeouts = "tcp_timeouts",
        /// Segments that arrived out of order and were kept.
        TcpOutOfOrder = "tcp_out_of_order",
        /// RST segments sent.
        TcpResetsSent = "tcp_resets_sent",
        /// RST segments received and believed.
        TcpResetsReceived = "tcp_resets_received",
        /// Payload bytes given to the application.
        PayloadIn = "payload_in",
        /// Payload bytes accepted from the application.
        PayloadOut = "payload_out",
        /// Payload bytes that the stack copied: of small segments that an application piles up, and else none.
        PayloadCopied = "payload_copied",
        /// Tiny payload bytes copied beside a header on purpose.
        PayloadInlined = "payload_inlined",
        /// Datagrams given to the application.
        UdpIn = "udp_in",
        /// Datagrams sent for the application.
        UdpOut = "udp_out",
        /// ICMP echo requests answered.
        IcmpEchoes = "icmp_echoes",
        /// Receive buffers free on this core (a gauge).
        BuffersFree = "buffers_free",
        /// Receive buffers in all of this core's pool (a gauge).
        BuffersTotal = "buffers_total",
        /// Times the application did not return within its bound.
        AppOverruns = "app_overruns",
        /// Packet bytes copied into the capture ring.
        CaptureBytes = "capture_bytes",
        /// Packets that a capture has missed.
        CaptureMissed = "capture_missed",
        /// TCP ports that the application listens on, as this core knows it (a gauge).
        TcpListeners = "tcp_listeners",
        /// UDP ports that the application has bound, as this core knows it (a gauge).
        UdpPorts = "udp_ports",
        /// Timers of the application's context on this core (a gauge).
        AppTimers = "app_timers",
        /// Times that a loss was found by acknowledgements, and repaired without a timeout.
        TcpRecoveries = "tcp_recoveries",
        /// Loss probes: segments sent because no acknowledgement came, before a timeout.
        TcpLossProbes = "tcp_loss_probes",
        /// Segments that a peer said it had received twice.
        TcpDuplicatesTold = "tcp_duplicates_told",
        /// Timeouts that turned out to be needless.
        TcpSpuriousTimeouts = "tcp_spurious_timeouts",
        /// ICMPv6 errors sent.
        IcmpErrorsSent = "icmp_errors_sent",
        /// IPv6 addresses of ours that somebody else claimed.
        Ipv6Duplicates = "ipv6_duplicates",
        /// SYNs answered with a cookie.
        SynCookiesSent = "syn_cookies_sent",
        /// Connections made of a cookie that came back.
        SynCookiesAccepted = "syn_cookies_accepted",
        /// Challenge ACKs sent (RFC 5961).
        TcpChallengeAcks = "tcp_challenge_acks",
        /// Keep-alive probes sent.
        TcpKeepAliveProbes = "tcp_keep_alive_probes",
        /// ICMP errors that were believed.
        IcmpErrors = "icmp_errors",
        /// Times that a connection's path was found to take smaller packets only.
        PathMtuLowered = "path_mtu_lowered",
        /// Datagrams that were put together from fragments.
        DatagramsReassembled = "datagrams_reassembled",
        /// Bytes copied to put datagrams together from fragments.
        FragmentBytes = "fragment_bytes",
        /// TCP segments that arrived in several buffers: jumbo frames, and what the device has merged.
        RxChains = "rx_chains",
        /// TCP segments that the device has merged into fewer frames (large receive).
        RxMerged = "rx_merged",
        /// Flow groups that have come from another core.
        GroupsIn = "groups_in",
        /// Flow groups that have left for another core.
        GroupsOut = "groups_out",
        /// Frames that waited until their group was here entirely.
        FramesHeld = "frames_held",
        /// Connections reset since their core was taken by force: counted when it is back.
        TcpForceResets = "tcp_reset_by_force",
        /// Frames of a group on the move that may have overtaken older ones: too many waited for these, or for too long.
        FramesUnordered = "frames_unordered",
    }
}

counters! {
    /// Why something was dropped.
    Drop {
        /// Shorter than its headers say.
        Truncated = "truncated",
        /// Not for this station.
        NotForUs = "not_for_us",
        /// An EtherType that is not handled.
        EtherType = "ether_type",
        /// A malformed ARP packet.
        ArpMalformed = "arp_malformed",
        /// Too many packets wait for an address.
        ArpPendingFull = "arp_pending_full",
        /// Nobody answered ARP.
        ArpTimeout = "arp_timeout",
        /// A malformed IP header.
        IpMalformed = "ip_malformed",
        /// A wrong IP header checksum.
        IpChecksum = "ip_checksum",
        /// A fragment, while none are put together.
        IpFragment = "ip_fragment",
        /// A protocol that is not handled.
        IpProtocol = "ip_protocol",
        /// A destination without route.
        NoRoute = "no_route",
        /// A malformed or unhandled ICMP message.
        Icmp = "icmp",
        /// A malformed UDP header.
        UdpMalformed = "udp_malformed",
        /// A wrong UDP checksum.
        UdpChecksum = "udp_checksum",
        /// No application on this port.
        UdpNoPort = "udp_no_port",
        /// The application holds too many datagrams.
        UdpQueueFull = "udp_queue_full",
        /// A malformed TCP header.
        TcpMalformed = "tcp_malformed",
        /// A wrong TCP checksum.
        TcpChecksum = "tcp_checksum",
        /// No connection and no listener.
        TcpNoPort = "tcp_no_port",
        /// Outside the window, or old.
        TcpOutOfWindow = "tcp_out_of_window",
        /// The listener's queue of handshakes is full.
        TcpSynQueueFull = "tcp_syn_queue_full",
        /// The listener's backlog is full.
        TcpBacklogFull = "tcp_backlog_full",
        /// The table of connections is full.
        TcpTableFull = "tcp_table_full",
        /// Too many out-of-order segments on one connection.
        TcpReassemblyFull = "tcp_reassembly_full",
        /// Data for a connection that the application has closed.
        TcpAfterClose = "tcp_after_close",
        /// The connection's share of receive buffers is used up.
        TcpReceiveShare = "tcp_receive_share",
        /// No receive buffer.
        NoBuffer = "no_buffer",
        /// The transmit ring is full.
        TxRingFull = "tx_ring_full",
        /// The ring to another core is full.
        SteerFull = "steer_full",
        /// The device said that the frame is bad, or its answer made no sense.
        DeviceError = "device_error",
        /// The rules do not let it in.
        AclDeniedIn = "acl_denied_in",
        /// The rules do not let it out.
        AclDeniedOut = "acl_denied_out",
        /// More from one address than a rule's rate admits.
        AclRate = "acl_rate",
        /// More connections of one address than a rule admits.
        AclConnections = "acl_connections",
        /// A connection that new rules do not admit was ended.
        AclEnded = "acl_ended",
        /// Rejected without telling the sender: too many were told lately.
        AclUntold = "acl_untold",
        /// A malformed neighbour-discovery message, or one that was forwarded.
        NdMalformed = "nd_malformed",
        /// IPv6 extension headers that are refused, or are too many.
        Ipv6Extension = "ipv6_extension",
        /// No ICMPv6 error for it: too many were sent lately.
        IcmpUntold = "icmp_untold",
        /// A TCP segment that is old by its timestamp, or has none though it was agreed on.
        TcpTimestamp = "tcp_timestamp",
        /// An ACK for nobody, while SYN cookies may come back, that brought none that is good.
        TcpCookie = "tcp_cookie",
        /// A suspicious segment left unanswered: too many were answered lately (RFC 5961 §7).
        TcpChallenge = "tcp_challenge",
        /// An ICMP error about nothing that is in flight.
        IcmpUnproven = "icmp_unproven",
        /// A fragment that overlaps others, or belongs to a datagram that others have spoilt so.
        FragmentOverlap = "fragment_overlap",
        /// A fragment that was there already.
        FragmentAgain = "fragment_again",
        /// A fragment of a datagram that is longer than a buffer.
        FragmentTooLong = "fragment_too_long",
        /// Too many fragments, or too many datagrams in fragments.
        FragmentsFull = "fragments_full",
        /// A datagram whose fragments did not all come in time.
        FragmentTimeout = "fragment_timeout",
        /// A frame of several buffers that is no TCP segment, or whose headers are not in the first.
        SpansBuffers = "spans_buffers",
        /// Without the tag of the network card's VLAN.
        OtherVlan = "other_vlan",
        /// The network card had no buffer for the frame; only some cards tell. Told with core 0's.
        DeviceMissed = "device_missed",
    }
}

/// Batch sizes are counted in buckets: 0, 1, 2–3, 4–7, … 2^13 and more.
pub const BATCH_BUCKETS: usize = 15;

/// The bucket of a batch of `n`.
pub const fn batch_bucket(n: usize) -> usize {
    let bits = (usize::BITS - n.leading_zeros()) as usize;
    if bits < BATCH_BUCKETS { bits } else { BATCH_BUCKETS - 1 }
}

/// A core's counters, as an engine keeps them: plain words, one writer.
#[derive(Clone, Debug)]
pub struct CoreStats {
    /// By [`Counter`].
    pub counters: [u64; Counter::COUNT],
    /// By [`Drop`].
    pub drops: [u64; Drop::COUNT],
    /// Batches by [`batch_bucket`].
    pub batches: [u64; BATCH_BUCKETS],
}

impl CoreStats {
    /// All zero.
    pub const fn new() -> CoreStats {
        CoreStats {
            counters: [0; Counter::COUNT],
            drops: [0; Drop::COUNT],
            batches: [0; BATCH_BUCKETS],
        }
    }

    /// Adds to a counter.
    #[inline(always)]
    pub const fn add(&mut self, counter: Counter, n: u64) {
        let slot = &mut self.counters[counter as usize];
        *slot = slot.wrapping_add(n);
    }

    /// Sets a gauge.
    #[inline(always)]
    pub const fn set(&mut self, counter: Counter, value: u64) {
        self.counters[counter as usize] = value;
    }

    /// Counts one drop.
    #[inline(always)]
    pub const fn drop(&mut self, reason: Drop) {
        let slot = &mut self.drops[reason as usize];
        *slot = slot.wrapping_add(1);
    }

    /// A counter's value.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Drops for a reason.
    pub const fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }
}

impl Default for CoreStats {
    fn default() -> CoreStats {
        CoreStats::new()
    }
}
