use super::*;
use proptest::prelude::*;

fn listener(address: Option<Address>, port: u16, half_open_max: u32) -> Listener {
    Listener { address, port, half_open: 0, half_open_max }
}

const V4: Address = Address::v4([192, 0, 2, 1]);
const OTHER_V4: Address = Address::v4([192, 0, 2, 2]);
const V6: Address = Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

#[test]
fn the_nearest_listener_gets_the_segment() {
    let mut listeners = Listeners::with_capacity(8);
    for (half_open_max, address) in [None, Some(Address::UNSPECIFIED_V4), Some(V4)].into_iter().enumerate() {
        listeners.insert(listener(address, 80, half_open_max as u32)).expect("free");
    }
    let found = |address| listeners.find(address, 80).map(|(_, listener)| listener.half_open_max);
    assert_eq!([found(V6), found(OTHER_V4), found(V4)], [Some(0), Some(1), Some(2)]);
    assert_eq!(listeners.find(V4, 81), None);
}

#[test]
fn a_taken_end_and_a_full_table_are_refused() {
    let mut listeners = Listeners::with_capacity(2);
    let first = listeners.insert(listener(None, 80, 0)).expect("free");
    assert_eq!(listeners.insert(listener(None, 80, 1)), Err(ListenError::InUse));
    listeners.insert(listener(None, 81, 0)).expect("free");
    assert_eq!(listeners.insert(listener(None, 82, 0)), Err(ListenError::TooMany));
    assert_eq!(listeners.remove(first).map(|l| l.port), Some(80));
    assert_eq!(listeners.get(first), None);
    assert_eq!(listeners.remove(first), None);
    assert_ne!(listeners.insert(listener(None, 80, 0)), Ok(first));
}

proptest! {
    #[test]
    fn it_agrees_with_a_plain_list(ops in prop::collection::vec((prop::bool::weighted(0.7), 0usize..6, 80u16..84), 1..60)) {
        let addresses = [None, Some(Address::UNSPECIFIED_V4), Some(Address::UNSPECIFIED_V6), Some(V4), Some(OTHER_V4), Some(V6)];
        let mut listeners = Listeners::with_capacity(12);
        let mut oracle: Vec<(Option<Address>, u16, ListenerId)> = Vec::new();
        for (add, address, port) in ops {
            let address = addresses[address];
            let at = oracle.iter().position(|(a, p, _)| (*a, *p) == (address, port));
            match (add, at) {
                (true, None) => match listeners.insert(listener(address, port, 0)) {
                    Ok(id) => oracle.push((address, port, id)),
                    Err(error) => prop_assert_eq!((error, oracle.len()), (ListenError::TooMany, 12)),
                },
                (true, Some(_)) => prop_assert_eq!(listeners.insert(listener(address, port, 0)), Err(ListenError::InUse)),
                (false, at) => if let Some(at) = at {
                    prop_assert!(listeners.remove(oracle.swap_remove(at).2).is_some());
                },
            }
            prop_assert_eq!(listeners.len() as usize, oracle.len());
            for (local, family) in [(V4, Address::UNSPECIFIED_V4), (OTHER_V4, Address::UNSPECIFIED_V4), (V6, Address::UNSPECIFIED_V6)] {
                for port in 80..84 {
                    let expected = [Some(local), Some(family), None]
                        .iter()
                        .find_map(|a| oracle.iter().find(|o| (&o.0, o.1) == (a, port)).map(|o| o.2));
                    prop_assert_eq!(listeners.find(local, port).map(|(place, _)| place), expected.map(|id| id.index as u16));
                }
            }
        }
    }
}
