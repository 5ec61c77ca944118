use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Turns, Walk};

#[derive(Clone, Debug)]
enum Op {
    Back,
    /// So many have their turn, and after each so many of them come again.
    Walk(usize, usize),
}

/// The last `left` have not had their turn.
fn end(turns: &mut Turns, walk: Walk, left: usize) {
    match walk.indices()[walk.indices().len() - left..].first() {
        Some(&index) => turns.ended_before(walk, index),
        None => turns.ended(walk),
    }
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![3 => Just(Op::Back), 1 => (0usize..6, 0usize..6).prop_map(|(had, again)| Op::Walk(had, again))]
}

proptest! {
    #[test]
    fn it_agrees_with_a_plain_queue_however_often_it_is_filled(
        ops in proptest::collection::vec(an_op(), 0..200),
    ) {
        let mut turns = Turns::with_capacity(5);
        let mut oracle = VecDeque::new();
        for (index, op) in (0..).zip(ops) {
            match op {
                Op::Back if oracle.len() == 5 => {}
                Op::Back => { turns.push_back(index); oracle.push_back(index); }
                Op::Walk(had, again) => {
                    let walk = turns.walk();
                    let left = walk.indices().len().saturating_sub(had);
                    for (nth, &at) in walk.indices()[..walk.indices().len() - left].iter().enumerate() {
                        prop_assert_eq!(Some(at), oracle.pop_front());
                        if nth < again {
                            turns.push_back(at);
                            oracle.push_back(at);
                        }
                    }
                    prop_assert!(left > 0 || oracle.len() == turns.len());
                    end(&mut turns, walk, left);
                }
            }
            prop_assert_eq!(turns.len(), oracle.len());
            prop_assert_eq!(turns.is_empty(), oracle.is_empty());
            let all: Vec<u32> = (0..).map_while(|at| turns.get(at)).collect();
            prop_assert_eq!(&all, oracle.make_contiguous());
        }
    }

    #[test]
    fn a_walk_takes_all_that_wait(before in 0u32..5, left in 0usize..5, behind in 0u32..5) {
        let mut turns = Turns::with_capacity(10);
        (0..before).for_each(|index| turns.push_back(index));
        let (walk, left) = (turns.walk(), left.min(before as usize));
        end(&mut turns, walk, left);
        (5..5 + behind).for_each(|index| turns.push_back(index));
        let mut seen = Vec::new();
        while !turns.is_empty() {
            let walk = turns.walk();
            seen.extend_from_slice(walk.indices());
            turns.ended(walk);
        }
        let oracle: Vec<u32> = (before - left as u32..before).chain(5..5 + behind).collect();
        prop_assert_eq!(seen, oracle);
    }
}
