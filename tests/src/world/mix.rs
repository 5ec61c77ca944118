//! A world out of a seed: how many hosts, what their stacks are like, what is between them, what they say to each other, and
//! what goes wrong.

use std::net::SocketAddr;
use std::path::Path;

use handfast::time::{Duration, Instant};
use handfast_drivers::impair::Impairment;

use super::World;
use super::apps::{Ends, Plan, Reads, Starts};
use super::host::HostConfig;
use super::link::{Accidents, Link};
use super::nic::NicConfig;
use super::random::Random;

/// What a seed's world came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Connections that were begun.
    pub connections: u64,
    /// TCP segments that were sent.
    pub segments: u64,
    /// What happened to packets.
    pub accidents: Accidents,
    /// Crashes of hosts.
    pub crashes: u64,
    /// Bytes that applications read.
    pub bytes: u64,
    /// Virtual time, in seconds.
    pub seconds: f64,
}

/// Runs the world of a seed to its end. Panics when something does not hold.
pub fn run(seed: u64, pcap: Option<&Path>) -> Outcome {
    let mut random = Random::new(seed);
    let mut world = World::new(random.number());
    if let Some(path) = pcap {
        world.record(path);
    }
    let weather = Weather::of(&mut random);
    let begins = Instant::from_micros(random.pick(&BEGINS_US) + random.below(1_000_000));
    world.now = begins;
    world.narrow = weather.middle_mtu;
    let hosts = 2 + random.skewed(0, 4) as usize;
    for number in 0..hosts {
        let config = host(&mut random, number, &weather);
        let (up, down) = (weather.link(&mut random, begins), weather.link(&mut random, begins));
        world.join(config, up, down);
        world.act(number, |cx, _| cx.listen(80).expect("a port that is free"));
    }
    let crashes = if weather.crashes { crash_some(&mut world, &mut random, hosts) } else { 0 };
    for _ in 0..1 + random.skewed(0, 30) {
        connection(&mut world, &mut random, hosts, &weather);
    }
    world.finish(Duration::from_secs(40_000));
    let book = world.book.borrow();
    Outcome {
        connections: book.pairs.iter().filter(|pair| pair.begun.is_some()).count() as u64,
        segments: world.segments(),
        accidents: world.network.accidents,
        crashes,
        bytes: book.pairs.iter().flat_map(|pair| &pair.sides).map(|side| side.received).sum(),
        seconds: world.now.since(begins).as_secs_f64(),
    }
}

/// What goes wrong in this world.
#[derive(Debug)]
struct Weather {
    loss_ppm: u32,
    duplicate_ppm: u32,
    corrupt_ppm: u32,
    reorder_ppm: u32,
    jitter_us: u32,
    delay_us: u64,
    narrow: bool,
    blackouts: bool,
    crashes: bool,
    mtus: bool,
    /// Of the way between the hosts.
    middle_mtu: Option<u16>,
    stray_ppm: u32,
    /// Few half-open connections may be kept.
    cookies: bool,
}

impl Weather {
    fn of(random: &mut Random) -> Weather {
        let fair = random.one_in(4);
        let mut ppm = |most: u64| if fair || random.one_in(2) { 0 } else { random.skewed(most / 64, most) as u32 };
        let (loss_ppm, duplicate_ppm, corrupt_ppm) = (ppm(120_000), ppm(200_000), ppm(60_000));
        let (reorder_ppm, jitter_us) = (ppm(200_000), ppm(20_000));
        // A host that forgets what it sent and comes back at once may take a stray for its own (RFC 9293 §3.4.3): not both.
        let crashes = !fair && random.one_in(5);
        let strays = !fair && !crashes && random.one_in(4);
        Weather {
            loss_ppm,
            duplicate_ppm,
            corrupt_ppm,
            reorder_ppm,
            jitter_us,
            delay_us: random.skewed(1, 150_000),
            narrow: random.one_in(4),
            blackouts: !fair && random.one_in(5),
            crashes,
            mtus: random.one_in(4),
            middle_mtu: random.one_in(6).then(|| random.pick(&[1280, 1400, 1499])),
            stray_ppm: if strays { random.skewed(100, 50_000) as u32 } else { 0 },
            cookies: fair && random.one_in(3),
        }
    }

