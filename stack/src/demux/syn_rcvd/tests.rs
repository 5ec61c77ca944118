use super::*;
use crate::wire::address::Address;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use proptest::prelude::*;

fn record(n: u16) -> SynRcvd {
    let key = FlowKey {
        local: Address::v4([10, 0, 0, 1]),
        remote: Address::v4([10, 0, 0, 2]),
        local_port: 80,
        remote_port: n,
    };
    SynRcvd {
        key,
        iss: Seq(1),
        irs: Seq(2),
        ts_recent: 3,
        mss: 1460,
        listener: 3,
        offered: Offered::new(Some(7), true, false),
        retries: 0,
        due: 0,
    }
}

#[test]
fn the_waits_double_from_one_second_to_sixty_four() {
    let start = u32::MAX - 5_000;
    let mut table = SynRcvds::with_capacity(1);
    let index = table.insert(start, record(1)).expect("room");
    let mut now = start;
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
        assert_eq!(table.due(now.wrapping_add(seconds * 1000 - 1)), None, "{seconds} s");
        now = now.wrapping_add(seconds * 1000 + DUE_UNIT_MS);
        assert_eq!(table.due(now), Some(index), "{seconds} s");
        assert_eq!(table.due(now), Some(index));
        table.retried(index, now);
    }
    assert_eq!(table.remove(index).map(|r| r.retries), Some(9));
    assert_eq!(table.next_deadline(), None);
    assert_eq!(table.due(now), None);
}

#[test]
fn options_survive_the_way_through_a_byte() {
    for scale in [None, Some(0), Some(7), Some(14)] {
        for (timestamps, sack) in [(false, false), (true, false), (false, true), (true, true)] {
            let offered = Offered::new(scale, timestamps, sack);
            assert_eq!((offered.window_scale(), offered.timestamps(), offered.sack()), (scale, timestamps, sack));
        }
    }
    assert_eq!(Offered::new(Some(255), false, false).window_scale(), Some(14));
}

proptest! {
    #[test]
    fn it_agrees_with_a_map_of_deadlines(
        start in prop_oneof![any::<u32>(), (u32::MAX - 100_000)..=u32::MAX],
        ops in prop::collection::vec((0..4, 0u32..30, prop_oneof![0u32..50, 0u32..3_000, 0u32..40_000]), 1..150),
    ) {
        let mut table = SynRcvds::with_capacity(20);
        let mut now = u64::from(start);
        // Index to (deadline, retries).
        let mut oracle: BTreeMap<u32, (u64, u8)> = BTreeMap::new();
        let round_up = |at: u64| at.div_ceil(16) * 16;
        for (op, index, span) in ops {
            match op {
                0 | 1 => {
                    let stored = table.insert(now as u32, record(index as u16));
                    prop_assert_eq!(stored.is_some(), oracle.len() < 20);
                    oracle.extend(stored.map(|i| (i, (round_up(now + 1000), 0))));
                }
                2 => prop_assert_eq!(table.remove(index).is_some(), oracle.remove(&index).is_some()),
                _ => {
                    now += u64::from(span);
                    let mut due = oracle.iter().filter(|(_, d)| d.0 <= now).map(|(i, _)| *i).collect::<Vec<_>>();
                    while let Some(index) = table.due(now as u32) {
                        let at = due.iter().position(|i| *i == index);
                        prop_assert!(at.is_some(), "{} is not due", index);
                        due.remove(at.expect("checked"));
                        let (deadline, retries) = oracle.get_mut(&index).expect("in the oracle");
                        if *retries == 5 {
                            table.remove(index);
                            oracle.remove(&index);
                        } else {
                            table.retried(index, now as u32);
                            *retries += 1;
                            *deadline = round_up(now + (1000 << *retries));
                        }
                    }
                    prop_assert!(due.is_empty(), "not reported: {:?}", due);
                }
            }
            prop_assert_eq!(table.len() as usize, oracle.len());
            let first = oracle.values().map(|d| d.0).min();
            prop_assert_eq!(table.next_deadline().is_some(), first.is_some());
            if let (Some(bound), Some(first)) = (table.next_deadline(), first) {
                prop_assert!(!is_before(first as u32, bound), "{} {}", first as u32, bound);
            }
        }
    }
}
