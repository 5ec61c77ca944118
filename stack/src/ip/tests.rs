use super::*;
use crate::time::Duration;
use crate::wire::packet::{Packet, parse};
use alloc::vec;
use handfast_drivers::burst::RxBurst;
use handfast_drivers::driver::Driver;
use handfast_drivers::wire::{self, WireDriver, pair};

const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const NOW: Instant = Instant::from_micros(5_000_000);

/// Whether `ip` admits what was parsed.
fn admit(ip: &Ip, packet: &Packet) -> Result<(), DropReason> {
    match packet {
        Packet::Tcp(net, _) => ip.admit(Kind::Tcp, net),
        Packet::Icmp(net) => ip.admit(Kind::Icmp, net),
        Packet::Icmp6(net) => ip.admit(Kind::Icmp6, net),
        Packet::Arp(link, _) => ip.admit(Kind::Arp, &Net { link: *link, ..Net::default() }),
        Packet::Other(net, protocol) => ip.admit(Kind::Other(*protocol), net),
    }
}

fn a(text: &str) -> Address {
    text.parse().unwrap()
}

fn own(address: &str, prefix_len: u8) -> OwnAddress {
    OwnAddress { address: a(address), prefix_len }
}

pub(super) fn config(mac: Mac, host: u8) -> IpConfig {
    let v4 = OwnAddress { address: Address::v4([10, 0, 0, host]), prefix_len: 24 };
    let mut v6 = own("2001:db8::", 64);
    let mut octets = v6.address.octets();
    octets[15] = host;
    v6.address = Address::v6(octets);
    let addresses = vec![v4, v6, OwnAddress { address: mac.link_local(), prefix_len: 64 }];
    let routes = vec![Route::default_via(a("10.0.0.2")), Route::default_via(PEER.link_local())];
    IpConfig { addresses, routes, ..IpConfig::new(mac, 1500) }
}

/// One node, and the other end of its wire.
pub(super) struct Node {
    pub(super) ip: Ip,
    pub(super) pool: FramePool,
    pub(super) tx: TxBurst,
    pub(super) metrics: Metrics,
    device: WireDriver,
    far_end: WireDriver,
}

impl Node {
    pub(super) fn new(config: &IpConfig) -> Node {
        let (device, far_end) = pair(wire::Config { frames_per_queue: 512, ..wire::Config::default() });
        let (ip, pool) = (Ip::new(config), device.pool().clone());
        Node { ip, pool, tx: TxBurst::new(), metrics: Metrics::new(), device, far_end }
    }

    pub(super) fn us() -> Node {
        Node::new(&config(US, 1))
    }

    pub(super) fn peer() -> Node {
        Node::new(&config(PEER, 2))
    }

    pub(super) fn frame(&self, bytes: &[u8]) -> Frame {
        let mut frame = self.pool.alloc().unwrap();
        assert_eq!(frame.extend_from_slice(bytes), bytes.len());
        frame
    }

    /// Takes a frame through the pipeline's steps.
    pub(super) fn receive(&mut self, now: Instant, bytes: &[u8]) -> Option<crate::wire::icmp::IcmpError> {
        let frame = self.frame(bytes);
        let packet = match parse(&frame, true).and_then(|packet| admit(&self.ip, &packet).map(|()| packet)) {
            Ok(packet) => packet,
            Err(reason) => {
                self.metrics.dropped(reason);
                return None;
            }
        };
        let Node { ip, tx, metrics, .. } = self;
        match packet {
            Packet::Arp(link, _) => ip.on_arp(now, frame, &link, tx, metrics),
            Packet::Icmp(net) => return ip.on_icmp(frame, &net, tx, metrics),
            Packet::Icmp6(net) => return ip.on_icmp6(now, frame, &net, tx, metrics),
            Packet::Other(net, protocol) => ip.on_other(now, frame, &net, protocol, tx, metrics),
            Packet::Tcp(..) => {}
        }
        None
    }

    /// The frames that it sends, polled first.
    pub(super) fn sent(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.ip.poll(now, &self.pool, &mut self.tx, &mut self.metrics);
        self.drained()
    }

    pub(super) fn drained(&mut self) -> Vec<Vec<u8>> {
        let mut rx = RxBurst::new();
        while !self.tx.is_empty() {
            self.far_end.rx_burst(&mut rx);
            self.device.tx_burst(&mut self.tx);
        }
        self.far_end.rx_burst(&mut rx);
        rx.iter().map(|frame| frame.to_vec()).collect()
    }

    /// What it answers to one frame.
    fn answer(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(self.receive(NOW, bytes), None);
        self.drained()
    }

    fn next_hop(&mut self, dst: &str, waiter: u32) -> NextHop {
        self.ip.next_hop(NOW, a(dst), &mut NeighbourId::default(), Some(waiter))
    }

