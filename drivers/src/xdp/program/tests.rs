use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions};
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::*;

// ---- verdicts ------------------------------------------------------------------------------------------------------

const OWN4: [u8; 4] = [192, 0, 2, 1];
const SHARED4: [u8; 4] = [192, 0, 2, 2];
const OTHER4: [u8; 4] = [192, 0, 2, 3];
const OWN6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb, 0xcc, 1];
const SHARED6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb, 0xcc, 2];
const OTHER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb, 0xcc, 3];
const SOLICITED_NODE: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xbb, 0xcc, 1];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OPEN: u16 = 443;
const CLOSED: u16 = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NotOurs,
    Neighbour,
    Own,
    Shared,
    NoSocket,
}
use Verdict::{Neighbour, NoSocket, NotOurs, Own, Shared};

fn verdicts() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let syn = || tcp(CLOSED, CLOSED);
    let wanted = || tcp(CLOSED, OPEN);
    let sent = || tcp(OPEN, CLOSED);
    let mut options4 = ipv4(SHARED4, 6, &[&[1; 12], &wanted()[..]].concat());
    options4[14] = 0x48;
    let patch = |mut packet: Vec<u8>, at: usize, byte: u8| {
        packet[at] = byte;
        packet
    };
    let cut = |mut packet: Vec<u8>, len: usize| {
        packet.truncate(len);
        packet
    };
    let quote4 = |source, protocol, payload: &[u8]| {
        let mut quoted = ipv4(OTHER4, protocol, payload).split_off(14);
        quoted[12..16].copy_from_slice(source);
        quoted
    };
    let quote6 = |source: &[u8], next, payload: &[u8]| {
        let mut quoted = ipv6(OTHER6, next, payload).split_off(14);
        quoted[8..24].copy_from_slice(source);
        quoted
    };
    vec![
        ("TCP to an own address", ipv4(OWN4, 6, &syn()), Own),
        ("TCP to another address", ipv4(OTHER4, 6, &syn()), NotOurs),
        ("IPv4 broadcast", ipv4([255; 4], 17, &[0; 8]), NotOurs),
        ("UDP to an own address", ipv4(OWN4, 17, &[0; 8]), Own),
        ("an unknown protocol to an own address", ipv4(OWN4, 253, &[]), Own),
        ("an ICMP echo request to an own address", ipv4(OWN4, 1, &icmp(8, &[])), Own),
        ("a first fragment to an own address", patch(ipv4(OWN4, 6, &syn()), 20, 0x20), Own),
        ("a later fragment to an own address", patch(ipv4(OWN4, 6, &syn()), 21, 9), Own),
        ("an own address behind an impossible header length", patch(ipv4(OWN4, 6, &syn()), 14, 0x44), Own),
        ("an own address behind version 6 in IPv4", patch(ipv4(OWN4, 6, &syn()), 14, 0x65), Own),
        ("an IPv4 header cut short", cut(ipv4(OWN4, 6, &syn()), 33), NotOurs),
        ("nothing after Ethernet", ethernet(0x0800, &[]), NotOurs),
        ("an unknown Ethernet type", ethernet(0x88cc, &[0; 46]), NotOurs),
        ("a VLAN tag, then an own address", vlan(&ipv4(OWN4, 6, &syn())), Own),
        ("a VLAN tag, then another address", vlan(&ipv4(OTHER4, 6, &syn())), NotOurs),
        ("two VLAN tags", vlan(&vlan(&ipv4(OWN4, 6, &syn()))), NotOurs),
        ("a VLAN tag cut short", cut(vlan(&ipv4(OWN4, 6, &syn())), 16), NotOurs),
        ("an ARP request for an own address", arp(1, OTHER4, OWN4), Neighbour),
        ("an ARP reply to an own address", arp(2, OTHER4, OWN4), Neighbour),
        ("a VLAN tag, then ARP for an own address", vlan(&arp(1, OTHER4, OWN4)), Neighbour),
        ("an ARP request for a shared address", arp(1, OTHER4, SHARED4), NotOurs),
        ("an ARP request for another address", arp(1, OWN4, OTHER4), NotOurs),
        ("ARP cut short", cut(arp(1, OTHER4, OWN4), 41), NotOurs),
        ("ARP with addresses of other lengths", patch(arp(1, OTHER4, OWN4), 19, 8), NotOurs),
        ("an open port of a shared address", ipv4(SHARED4, 6, &wanted()), Shared),
        ("an open port of a shared address, by VLAN", vlan(&ipv4(SHARED4, 6, &wanted())), Shared),
        ("an open port behind IPv4 options", options4, Shared),
        ("a closed port of a shared address", ipv4(SHARED4, 6, &syn()), NotOurs),
        ("an open port's number as the source port", ipv4(SHARED4, 6, &sent()), NotOurs),
        ("UDP to an open TCP port's number", ipv4(SHARED4, 17, &wanted()), NotOurs),
        ("a first fragment to a shared address", patch(ipv4(SHARED4, 6, &wanted()), 20, 0x20), NotOurs),
        ("a later fragment to a shared address", patch(ipv4(SHARED4, 6, &wanted()), 21, 9), NotOurs),
        ("don't fragment to a shared address", patch(ipv4(SHARED4, 6, &wanted()), 20, 0x40), Shared),
        ("a shared address behind an impossible length", patch(ipv4(SHARED4, 6, &wanted()), 14, 0x44), NotOurs),
        ("a shared address behind version 6 in IPv4", patch(ipv4(SHARED4, 6, &wanted()), 14, 0x65), NotOurs),
        ("a header longer than its packet", patch(cut(ipv4(SHARED4, 6, &wanted()), 54), 14, 0x4f), NotOurs),
        ("TCP ports cut short", cut(ipv4(SHARED4, 6, &wanted()), 37), NotOurs),
        ("an echo request to a shared address", ipv4(SHARED4, 1, &icmp(8, &quote4(&SHARED4, 6, &sent()))), NotOurs),
        ("unreachable quoting our segment", ipv4(SHARED4, 1, &icmp(3, &quote4(&SHARED4, 6, &sent()))), Shared),
        ("time exceeded quoting our segment", ipv4(SHARED4, 1, &icmp(11, &quote4(&SHARED4, 6, &sent()))), Shared),
        ("unreachable quoting the kernel's", ipv4(SHARED4, 1, &icmp(3, &quote4(&SHARED4, 6, &wanted()))), NotOurs),
        ("unreachable quoting UDP", ipv4(SHARED4, 1, &icmp(3, &quote4(&SHARED4, 17, &sent()))), NotOurs),
        ("unreachable quoting a stranger", ipv4(SHARED4, 1, &icmp(3, &quote4(&OTHER4, 6, &sent()))), NotOurs),
        ("unreachable quoting ports only", ipv4(SHARED4, 1, &icmp(3, &quote4(&SHARED4, 6, &sent()[..4]))), Shared),
        ("a redirect quoting our segment", ipv4(SHARED4, 1, &icmp(5, &quote4(&SHARED4, 6, &sent()))), NotOurs),
        (
            "unreachable quoting our segment's first fragment",
            ipv4(SHARED4, 1, &icmp(3, &patch(quote4(&SHARED4, 6, &sent()), 6, 0x20))),
            Shared,
        ),
        (
            "unreachable quoting a later fragment",
            ipv4(SHARED4, 1, &icmp(3, &patch(quote4(&SHARED4, 6, &sent()), 7, 1))),
            NotOurs,
        ),
        (
            "unreachable quoting our segment behind options",
            ipv4(SHARED4, 1, &icmp(3, &patch(quote4(&SHARED4, 6, &[&[1; 4], &sent()[..]].concat()), 0, 0x46))),
            Shared,
        ),
        (
            "unreachable quoting half of the ports",
            ipv4(SHARED4, 1, &icmp(3, &quote4(&SHARED4, 6, &sent()[..3]))),
            NotOurs,
        ),
        ("unreachable to an own address", ipv4(OWN4, 1, &icmp(3, &[])), Own),
        ("TCP to an own IPv6 address", ipv6(OWN6, 6, &syn()), Own),
        ("TCP to another IPv6 address", ipv6(OTHER6, 6, &syn()), NotOurs),
        ("UDP to an own IPv6 address", ipv6(OWN6, 17, &[0; 8]), Own),
        ("an echo request to an own IPv6 address", ipv6(OWN6, 58, &icmp(128, &[])), Own),
        ("a fragment to an own IPv6 address", ipv6(OWN6, 44, &[0; 8]), Own),
        ("extension headers without end to an own address", ipv6(OWN6, 0, &[0; 80]), Own),
        ("an IPv6 header cut short", cut(ipv6(OWN6, 6, &syn()), 53), NotOurs),
        ("a solicitation of an own address, multicast", ipv6(SOLICITED_NODE, 58, &icmp(135, &OWN6)), Neighbour),
        ("the same behind a hop-by-hop header", ipv6(SOLICITED_NODE, 0, &extended(58, &icmp(135, &OWN6))), Neighbour),
        ("the same by VLAN", vlan(&ipv6(SOLICITED_NODE, 58, &icmp(135, &OWN6))), Neighbour),
        ("a solicitation of an own address, unicast", ipv6(OWN6, 58, &icmp(135, &OWN6)), Own),
        ("a solicitation of another address, same group", ipv6(SOLICITED_NODE, 58, &icmp(135, &OTHER6)), NotOurs),
        ("a solicitation of a shared address", ipv6(SOLICITED_NODE, 58, &icmp(135, &SHARED6)), NotOurs),
        ("a solicitation cut short", ipv6(SOLICITED_NODE, 58, &icmp(135, &OWN6[..15])), NotOurs),
        ("an advertisement to an own address", ipv6(OWN6, 58, &icmp(136, &OTHER6)), Own),
        ("an advertisement of an own address to all", ipv6(ALL_NODES, 58, &icmp(136, &OWN6)), Neighbour),
        ("an advertisement of another address to all", ipv6(ALL_NODES, 58, &icmp(136, &OTHER6)), NotOurs),
        ("a router advertisement to all", ipv6(ALL_NODES, 58, &icmp(134, &OWN6)), NotOurs),
        ("an echo request to all", ipv6(ALL_NODES, 58, &icmp(128, &OWN6)), NotOurs),
        ("an open port of a shared IPv6 address", ipv6(SHARED6, 6, &wanted()), Shared),
        ("a closed port of a shared IPv6 address", ipv6(SHARED6, 6, &syn()), NotOurs),
        ("an open port behind one extension", ipv6(SHARED6, 60, &extended(6, &wanted())), Shared),
        ("an open port behind four extensions", ipv6(SHARED6, 0, &nested(4, &wanted())), Shared),
        ("an open port behind five extensions", ipv6(SHARED6, 0, &nested(5, &wanted())), NotOurs),
        ("a fragment to a shared IPv6 address", ipv6(SHARED6, 44, &extended(6, &wanted())), NotOurs),
        ("an extension longer than its packet", ipv6(SHARED6, 0, &[6, 255, 0, 0, 0, 0, 0, 0]), NotOurs),
        ("an echo request to a shared IPv6 address", ipv6(SHARED6, 58, &icmp(128, &[0; 64])), NotOurs),
        ("too big quoting our segment", ipv6(SHARED6, 58, &icmp(2, &quote6(&SHARED6, 6, &sent()))), Shared),
        (
            "too big quoting it behind an extension",
            { ipv6(SHARED6, 58, &icmp(2, &quote6(&SHARED6, 0, &extended(6, &sent())))) },
            Shared,
        ),
        ("a type no error has", ipv6(SHARED6, 58, &icmp(5, &quote6(&SHARED6, 6, &sent()))), NotOurs),
        ("too big quoting the kernel's", ipv6(SHARED6, 58, &icmp(2, &quote6(&SHARED6, 6, &wanted()))), NotOurs),
        ("too big quoting a stranger", ipv6(SHARED6, 58, &icmp(2, &quote6(&OTHER6, 6, &sent()))), NotOurs),
        ("a solicitation of a shared address, unicast", ipv6(SHARED6, 58, &icmp(135, &SHARED6)), NotOurs),
    ]
}

