use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn random_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..24), tagged: bool) {
        if let (true, Some(at)) = (tagged, bytes.get_mut(12..14)) {
            at.copy_from_slice(&[0x81, 0]);
        }
        if let Ok((_, len)) = Ethernet::parse(&bytes) {
            prop_assert!(len <= bytes.len());
        }
    }

    #[test]
    fn what_is_written_is_read(
        dst: [u8; 6], src: [u8; 6], vlan in proptest::option::of(1u16..4095), ethertype: u16, room in 18usize..30
    ) {
        prop_assume!(ethertype != ETHERTYPE_VLAN);
        let ethernet = Ethernet { dst: Mac(dst), src: Mac(src), vlan, ethertype };
        let mut bytes = [0xee; 30];
        ethernet.emit(&mut bytes[..room]);
        prop_assert_eq!(Ethernet::parse(&bytes), Ok((ethernet, ethernet.len())));
        prop_assert!(bytes[ethernet.len()..].iter().all(|&b| b == 0xee));
    }
}

#[test]
fn a_priority_tag_counts_as_untagged() {
    let mut bytes = [0; 18];
    bytes[12..].copy_from_slice(&[0x81, 0, 0xe0, 0, 8, 0]);
    let (ethernet, len) = Ethernet::parse(&bytes).unwrap();
    assert_eq!((ethernet.vlan, ethernet.ethertype, len), (None, ETHERTYPE_IPV4, 18));
}

#[test]
fn the_priority_is_no_part_of_the_vlan_and_4095_is_none() {
    let mut bytes = [0; 18];
    bytes[12..].copy_from_slice(&[0x81, 0, 0xe0, 5, 8, 0]);
    assert_eq!(Ethernet::parse(&bytes).unwrap().0.vlan, Some(5));
    bytes[14..16].fill(0xff);
    assert_eq!(Ethernet::parse(&bytes), Err(DropReason::Vlan));
    assert_eq!(Ethernet::parse(&bytes[..17]), Err(DropReason::Truncated));
}
