//! The network around one core: our addresses, neighbours, routes, ICMP, path MTU.
//!
//! | file | its one job |
//! | --- | --- |
//! | `mod` | [`Ip`]: what the pipeline calls |
//! | `routes` | our addresses, and where packets for others go first |
//! | `neighbours` | the neighbour table of ARP and neighbour discovery |
//! | `icmp` | answers to echo requests and to what nobody here speaks |
//! | `path_mtu` | path MTUs smaller than the link's |
//!
//! Each core has its own [`Ip`]. ARP and neighbour discovery reach one of them only: what that one
//! [learns](Ip::take_learned) is to be [told](Ip::learn) to the others.

mod icmp;
pub mod neighbours;
pub mod path_mtu;
pub mod routes;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::Hasher;

use arrayvec::ArrayVec;
use handfast_drivers::burst::TxBurst;
use handfast_drivers::frame::{Frame, FramePool};
use siphasher::sip::SipHasher13;

use self::neighbours::{Evidence, Neighbours};
pub use self::neighbours::{NeighbourId, NextHop};
use self::path_mtu::PathMtus;
use self::routes::{OwnAddress, OwnRange, Route, Routes};
use crate::metrics::{Counter, DropReason, Metrics};
use crate::rate_limit::RateLimit;
use crate::time::Instant;
use crate::wire::address::{Address, Mac};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{ETHERTYPE_ARP, Ethernet};
use crate::wire::icmp6;
use crate::wire::ipv4;
use crate::wire::ndp::{self, Ndp};
use crate::wire::packet::{self, Kind, Link, Net};

/// How an interface is set up.
#[derive(Clone, Debug)]
pub struct IpConfig {
    /// Our Ethernet address.
    pub mac: Mac,
    /// The VLAN that we are on, 1 to 4094; `None`: untagged.
    pub vlan: Option<u16>,
    /// The link's MTU in bytes: the largest IP packet.
    pub mtu: u16,
    /// Our addresses and their networks. For an IPv6 link-local address, where no kernel shares our Ethernet address, add
    /// [`Mac::link_local`].
    pub addresses: Vec<OwnAddress>,
    /// More addresses of ours, in those networks.
    pub ranges: Vec<OwnRange>,
    /// Routes beyond those networks.
    pub routes: Vec<Route>,
    /// Neighbours that need not be asked.
    pub neighbours: Vec<(Address, Mac)>,
    /// The most neighbours to know.
    pub neighbours_max: usize,
    /// The most connections that wait for neighbours.
    pub waiters_max: usize,
    /// The most packets that wait for neighbours.
    pub waiting_packets_max: usize,
    /// The most paths with an MTU of their own.
    pub path_mtus_max: usize,
    /// How many ICMP errors to answer with, per second; 0: none.
    pub icmp_errors_per_s: u32,
    /// A secret for the tables' hashes.
    pub hash_key: [u8; 16],
}

impl IpConfig {
    /// An interface without addresses, with the usual limits. Set at least [`addresses`](Self::addresses) and
    /// [`hash_key`](Self::hash_key).
    pub const fn new(mac: Mac, mtu: u16) -> IpConfig {
        IpConfig {
            mac,
            vlan: None,
            mtu,
            addresses: Vec::new(),
            ranges: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            neighbours_max: 4096,
            waiters_max: 4096,
            waiting_packets_max: 64,
            path_mtus_max: 1024,
            icmp_errors_per_s: 100,
            hash_key: [0; 16],
        }
    }
}

/// The network layer of one core.
#[derive(Debug)]
pub struct Ip {
    local: Local,
    neighbours: Neighbours,
    path_mtus: PathMtus,
    /// Who was looked up last.
    last: (Address, NeighbourId),
    /// Whom a source was looked up for last, and which. Routes do not change.
    last_source: Option<(Address, Address)>,
    /// The same between two IPv4 addresses.
    last_source_v4: Option<[u32; 2]>,
    /// Packets for neighbours (the address beside them) that are being asked.
    waiting: VecDeque<(Address, Frame)>,
    waiting_max: usize,
    learned: ArrayVec<Learned, LEARNED_MAX>,
    icmp_errors: RateLimit,
}

