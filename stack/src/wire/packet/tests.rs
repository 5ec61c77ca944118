use super::*;
use crate::wire::checksum::Sum;
use crate::wire::tcp::{Flags, Header, Options, Seq, Timestamps};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn link(vlan: Option<u16>) -> Ethernet {
    Ethernet { dst: Mac([2, 0, 0, 0, 0, 2]), src: Mac([2, 0, 0, 0, 0, 1]), vlan, ethertype: 0 }
}

fn ip(v6: bool) -> Ip {
    let ends = if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["10.0.0.1", "10.0.0.2"] };
    let [src, dst] = ends.map(|text| text.parse().unwrap());
    Ip { flow_label: 5, ..Ip::new(src, dst) }
}

fn header() -> Header {
    let options = Options { timestamps: Some(Timestamps { value: 1, echo: 2 }), ..Default::default() };
    let (seq, ack, flags) = (Seq(7), Seq(8), Flags::ACK | Flags::PSH);
    Header { src_port: 80, dst_port: 1000, seq, ack, flags, window: 9, options }
}

fn frame(vlan: Option<u16>, v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; headers_len(vlan.is_some(), v6, &header(), &[])];
    emit_headers(&mut out, &link(vlan), &ip(v6), &header(), &[], payload, true);
    out.extend_from_slice(payload);
    out
}

/// A packet of another protocol.
fn carrying(protocol: u8, v6: bool, ip: Ip) -> Vec<u8> {
    let mut out = vec![0; ip_headers_len(false, v6)];
    emit_ip_headers(&mut out, &link(None), &ip, protocol, 20);
    out.extend_from_slice(&[0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
    out
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..4, verify: bool, version: bool
    ) {
        let ethertype = [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00]][kind];
        if let Some(room) = bytes.get_mut(12..14) {
            room.copy_from_slice(&ethertype);
        }
        if let (true, Some(first)) = (version, bytes.get_mut(14)) {
            *first = [0x45, 0x60, 0, 0][kind];
        }
        let _ = parse(&bytes, verify);
    }

    #[test]
    fn a_valid_frame_with_changed_bytes_does_not_panic(
        vlan in proptest::option::of(1u16..4095), v6: bool, len in 0usize..60,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4), keep: proptest::sample::Index
    ) {
        let mut bytes = frame(vlan, v6, &vec![1; len]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = parse(&bytes, false);
        let keep = keep.index(bytes.len());
        if let Ok(Packet::Tcp(net, segment)) = parse(&bytes[..keep], false) {
            prop_assert_eq!(net.payload_range(&segment).len(), usize::from(segment.payload_len));
            prop_assert!(net.l4_range().end <= keep);
        }
    }

    #[test]
    fn the_usual_headers_are_written_as_all_are(
        seq: u32, stamp: u32, blocks in 0u32..3, ends: [[u8; 4]; 2], traffic_class: u8, compute: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..1500)
    ) {
        let [src, dst] = ends.map(Address::v4);
        let ip = Ip { traffic_class, ..Ip::new(src, dst) };
        let options = Options { timestamps: (stamp % 4 > 0).then_some(Timestamps { value: stamp, echo: 9 }), ..Default::default() };
        let header = Header { seq: Seq(seq), options, ..header() };
        let sack: Vec<_> = (0..blocks).map(|n| (Seq(n), Seq(n + 1))).collect();
        let mut usual = vec![0xee; headers_len(false, false, &header, &sack)];
        let mut any = usual.clone();
        emit_headers(&mut usual, &link(None), &ip, &header, &sack, &payload, compute);
        emit_any_headers(&mut any, link(None), ip, header, &sack, &payload, compute);
        prop_assert_eq!(&usual, &any);
        let is_valid = checksum::is_valid(checksum::sum(Sum::ZERO, &usual[14..34]));
        prop_assert!(is_valid && (!compute || tcp::verify_checksum(&src, &dst, &[&usual[34..], &payload].concat())));
    }

    #[test]
    fn what_is_written_is_read_and_padding_is_cut(
        vlan in proptest::option::of(1u16..4095), v6: bool, payload in proptest::collection::vec(any::<u8>(), 0..1500), padding in 0usize..30
    ) {
        let mut bytes = frame(vlan, v6, &payload);
        bytes.resize(bytes.len() + padding, 0xaa);
        let Ok(Packet::Tcp(net, segment)) = parse(&bytes, true) else { panic!("{:?}", parse(&bytes, true)) };
        prop_assert_eq!((net.src, net.dst, net.hop_limit), (ip(v6).src, ip(v6).dst, 64));
        prop_assert_eq!((net.link.src_mac, net.link.dst_mac, net.link.vlan), (link(vlan).src, link(vlan).dst, vlan));
        prop_assert_eq!((segment.seq, segment.timestamps), (Seq(7), header().options.timestamps));
        prop_assert_eq!(&bytes[net.payload_range(&segment)], &payload[..]);
    }

    #[test]
    fn a_flipped_bit_in_a_segment_is_seen(v6: bool, at in 0usize..40, bit in 0u8..8) {
        let mut bytes = frame(None, v6, b"payload");
        let at = ip_headers_len(false, v6) + at % 39;
        bytes[at] ^= 1 << bit;
        prop_assert!(parse(&bytes, true).is_err());
    }
}

