use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn sample() -> Ipv4 {
    Ipv4 {
        src: Address::v4([10, 0, 0, 1]),
        dst: Address::v4([10, 0, 0, 2]),
        protocol: 6,
        traffic_class: 0,
        hop_limit: 64,
        header_len: 20,
        total_len: 24,
    }
}

/// The sample's packet after a change, its checksum mended.
fn changed(options: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    sample().emit(&mut header);
    let mut bytes = [&header[..], options, &[0; 4]].concat();
    bytes[0] = 0x40 | (5 + options.len() as u8 / 4);
    bytes[2..4].copy_from_slice(&(24 + options.len() as u16).to_be_bytes());
    change(&mut bytes);
    bytes[10..12].fill(0);
    let checksum = checksum::finish(checksum::sum(Sum::ZERO, &bytes[..20 + options.len()]));
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), good_start in 0u8..12) {
        if let (5.., Some(first)) = (good_start, bytes.first_mut()) {
            *first = 0x40 | good_start;
        }
        let _ = Ipv4::parse(&bytes);
        if let Ok(ipv4) = Ipv4::parse_quoted(&bytes) {
            prop_assert!(usize::from(ipv4.header_len) <= bytes.len());
        }
    }

    #[test]
    fn random_options_do_not_panic(options in proptest::collection::vec(any::<u8>(), 40)) {
        let _ = Ipv4::parse(&changed(&options, |_| {}));
    }

    #[test]
    fn what_is_written_is_read(
        src: [u8; 4], dst: [u8; 4], protocol: u8, traffic_class: u8, hop_limit: u8, len in 0u16..100
    ) {
        let ipv4 = Ipv4 {
            src: Address::v4(src), dst: Address::v4(dst), protocol, traffic_class, hop_limit,
            header_len: 20, total_len: 20 + len,
        };
        prop_assume!(ipv4.src.is_valid_source());
        let mut bytes = [0xee; 120];
        ipv4.emit(bytes.first_chunk_mut().unwrap());
        prop_assert_eq!(Ipv4::parse(&bytes), Ok(ipv4));
        prop_assert_eq!(Ipv4::parse(&bytes[..usize::from(len) + 19]), Err(DropReason::Truncated));
        bytes[8] ^= 1;
        prop_assert_eq!(Ipv4::parse(&bytes), Err(DropReason::IpChecksum));
    }
}

#[test]
fn a_header_that_makes_no_sense_is_refused() {
    for (offset, value) in [(0, 0x65), (0, 0x44), (3, 19)] {
        assert_eq!(Ipv4::parse(&changed(&[], |b| b[offset] = value)), Err(DropReason::IpHeader), "{offset}");
    }
}

#[test]
fn every_kind_of_fragment_is_refused_but_df_and_the_reserved_bit_are_not() {
    for (high, low) in [(0x20, 0), (0, 1), (0x1f, 0), (0x60, 0)] {
        let bytes = changed(&[], |b| b[6..8].copy_from_slice(&[high, low]));
        assert_eq!(Ipv4::parse(&bytes), Err(DropReason::Fragment));
    }
    for high in [0, 0x40, 0x80] {
        assert!(Ipv4::parse(&changed(&[], |b| b[6] = high)).is_ok());
    }
}

#[test]
fn options_are_passed_over_but_source_routes_are_not() {
    let ipv4 = Ipv4::parse(&changed(&[148, 4, 0, 0], |_| {})).unwrap();
    assert_eq!((ipv4.header_len, ipv4.total_len), (24, 28));
    for bad in [[131, 3, 4, 0], [1, 137, 3, 4], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
        assert_eq!(Ipv4::parse(&changed(&bad, |_| {})), Err(DropReason::IpHeader));
    }
}

#[test]
fn a_source_that_no_host_has_is_refused() {
    for bad in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        let bytes = changed(&[], |b| b[12..16].copy_from_slice(&bad));
        assert_eq!(Ipv4::parse(&bytes), Err(DropReason::BadSource));
    }
}
