//! The list of counters. Every packet that is discarded has a [`DropReason`], and each reason is counted.

/// Defines an enumeration whose every variant has a stable name and a counter.
macro_rules! counted {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident => $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $enum { $($(#[$doc])* $variant,)+ }

        impl $enum {
            /// Every value, in the order of the counters.
            pub const ALL: &'static [$enum] = &[$($enum::$variant,)+];

            /// The counter's stable name.
            pub const fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)+ }
            }
        }
    };
}

counted! {
    /// Why a packet was discarded.
    DropReason {
        /// Shorter than its own headers say.
        Truncated => "truncated",
        /// Not for our Ethernet address, nor a group that we listen to.
        NotOurMac => "not_our_mac",
        /// An EtherType that no one here speaks.
        EtherType => "ether_type",
        /// A VLAN that is not ours.
        Vlan => "vlan",
        /// ARP that is malformed or not Ethernet/IPv4 (RFC 826).
        ArpMalformed => "arp_malformed",
        /// ARP for an address that is not ours.
        ArpNotOurs => "arp_not_ours",
        /// IP version, header length or total length makes no sense.
        IpHeader => "ip_header",
        /// IPv4 header checksum (RFC 791).
        IpChecksum => "ip_checksum",
        /// Destination address is not ours.
        NotOurAddress => "not_our_address",
        /// Source address that no host may have: multicast, broadcast, loopback or our own (RFC 1122 §3.2.1.3).
        BadSource => "bad_source",
        /// An IP fragment: fragments are not reassembled.
        Fragment => "fragment",
        /// An IPv6 extension header that must not be passed over (RFC 8200 §4.2), or too many of them.
        ExtensionHeader => "extension_header",
        /// An upper-layer protocol that no one here speaks.
        Protocol => "protocol",
        /// ICMP or ICMPv6 that is malformed or has a wrong checksum.
        IcmpMalformed => "icmp_malformed",
        /// An ICMP or ICMPv6 type that asks nothing of us.
        IcmpIgnored => "icmp_ignored",
        /// An ICMP error about no connection of ours, or with a sequence number that it never sent (RFC 5927 §4).
        IcmpUnrelated => "icmp_unrelated",
        /// Neighbour discovery that fails the validity checks of RFC 4861 §6.1, §7.1.
        NdpInvalid => "ndp_invalid",
        /// An answer over its rate limit: ICMP errors, challenge ACKs, resets.
        RateLimited => "rate_limited",
        /// TCP data offset, options or ports make no sense.
        TcpMalformed => "tcp_malformed",
        /// TCP checksum (RFC 9293 §3.1, MUST-3).
        TcpChecksum => "tcp_checksum",
        /// A segment for no connection and no listener (RFC 9293 §3.10.7.1).
        NoConnection => "no_connection",
        /// A segment that LISTEN does not take: RST, ACK without a cookie, nothing at all (RFC 9293 §3.10.7.2).
        ListenRefused => "listen_refused",
        /// Too many half-open connections at this listener, or in all, and no cookies.
        BacklogFull => "backlog_full",
        /// Every connection record is in use.
        ConnectionsFull => "connections_full",
        /// No frame left to answer with, or to keep data in.
        NoFrames => "no_frames",
        /// PAWS: an old timestamp (RFC 7323 §5.3).
        PawsFailed => "paws_failed",
        /// No timestamp although they were agreed (RFC 7323 §3.2).
        TimestampMissing => "timestamp_missing",
        /// Outside the receive window (RFC 9293 §3.10.7.4, first).
        OutOfWindow => "out_of_window",
        /// An old duplicate: acknowledged again, nothing new in it.
        Duplicate => "duplicate",
        /// An ACK of something never sent or too old (RFC 5961 §5.2).
        AckUnacceptable => "ack_unacceptable",
        /// A segment without ACK where one is required (RFC 9293 §3.10.7.4, fifth).
        NoAck => "no_ack",
        /// RST in the window but not at its left edge: challenged (RFC 5961 §3.2).
        ResetChallenged => "reset_challenged",
        /// SYN on a synchronised connection: challenged (RFC 5961 §4.2).
        SynChallenged => "syn_challenged",
        /// RST ignored in TIME-WAIT (RFC 1337) or because it acknowledges nothing of ours.
        ResetIgnored => "reset_ignored",
        /// Data after the application closed: reset (RFC 9293 §3.6.1).
        DataAfterClose => "data_after_close",
        /// More out-of-order data than the connection may keep.
        ReassemblyFull => "reassembly_full",
        /// In order, but beyond the frames or bytes that the connection may keep.
        ReceiveQueueFull => "receive_queue_full",
        /// A TIME-WAIT that was cut short because the table is full.
        TimeWaitFull => "time_wait_full",
        /// No route to the destination.
        NoRoute => "no_route",
        /// The neighbour did not answer, or too many packets wait for it.
        Unresolved => "unresolved",
        /// The queue to the core that owns the flow is full.
        HandoverFull => "handover_full",
        /// The transmit burst had no room for an answer.
        TransmitFull => "transmit_full",
    }
}

