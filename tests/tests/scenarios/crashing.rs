use handfast::Closed;
use handfast::time::Duration;
use handfast_tests::world::apps::{Ends, Plan, Told};

use super::*;

/// A connection that is open, and silent for ten minutes; then the client sends.
fn open(world: &mut World) {
    let silent = Plan { bytes: 1_000, idle_ms: 1, ..Plan::default() };
    let waits = Plan { ends: Ends::AfterPeer, bytes: 0, ..Plan::default() };
    let pair = world.book.borrow_mut().plan(waits.clone(), waits);
    world.act(CLIENT, move |cx, peer| {
        peer.connect(cx, pair, server());
    });
    world.run(Duration::from_secs(1));
    let connections = [CLIENT, SERVER].map(|host| world.hosts[host].stack().connections());
    assert_eq!(connections, [1, 1]);
    world.book.borrow_mut().pairs[pair].sides[0].plan = silent;
}

fn crash_and_come_back(world: &mut World, host: usize) {
    world.excuse(host);
    world.crash(host);
    world.run(Duration::from_secs(5));
    world.boot(host);
    world.with(host, |cx, _| cx.listen(80).expect("a port that is free"));
}

#[test]
fn a_host_that_came_back_resets_what_its_peer_believes_open_when_it_sends() {
    let mut world = two();
    open(&mut world);
    crash_and_come_back(&mut world, SERVER);
    assert_eq!(world.hosts[CLIENT].stack().connections(), 1, "half-open: nobody has told it");
    world.with(CLIENT, |cx, peer| peer.go_on(cx));
    world.run(ROUND_TRIP + ROUND_TRIP);
    // RFC 9293 §3.5.1, figure 10.
    assert_eq!(world.hosts[CLIENT].app().times(Told::Closed(Closed::Reset)), 1);
    world.finish(Duration::from_secs(10));
}

#[test]
fn a_host_that_came_back_finds_the_old_connection_when_it_opens_anew() {
    let mut world = two_with(one_port);
    world.hosts[SERVER].app_mut().hospitable = true;
    open(&mut world);
    let before = world.log.len();
    crash_and_come_back(&mut world, CLIENT);
    world.connect(CLIENT, server(), Plan { bytes: 1_000, ..Plan::default() }, Plan::default());
    world.run(Duration::from_secs(3));
    // RFC 9293 §3.5.1, figure 9: SYN, an acknowledgment of something else, RST, and the SYN again.
    let seen: Vec<_> = world.log[before..].iter().map(|(_, segment)| segment).take(5).collect();
    assert!(is_syn(seen[0]) && is_bare_ack(seen[1]) && seen[2].has(RST) && is_syn(seen[3]), "{seen:#?}");
    assert!(is_syn_ack(seen[4]), "{seen:#?}");
    assert_eq!(world.hosts[SERVER].app().times(Told::Closed(Closed::Reset)), 1, "the half-open one");
    world.finish(Duration::from_secs(60));
    assert_eq!(world.book.borrow().pairs[1].sides[1].received, 1_000);
}

#[test]
fn keep_alive_finds_a_half_open_connection_that_nobody_uses() {
    for comes_back in [true, false] {
        let mut world = two_with(|_, config| {
            config.stack.tcp.keepalive_idle = Some(Duration::from_secs(60));
            config.stack.tcp.keepalive_interval = Duration::from_secs(10);
            config.stack.tcp.keepalive_probes = 4;
        });
        open(&mut world);
        world.excuse(SERVER);
        match comes_back {
            true => crash_and_come_back(&mut world, SERVER),
            false => world.crash(SERVER),
        }
        let begun = world.now;
        world.run_until(Duration::from_secs(600), |world| world.hosts[CLIENT].stack().connections() == 0);
        let (told, after) = match comes_back {
            true => (Told::Closed(Closed::Reset), 60),
            false => (Told::Closed(Closed::TimedOut), 100),
        };
        assert_eq!(world.hosts[CLIENT].app().times(told), 1);
        let waited = world.now.since(begun).as_secs_f64();
        assert!((waited - f64::from(after)).abs() < 6.0, "{waited} s");
        world.finish(Duration::from_secs(10));
    }
}

#[test]
fn a_peer_that_never_comes_back_is_given_up() {
    let mut world = two();
    open(&mut world);
    world.excuse(SERVER);
    world.crash(SERVER);
    world.with(CLIENT, |cx, peer| peer.go_on(cx));
    let begun = world.now;
    world.run_until(Duration::from_secs(600), |world| world.hosts[CLIENT].stack().connections() == 0);
    let waited = world.now.since(begun).as_secs_f64();
    assert!((100.0..240.0).contains(&waited), "RFC 9293 §3.8.3: R2 is at least 100 s, and this was {waited} s");
    assert_eq!(world.hosts[CLIENT].app().times(Told::Closed(Closed::TimedOut)), 1);
    world.finish(Duration::from_secs(10));
}
