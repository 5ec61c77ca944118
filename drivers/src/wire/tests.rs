use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::frame::{Census, Frame};

fn packet_of(driver: &WireDriver, bytes: &[u8]) -> Frame {
    let mut frame = driver.pool().alloc().unwrap();
    assert_eq!(frame.extend_from_slice(bytes), bytes.len());
    frame
}

/// Sends as much as is accepted; the burst keeps the rest.
fn send(driver: &mut WireDriver, tx: &mut TxBurst, packets: impl IntoIterator<Item = Vec<u8>>) {
    for packet in packets {
        let frame = packet_of(driver, &packet);
        tx.push(frame);
    }
    driver.tx_burst(tx);
    driver.flush();
}

fn receive(driver: &mut WireDriver) -> Vec<Vec<u8>> {
    let mut rx = RxBurst::new();
    driver.rx_burst(&mut rx);
    rx.iter().map(|frame| frame.to_vec()).collect()
}

fn numbered(n: u32) -> Vec<u8> {
    [[0; 14].as_slice(), &n.to_be_bytes()].concat()
}

/// A TCP segment over IPv4 from one port to another.
fn segment(sport: u16, dport: u16) -> Vec<u8> {
    let mut packet = vec![0; 54];
    (packet[12], packet[14], packet[23]) = (8, 0x45, 6);
    packet[34..36].copy_from_slice(&sport.to_be_bytes());
    packet[36..38].copy_from_slice(&dport.to_be_bytes());
    packet
}

fn start(port: WirePort) -> Vec<WireDriver> {
    let count = port.queues.as_ref().unwrap().len();
    port.open(count).unwrap().into_iter().map(|queue| queue.start().unwrap()).collect()
}

/// Both ends of a wire are gone: every frame is home, but for those that the end that went first had posted and nobody had filled.
pub(crate) fn assert_home(first: &FramePool, last: &FramePool) {
    let (all, census) = (last.capacity() as u32, last.census());
    assert_eq!((census, last.free() as u32), (Census { free: all, ..Census::default() }, all));
    let (all, census) = (first.capacity() as u32, first.census());
    assert_eq!(census, Census { free: all - census.receiving, receiving: census.receiving, ..Census::default() });
    assert_eq!(census.free as usize, first.free());
}

#[test]
fn packets_arrive_in_order_and_all_frames_come_home() {
    let (mut a, mut b) = pair(Config::default());
    let (pool_a, pool_b) = (a.pool().clone(), b.pool().clone());
    let mut tx = TxBurst::new();
    for round in 0..100 {
        send(&mut a, &mut tx, (0..64).map(|n| numbered(round * 64 + n)));
        assert!(tx.is_empty());
        assert_eq!(receive(&mut b), (0..64).map(|n| numbered(round * 64 + n)).collect::<Vec<_>>());
        send(&mut b, &mut tx, [numbered(round)]);
        assert_eq!(receive(&mut a), [numbered(round)]);
    }
    assert_eq!(a.stats(), DriverStats { rx_packets: 100, tx_packets: 6400, ..DriverStats::default() });
    assert_eq!(b.stats(), DriverStats { rx_packets: 6400, tx_packets: 100, ..DriverStats::default() });
    assert!((225..=256).contains(&a.pool().census().receiving));
    drop((a, b));
    assert_home(&pool_a, &pool_b);
    assert!((225..=256).contains(&pool_a.census().receiving));
}

#[test]
fn the_ends_have_different_local_addresses_unless_told() {
    let (a, b) = pair(Config::default());
    assert_ne!(a.caps().mac, b.caps().mac);
    assert!([&a, &b].iter().all(|end| end.caps().mac[0] & 3 == 2), "locally administered, one receiver");
    let (a, _b) = ports(Config { mac: Some([6; 6]), ..Config::default() }, Config::default());
    assert_eq!(start(a)[0].caps().mac, [6; 6]);
}

#[test]
fn a_held_frame_is_ours_again_as_soon_as_it_is_sent() {
    let (mut a, mut b) = pair(Config::default());
    let mut held = packet_of(&a, b"payload").hold();
    let mut tx = TxBurst::new();
    for _ in 0..2 {
        held.header_mut(14).unwrap().0.fill(1);
        tx.push_held(&mut held, 14, 7).unwrap();
        a.tx_burst(&mut tx);
        assert_eq!(receive(&mut b), [[[1; 14].as_slice(), b"payload"].concat()]);
    }
}

#[test]
fn a_slow_reader_makes_the_sender_wait_and_nothing_is_lost() {
    let (mut a, mut b) = pair(Config { ring_len: 8, ..Config::default() });
    let mut tx = TxBurst::new();
    send(&mut a, &mut tx, (0..20).map(numbered));
    assert_eq!(tx.len(), 12);
    let mut got = receive(&mut b);
    while !tx.is_empty() {
        a.tx_burst(&mut tx);
        got.extend(receive(&mut b));
    }
    assert_eq!(got, (0..20).map(numbered).collect::<Vec<_>>());
    assert_eq!((a.tx_lost(), b.stats().rx_lost), (0, 0));
}

