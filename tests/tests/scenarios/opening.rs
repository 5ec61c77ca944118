use handfast::app::ConnectError;
use handfast::metrics::Counter;
use handfast::time::{Duration, Instant};
use handfast_tests::world::apps::{Ends, Plan, Starts, Told};

use super::*;

/// Sends and receives some; the client closes first.
fn plans() -> [Plan; 2] {
    [
        Plan { bytes: 20_000, ..Plan::default() },
        Plan { bytes: 30_000, starts: Starts::AfterBytes(1), ends: Ends::AfterPeer, ..Plan::default() },
    ]
}

/// Opens, says nothing for a second, and closes.
fn silent() -> [Plan; 2] {
    [Plan { idle_ms: 5_000, ..Plan::default() }, Plan { ends: Ends::AfterPeer, ..Plan::default() }]
}

fn begin(world: &mut World, [client, server_plan]: [Plan; 2]) -> Instant {
    world.connect(CLIENT, server(), client, server_plan);
    world.now
}

/// How long after `begun` each side was told that the connection is open.
fn opened_after(world: &World, begun: Instant) -> [Duration; 2] {
    [(CLIENT, Told::Connected), (SERVER, Told::Accepted)].map(|(host, what)| {
        let told = &world.hosts[host].app().told;
        let (at, ..) = told.iter().find(|(at, _, told)| *told == what && *at >= begun).expect("it was told");
        at.since(begun)
    })
}

/// Nothing is half-open, and the server accepted so many in all.
#[track_caller]
fn assert_accepted(world: &World, times: usize) {
    assert_eq!(world.hosts[SERVER].app().times(Told::Accepted), times);
    assert_eq!((world.hosts[SERVER].stack().half_open(), world.hosts[SERVER].stack().connections()), (0, 0));
}

#[test]
fn a_syn_that_is_lost_is_sent_again() {
    let mut world = two();
    lose(&mut world, 1, is_syn);
    let begun = begin(&mut world, plans());
    world.finish(Duration::from_secs(60));
    let [client, _] = opened_after(&world, begun);
    assert!(client > Duration::from_secs(1) && client < Duration::from_millis(1_100), "{client:?}");
    assert_eq!(world.hosts[CLIENT].counter(Counter::Retransmissions), 1);
    assert_accepted(&world, 1);
}

#[test]
fn a_syn_ack_that_is_lost_is_sent_again() {
    let mut world = two();
    lose(&mut world, 1, is_syn_ack);
    let begun = begin(&mut world, plans());
    world.finish(Duration::from_secs(60));
    let [client, _] = opened_after(&world, begun);
    assert!(client > Duration::from_secs(1) && client < Duration::from_millis(1_100), "{client:?}");
    // The client's SYN comes again and is answered again, or the SYN-ACK comes again by itself.
    assert_accepted(&world, 1);
}

#[test]
fn a_third_segment_that_is_lost_is_asked_for_by_the_syn_ack() {
    let mut world = two();
    lose(&mut world, 1, is_bare_ack);
    let begun = begin(&mut world, silent());
    world.finish(Duration::from_secs(60));
    let [client, server] = opened_after(&world, begun);
    assert!(client < ROUND_TRIP + ROUND_TRIP + ROUND_TRIP, "{client:?}");
    assert!(server > Duration::from_secs(1) && server < Duration::from_millis(1_100), "{server:?}");
    assert_eq!(world.log.iter().filter(|(_, segment)| is_syn_ack(segment)).count(), 2);
    assert_accepted(&world, 1);
}