/// What does not change while the interface is up.
#[derive(Debug)]
struct Local {
    mac: Mac,
    vlan: Option<u16>,
    mtu: u16,
    routes: Routes,
}

/// Something about a neighbour, for the other cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learned {
    /// Its address.
    pub address: Address,
    /// Its Ethernet address.
    pub mac: Mac,
    /// It answered: it is there now.
    pub answered: bool,
}

impl Ip {
    /// The network layer that `config` describes.
    pub fn new(config: &IpConfig) -> Ip {
        let mut neighbours = Neighbours::new(config.neighbours_max, config.waiters_max, config.hash_key);
        for &(address, mac) in config.neighbours.iter().take(config.neighbours_max) {
            neighbours.add_permanent(address, mac);
        }
        let routes = Routes::new(config.addresses.clone(), config.ranges.clone(), config.routes.clone());
        Ip {
            local: Local { mac: config.mac, vlan: config.vlan, mtu: config.mtu, routes },
            neighbours,
            path_mtus: PathMtus::new(config.path_mtus_max, config.hash_key),
            last: (Address::UNSPECIFIED_V6, NeighbourId::default()),
            last_source: None,
            last_source_v4: None,
            waiting: VecDeque::with_capacity(config.waiting_packets_max),
            waiting_max: config.waiting_packets_max,
            learned: ArrayVec::new(),
            icmp_errors: RateLimit::new(config.icmp_errors_per_s),
        }
    }

    /// A router leads to networks of both families, or of another than its own.
    #[inline]
    pub fn has_router_of_both(&self) -> bool {
        self.local.routes.has_router_of_both()
    }

    /// Of a packet that came to our Ethernet address, and goes to one host and not to a group: [`admit`](Self::admit).
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub fn admit_between(&self, src: Address, dst: Address) -> Result<(), DropReason> {
        let routes = &self.local.routes;
        if routes.is_between_only_and_another(dst, src) { Ok(()) } else { self.admit_between_any(src, dst) }
    }

    /// The same of IPv4; `false` also for IPv6.
    #[inline(always)]
    pub fn admits_between_v4(&self, src: Address, dst: Address) -> bool {
        // Both are of one family.
        let source = src.as_v4();
        let is_to_only = self.local.routes.is_only_v4(dst) && source != dst.as_v4();
        ipv4::is_valid_source(source) && (is_to_only || dst.is_v4() && self.admit_between_any(src, dst).is_ok())
    }

    #[cold]
    fn admit_between_any(&self, src: Address, dst: Address) -> Result<(), DropReason> {
        let routes = &self.local.routes;
        match (routes.is_ours(src), routes.is_ours(dst)) {
            (true, _) => Err(DropReason::BadSource),
            (false, true) => Ok(()),
            (false, false) => Err(DropReason::NotOurAddress),
        }
    }

