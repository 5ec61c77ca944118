use alloc::vec::Vec;

use super::*;
use crate::wire::{self, WireDriver};

/// An impaired end, a plain one, and the clock. When it ends, every frame must be home.
struct World {
    near: Option<Impair<WireDriver>>,
    far: Option<WireDriver>,
    clock: Clock,
    pools: [FramePool; 2],
    tx: TxBurst,
}

fn world(rx: Impairment, tx: Impairment) -> World {
    let (near, far) = wire::pair(wire::Config { ring_len: 512, ..wire::Config::default() });
    let pools = [near.pool().clone(), far.pool().clone()];
    let clock = Clock::manual();
    let near = Impair::new(near, rx, tx, 7, clock.clone());
    World { near: Some(near), far: Some(far), clock, pools, tx: TxBurst::new() }
}

impl World {
    fn near(&mut self) -> &mut Impair<WireDriver> {
        self.near.as_mut().unwrap()
    }

    /// From the plain end to the impaired one.
    fn send_in(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let far = self.far.as_mut().unwrap();
        numbers.into_iter().for_each(|n| send(far, &mut self.tx, n));
    }

    fn send_out(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let near = self.near.as_mut().unwrap();
        numbers.into_iter().for_each(|n| send(near, &mut self.tx, n));
    }

    fn come_in(&mut self) -> Vec<u32> {
        receive(self.near())
    }

    fn come_out(&mut self) -> Vec<u32> {
        self.near().flush();
        receive(self.far.as_mut().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The impaired end last: all of its frames are home then.
        self.far = None;
        self.near = None;
        let [near, far] = &self.pools;
        crate::wire::tests::assert_home(far, near);
    }
}

fn send(driver: &mut impl Driver, tx: &mut TxBurst, n: u32) {
    let mut frame = driver.pool().alloc().unwrap();
    frame.append(100).fill(0);
    frame[20..24].copy_from_slice(&n.to_be_bytes());
    tx.push(frame);
    driver.tx_burst(tx);
    driver.flush();
    assert!(tx.is_empty());
}

fn receive(driver: &mut impl Driver) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let mut rx = RxBurst::new();
        driver.rx_burst(&mut rx);
        if rx.is_empty() {
            return all;
        }
        all.extend(rx.iter().map(|frame| u32::from_be_bytes(frame[20..24].try_into().unwrap())));
    }
}