#[test]
fn a_checksum_left_to_the_device_is_the_pseudo_headers() {
    for v6 in [false, true] {
        let mut out = vec![0; headers_len(false, v6, &header(), &[])];
        emit_headers(&mut out, &link(None), &ip(v6), &header(), &[], b"abc", false);
        assert!(matches!(parse(&[&out[..], b"abc"].concat(), false), Ok(Packet::Tcp(..))));
        // The device sums header and payload over what the field holds.
        let l4 = ip_headers_len(false, v6);
        let sum = checksum::finish(checksum::sum(checksum::sum(Sum::ZERO, &out[l4..]), b"abc"));
        out[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(parse(&[&out[..], b"abc"].concat(), true), Ok(Packet::Tcp(..))));
    }
}

#[test]
fn protocols_are_told_apart() {
    for (protocol, v6) in [(1, true), (58, false), (17, false), (59, true)] {
        assert!(matches!(parse(&carrying(protocol, v6, ip(v6)), true), Ok(Packet::Other(_, p)) if p == protocol));
    }
    assert!(matches!(parse(&carrying(1, false, ip(false)), true), Ok(Packet::Icmp(net)) if net.l4_range() == (34..54)));
    assert!(matches!(parse(&carrying(58, true, ip(true)), true), Ok(Packet::Icmp6(net)) if net.l4_range() == (54..74)));
}

#[test]
fn only_icmpv6_comes_from_the_unspecified_address() {
    let from_nowhere = Ip { src: Address::UNSPECIFIED_V6, ..ip(true) };
    assert_eq!(parse(&carrying(6, true, from_nowhere), false), Err(DropReason::BadSource));
    assert!(matches!(parse(&carrying(58, true, from_nowhere), true), Ok(Packet::Icmp6(_))));
}

#[test]
fn another_ether_type_is_refused() {
    let mut bytes = frame(None, false, &[]);
    bytes[13] = 0x42;
    assert_eq!(parse(&bytes, true), Err(DropReason::EtherType));
}

#[test]
fn a_packet_turned_around_is_valid_the_other_way() {
    for (vlan, v6) in [(None, false), (Some(5), false), (None, true)] {
        let mut bytes = frame(vlan, v6, b"payload");
        if !v6 {
            // A packet that has come some way.
            let at = link(vlan).len();
            bytes[at + 8] = 57;
            bytes[at + 10..at + 12].fill(0);
            let sum = checksum::finish(checksum::sum(Sum::ZERO, &bytes[at..at + 20]));
            bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let Ok(Packet::Tcp(net, _)) = parse(&bytes, true) else { panic!() };
        turn_around(&mut bytes, &net);
        let Ok(Packet::Tcp(back, _)) = parse(&bytes, true) else { panic!("{:?}", parse(&bytes, true)) };
        assert_eq!((back.src, back.dst, back.hop_limit), (net.dst, net.src, 64));
        assert_eq!((back.link.src_mac, back.link.dst_mac), (net.link.dst_mac, net.link.src_mac));
    }
}