#[test]
fn every_packet_of_the_table_gets_its_verdict_with_and_without_multi_buffer() {
    for program in [FRAGS, LINEAR] {
        let Some(bench) = Bench::new(program) else { return };
        for (what, packet, verdict) in verdicts() {
            assert_eq!(bench.verdict(&packet), verdict, "{what} ({program})");
        }
    }
}

#[test]
fn what_is_ours_passes_to_the_kernel_while_its_queue_has_no_socket() {
    let Some(mut bench) = Bench::new(FRAGS) else { return };
    bench.socket = None; // closed: the kernel takes it out of the map
    for (what, packet, verdict) in verdicts() {
        let expected = if verdict == NotOurs { NotOurs } else { NoSocket };
        assert_eq!(bench.verdict(&packet), expected, "{what}");
    }
}

#[test]
fn an_opened_port_counts_from_the_next_packet() {
    let Some(bench) = Bench::new(FRAGS) else { return };
    for port in [0, 1, 63, 64, CLOSED, 8080, 65_535] {
        let packet = ipv4(SHARED4, 6, &tcp(9, port));
        assert_eq!(bench.verdict(&packet), NotOurs, "{port} before");
        bench.steering.open_port(bench.slot4, port);
        assert_eq!(bench.verdict(&packet), Shared, "{port} open");
        assert_eq!(bench.verdict(&ipv6(SHARED6, 6, &tcp(9, port))), NotOurs, "{port} of the other address");
        bench.steering.close_port(bench.slot4, port);
        assert_eq!(bench.verdict(&packet), NotOurs, "{port} closed again");
    }
}