fn numbers(range: core::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn without_settings_everything_passes() {
    let mut world = world(Impairment::default(), Impairment::default());
    world.send_in(0..50);
    world.send_out(0..50);
    assert_eq!((world.come_in(), world.come_out()), (numbers(0..50), numbers(0..50)));
    assert_eq!(world.near().accidents(), Default::default());
}

#[test]
fn the_given_share_of_packets_is_lost_in_each_direction() {
    let loss = |loss_ppm| Impairment { loss_ppm, ..Impairment::default() };
    let mut world = world(loss(100_000), loss(300_000));
    let (mut came_in, mut came_out) = (0, 0);
    for _ in 0..1000 {
        world.send_in(0..10);
        world.send_out(0..10);
        came_in += world.come_in().len();
        came_out += world.come_out().len();
    }
    assert!((8800..9200).contains(&came_in) && (6800..7200).contains(&came_out), "{came_in} {came_out}");
    let (rx, tx) = world.near().accidents();
    assert_eq!((rx.lost, tx.lost), (10_000 - came_in as u64, 10_000 - came_out as u64));
}

#[test]
fn a_held_frame_that_is_lost_can_be_sent_again() {
    let mut world = world(Impairment::default(), Impairment { loss_ppm: 1_000_000, ..Impairment::default() });
    let mut held = world.near().pool().alloc().unwrap().hold();
    let mut tx = TxBurst::new();
    for _ in 0..2 {
        tx.push_held(&mut held, 60, 0).unwrap();
        world.near().tx_burst(&mut tx);
    }
    drop(held);
    assert_eq!(world.near().accidents().1.lost, 2);
}

#[test]
fn duplicates_follow_their_packets() {
    let setting = Impairment { duplicate_ppm: 1_000_000, ..Impairment::default() };
    let mut world = world(setting, setting);
    world.send_in(0..3);
    world.send_out(0..3);
    let twice = [0, 0, 1, 1, 2, 2];
    assert_eq!((world.come_in(), world.come_out()), (twice.to_vec(), twice.to_vec()));
}

#[test]
fn corruption_flips_one_bit_and_leaves_a_held_frame_as_it_was() {
    let setting = Impairment { corrupt_ppm: 1_000_000, ..Impairment::default() };
    let mut world = world(setting, setting);
    let far = world.far.as_mut().unwrap();
    let flipped = |frame: &Frame| frame.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let mut tx = TxBurst::new();
    let mut frame = far.pool().alloc().unwrap();
    frame.append(100).fill(0);
    tx.push(frame);
    far.tx_burst(&mut tx);
    let mut rx = RxBurst::new();
    world.near().rx_burst(&mut rx);
    assert_eq!((rx.len(), flipped(&rx[0])), (1, 1));
    rx.clear();

    let mut frame = world.near().pool().alloc().unwrap();
    frame.append(100).fill(0);
    let mut held = frame.hold();
    tx.push_held(&mut held, 0, 100).unwrap();
    world.near().tx_burst(&mut tx);
    world.far.as_mut().unwrap().rx_burst(&mut rx);
    assert_eq!((rx.len(), flipped(&rx[0])), (1, 1));
    assert_eq!(held.payload(), [0; 100]);
}

#[test]
fn whoever_corrupts_does_not_vouch_for_checksums() {
    let (near, _far) = wire::pair(wire::Config { rx_checksum: true, ..wire::Config::default() });
    let setting = Impairment { corrupt_ppm: 1, ..Impairment::default() };
    let near = Impair::new(near, Impairment::default(), setting, 1, Clock::manual());
    assert!(near.caps().rx_checksum);
    let (near, _far) = wire::pair(wire::Config { rx_checksum: true, ..wire::Config::default() });
    assert!(!Impair::new(near, setting, Impairment::default(), 1, Clock::manual()).caps().rx_checksum);
}

#[test]
fn delayed_packets_come_when_they_are_due() {
    let setting = Impairment { delay_us: 500, ..Impairment::default() };
    let mut world = world(setting, setting);
    world.clock.set_us(100);
    world.send_in(0..3);
    world.send_out(0..3);
    assert_eq!((world.come_in(), world.come_out()), (Vec::new(), Vec::new()));
    assert_eq!(world.near().next_due_us(), Some(600));
    world.clock.set_us(599);
    assert_eq!((world.come_in(), world.come_out()), (Vec::new(), Vec::new()));
    world.clock.set_us(600);
    assert_eq!((world.come_in(), world.come_out()), (numbers(0..3), numbers(0..3)));
    assert_eq!(world.near().next_due_us(), None);
}

#[test]
fn jitter_spreads_packets_and_keeps_their_order() {
    let mut world = world(Impairment { jitter_us: 1000, ..Impairment::default() }, Impairment::default());
    let (mut got, mut turns) = (Vec::new(), 0);
    for now_us in 0..1100 {
        world.clock.set_us(now_us);
        world.send_in((now_us < 100).then_some(now_us as u32));
        let come = world.come_in();
        turns += !come.is_empty() as u32;
        got.extend(come);
    }
    assert_eq!(got, numbers(0..100));
    assert!(turns > 3, "{turns}");
}

#[test]
fn a_reordered_packet_is_overtaken() {
    let setting = Impairment { reorder_ppm: 200_000, reorder_us: 30, ..Impairment::default() };
    let mut world = world(setting, Impairment::default());
    let mut got = Vec::new();
    for now_us in 0..200 {
        world.clock.set_us(now_us);
        world.send_in((now_us < 100).then_some(now_us as u32));
        got.extend(world.come_in());
    }
    assert_ne!(got, numbers(0..100));
    got.sort();
    assert_eq!(got, numbers(0..100));
    assert!((5..40).contains(&world.near().accidents().0.reordered));
}

#[test]
fn the_rate_spaces_packets_and_a_full_queue_loses_them() {
    // 100 bytes at 8 Mbit/s: one packet every 100 microseconds.
    let setting = Impairment { rate_bps: 8_000_000, queue_max: 5, ..Impairment::default() };
    let mut world = world(setting, setting);
    world.send_in(0..8);
    world.send_out(0..8);
    assert!(world.come_in().is_empty(), "they reach the link now");
    for n in 0..5 {
        world.clock.set_us(n * 100 + 99);
        assert_eq!((world.come_in(), world.come_out()), (Vec::new(), Vec::new()));
        world.clock.set_us(n * 100 + 100);
        assert_eq!((world.come_in(), world.come_out()), ([n as u32].to_vec(), [n as u32].to_vec()));
    }
    let (rx, tx) = world.near().accidents();
    assert_eq!((rx.overflowed, tx.overflowed), (3, 3));
}

#[test]
fn what_waits_is_back_in_its_pool_after_a_drop() {
    let setting = Impairment { delay_us: 1000, ..Impairment::default() };
    let mut world = world(setting, setting);
    world.send_in(0..20);
    world.send_out(0..20);
    assert!(world.come_in().is_empty() && world.come_out().is_empty());
    let pool = world.near().pool().clone();
    let mut held = pool.alloc().unwrap().hold();
    let mut tx = TxBurst::new();
    tx.push_held(&mut held, 60, 0).unwrap();
    world.near().tx_burst(&mut tx);
    world.far = None;
    world.near = None;
    assert!(!held.is_sending());
    assert_eq!(pool.free(), 4095);
}

#[test]
fn what_the_device_does_not_take_is_sent_later() {
    let (near, mut far) = wire::pair(wire::Config { ring_len: 4, ..wire::Config::default() });
    let clock = Clock::manual();
    let setting = Impairment { delay_us: 1, ..Impairment::default() };
    let mut near = Impair::new(near, Impairment::default(), setting, 1, clock.clone());
    let mut tx = TxBurst::new();
    (0..100).for_each(|n| send(&mut near, &mut tx, n));
    clock.set_us(1);
    let mut got = Vec::new();
    while got.len() < 100 {
        near.flush();
        let come = receive(&mut far);
        assert!((1..=4).contains(&come.len()));
        got.extend(come);
    }
    assert_eq!(got, numbers(0..100));
}

#[test]
fn the_same_seed_makes_the_same_accidents() {
    let setting = Impairment {
        loss_ppm: 100_000,
        duplicate_ppm: 100_000,
        corrupt_ppm: 100_000,
        reorder_ppm: 100_000,
        jitter_us: 50,
        ..Impairment::default()
    };
    let run = || {
        let mut world = world(setting, setting);
        let mut got = Vec::new();
        for now_us in 0..300 {
            world.clock.set_us(now_us * 10);
            world.send_in([now_us as u32]);
            world.send_out([now_us as u32]);
            got.push((world.come_in(), world.come_out()));
        }
        (got, world.near().accidents())
    };
    assert_eq!(run(), run());
}
