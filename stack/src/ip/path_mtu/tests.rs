use super::*;
use alloc::collections::BTreeMap;
use proptest::prelude::*;

const NOW: Instant = Instant::from_micros(1);

fn v4(n: u8) -> Address {
    Address::v4([10, 0, 0, n])
}

#[test]
fn a_path_mtu_is_lowered_never_raised_and_forgotten_after_ten_minutes() {
    let mut mtus = PathMtus::new(4, [1; 16]);
    assert_eq!(mtus.get(NOW, v4(1), 1500), 1500);
    assert_eq!(mtus.lower(NOW, v4(1), 1400, 1500), Some(1400));
    assert_eq!(mtus.lower(NOW, v4(1), 1450, 1500), None);
    assert_eq!((mtus.get(NOW, v4(1), 1500), mtus.get(NOW, v4(2), 1500)), (1400, 1500));
    assert_eq!(mtus.get(NOW + LIFETIME, v4(1), 1500), 1500);
    assert_eq!(mtus.lower(NOW + LIFETIME, v4(1), 1450, 1500), Some(1450));
}

#[test]
fn a_forged_tiny_mtu_does_not_get_below_the_floor() {
    let mut mtus = PathMtus::new(4, [1; 16]);
    assert_eq!(mtus.lower(NOW, v4(1), 68, 1500), Some(552));
    let v6 = "2001:db8::1".parse().unwrap();
    assert_eq!(mtus.lower(NOW, v6, 1279, 1500), None);
    assert_eq!(mtus.lower(NOW, v6, 1280, 1500), Some(1280));
    assert_eq!(mtus.lower(NOW, v4(2), 70_000, 1500), None);
}

proptest! {
    #[test]
    fn it_is_a_map_that_may_forget_but_not_lie(steps in proptest::collection::vec((0u8..12, 500u32..1600), 1..200)) {
        let mut mtus = PathMtus::new(8, [1; 16]);
        let mut dumb: BTreeMap<u8, u16> = BTreeMap::new();
        for (host, mtu) in steps {
            if let Some(lowered) = mtus.lower(NOW, v4(host), mtu, 1500) {
                prop_assert_eq!(u32::from(lowered), mtu.max(552));
                dumb.insert(host, lowered);
                prop_assert_eq!(mtus.get(NOW, v4(host), 1500), lowered);
            }
            prop_assert!(mtus.paths.len() <= 8);
            for (&host, &mtu) in &dumb {
                let known = mtus.get(NOW, v4(host), 1500);
                prop_assert!(known == 1500 || known == mtu);
            }
        }
    }
}
