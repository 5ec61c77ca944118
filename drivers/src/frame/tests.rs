use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::burst::TxBurst;
use crate::ring::ring;

fn pool() -> FramePool {
    FramePool::with_frames(4, FrameSize::Small)
}

fn send_all(pool: &FramePool, tx: &mut TxBurst) {
    for desc in tx.drain_descs(tx.len()) {
        pool.completed(desc.index);
    }
}

/// Those of all frames, the least first.
fn numbers(frames: &[Frame]) -> Vec<u32> {
    let mut numbers: Vec<_> = frames.iter().map(Frame::index).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_dropped_frame_is_free_again() {
    let pool = pool();
    let frame = pool.alloc().unwrap();
    assert_eq!((pool.free(), frame.headroom(), frame.len()), (3, HEADROOM, 0));
    drop(frame);
    assert_eq!(pool.free(), 4);
}

#[test]
fn headers_go_before_the_payload_in_place() {
    let pool = pool();
    let mut frame = pool.alloc().unwrap();
    frame.append(5).copy_from_slice(b"hello");
    frame.prepend(2).copy_from_slice(b"> ");
    assert_eq!(&frame[..], b"> hello");
    frame.trim_front(3);
    frame.truncate(2);
    assert_eq!(&frame[..], b"el");
    assert_eq!(frame.tailroom(), 2048 - HEADROOM - 3);
}

#[test]
fn a_sent_frame_is_free_when_the_device_is_done() {
    let (pool, mut tx) = (pool(), TxBurst::new());
    tx.push(pool.alloc().unwrap());
    assert_eq!((pool.free(), pool.region().census(0..4).sending), (3, 1));
    send_all(&pool, &mut tx);
    assert_eq!(pool.free(), 4);
}

#[test]
fn a_held_frame_is_sent_again_but_not_while_the_device_has_it() {
    let (pool, mut tx) = (pool(), TxBurst::new());
    let mut frame = pool.alloc().unwrap();
    frame.extend_from_slice(b"data");
    let mut held = frame.hold();
    let (header, payload) = held.header_mut(3).unwrap();
    header.copy_from_slice(b"h1:");
    assert_eq!(payload, b"data");
    tx.push_held(&mut held, 3, 4).unwrap();
    assert_eq!(pool.region().bytes(&tx.descs()[0]), b"h1:data");
    assert!(held.header_mut(3).is_none());
    assert!(tx.push_held(&mut held, 3, 4).is_err());
    send_all(&pool, &mut tx);
    held.header_mut(3).unwrap().0.copy_from_slice(b"h2:");
    tx.push_held(&mut held, 3, 2).unwrap();
    assert_eq!(pool.region().bytes(&tx.descs()[0]), b"h2:da");
    send_all(&pool, &mut tx);
    assert_eq!(pool.free(), 3);
    drop(held);
    assert_eq!(pool.free(), 4);
}

#[test]
fn a_held_frame_dropped_while_it_is_sent_is_freed_by_the_completion() {
    let (pool, mut tx) = (pool(), TxBurst::new());
    let mut held = pool.alloc().unwrap().hold();
    tx.push_held(&mut held, 0, 0).unwrap();
    drop(held);
    assert_eq!(pool.free(), 3);
    send_all(&pool, &mut tx);
    assert_eq!(pool.free(), 4);
}

#[test]
#[should_panic(expected = "returned what it never had")]
fn a_completion_of_a_frame_that_was_not_sent_is_refused() {
    let pool = pool();
    let frame = pool.alloc().unwrap();
    pool.completed(frame.index());
}

#[test]
#[should_panic(expected = "do not fit")]
fn a_header_longer_than_the_headroom_is_refused() {
    pool().alloc().unwrap().prepend(HEADROOM + 1);
}

#[test]
fn frames_move_between_pools_of_one_region_and_come_home() {
    let region = Region::new(4, FrameSize::Small);
    let (here, there) = (FramePool::new(region.clone(), 0..2), FramePool::new(region.clone(), 2..4));
    let mut frame = here.alloc().unwrap();
    frame.extend_from_slice(b"stray");
    let desc = FramePool::part_with(frame);
    assert_eq!(region.census(0..4).moving, 1);
    let frame = there.adopt(desc);
    assert_eq!(&frame[..], b"stray");
    drop(frame);
    assert_eq!((here.free(), there.free()), (1, 2));
    here.bring_home(there.take_away().unwrap());
    assert!(there.take_away().is_none());
    assert_eq!((here.free(), there.free()), (2, 2));
}

#[test]
fn a_pool_outlives_its_handle_while_a_frame_lives() {
    let frame = { pool().alloc().unwrap() };
    let pool = frame.pool();
    drop(frame);
    assert_eq!(pool.free(), 4);
}

#[test]
fn the_usual_packet_is_carried_and_the_unusual_left() {
    let region = Region::new(8, FrameSize::Small);
    let (here, there) = (FramePool::new(region.clone(), 0..4), FramePool::new(region.clone(), 4..8));
    let far = FramePool::with_frames(8, FrameSize::Large);
    let (mut poster, mut filler) = ring(1);
    let mut carry = |tx: &mut TxBurst| {
        let packet = region.bytes(&tx.descs()[0]).to_vec();
        far.post_burst(&mut poster, 1);
        let carried = tx.take_front(|packets| carry_usual(&here, packets, far.region(), &mut filler, (14, 1518)));
        filler.fill(|_| ());
        filler.publish();
        let posted = poster.take_burst(1).next().unwrap();
        assert!(carried == 0 || far.region().bytes(&posted) == packet);
        // SAFETY: it was just posted.
        unsafe { far.unpost(posted) };
        assert_eq!(tx.len(), 1 - carried);
        tx.cancel();
        carried == 1
    };
    let mut tx = TxBurst::new();
    for (len, expected) in [(0, false), (13, false), (14, true), (66, true), (96, true), (97, false), (1519, false)] {
        tx.push_new(&here, len).unwrap().fill(len as u8);
        assert_eq!(carry(&mut tx), expected, "{len}");
    }
    // Elsewhere in its frame, up to the very end.
    for cut in [1, 64, 2048 - HEADROOM - 66] {
        let mut frame = here.alloc().unwrap();
        frame.append(cut + 66).fill(7);
        frame.trim_front(cut);
        tx.push(frame);
        assert!(!carry(&mut tx), "{cut}");
    }
    let mut held = here.alloc().unwrap().hold();
    tx.push_held(&mut held, 54, 0).unwrap();
    assert!(!carry(&mut tx) && !held.is_sending());
    drop(held);
    // Of another worker's share.
    let mut frame = here.adopt(FramePool::part_with(there.alloc().unwrap()));
    frame.append(60).fill(9);
    tx.push(frame);
    assert!(!carry(&mut tx));
    there.bring_home(here.take_away().unwrap());
    assert_eq!((here.free(), there.free(), far.free()), (4, 4, 8));
}

#[test]
fn a_burst_is_dealt_and_what_stays_in_its_places_goes_back_to_where_it_belongs() {
    let region = Region::new(8, FrameSize::Small);
    let (here, there) = (FramePool::new(region.clone(), 0..4), FramePool::new(region.clone(), 4..8));
    let far = FramePool::with_frames(4, FrameSize::Small);
    let mut rx = crate::burst::RxBurst::new();
    rx.extend([here.alloc(), here.alloc(), there.alloc(), far.alloc(), here.alloc()].into_iter().flatten());
    rx.push(here.adopt(FramePool::part_with(there.alloc().unwrap())));
    let (mut places, mut dealt) = ([const { None }; 7], 0);
    crate::burst::deal(&mut rx, &mut places, |frame, place| {
        assert!(frame.is_empty());
        dealt += 1;
        // The first is not taken.
        if dealt > 1 {
            *place = Some(frame.take());
        }
    });
    assert_eq!((rx.len(), dealt, here.free(), there.free(), far.free()), (0, 6, 2, 2, 3));
    let kept = places[1].take();
    here.free_burst(&mut places, |place| place);
    assert!(places.iter().all(Option::is_none));
    assert_eq!((here.free(), there.free(), far.free()), (3, 3, 4));
    drop(kept);
    there.bring_home(here.take_away().unwrap());
    assert_eq!((here.free(), there.free()), (4, 4));
    let census = region.census(0..8);
    assert_eq!(census, Census { free: 8, ..Census::default() });
}

#[test]
fn whoever_takes_and_drops_frames_while_a_burst_is_freed_gets_none_twice() {
    let pool = FramePool::with_frames(4, FrameSize::Small);
    let mut places = [pool.alloc(), pool.alloc(), pool.alloc()];
    let (taken, dropped) = (std::cell::RefCell::new(Vec::new()), std::cell::RefCell::new(pool.alloc()));
    pool.free_burst(&mut places, |place| {
        taken.borrow_mut().extend(pool.alloc());
        dropped.borrow_mut().take();
        place
    });
    let mut taken: Vec<Frame> = taken.take();
    assert_eq!((taken.len(), pool.free()), (1, 3));
    taken.extend(core::iter::from_fn(|| pool.alloc()));
    assert_eq!(numbers(&taken), [0, 1, 2, 3]);
    drop(taken);
    assert_eq!(pool.free(), 4);
}

#[test]
fn more_places_than_a_burst_has_are_freed_each_frame_once() {
    const PLACES: u32 = 2 * crate::burst::BURST as u32 + 2;
    let region = Region::new(PLACES, FrameSize::Small);
    let (here, there) = (FramePool::new(region.clone(), 0..PLACES - 4), FramePool::new(region, PLACES - 4..PLACES));
    let far = FramePool::with_frames(PLACES, FrameSize::Small);
    for guests in [false, true] {
        let mut places: Vec<_> = (0..PLACES).map(|n| if n % 5 == 3 { far.alloc() } else { here.alloc() }).collect();
        if guests {
            places[9] = there.alloc().map(|frame| here.adopt(FramePool::part_with(frame)));
        }
        (places[0], places[64], places[101]) = (None, None, None);
        here.free_burst(&mut places, |place| place);
        assert!(places.iter().all(Option::is_none));
        for (pool, all) in [(&here, 0..PLACES - 4), (&far, 0..PLACES)] {
            let frames: Vec<_> = core::iter::from_fn(|| pool.alloc()).collect();
            assert_eq!(numbers(&frames), all.collect::<Vec<_>>());
        }
    }
    there.bring_home(here.take_away().unwrap());
    assert_eq!((here.take_away(), there.free()), (None, 4));
}

#[test]
fn a_guest_that_comes_while_a_burst_is_freed_does_not_stay() {
    let region = Region::new(3, FrameSize::Small);
    let (here, there) = (FramePool::new(region.clone(), 0..1), FramePool::new(region, 1..3));
    let mut places = [here.alloc(), None, None];
    here.free_burst(&mut places, |place| {
        if place.is_none() {
            *place = there.alloc().map(|frame| here.adopt(FramePool::part_with(frame)));
        }
        place
    });
    assert_eq!((here.free(), there.free()), (1, 0));
    there.bring_home(here.take_away().unwrap());
    there.bring_home(here.take_away().unwrap());
    assert_eq!((here.take_away().is_none(), there.free()), (true, 2));
}

proptest! {
    #[test]
    fn every_frame_has_one_owner_whatever_is_done(steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>()), 1..200)) {
        let pool = FramePool::with_frames(8, FrameSize::Small);
        let (mut frames, mut helds, mut tx, mut posted) = (Vec::new(), Vec::<Held>::new(), TxBurst::new(), Vec::new());
        let (mut poster, mut filler) = ring::<Desc>(4);
        let pick = |n: usize, at: &prop::sample::Index| (n > 0).then(|| at.index(n));
        for (step, at) in &steps {
            match step {
                0 => frames.extend(pool.alloc()),
                1 => drop(pick(frames.len(), at).map(|i| frames.swap_remove(i))),
                2 => helds.extend(pick(frames.len(), at).map(|i| frames.swap_remove(i).hold())),
                3 => drop(pick(helds.len(), at).map(|i| helds.swap_remove(i))),
                4 => drop(pick(helds.len(), at).filter(|_| tx.room() > 0).map(|i| tx.push_held(&mut helds[i], 54, 0))),
                5 => pick(frames.len(), at).filter(|_| tx.room() > 0).into_iter().for_each(|i| tx.push(frames.swap_remove(i))),
                6 => {
                    let count = at.index(5 - poster.len());
                    pool.post_burst(&mut poster, count);
                }
                7 => {
                    filler.fill_burst(&[9, 8, 7][..at.index(4)], |desc, &byte| pool.region().write(desc, &[byte; 60]));
                    filler.publish();
                    let (mut rx, before) = (crate::burst::RxBurst::new(), pool.census().receiving);
                    // SAFETY: only this pool posted on the ring.
                    unsafe { pool.filled_burst(&mut poster, &mut rx) };
                    prop_assert_eq!(pool.census().receiving as usize, before as usize - rx.len());
                    prop_assert!(rx.iter().zip(9u8..).all(|(frame, nth)| frame[..] == [18 - nth; 60]));
                    frames.extend(rx);
                }
                8 => {
                    let mut places: Vec<_> = frames.drain(..at.index(frames.len() + 1)).map(Some).collect();
                    pool.free_burst(&mut places, |place| place);
                }
                _ => match posted.pop() {
                    Some(desc) => pool.unfill(desc),
                    None => { send_all(&pool, &mut tx); posted.extend(pool.take_for_fill()) }
                },
            }
            let census = pool.census();
            prop_assert_eq!(census.free as usize, pool.free());
            prop_assert_eq!(census.sending as usize, tx.len());
            prop_assert_eq!(census.receiving as usize, posted.len() + poster.len());
            prop_assert_eq!(census.owned as usize, frames.len() + helds.iter().filter(|h| !h.is_sending()).count());
        }
        posted.into_iter().for_each(|desc| pool.unfill(desc));
        drop((frames, helds, filler));
        // SAFETY: it posted them.
        poster.close().into_iter().flatten().for_each(|desc| unsafe { pool.unpost(desc) });
        send_all(&pool, &mut tx);
        prop_assert_eq!((pool.free(), pool.census().receiving), (8, 0));
        prop_assert_eq!(numbers(&core::iter::from_fn(|| pool.alloc()).collect::<Vec<_>>()), (0..8).collect::<Vec<_>>());
    }
}

#[test]
#[should_panic(expected = "no other pool's")]
fn a_share_is_one_pools_for_ever() {
    let pool = FramePool::with_frames(8, FrameSize::Small);
    let region = pool.region().clone();
    drop(pool);
    FramePool::new(region, 4..6);
}

#[test]
#[should_panic(expected = "the frame is of this region")]
fn a_descriptor_of_larger_frames_is_not_adopted() {
    let (small, large) = (FramePool::with_frames(1, FrameSize::Small), FramePool::with_frames(1, FrameSize::Large));
    let mut frame = large.alloc().expect("it is free");
    frame.append(3_900);
    // The frame of the same number is on its way, too.
    let _parted = FramePool::part_with(small.alloc().expect("it is free"));
    small.adopt(FramePool::part_with(frame));
}