#[test]
fn data_that_follows_a_lost_third_segment_opens_the_connection() {
    let mut world = two();
    lose(&mut world, 1, is_bare_ack);
    let begun = world.now;
    let [client, server_plan] = plans();
    let pair = world.book.borrow_mut().plan(Plan { bytes: 0, ends: Ends::AfterPeer, ..client }, server_plan);
    world.act(CLIENT, move |cx, peer| {
        peer.connect(cx, pair, server());
    });
    world.run(Duration::from_millis(200));
    assert_eq!(world.hosts[SERVER].stack().half_open(), 1, "the third segment is lost");
    // Now there is something to send.
    world.book.borrow_mut().pairs[pair].sides[0].plan = Plan { bytes: 20_000, ..Plan::default() };
    world.with(CLIENT, |cx, peer| peer.go_on(cx));
    world.finish(Duration::from_secs(60));
    let [_, server] = opened_after(&world, begun);
    assert!(server < Duration::from_millis(250), "{server:?}");
    assert_eq!(world.log.iter().filter(|(_, segment)| is_syn_ack(segment)).count(), 1);
    assert_accepted(&world, 1);
}

/// When the old duplicate arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    Before,
    /// While its own answer is under way, the true SYN is, too.
    JustBefore,
    /// Between the true SYN and the third segment.
    During,
    After,
}

/// A world in which one connection of the client's only port is over, and the SYN that began it.
fn with_an_old_syn() -> (World, Segment) {
    let mut world = two_with(one_port);
    begin(&mut world, plans());
    world.run(Duration::from_secs(60)); // TIME-WAIT is over
    let syn =
        world.log.iter().map(|(_, segment)| segment).find(|segment| is_syn(segment)).expect("it is there").clone();
    assert_accepted(&world, 1);
    (world, syn)
}

#[test]
fn an_old_duplicate_syn_opens_nothing_and_the_true_connection_works() {
    for when in [When::Before, When::JustBefore, When::During, When::After] {
        let (mut world, old) = with_an_old_syn();
        if matches!(when, When::Before | When::JustBefore) {
            world.inject_segment(&old, &[]);
            world.run(Duration::from_micros(10));
            assert_eq!(world.hosts[SERVER].stack().half_open(), 1, "who gets a SYN cannot know that it is old");
        }
        if when == When::Before {
            world.run(Duration::from_secs(1));
            assert_accepted(&world, 1); // the client's host refused the SYN-ACK
        }
        begin(&mut world, silent());
        let after = match when {
            When::Before | When::JustBefore => Duration::ZERO,
            When::During => Duration::from_millis(15),
            When::After => Duration::from_millis(500),
        };
        world.run(after);
        if matches!(when, When::During | When::After) {
            assert_eq!(world.hosts[SERVER].stack().half_open(), u32::from(when == When::During));
            world.inject_segment(&old, &[]);
        }
        world.run(Duration::from_secs(3));
        let connections = [CLIENT, SERVER].map(|host| world.hosts[host].stack().connections());
        assert_eq!(connections, [1, 1], "{when:?}: the true one is open");
        begin(&mut world, plans());
        world.finish(Duration::from_secs(120));
        assert_accepted(&world, 2);
    }
}

/// The server takes a connection for open when it has answered the SYN: that is the same as an acknowledgment that comes as soon
/// as it has, whoever is at the other end; and there is no third segment, not even one that refuses.
fn force_two_way(world: &mut World) {
    world.filter = Some(Box::new(|_, segment| match segment.has(RST) && segment.to == server() {
        true => Fate::Lose,
        false => Fate::Pass,
    }));
    world.run_until(Duration::from_secs(1), |world| world.log.last().is_some_and(|(_, segment)| is_syn_ack(segment)));
    let answer = world.log.last().expect("it answered").1.clone();
    let third = Segment {
        from: answer.to,
        to: answer.from,
        seq: answer.ack,
        ack: answer.seq.wrapping_add(1),
        flags: ACK,
        timestamps: answer.timestamps.map(|(value, echo)| (echo, value)),
        mss: None,
        scale: None,
        sack_permitted: false,
        ..answer
    };
    world.inject_segment(&third, &[]);
}

#[test]
fn with_two_segments_instead_of_three_the_old_duplicate_leaves_a_connection_open() {
    let (mut world, old) = with_an_old_syn();
    world.hosts[SERVER].app_mut().hospitable = true;
    world.inject_segment(&old, &[]);
    force_two_way(&mut world);
    world.run(Duration::from_secs(3_600));
    assert_eq!(world.hosts[SERVER].app().times(Told::Accepted), 2, "a connection that nobody began");
    let connections = [CLIENT, SERVER].map(|host| world.hosts[host].stack().connections());
    assert_eq!(connections, [0, 1], "open for ever, at one end");
}