counted! {
    /// What else is counted.
    Counter {
        /// Frames received.
        PacketsReceived => "packets_received",
        /// Frames handed to the driver.
        PacketsSent => "packets_sent",
        /// Bytes received, with link headers.
        BytesReceived => "bytes_received",
        /// Bytes handed to the driver, with link headers.
        BytesSent => "bytes_sent",
        /// Active opens begun.
        ActiveOpens => "active_opens",
        /// SYNs accepted by a listener.
        PassiveOpens => "passive_opens",
        /// Connections that reached ESTABLISHED.
        Established => "established",
        /// Connections that ended by an orderly close.
        ClosedOrderly => "closed_orderly",
        /// Connections that ended by a reset from the peer.
        ResetsReceived => "resets_received",
        /// Resets sent.
        ResetsSent => "resets_sent",
        /// Connections ended by us because the peer stopped answering.
        TimedOut => "timed_out",
        /// Half-open passive connections given up.
        SynRcvdExpired => "syn_rcvd_expired",
        /// SYNs answered by a cookie, because no more half-open connections may be kept (RFC 4987).
        SynCookiesSent => "syn_cookies_sent",
        /// Connections that were opened by a cookie that came back.
        SynCookiesOpened => "syn_cookies_opened",
        /// Segments retransmitted, SYN and FIN included.
        Retransmissions => "retransmissions",
        /// Retransmission timeouts (RFC 6298).
        RetransmissionTimeouts => "retransmission_timeouts",
        /// Tail loss probes sent (RFC 8985 §7).
        TailProbes => "tail_probes",
        /// Fast recoveries entered (RFC 6582, RFC 6675).
        FastRecoveries => "fast_recoveries",
        /// Zero-window probes sent.
        WindowProbes => "window_probes",
        /// Delayed acknowledgments sent by the timer.
        DelayedAcks => "delayed_acks",
        /// Segments kept out of order.
        OutOfOrder => "out_of_order",
        /// Challenge ACKs sent (RFC 5961).
        ChallengeAcks => "challenge_acks",
        /// TIME-WAIT records made.
        TimeWaits => "time_waits",
        /// TIME-WAIT restarted by a FIN that came again.
        TimeWaitRestarts => "time_wait_restarts",
        /// TIME-WAIT ended early by a new SYN (RFC 6191).
        TimeWaitReused => "time_wait_reused",
        /// Application payload bytes that were copied rather than passed on in their frame.
        PayloadBytesCopied => "payload_bytes_copied",
        /// Segments that came to a worker that does not own their flow and moved on.
        SteeredSegments => "steered_segments",
        /// ARP requests and neighbour solicitations sent.
        NeighbourSolicitations => "neighbour_solicitations",
        /// Echo requests answered.
        EchoReplies => "echo_replies",
        /// ICMP errors taken to heart by a connection.
        IcmpErrors => "icmp_errors",
        /// Path MTU lowered by ICMP (RFC 1191, RFC 8201).
        PathMtuLowered => "path_mtu_lowered",
    }
}

/// One worker's counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    drops: [u64; DropReason::ALL.len()],
    counters: [u64; Counter::ALL.len()],
}

impl Metrics {
    /// All zero.
    pub const fn new() -> Metrics {
        Metrics { drops: [0; DropReason::ALL.len()], counters: [0; Counter::ALL.len()] }
    }

    /// Counts one discarded packet.
    pub fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts one.
    pub fn count(&mut self, counter: Counter) {
        self.counters[counter as usize] += 1;
    }

    /// Counts `n`.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.counters[counter as usize] += n;
    }

    /// How many packets were discarded for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How many packets were discarded in all.
    pub fn drops_total(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// The value of `counter`.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Adds another worker's counters to these.
    pub fn merge(&mut self, other: &Metrics) {
        for (sum, n) in self.drops.iter_mut().zip(other.drops) {
            *sum += n;
        }
        for (sum, n) in self.counters.iter_mut().zip(other.counters) {
            *sum += n;
        }
    }

    /// Every counter that is not zero, by name: first the counters, then the drops.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counters = Counter::ALL.iter().map(|&c| (c.name(), self.get(c)));
        let drops = DropReason::ALL.iter().map(|&r| (r.name(), self.drops(r)));
        counters.chain(drops).filter(|&(_, n)| n > 0)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}
