use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn random_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..40), good_start: bool) {
        if let (true, Some(start)) = (good_start, bytes.first_chunk_mut()) {
            *start = [0, 1, 8, 0, 6, 4, 0, 1];
        }
        let _ = Arp::parse(&bytes);
    }

    #[test]
    fn what_is_written_is_read(request: bool, mut mac: [u8; 6], a: [u8; 4], target_mac: [u8; 6], b: [u8; 4]) {
        mac[0] = mac[0] & !1 | 2;
        let operation = if request { Operation::Request } else { Operation::Reply };
        let arp = Arp {
            operation, sender_mac: Mac(mac), sender: Address::v4(a), target_mac: Mac(target_mac), target: Address::v4(b),
        };
        let mut padded = [0; 46];
        padded[..LEN].copy_from_slice(&arp.emit());
        prop_assert_eq!(Arp::parse(&padded), Ok(arp));
        prop_assert_eq!(Arp::parse(&padded[..LEN - 1]), Err(DropReason::ArpMalformed));
    }
}

#[test]
fn another_hardware_or_a_group_as_sender_is_malformed() {
    let arp = Arp {
        operation: Operation::Request,
        sender_mac: Mac([2, 0, 0, 0, 0, 1]),
        sender: Address::v4([10, 0, 0, 1]),
        target_mac: Mac::default(),
        target: Address::v4([10, 0, 0, 2]),
    };
    for (offset, value) in [(1, 6), (4, 8), (7, 3), (8, 3)] {
        let mut bytes = arp.emit();
        bytes[offset] = value;
        assert_eq!(Arp::parse(&bytes), Err(DropReason::ArpMalformed));
    }
}
