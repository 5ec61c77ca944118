//! The scenarios for which TCP is as it is, one by one, in a [simulated world](handfast_tests::world).

mod closing;
mod crashing;
mod flooding;
mod losing;
mod opening;

use std::net::SocketAddr;

use handfast::time::Duration;
use handfast_tests::world::host::HostConfig;
use handfast_tests::world::link::Link;
use handfast_tests::world::packet::{ACK, FIN, RST, SYN, Segment};
use handfast_tests::world::{Fate, World};

/// The client's host.
const CLIENT: usize = 0;
/// The server's host.
const SERVER: usize = 1;
/// The maximum segment lifetime in these tests.
const MSL: Duration = Duration::from_secs(10);
/// From a host to the other and back.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A client and a server that listens, 10 ms apart.
fn two() -> World {
    two_with(|_, _| {})
}

/// The same, with something else about the client and the server.
fn two_with(configure: impl Fn(usize, &mut HostConfig)) -> World {
    two_of_seed(1, configure)
}

/// The same, with the accidents of a seed.
fn two_of_seed(seed: u64, configure: impl Fn(usize, &mut HostConfig)) -> World {
    let mut world = World::new(seed);
    world.keeps_log = true;
    for number in [CLIENT, SERVER] {
        let mut config = HostConfig::plain(number as u8 + 1);
        config.stack.tcp.msl = MSL;
        configure(number, &mut config);
        world.join(config, Link::of_delay_us(5_000), Link::of_delay_us(5_000));
        world.with(number, |cx, _| cx.listen(80).expect("a port that is free"));
    }
    world
}

/// The server's address.
fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 80))
}

/// Loses the `n`th of the segments that are like this, from 1.
fn lose(world: &mut World, n: u32, like: impl Fn(&Segment) -> bool + 'static) {
    do_to(world, n, Fate::Lose, like);
}

/// Does that to the `n`th of the segments that are like this, from 1.
fn do_to(world: &mut World, n: u32, fate: Fate, like: impl Fn(&Segment) -> bool + 'static) {
    let mut seen = 0;
    world.filter = Some(Box::new(move |_, segment| {
        seen += u32::from(like(segment));
        if like(segment) && seen == n { fate } else { Fate::Pass }
    }));
}

fn is_syn(segment: &Segment) -> bool {
    segment.has(SYN) && !segment.has(ACK)
}

fn is_syn_ack(segment: &Segment) -> bool {
    segment.has(SYN) && segment.has(ACK)
}

fn is_bare_ack(segment: &Segment) -> bool {
    segment.is_empty() && !segment.has(RST)
}

fn is_fin(segment: &Segment) -> bool {
    segment.has(FIN)
}

/// Of the server's.
fn from_server(segment: &Segment) -> bool {
    segment.from == server()
}

/// Has the client use this port and no other.
fn one_port(number: usize, config: &mut HostConfig) {
    if number == CLIENT {
        (config.stack.tcp.ephemeral_port_min, config.stack.tcp.ephemeral_port_max) = (50_000, 50_000);
    }
}
