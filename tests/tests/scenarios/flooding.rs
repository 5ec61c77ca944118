use std::net::{IpAddr, Ipv4Addr};

use handfast::ip::routes::Route;
use handfast::metrics::Counter;
use handfast::time::{Duration, Instant};
use handfast::wire::address::{Address, Mac};
use handfast_drivers::impair::Impairment;
use handfast_tests::world::apps::{Ends, Plan, Starts};
use handfast_tests::world::packet;
use handfast_tests::world::random::Random;

use super::*;

/// SYNs from anywhere, so many a second.
struct Flood {
    syns: u64,
    per_s: u64,
}

/// Honest clients' hosts; the server is the first.
const CLIENTS: usize = 4;
/// The Ethernet address of the router, who is nobody in this world.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// A server that keeps 1024 half-open connections at most, clients whose packets are sometimes lost, and a router to everywhere.
fn town(cookies: bool, loss_ppm: u32) -> World {
    let mut world = World::new(2);
    let gateway = Address::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)));
    for number in 0..=CLIENTS {
        let mut config = HostConfig::plain(number as u8 + 1);
        config.nic.posted = 512;
        config.nic.queue = 512;
        if number == 0 {
            config.stack.tcp.syn_cookies = cookies;
            config.stack.ip.routes = vec![Route::default_via(gateway)];
            config.stack.ip.neighbours = vec![(gateway, Mac(ROUTER))];
            // The waits of what closes first are not what this is about.
            config.stack.tcp.msl = Duration::from_secs(1);
        }
        let impairment = Impairment { loss_ppm: if number == 0 { 0 } else { loss_ppm }, ..Impairment::default() };
        let link = Link { impairment: Impairment { delay_us: 5_000, ..impairment }, ..Link::default() };
        world.join(config, link.clone(), link);
    }
    world.with(0, |cx, _| cx.listen(80).expect("a port that is free"));
    world
}

/// Sends the flood, burst after burst.
fn flood(world: &mut World, flood: Flood, mut random: Random) {
    const BURST: u64 = 50;
    if flood.syns == 0 {
        return;
    }
    let macs = (ROUTER, world.hosts[0].mac);
    for _ in 0..BURST.min(flood.syns) {
        let from = loop {
            let from = Ipv4Addr::from(random.number() as u32);
            let fit = !from.is_multicast() && !from.is_loopback() && !from.is_broadcast() && from.octets()[0] != 0;
            if fit && from.octets()[..3] != [10, 0, 0] && from.octets()[0] < 224 {
                break from;
            }
        };
        let timestamps = random.one_in(2).then(|| (random.number() as u32, 0));
        let syn = Segment {
            from: SocketAddr::from((from, 1 + random.below(65_535) as u16)),
            to: SocketAddr::from(([10, 0, 0, 1], 80)),
            seq: random.number() as u32,
            ack: 0,
            flags: SYN,
            window: random.number() as u16,
            mss: Some(1460),
            scale: random.one_in(2).then(|| random.below(15) as u8),
            sack_permitted: random.one_in(2),
            timestamps,
            sack: Vec::new(),
            payload: 0..0,
        };
        world.inject(0, packet::write(macs, &syn, &[]));
    }
    let left = Flood { syns: flood.syns - BURST.min(flood.syns), ..flood };
    let next = world.now + Duration::from_micros(BURST * 1_000_000 / left.per_s);
    world.at(next, move |world| self::flood(world, left, random));
}

/// A thousand honest clients come while the flood does: how many found the server, and what it kept at most.
fn thousand_in_a_flood(world: &mut World, syns: u64) -> (usize, u32) {
    let span_ms = 20_000;
    flood(world, Flood { syns, per_s: syns * 1000 / span_ms }, Random::new(3));
    for number in 0..1000_u64 {
        // When the flood is at its height, but not yet over.
        let at = world.now + Duration::from_millis(1_000 + number * 15);
        world.at(at, move |world| {
            let client = 1 + number as usize % CLIENTS;
            let request = Plan { bytes: 2_500, ..Plan::default() };
            let response =
                Plan { bytes: 8_000, starts: Starts::AfterBytes(2_500), ends: Ends::AfterPeer, ..Plan::default() };
            world.connect(client, SocketAddr::from(([10, 0, 0, 1], 80)), request, response);
        });
    }
    let mut half_open_max = 0;
    let end: Instant = world.now + Duration::from_millis(span_ms);
    while world.now < end {
        world.run(Duration::from_millis(5));
        half_open_max = half_open_max.max(world.hosts[0].stack().half_open());
    }
    let served = world.book.borrow().pairs.iter().filter(|pair| pair.sides[0].received == 8_000).count();
    (served, half_open_max)
}

