use alloc::vec::Vec;

use super::*;

/// Posts values until there are no more or the ring is full; says how many.
fn post<T: Send>(poster: &mut Poster<T>, values: impl IntoIterator<Item = T>) -> usize {
    let mut values: Vec<_> = values.into_iter().map(ManuallyDrop::new).collect();
    // SAFETY: so many values are there; what is posted is neither dropped nor used here any more.
    let posted = unsafe { poster.post_from(values.as_ptr().cast(), values.len()) };
    values.drain(posted..).for_each(|value| drop(ManuallyDrop::into_inner(value)));
    posted
}

#[cfg(not(loom))]
mod sequential {
    use alloc::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Post(u8),
        Fill,
        Publish,
        /// So many, but refuses the one with this number.
        FillBurst(u8, u8),
        Take(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0..12u8).prop_map(Step::Post),
            3 => Just(Step::Fill),
            2 => Just(Step::Publish),
            2 => (0..12u8, 0..20u8).prop_map(|(count, refused)| Step::FillBurst(count, refused)),
            2 => (0..12u8).prop_map(Step::Take),
        ]
    }

    #[test]
    fn a_burst_that_is_forgotten_gives_nothing_out_twice() {
        let (mut poster, mut filler) = ring::<Box<u32>>(4);
        post(&mut poster, [Box::new(1), Box::new(2)]);
        filler.fill_burst(&[(), ()], |_, ()| true);
        filler.publish();
        let mut burst = poster.take_burst(1);
        assert_eq!(burst.next(), Some(Box::new(1)));
        core::mem::forget(burst);
        assert_eq!(poster.take_burst(2).collect::<Vec<_>>(), [Box::new(2)]);
    }

    proptest! {
        #[test]
        fn values_make_their_round_in_order(len in 1..9u32, start: u32, steps in prop::collection::vec(step(), 0..200)) {
            let (mut poster, mut filler) = ring::<Box<(u32, u32)>>(len);
            let slots = len.next_power_of_two() as usize;
            // Begin anywhere: the indices wrap.
            (poster.posted, poster.taken) = (start, start);
            (filler.filled, filler.published, filler.posted_seen) = (start, start, start);
            for index in [&poster.shared.posted.0, &poster.shared.filled.0, &poster.shared.taken] {
                index.store(start, Ordering::Relaxed);
            }
            let (mut posted, mut staged, mut filled) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
            let (mut next, mut mark) = (0, 1_000);
            for step in steps {
                match step {
                    Step::Post(count) => {
                        let room = slots - posted.len() - staged.len() - filled.len();
                        let done = post(&mut poster, (next..next + u32::from(count)).map(|value| Box::new((value, 0))));
                        prop_assert_eq!(done, room.min(count.into()));
                        posted.extend((next..next + done as u32).map(|value| (value, 0)));
                        next += u32::from(count);
                    }
                    Step::Fill => {
                        mark += 1;
                        let seen = filler.fill(|value| { value.1 = mark; value.0 });
                        let expected = posted.pop_front();
                        prop_assert_eq!(seen, expected.map(|(value, _)| value));
                        staged.extend(seen.map(|value| (value, mark)));
                    }
                    Step::Publish => { filler.publish(); filled.append(&mut staged) }
                    Step::FillBurst(count, refused) => {
                        let marks: Vec<u32> = (mark + 1..).take(count.into()).collect();
                        let is_refused = |of: u32| of == mark + 1 + u32::from(refused);
                        let done = filler.fill_burst(&marks, |value, &of| { if !is_refused(of) { value.1 = of } !is_refused(of) });
                        prop_assert_eq!(done, posted.len().min(count.into()).min(refused.into()));
                        staged.extend(posted.drain(..done).zip(&marks).map(|((value, _), &of)| (value, of)));
                        mark += u32::from(count);
                    }
                    Step::Take(max) => {
                        let taken: Vec<_> = poster.take_burst(max.into()).map(|value| *value).collect();
                        let expected: Vec<_> = filled.drain(..filled.len().min(max.into())).collect();
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!(poster.len(), posted.len() + staged.len() + filled.len());
                prop_assert_eq!(poster.is_empty(), posted.is_empty() && staged.is_empty() && filled.is_empty());
            }
            // Whoever leaves last gets them all: filled, then not.
            let left: Vec<_> = if start % 2 == 0 {
                prop_assert!(poster.close().is_none());
                prop_assert!(filler.is_closed());
                filler.close()
            } else {
                prop_assert!(filler.close().is_none());
                poster.close()
            }.unwrap().map(|value| *value).collect();
            let expected: Vec<_> = filled.into_iter().chain(staged).chain(posted).collect();
            prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn what_nobody_took_is_dropped_with_the_ring() {
        let value = Arc::new(());
        let (mut poster, mut filler) = ring(4);
        assert_eq!(post(&mut poster, (0..3).map(|_| Arc::clone(&value))), 3);
        assert_eq!(filler.fill_burst(&[(), ()], |_, ()| true), 2);
        filler.publish();
        drop(poster.take_burst(1).next());
        assert_eq!(Arc::strong_count(&value), 3);
        drop(filler);
        assert_eq!(poster.take_burst(4).size_hint().0, 1);
        assert_eq!(poster.len(), 2);
        drop(poster);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn values_cross_threads_in_order_and_none_is_lost() {
        const COUNT: u32 = 200_000;
        let (mut poster, mut filler) = ring::<(u32, u32)>(64);
        let other = std::thread::spawn(move || {
            let mut marks = 0..COUNT;
            while !marks.is_empty() {
                let some: Vec<u32> = marks.clone().take(16).collect();
                let filled = filler.fill_burst(&some, |value, mark| {
                    assert_eq!(value.0, *mark);
                    value.1 = *mark;
                    true
                });
                filler.publish();
                marks.start += filled as u32;
                std::thread::yield_now();
            }
        });
        let (mut next, mut expected) = (0, 0);
        while expected < COUNT {
            next += post(&mut poster, (next..COUNT.min(next + 7)).map(|value| (value, 0))) as u32;
            for value in poster.take_burst(16) {
                assert_eq!(value, (expected, expected));
                expected += 1;
            }
            std::thread::yield_now();
        }
        other.join().unwrap();
        assert!(poster.close().is_some_and(|mut left| left.next().is_none()));
    }
}

#[cfg(loom)]
mod interleaved {
    use super::*;

    #[test]
    fn every_interleaving_brings_each_value_back_once_and_in_order() {
        loom::model(|| {
            let (mut poster, mut filler) = ring::<Box<(u32, bool)>>(2);
            let other = loom::thread::spawn(move || {
                let mut filled = filler.fill_burst(&[()], |value, ()| {
                    value.1 = true;
                    true
                });
                filler.publish();
                filled += usize::from(filler.fill(|value| value.1 = true).is_some());
                (filled, filler.close().map(|left| left.map(|value| *value).collect::<Vec<_>>()))
            });
            let (mut posted, mut back) = (0, Vec::new());
            for _ in 0..2 {
                posted += post(&mut poster, (posted..3).map(|value| Box::new((value, false)))) as u32;
                back.extend(poster.take_burst(2).map(|value| *value));
            }
            back.extend(poster.close().into_iter().flatten().map(|value| *value));
            let (filled, left) = other.join().unwrap();
            back.extend(left.into_iter().flatten());
            let expected = (0..posted).map(|value| (value, (value as usize) < filled));
            assert!(back.into_iter().eq(expected));
        });
    }
}