#[test]
fn a_removed_address_is_the_kernels_and_its_slot_comes_back_without_ports() {
    let Some(mut bench) = Bench::new(FRAGS) else { return };
    let segment = ipv4(SHARED4, 6, &tcp(9, OPEN));
    let same = bench.steering.add_address(SHARED4.into(), Ownership::Shared).unwrap();
    assert_eq!((same, bench.verdict(&segment)), (bench.slot4, Shared), "claiming twice keeps slot and ports");
    bench.steering.remove_address(SHARED4.into()).unwrap();
    assert_eq!(bench.verdict(&segment), NotOurs);
    let slot = bench.steering.add_address(SHARED4.into(), Ownership::Shared).unwrap();
    assert_eq!((slot, bench.verdict(&segment)), (bench.slot4, NotOurs));
    bench.steering.add_address(SHARED4.into(), Ownership::Own).unwrap();
    assert_eq!(bench.verdict(&segment), Own);
    assert!(matches!(bench.steering.remove_address(OTHER4.into()), Err(SteeringError::AddressUnknown { .. })));
}

#[test]
fn what_is_sent_to_a_range_is_ours_and_its_neighbours_are_not() {
    for program in [FRAGS, LINEAR] {
        let Some(mut bench) = Bench::new(program) else { return };
        // From an odd address to an odd one, across a byte; and of IPv6.
        bench.steering.add_range([10, 1, 2, 253].into(), 70_000).unwrap();
        let v6 = |last: u32| {
            let [a, b, c, d] = last.to_be_bytes();
            [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, a, b, c, d]
        };
        bench.steering.add_range(v6(5).into(), 1000).unwrap();
        let v4 = |index: u32| Ipv4Addr::from(Ipv4Addr::new(10, 1, 2, 253).to_bits().wrapping_add(index)).octets();
        for (address, verdict) in [(v4(u32::MAX), NotOurs), (v4(0), Own), (v4(69_999), Own), (v4(70_000), NotOurs)] {
            assert_eq!(bench.verdict(&ipv4(address, 6, &tcp(9, 9))), verdict, "{address:?}");
            let asked = if verdict == Own { Neighbour } else { NotOurs };
            assert_eq!(bench.verdict(&arp(1, OTHER4, address)), asked, "{address:?}");
        }
        for (last, verdict) in [(4, NotOurs), (5, Own), (1004, Own), (1005, NotOurs)] {
            assert_eq!(bench.verdict(&ipv6(v6(last), 6, &tcp(9, 9))), verdict, "{last}");
        }
        // All else is as it was.
        assert_eq!(bench.verdict(&ipv4(OTHER4, 6, &tcp(9, 9))), NotOurs);
        assert_eq!(bench.verdict(&ipv4(SHARED4, 6, &tcp(9, OPEN))), Shared);
    }
}