    /// Whether a packet is for us and from someone else. Groups are admitted for neighbour discovery only.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn admit(&self, kind: Kind, net: &Net) -> Result<(), DropReason> {
        let (local, link) = (&self.local, &net.link);
        if link.vlan != local.vlan {
            return Err(DropReason::Vlan);
        }
        let to_us = link.dst_mac == local.mac;
        if !to_us && !link.dst_mac.is_multicast() {
            return Err(DropReason::NotOurMac);
        }
        if kind == Kind::Arp {
            return Ok(());
        }
        if local.routes.is_ours(net.src) {
            return Err(DropReason::BadSource);
        }
        if local.routes.is_ours(net.dst) {
            // RFC 1122 §3.3.6, RFC 9293 §3.9.2.3 (MUST-57): nothing for one host comes in a frame for many; NDP may.
            let takes_groups = kind == Kind::Icmp6;
            return if to_us || takes_groups { Ok(()) } else { Err(DropReason::NotOurMac) };
        }
        match kind {
            Kind::Icmp6 if local.routes.is_our_group(net.dst) => Ok(()),
            _ => Err(DropReason::NotOurAddress),
        }
    }

    /// Whether `address` is one of ours.
    #[inline]
    pub fn is_ours(&self, address: Address) -> bool {
        self.local.routes.is_ours(address)
    }

    /// Our addresses.
    pub fn addresses(&self) -> &[OwnAddress] {
        self.local.routes.own()
    }

    /// Our Ethernet address.
    #[inline]
    pub fn mac(&self) -> Mac {
        self.local.mac
    }

    /// The header of a frame from us to `dst`, on our VLAN.
    #[inline]
    pub fn ethernet(&self, dst: Mac) -> Ethernet {
        self.local.ethernet(dst, 0)
    }

    /// The address of ours to send to `dst` from; `None` without a route.
    pub fn source_for(&mut self, dst: Address) -> Option<Address> {
        let source = self.last_source_for(dst).or_else(|| self.local.routes.source_for(dst))?;
        self.last_source = Some((dst, source));
        if dst.is_v4() && source.is_v4() {
            self.last_source_v4 = Some([dst, source].map(|address| u32::from_ne_bytes(address.as_v4())));
        }
        Some(source)
    }

    /// The same, if it is the one that was asked for last.
    #[inline]
    pub fn last_source_for(&self, dst: Address) -> Option<Address> {
        self.last_source.filter(|(last, _)| *last == dst).map(|(_, source)| source)
    }

    /// The same for IPv4.
    #[inline(always)]
    pub fn last_source_for_v4(&self, dst: [u8; 4]) -> Option<[u8; 4]> {
        match self.last_source_v4 {
            Some([last, source]) if last == u32::from_ne_bytes(dst) => Some(source.to_ne_bytes()),
            _ => None,
        }
    }

    /// Whether there is any path that carries less than the link.
    #[inline]
    pub fn knows_narrow_paths(&self) -> bool {
        !self.path_mtus.is_empty()
    }

    /// Where a packet for `dst` goes on the link. The fast path is an index and two compares: keep `cached` with the
    /// connection, start it as the default, and use it with one `dst` only. `waiter` is woken through
    /// [`take_woken`](Self::take_woken) when a pending neighbour answers or fails; do not give it again before that.
    #[inline]
    pub fn next_hop(&mut self, now: Instant, dst: Address, cached: &mut NeighbourId, waiter: Option<u32>) -> NextHop {
        if let Some(mac) = self.neighbours.fresh(now, *cached) {
            return NextHop::Ready(mac);
        }
        // Connections to one destination tend to come in a row.
        let (last, id) = self.last;
        if last == dst
            && let Some(mac) = self.neighbours.fresh(now, id)
        {
            *cached = id;
            return NextHop::Ready(mac);
        }
        self.look_up(now, dst, cached, waiter)
    }

    #[cold]
    fn look_up(&mut self, now: Instant, dst: Address, cached: &mut NeighbourId, waiter: Option<u32>) -> NextHop {
        let (last, id) = self.last;
        if last == dst
            && let Some(mac) = self.neighbours.usable(now, id)
        {
            *cached = id;
            return NextHop::Ready(mac);
        }
        let known = self.neighbours.contains(*cached);
        let neighbour = if known { None } else { self.local.routes.next_hop(dst) };
        let next_hop = self.neighbours.resolve(now, neighbour, cached, waiter);
        if matches!(next_hop, NextHop::Ready(_)) {
            self.last = (dst, *cached);
        }
        next_hop
    }

    /// The Ethernet address of the neighbour that `cached` names, while it is known to be there.
    #[inline]
    pub fn fresh(&self, now: Instant, cached: NeighbourId) -> Option<Mac> {
        self.neighbours.fresh(now, cached)
    }

    /// A connection got an answer from beyond its next hop: the neighbour is there (RFC 4861 §7.3.1). Spares probes.
    #[inline]
    pub fn confirm(&mut self, now: Instant, cached: NeighbourId) {
        self.neighbours.confirm(now, cached);
    }

    /// Connections whose pending neighbour has answered or failed: they ask [`next_hop`](Self::next_hop) again.
    pub fn take_woken(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.neighbours.take_woken()
    }

    /// Sends a whole frame, but for its destination Ethernet address, to `dst`; it waits if the neighbour must be asked first.
    pub fn send(&mut self, now: Instant, mut frame: Frame, dst: Address, tx: &mut TxBurst, metrics: &mut Metrics) {
        let Some(neighbour) = self.local.routes.next_hop(dst) else { return metrics.dropped(DropReason::NoRoute) };
        match self.neighbours.resolve(now, Some(neighbour), &mut NeighbourId::default(), None) {
            NextHop::Ready(mac) => {
                set_destination(&mut frame, mac);
                push(frame, tx, metrics);
            }
            NextHop::Pending if self.waiting_max > 0 => {
                // RFC 1122 §2.3.2.2: keep the latest. Each neighbour keeps a few, so that one does not take all the room.
                let same = || self.waiting.iter().enumerate().filter(|(_, (to, _))| *to == neighbour);
                let oldest =
                    if same().count() >= WAITING_PER_NEIGHBOUR { same().next().map(|(at, _)| at) } else { None };
                let oldest = oldest.or((self.waiting.len() >= self.waiting_max).then_some(0));
                if oldest.and_then(|at| self.waiting.remove(at)).is_some() {
                    metrics.dropped(DropReason::Unresolved);
                }
                self.waiting.push_back((neighbour, frame));
            }
            NextHop::Pending | NextHop::Unreachable => metrics.dropped(DropReason::Unresolved),
            NextHop::NoRoute => metrics.dropped(DropReason::NoRoute),
        }
    }

    /// Takes in an ARP packet: learns from it, and answers in its own frame if it asks for an address of ours (RFC 826).
    pub fn on_arp(&mut self, now: Instant, mut frame: Frame, link: &Link, tx: &mut TxBurst, metrics: &mut Metrics) {
        let at = usize::from(link.header_len);
        let arp = match Arp::parse(&frame[at..]) {
            Ok(arp) => arp,
            Err(reason) => return metrics.dropped(reason),
        };
        let ours = self.is_ours(arp.target);
        // RFC 5227 §2.4: someone else uses our address. We keep it, as nobody is there to ask for another one.
        if self.is_ours(arp.sender) || arp.sender_mac == self.local.mac {
            return metrics.dropped(DropReason::BadSource);
        }
        // A sender without an address asks whether ours is taken (RFC 5227 §2.1.1); one from elsewhere is no neighbour.
        if self.local.is_neighbour(arp.sender) {
            let evidence = match arp.operation {
                Operation::Reply if ours && link.dst_mac == self.local.mac => Evidence::Answered,
                Operation::Request if ours => Evidence::Asked,
                Operation::Reply | Operation::Request => Evidence::Announced,
            };
            self.heard(now, arp.sender, Some(arp.sender_mac), evidence);
        }
        if !ours {
            return metrics.dropped(DropReason::ArpNotOurs);
        }
        if arp.operation == Operation::Reply {
            return;
        }
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: self.local.mac,
            sender: arp.target,
            target_mac: arp.sender_mac,
            target: arp.sender,
        };
        frame[..6].copy_from_slice(&arp.sender_mac.0);
        frame[6..12].copy_from_slice(&self.local.mac.0);
        frame[at..at + arp::LEN].copy_from_slice(&reply.emit());
        push(frame, tx, metrics);
    }

    /// Takes in a message of neighbour discovery, and answers in its own frame if it asks for an address of ours (RFC 4861 §7.2).
    fn on_ndp(
        &mut self,
        now: Instant,
        mut frame: Frame,
        net: &Net,
        message: Ndp,
        tx: &mut TxBurst,
        metrics: &mut Metrics,
    ) {
        match message {
            Ndp::Solicitation { target, source_mac } => {
                if !self.is_ours(target) {
                    return metrics.dropped(DropReason::NotOurAddress);
                }
                // §7.2.4: who asks without an address is answered through the group of all nodes.
                let anonymous = net.src.is_unspecified();
                if let Some(mac) = source_mac
                    && self.local.is_neighbour(net.src)
                {
                    self.heard(now, net.src, Some(mac), Evidence::Asked);
                }
                let to = if anonymous { ALL_NODES } else { net.src };
                let mac =
                    if anonymous { Mac::for_multicast(ALL_NODES) } else { source_mac.unwrap_or(net.link.src_mac) };
                let message = ndp::emit_advertisement(&target, &to, &target, self.local.mac, !anonymous);
                frame.trim_front(usize::from(net.l4_offset));
                frame.truncate(0);
                self.local.emit_ndp(&mut frame, mac, target, to, &message);
                push(frame, tx, metrics);
            }
            Ndp::Advertisement { target, target_mac, solicited, overrides } => {
                if self.is_ours(target) {
                    return metrics.dropped(DropReason::BadSource);
                }
                let evidence = match (overrides, solicited) {
                    (true, true) => Evidence::Answered,
                    (true, false) => Evidence::Announced,
                    (false, solicited) => Evidence::Hinted { solicited },
                };
                self.heard(now, target, target_mac, evidence);
            }
            // Routers are configured; where one is says the advertisement as well as an announcement.
            Ndp::RouterAdvertisement { source_mac, .. } => self.heard(now, net.src, source_mac, Evidence::Announced),
        }
    }

    fn heard(&mut self, now: Instant, address: Address, mac: Option<Mac>, evidence: Evidence) {
        if self.neighbours.heard(now, address, mac, evidence)
            && let Some(mac) = mac
        {
            let answered = matches!(evidence, Evidence::Answered | Evidence::Hinted { solicited: true });
            // Over the limit the other cores ask again themselves.
            let _ = self.learned.try_push(Learned { address, mac, answered });
        }
    }

    /// What was heard on this core's queue since the last call: to be told to the other cores, which hear no ARP.
    pub fn take_learned(&mut self) -> impl Iterator<Item = Learned> + '_ {
        self.learned.drain(..)
    }

    /// What another core has heard.
    pub fn learn(&mut self, now: Instant, learned: Learned) {
        let evidence = if learned.answered { Evidence::Answered } else { Evidence::Asked };
        self.neighbours.heard(now, learned.address, Some(learned.mac), evidence);
    }

    /// The path MTU to `dst` in bytes.
    #[inline]
    pub fn path_mtu(&self, now: Instant, dst: Address) -> u16 {
        self.path_mtus.get(now, dst, self.local.mtu)
    }

    /// A router said that packets to `dst` must not be larger than `mtu` bytes, and the connection that the message is about
    /// believes it (RFC 5927 §7.2). Returns the new path MTU if it is lower than before.
    pub fn lower_path_mtu(&mut self, now: Instant, dst: Address, mtu: u32, metrics: &mut Metrics) -> Option<u16> {
        let lowered = self.path_mtus.lower(now, dst, mtu, self.local.mtu)?;
        metrics.count(Counter::PathMtuLowered);
        Some(lowered)
    }

    /// When [`poll`](Self::poll) wants to be called; `None`: not before something else happens.
    #[inline]
    pub fn next_poll(&self) -> Option<Instant> {
        self.neighbours.next_poll()
    }

    /// Asks for neighbours, again where they did not answer, and sends what waited for those who did. Returns when it wants to
    /// be called next. Cheap when there is nothing to do: call it once a turn.
    pub fn poll(&mut self, now: Instant, pool: &FramePool, tx: &mut TxBurst, metrics: &mut Metrics) -> Option<Instant> {
        let Ip { local, neighbours, .. } = self;
        neighbours.poll(now, |neighbour, mac| {
            if tx.room() == 0 {
                return false;
            }
            let Some(mut frame) = pool.alloc() else {
                metrics.dropped(DropReason::NoFrames);
                return false;
            };
            // Without an address of that family there would be no route to it.
            let Some(source) = local.routes.source_towards(neighbour, neighbour) else { return true };
            local.emit_solicitation(&mut frame, source, neighbour, mac);
            tx.push(frame);
            metrics.count(Counter::NeighbourSolicitations);
            true
        });
        if self.neighbours.take_settled() {
            self.send_waiting(tx, metrics);
        }
        self.next_poll()
    }

    /// Packets that wait for a neighbour.
    pub(crate) fn waiting_frames(&self) -> usize {
        self.waiting.len()
    }

    fn send_waiting(&mut self, tx: &mut TxBurst, metrics: &mut Metrics) {
        for _ in 0..self.waiting.len() {
            let Some((neighbour, mut frame)) = self.waiting.pop_front() else { break };
            match self.neighbours.peek(neighbour) {
                NextHop::Ready(mac) => {
                    set_destination(&mut frame, mac);
                    push(frame, tx, metrics);
                }
                NextHop::Pending => self.waiting.push_back((neighbour, frame)),
                NextHop::Unreachable | NextHop::NoRoute => metrics.dropped(DropReason::Unresolved),
            }
        }
    }
}

