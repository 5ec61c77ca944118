use clap::CommandFactory;

use super::*;

fn parsed(text: &str) -> Result<Args, String> {
    Args::try_parse_from(text.split_whitespace()).map_err(|error| error.to_string())
}

#[test]
fn the_flags_are_consistent() {
    Args::command().debug_assert();
}

#[test]
fn no_arguments_are_the_wire_with_both_ends() {
    let args = parsed("handfast-load").unwrap();
    assert_eq!((args.role, args.driver, args.json), (None, DriverKind::Wire, false));
}

#[test]
fn addresses_come_alone_and_in_ranges() {
    for (text, count, last) in [
        ("192.0.2.1/24", 1, "192.0.2.1"),
        ("192.0.2.1-192.0.2.100/24", 100, "192.0.2.100"),
        ("10.0.0.250-10.0.1.5/16", 12, "10.0.1.5"),
        ("2001:db8::1/64", 1, "2001:db8::1"),
        ("2001:db8::fffe-2001:db8::1:1/64", 4, "2001:db8::1:1"),
    ] {
        let range: AddressRange = text.parse().unwrap();
        assert_eq!(range.count, count, "{text}");
        assert_eq!(range.nth(count - 1), last.parse::<IpAddr>().unwrap(), "{text}");
        assert_eq!(range.to_string(), text);
    }
}

#[test]
fn a_network_is_all_its_hosts() {
    for (text, range) in [
        ("10.0.0.0/16", "10.0.0.1-10.0.255.254/16"),
        ("192.0.2.128/25", "192.0.2.129-192.0.2.254/25"),
        ("2001:db8::/120", "2001:db8::1-2001:db8::ff/120"),
    ] {
        assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), range, "{text}");
    }
}

#[test]
fn ranges_that_are_none_say_why() {
    for (text, why) in [
        ("192.0.2.1", "no prefix length"),
        ("192.0.2.9-192.0.2.1/24", "not before it"),
        ("192.0.2.1-2001:db8::1/64", "the first of the range"),
        ("192.0.2.1-192.0.3.1/24", "another network"),
        ("192.0.2.1-192.0.2.255/24", "the last of the range"),
        ("10.0.0.1-10.9.0.1/8", "at most 65536"),
        ("2001:db8::1-2001:db8:0:1::1/64", "at most 65536"),
        ("10.0.0.0/8", "at most 65536"),
        ("192.0.2.255/24", "broadcast"),
        ("255.255.255.255/24", "broadcast"),
        ("rabbit/24", "not an IPv4 or IPv6 address"),
    ] {
        let error = text.parse::<AddressRange>().unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn times_have_units() {
    for (text, us) in
        [("5", 5_000_000), ("0.5", 500_000), ("250ms", 250_000), ("7us", 7), ("2m", 120_000_000), ("1h", 3_600_000_000)]
    {
        assert_eq!(time(text).unwrap().as_micros(), us, "{text}");
    }
    for text in ["", "s", "-1", "5 parsecs", "1e300", "nan", "inf", "90000h"] {
        assert!(time(text).is_err(), "{text}");
    }
}

#[test]
fn wrong_flags_are_refused_with_a_reason() {
    for (text, why) in [
        ("handfast-load --rate 10 --concurrency 10", "cannot be used with"),
        ("handfast-load --rate 0", "from 0.001"),
        ("handfast-load --rate fast", "give connections a second"),
        ("handfast-load --concurrency 0", "not in 1.."),
        ("handfast-load --driver dpdk", "af_xdp"),
        ("handfast-load gateway", "[possible values: client, server]"),
        ("handfast-load --request-bytes 0", "not in 1.."),
    ] {
        let error = parsed(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert_eq!(parsed("handfast-load --rate 1_000_000").unwrap().rate, Some(1e6));
}
