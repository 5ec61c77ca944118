use super::super::tests::{Node, from_peer};
use super::*;
use crate::time::Duration;
use crate::wire::address::Address;
use crate::wire::checksum::{self, Sum};
use crate::wire::icmp::ErrorKind;
use crate::wire::packet::{Packet, parse};
use crate::wire::tcp::Seq;
use alloc::vec::Vec;

const NOW: Instant = Instant::from_micros(5_000_000);

/// An ICMP message from the peer to us.
fn icmp(v6: bool, mut message: Vec<u8>) -> Vec<u8> {
    let (src, dst) = if v6 { ("2001:db8::2", "2001:db8::1") } else { ("10.0.0.2", "10.0.0.1") };
    let [from, to]: [Address; 2] = [src, dst].map(|text| text.parse().unwrap());
    let sum = if v6 { checksum::pseudo_header(&from, &to, 58, message.len() as u32) } else { Sum::ZERO };
    message[2..4].fill(0);
    let sum = checksum::finish(checksum::sum(sum, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    from_peer(src, dst, if v6 { 58 } else { 1 }, &message)
}

/// The IP packet of a segment from `src` to a far host.
fn quote(src: &str, dst: &str) -> Vec<u8> {
    from_peer(src, dst, 6, &[0, 80, 3, 232, 0, 0, 0, 7])[14..].to_vec()
}

#[test]
fn an_echo_request_is_answered_in_its_own_frame() {
    for (v6, request, reply) in [(false, 8, 0), (true, 128, 129)] {
        let mut us = Node::us();
        let bytes = icmp(v6, [&[request, 0, 0, 0, 0, 1, 0, 2][..], b"some data"].concat());
        assert_eq!(us.receive(NOW, &bytes), None);
        let answer = us.drained();
        let (Packet::Icmp(net) | Packet::Icmp6(net)) = parse(&answer[0], true).unwrap() else { panic!() };
        assert_eq!(net.hop_limit, packet::HOP_LIMIT);
        assert_eq!((net.link.dst_mac.0[5], net.l4(&answer[0])[0]), (2, reply));
        assert_eq!(&net.l4(&answer[0])[4..], &net.l4(&bytes)[4..]);
        let sum = if v6 {
            checksum::pseudo_header(&net.src, &net.dst, 58, net.l4(&answer[0]).len() as u32)
        } else {
            Sum::ZERO
        };
        assert!(checksum::is_valid(checksum::sum(sum, net.l4(&answer[0]))));
        assert_eq!((us.metrics.get(Counter::EchoReplies), us.metrics.drops_total()), (1, 0));
    }
}

#[test]
fn an_echo_request_to_a_group_is_not_answered() {
    let mut us = Node::us();
    let mut bytes = icmp(true, [128, 0, 0, 0, 0, 1, 0, 2].to_vec());
    bytes[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    us.receive(NOW, &bytes);
    assert_eq!((us.drained().len(), us.metrics.drops(DropReason::IcmpIgnored)), (0, 1));
}

#[test]
fn an_error_about_a_segment_of_ours_is_handed_up() {
    let mut us = Node::us();
    let v4 = [&[3, 4, 0, 0, 0, 0, 5, 120][..], &quote("10.0.0.1", "192.0.2.1")].concat();
    let v6 = [&[2, 0, 0, 0, 0, 0, 5, 120][..], &quote("2001:db8::1", "2001:db8:1::1")].concat();
    for (message, is_v6, dst) in [(v4, false, "192.0.2.1"), (v6, true, "2001:db8:1::1")] {
        let error = us.receive(NOW, &icmp(is_v6, message)).unwrap();
        assert_eq!(error.kind, ErrorKind::PacketTooBig { mtu: 1400 });
        assert_eq!((error.quoted.dst, error.quoted.seq), (dst.parse().unwrap(), Seq(7)));
        assert_eq!(us.ip.path_mtu(NOW, error.quoted.dst), 1500, "nobody believed it yet");
    }
}

#[test]
fn an_error_about_someone_elses_segment_is_unrelated() {
    let mut us = Node::us();
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quote("10.0.0.3", "192.0.2.1")].concat();
    assert_eq!(us.receive(NOW, &icmp(false, message)), None);
    assert_eq!(us.metrics.drops(DropReason::IcmpUnrelated), 1);
}

#[test]
fn udp_is_answered_with_port_unreachable_that_quotes_it() {
    for (src, dst, headers) in [("10.0.0.2", "10.0.0.1", 34), ("2001:db8::2", "2001:db8::1", 54)] {
        for len in [8, 1400] {
            let mut us = Node::us();
            let datagram = from_peer(src, dst, UDP, &alloc::vec![9; len]);
            us.receive(NOW, &datagram);
            let answer = us.drained();
            let v6 = dst.contains(':');
            let parsed = parse(&answer[0], true).unwrap();
            assert!(matches!(parsed, Packet::Icmp(_) | Packet::Icmp6(_)));
            let (Packet::Icmp(net) | Packet::Icmp6(net)) = parsed else { panic!() };
            let message = net.l4(&answer[0]);
            assert_eq!((net.src, net.dst), (dst.parse().unwrap(), src.parse().unwrap()));
            assert_eq!(message[..2], if v6 { [1, 4] } else { [3, 3] });
            let quoted = &message[8..];
            assert_eq!(quoted, &datagram[14..14 + quoted.len()]);
            assert_eq!(answer[0].len() - 14, (headers - 14 + 8 + headers - 14 + len).min(if v6 { 1280 } else { 576 }));
            let sum =
                if v6 { checksum::pseudo_header(&net.src, &net.dst, 58, message.len() as u32) } else { Sum::ZERO };
            assert!(checksum::is_valid(checksum::sum(sum, message)));
        }
    }
}

#[test]
fn errors_of_ours_are_limited_in_rate() {
    let mut us = Node::us();
    let datagram = from_peer("10.0.0.2", "10.0.0.1", UDP, &[9; 8]);
    let mut answers = 0;
    for ms in 0..2_000 {
        us.receive(NOW + Duration::from_millis(ms), &datagram);
        answers += us.drained().len();
    }
    assert_eq!(answers, 299, "a second's worth at once, then a hundred each second");
    assert_eq!(us.metrics.drops(DropReason::Protocol), 2_000);
}

#[test]
fn a_full_burst_drops_the_answer_and_counts_it() {
    let mut us = Node::us();
    while us.tx.room() > 0 {
        let frame = us.frame(&[1; 60]);
        us.tx.push(frame);
    }
    us.receive(NOW, &icmp(false, [8, 0, 0, 0, 0, 1, 0, 2].to_vec()));
    assert_eq!(us.metrics.drops(DropReason::TransmitFull), 1);
}
