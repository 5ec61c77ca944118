use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The key of the published verification suite.
const VERIFICATION_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

/// Source, destination, ports; hash of the addresses, hash with the ports.
type Vector = (&'static str, &'static str, u16, u16, u32, u32);

const V4: [Vector; 5] = [
    ("66.9.149.187", "161.142.100.80", 2794, 1766, 0x323e_8fc2, 0x51cc_c178),
    ("199.92.111.2", "65.69.140.83", 14230, 4739, 0xd718_262a, 0xc626_b0ea),
    ("24.19.198.95", "12.22.207.184", 12898, 38024, 0xd2d0_a5de, 0x5c2b_394a),
    ("38.27.205.30", "209.142.163.6", 48228, 2217, 0x8298_9176, 0xafc7_327f),
    ("153.39.163.191", "202.188.127.2", 44251, 1303, 0x5d18_09c5, 0x10e8_28a2),
];

const V6: [Vector; 3] = [
    ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x2cc1_8cd5, 0x4020_7d3d),
    ("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0x0f0c_461c, 0xdde5_1bbf),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf", 44251, 38024, 0x4b61_e985, 0x02d1_feef),
];

fn v4(address: &str) -> [u8; 4] {
    address.parse::<Ipv4Addr>().unwrap().octets()
}

fn v6(address: &str) -> [u8; 16] {
    address.parse::<Ipv6Addr>().unwrap().octets()
}

/// An Ethernet frame with what the hash looks at; `options` lengthens an IPv4 header.
fn packet((src, dst, sport, dport, ..): Vector, protocol: u8, vlan: bool, options: usize) -> Vec<u8> {
    let mut packet = [[2; 12].as_slice(), if vlan { &[0x81, 0, 0, 7] } else { &[] }].concat();
    if src.contains(':') {
        packet.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
        packet.extend(v6(src));
        packet.extend(v6(dst));
    } else {
        packet.extend([8, 0, 0x45 + (options / 4) as u8, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(v4(src));
        packet.extend(v4(dst));
        packet.extend(core::iter::repeat_n(1, options));
    }
    packet.extend(sport.to_be_bytes());
    packet.extend(dport.to_be_bytes());
    packet.extend([0; 16]);
    packet
}

#[test]
fn the_published_vectors_hold() {
    let toeplitz = Toeplitz::new(&VERIFICATION_KEY);
    for (src, dst, sport, dport, addresses, flow) in V4 {
        assert_eq!(toeplitz.hash(&[v4(src), v4(dst)].concat()), addresses, "{src} {dst}");
        assert_eq!(toeplitz.hash_v4(v4(src), v4(dst), sport, dport), flow, "{src} {dst}");
    }
    for (src, dst, sport, dport, addresses, flow) in V6 {
        assert_eq!(toeplitz.hash(&[v6(src), v6(dst)].concat()), addresses, "{src} {dst}");
        assert_eq!(toeplitz.hash_v6(v6(src), v6(dst), sport, dport), flow, "{src} {dst}");
    }
}

#[test]
fn a_tcp_packet_is_hashed_with_its_ports_and_another_without() {
    let toeplitz = Toeplitz::new(&VERIFICATION_KEY);
    for vector in V4.into_iter().chain(V6) {
        for vlan in [false, true] {
            assert_eq!(toeplitz.of_packet(&packet(vector, 6, vlan, 0)), Some(vector.5));
            assert_eq!(toeplitz.of_packet(&packet(vector, 17, vlan, 0)), Some(vector.4));
        }
    }
}

#[test]
fn ports_are_found_behind_ipv4_options() {
    let toeplitz = Toeplitz::new(&VERIFICATION_KEY);
    assert_eq!(toeplitz.of_packet(&packet(V4[0], 6, true, 12)), Some(V4[0].5));
}

#[test]
fn a_fragment_is_hashed_without_ports() {
    let toeplitz = Toeplitz::new(&VERIFICATION_KEY);
    for (high, low) in [(0x20, 0), (0, 1), (0x1f, 0)] {
        let mut fragment = packet(V4[0], 6, false, 0);
        fragment[20..22].copy_from_slice(&[high, low]);
        assert_eq!(toeplitz.of_packet(&fragment), Some(V4[0].4));
    }
    assert_eq!(toeplitz.of_packet(&packet(V6[0], 44, false, 0)), Some(V6[0].4), "an IPv6 fragment header");
}

#[test]
fn what_is_not_ip_or_is_cut_short_has_no_hash() {
    let toeplitz = Toeplitz::symmetric();
    let mut arp = packet(V4[0], 6, false, 0);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(toeplitz.of_packet(&arp), None);
    for whole in [packet(V4[0], 6, true, 0), packet(V6[0], 6, true, 0)] {
        let ports_end = whole.len() - 16;
        assert!((0..ports_end).all(|len| toeplitz.of_packet(&whole[..len]).is_none()));
        assert!(toeplitz.of_packet(&whole[..ports_end]).is_some());
    }
}

#[test]
fn the_even_table_deals_hashes_to_all_queues() {
    let rss = Rss::symmetric(3);
    assert_eq!([0, 1, 2, 3, 128].map(|hash| rss.queue(hash)), [0, 1, 2, 0, 0]);
    assert_eq!(Rss { key: Vec::new(), table: Vec::new() }.queue(5), 0);
}

/// The definition, one bit at a time.
fn oracle(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], i: usize| bytes.get(i / 8).map_or(0, |byte| byte >> (7 - i % 8) & 1) as u32;
    let window = |i: usize| (i..i + 32).fold(0u32, |word, k| word << 1 | bit(key, k));
    (0..input.len() * 8).filter(|&i| bit(input, i) == 1).fold(0, |hash, i| hash ^ window(i))
}

proptest! {
    #[test]
    fn tables_and_folding_agree_with_the_definition(
        key in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            any::<[u8; 2]>().prop_map(|pair| pair.repeat(26)),
        ],
        input in prop::collection::vec(any::<u8>(), 0..=36),
    ) {
        prop_assert_eq!(Toeplitz::new(&key).hash(&input), oracle(&key, &input));
    }

    #[test]
    fn both_directions_of_a_flow_hash_alike_under_the_symmetric_key(src: [u8; 16], dst: [u8; 16], sport: u16, dport: u16) {
        let toeplitz = Toeplitz::symmetric();
        prop_assert_eq!(toeplitz.hash_v6(src, dst, sport, dport), toeplitz.hash_v6(dst, src, dport, sport));
    }

    #[test]
    fn no_packet_is_too_odd_to_hash(packet in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Toeplitz::symmetric().of_packet(&packet);
    }
}
