use super::*;

#[cfg(not(loom))]
mod sequential {
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        Publish,
        Pop,
        Release,
        PushBurst(u8),
        PopBurst(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            2 => Just(Step::Publish),
            4 => Just(Step::Pop),
            2 => Just(Step::Release),
            1 => (0..12u8).prop_map(Step::PushBurst),
            1 => (0..12u8).prop_map(Step::PopBurst),
        ]
    }

    proptest! {
        #[test]
        fn values_pass_on_in_order_as_far_as_there_is_room(
            waiting in 0u32..20, room_taken in 0u32..20, more in 0u32..4, beside in 0u32..20
        ) {
            let ((mut first, mut from), (mut to, mut last)) = (ring::<Box<u32>>(16), ring::<Box<u32>>(16));
            let waiting = first.push_burst((0..waiting).map(Box::new)) as u32;
            let taken = to.push_burst((0..room_taken).map(|_| Box::new(99))) as u32;
            let beside: Vec<u32> = (100..100 + beside).collect();
            let passed = pass_on(&mut from, &mut to, &beside, |value, beside| **value += beside);
            prop_assert_eq!(passed as u32, waiting.min(16 - taken).min(beside.len() as u32));
            // Their places are free at once, and they are seen at once.
            let again = first.push_burst((0..more).map(|_| Box::new(0))) as u32;
            prop_assert_eq!(again, more.min(16 - waiting + passed as u32));
            let seen: Vec<u32> = last.pop_burst(usize::MAX).skip(taken as usize).map(|value| *value).collect();
            let expected: Vec<u32> = (0..passed as u32).map(|nth| nth + 100 + nth).collect();
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(from.pop().map(|value| *value), (waiting > passed as u32).then_some(passed as u32).or((again > 0).then_some(0)));
        }

        #[test]
        fn a_ring_is_a_queue_whose_two_ends_learn_late(len in 1..9u32, start: u32, steps in prop::collection::vec(step(), 0..200)) {
            let (mut producer, mut consumer) = ring::<Box<u32>>(len);
            let slots = len.next_power_of_two() as usize;
            // Begin anywhere: the indices wrap.
            (producer.tail, producer.published, producer.head_seen) = (start, start, start);
            (consumer.head, consumer.released, consumer.tail_seen) = (start, start, start);
            producer.shared.head.0.store(start, Ordering::Relaxed);
            producer.shared.tail.0.store(start, Ordering::Relaxed);
            let (mut staged, mut visible, mut unreleased) = (VecDeque::new(), VecDeque::new(), 0);
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        let full = staged.len() + visible.len() + unreleased == slots;
                        match producer.push(Box::new(next)) {
                            Ok(()) => { prop_assert!(!full); staged.push_back(next) }
                            Err(back) => { prop_assert!(full); prop_assert_eq!(*back, next) }
                        }
                        next += 1;
                    }
                    Step::Publish => { producer.publish(); visible.append(&mut staged) }
                    Step::Pop => { let popped = consumer.pop().map(|value| *value); prop_assert_eq!(popped, visible.pop_front()); unreleased += popped.is_some() as usize }
                    Step::Release => { consumer.release(); unreleased = 0 }
                    Step::PushBurst(n) => {
                        let room = slots - staged.len() - visible.len() - unreleased;
                        let pushed = producer.push_burst((next..next + n as u32).map(Box::new));
                        prop_assert_eq!(pushed, room.min(n as usize));
                        staged.extend(next..next + pushed as u32);
                        visible.append(&mut staged);
                        next += n as u32;
                    }
                    Step::PopBurst(n) => {
                        for value in consumer.pop_burst(n as usize) { prop_assert_eq!(Some(*value), visible.pop_front()) }
                        unreleased = 0;
                    }
                }
            }
            drop(consumer);
            prop_assert!(producer.is_closed());
            visible.append(&mut staged);
            let left: Vec<u32> = producer.close().unwrap().map(|value| *value).collect();
            prop_assert_eq!(visible, left);
        }
    }

    #[test]
    fn what_nobody_took_is_dropped_with_the_ring() {
        let value = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..3 {
            producer.push(Arc::clone(&value)).unwrap();
        }
        producer.publish();
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&value), 3);
        drop(producer);
        assert_eq!((consumer.is_closed(), consumer.ready()), (true, 2));
        drop(consumer);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn values_cross_threads_in_order_and_none_is_lost() {
        const COUNT: u32 = 200_000;
        let (mut producer, mut consumer) = ring::<u32>(64);
        let sender = std::thread::spawn(move || {
            let mut next = 0;
            while next < COUNT {
                next += producer.push_burst(next..COUNT.min(next + 7)) as u32;
                std::thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            for value in consumer.pop_burst(16) {
                assert_eq!(value, expected);
                expected += 1;
            }
            std::thread::yield_now();
        }
        sender.join().unwrap();
        assert!(consumer.is_closed());
    }
}

#[cfg(loom)]
mod interleaved {
    use super::*;

    #[test]
    fn every_interleaving_moves_each_value_once_and_in_order() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring::<Box<u32>>(2);
            let sender = loom::thread::spawn(move || {
                let pushed = producer.push_burst((0..3).map(Box::new)) as u32;
                let one_more = producer.push(Box::new(pushed)).is_ok() as u32;
                (
                    pushed + one_more,
                    producer.close().map(|left| left.map(|value| *value).collect::<alloc::vec::Vec<_>>()),
                )
            });
            let mut taken = alloc::vec::Vec::new();
            for _ in 0..2 {
                taken.extend(consumer.pop_burst(2).map(|value| *value));
            }
            taken.extend(consumer.close().into_iter().flatten().map(|value| *value));
            let (pushed, left) = sender.join().unwrap();
            taken.extend(left.into_iter().flatten());
            assert!(taken.into_iter().eq(0..pushed));
        });
    }
}
