use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::Turns;

#[derive(Clone, Debug)]
enum Op {
    Back,
    Front,
    Pop,
}

proptest! {
    #[test]
    fn it_agrees_with_a_plain_queue_however_far_its_counts_have_wrapped(
        start in prop_oneof![Just(0u32), Just(u32::MAX - 3), any::<u32>()],
        ops in proptest::collection::vec(prop_oneof![3 => Just(Op::Back), 1 => Just(Op::Front), 3 => Just(Op::Pop)], 0..200),
    ) {
        let mut turns = Turns::with_capacity(5);
        (turns.first, turns.end) = (start, start);
        let mut oracle = VecDeque::new();
        for (index, op) in (0..).zip(ops) {
            match op {
                Op::Back | Op::Front if oracle.len() == 8 => {}
                Op::Back => { turns.push_back(index); oracle.push_back(index); }
                Op::Front => { turns.push_front(index); oracle.push_front(index); }
                Op::Pop => prop_assert_eq!(turns.pop_front(), oracle.pop_front()),
            }
            prop_assert_eq!(turns.len() as usize, oracle.len());
            prop_assert_eq!(turns.is_empty(), oracle.is_empty());
            let all: Vec<u32> = (0..).map_while(|at| turns.get(at)).collect();
            prop_assert_eq!(&all, oracle.make_contiguous());
        }
    }
}
