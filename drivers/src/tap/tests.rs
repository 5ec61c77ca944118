use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::frame::{Census, Frame};

/// Runs on a thread in a network namespace of its own, which goes with the thread. Skips without the right to make one.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: unshare only changes this new thread's network namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return eprintln!("skipped: a network namespace needs root");
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            return eprintln!("skipped: /dev/net/tun is not there");
        }
        test();
    };
    std::thread::spawn(run).join().unwrap();
}

fn config(name: &str) -> Config {
    Config { name: name.into(), kernel_addresses: vec![("192.0.2.1".parse().unwrap(), 24)], ..Config::default() }
}

fn open(config: Config, count: usize) -> Vec<TapDriver> {
    TapPort::new(config).open(count).unwrap().into_iter().map(|queue| queue.start().unwrap()).collect()
}

fn fails(config: Config, count: usize) -> Error {
    TapPort::new(config).open(count).expect_err("it cannot be opened")
}

/// Waits for a packet of any of the queues that `wanted` wants.
fn wait_for(drivers: &mut [TapDriver], wanted: impl Fn(&[u8]) -> bool) -> (usize, Frame) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        for (number, driver) in drivers.iter_mut().enumerate() {
            let mut rx = RxBurst::new();
            driver.rx_burst(&mut rx);
            if let Some(frame) = rx.into_iter().find(|frame| wanted(frame)) {
                return (number, frame);
            }
        }
        assert!(Instant::now() < deadline, "the packet does not come");
        std::thread::yield_now();
    }
}

fn is_arp(packet: &[u8]) -> bool {
    packet[12..14] == [8, 6]
}

/// Turns the kernel's question for our address into our answer, in place.
fn answer_arp(driver: &mut TapDriver, mut question: Frame) {
    let mac = driver.caps().mac;
    let ours: [u8; 4] = question[38..42].try_into().unwrap();
    question.copy_within(6..12, 0);
    question[6..12].copy_from_slice(&mac);
    question[21] = 2;
    question.copy_within(22..32, 32);
    question[22..28].copy_from_slice(&mac);
    question[28..32].copy_from_slice(&ours);
    let mut tx = TxBurst::new();
    tx.push(question);
    driver.tx_burst(&mut tx);
    driver.flush();
    assert!(tx.is_empty());
}

#[test]
fn the_kernel_resolves_our_address_and_sends_to_it() {
    in_namespace(|| {
        let mut drivers = open(config("hf-tap0"), 1);
        let region = drivers[0].pool().region().clone();
        let kernel = UdpSocket::bind("192.0.2.1:0").unwrap();
        kernel.send_to(b"to us", "192.0.2.2:9").unwrap();
        let (_, question) = wait_for(&mut drivers, is_arp);
        assert_eq!(question[38..42], [192, 0, 2, 2]);
        assert_ne!(question[6..12], drivers[0].caps().mac);
        answer_arp(&mut drivers[0], question);
        let (_, packet) = wait_for(&mut drivers, |packet| packet.ends_with(b"to us"));
        assert_eq!(packet[..6], drivers[0].caps().mac);

        // And back: swap the addresses and the ports, and leave out the UDP checksum.
        let (mut reply, mut tx) = (packet, TxBurst::new());
        let old = reply.to_vec();
        for (to, from) in [(0..6, 6), (6..12, 0), (26..30, 30), (30..34, 26), (34..36, 36), (36..38, 34)] {
            let len = to.len();
            reply[to].copy_from_slice(&old[from..from + len]);
        }
        reply[40..42].fill(0);
        tx.push(reply);
        drivers[0].tx_burst(&mut tx);
        let mut answer = [0; 16];
        kernel.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (len, from) = kernel.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..len], from.ip()), (&b"to us"[..], IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))));
        drop(drivers);
        assert_eq!(region.census(0..4096), Census { free: 4096, ..Census::default() });
    });
}

#[test]
fn an_idle_worker_is_woken_by_a_packet() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    in_namespace(|| {
        let mut driver = open(config("hf-tap0"), 1).remove(0);
        UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"x", "192.0.2.2:9").unwrap();
        let fd = driver.pollable().unwrap();
        let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)), Ok(1));
        let mut rx = RxBurst::new();
        driver.rx_burst(&mut rx);
        assert!(!rx.is_empty());
    });
}

#[test]
fn many_queues_share_one_interface_and_one_region() {
    in_namespace(|| {
        let mut drivers = open(Config { name: "hf-many%d".into(), ..config("") }, 2);
        assert_eq!([&drivers[0], &drivers[1]].map(TapDriver::interface), ["hf-many0"; 2]);
        assert_eq!(drivers[0].caps().mac, drivers[1].caps().mac);
        assert!(Arc::ptr_eq(drivers[0].pool().region(), drivers[1].pool().region()));
        UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"x", "192.0.2.2:9").unwrap();
        let (number, question) = wait_for(&mut drivers, is_arp);
        answer_arp(&mut drivers[number], question);
        wait_for(&mut drivers, |packet| packet.ends_with(b"x"));
    });
}

