//! Stage 1: frames are read into place.

use core::ops::Range;

use handfast_drivers::burst::{self, RxBurst, TxBurst};
use handfast_drivers::frame::{Frame, FramePool};

use super::Stack;
use crate::demux::flow::FlowKey;
use crate::demux::flows::Guess;
use crate::metrics::{Counter, DropReason};
use crate::wire::address::Address;
use crate::wire::packet::{self, Kind, Net};
use crate::wire::tcp::Segment;
use crate::wire::usual::{self, Ends};

/// A TCP segment between parse and TCP: what TCP asks about. What else the headers say is in the frame.
#[derive(Default, Debug)]
pub(super) struct Arrived {
    /// Until TCP takes it.
    pub(super) frame: Option<Frame>,
    pub(super) hash: u64,
    pub(super) key: FlowKey,
    pub(super) seg: Segment,
    /// Where in the frame the TCP header starts.
    pub(super) l4_offset: u16,
    /// Whose it seemed to be in stage 2.
    pub(super) guess: Guess,
}

impl Arrived {
    /// An empty place.
    pub(super) fn new() -> Arrived {
        let mut arrived = Arrived::default();
        arrived.prepare();
        arrived
    }

    /// What is the same for all usual packets stands there before they come.
    pub(super) fn prepare(&mut self) {
        self.key = FlowKey { local: Address::UNSPECIFIED_V4, remote: Address::UNSPECIFIED_V4, ..FlowKey::default() };
        self.l4_offset = usual::L4_OFFSET as u16;
    }

    /// Where in the frame the payload is.
    #[inline]
    pub(super) fn payload_range(&self) -> Range<usize> {
        let start = usize::from(self.l4_offset) + self.seg.header_len();
        start..start + usize::from(self.seg.payload_len)
    }

    /// The headers that were cut off belong to the frame again.
    pub(super) fn untrim(&mut self) {
        let payload = self.payload_range();
        if let Some(frame) = &mut self.frame
            && !payload.is_empty()
        {
            frame.prepend(payload.start);
        }
    }
}

impl Stack {
    /// Stage 1. ARP and ICMP end here: they are answered in their own frames.
    pub(super) fn parse(&mut self, rx: &mut RxBurst, tx: &mut TxBurst) {
        // Out of the way of what is called below.
        let mut places = core::mem::take(&mut self.arrived);
        let (packets, mut bytes, strays) = (rx.len(), 0, self.strays.len());
        burst::deal(rx, &mut places, |frame, arrived| {
            bytes += frame.len();
            match self.usual_arrived(&frame, arrived) {
                // The place is empty: there is nothing to be dropped.
                Some(()) => core::mem::forget(arrived.frame.replace(frame.take())),
                None => self.unusual_arrived(frame.take(), arrived, tx),
            }
        });
        if self.home.is_spread() {
            places[..packets].iter_mut().for_each(|arrived| self.hand_over(arrived));
        }
        core::mem::forget(core::mem::replace(&mut self.arrived, places));
        self.arrived_len = packets;
        // What went to other cores is counted there.
        let away = &self.strays[strays..];
        let away_bytes: usize = away.iter().map(|(_, desc)| desc.len()).sum();
        self.env.metrics.add(Counter::PacketsReceived, (packets - away.len()) as u64);
        self.env.metrics.add(Counter::BytesReceived, (bytes - away_bytes) as u64);
    }

    /// Reads the usual packet; `None` if it is another. If its flow turns out to have a record, that record says who its ends are; if
    /// not, [`admits_flow`](Self::admits_flow) does.
    #[inline(always)]
    fn usual_arrived(&self, frame: &Frame, arrived: &mut Arrived) -> Option<()> {
        let Ends { src, dst, ports } = self.usual.read(frame, &mut arrived.seg)?;
        // The rest was prepared.
        arrived.key.local.set_v4(dst);
        arrived.key.remote.set_v4(src);
        (arrived.key.local_port, arrived.key.remote_port) = (ports as u16, (ports >> 16) as u16);
        arrived.hash = self.hasher.hash_v4(dst, src, ports);
        self.flows.prefetch(arrived.hash);
        Some(())
    }

    /// Whether a flow that has no record here may have one: whether it is between one of us and someone else.
    ///
    /// # Errors
    /// The reason to drop its segment.
    #[inline(always)]
    pub(super) fn admits_flow(&self, key: &FlowKey) -> Result<(), DropReason> {
        if key.local_port == 0 || key.remote_port == 0 {
            return Err(DropReason::TcpMalformed);
        }
        if !key.remote.is_valid_source() {
            return Err(DropReason::BadSource);
        }
        self.ip.admit_between(key.remote, key.local)
    }

    /// A packet that is not the usual one: if it is a TCP segment all the same, it stays.
    #[cold]
    fn unusual_arrived(&mut self, frame: Frame, arrived: &mut Arrived, tx: &mut TxBurst) {
        let (mut net, seg) = (Net::default(), &mut arrived.seg);
        let read = packet::read(&frame, !self.rx_checksum, &mut net, seg);
        match read.and_then(|kind| self.ip.admit(kind, &net).map(|()| kind)) {
            Ok(Kind::Tcp) => {
                let (local_port, remote_port) = (seg.dst_port, seg.src_port);
                arrived.key = FlowKey { local: net.dst, remote: net.src, local_port, remote_port };
                arrived.hash = self.hasher.hash(&arrived.key);
                self.flows.prefetch(arrived.hash);
                (arrived.frame, arrived.l4_offset) = (Some(frame), net.l4_offset);
                self.arrived_otherwise = true;
            }
            Ok(kind) => self.no_tcp_arrives(kind, frame, &net, tx),
            Err(reason) => self.env.metrics.dropped(reason),
        }
    }

    fn no_tcp_arrives(&mut self, kind: Kind, frame: Frame, net: &Net, tx: &mut TxBurst) {
        let (now, metrics) = (self.env.now, &mut self.env.metrics);
        let error = match kind {
            Kind::Tcp => None,
            Kind::Arp => {
                self.ip.on_arp(now, frame, &net.link, tx, metrics);
                None
            }
            Kind::Icmp => self.ip.on_icmp(frame, net, tx, metrics),
            Kind::Icmp6 => self.ip.on_icmp6(now, frame, net, tx, metrics),
            Kind::Other(protocol) => {
                self.ip.on_other(now, frame, net, protocol, tx, metrics);
                None
            }
        };
        if let Some(error) = error {
            self.icmp_error(&error);
        }
    }

    /// Sends a segment to the core that owns its flow, if it is another.
    #[inline(never)]
    fn hand_over(&mut self, arrived: &mut Arrived) {
        let home = self.home.of(&arrived.key);
        if home != self.core
            && let Some(frame) = arrived.frame.take()
        {
            match self.admits_flow(&arrived.key) {
                Err(reason) => self.env.metrics.dropped(reason),
                Ok(()) => {
                    self.env.metrics.count(Counter::SteeredSegments);
                    match self.strays.is_full() {
                        true => self.env.metrics.dropped(DropReason::HandoverFull),
                        false => self.strays.push((home, FramePool::part_with(frame))),
                    }
                }
            }
        }
    }
}