#[test]
fn a_range_that_cannot_be_is_an_error() {
    let Some(mut bench) = Bench::new(FRAGS) else { return };
    for (first, count) in [("10.0.0.1", 0), ("223.255.255.255", 2), ("255.255.255.254", 3), ("::ffff:10.0.0.1", 2)] {
        let claimed = bench.steering.add_range(first.parse().unwrap(), count);
        assert!(matches!(claimed, Err(SteeringError::RangeUnusable { .. })), "{first} {count}");
    }
}

proptest! {
    #[test]
    fn prefixes_cover_a_range_and_nothing_else(first in any::<u32>(), count in 0..100_000u32) {
        let count = count.min(u32::MAX - first);
        let mut next = u128::from(first);
        let mut number = 0;
        for (address, len) in prefixes(next, count) {
            let size = 1u128 << (128 - len);
            prop_assert_eq!((address, address % size), (next, 0));
            next += size;
            number += 1;
        }
        prop_assert_eq!(next, u128::from(first) + u128::from(count));
        prop_assert!(number <= 64);
    }
}

#[test]
fn limits_are_errors() {
    let Some(mut bench) = Bench::new(FRAGS) else { return };
    for unusable in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:192.0.2.1"] {
        let claimed = bench.steering.add_address(unusable.parse().unwrap(), Ownership::Own);
        assert!(matches!(claimed, Err(SteeringError::AddressUnusable { .. })), "{unusable}");
    }
    for n in 4..ADDRESSES_MAX as u16 {
        let [high, low] = n.to_be_bytes();
        bench.steering.add_address([10, 0, high, low].into(), Ownership::Own).unwrap();
    }
    let claimed = bench.steering.add_address([10, 1, 0, 0].into(), Ownership::Own);
    assert!(matches!(claimed, Err(SteeringError::TooManyAddresses)));
    bench.steering.open_port(Slot(ADDRESSES_MAX as u16 - 1), 65_535);

    let xsk = af_xdp_socket();
    bench.steering.register_socket(QUEUES_MAX - 1, xsk.as_fd()).unwrap();
    let beyond = bench.steering.register_socket(QUEUES_MAX, xsk.as_fd());
    assert!(matches!(beyond, Err(SteeringError::QueueOutOfRange { queue: QUEUES_MAX })));
    let udp = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
    assert!(matches!(bench.steering.register_socket(0, udp.as_fd()), Err(SteeringError::System { .. })));
}

