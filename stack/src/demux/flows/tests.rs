use super::*;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A sequence without visible order, as the keyed hash gives.
fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 32
}

#[test]
fn it_refuses_what_is_over_the_limit() {
    for limit in [0u32, 1, 2, 7, 14, 15, 100, 1000] {
        let mut flows = Flows::with_capacity(limit);
        for n in 0..limit {
            assert!(flows.insert(scramble(n.into()), Owner::Conn(n)));
        }
        assert!(!flows.insert(scramble(limit.into()), Owner::Conn(limit)));
        assert_eq!(flows.len(), limit as usize);
        assert!(flows.remove(scramble(0), Owner::Conn(0)) == (limit > 0));
    }
}

#[test]
fn millions_of_flows_coming_and_going_at_the_limit_leave_no_trace() {
    let limit = 8 << 12;
    for pattern in ["at random", "the oldest first", "the newest first"] {
        let mut flows = Flows::with_capacity(limit);
        let mut live = (0..limit).map(|n| scramble(n.into())).collect::<Vec<_>>();
        for (n, hash) in live.iter().enumerate() {
            assert!(flows.insert(*hash, Owner::Conn(n as u32)));
        }
        for n in 0..2_000_000u64 {
            let slot = match pattern {
                "at random" => scramble(n ^ 1 << 40) % u64::from(limit),
                "the oldest first" => n % u64::from(limit),
                _ => scramble(n) % 64,
            } as usize;
            assert!(flows.remove(live[slot], Owner::Conn(slot as u32)));
            live[slot] = scramble(u64::from(limit) + n);
            assert!(flows.insert(live[slot], Owner::Conn(slot as u32)));
        }
        // A stray is a flow beyond its first bucket. One in ten is the equilibrium (Erlang's loss formula), not a trend.
        assert!(strays(&flows) < u64::from(limit) / 8, "{pattern}: {}", strays(&flows));
        for (n, hash) in live.iter().enumerate() {
            assert!(flows.remove(*hash, Owner::Conn(n as u32)));
        }
        assert_eq!(strays(&flows), 0);
        assert!(flows.is_empty() && flows.buckets.iter().all(|bucket| bucket.tags.0 == [0; 16]));
    }
}

#[test]
fn a_flow_that_is_not_there_seldom_costs_a_look_at_a_record() {
    let mut flows = Flows::with_capacity(100_000);
    for n in 0..100_000 {
        assert!(flows.insert(scramble(n), Owner::Conn(n as u32)));
    }
    let mut looked = 0;
    for n in 100_000..200_000 {
        flows.find(scramble(n), |_| {
            looked += 1;
            false
        });
    }
    assert!(looked < 5_000, "{looked}");
    let guessed = (0..100_000).filter(|n| flows.guess(scramble(*n)).owner() == Owner::Conn(*n as u32)).count();
    assert!(guessed > 95_000, "{guessed}");
}

fn strays(flows: &Flows) -> u64 {
    flows.buckets.iter().map(|bucket| u64::from(bucket.went_past())).sum()
}

fn owner() -> impl Strategy<Value = Owner> {
    (0..3, prop_oneof![0u32..30, (Owner::INDEX_LIMIT - 30)..Owner::INDEX_LIMIT]).prop_map(
        |(stage, index)| match stage {
            0 => Owner::Conn(index),
            1 => Owner::SynRcvd(index),
            _ => Owner::TimeWait(index),
        },
    )
}

proptest! {
    #[test]
    fn it_agrees_with_a_map(ops in prop::collection::vec((0..4, 0u64..60, owner()), 1..300)) {
        let mut flows = Flows::with_capacity(32);
        // Key to owner. Many keys share a hash, as an unlucky hash would have it.
        let mut oracle: BTreeMap<u64, Owner> = BTreeMap::new();
        let hash = |key: u64| scramble(key / 20);
        for (op, key, owner) in ops {
            let taken = oracle.values().any(|o| *o == owner);
            let old = oracle.get(&key).copied();
            match op {
                0 | 1 if !taken && old.is_none() => {
                    let fits = oracle.len() < 32;
                    prop_assert_eq!(flows.insert(hash(key), owner), fits);
                    if fits {
                        oracle.insert(key, owner);
                    }
                }
                2 if !taken => {
                    let from = old.unwrap_or(Owner::Conn(1_000));
                    prop_assert_eq!(flows.replace(hash(key), from, owner), old.is_some());
                    oracle.entry(key).and_modify(|o| *o = owner);
                }
                3 => prop_assert_eq!(flows.remove(hash(key), old.unwrap_or(Owner::Conn(1_000))), oracle.remove(&key).is_some()),
                _ => {}
            }
            prop_assert_eq!(flows.len(), oracle.len());
            for key in 0..60 {
                let expected = oracle.get(&key).copied();
                prop_assert_eq!(flows.find(hash(key), |o| Some(o) == expected), expected);
            }
        }
    }
}
