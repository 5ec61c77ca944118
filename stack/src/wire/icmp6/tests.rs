use super::*;
use crate::wire::ipv6::Ipv6;
use crate::wire::tcp::Seq;
use alloc::vec::Vec;
use proptest::prelude::*;

fn addresses() -> (Address, Address) {
    ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let (src, dst) = addresses();
    bytes[2..4].fill(0);
    let sum = checksum(&src, &dst, &bytes, &[]);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

fn parse(bytes: Vec<u8>) -> Result<Icmp6, DropReason> {
    let (src, dst) = addresses();
    Icmp6::parse(&src, &dst, 255, &with_checksum(bytes))
}

/// A segment from us, port 80, to the peer's port 1000, behind `extension`.
fn quote(protocol: u8, extension: &[u8]) -> Vec<u8> {
    let (src, dst) = addresses();
    let (traffic_class, flow_label, hop_limit, header_len, total_len) = (0, 0, 1, 40, 1500);
    let mut header = [0; 40];
    Ipv6 { src, dst, protocol, traffic_class, flow_label, hop_limit, header_len, total_len }.emit(&mut header);
    [&header[..], extension, &[0, 80, 3, 232, 0, 0, 0, 7]].concat()
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(kind in prop_oneof![1u8..5, 128u8..140], mut bytes in proptest::collection::vec(any::<u8>(), 4..100)) {
        bytes[0] = kind;
        let _ = parse(bytes);
    }

    #[test]
    fn random_quotes_do_not_panic(
        first in prop_oneof![Just(6u8), Just(0), Just(43), Just(44), Just(60)],
        bytes in proptest::collection::vec(any::<u8>(), 0..70), keep in 0usize..130
    ) {
        let mut message = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &quote(first, &bytes)].concat();
        message.truncate(keep.max(8));
        let _ = parse(message);
    }

    #[test]
    fn a_reply_differs_from_its_request_in_the_type_only(data in proptest::collection::vec(any::<u8>(), 4..60)) {
        let (src, dst) = addresses();
        let request = with_checksum([&[128, 0, 0, 0][..], &data].concat());
        prop_assert_eq!(Icmp6::parse(&src, &dst, 64, &request), Ok(Icmp6::EchoRequest));
        let mut reply = request.clone();
        Icmp6::reply(&mut reply);
        prop_assert!(verify_checksum(&dst, &src, &reply));
        prop_assert_eq!((reply[0], &reply[4..]), (129, &request[4..]));
    }
}

#[test]
fn errors_are_told_apart() {
    for (kind, code, expected) in [
        (1, 0, ErrorKind::NetworkUnreachable),
        (1, 1, ErrorKind::Prohibited),
        (1, 3, ErrorKind::HostUnreachable),
        (1, 4, ErrorKind::PortUnreachable),
        (2, 0, ErrorKind::PacketTooBig { mtu: 1400 }),
        (3, 0, ErrorKind::TimeExceeded),
        (4, 0, ErrorKind::ParameterProblem),
        (4, 1, ErrorKind::ProtocolUnreachable),
    ] {
        for quote in [quote(6, &[]), quote(60, &[6, 0, 1, 4, 0, 0, 0, 0])] {
            let message = [&[kind, code, 0, 0, 0, 0, 5, 120][..], &quote].concat();
            let Ok(Icmp6::Error(error)) = parse(message) else { panic!("{kind} {code}") };
            assert_eq!(error.kind, expected);
            assert_eq!((error.quoted.src, error.quoted.dst), addresses());
            assert_eq!((error.quoted.src_port, error.quoted.dst_port, error.quoted.seq), (80, 1000, Seq(7)));
        }
    }
}

#[test]
fn what_means_nothing_to_tcp_has_its_reason() {
    assert_eq!(parse([&[1, 4, 0, 0, 0, 0, 0, 0][..], &quote(17, &[])].concat()), Err(DropReason::IcmpUnrelated));
    assert_eq!(parse([143, 0, 0, 0, 0, 0, 0, 0].to_vec()), Err(DropReason::IcmpIgnored));
    assert_eq!(parse([1, 4, 0, 0, 0, 0, 0, 0].to_vec()), Err(DropReason::IcmpMalformed));
    let (src, dst) = addresses();
    assert_eq!(Icmp6::parse(&src, &dst, 64, &[128, 0, 1, 2, 0, 0, 0, 0]), Err(DropReason::IcmpMalformed), "checksum");
}

#[test]
fn an_unreachable_message_is_read_back() {
    let ((src, dst), quote) = (addresses(), quote(6, &[]));
    let message = [&emit_unreachable(&src, &dst, CODE_PORT_UNREACHABLE, &quote)[..], &quote].concat();
    let parsed = Icmp6::parse(&src, &dst, 64, &message);
    assert!(matches!(parsed, Ok(Icmp6::Error(IcmpError { kind: ErrorKind::PortUnreachable, .. }))));
}