#[test]
fn mangled_packets_get_the_verdict_of_a_simple_parser() {
    let Some(bench) = Bench::new(FRAGS) else { return };
    let packets: Vec<_> = verdicts().into_iter().map(|(_, packet, _)| packet).collect();
    let mangled = (
        prop::sample::select(packets),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        proptest::option::of(any::<prop::sample::Index>()),
    );
    let config = ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((mut packet, bytes, cut) in mangled)| {
        for (at, byte) in bytes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        let len = cut.map_or(packet.len(), |cut| 14 + cut.index(packet.len() - 13));
        packet.truncate(len);
        prop_assert_eq!(bench.verdict(&packet), expected(&packet).unwrap_or(NotOurs), "{:02x?}", packet);
    });
}

/// The rules at the head of `steer.bpf.c`, over slices; `None` where a packet is too short for its next step.
fn expected(packet: &[u8]) -> Option<Verdict> {
    let be16 = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (mut kind, mut at) = (be16(packet, 12)?, 14);
    if kind == 0x8100 {
        (kind, at) = (be16(packet, 16)?, 18);
    }
    let body = &packet[at..];
    let own_neighbour = |own| if own { Neighbour } else { NotOurs };
    let listed = |bytes: &[u8], at: usize| {
        let whole = bytes.len() >= 4;
        Some(if whole && be16(bytes, at)? == OPEN { Shared } else { NotOurs })
    };
    match kind {
        0x0806 => {
            let target = body.get(24..28)?;
            Some(own_neighbour(body[2..6] == [8, 0, 6, 4] && target == OWN4))
        }
        0x0800 => {
            let header_len = |header: &[u8]| match usize::from(header[0] & 15) * 4 {
                len @ 20.. if header[0] >> 4 == 4 => Some(len),
                _ => None,
            };
            let header = body.get(..20)?;
            if header[16..] == OWN4 {
                return Some(Own);
            }
            let payload = body.get(header_len(header)?..)?;
            if header[16..] != SHARED4 || be16(header, 6)? & 0x3fff != 0 {
                return None;
            }
            match header[9] {
                6 => listed(payload, 2),
                1 => {
                    let quoted = payload.get(8..28)?;
                    let ours = quoted[12..16] == SHARED4 && quoted[9] == 6 && be16(quoted, 6)? & 0x1fff == 0;
                    let ports = payload[8..].get(header_len(quoted)?..)?;
                    if ours && [3, 11, 12].contains(&payload[0]) { listed(ports, 0) } else { None }
                }
                _ => None,
            }
        }
        0x86dd => {
            let upper = |packet: &[u8]| {
                let (mut next, mut at) = (packet[6], 40);
                for _ in 0..4 {
                    if [0, 43, 60].contains(&next) {
                        let extension = packet.get(at..at + 2)?;
                        (next, at) = (extension[0], at + (usize::from(extension[1]) + 1) * 8);
                    }
                }
                Some((next, packet.get(at..)?.to_vec()))
            };
            let header = body.get(..40)?;
            if header[24..] == OWN6 {
                return Some(Own);
            }
            let (next, payload) = upper(body)?;
            if header[24] == 0xff {
                let target = payload.get(8..24)?;
                return Some(own_neighbour(next == 58 && [135, 136].contains(&payload[0]) && target == OWN6));
            }
            match next {
                _ if header[24..] != SHARED6 => None,
                6 => listed(&payload, 2),
                58 => {
                    let quoted = payload.get(8..)?;
                    let ours = quoted.get(..40)?[8..24] == SHARED6 && (1..=4).contains(&payload[0]);
                    match upper(quoted)? {
                        (6, ports) if ours => listed(&ports, 0),
                        _ => None,
                    }
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The program with two own and two shared addresses, [`OPEN`] open on the shared ones, and a socket on queue 0.
struct Bench {
    steering: Steering,
    slot4: Slot,
    socket: Option<OwnedFd>,
}

impl Bench {
    fn new(program: &'static str) -> Option<Self> {
        if !root() {
            return None;
        }
        let mut steering = Steering::load_first_of(&[program]).unwrap();
        steering.add_address(OWN4.into(), Ownership::Own).unwrap();
        steering.add_address(OWN6.into(), Ownership::Own).unwrap();
        let slot4 = steering.add_address(SHARED4.into(), Ownership::Shared).unwrap();
        let slot6 = steering.add_address(SHARED6.into(), Ownership::Shared).unwrap();
        steering.open_port(slot4, OPEN);
        steering.open_port(slot6, OPEN);
        let socket = af_xdp_socket();
        steering.register_socket(0, socket.as_fd()).unwrap();
        Some(Self { steering, slot4, socket: Some(socket) })
    }

    /// Runs the program over the packet. Its action and its counters must agree.
    fn verdict(&self, packet: &[u8]) -> Verdict {
        const XDP_PASS: u32 = 2;
        const XDP_REDIRECT: u32 = 4;
        let before = self.steering.counters().unwrap();
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::default() };
        let action = self.steering.xdp().test_run(options).unwrap().return_value;
        let after = self.steering.counters().unwrap();
        let risen = [
            after.not_ours - before.not_ours,
            after.neighbour - before.neighbour,
            after.own_address - before.own_address,
            after.shared_address - before.shared_address,
            after.no_socket - before.no_socket,
        ];
        assert_eq!(risen.iter().sum::<u64>(), 1, "{risen:?}");
        let verdict = [NotOurs, Neighbour, Own, Shared, NoSocket][risen.iter().position(|&n| n == 1).unwrap()];
        let passed = matches!(verdict, NotOurs | NoSocket);
        assert_eq!(action, if passed { XDP_PASS } else { XDP_REDIRECT });
        verdict
    }
}

fn af_xdp_socket() -> OwnedFd {
    socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap()
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12], &kind.to_be_bytes()[..], payload].concat()
}

fn vlan(packet: &[u8]) -> Vec<u8> {
    ethernet(0x8100, &[&[0, 7], &packet[12..]].concat())
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    ethernet(0x0806, &[&head[..], &[2; 6], &sender, &[0; 6], &target].concat())
}

fn ipv4(destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let head = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    ethernet(0x0800, &[&head[..], &[198, 51, 100, 1], &destination, payload].concat())
}

fn ipv6(destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    ethernet(0x86dd, &[&[0x60, 0, 0, 0, high, low, next, 255][..], &source, &destination, payload].concat())
}

/// An extension header of 16 bytes before the payload.
fn extended(next: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 1][..], &[0; 14], payload].concat()
}

