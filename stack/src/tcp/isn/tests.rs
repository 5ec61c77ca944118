use alloc::format;

use super::*;
use crate::wire::address::Address;

const NOW: Instant = Instant::from_micros(1 << 40);

fn key(remote_port: u16) -> FlowKey {
    FlowKey { local: Address::v4([10, 0, 0, 1]), remote: Address::v4([10, 0, 0, 2]), local_port: 80, remote_port }
}

fn key6(last: u8) -> FlowKey {
    let (mut local, mut remote) = ([0xfd; 16], [0xfd; 16]);
    (local[15], remote[15]) = (1, last);
    FlowKey { local: Address::v6(local), remote: Address::v6(remote), local_port: 80, remote_port: 9 }
}

#[test]
fn the_number_grows_by_one_every_four_microseconds() {
    let secret = IsnSecret::new(&[7; 16], [1, 2]);
    for key in [key(9), key6(2)] {
        let first = secret.generate(&key, NOW);
        let later = NOW + crate::time::Duration::from_micros(4_000);
        assert_eq!(secret.generate(&key, later).since(first), 1_000);
    }
}

#[test]
fn each_connection_has_a_sequence_space_of_its_own_under_each_secret() {
    let (a, b) = (IsnSecret::new(&[7; 16], [1, 2]), IsnSecret::new(&[8; 16], [1, 2]));
    assert_ne!(a.generate(&key(9), NOW), a.generate(&key(10), NOW));
    assert_ne!(a.generate(&key6(2), NOW), a.generate(&key6(3), NOW));
    assert_ne!(a.generate(&key(9), NOW), b.generate(&key(9), NOW));
    assert_eq!(a.generate(&key(9), NOW), a.clone().generate(&key(9), NOW));
}

#[test]
fn a_flow_keeps_its_timestamp_offset_and_others_have_others() {
    let secret = IsnSecret::new(&[7; 16], [0x1234_5678_9abc_def0, 0xfeed_face_dead_beef]);
    assert_eq!(secret.timestamp_offset(5), secret.timestamp_offset(5));
    assert_ne!(secret.timestamp_offset(5), secret.timestamp_offset(6));
}

#[test]
fn a_secret_is_not_printed() {
    assert_eq!(format!("{:?}", IsnSecret::new(&[7; 16], [1, 2])), "IsnSecret(..)");
}
