use super::*;
use alloc::vec;
use proptest::prelude::*;

fn a(text: &str) -> Address {
    text.parse().unwrap()
}

fn own(text: &str) -> OwnAddress {
    let (address, len) = text.split_once('/').unwrap();
    OwnAddress { address: a(address), prefix_len: len.parse().unwrap() }
}

fn routes() -> Routes {
    let far = Route { network: a("172.16.0.0"), prefix_len: 12, gateway: Some(a("10.0.0.9")) };
    let defaults = [Route::default_via(a("10.0.0.254")), Route::default_via(a("fe80::fe"))];
    let own = vec![own("10.0.0.1/24"), own("10.9.0.1/16"), own("2001:db8::1/64"), own("fe80::1/64")];
    Routes::new(own, vec![], [&defaults[..], &[far]].concat())
}

#[test]
fn the_longest_prefix_wins() {
    for (dst, hop) in [
        ("10.0.0.7", "10.0.0.7"),
        ("10.9.8.7", "10.9.8.7"),
        ("172.31.0.1", "10.0.0.9"),
        ("172.32.0.1", "10.0.0.254"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:db8:1::7", "fe80::fe"),
        ("fe80::7", "fe80::7"),
    ] {
        assert_eq!(routes().next_hop(a(dst)), Some(a(hop)), "{dst}");
    }
}

#[test]
fn what_is_no_single_host_elsewhere_has_no_next_hop() {
    for dst in [
        "10.0.0.1",
        "10.0.0.255",
        "10.9.255.255",
        "255.255.255.255",
        "224.0.0.1",
        "0.0.0.0",
        "127.0.0.1",
        "::",
        "::1",
        "ff02::1",
    ] {
        assert_eq!(routes().next_hop(a(dst)), None, "{dst}");
    }
    assert_eq!(Routes::new(vec![own("10.0.0.1/24")], vec![], vec![]).next_hop(a("10.0.1.1")), None);
    assert_eq!(Routes::new(vec![own("10.0.0.0/31")], vec![], vec![]).next_hop(a("10.0.0.1")), Some(a("10.0.0.1")));
}

#[test]
fn the_source_is_the_address_nearest_to_the_next_hop() {
    for (dst, source) in [
        ("10.0.0.7", "10.0.0.1"),
        ("10.9.8.7", "10.9.0.1"),
        ("192.0.2.1", "10.0.0.1"),
        ("2001:db8:1::7", "2001:db8::1"),
        ("fe80::7", "fe80::1"),
    ] {
        assert_eq!(routes().source_for(a(dst)), Some(a(source)), "{dst}");
    }
    assert_eq!(Routes::new(vec![own("10.0.0.1/24")], vec![], vec![]).source_for(a("2001:db8::1")), None);
}

#[test]
fn groups_that_we_listen_to_are_known() {
    assert!(routes().is_our_group(a("ff02::1")) && routes().is_our_group(a("ff02::1:ff00:1")));
    assert!(!routes().is_our_group(a("ff02::2")) && !routes().is_our_group(a("ff02::1:ff00:2")));
}

proptest! {
    #[test]
    fn any_address_has_an_answer_of_its_family(v4: [u8; 4], v6: [u8; 16], prefix_len in 0u8..=32) {
        let routes = Routes::new(vec![OwnAddress { address: Address::v4(v4), prefix_len }], vec![], vec![Route::default_via(a("10.0.0.254"))]);
        for dst in [Address::v4(v4), Address::v6(v6)] {
            prop_assert!(routes.next_hop(dst).is_none_or(|hop| hop.is_v4() == dst.is_v4()));
            prop_assert!(routes.source_for(dst).is_none_or(|source| source.is_v4() == dst.is_v4()));
        }
    }
}

#[test]
fn a_range_of_addresses_is_ours_from_the_first_to_the_last() {
    for (first, last, beyond) in [
        ("10.0.0.250", "10.0.1.3", ["10.0.0.249", "10.0.1.4", "11.0.0.250"]),
        ("2001:db8::fa", "2001:db8::103", ["2001:db8::f9", "2001:db8::104", "2001:db9::fa"]),
    ] {
        let range = OwnRange { first: a(first), count: 10 };
        let routes = Routes::new(vec![], vec![range], vec![]);
        assert_eq!((range.nth(0), range.nth(9), range.nth(10)), (a(first), a(last), a(first)));
        assert!((0..10).all(|index| routes.is_ours(range.nth(index))));
        assert!(beyond.into_iter().all(|other| !routes.is_ours(a(other))));
        if !range.first.is_v4() {
            assert!((0..10).all(|index| routes.is_our_group(range.nth(index).solicited_node())));
            assert!(beyond[..2].iter().all(|other| !routes.is_our_group(a(other).solicited_node())));
        }
    }
}