    fn link(&self, random: &mut Random, begins: Instant) -> Link {
        // Some links are better than the worst.
        let mut some = |most: u32| if random.one_in(3) { 0 } else { most };
        let impairment = Impairment {
            loss_ppm: some(self.loss_ppm),
            duplicate_ppm: some(self.duplicate_ppm),
            corrupt_ppm: some(self.corrupt_ppm),
            reorder_ppm: some(self.reorder_ppm),
            jitter_us: some(self.jitter_us),
            reorder_us: random.skewed(1, 50_000) as u32,
            delay_us: random.below(self.delay_us) as u32,
            rate_bps: if self.narrow { random.skewed(200_000, 100_000_000) } else { 0 },
            queue_max: if self.narrow { random.skewed(16, 1000) as u32 } else { 10_000 },
        };
        let mut link = Link { impairment, stray_ppm: self.stray_ppm, stray_ms: STRAY_MS, ..Link::default() };
        if self.blackouts && random.one_in(2) {
            for _ in 0..1 + random.below(3) {
                let from = begins + Duration::from_millis(random.skewed(0, 120_000));
                // Shorter than any timeout that ends a connection.
                link.dark.push((from, from + Duration::from_millis(random.skewed(1, 45_000))));
            }
        }
        link
    }
}

fn host(random: &mut Random, number: usize, weather: &Weather) -> HostConfig {
    let plain = HostConfig::plain(number as u8 + 1);
    let mut config = plain.stack.clone();
    config.limits.conns_max = 128;
    config.limits.syn_rcvd_max = 128;
    config.limits.time_wait_max = 512;
    config.limits.backlog_max = if weather.cookies { random.below(3) as u32 } else { 128 };
    config.limits.frames_reserved = 64;
    config.ip.neighbours_max = 32;
    let tcp = &mut config.tcp;
    tcp.timestamps = !random.one_in(4);
    tcp.sack = !random.one_in(4);
    tcp.window_scaling = !random.one_in(4);
    tcp.nagle = !random.one_in(3);
    tcp.ack_delay = Duration::from_millis(random.pick(&[0, 1, 40, 200, 500]));
    tcp.rto_min = Duration::from_millis(random.pick(&[10, 200, 1000]));
    tcp.recv_buffer_bytes = random.pick(&[4 << 10, 16 << 10, 60_000, 256 << 10]);
    tcp.send_buffer_bytes = random.pick(&[4 << 10, 16 << 10, 256 << 10]);
    tcp.recv_frames_max = random.pick(&[8, 64, 256]);
    tcp.send_frames_max = random.pick(&[8, 64, 256]);
    tcp.syn_ack_retries = 7;
    // TIME-WAIT outlasts the longest pause between two FINs; so bad a path may well be silent for minutes.
    tcp.msl = Duration::from_millis(STRAY_MS.into()) + Duration::from_secs(20);
    tcp.give_up = Duration::from_secs(3_600);
    tcp.connect_give_up = Duration::from_secs(3_600);
    tcp.fin_wait_2_timeout = Duration::from_secs(3_600);
    // Who only listens finds out by keep-alive alone that his peer is gone, or that the reset was lost.
    let soon = weather.crashes || random.one_in(8);
    tcp.keepalive_idle = Some(Duration::from_secs(if soon { 1 + random.skewed(0, 300) } else { 7_200 }));
    tcp.keepalive_interval = Duration::from_secs(75);
    tcp.keepalive_probes = 20;
    let narrow_ports = random.one_in(4);
    if narrow_ports {
        tcp.ephemeral_port_min = 50_000;
        tcp.ephemeral_port_max = 50_000 + random.skewed(1, 40) as u16;
    }
    let mut entropy = [0; 64];
    entropy.iter_mut().for_each(|byte| *byte = random.number() as u8);
    HostConfig {
        nic: NicConfig {
            mtu: if weather.mtus { random.pick(&[576, 1280, 1400, 1500]) } else { 1500 },
            frames: random.pick(&[512, 1024, 2048]),
            posted: random.pick(&[64, 128, 256]),
            queue: random.pick(&[16, 64, 256]),
            send_us: random.pick(&[0, 0, 1, 10, 100]),
        },
        stack: config,
        poll_us: random.pick(&[1, 1, 20, 200, 2000]),
        entropy,
        ..plain
    }
}

