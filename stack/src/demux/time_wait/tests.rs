use super::*;
use crate::demux::flows::Place;
use crate::wire::address::Address;
use alloc::collections::BTreeMap;
use proptest::prelude::*;

fn record(n: u16) -> TimeWait {
    let key = FlowKey {
        local: Address::v4([10, 0, 0, 1]),
        remote: Address::v4([10, 0, 0, 2]),
        local_port: 80,
        remote_port: n,
    };
    TimeWait {
        key,
        snd_nxt: Seq(1),
        rcv_nxt: Seq(2),
        ts_recent: 3,
        expiry: 0,
        place: MarkedPlace::new(Place::BEYOND, true),
    }
}

fn expire(table: &mut TimeWaits, now: u32) -> Option<(u32, TimeWait)> {
    let mut over = None;
    table.discard_over(now, |index, record| over.is_none() && over.replace((index, *record)).is_none());
    over
}

#[test]
fn a_fin_that_comes_again_starts_the_wait_anew() {
    let mut table = TimeWaits::with_capacity(2, 60_000);
    let first = table.insert(0, || record(1)).expect("room");
    let second = table.insert(10, || record(2)).expect("room");
    assert_eq!(table.insert(20, || record(3)), None);
    assert_eq!(table.oldest().map(|(i, _)| i), Some(first));
    table.restart(first, 30_000);
    assert_eq!(table.oldest().map(|(i, _)| i), Some(second));
    assert_eq!(expire(&mut table, 60_009), None);
    assert_eq!(expire(&mut table, 60_010).map(|(i, r)| (i, r.key.remote_port)), Some((second, 2)));
    assert_eq!(expire(&mut table, 89_999), None);
    assert_eq!(table.next_deadline(), Some(90_000));
    assert_eq!(expire(&mut table, 90_000).map(|(i, _)| i), Some(first));
    assert!(table.is_empty());
}

proptest! {
    #[test]
    fn it_agrees_with_a_map_of_expiries(
        start in prop_oneof![any::<u32>(), (u32::MAX - 100_000)..=u32::MAX],
        ops in prop::collection::vec((0..5, 0u32..20, 0u32..30_000), 1..150),
    ) {
        let mut table = TimeWaits::with_capacity(16, 60_000);
        let mut now = u64::from(start);
        let mut oracle: BTreeMap<u32, u64> = BTreeMap::new();
        for (op, index, span) in ops {
            match op {
                0 | 1 => {
                    let stored = table.insert(now as u32, || record(index as u16));
                    prop_assert_eq!(stored.is_some(), oracle.len() < 16);
                    oracle.extend(stored.map(|i| (i, now + 60_000)));
                }
                2 => prop_assert_eq!(table.remove(index).is_some(), oracle.remove(&index).is_some()),
                3 => {
                    table.restart(index, now as u32);
                    oracle.entry(index).and_modify(|at| *at = now + 60_000);
                }
                _ => {
                    now += u64::from(span);
                    while let Some((index, _)) = expire(&mut table, now as u32) {
                        prop_assert!(oracle.remove(&index).is_some_and(|at| at <= now));
                    }
                    prop_assert!(oracle.values().all(|at| *at > now));
                }
            }
            prop_assert_eq!(table.next_deadline(), oracle.values().min().map(|at| *at as u32));
            prop_assert_eq!(table.len() as usize, oracle.len());
        }
    }
}
