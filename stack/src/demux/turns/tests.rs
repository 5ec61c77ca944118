use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::Turns;

#[derive(Clone, Debug)]
enum Op {
    Back,
    Pop,
    PutBack,
    Drained,
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![4 => Just(Op::Back), 3 => Just(Op::Pop), 1 => Just(Op::PutBack), 1 => Just(Op::Drained)]
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
                Op::Back | Op::PutBack if oracle.len() == 5 => {}
                Op::Back => { turns.push_back(index); oracle.push_back(index); }
                Op::PutBack => { turns.put_back(index); oracle.push_front(index); }
                Op::Pop => prop_assert_eq!(turns.pop_front(), oracle.pop_front()),
                Op::Drained => turns.drained(),
            }
            prop_assert_eq!(turns.len(), oracle.len());
            prop_assert_eq!(turns.is_empty(), oracle.is_empty());
            let all: Vec<u32> = (0..).map_while(|at| turns.get(at)).collect();
            prop_assert_eq!(&all, oracle.make_contiguous());
        }
    }
}
