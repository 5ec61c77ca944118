use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn sample(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let ipv6 = Ipv6 {
        src: "2001:db8::1".parse().unwrap(),
        dst: "2001:db8::2".parse().unwrap(),
        protocol,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        header_len: 40,
        total_len: 40 + payload.len() as u16,
    };
    let mut header = [0; HEADER_LEN];
    ipv6.emit(&mut header);
    [&header[..], payload].concat()
}

/// Parses the extension headers `extensions` before a TCP header's worth of zeros.
fn parsed(first: u8, extensions: &[&[u8]]) -> Result<Ipv6, DropReason> {
    Ipv6::parse(&sample(first, &[&extensions.concat()[..], &[0; 20]].concat()))
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = (Ipv6::parse(&bytes), Ipv6::parse_quoted(&bytes));
    }

    #[test]
    fn random_extension_headers_do_not_panic(
        first in prop_oneof![Just(0u8), Just(43), Just(44), Just(60)],
        payload in proptest::collection::vec(prop_oneof![0u8..8, Just(43), Just(44), Just(60), any::<u8>()], 0..200),
    ) {
        let bytes = sample(first, &payload);
        for ipv6 in [Ipv6::parse(&bytes), Ipv6::parse_quoted(&bytes)].into_iter().flatten() {
            prop_assert!(ipv6.header_len <= ipv6.total_len && usize::from(ipv6.total_len) == bytes.len());
        }
    }

    #[test]
    fn what_is_written_is_read(
        src: [u8; 16], dst: [u8; 16], protocol: u8, traffic_class: u8, flow_label in 0u32..1 << 20, hop_limit: u8, len in 0u16..99
    ) {
        let ipv6 = Ipv6 {
            src: Address::v6(src), dst: Address::v6(dst), protocol, traffic_class, flow_label, hop_limit,
            header_len: 40, total_len: 40 + len,
        };
        prop_assume!(ipv6.src.is_valid_source() && !is_extension(protocol));
        let mut bytes = [0xee; 140];
        ipv6.emit(bytes.first_chunk_mut().unwrap());
        prop_assert_eq!(Ipv6::parse(&bytes), Ok(ipv6));
        prop_assert_eq!(Ipv6::parse(&bytes[..usize::from(len) + 39]), Err(DropReason::Truncated));
    }
}

#[test]
fn extension_headers_are_passed_over() {
    let hop_by_hop = [60, 0, 1, 2, 0, 0, 0, 0];
    let options = [43, 0, 0, 0x1e, 3, 1, 2, 3];
    let routing = [44, 0, 99, 0, 0, 0, 0, 0];
    let atomic = [6, 0xff, 0, 0, 1, 2, 3, 4];
    let ipv6 = parsed(0, &[&hop_by_hop, &options, &routing, &atomic]).unwrap();
    assert_eq!((ipv6.protocol, ipv6.header_len, ipv6.total_len), (6, 72, 92));
}

#[test]
fn what_must_not_be_passed_over_is_not() {
    let hop_by_hop: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(parsed(0, &[hop_by_hop, hop_by_hop]), Err(DropReason::ExtensionHeader), "hop-by-hop twice");
    assert_eq!(parsed(43, &[&[6, 0, 0, 1, 0, 0, 0, 0]]), Err(DropReason::ExtensionHeader), "segments left");
    for kind in [0x40, 0x80, 0xc2] {
        assert_eq!(parsed(60, &[&[6, 0, kind, 4, 0, 0, 0, 0]]), Err(DropReason::ExtensionHeader), "option {kind}");
    }
    assert_eq!(parsed(60, &[&[6, 0, 1, 5, 0, 0, 0, 0]]), Err(DropReason::ExtensionHeader), "an option too long");
    let options: &[u8] = &[60, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(parsed(60, &[options; 6]), Err(DropReason::ExtensionHeader), "too many");
    assert_eq!(parsed(60, &[&[6, 3, 1, 4, 0, 0, 0, 0]]), Err(DropReason::Truncated), "beyond the packet");
}

#[test]
fn real_fragments_are_refused() {
    for (high, low) in [(0, 1), (0, 8), (0xff, 0xf8)] {
        assert_eq!(parsed(44, &[&[6, 0, high, low, 0, 0, 0, 1]]), Err(DropReason::Fragment));
    }
    assert!(parsed(44, &[&[6, 0, 0, 6, 0, 0, 0, 1]]).is_ok(), "the reserved bits say nothing");
}

#[test]
fn addresses_that_no_packet_may_carry_are_refused() {
    let with = |at: usize, address: &str| {
        let mut bytes = sample(6, &[]);
        bytes[at..at + 16].copy_from_slice(&address.parse::<core::net::Ipv6Addr>().unwrap().octets());
        Ipv6::parse(&bytes)
    };
    for bad in ["ff02::1", "::1", "::ffff:10.0.0.1"] {
        assert_eq!(with(8, bad), Err(DropReason::BadSource));
    }
    assert_eq!(with(24, "::ffff:10.0.0.1"), Err(DropReason::NotOurAddress));
    assert!(with(8, "::").is_ok());
}

#[test]
fn another_version_is_refused() {
    let mut bytes = sample(6, &[]);
    bytes[0] = 0x45;
    assert_eq!(Ipv6::parse(&bytes), Err(DropReason::IpHeader));
    bytes[0] = 0x60;
    bytes[4..6].fill(0xff);
    assert_eq!(Ipv6::parse(&bytes), Err(DropReason::IpHeader));
}
