use super::*;
use crate::wire::address::Address;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

const SECRET: [u64; 4] = [1, 2, 3, 4];

fn to(remote_port: u16) -> FlowKey {
    let [local, remote] = [1, 2].map(|host| Address::v4([10, 0, 0, host]));
    FlowKey { local, remote, local_port: 0, remote_port }
}

#[test]
fn a_walk_between_ipv4_addresses_is_the_walk_of_their_key() {
    let mut ports = Ports::new(SECRET, 1024..=65_535);
    for port in 0..200 {
        let walks = [ports.towards(&to(port)), ports.towards_v4([10, 0, 0, 1], [10, 0, 0, 2], port)];
        assert_eq!([walks[0].counter, walks[0].offset as usize], [walks[1].counter, walks[1].offset as usize]);
        let [next, same] = walks.map(|mut walk| (ports.peek(&walk), ports.next(&mut walk)));
        assert!(next.0 == next.1 && same.0 == same.1);
    }
}

fn pick(ports: &mut Ports, remote_port: u16, mut is_usable: impl FnMut(u16) -> bool) -> Option<u16> {
    let mut walk = ports.towards(&to(remote_port));
    core::iter::from_fn(|| ports.next(&mut walk)).find(|port| is_usable(*port))
}

#[test]
fn the_port_that_comes_next_is_told() {
    let mut ports = Ports::new(SECRET, 40_000..=40_009);
    for _ in 0..25 {
        let mut walk = ports.towards(&to(80));
        let port = ports.next(&mut walk).expect("there are some");
        let told = ports.after(port);
        assert_eq!([ports.peek(&walk), ports.peek(&ports.towards(&to(80)))], [Some(told); 2]);
    }
}

#[test]
fn one_destination_walks_through_the_whole_range_before_a_port_comes_back() {
    for range in [1024..=65_535, 0..=65_535, 40_000..=40_000, 32_768..=32_777] {
        let count = range.len();
        let mut ports = Ports::new(SECRET, range.clone());
        let lap: Vec<u16> = (0..count).map(|_| pick(&mut ports, 80, |_| true).expect("usable")).collect();
        assert_eq!(lap.iter().copied().collect::<BTreeSet<_>>(), range.collect::<BTreeSet<_>>());
        // Again in the same order, so each comes back after exactly one lap.
        assert!(lap.iter().all(|port| pick(&mut ports, 80, |_| true) == Some(*port)));
    }
}

#[test]
fn destinations_start_at_places_of_their_own_that_depend_on_the_secret() {
    let starts = |secret| -> Vec<u16> {
        let mut ports = Ports::new(secret, 1024..=65_535);
        (0..200).map(|n| pick(&mut ports, n, |_| true).expect("usable")).collect()
    };
    let (one, other) = (starts(SECRET), starts([4, 3, 2, 1]));
    assert!(one.iter().collect::<BTreeSet<_>>().len() > 190);
    assert!(one.iter().zip(&other).filter(|(a, b)| a == b).count() < 5);
}

#[test]
fn unusable_ports_are_passed_over_and_a_search_ends() {
    let mut ports = Ports::new(SECRET, 10_000..=10_099);
    let picked = pick(&mut ports, 80, |port| port == 10_042);
    assert_eq!(picked, Some(10_042));
    let mut probes = BTreeSet::new();
    assert_eq!(pick(&mut ports, 80, |port| !probes.insert(port)), None);
    assert_eq!(probes.len(), 100);

    let mut ports = Ports::new(SECRET, 0..=65_535);
    let mut probes = BTreeSet::new();
    while pick(&mut ports, 80, |port| !probes.insert(port)).is_none() {}
    assert_eq!(probes.len(), 65_536, "a search that gave up is continued by the next");
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "a configuration may say so")]
fn an_empty_range_gives_no_port() {
    let mut none = Ports::new(SECRET, 2..=1);
    assert_eq!(pick(&mut none, 80, |_| true), None);
    assert_eq!(none.peek(&none.towards(&to(80))), None);
}
