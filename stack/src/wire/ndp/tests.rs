use super::*;
use crate::wire::icmp6::Icmp6;
use alloc::vec::Vec;
use proptest::prelude::*;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn parse(src: &str, dst: &str, bytes: &[u8]) -> Result<Ndp, DropReason> {
    Ndp::parse(&address(src), &address(dst), 255, bytes)
}

/// A router advertisement with these options.
fn router(options: &[u8]) -> Vec<u8> {
    [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], options].concat()
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(kind in 132u8..139, mut bytes in proptest::collection::vec(any::<u8>(), 1..80), good: bool) {
        bytes[0] = kind;
        if let (true, Some(code)) = (good, bytes.get_mut(1)) {
            *code = 0;
        }
        let _ = parse("fe80::1", "ff02::1", &bytes);
    }

    #[test]
    fn random_options_do_not_panic(options in proptest::collection::vec(0u8..6, 0..64)) {
        let _ = parse("fe80::1", "ff02::1", &router(&options));
    }

    #[test]
    fn what_is_written_is_read(src: [u8; 16], dst: [u8; 16], target: [u8; 16], mut mac: [u8; 6], solicited: bool) {
        let [src, dst, target] = [src, dst, target].map(Address::v6);
        prop_assume!(!(target.is_multicast() || target.is_v4() || solicited && dst.is_multicast()));
        mac[0] &= !1;
        let mac = Mac(mac);
        let ask = emit_solicitation(&src, &dst, &target, mac);
        let expected = Ndp::Solicitation { target, source_mac: Some(mac) };
        prop_assert_eq!(Icmp6::parse(&src, &dst, 255, &ask), Ok(Icmp6::Ndp(expected)));
        let tell = emit_advertisement(&src, &dst, &target, mac, solicited);
        let expected = Ndp::Advertisement { target, target_mac: Some(mac), solicited, overrides: true };
        prop_assert_eq!(Icmp6::parse(&src, &dst, 255, &tell), Ok(Icmp6::Ndp(expected)));
    }
}

#[test]
fn a_message_that_crossed_a_router_is_invalid() {
    let (src, dst) = (address("2001:db8::1"), address("2001:db8::2"));
    let bytes = emit_solicitation(&src, &dst, &dst, Mac([2, 0, 0, 0, 0, 1]));
    assert_eq!(Ndp::parse(&src, &dst, 254, &bytes), Err(DropReason::NdpInvalid));
    let mut coded = bytes;
    coded[1] = 1;
    assert_eq!(Ndp::parse(&src, &dst, 255, &coded), Err(DropReason::NdpInvalid));
}

#[test]
fn a_probe_for_a_duplicate_must_look_like_one() {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let (any, target) = (Address::UNSPECIFIED_V6, address("fe80::1:2"));
    let bytes = emit_solicitation(&any, &target.solicited_node(), &target, mac);
    assert_eq!(parse("::", "ff02::1:ff01:2", &bytes[..24]), Ok(Ndp::Solicitation { target, source_mac: None }));
    assert_eq!(parse("::", "ff02::1:ff01:2", &bytes), Err(DropReason::NdpInvalid), "gives an Ethernet address");
    assert_eq!(parse("::", "fe80::1:2", &bytes[..24]), Err(DropReason::NdpInvalid), "sent to one host");
}

#[test]
fn a_solicited_advertisement_goes_to_one_host() {
    let (src, all) = (address("fe80::1"), address("ff02::1"));
    let bytes = emit_advertisement(&src, &all, &src, Mac([2, 0, 0, 0, 0, 1]), true);
    assert_eq!(parse("fe80::1", "ff02::1", &bytes), Err(DropReason::NdpInvalid));
}

#[test]
fn a_router_says_for_how_long_and_how_large() {
    let options = [1, 1, 2, 0, 0, 0, 0, 9, 5, 1, 0, 0, 0, 0, 5, 120, 3, 1, 0, 0, 0, 0, 0, 0];
    let expected = Ndp::RouterAdvertisement {
        router_lifetime_s: 0x708,
        source_mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        mtu: Some(1400),
    };
    assert_eq!(parse("fe80::1", "ff02::1", &router(&options)), Ok(expected));
    assert_eq!(parse("2001:db8::1", "ff02::1", &router(&options)), Err(DropReason::NdpInvalid), "not link-local");
}

#[test]
fn an_option_of_no_length_or_beyond_the_end_is_invalid() {
    for options in [[0; 8], [9, 2, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(parse("fe80::1", "ff02::1", &router(&options)), Err(DropReason::NdpInvalid));
    }
    assert_eq!(parse("fe80::1", "ff02::1", &router(&[9; 7])), Err(DropReason::NdpInvalid));
    assert_eq!(parse("fe80::1", "ff02::1", &router(&[])[..15]), Err(DropReason::NdpInvalid));
}
