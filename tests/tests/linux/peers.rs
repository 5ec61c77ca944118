//! The peers themselves, kernel against kernel: what the other tests rest on.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use handfast_tests::capture::{self, Capture};
use handfast_tests::kernel::{self, FirstToClose, Load, Server, Service};
use handfast_tests::netns::{Netns, veth};
use handfast_tests::process::run_for;
use handfast_tests::say;

use crate::needs;

fn two_kernels() -> (Netns, Netns) {
    let (a, b) = (Netns::new(), Netns::new());
    veth((&a, "left"), (&b, "right"), 2, 1500);
    for (netns, name, host) in [(&a, "left", 1), (&b, "right", 2)] {
        netns.address(name, IpAddr::from([10, 0, 0, host]), 24);
        netns.address(name, IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]), 64);
        kernel::widen(netns);
    }
    (a, b)
}

#[test]
fn a_namespace_is_left_as_it_was_found() {
    needs!(root);
    let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let (before, netns) = (here(), Netns::new());
    assert_ne!(netns.run(here), before);
    assert!(std::panic::catch_unwind(|| netns.run(|| panic!("inside"))).is_err());
    assert_eq!(here(), before);
}

#[test]
fn clients_and_servers_of_two_kernels_agree_on_every_connection() {
    needs!(root);
    let (a, b) = two_kernels();
    for (address, service, first) in
        [("10.0.0.2:7", Service::Echo, FirstToClose::Client), ("[fd00::2]:8", Service::EchoOnce, FirstToClose::Server)]
    {
        let to: SocketAddr = address.parse().unwrap();
        let server = b.run(|| Server::start(to, service, 32));
        let load = Load { to: vec![to], connections: 2_000, at_a_time: 16, first };
        let outcome = a.run(|| kernel::open_and_close(&load));
        say(format_args!("{address} {service:?}: {outcome}"));
        assert_eq!((outcome.done, outcome.failures), (2_000, vec![]));
        assert_eq!(server.failures(), Vec::<String>::new());
    }
}

#[test]
fn a_deaf_peer_talks_and_hears_nothing() {
    needs!(root);
    let (a, b) = two_kernels();
    let _server = b.run(|| Server::start("0.0.0.0:7".parse().unwrap(), Service::Echo, 1));
    a.deafen("left");
    let to = "10.0.0.2:7".parse().unwrap();
    let _begun = a.run(|| kernel::begin(to, 3));
    std::thread::sleep(Duration::from_millis(100));
    let states = b.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp")).unwrap();
    // The third column is the state; 03 is SYN-RECEIVED.
    assert_eq!(states.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count(), 3, "{states}");
}

#[test]
fn tshark_finds_a_packet_with_a_bad_checksum_and_nothing_else() {
    needs!(root, "tshark", "tcpdump", "ping");
    let (a, b) = two_kernels();
    let dir = handfast_tests::Scratch::new();
    let record = |name: &str| {
        let recording = Capture::start(&b, "right", dir.path().join(name));
        let ping = a.run(|| run_for(Command::new("ping").args(["-c1", "10.0.0.2"]), Duration::from_secs(5))).unwrap();
        (ping.status.success(), recording.stop())
    };
    let (answered, good) = record("good.pcap");
    assert!(answered && capture::packets(&good) >= 2);
    assert_eq!(capture::faults(&good), "");

    // One bit of the last packet is flipped in the file itself.
    let mut bytes = std::fs::read(&good).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let bad = dir.path().join("bad.pcap");
    std::fs::write(&bad, bytes).unwrap();
    assert_eq!(capture::faults(&bad).lines().count(), 1);
}