#[test]
fn a_card_without_posted_frames_loses_packets_and_counts_them() {
    let (mut a, mut b) = pair(Config { ring_len: 8, lossless: false, ..Config::default() });
    let mut tx = TxBurst::new();
    send(&mut a, &mut tx, (0..20).map(numbered));
    assert!(tx.is_empty());
    assert_eq!(receive(&mut b), (0..8).map(numbered).collect::<Vec<_>>());
    assert_eq!((a.stats().tx_packets, b.stats().rx_lost), (8, 12));
}

#[test]
fn a_receiver_whose_frames_are_all_in_use_receives_again_when_some_are_freed() {
    let (mut a, mut b) = pair(Config { ring_len: 8, frames_per_queue: 16, ..Config::default() });
    let (mut tx, mut kept) = (TxBurst::new(), RxBurst::new());
    for n in 0..30 {
        if a.pool().free() > 0 {
            send(&mut a, &mut tx, [numbered(n)]);
        }
        b.rx_burst(&mut kept);
    }
    assert_eq!((kept.len(), b.pool().free()), (16, 0));
    let waiting = tx.len();
    assert!(waiting > 0);
    kept.clear();
    assert_eq!(receive(&mut b).len(), 0, "frames are posted");
    a.tx_burst(&mut tx);
    assert_eq!((tx.len(), receive(&mut b).len()), (0, waiting));
}

#[test]
fn what_is_sent_to_an_end_that_is_gone_is_lost_and_never_waits() {
    let (mut a, mut b) = pair(Config::default());
    let (pool_a, pool_b) = (a.pool().clone(), b.pool().clone());
    let mut tx = TxBurst::new();
    send(&mut b, &mut tx, (0..5).map(numbered));
    send(&mut a, &mut tx, (0..5).map(numbered));
    drop(b);
    assert_eq!(pool_b.census().receiving, 256 - 5, "what came and was not taken is home");
    send(&mut a, &mut tx, (0..64).map(numbered));
    assert_eq!((tx.len(), a.tx_lost(), a.pool().region().census(0..4096).sending), (0, 64, 0));
    assert_eq!(receive(&mut a).len(), 5, "what was sent before still arrives");
    drop(a);
    assert_home(&pool_b, &pool_a);
}

#[test]
fn a_queue_that_was_never_started_does_not_hold_frames() {
    let (a, b) = ports(Config::default(), Config::default());
    let mut a = start(a).remove(0);
    let pool = a.pool().clone();
    let mut tx = TxBurst::new();
    send(&mut a, &mut tx, [numbered(1)]);
    assert_eq!(tx.len(), 1, "it may yet start");
    drop(b);
    a.tx_burst(&mut tx);
    assert_eq!((tx.len(), a.tx_lost()), (0, 1));
    assert_eq!(pool.free(), 4096 - 256);
    drop(a);
    assert_eq!((pool.free(), pool.census().free), (4096, 4096));
}

#[test]
fn rss_gives_both_directions_of_a_flow_the_same_queue() {
    let config = Config { queues: 2, ..Config::default() };
    let (a, b) = ports(config.clone(), config);
    let (mut a, mut b) = (start(a), start(b));
    let mut tx = TxBurst::new();
    let mut used = [0; 2];
    for port in 0..100 {
        let rss = b[0].caps().rss.clone().unwrap();
        let queue = rss.queue(Toeplitz::new(&rss.key).of_packet(&segment(port, 80)).unwrap()) as usize;
        send(&mut a[port as usize % 2], &mut tx, [segment(port, 80)]);
        assert_eq!(receive(&mut b[queue]), [segment(port, 80)]);
        send(&mut b[queue], &mut tx, [segment(80, port)]);
        assert_eq!(receive(&mut a[queue]), [segment(80, port)]);
        used[queue] += 1;
    }
    assert!(used[0] > 25 && used[1] > 25, "{used:?}");
    send(&mut a[1], &mut tx, [numbered(9)]);
    assert_eq!(receive(&mut b[0]), [numbered(9)], "what is not IP comes to the first queue");
}

#[test]
fn round_robin_serves_each_queue_in_turn_and_announces_no_rss() {
    let (a, b) = ports(Config::default(), Config { queues: 3, spread: Spread::RoundRobin, ..Config::default() });
    let (mut a, mut b) = (start(a), start(b));
    let mut tx = TxBurst::new();
    send(&mut a[0], &mut tx, (0..7).map(numbered));
    let got: Vec<_> = b.iter_mut().map(receive).collect();
    assert_eq!(
        got,
        [vec![numbered(0), numbered(3), numbered(6)], vec![numbered(1), numbered(4)], vec![numbered(2), numbered(5)]]
    );
    assert_eq!(b[0].caps().rss, None);
}

