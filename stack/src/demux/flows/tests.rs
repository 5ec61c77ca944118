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
fn it_has_room_for_as_many_as_it_was_made_for_and_refuses_what_does_not_fit() {
    for limit in [0u32, 1, 2, 7, 14, 15, 100, 1000] {
        let mut flows = Flows::with_capacity(limit);
        let slots = (flows.buckets.len() * SLOTS) as u32;
        let fitting =
            (0..=slots).take_while(|n| flows.insert(scramble((*n).into()), Owner::Conn(*n)).is_some()).count();
        assert!((limit as usize..=slots as usize).contains(&fitting), "{fitting} of {limit}");
        assert_eq!(flows.len(), fitting);
        for n in 0..fitting as u32 {
            assert!(flows.remove(scramble(n.into()), Owner::Conn(n)));
        }
        assert!(flows.is_empty() && strays(&flows) == 0);
    }
}

#[test]
fn a_flow_keeps_its_place_whoever_owns_it() {
    let mut flows = Flows::with_capacity(64);
    let mut beyond = 0;
    for n in 0..64 {
        let hash = scramble(n.into());
        let place = flows.insert(hash, Owner::SynRcvd(n)).expect("room");
        assert_eq!(flows.replace(hash, Owner::SynRcvd(n), Owner::Conn(n)), place);
        assert_eq!(flows.replace_at(place, Owner::Conn(n), Owner::TimeWait(n)), place != Place::BEYOND);
        assert_eq!(flows.owner_at(place), (place != Place::BEYOND).then_some(Owner::TimeWait(n)));
        beyond += u32::from(place == Place::BEYOND);
    }
    // Two flows of one hash are told apart by their owners, and a place is no other flow's.
    let (one, other) =
        (flows.insert(7, Owner::Conn(100)).expect("room"), flows.insert(7, Owner::Conn(101)).expect("room"));
    assert!(!flows.remove_at(one, Owner::Conn(101)) && !flows.replace_at(other, Owner::Conn(100), Owner::Conn(102)));
    assert!(flows.remove_at(one, Owner::Conn(100)) && flows.remove_at(other, Owner::Conn(101)));
    assert!(!flows.remove_at(Place::BEYOND, Owner::Conn(100)));
    assert_eq!(flows.len(), 64);
    assert!(beyond < 16, "{beyond}");
    for place in [one, Place::BEYOND] {
        for mark in [false, true] {
            let marked = MarkedPlace::new(place, mark);
            assert_eq!((marked.place(), marked.is_marked()), (place, mark));
        }
    }
}

#[test]
fn millions_of_flows_coming_and_going_at_the_limit_leave_no_trace() {
    let limit = 8 << 12;
    for pattern in ["at random", "the oldest first", "the newest first"] {
        let mut flows = Flows::with_capacity(limit);
        let mut live = (0..limit).map(|n| scramble(n.into())).collect::<Vec<_>>();
        for (n, hash) in live.iter().enumerate() {
            assert!(flows.insert(*hash, Owner::Conn(n as u32)).is_some());
        }
        for n in 0..2_000_000u64 {
            let slot = match pattern {
                "at random" => scramble(n ^ 1 << 40) % u64::from(limit),
                "the oldest first" => n % u64::from(limit),
                _ => scramble(n) % 64,
            } as usize;
            assert!(flows.remove(live[slot], Owner::Conn(slot as u32)));
            live[slot] = scramble(u64::from(limit) + n);
            assert!(flows.insert(live[slot], Owner::Conn(slot as u32)).is_some());
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
        assert!(flows.insert(scramble(n), Owner::Conn(n as u32)).is_some());
    }
    let mut looked = 0;
    for n in 100_000..200_000 {
        flows.find(scramble(n), |_| {
            looked += 1;
            false
        });
    }
    assert!(looked < 5_000, "{looked}");
    let guessed = (0..100_000)
        .filter(|n| flows.guess(scramble(*n)).is_some_and(|guess| guess.owner() == Owner::Conn(*n as u32)))
        .count();
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
    fn it_agrees_with_a_map(ops in prop::collection::vec((0..5, 0u64..60, owner()), 1..300)) {
        let mut flows = Flows::with_capacity(32);
        // Key to owner. Many keys share a hash, as an unlucky hash would have it.
        let mut oracle: BTreeMap<u64, Owner> = BTreeMap::new();
        let mut places: BTreeMap<u64, Place> = BTreeMap::new();
        let hash = |key: u64| scramble(key / 20);
        for (op, key, owner) in ops {
            let taken = oracle.values().any(|o| *o == owner);
            let old = oracle.get(&key).copied();
            match op {
                0 | 1 if !taken && old.is_none() => {
                    let place = flows.insert(hash(key), owner);
                    prop_assert!(place.is_some() || oracle.len() >= 32);
                    if let Some(place) = place {
                        oracle.insert(key, owner);
                        places.insert(key, place);
                    }
                }
                2 if !taken => {
                    let from = old.unwrap_or(Owner::Conn(1_000));
                    prop_assert_eq!(flows.replace(hash(key), from, owner), places.get(&key).copied().unwrap_or(Place::BEYOND));
                    oracle.entry(key).and_modify(|o| *o = owner);
                }
                3 => {
                    prop_assert_eq!(flows.remove(hash(key), old.unwrap_or(Owner::Conn(1_000))), oracle.remove(&key).is_some());
                    places.remove(&key);
                }
                4 => {
                    if let Some(old) = old {
                        let place = places[&key];
                        let is_removed = flows.remove_at(place, old) || flows.remove(hash(key), old);
                        prop_assert!(is_removed && oracle.remove(&key).is_some());
                        places.remove(&key);
                    }
                }
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
