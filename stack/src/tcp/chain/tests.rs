use super::*;
use proptest::prelude::*;

const SLOTS: u32 = 24;

#[derive(Clone, Debug)]
enum Step {
    PushBack,
    /// Behind the n-th element, or in front of all.
    Insert(usize),
    PopFront,
    /// The element behind the n-th, or the first.
    Remove(usize),
    Clear,
    Change(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::PushBack),
        4 => (0..12usize).prop_map(Step::Insert),
        4 => Just(Step::PopFront),
        3 => (0..12usize).prop_map(Step::Remove),
        1 => Just(Step::Clear),
        2 => (0..12usize).prop_map(Step::Change),
    ]
}

proptest! {
    #[test]
    fn two_chains_in_one_store_are_two_vectors(steps in proptest::collection::vec((0..2usize, step()), 1..200)) {
        let mut store: Store<u64, u32> = Store::new(SLOTS);
        let mut chains = [Chain::EMPTY; 2];
        let mut oracle: [Vec<(u32, u64, Seq)>; 2] = [Vec::new(), Vec::new()];
        let mut free: Vec<u32> = (0..SLOTS).collect();
        for (serial, (which, step)) in steps.into_iter().enumerate() {
            let (chain, list) = (&mut chains[which], &mut oracle[which]);
            let (item, seq) = (serial as u64, Seq(serial as u32 * 1000));
            // 0 stands for the place in front of all, n for that behind the n-th.
            let place = |n: usize| n % (list.len() + 1);
            let before = |n: usize| if n == 0 { NIL } else { list[n - 1].0 };
            match step {
                Step::PushBack => if let Some(at) = free.pop() {
                    store.push_back(chain, at, item, seq);
                    list.push((at, item, seq));
                },
                Step::Insert(n) => if let Some(at) = free.pop() {
                    let n = place(n);
                    store.insert_after(chain, before(n), at, item, seq);
                    list.insert(n, (at, item, seq));
                },
                Step::PopFront => {
                    let popped = (!list.is_empty()).then(|| list.remove(0));
                    prop_assert_eq!(store.pop_front(chain), popped.map(|(_, item, seq)| (item, seq)));
                    free.extend(popped.map(|(at, ..)| at));
                }
                Step::Remove(n) => {
                    let n = place(n);
                    let removed = store.remove_after(chain, before(n));
                    let expected = (n < list.len()).then(|| list.remove(n));
                    prop_assert_eq!(removed, expected.map(|(_, item, seq)| (item, seq)));
                    free.extend(expected.map(|(at, ..)| at));
                }
                Step::Clear => {
                    store.clear(chain);
                    free.extend(list.drain(..).map(|(at, ..)| at));
                }
                Step::Change(n) => if let Some(entry) = list.get_mut(n) {
                    let (found, at_seq, note) = store.get_mut(entry.0).unwrap();
                    (*found, *at_seq, *note) = (item, seq, 7);
                    (entry.1, entry.2) = (item, seq);
                },
            }
            for (chain, list) in chains.iter().zip(&oracle) {
                let found: Vec<_> = store.iter(chain).map(|(at, &item, slot)| (at, item, slot.seq)).collect();
                prop_assert_eq!(&found, list);
                prop_assert_eq!(chain.is_empty(), list.is_empty());
                prop_assert_eq!(chain.head(), list.first().map_or(NIL, |entry| entry.0));
                prop_assert_eq!(chain.tail(), list.last().map_or(NIL, |entry| entry.0));
            }
            for &at in &free {
                prop_assert!(store.get(at).is_none());
            }
        }
    }
}

#[test]
fn an_element_comes_back_without_the_notes_of_its_last_use() {
    let mut store: Store<u8, u32> = Store::new(2);
    let mut chain = Chain::EMPTY;
    store.push_back(&mut chain, 1, 5, Seq(3));
    *store.get_mut(1).unwrap().2 = 9;
    store.pop_front(&mut chain);
    store.push_back(&mut chain, 1, 6, Seq(4));
    assert_eq!(store.get(1).unwrap().1.note, 0);
    assert!(store.get(NIL).is_none() && store.get_mut(NIL).is_none());
}
