use super::*;

#[test]
fn an_address_with_its_network_is_read_and_written_alike() {
    for text in
        ["192.0.2.1/24", "10.0.0.1/31", "10.0.0.0/31", "10.0.0.0/32", "2001:db8::1/64", "2001:db8::/127", "fe80::1/10"]
    {
        assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let error = |text: &str| text.parse::<Cidr>().unwrap_err();
    assert_eq!(error("192.0.2.1"), CidrError::NoPrefix("192.0.2.1".into()));
    assert_eq!(error("192.0.2/24"), CidrError::Address("192.0.2".into()));
    assert_eq!(error("/24"), CidrError::Address("".into()));
    for prefix in ["", "+24", "-1", "255.255.255.0", "24/24", "99999999999"] {
        assert_eq!(error(&format!("192.0.2.1/{prefix}")), CidrError::Prefix(prefix.into()));
    }
    assert_eq!(error("192.0.2.1/33"), CidrError::PrefixTooLong { prefix_len: 33, bits: 32 });
    assert_eq!(error("2001:db8::1/300"), CidrError::PrefixTooLong { prefix_len: 300, bits: 128 });
    for text in ["0.0.0.0/8", "224.0.0.1/24", "127.0.0.1/8", "::1/128", "ff02::1/64", "::/0"] {
        assert!(matches!(error(text), CidrError::NotAHost(_)), "{text}");
    }
    for text in ["192.0.2.0/24", "192.0.2.255/24", "255.255.255.255/0", "2001:db8::/64"] {
        assert!(matches!(error(text), CidrError::Network(_)), "{text}");
    }
}