fn nested(extensions: usize, payload: &[u8]) -> Vec<u8> {
    (1..extensions).fold(extended(6, payload), |inner, _| extended(60, &inner))
}

fn tcp(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0; 8], &[0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

/// Type, code, checksum, four more bytes; then what the type says.
fn icmp(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], rest].concat()
}

// ---- attachment ----------------------------------------------------------------------------------------------------

#[test]
fn it_attaches_by_a_link_in_each_mode_steers_and_leaves_nothing_behind() {
    let Some(net) = Net::new() else { return };
    for (mode, shown) in [(Mode::Native, " xdp "), (Mode::Generic, " xdpgeneric ")] {
        let mut steering = net.inside(|| {
            let mut steering = Steering::load().unwrap();
            let attached = steering.attach("ours", Some(mode)).unwrap();
            assert_eq!((attached.mode, attached.native_refused.is_none()), (mode, true));
            steering
        });
        assert!(net.ip("-d link show ours").contains(shown), "{}", net.ip("-d link show ours"));
        // Now from outside the namespace: claim the address, let its neighbour ask for it.
        steering.add_address([10, 9, 0, 1].into(), Ownership::Own).unwrap();
        let asked = Instant::now();
        while steering.counters().unwrap().no_socket == 0 {
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", steering.counters());
            net.peer_asks();
            sleep(Duration::from_millis(20));
        }
        drop(steering);
        assert!(!net.ip("-d link show ours").contains("xdp"), "{}", net.ip("-d link show ours"));
    }
}

