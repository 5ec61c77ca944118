//! AF_XDP queues at one end of a veth pair, the kernel at the other. Needs root; says so and passes where it is not.
#![cfg(all(feature = "xdp", target_os = "linux"))]

mod support;

use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use handfast_drivers::burst::{BURST, RxBurst, TxBurst};
use handfast_drivers::driver::{Driver, Port, Queue};
use handfast_drivers::frame::{FramePool, FrameSize};
use handfast_drivers::xdp::{AfXdp, AttachMode, BindMode, BusyPoll, CopyMode, XdpDriver, XdpError};
use support::{Tap, in_namespace, on_a_wire, run};

const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));
const DEADLINE: Duration = Duration::from_secs(20);
const COUNT: u32 = 10_000;

fn port() -> AfXdp {
    AfXdp::interface("a").own_address(OWN)
}

fn start(port: AfXdp, count: usize) -> Vec<XdpDriver> {
    port.open(count).unwrap().into_iter().map(|queue| queue.start().unwrap()).collect()
}

fn start_one(port: AfXdp) -> XdpDriver {
    start(port, 1).pop().unwrap()
}

/// UDP to our own address, of some length, with a number that also chooses the source port.
fn to_us(mac: [u8; 6], number: u32) -> Vec<u8> {
    let len = 60 + (number as usize * 7) % 1440;
    let mut frame = vec![number as u8; len];
    frame[..6].copy_from_slice(&mac);
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 8, 0]);
    let ip = &mut frame[14..34];
    ip.fill(0);
    (ip[0], ip[8], ip[9]) = (0x45, 64, 17);
    ip[2..4].copy_from_slice(&(len as u16 - 14).to_be_bytes());
    ip[12..20].copy_from_slice(&[198, 51, 100, 9, 198, 51, 100, 2]);
    frame[34..36].copy_from_slice(&(number as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&9u16.to_be_bytes());
    frame[42..46].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A broadcast frame of an experimental type.
fn to_peer(number: u32) -> Vec<u8> {
    let mut frame = vec![number as u8; 60 + (number as usize * 11) % 1440];
    frame[..6].fill(0xff);
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn push(pool: &FramePool, tx: &mut TxBurst, bytes: &[u8]) {
    let mut frame = pool.alloc().expect("frames come back");
    assert_eq!(frame.extend_from_slice(bytes), bytes.len());
    tx.push(frame);
}

/// Polls until something is received.
fn receive(driver: &mut XdpDriver, rx: &mut RxBurst) {
    let start = Instant::now();
    while rx.is_empty() {
        driver.rx_burst(rx);
        driver.flush();
        assert!(start.elapsed() < DEADLINE, "{:?} {:?}", driver.xdp_stats(), driver.steering().counters());
    }
}

/// Polls until everything that was sent is completed, and all frames but those posted are free.
fn settle(driver: &mut XdpDriver) {
    let start = Instant::now();
    while driver.pool().census().sending != 0 {
        driver.flush();
        assert!(start.elapsed() < DEADLINE, "{:?}", driver.xdp_stats());
    }
}

fn send(driver: &mut XdpDriver, tx: &mut TxBurst) {
    let start = Instant::now();
    while !tx.is_empty() {
        driver.tx_burst(tx);
        driver.flush();
        assert!(start.elapsed() < DEADLINE, "{:?}", driver.xdp_stats());
    }
    driver.flush();
}

fn nothing_is_attached() {
    wait_for(|| !run("ip link show dev a").contains("xdp"));
}

/// What closing a descriptor does may come late here: the child of another test has it too from its fork to its exec.
fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(2));
        thread::sleep(Duration::from_millis(5));
    }
}