#[test]
fn a_million_syns_keep_nobody_out() {
    let mut world = town(true, 20_000);
    let memory = memory_kib();
    let (served, half_open_max) = thousand_in_a_flood(&mut world, 1_000_000);
    let grown = memory_kib().saturating_sub(memory);
    let server = &world.hosts[0];
    let [cookies, opened] = [Counter::SynCookiesSent, Counter::SynCookiesOpened].map(|counter| server.counter(counter));
    println!(
        "served {served} of 1000 while it lasted, {opened} of them by a cookie; {cookies} cookies for {} packets, {half_open_max} half-open at most; {grown} KiB more memory",
        server.counter(Counter::PacketsReceived)
    );
    assert!(cookies > 990_000 && opened > 900, "{cookies} cookies, {opened} opened");
    assert_eq!(half_open_max, 1024, "what is kept has its limit");
    // Some had bad luck with the network, and are late.
    assert!(served > 980, "{served} served");
    world.finish(Duration::from_secs(600)); // each of them with all its bytes, and no half-open connection left
}

#[test]
fn without_cookies_a_flood_keeps_most_out() {
    let mut world = town(false, 0);
    let (served, half_open_max) = thousand_in_a_flood(&mut world, 100_000);
    assert!(served < 100, "{served} served");
    assert_eq!(half_open_max, 1024);
    world.finish(Duration::from_secs(600));
}

#[test]
fn with_room_for_half_open_connections_there_are_no_cookies() {
    let mut world = town(true, 0);
    let (served, _) = thousand_in_a_flood(&mut world, 500);
    assert_eq!(served, 1000);
    assert_eq!(world.hosts[0].counter(Counter::SynCookiesSent), 0);
    world.finish(Duration::from_secs(600));
}

/// Found by worlds, seed 2059 first.
#[test]
fn a_cookie_counts_even_if_the_syn_came_again_when_there_was_room() {
    let mut world = World::new(1);
    world.keeps_log = true;
    for number in [CLIENT, SERVER] {
        let mut config = HostConfig::plain(number as u8 + 1);
        config.stack.limits.backlog_max = 1;
        world.join(config, Link::of_delay_us(400_000), Link::of_delay_us(400_000));
    }
    world.with(SERVER, |cx, _| cx.listen(80).expect("a port that is free"));
    // They know each other, and somebody is half-open.
    world.connect(CLIENT, server(), Plan::default(), Plan::default());
    world.finish(Duration::from_secs(200));
    let stranger = Segment {
        from: SocketAddr::from(([10, 0, 0, 77], 7_777)),
        to: server(),
        seq: 1,
        ack: 0,
        flags: SYN,
        window: 1_000,
        mss: None,
        scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: Vec::new(),
        payload: 0..0,
    };
    world.inject_segment(&stranger, &[]);
    world.connect(CLIENT, server(), Plan { bytes: 3_000, ..Plan::default() }, Plan::default());
    world.run(Duration::from_millis(1_000)); // the SYN has come, and has found no room
    assert_eq!(world.hosts[SERVER].counter(Counter::SynCookiesSent), 1);
    world.inject_segment(&Segment { seq: 2, flags: RST, ..stranger }, &[]);
    world.run(Duration::from_millis(1_000)); // it has come again
    assert_eq!(world.hosts[SERVER].stack().half_open(), 1);
    world.finish(Duration::from_secs(200));
    assert_eq!(world.hosts[SERVER].counter(Counter::SynCookiesOpened), 1);
    assert_eq!(world.book.borrow().pairs[1].sides[1].received, 3_000);
}

/// What this process has in memory.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
