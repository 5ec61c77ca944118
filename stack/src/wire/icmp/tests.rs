use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[2..4].fill(0);
    let checksum = checksum::finish(checksum::sum(Sum::ZERO, &bytes));
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A segment from 10.0.0.1:80 to 10.0.0.2:1000, cut to its first eight TCP bytes.
fn quote(protocol: u8) -> Vec<u8> {
    let (src, dst) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let ip = Ipv4 { src, dst, protocol, traffic_class: 0, hop_limit: 1, header_len: 20, total_len: 1500 };
    let mut header = [0; 20];
    ip.emit(&mut header);
    [&header[..], &[0, 80, 3, 232, 0, 0, 0, 7]].concat()
}

fn error(kind: u8, code: u8, mtu: u16, quote: &[u8]) -> Result<Icmp, DropReason> {
    let [mtu0, mtu1] = mtu.to_be_bytes();
    Icmp::parse(&with_checksum([&[kind, code, 0, 0, 0, 0, mtu0, mtu1][..], quote].concat()))
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Icmp::parse(&bytes);
        if bytes.len() >= 4 {
            let _ = Icmp::parse(&with_checksum(bytes));
        }
    }

    #[test]
    fn random_quotes_do_not_panic(kind in 3u8..13, code in 0u8..16, mtu: u16, mut quote in proptest::collection::vec(any::<u8>(), 0..70)) {
        if let Some(first) = quote.first_mut() {
            *first = 0x40 | *first & 0xf;
        }
        let _ = error(kind, code, mtu, &quote);
    }

    #[test]
    fn a_reply_differs_from_its_request_in_the_type_only(data in proptest::collection::vec(any::<u8>(), 4..60)) {
        let request = with_checksum([&[8, 0, 0, 0][..], &data].concat());
        prop_assert_eq!(Icmp::parse(&request), Ok(Icmp::EchoRequest));
        let mut reply = request.clone();
        Icmp::reply(&mut reply);
        prop_assert!(checksum::is_valid(checksum::sum(Sum::ZERO, &reply)));
        prop_assert_eq!((reply[0], &reply[4..]), (0, &request[4..]));
    }
}

#[test]
fn errors_are_told_apart() {
    let too_big = |mtu| ErrorKind::PacketTooBig { mtu };
    for (kind, code, mtu, expected) in [
        (3, 0, 0, ErrorKind::NetworkUnreachable),
        (3, 1, 0, ErrorKind::HostUnreachable),
        (3, 2, 0, ErrorKind::ProtocolUnreachable),
        (3, 3, 0, ErrorKind::PortUnreachable),
        (3, 4, 1400, too_big(1400)),
        (3, 4, 0, too_big(1492)),
        (3, 13, 0, ErrorKind::Prohibited),
        (11, 0, 0, ErrorKind::TimeExceeded),
        (12, 0, 0, ErrorKind::ParameterProblem),
    ] {
        let Ok(Icmp::Error(error)) = error(kind, code, mtu, &quote(6)) else { panic!("{kind} {code}") };
        assert_eq!(error.kind, expected);
        assert_eq!(error.quoted.src, Address::v4([10, 0, 0, 1]));
        assert_eq!(error.quoted.dst, Address::v4([10, 0, 0, 2]));
        assert_eq!((error.quoted.src_port, error.quoted.dst_port, error.quoted.seq), (80, 1000, Seq(7)));
    }
}

#[test]
fn what_means_nothing_to_tcp_has_its_reason() {
    assert_eq!(error(3, 3, 0, &quote(17)), Err(DropReason::IcmpUnrelated));
    assert_eq!(error(4, 0, 0, &quote(6)), Err(DropReason::IcmpIgnored), "source quench");
    assert_eq!(error(5, 0, 0, &quote(6)), Err(DropReason::IcmpIgnored), "redirect");
    assert_eq!(error(3, 3, 0, &quote(6)[..27]), Err(DropReason::IcmpMalformed));
    assert_eq!(Icmp::parse(&[8, 0, 1, 2, 0, 0, 0, 0]), Err(DropReason::IcmpMalformed), "checksum");
}

#[test]
fn an_unreachable_message_is_read_back() {
    let quote = quote(6);
    let message = [&emit_unreachable(CODE_PORT_UNREACHABLE, &quote)[..], &quote].concat();
    assert!(matches!(Icmp::parse(&message), Ok(Icmp::Error(IcmpError { kind: ErrorKind::PortUnreachable, .. }))));
}