/// Moves this thread to a core, if there is that one.
fn on_cpu(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn ends_with_every_frame_free(driver: XdpDriver) {
    let pool = driver.pool().clone();
    drop(driver);
    assert_eq!(pool.free(), pool.capacity());
    assert_eq!(pool.census().free as usize, pool.capacity());
}

fn no_frame_is_lost(attach: AttachMode) {
    on_a_wire(1, move |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port().attach_mode(attach));
        assert_eq!((driver.report().attach, driver.report().copy_mode), (attach, CopyMode::Copy));
        let (mut rx, mut tx) = (RxBurst::new(), TxBurst::new());
        let (mac, mut to_us_next, mut to_peer_next) = (driver.caps().mac, 0, 0);
        while to_us_next < COUNT {
            // Both ways at once, as many as the other side surely holds.
            for number in to_peer_next..(to_peer_next + 32).min(COUNT) {
                push(driver.pool(), &mut tx, &to_peer(number));
            }
            send(&mut driver, &mut tx);
            let end = (to_us_next + 32).min(COUNT);
            (to_us_next..end).for_each(|number| tap.send(&to_us(mac, number)));
            while to_us_next < end {
                receive(&mut driver, &mut rx);
                for frame in rx.drain(..) {
                    assert_eq!(frame[..], to_us(mac, to_us_next)[..]);
                    to_us_next += 1;
                }
            }
            settle(&mut driver);
            while let Some(frame) = tap.recv() {
                assert_eq!(frame, to_peer(to_peer_next));
                to_peer_next += 1;
            }
        }
        assert_eq!(to_peer_next, COUNT);
        let stats = driver.stats();
        assert_eq!((stats.rx_packets, stats.tx_packets), (COUNT.into(), COUNT.into()));
        assert_eq!((stats.rx_lost, stats.tx_invalid), (0, 0));
        assert!(driver.fault().is_none());
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn ten_thousand_frames_pass_each_way_in_native_mode() {
    no_frame_is_lost(AttachMode::Native);
}

#[test]
fn ten_thousand_frames_pass_each_way_in_generic_mode() {
    no_frame_is_lost(AttachMode::Generic);
}

#[test]
fn two_queues_share_a_region_and_each_sends_the_others_frames() {
    on_a_wire(2, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut drivers = start(port(), 2);
        let mac = drivers[0].caps().mac;
        assert_eq!(drivers.iter().map(|driver| driver.caps().queue).collect::<Vec<_>>(), [0, 1]);
        let (mut rx, mut received) = (RxBurst::new(), [0u32; 2]);
        let start = Instant::now();
        for number in 0..1000 {
            on_cpu(number as usize % 2);
            tap.send(&to_us(mac, number));
            let before = received;
            while received == before {
                for (driver, received) in drivers.iter_mut().zip(&mut received) {
                    driver.rx_burst(&mut rx);
                    driver.flush();
                    *received +=
                        rx.drain(..).inspect(|frame| assert_eq!(frame[..], to_us(mac, number)[..])).count() as u32;
                }
                assert!(start.elapsed() < DEADLINE, "{received:?}");
            }
        }
        // The kernel sends on the queue of its core, or else of the flow, and a veth pair joins queue to queue.
        let cpus = thread::available_parallelism().unwrap().get();
        assert!(cpus == 1 || received.iter().all(|&received| received > 100), "{received:?}");

        let [first, second] = &mut drivers[..] else { unreachable!() };
        let mut tx = TxBurst::new();
        for number in 0..20 {
            let mut frame = first.pool().alloc().unwrap();
            frame.extend_from_slice(&to_peer(number));
            tx.push(second.pool().adopt(FramePool::part_with(frame)));
        }
        send(second, &mut tx);
        settle(first); // the frames of its share
        settle(second);
        for number in 0..20 {
            assert_eq!(tap.recv(), Some(to_peer(number)));
        }
        let mut home = 0;
        while let Some(desc) = second.pool().take_away() {
            first.pool().bring_home(desc);
            home += 1;
        }
        assert_eq!(home, 20);
        drivers.into_iter().for_each(ends_with_every_frame_free);
    });
}

#[test]
fn more_than_one_kick_sends_goes_out_without_further_frames() {
    on_a_wire(1, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port());
        let mut tx = TxBurst::new();
        let mut sent = 0;
        // Several bursts behind one flush: more than one kick sends.
        for _ in 0..3 {
            (0..BURST).for_each(|_| {
                push(driver.pool(), &mut tx, &to_peer(sent));
                sent += 1;
            });
            driver.tx_burst(&mut tx);
            assert!(tx.is_empty());
        }
        settle(&mut driver);
        assert_eq!(std::iter::from_fn(|| tap.recv()).count() as u32, sent);
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn a_held_frame_comes_back_and_can_be_sent_again() {
    on_a_wire(1, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port());
        let mut tx = TxBurst::new();
        let mut frame = driver.pool().alloc().unwrap();
        frame.extend_from_slice(b"payload");
        let mut held = frame.hold();
        for number in 0..3 {
            let header = to_peer(number);
            held.header_mut(header.len().min(60)).unwrap().0.copy_from_slice(&header[..60]);
            tx.push_held(&mut held, 60, 7).unwrap();
            send(&mut driver, &mut tx);
            settle(&mut driver);
            let frame = tap.recv().unwrap();
            assert_eq!((&frame[..60], &frame[60..]), (&header[..60], &b"payload"[..]));
        }
        drop(held);
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn what_the_kernel_would_swallow_is_refused_and_counted() {
    on_a_wire(1, |_| {
        let mut driver = start_one(port());
        let mut tx = TxBurst::new();
        for len in [0, 13, 1519] {
            push(driver.pool(), &mut tx, &vec![0xff; len]);
        }
        send(&mut driver, &mut tx);
        assert_eq!((driver.stats().tx_packets, driver.stats().tx_invalid), (0, 3));
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn frames_that_nobody_received_or_sent_come_back_too() {
    on_a_wire(1, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port());
        let mac = driver.caps().mac;
        (0..100).for_each(|number| tap.send(&to_us(mac, number)));
        run("ip link set dev a down");
        let mut tx = TxBurst::new();
        (0..50).for_each(|number| push(driver.pool(), &mut tx, &to_peer(number)));
        driver.tx_burst(&mut tx);
        driver.flush();
        assert!(driver.xdp_stats().kick_down > 0 && driver.fault().is_none());
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn a_slow_receiver_loses_packets_and_not_frames() {
    on_a_wire(1, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port().frames_per_queue(128).ring_size(64));
        let (mac, mut rx) = (driver.caps().mac, RxBurst::new());
        for round in 1..=20u64 {
            (0..200).for_each(|number| tap.send(&to_us(mac, number)));
            let deadline = Instant::now() + Duration::from_millis(200);
            // The packets that were posted for arrive, whatever is held in between.
            while Instant::now() < deadline && driver.stats().rx_packets + driver.stats().rx_lost < 200 * round {
                driver.rx_burst(&mut rx);
                driver.flush();
                rx.clear();
            }
        }
        let stats = driver.stats();
        assert!(stats.rx_packets >= 20 * 64 && stats.rx_lost > 0, "{stats:?}");
        assert_eq!(stats.rx_packets + stats.rx_lost, 4000, "{stats:?}");
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn an_interface_that_comes_back_goes_on() {
    on_a_wire(1, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port());
        run("ip link set dev a down");
        let mut tx = TxBurst::new();
        push(driver.pool(), &mut tx, &to_peer(1));
        send(&mut driver, &mut tx);
        run("ip link set dev a up");
        settle(&mut driver);
        assert_eq!(tap.recv(), Some(to_peer(1)));
        tap.send(&to_us(driver.caps().mac, 7));
        let mut rx = RxBurst::new();
        receive(&mut driver, &mut rx);
        assert_eq!(rx[0][42..46], 7u32.to_be_bytes());
        rx.clear();
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn a_removed_interface_is_an_error_to_look_at_and_no_panic() {
    on_a_wire(1, |_| {
        let mut driver = start_one(port());
        assert!(driver.fault().is_none());
        run("ip link del dev a");
        let (mut rx, mut tx) = (RxBurst::new(), TxBurst::new());
        // Also one that sends nothing finds out.
        assert!(driver.fault().is_some());
        push(driver.pool(), &mut tx, &to_peer(2));
        send(&mut driver, &mut tx);
        driver.rx_burst(&mut rx);
        assert_eq!(driver.xdp_stats().tx_lost, 1);
        assert!(driver.fault().unwrap().to_string().contains("removed"));
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn the_kernels_own_address_lives_on_and_ours_is_asked_for_at_our_end() {
    on_a_wire(1, |peer| {
        run("ip address add 198.51.100.1/24 dev a");
        peer.enter(|| run("ip address add 198.51.100.9/24 dev b"));
        let mut driver = start_one(port());
        peer.enter(|| run("ping -c 2 -i 0.2 -W 5 198.51.100.1"));
        let mut rx = RxBurst::new();
        driver.rx_burst(&mut rx);
        assert!(rx.is_empty(), "{rx:?}");

        peer.enter(|| {
            std::process::Command::new("ping").args(["-c", "1", "-W", "1", "198.51.100.2"]).output().unwrap()
        });
        receive(&mut driver, &mut rx);
        assert_eq!(rx[0][12..14], [8, 6], "ARP");
        assert_eq!(rx[0][38..42], [198, 51, 100, 2]);
        assert!(driver.steering().counters().unwrap().not_ours > 0);
        rx.clear();
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn a_shared_addresss_open_port_is_ours_and_the_rest_the_kernels() {
    on_a_wire(1, |peer| {
        run("ip address add 198.51.100.2/24 dev a");
        peer.enter(|| run("ip address add 198.51.100.9/24 dev b"));
        let mut driver = start_one(AfXdp::interface("a").shared_address(OWN));
        assert!(driver.open_port(OWN, 80) && !driver.open_port([192, 0, 2, 1].into(), 80));
        peer.enter(|| run("ping -c 1 -W 5 198.51.100.2"));
        let connect = |port: u16| std::net::TcpStream::connect_timeout(&(OWN, port).into(), Duration::from_millis(300));
        let error = |port| peer.enter(|| connect(port).unwrap_err().kind());
        assert_eq!(error(81), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(error(80), std::io::ErrorKind::TimedOut);
        let mut rx = RxBurst::new();
        receive(&mut driver, &mut rx);
        assert_eq!(rx[0][36..38], 80u16.to_be_bytes());
        rx.clear();
        assert!(driver.close_port(OWN, 80));
        assert_eq!(error(80), std::io::ErrorKind::ConnectionRefused);
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn the_group_that_asks_for_an_own_ipv6_address_is_joined_while_the_port_is_open() {
    on_a_wire(1, |_| {
        let address: Ipv6Addr = "2001:db8::12:3456".parse().unwrap();
        let queues = port().own_address(address.into()).open(1).unwrap();
        assert!(run("ip maddress show dev a").contains("33:33:ff:12:34:56"));
        drop(queues);
        wait_for(|| !run("ip maddress show dev a").contains("33:33:ff:12:34:56"));
    });
}

#[test]
fn nothing_stays_attached_and_the_port_opens_again() {
    on_a_wire(2, |_| {
        for _ in 0..2 {
            let mut drivers = start(port(), 2);
            drop(drivers.pop());
            assert!(run("ip link show dev a").contains("xdp"), "one queue is left");
            drop(drivers);
            nothing_is_attached();
        }
    });
}

#[test]
fn a_queue_without_a_worker_is_refused_unless_that_is_allowed() {
    on_a_wire(2, |_| {
        assert!(matches!(port().open(1), Err(XdpError::UnboundQueues { device_queues: 2, .. })));
        assert!(matches!(port().open(3), Err(XdpError::Queues { device_queues: 2, .. })));
        let driver = start_one(port().first_queue(1).allow_unbound_queues(true));
        assert_eq!((driver.report().queue, driver.caps().queue, driver.caps().queues), (1, 0, 1));
    });
}

#[test]
fn an_idle_worker_sleeps_until_something_comes() {
    on_a_wire(1, |peer| {
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port().busy_poll(BusyPoll { usecs: 20, budget: 64, prefer: true }));
        let mac = driver.caps().mac;
        let readable = |driver: &XdpDriver, milliseconds: i64| {
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
            let fd = driver.pollable().unwrap();
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
        };
        assert!(!readable(&driver, 1));
        tap.send(&to_us(mac, 1));
        assert!(readable(&driver, 900));
        let mut rx = RxBurst::new();
        receive(&mut driver, &mut rx);
        rx.clear();
        assert!(!readable(&driver, 1));
        ends_with_every_frame_free(driver);
    });
}

#[test]
fn queues_start_on_other_threads() {
    on_a_wire(2, |_| {
        let workers: Vec<_> = (port().open(2).unwrap().into_iter())
            .map(|queue| thread::spawn(|| queue.start().map(ends_with_every_frame_free).unwrap()))
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        nothing_is_attached();
    });
}

#[test]
fn the_report_says_what_was_got_and_why() {
    on_a_wire(1, |_| {
        let driver = start_one(port().huge_pages(false));
        let report = driver.report();
        assert_eq!((report.attach, report.copy_mode, report.huge_pages), (AttachMode::Native, CopyMode::Copy, false));
        let line = report.to_string();
        assert!(line.starts_with("a queue 0: XDP in native mode, copy (the driver refuses zero-copy: "), "{line}");
        assert!(line.ends_with("2048-byte frames on normal pages"), "{line}");
        drop(driver);
        let driver = start_one(port().bind_mode(BindMode::ForceCopy).attach_mode(AttachMode::Generic));
        let line = driver.report().to_string();
        assert!(line.contains("generic mode, copy (it was asked for)"), "{line}");
        eprintln!("{line}");
        drop(driver);
        let driver = start_one(port().attach_mode(AttachMode::Generic));
        assert!(driver.report().to_string().contains("zero-copy needs XDP in native mode"));
        drop(driver);
        let error = port().bind_mode(BindMode::ForceZeroCopy).open(1).unwrap_err().to_string();
        assert!(error.contains("refuses zero-copy"), "{error}");
        nothing_is_attached();
    });
}

#[test]
fn large_frames_follow_a_large_mtu() {
    on_a_wire(1, |peer| {
        run("ip link set dev a mtu 3000");
        peer.enter(|| run("ip link set dev b mtu 3000"));
        let tap = peer.enter(|| Tap::new("b", 0x88b5));
        let mut driver = start_one(port());
        assert_eq!((driver.report().frame_size, driver.caps().mtu), (FrameSize::Large, 3000));
        let mut frame = to_us(driver.caps().mac, 5);
        frame.resize(3014, 5);
        tap.send(&frame);
        let mut rx = RxBurst::new();
        receive(&mut driver, &mut rx);
        assert_eq!(rx[0][..], frame[..]);
        rx.clear();
        ends_with_every_frame_free(driver);
        run("ip link set dev a mtu 9000");
        assert!(matches!(port().open(1), Err(XdpError::Mtu { mtu_max: 3822, .. })));
    });
}

#[test]
fn a_second_port_on_the_interface_is_told_who_is_there() {
    on_a_wire(1, |_| {
        let _first = start_one(port());
        let error = port().open(1).unwrap_err().to_string();
        assert!(error.contains("already has XDP program") && error.contains("steer"), "{error}");
    });
}

#[test]
fn an_address_of_the_kernels_cannot_be_ours_alone() {
    on_a_wire(1, |_| {
        run("ip address add 198.51.100.2/24 dev a");
        let error = port().open(1).unwrap_err().to_string();
        assert!(error.contains("ip address del 198.51.100.2/PREFIX dev a"), "{error}");
        nothing_is_attached();
    });
}

#[test]
fn a_missing_interface_is_named() {
    in_namespace(|| {
        let error = port().open(1).unwrap_err().to_string();
        assert!(error.contains("no interface \"a\""), "{error}");
    });
}

#[test]
fn without_privilege_the_error_says_which() {
    on_a_wire(1, |_| {
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = port().open(1).unwrap_err().to_string();
        assert!(error.contains("run as root") && error.contains("CAP_BPF"), "{error}");
    });
}