fn connection(world: &mut World, random: &mut Random, hosts: usize, weather: &Weather) {
    let client = random.below(hosts as u64) as usize;
    let server = (client + 1 + random.below(hosts as u64 - 1) as usize) % hosts;
    // A link that carries no 1280 bytes has no IPv6.
    let carries_v6 = [client, server].iter().all(|host| world.hosts[*host].config.nic.mtu >= 1280);
    let v6 = random.one_in(3) && carries_v6;
    let to = SocketAddr::new(world.hosts[server].config.addresses[usize::from(v6)], 80);
    let [mut first, mut second] = plans(random, weather);
    for (plan, host) in [(&mut first, client), (&mut second, server)] {
        // A narrow link carries less in the same time.
        if weather.narrow || world.hosts[host].config.stack.tcp.recv_buffer_bytes < 10_000 {
            plan.bytes = plan.bytes.min(100_000);
        }
    }
    let at = world.now + Duration::from_millis(random.skewed(0, 60_000));
    let pair = world.book.borrow_mut().plan(first, second);
    world.at(at, move |world| {
        world.act(client, move |cx, peer| {
            peer.connect(cx, pair, to);
        });
    });
}

/// What both ends of a connection do.
fn plans(random: &mut Random, weather: &Weather) -> [Plan; 2] {
    let megabyte = Plan { bytes: 1 << 20, ..Plan::default() };
    // A port whose connection was reset is used again at once: a stray may then find the next.
    let manners = if weather.stray_ppm > 0 { 11 } else { 12 };
    let mut plans = match random.below(manners) {
        // Open and close.
        0 | 1 => [Plan::default(), Plan { ends: Ends::AfterPeer, ..Plan::default() }],
        // Echo.
        2 | 3 => [some(random, 200_000), Plan { echo: true, ..Plan::default() }],
        // Bulk one way or both.
        4 => [some(random, 1 << 20), Plan::default()],
        5 => [some(random, 500_000), some(random, 500_000)],
        // A request and its response.
        6 | 7 => {
            let request = some(random, 3_000);
            let starts = Starts::AfterBytes(request.bytes);
            [request, Plan { starts, ..some(random, 300_000) }]
        }
        // A half-closed peer sends a megabyte.
        8 => [some(random, 10_000), Plan { starts: Starts::AfterPeerClose, ..megabyte }],
        // A reader that takes its time.
        9 => {
            let reads = match random.one_in(2) {
                true => Reads::AfterMs(random.skewed(1, 30_000)),
                false => Reads::Slowly(1 + random.below(8) as u32, 1 + random.skewed(0, 100)),
            };
            [some(random, 300_000), Plan { reads, ..Plan::default() }]
        }
        // Silence between opening and closing.
        10 => [Plan { idle_ms: random.skewed(1, 600_000), ..some(random, 100) }, some(random, 100)],
        // One that ends as it likes.
        _ => {
            let ends = if random.one_in(2) { Ends::Close } else { Ends::AbortAt(random.skewed(0, 100_000)) };
            [Plan { ends, ..some(random, 100_000) }, some(random, 100_000)]
        }
    };
    if random.one_in(2) && !plans[1].echo && plans[0].starts == Starts::AtOnce && plans[1].starts == Starts::AtOnce {
        plans.swap(0, 1);
    }
    for plan in &mut plans {
        (plan.nodelay, plan.by_frame) = (random.one_in(3), random.one_in(2));
    }
    plans
}

/// So many bytes at most, in some manner.
fn some(random: &mut Random, most: u64) -> Plan {
    let bytes = random.skewed(0, most);
    let chunk = random.skewed(1, 64 << 10);
    let pause_ms = if random.one_in(4) { random.skewed(1, 500) } else { 0 };
    // Neither for hours nor a million calls.
    let calls_max = if pause_ms > 0 { 100 } else { 1_000 };
    Plan { bytes, chunk: chunk.max(bytes / calls_max), pause_ms, ..Plan::default() }
}

fn crash_some(world: &mut World, random: &mut Random, hosts: usize) -> u64 {
    let crashes = 1 + random.below(3);
    for _ in 0..crashes {
        let host = random.below(hosts as u64) as usize;
        let at = world.now + Duration::from_millis(random.skewed(1, 90_000));
        let back = at + Duration::from_millis(random.skewed(1, 60_000));
        world.at(at, move |world| {
            if !world.hosts[host].is_up() {
                return;
            }
            world.excuse(host);
            world.crash(host);
            world.at(back, move |world| {
                world.boot(host);
                world.act(host, |cx, _| cx.listen(80).expect("a port that is free"));
            });
        });
    }
    crashes
}

/// When worlds begin, in microseconds: early, or shortly before one of the clocks in use turns over.
const BEGINS_US: [u64; 5] =
    [1_000_000, (1 << 32) - 20_000_000, ((1 << 31) - 20_000) * 1000, ((1 << 32) - 20_000) * 1000, 1 << 50];
/// How late a stray may be, in milliseconds.
const STRAY_MS: u32 = 100_000;
