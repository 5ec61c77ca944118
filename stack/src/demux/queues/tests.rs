use super::*;
use alloc::collections::VecDeque;
use alloc::vec;
use proptest::prelude::*;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Record(u32, [u8; 52]);

proptest! {
    #[test]
    fn it_agrees_with_plain_queues(ops in prop::collection::vec((0..5, 0usize..3, 0u32..12), 1..200)) {
        let mut queues = Queues::<Record, 3>::with_capacity(10);
        let reserved = queues.nodes.capacity();
        let mut oracle = vec![VecDeque::<u32>::new(); 3];
        for (op, queue, index) in ops {
            let held = (0..3).find(|q| oracle[*q].contains(&index));
            match (op, held) {
                (0 | 1, _) => {
                    let len: usize = oracle.iter().map(VecDeque::len).sum();
                    let stored = queues.insert(queue, || Record(index, [0; 52]));
                    prop_assert_eq!(stored.is_some(), len < 10);
                    oracle[queue].extend(stored);
                }
                (2, Some(from)) => {
                    queues.move_to_end(from, queue, index);
                    oracle[from].retain(|i| *i != index);
                    oracle[queue].push_back(index);
                }
                (4, _) => {
                    // The first of the queue, up to `index` of them, are all taken out.
                    let mut gone = vec![];
                    queues.discard_while(queue, |at, _| {
                        let goes = gone.len() < index as usize;
                        gone.extend(goes.then_some(at));
                        goes
                    });
                    let len = oracle[queue].len().min(index as usize);
 let expected: Vec<u32> = oracle[queue].drain(..len).collect();
                    prop_assert_eq!(gone, expected);
                }
                (3, _) => {
                    prop_assert_eq!(queues.remove(held.unwrap_or(0), index).is_some(), held.is_some());
                    oracle.iter_mut().for_each(|q| q.retain(|i| *i != index));
                }
                _ => {}
            }
            for (queue, expected) in oracle.iter().enumerate() {
                prop_assert_eq!(queues.first(queue).map(|(i, _)| i), expected.front().copied());
            }
            for index in 0..12 {
                prop_assert_eq!(queues.get(index).is_some(), oracle.iter().any(|q| q.contains(&index)));
            }
            prop_assert_eq!(queues.len() as usize, oracle.iter().map(VecDeque::len).sum::<usize>());
        }
        prop_assert_eq!(queues.nodes.capacity(), reserved);
        // What is left comes out in order.
        for (queue, mut expected) in oracle.into_iter().enumerate() {
            while let Some((index, _)) = queues.first(queue).map(|(i, r)| (i, *r)) {
                prop_assert_eq!(Some(index), expected.pop_front());
                queues.remove(queue, index);
            }
            prop_assert!(expected.is_empty());
        }
    }
}
