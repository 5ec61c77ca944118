use super::*;

#[test]
fn the_loopback_interface_is_known() {
    assert!(interface_index("lo").unwrap() > 0);
    assert_eq!(mac("lo").unwrap(), [0; 6]);
    assert!(mtu("lo").unwrap() >= 1500);
    // It has no channels to ask for: counted in /sys.
    assert_eq!(queue_count("lo").unwrap(), 1);
}

#[test]
fn an_unknown_interface_is_named_in_the_error() {
    for name in ["hf-none", "", "a-name-that-is-longer-than-any", "nul\0nul"] {
        let is_missing = |error| matches!(error, Error::NoInterface { interface } if interface == name);
        assert!(is_missing(interface_index(name).unwrap_err()), "{name:?}");
        assert!(is_missing(queue_count(name).unwrap_err()), "{name:?}");
        assert!(is_missing(mac(name).unwrap_err()), "{name:?}");
        assert!(is_missing(mtu(name).unwrap_err()), "{name:?}");
    }
}