#[test]
fn without_a_wish_it_is_native_or_says_why_not() {
    let Some(net) = Net::new() else { return };
    net.inside(|| {
        let mut steering = Steering::load().unwrap();
        let native = steering.attach("ours", None).unwrap();
        assert_eq!((native.mode, native.to_string()), (Mode::Native, "ours: XDP in native mode".into()));
        let generic = steering.attach("lo", None).unwrap();
        let because = generic.native_refused.as_ref().and_then(io::Error::raw_os_error);
        assert_eq!((generic.mode, because), (Mode::Generic, Some(libc::EOPNOTSUPP)));
        assert!(generic.to_string().contains("because the driver refuses native mode"), "{generic}");
        let refused = steering.attach("lo", Some(Mode::Native)).unwrap_err();
        assert!(matches!(refused, SteeringError::Refused { mode: Mode::Native, .. }), "{refused}");
        assert!(steering.attached().is_none());
    });
    assert!(!net.ip("-d link").contains("xdp"));
}

#[test]
fn another_program_is_named_and_stays() {
    let Some(net) = Net::new() else { return };
    for mode in [Mode::Native, Mode::Generic] {
        net.inside(|| {
            let mut first = Steering::load().unwrap();
            first.attach("ours", Some(mode)).unwrap();
            let first_id = first.xdp().info().unwrap().id();
            for second_mode in [None, Some(Mode::Native), Some(Mode::Generic)] {
                let mut second = Steering::load().unwrap();
                match second.attach("ours", second_mode) {
                    Err(SteeringError::Occupied { interface, program, name }) => {
                        assert_eq!((interface.as_str(), program, name.as_deref()), ("ours", first_id, Some(FRAGS)));
                    }
                    other => panic!("{mode}, then {second_mode:?}: {other:?}"),
                }
            }
            assert_eq!(link::attached_program(first.attached().unwrap().index).unwrap(), Some(first_id));
        });
    }
}

#[test]
fn a_program_attached_over_netlink_is_not_replaced_either() {
    let Some(net) = Net::new() else { return };
    // An object file is the one thing `ip` takes; its section `xdp` holds our own program.
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/src/xdp/steer.bpf.o");
    let done = net.command("ip", &format!("link set ours xdpgeneric object {object} section xdp")).output().unwrap();
    if !done.status.success() {
        println!("skipped: this `ip` cannot load the object: {}", String::from_utf8_lossy(&done.stderr).trim());
        return;
    }
    net.inside(|| {
        let refused = Steering::load().unwrap().attach("ours", None).map(|_| ()).unwrap_err();
        assert!(matches!(refused, SteeringError::Occupied { .. }), "{refused}");
    });
    assert!(net.ip("-d link show ours").contains(" xdpgeneric "));
}

#[test]
fn a_missing_interface_is_an_error_that_names_it() {
    let Some(net) = Net::new() else { return };
    net.inside(|| {
        for missing in ["nope", "", "a-name-longer-than-any-interface-has", "a\0b"] {
            let error = Steering::load().unwrap().attach(missing, None).map(|_| ()).unwrap_err();
            assert!(matches!(&error, SteeringError::NoSuchInterface { interface } if interface == missing), "{error}");
        }
    });
}