impl Local {
    #[inline]
    fn ethernet(&self, dst: Mac, ethertype: u16) -> Ethernet {
        Ethernet { dst, src: self.mac, vlan: self.vlan, ethertype }
    }

    /// Whether `address` is on the link: packets to it go to itself.
    fn is_neighbour(&self, address: Address) -> bool {
        self.routes.next_hop(address) == Some(address)
    }

    /// Writes a question for `neighbour` into an empty frame: to everyone, or to the `mac` that it had.
    fn emit_solicitation(&self, frame: &mut Frame, source: Address, neighbour: Address, mac: Option<Mac>) {
        if neighbour.is_v4() {
            let ethernet = self.ethernet(mac.unwrap_or(Mac::BROADCAST), ETHERTYPE_ARP);
            let (operation, sender_mac, target_mac) = (Operation::Request, self.mac, Mac::default());
            let arp = Arp { operation, sender_mac, sender: source, target_mac, target: neighbour };
            frame.append(arp::LEN).copy_from_slice(&arp.emit());
            ethernet.emit(frame.prepend(ethernet.len()));
        } else {
            let to = if mac.is_some() { neighbour } else { neighbour.solicited_node() };
            let message = ndp::emit_solicitation(&source, &to, &neighbour, self.mac);
            self.emit_ndp(frame, mac.unwrap_or(Mac::for_multicast(to)), source, to, &message);
        }
    }