#[test]
fn a_frame_that_moved_to_another_queue_is_sent_there_and_found_at_home() {
    let (a, b) = ports(Config { queues: 2, ..Config::default() }, Config::default());
    let (mut a, mut b) = (start(a), start(b));
    let moved = FramePool::part_with(packet_of(&a[0], &numbered(3)));
    let mut tx = TxBurst::new();
    tx.push(a[1].pool().adopt(moved));
    a[1].tx_burst(&mut tx);
    assert_eq!(receive(&mut b[0]), [numbered(3)]);
    let away = a[1].pool().take_away().unwrap();
    a[0].pool().bring_home(away);
    assert_eq!(a[0].pool().free(), 4096 - 256);
}

#[test]
fn what_cannot_be_a_packet_is_refused_and_counted() {
    let (mut a, mut b) = pair(Config::default());
    let mut tx = TxBurst::new();
    send(&mut a, &mut tx, [vec![0; 13], vec![0; 1519], vec![7; 1518], vec![0; 14]]);
    assert_eq!((tx.len(), a.stats().tx_invalid, a.stats().tx_packets), (0, 2, 2));
    assert_eq!(receive(&mut b), [vec![7; 1518], vec![0; 14]]);
}

#[test]
fn a_packet_above_the_receivers_mtu_is_lost_there() {
    let (a, b) = ports(Config::default(), Config { mtu: 1280, ..Config::default() });
    let (mut a, mut b) = (start(a), start(b));
    let mut tx = TxBurst::new();
    send(&mut a[0], &mut tx, [vec![0; 1514], vec![1; 1294]]);
    assert_eq!(receive(&mut b[0]), [vec![1; 1294]]);
    assert_eq!(b[0].stats().rx_lost, 1);
}

#[test]
fn a_configuration_that_cannot_work_is_an_error_that_says_what_to_do() {
    let error = |config: Config, count| ports(Config::default(), config).1.open(count).unwrap_err();
    let default = Config::default;
    let queues = error(default(), 3);
    assert_eq!(queues, Error::Queues { configured: 1, wanted: 3 });
    assert!(queues.to_string().contains("wire::Config::queues"));
    assert!(matches!(error(Config { mtu: 9000, ..default() }, 1), Error::Mtu { mtu: 9000, .. }));
    assert!(matches!(error(Config { frames_per_queue: 1, ..default() }, 1), Error::Frames { frames: 1, needed: 2 }));
    assert!(matches!(error(Config { frames_per_queue: u32::MAX, ..default() }, 1), Error::Frames { .. }));
    assert_eq!(error(Config { queues: 0, ..default() }, 0), Error::NoQueue);
    let rss = |table| Spread::ByRss(Some(Rss { key: vec![1; 40], table }));
    for table in [vec![], vec![0, 1]] {
        assert_eq!(error(Config { spread: rss(table), ..default() }, 1), Error::RssTable { queues: 1 });
    }
    assert!(ports(Config { mtu: 9000, ..default() }, default()).1.open(1).is_err(), "one bad end is no wire");
}

#[test]
fn queues_on_threads_exchange_everything_in_order() {
    const COUNT: u32 = 20_000;
    let config =
        Config { queues: 2, ring_len: 16, frames_per_queue: 256, spread: Spread::RoundRobin, ..Config::default() };
    let (a, b) = ports(config.clone(), config);
    let senders = a.open(2).unwrap().into_iter().enumerate().map(|(sender, queue)| {
        std::thread::spawn(move || {
            let (mut driver, mut tx, mut next) = (queue.start().unwrap(), TxBurst::new(), 0);
            while next < COUNT || !tx.is_empty() {
                while next < COUNT && tx.room() > 0 {
                    let mut packet = numbered(next);
                    packet[0] = sender as u8;
                    tx.push(packet_of(&driver, &packet));
                    next += 1;
                }
                driver.tx_burst(&mut tx);
                std::thread::yield_now();
            }
            // Whoever receives goes on after this end is gone.
            assert_left(driver);
        })
    });
    let receivers = b.open(2).unwrap().into_iter().map(|queue| {
        std::thread::spawn(move || {
            let (mut driver, mut count, mut last) = (queue.start().unwrap(), 0, [None; 2]);
            while count < COUNT {
                for packet in receive(&mut driver) {
                    let n = u32::from_be_bytes(packet[14..].try_into().unwrap());
                    let before = last[packet[0] as usize].replace(n);
                    assert!(before < Some(n), "{before:?} came before {n}");
                    count += 1;
                }
                std::thread::yield_now();
            }
            assert_left(driver);
        })
    });
    let threads: Vec<_> = senders.chain(receivers).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Of a queue's frames, those are home that nobody can fill any more: but for as many as it keeps posted, perhaps.
fn assert_left(driver: WireDriver) {
    let pool = driver.pool().clone();
    let posted_max = driver.queue.incoming.iter().map(|incoming| incoming.posted_target as u32).sum();
    drop(driver);
    let census = pool.census();
    assert!(census.receiving <= posted_max, "{census:?}");
    assert_eq!(census, Census { free: pool.free() as u32, receiving: census.receiving, ..Census::default() });
}
