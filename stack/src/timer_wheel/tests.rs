use super::*;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use proptest::prelude::*;

fn drain(wheel: &mut TimerWheel, now: u32) -> Vec<u32> {
    core::iter::from_fn(|| wheel.pop_expired(now)).collect()
}

#[test]
fn an_entry_expires_at_its_deadline_and_not_before() {
    for start in [0, 1, 255, 0xffff, u32::MAX - 3, 0x7fff_ff00] {
        for span in [1, 2, 255, 256, 257, 65_535, 65_536, 70_000, 1 << 24, (1 << 24) + 1, i32::MAX as u32] {
            let mut wheel = TimerWheel::new(4, start);
            let deadline = start.wrapping_add(span);
            wheel.arm(2, deadline);
            assert_eq!(drain(&mut wheel, deadline.wrapping_sub(1)), vec![]);
            assert!(wheel.is_armed(2));
            assert_eq!(drain(&mut wheel, deadline), vec![2], "{start} + {span}");
            assert!(!wheel.is_armed(2) && wheel.is_empty());
            assert_eq!(wheel.next_deadline(), None);
        }
    }
}

#[test]
fn a_past_deadline_is_due_at_once() {
    let mut wheel = TimerWheel::new(2, 1000);
    wheel.arm(0, 1000);
    wheel.arm(1, 400);
    assert_eq!(wheel.next_deadline(), Some(1000));
    assert_eq!(drain(&mut wheel, 1000), vec![0, 1]);
}

#[test]
fn waking_at_each_bound_finds_the_deadline_in_few_steps() {
    let mut wheel = TimerWheel::new(1, 77);
    wheel.arm(0, 77 + 1_900_000_000);
    let mut steps = 0;
    loop {
        let next = wheel.next_deadline().expect("armed");
        steps += 1;
        if wheel.pop_expired(next).is_some() {
            assert_eq!(next, 77 + 1_900_000_000);
            break;
        }
    }
    assert!(steps <= LEVELS, "{steps}");
}

#[test]
fn a_crowded_coarse_slot_is_filed_in_portions_and_holds_up_no_nearer_deadline() {
    let crowd = 10 * REFILED_PER_CALL_MAX;
    let mut wheel = TimerWheel::new(crowd + 1, 0);
    for id in 0..crowd {
        wheel.arm(id, 0x0200_0000 + 0x8000);
    }
    wheel.pop_expired(0x0200_0000);
    wheel.arm(crowd, 0x0200_0002);
    assert_eq!(wheel.next_deadline(), Some(0x0200_0000));
    assert_eq!(wheel.pop_expired(0x0200_0001), None);
    assert_eq!(wheel.pop_expired(0x0200_0002), Some(crowd));
    for _ in 0..10 {
        assert_eq!(wheel.pop_expired(0x0200_0002), None);
    }
    assert_eq!(wheel.next_deadline(), Some(0x0200_8000 & !0xff));
    assert_eq!(drain(&mut wheel, 0x0200_7fff), vec![]);
    let mut expired = BTreeSet::new();
    while !wheel.is_empty() {
        expired.extend(drain(&mut wheel, 0x0200_8000));
    }
    assert_eq!(expired.len() as u32, crowd);
}

#[test]
fn memory_is_reserved_once() {
    let mut wheel = TimerWheel::new(10_000, 0);
    let reserved = wheel.nodes.capacity();
    for id in 0..10_000 {
        wheel.arm(id, id * 3);
    }
    assert_eq!(wheel.nodes.capacity(), reserved);
    assert_eq!(wheel.len(), 10_000);
}

#[derive(Clone, Debug)]
enum Op {
    Arm(u32, i32),
    ArmBy(u32, i32),
    Cancel(u32),
    Advance(u32),
}

fn span() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, 0u32..600, 0u32..200_000, 0u32..40_000_000, 0u32..0x7fff_0000]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u32..40, span(), prop::bool::weighted(0.05))
            .prop_map(|(id, span, past)| Op::Arm(id, if past { -(span as i32 / 2) } else { span as i32 })),
        3 => (0u32..40, 0u32..40_000_000).prop_map(|(id, span)| Op::ArmBy(id, span as i32)),
        2 => (0u32..40).prop_map(Op::Cancel),
        4 => span().prop_map(Op::Advance),
    ];
    prop::collection::vec(op, 1..120)
}

proptest! {
    #[test]
    fn it_agrees_with_a_sorted_map(start in prop_oneof![any::<u32>(), (u32::MAX - 300)..=u32::MAX], ops in ops()) {
        let mut wheel = TimerWheel::new(40, start);
        let mut now = u64::from(start);
        let mut oracle: BTreeMap<u32, i64> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Arm(id, after) => {
                    // A deadline that cannot be told from a past one is outside the contract.
                    wheel.arm(id, (now as u32).wrapping_add(after as u32));
                    oracle.insert(id, now as i64 + i64::from(after));
                }
                Op::ArmBy(id, after) => {
                    let by = now as i64 + i64::from(after);
                    let at = *oracle.entry(id).and_modify(|at| *at = by.min(*at)).or_insert(by);
                    prop_assert_eq!(wheel.arm_by(id, by as u32), at as u32);
                }
                Op::Cancel(id) => prop_assert_eq!(wheel.cancel(id), oracle.remove(&id).is_some()),
                Op::Advance(by) => {
                    now += u64::from(by);
                    let expired = drain(&mut wheel, now as u32).into_iter().collect::<BTreeSet<_>>();
                    let due = oracle.extract_if(.., |_, at| *at <= now as i64).map(|(id, _)| id).collect::<BTreeSet<_>>();
                    prop_assert_eq!(expired, due);
                }
            }
            prop_assert_eq!(wheel.len() as usize, oracle.len());
            for id in 0..40 {
                prop_assert_eq!(wheel.deadline(id), oracle.get(&id).map(|at| *at as u32));
            }
            match (wheel.next_deadline(), oracle.values().min()) {
                (None, None) => {}
                (Some(bound), Some(first)) => prop_assert!(!is_after(bound, (*first).max(now as i64) as u32), "{} {}", bound, first),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