    fn woken(&mut self) -> Vec<u32> {
        self.ip.take_woken().collect()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.metrics.drops(reason)
    }
}

/// Delivers frames between two nodes until both are silent; says how many there were.
fn exchange(a: &mut Node, b: &mut Node) -> usize {
    let mut count = 0;
    loop {
        let (from_a, from_b) = (a.sent(NOW), b.sent(NOW));
        if from_a.is_empty() && from_b.is_empty() {
            return count;
        }
        count += from_a.len() + from_b.len();
        for frame in from_a {
            assert_eq!(b.receive(NOW, &frame), None);
        }
        for frame in from_b {
            assert_eq!(a.receive(NOW, &frame), None);
        }
    }
}

fn arp_frame(dst: Mac, arp: Arp) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    Ethernet { dst, src: PEER, vlan: None, ethertype: ETHERTYPE_ARP }.emit(&mut bytes);
    bytes[14..42].copy_from_slice(&arp.emit());
    bytes
}

fn arp(operation: Operation, sender: &str, target: &str) -> Arp {
    Arp { operation, sender_mac: PEER, sender: a(sender), target_mac: US, target: a(target) }
}

/// A packet from the peer to us.
pub(super) fn from_peer(src: &str, dst: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
    let ip = packet::Ip { hop_limit: 255, ..packet::Ip::new(a(src), a(dst)) };
    let mut bytes = vec![0; packet::ip_headers_len(false, !ip.src.is_v4())];
    let ethernet = Ethernet { dst: US, src: PEER, vlan: None, ethertype: 0 };
    packet::emit_ip_headers(&mut bytes, &ethernet, &ip, protocol, body.len());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn two_nodes_find_each_other() {
    for (dst, frames) in [("10.0.0.2", 2), ("2001:db8::2", 2), ("192.0.2.1", 2), ("2001:db8:1::1", 2)] {
        let (mut us, mut peer) = (Node::us(), Node::peer());
        assert_eq!(us.next_hop(dst, 9), NextHop::Pending, "{dst}");
        assert_eq!(exchange(&mut us, &mut peer), frames, "{dst}: a question and an answer");
        assert_eq!((us.next_hop(dst, 9), us.woken()), (NextHop::Ready(PEER), vec![9]));
        // Who was asked knows the asker.
        let asker = if dst.contains(':') { us.ip.source_for(a(dst)).unwrap() } else { a("10.0.0.1") };
        let asker = if asker == a("2001:db8::1") && dst == "2001:db8:1::1" { US.link_local() } else { asker };
        assert_eq!(peer.ip.next_hop(NOW, asker, &mut NeighbourId::default(), None), NextHop::Ready(US), "{dst}");
        assert_eq!((us.metrics.drops_total(), peer.metrics.drops_total()), (0, 0));
    }
}

#[test]
fn a_neighbour_that_is_not_there_fails_its_waiters() {
    let mut us = Node::us();
    assert_eq!(us.next_hop("10.0.0.9", 4), NextHop::Pending);
    let seconds = |s| NOW + Duration::from_secs(s);
    assert_eq!((0..5).map(|s| us.sent(seconds(s)).len()).sum::<usize>(), 3);
    assert_eq!((us.woken(), us.next_hop("10.0.0.9", 4)), (vec![4], NextHop::Unreachable));
    assert_eq!(us.ip.next_poll(), None);
}

#[test]
fn packets_wait_for_their_neighbour_and_go_out_in_order() {
    let (mut us, mut peer) = (Node::us(), Node::peer());
    for n in 0..6 {
        let frame = us.frame(&[n; 60]);
        us.ip.send(NOW, frame, a("10.0.0.2"), &mut us.tx, &mut us.metrics);
    }
    assert_eq!(us.drops(DropReason::Unresolved), 2, "four wait, the latest");
    let ask = us.sent(NOW);
    peer.receive(NOW, &ask[0]);
    us.receive(NOW, &peer.drained()[0]);
    let sent = us.sent(NOW);
    assert_eq!(sent.iter().map(|frame| frame[20]).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(sent.iter().all(|frame| frame[..6] == PEER.0));
    let frame = us.frame(&[7; 60]);
    us.ip.send(NOW, frame, a("10.0.0.2"), &mut us.tx, &mut us.metrics);
    assert_eq!(us.drained()[0][..7], [2, 0, 0, 0, 0, 2, 7], "and now nothing waits");
}

#[test]
fn packets_for_a_neighbour_that_is_not_there_are_dropped_and_counted() {
    let mut us = Node::us();
    let frame = us.frame(&[1; 60]);
    us.ip.send(NOW, frame, a("10.0.0.9"), &mut us.tx, &mut us.metrics);
    for s in 0..4 {
        us.sent(NOW + Duration::from_secs(s));
    }
    let frame = us.frame(&[1; 60]);
    us.ip.send(NOW, frame, a("224.0.0.1"), &mut us.tx, &mut us.metrics);
    assert_eq!((us.drops(DropReason::Unresolved), us.drops(DropReason::NoRoute)), (1, 1));
    assert!(us.ip.waiting.is_empty());
}

#[test]
fn no_more_packets_wait_than_may() {
    let mut us = Node::new(&IpConfig { waiting_packets_max: 2, ..config(US, 1) });
    for n in 10..15 {
        let frame = us.frame(&[n; 60]);
        us.ip.send(NOW, frame, Address::v4([10, 0, 0, n]), &mut us.tx, &mut us.metrics);
    }
    assert_eq!((us.ip.waiting.len(), us.drops(DropReason::Unresolved)), (2, 3));
}

#[test]
fn an_arp_request_is_answered_in_its_own_frame() {
    let mut us = Node::us();
    let free = us.pool.free();
    let answer = us.answer(&arp_frame(Mac::BROADCAST, arp(Operation::Request, "10.0.0.2", "10.0.0.1")));
    let Ok(Packet::Arp(link, reply)) = parse(&answer[0], true) else { panic!() };
    assert_eq!((link.src_mac, link.dst_mac), (US, PEER));
    assert_eq!((reply.operation, reply.sender_mac, reply.sender), (Operation::Reply, US, a("10.0.0.1")));
    assert_eq!((reply.target_mac, reply.target), (PEER, a("10.0.0.2")));
    assert_eq!(us.pool.free(), free);
    assert_eq!(us.next_hop("10.0.0.2", 0), NextHop::Ready(PEER), "and the asker is known");
}

#[test]
fn arp_that_is_not_ours_to_answer_has_its_reason() {
    let mut us = Node::us();
    for (packet, reason) in [
        (arp(Operation::Request, "10.0.0.2", "10.0.0.3"), DropReason::ArpNotOurs),
        (arp(Operation::Request, "10.0.0.2", "10.0.0.2"), DropReason::ArpNotOurs),
        (arp(Operation::Reply, "10.0.0.1", "10.0.0.1"), DropReason::BadSource),
    ] {
        assert_eq!(us.answer(&arp_frame(Mac::BROADCAST, packet)), Vec::<Vec<u8>>::new());
        assert_eq!(us.drops(reason), 1);
        us.metrics = Metrics::new();
    }
    assert_eq!(us.ip.neighbours.len(), 0, "a gratuitous ARP makes nobody known");
}

#[test]
fn a_probe_for_our_address_is_defended_and_its_sender_not_learned() {
    let mut us = Node::us();
    for sender in ["0.0.0.0", "192.0.2.1"] {
        assert_eq!(us.answer(&arp_frame(Mac::BROADCAST, arp(Operation::Request, sender, "10.0.0.1"))).len(), 1);
        assert_eq!(us.ip.neighbours.len(), 0);
    }
}

#[test]
fn a_gratuitous_arp_moves_a_known_neighbour() {
    let mut us = Node::us();
    us.answer(&arp_frame(Mac::BROADCAST, arp(Operation::Request, "10.0.0.2", "10.0.0.1")));
    let moved = Mac([2, 0, 0, 0, 0, 99]);
    let announcement = Arp { sender_mac: moved, ..arp(Operation::Request, "10.0.0.2", "10.0.0.2") };
    us.answer(&arp_frame(Mac::BROADCAST, announcement));
    assert_eq!(us.next_hop("10.0.0.2", 0), NextHop::Ready(moved));
}

#[test]
fn what_one_core_hears_the_others_learn() {
    let (mut hears, mut asks) = (Node::us(), Node::us());
    assert_eq!(asks.next_hop("10.0.0.2", 3), NextHop::Pending);
    hears.answer(&arp_frame(US, arp(Operation::Reply, "10.0.0.2", "10.0.0.1")));
    let learned: Vec<_> = hears.ip.take_learned().collect();
    assert_eq!(learned, [Learned { address: a("10.0.0.2"), mac: PEER, answered: true }]);
    asks.ip.learn(NOW, learned[0]);
    assert_eq!((asks.woken(), asks.next_hop("10.0.0.2", 3)), (vec![3], NextHop::Ready(PEER)));
    assert_eq!(asks.sent(NOW).len(), 0);
    assert_eq!(asks.ip.take_learned().count(), 0, "and does not tell it on");
}

#[test]
fn a_duplicate_address_probe_is_answered_to_all_nodes() {
    let mut us = Node::us();
    let (any, target) = (Address::UNSPECIFIED_V6, a("2001:db8::1"));
    let group = target.solicited_node();
    let mut message = ndp::emit_solicitation(&any, &group, &target, PEER)[..24].to_vec();
    message[2..4].fill(0);
    let sum = crate::wire::checksum::pseudo_header(&any, &group, 58, 24);
    let sum = crate::wire::checksum::finish(crate::wire::checksum::sum(sum, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut probe = from_peer("::", "ff02::1:ff00:1", 58, &message);
    probe[..6].copy_from_slice(&Mac::for_multicast(group).0);
    let answer = us.answer(&probe);
    let Ok(Packet::Icmp6(net)) = parse(&answer[0], true) else { panic!() };
    assert_eq!((net.src, net.dst, net.link.dst_mac), (target, ALL_NODES, Mac::for_multicast(ALL_NODES)));
    let Ok(icmp6::Icmp6::Ndp(Ndp::Advertisement { solicited: false, target_mac, .. })) =
        icmp6::Icmp6::parse(&net.src, &net.dst, net.hop_limit, net.l4(&answer[0]))
    else {
        panic!()
    };
    assert_eq!((target_mac, us.ip.neighbours.len()), (Some(US), 0));
}

#[test]
fn admission_gives_its_reasons() {
    let mut us = Node::us();
    let segment = [0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0];
    let check = |change: &dyn Fn(&mut Vec<u8>), src: &str, dst: &str, expected: Result<(), DropReason>| {
        let mut bytes = from_peer(src, dst, 6, &segment);
        change(&mut bytes);
        let packet = parse(&bytes, false).unwrap();
        assert_eq!(admit(&us.ip, &packet), expected, "{src} {dst}");
    };
    let as_is = |_: &mut Vec<u8>| {};
    check(&as_is, "10.0.0.2", "10.0.0.1", Ok(()));
    check(&as_is, "2001:db8::2", "2001:db8::1", Ok(()));
    check(&as_is, "10.0.0.2", "10.0.0.3", Err(DropReason::NotOurAddress));
    check(&as_is, "2001:db8::2", "ff02::1", Err(DropReason::NotOurAddress));
    check(&as_is, "10.0.0.1", "10.0.0.1", Err(DropReason::BadSource));
    check(&|bytes| bytes[5] = 7, "10.0.0.2", "10.0.0.1", Err(DropReason::NotOurMac));
    check(&|bytes| bytes[..6].fill(0xff), "10.0.0.2", "10.0.0.1", Err(DropReason::NotOurMac));
    let tag = |bytes: &mut Vec<u8>| drop(bytes.splice(12..12, [0x81, 0, 0, 5]));
    check(&tag, "10.0.0.2", "10.0.0.1", Err(DropReason::Vlan));
    us = Node::new(&IpConfig { vlan: Some(5), ..config(US, 1) });
    let mut bytes = from_peer("10.0.0.2", "10.0.0.1", 6, &segment);
    assert_eq!(admit(&us.ip, &parse(&bytes, false).unwrap()), Err(DropReason::Vlan));
    tag(&mut bytes);
    assert_eq!(admit(&us.ip, &parse(&bytes, false).unwrap()), Ok(()));
}

#[test]
fn on_a_vlan_every_frame_is_tagged() {
    let vlan = |mac, host| Node::new(&IpConfig { vlan: Some(5), ..config(mac, host) });
    for dst in ["10.0.0.2", "2001:db8::2"] {
        let (mut us, mut peer) = (vlan(US, 1), vlan(PEER, 2));
        us.next_hop(dst, 1);
        assert_eq!(exchange(&mut us, &mut peer), 2);
        assert_eq!(us.next_hop(dst, 1), NextHop::Ready(PEER));
        assert_eq!((us.metrics.drops_total(), peer.metrics.drops_total()), (0, 0));
    }
}

#[test]
fn without_a_frame_or_room_the_question_is_asked_later() {
    let mut us = Node::us();
    us.next_hop("10.0.0.9", 1);
    let taken: Vec<Frame> = core::iter::from_fn(|| us.pool.alloc()).collect();
    assert_eq!((us.sent(NOW).len(), us.drops(DropReason::NoFrames)), (0, 1));
    drop(taken);
    assert_eq!(us.sent(NOW + Duration::from_millis(1)).len(), 1);
}

#[test]
fn a_path_mtu_is_lowered_on_request() {
    let mut us = Node::us();
    assert_eq!(us.ip.lower_path_mtu(NOW, a("192.0.2.1"), 1400, &mut us.metrics), Some(1400));
    assert_eq!((us.ip.path_mtu(NOW, a("192.0.2.1")), us.ip.path_mtu(NOW, a("192.0.2.2"))), (1400, 1500));
    assert_eq!(us.metrics.get(Counter::PathMtuLowered), 1);
}