#[test]
fn with_three_the_same_duplicate_leaves_nothing() {
    let (mut world, old) = with_an_old_syn();
    world.hosts[SERVER].app_mut().hospitable = true;
    world.inject_segment(&old, &[]);
    world.run(Duration::from_secs(1));
    let last = &world.log.last().expect("it was answered").1;
    assert!(last.has(RST) && last.to == server(), "{last:?}");
    assert_accepted(&world, 1);
}

/// Two hosts that each have one port to connect from and know each other already, so that their SYNs cross.
fn acquainted(seed: u64) -> World {
    let mut world = two_of_seed(seed, |number, config| {
        let port = 5_000 + number as u16;
        (config.stack.tcp.ephemeral_port_min, config.stack.tcp.ephemeral_port_max) = (port, port);
        config.stack.tcp.give_up = Duration::from_secs(3_600);
        config.stack.tcp.connect_give_up = Duration::from_secs(3_600);
    });
    begin(&mut world, plans());
    world.run(Duration::from_secs(60));
    world
}

/// Each connects to the other's port; when it was begun.
fn open_both(world: &mut World) -> Instant {
    let pair = world.book.borrow_mut().plan(plans()[0].clone(), Plan { bytes: 10_000, ..Plan::default() });
    world.act(CLIENT, move |cx, peer| {
        peer.connect(cx, pair, SocketAddr::from(([10, 0, 0, 2], 5_001))).expect("a port");
    });
    world.act(SERVER, move |cx, peer| {
        peer.connect_too(cx, pair, SocketAddr::from(([10, 0, 0, 1], 5_000))).expect("a port");
    });
    world.now
}

#[test]
fn both_open_at_once_and_it_is_one_connection() {
    let mut world = acquainted(1);
    let begun = open_both(&mut world);
    world.finish(Duration::from_secs(60));
    let syns = |of: fn(&Segment) -> bool| world.log.iter().filter(|(at, segment)| *at >= begun && of(segment)).count();
    assert_eq!((syns(is_syn), syns(is_syn_ack)), (2, 2), "RFC 9293 §3.5, figure 7");
    assert_eq!([CLIENT, SERVER].map(|host| world.hosts[host].app().times(Told::Connected)), [2, 1]);
    assert_eq!([CLIENT, SERVER].map(|host| world.hosts[host].app().times(Told::Accepted)), [0, 1]);
}

#[test]
fn both_open_at_once_whatever_is_lost_late_or_doubled() {
    for seed in 1..=60 {
        let mut world = acquainted(seed);
        for host in [CLIENT, SERVER] {
            let (up, down) = world.network.link_mut(host);
            for link in [up, down] {
                link.impairment.loss_ppm = 150_000;
                link.impairment.duplicate_ppm = 100_000;
                (link.impairment.reorder_ppm, link.impairment.reorder_us) = (100_000, 30_000);
            }
        }
        open_both(&mut world);
        world.finish(Duration::from_secs(20_000));
        let connected = [CLIENT, SERVER].map(|host| world.hosts[host].app().times(Told::Connected));
        assert_eq!(connected, [2, 1], "seed {seed}");
    }
}

#[test]
fn a_port_in_time_wait_is_not_used_again() {
    let mut world = two_with(one_port);
    let begun = begin(&mut world, plans());
    world.run(Duration::from_secs(5));
    assert_eq!(world.hosts[CLIENT].stack().time_waits(), 1);
    let refused = world.with(CLIENT, |cx, _| cx.connect(server()).err());
    assert_eq!(refused, Some(ConnectError::NoPort));
    world.run_until(Duration::from_secs(60), |world| world.hosts[CLIENT].stack().time_waits() == 0);
    assert!(world.now.since(begun) > MSL + MSL, "{:?}", world.now);
    begin(&mut world, plans());
    world.finish(Duration::from_secs(60));
}
