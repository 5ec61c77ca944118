use alloc::vec::Vec;

use super::*;
use crate::clock::Clock;
use crate::driver::Driver;
use crate::frame::{FrameSize, Region};
use crate::impair::{Impair, Impairment};
use crate::wire;

fn pool() -> FramePool {
    FramePool::with_frames(4, FrameSize::Small)
}

#[test]
#[should_panic(expected = "of one region")]
fn a_frame_is_not_sent_beside_those_of_another_region() {
    let (a, b) = (pool(), pool());
    let mut tx = TxBurst::new();
    tx.push(a.alloc().unwrap());
    tx.push(b.alloc().unwrap());
}

#[test]
#[should_panic(expected = "of one region")]
fn a_new_packet_is_not_sent_beside_those_of_another_region() {
    let (a, b) = (pool(), pool());
    let mut tx = TxBurst::new();
    tx.push(a.alloc().unwrap());
    tx.push_new(&b, 64);
}

#[test]
#[should_panic(expected = "of one region")]
fn a_held_frame_is_not_sent_beside_those_of_another_region() {
    let (a, b) = (pool(), pool());
    let mut tx = TxBurst::new();
    tx.push_new(&a, 64);
    let _ = tx.push_held(&mut b.alloc().unwrap().hold(), 0, 0);
}

#[test]
#[should_panic(expected = "of one region")]
fn a_delayed_frame_is_not_sent_beside_those_of_another_region() {
    let (a, b) = (pool(), pool());
    let (mut tx, mut other) = (TxBurst::new(), TxBurst::new());
    tx.push_new(&a, 64);
    other.push_new(&b, 64);
    other.drain_front(1).for_each(|delayed| tx.push_delayed(delayed));
}

#[test]
#[should_panic(expected = "of one region")]
fn a_device_refuses_frames_of_another_region() {
    let (mut a, b) = wire::pair(wire::Config::default());
    let mut tx = TxBurst::new();
    // Its own frame of the same number is being sent, too.
    let mut own = TxBurst::new();
    let bytes = own.push_new(a.pool(), 64).map(|bytes| bytes.as_ptr());
    assert!(bytes.is_some());
    tx.push_new(b.pool(), 64);
    assert_eq!(own.descs()[0].index(), tx.descs()[0].index());
    a.tx_burst(&mut tx);
}

#[test]
#[should_panic(expected = "of one region")]
fn middleware_does_not_bring_a_device_frames_of_another_region() {
    let (a, b) = wire::pair(wire::Config::default());
    let late = Impairment { delay_us: 1, ..Impairment::default() };
    let clock = Clock::manual();
    let mut a = Impair::new(a, Impairment::default(), late, 1, clock.clone());
    let mut tx = TxBurst::new();
    tx.push_new(b.pool(), 64);
    a.tx_burst(&mut tx);
    clock.set_us(1);
    a.flush();
}

#[test]
fn what_is_cancelled_goes_back_to_where_it_came_from() {
    let (a, b) = (pool(), pool());
    let (mut tx_a, mut tx_b) = (TxBurst::new(), TxBurst::new());
    let bytes = tx_b.push_new(&b, 64).unwrap();
    tx_a.push(a.alloc().unwrap());
    tx_a.cancel();
    assert_eq!((a.free(), b.free()), (4, 3));
    let mut frame = b.alloc().unwrap();
    assert_ne!(frame.renew(64).as_ptr(), bytes.as_ptr());
    tx_b.drain_front(1).for_each(Delayed::cancel);
    assert_eq!(b.free(), 3);
}

#[test]
fn an_empty_burst_takes_frames_of_any_region_and_outlives_its_pool() {
    let mut tx = TxBurst::new();
    for n in 0..3 {
        let pool = pool();
        tx.push_new(&pool, 60).unwrap().fill(n);
        drop(pool);
        assert_eq!(tx.packets().collect::<Vec<_>>(), [[n; 60]]);
        tx.cancel();
        assert!(tx.is_empty());
    }
}

#[test]
fn frames_of_all_pools_of_a_region_are_sent_together() {
    let region = Region::new(4, FrameSize::Small);
    let (here, there) = (FramePool::new(region.clone(), 0..2), FramePool::new(region, 2..4));
    let mut tx = TxBurst::new();
    tx.push(here.alloc().unwrap());
    tx.push_new(&there, 0);
    tx.push(here.alloc().unwrap());
    tx.cancel();
    assert_eq!((here.free(), there.free()), (2, 1));
    there.bring_home(here.take_away().unwrap());
    assert_eq!(there.free(), 2);
}