#[test]
fn the_next_start_after_kill_9_works_at_once() {
    let Some(net) = Net::new() else { return };
    for round in 0..3 {
        let mut child = this_test("attach_and_hold").env(HOLD, &net.name).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.by_ref().any(|line| line.unwrap().contains("attached")), "the child did not attach");
        assert!(net.ip("-d link show ours").contains("xdp"));
        child.kill().unwrap(); // not yet waited for: it may still be ending
        net.inside(|| {
            let mut steering = Steering::load().unwrap();
            steering.attach("ours", None).unwrap_or_else(|error| panic!("round {round}: {error}"));
        });
        child.wait().unwrap();
    }
    assert!(!net.ip("-d link show ours").contains("xdp"));
}

#[test]
#[ignore = "the other half of the_next_start_after_kill_9_works_at_once"]
fn attach_and_hold() {
    let Ok(name) = std::env::var(HOLD) else { return };
    enter(&name);
    let mut steering = Steering::load().unwrap();
    println!("attached: {}", steering.attach("ours", None).unwrap());
    sleep(Duration::from_secs(60));
}

#[test]
fn without_privilege_it_says_which_capabilities_are_missing() {
    if !root() {
        let error = Steering::load().unwrap_err();
        assert!(matches!(error, SteeringError::NoPrivilege { .. }), "{error}");
        return;
    }
    let output = this_test("load_without_privilege").env(HOLD, "").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "the other half of without_privilege_it_says_which_capabilities_are_missing"]
fn load_without_privilege() {
    if std::env::var(HOLD).is_err() {
        return;
    }
    keep_capabilities(CapabilitySet::empty());
    let error = Steering::load().unwrap_err();
    assert!(matches!(error, SteeringError::NoPrivilege { .. }), "{error:?}");
    assert!(error.to_string().contains("CAP_BPF"));
}

#[test]
fn two_capabilities_are_enough() {
    let Some(net) = Net::new() else { return };
    let output = this_test("attach_with_two_capabilities").env(HOLD, &net.name).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "the other half of two_capabilities_are_enough"]
fn attach_with_two_capabilities() {
    let Ok(name) = std::env::var(HOLD) else { return };
    enter(&name);
    keep_capabilities(CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
    let mut steering = Steering::load().unwrap();
    steering.attach("ours", None).unwrap();
    steering.add_address(OWN4.into(), Ownership::Own).unwrap();
    let occupied = Steering::load().unwrap().attach("ours", None).map(|_| ()).unwrap_err();
    assert!(matches!(occupied, SteeringError::Occupied { .. }), "{occupied}");
    // The program for older kernels follows pointers that only CAP_PERFMON may.
    let linear = Steering::load_first_of(&[LINEAR]).unwrap_err();
    assert!(matches!(linear, SteeringError::NoPrivilege { .. }), "{linear}");
}

/// Of this thread alone.
fn keep_capabilities(kept: CapabilitySet) {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).unwrap();
}

#[test]
fn steering_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Steering>();
}

const HOLD: &str = "HANDFAST_STEER_TEST_NAMESPACE";

fn this_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", &format!("xdp::program::tests::{name}")]);
    command
}

/// Not merely user 0: a container's root may lack what counts.
fn root() -> bool {
    let needed = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    let root = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    if !root {
        println!("skipped: loading XDP programs and making namespaces needs root");
    }
    root
}

/// A namespace with a veth pair: `ours` for the program, its peer in a namespace of its own.
struct Net {
    name: String,
}

impl Net {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !root() {
            return None;
        }
        let name = format!("hf-steer-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { name };
        let (name, peer) = (&net.name, net.peer());
        for line in [
            format!("netns add {name}"),
            format!("netns add {peer}"),
            format!("-n {name} link add ours type veth peer name peer netns {peer}"),
            format!("-n {name} link set ours up"),
            format!("-n {peer} link set peer up"),
            format!("-n {peer} address add 10.9.0.2/24 dev peer"),
        ] {
            run("ip", &line);
        }
        Some(net)
    }

    fn peer(&self) -> String {
        format!("{}-peer", self.name)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.name, work)
    }

    fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.name))
    }

    fn command(&self, program: &str, arguments: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments.split_whitespace());
        command
    }

    /// Makes the peer's kernel ask for 10.9.0.1 by ARP.
    fn peer_asks(&self) {
        in_namespace(&self.peer(), || {
            let socket = std::net::UdpSocket::bind("10.9.0.2:0").unwrap();
            socket.send_to(b"?", "10.9.0.1:9").unwrap();
        });
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.name, &self.peer()] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            enter(name);
            work()
        });
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter(namespace: &str) {
    let namespace = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let network = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