    /// Writes a whole packet of neighbour discovery into an empty frame.
    fn emit_ndp(&self, frame: &mut Frame, mac: Mac, src: Address, dst: Address, message: &[u8]) {
        let ethernet = self.ethernet(mac, 0);
        let ip = packet::Ip { hop_limit: ndp::HOP_LIMIT, ..packet::Ip::new(src, dst) };
        frame.append(message.len()).copy_from_slice(message);
        let headers = frame.prepend(packet::ip_headers_len(ethernet.vlan.is_some(), true));
        packet::emit_ip_headers(headers, &ethernet, &ip, icmp6::PROTOCOL, message.len());
    }
}

fn set_destination(frame: &mut Frame, mac: Mac) {
    frame[..6].copy_from_slice(&mac.0);
}

fn push(frame: Frame, tx: &mut TxBurst, metrics: &mut Metrics) {
    if tx.room() == 0 {
        return metrics.dropped(DropReason::TransmitFull);
    }
    tx.push(frame);
}

fn hash_of(mut hasher: SipHasher13, address: Address) -> u64 {
    let (a, b) = address.words();
    hasher.write_u64(a);
    hasher.write_u64(b);
    hasher.finish()
}

const ALL_NODES: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const WAITING_PER_NEIGHBOUR: usize = 4;
const LEARNED_MAX: usize = 64;

#[cfg(test)]
mod tests;