#[test]
fn the_interface_goes_with_the_last_queue() {
    in_namespace(|| {
        let exists = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("hf-gone");
        let mut drivers = open(config("hf-gone"), 2);
        drivers.pop();
        assert!(exists());
        drivers.pop();
        assert!(!exists());
    });
}

#[test]
fn the_kernel_side_gets_its_addresses_and_the_mtu() {
    in_namespace(|| {
        let mut config = Config { mtu: 1280, ..config("hf-tap0") };
        config.kernel_addresses.push(("2001:db8::1".parse().unwrap(), 64));
        let _drivers = open(config, 1);
        let v6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        assert!(
            v6.lines().any(|line| line.starts_with("20010db8000000000000000000000001 ") && line.contains(" 40 ")),
            "{v6}"
        );
        let kernel = UdpSocket::bind("192.0.2.1:0").unwrap();
        kernel.connect("192.0.2.2:9").unwrap();
        // IP_MTU_DISCOVER (10) = IP_PMTUDISC_DO (2): a datagram above the MTU is refused.
        let discover: libc::c_int = 2;
        // SAFETY: the option is a c_int, which lives through the call.
        let set = unsafe {
            libc::setsockopt(
                kernel.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw const discover).cast(),
                4,
            )
        };
        assert_eq!(set, 0);
        assert!(kernel.send(&[0; 1280 - 28]).is_ok());
        assert_eq!(kernel.send(&[0; 1280 - 27]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    });
}

#[test]
fn what_the_kernel_refuses_is_counted_and_freed() {
    in_namespace(|| {
        let mut driver = open(config("hf-tap0"), 1).remove(0);
        let mut tx = TxBurst::new();
        for len in [5, 60] {
            let mut frame = driver.pool().alloc().unwrap();
            frame.append(len).fill(0);
            tx.push(frame);
        }
        driver.tx_burst(&mut tx);
        let stats = driver.stats();
        assert_eq!((tx.len(), stats.tx_invalid, stats.tx_packets, driver.pool().free()), (0, 1, 1, 4096));
    });
}

#[test]
fn an_interface_in_use_or_of_another_kind_is_an_error_that_says_so() {
    in_namespace(|| {
        let one = open(config("hf-one"), 1);
        assert!(matches!(fails(config("hf-one"), 1), Error::Busy(name) if name == "hf-one"));
        let error = fails(config("hf-one"), 2);
        assert!(matches!(&error, Error::Unsuitable(name, _) if name == "hf-one"), "{error}");
        assert!(matches!(fails(config("lo"), 1), Error::Unsuitable(..)));
        drop(one);
        open(config("hf-one"), 2);
    });
}

#[test]
fn both_sides_cannot_have_the_same_ethernet_address() {
    in_namespace(|| {
        let mut request = Request::new("hf-same").unwrap();
        let (_file, made) = attach(request, false).unwrap();
        request.0 = made.0;
        let mac = request.mac(&control(AddressFamily::INET).unwrap()).unwrap();
        // SAFETY: TUNSETPERSIST takes a number.
        assert_eq!(unsafe { libc::ioctl(_file.as_raw_fd(), libc::TUNSETPERSIST, 1) }, 0);
        drop(_file);
        assert!(matches!(fails(Config { mac: Some(mac), ..config("hf-same") }, 1), Error::SameMac));
        open(Config { mac: None, ..config("hf-same") }, 1);
        let after = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(after.contains("hf-same"), "an interface that was there before stays");
    });
}

#[test]
fn a_bad_configuration_is_refused_before_anything_is_made() {
    for name in ["", "sixteen-bytes-xx", "a/b", "a b", ".."] {
        assert!(matches!(fails(config(name), 1), Error::Name(_)), "{name}");
    }
    assert!(matches!(fails(Config { mtu: 9000, ..config("hf") }, 1), Error::Mtu { mtu: 9000, max: 1902 }));
    assert!(matches!(fails(Config { mtu: 67, ..config("hf") }, 1), Error::Mtu { .. }));
    assert!(matches!(fails(config("hf"), 0), Error::Queues(0)));
    for frames_per_queue in [0, u32::MAX] {
        assert!(matches!(fails(Config { frames_per_queue, ..config("hf") }, 2), Error::Frames(_)));
    }
}

#[test]
fn without_the_privilege_the_error_says_what_is_needed() {
    let run = || {
        // SAFETY: the raw system call changes the user of this new thread alone.
        if unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) } != 0 {
            return eprintln!("skipped: giving up privileges needs root");
        }
        let error = fails(config("hf-none"), 1);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    };
    std::thread::spawn(run).join().unwrap();
}
