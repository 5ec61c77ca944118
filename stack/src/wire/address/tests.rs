use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

proptest! {
    #[test]
    fn predicates_agree_with_the_standard_library(octets: [u8; 16], v4: [u8; 4], mapped: bool) {
        let ours = if mapped { Address::v4(v4) } else { Address::v6(octets) };
        let theirs = IpAddr::from(ours);
        prop_assert_eq!(ours.is_v4(), theirs.is_ipv4());
        prop_assert_eq!(ours.is_multicast(), theirs.is_multicast());
        prop_assert_eq!(ours.is_unspecified(), theirs.is_unspecified());
        prop_assert_eq!(ours.is_loopback(), theirs.is_loopback());
        prop_assert_eq!(Address::from(theirs), ours);
        prop_assert_eq!(ours.to_string().parse::<Address>().unwrap(), ours);
    }

    #[test]
    fn a_prefix_is_a_comparison_bit_by_bit(a: [u8; 4], b: [u8; 4], len in 0u8..=32) {
        let bit = |o: [u8; 4], i: u8| u32::from_be_bytes(o) >> (31 - i) & 1;
        let dumb = (0..len).all(|i| bit(a, i) == bit(b, i));
        prop_assert_eq!(Address::v4(a).in_prefix(Address::v4(b), len), dumb);
    }

    #[test]
    fn a_mac_reads_back_what_it_prints(octets: [u8; 6]) {
        prop_assert_eq!(Mac(octets).to_string().parse::<Mac>(), Ok(Mac(octets)));
    }

    #[test]
    fn no_text_makes_the_mac_parser_panic(text in ".{0,24}") {
        let _ = text.parse::<Mac>();
    }
}

#[test]
fn a_mapped_address_is_ipv4() {
    assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    assert_eq!(address("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    assert!(!address("::192.0.2.1").is_v4());
}

#[test]
fn special_addresses_are_known() {
    assert!(address("0.0.0.0").is_unspecified() && address("::").is_unspecified());
    assert!(!address("::1").is_unspecified() && address("::1").is_loopback());
    assert!(address("169.254.1.1").is_link_local() && address("fe80::1").is_link_local());
    assert!(address("255.255.255.255").is_broadcast());
    for bad in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "ff02::1"] {
        assert!(!address(bad).is_valid_source(), "{bad}");
    }
    for good in ["192.0.2.1", "223.255.255.255", "::", "fe80::1", "2001:db8::1"] {
        assert!(address(good).is_valid_source(), "{good}");
    }
}

#[test]
fn groups_have_their_ethernet_addresses() {
    assert_eq!(Mac::for_multicast(address("224.129.2.3")).to_string(), "01:00:5e:01:02:03");
    assert_eq!(Mac::for_multicast(address("ff02::1:ff00:abcd")).to_string(), "33:33:ff:00:ab:cd");
    assert_eq!(Mac::for_multicast(address("255.255.255.255")), Mac::BROADCAST);
    assert_eq!(address("2001:db8::12:3456").solicited_node(), address("ff02::1:ff12:3456"));
}

#[test]
fn the_link_local_address_comes_from_the_mac() {
    assert_eq!(Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]).link_local(), address("fe80::3656:78ff:fe9a:bcde"));
}

#[test]
fn prefixes_keep_to_their_family() {
    assert!(address("10.1.2.3").in_prefix(address("10.0.0.0"), 8));
    assert!(address("10.1.2.3").in_prefix(address("0.0.0.0"), 0));
    assert!(!address("10.1.2.3").in_prefix(address("::"), 0));
    assert!(address("2001:db8::1").in_prefix(address("2001:db8::"), 64));
    assert!(!address("2001:db9::1").in_prefix(address("2001:db8::"), 32));
}
