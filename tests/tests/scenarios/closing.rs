use std::cell::Cell;
use std::rc::Rc;

use handfast::metrics::Counter;
use handfast::time::{Duration, Instant};
use handfast_tests::world::apps::{Ends, Plan, Starts};

use super::*;

fn sends(bytes: u64) -> Plan {
    Plan { bytes, ..Plan::default() }
}

fn closes_after_peer() -> Plan {
    Plan { ends: Ends::AfterPeer, ..Plan::default() }
}

fn time_waits(world: &World) -> [u32; 2] {
    [CLIENT, SERVER].map(|host| world.hosts[host].stack().time_waits())
}

/// Runs until nobody waits any more; when the wait that ends last was over.
fn until_nobody_waits(world: &mut World) -> Instant {
    world.run_until(Duration::from_secs(600), |world| time_waits(world) != [0, 0]);
    world.run_until(Duration::from_secs(600), |world| time_waits(world) == [0, 0]);
    world.now
}

#[test]
fn data_in_flight_at_the_fin_arrives_though_some_of_it_is_lost() {
    for (bytes, lost) in [(10_000, 1), (10_000, 4), (10_000, 7), (100_000, 20), (100_000, 69)] {
        let mut world = two();
        lose(&mut world, lost, |segment| segment.text_len() > 0);
        world.connect(CLIENT, server(), sends(bytes), closes_after_peer());
        world.finish(Duration::from_secs(120));
        assert_eq!(world.book.borrow().pairs[0].sides[1].received, bytes);
        assert!(world.hosts[CLIENT].counter(Counter::Retransmissions) > 0, "segment {lost} was there to lose");
    }
}

#[test]
fn a_fin_that_is_lost_with_all_data_before_it_is_sent_again() {
    let mut world = two();
    world.filter = Some(Box::new({
        let lost = Cell::new(0);
        move |_, segment| {
            let whole_flight = segment.text_len() > 0 && lost.get() < 7;
            lost.set(lost.get() + u32::from(whole_flight));
            if whole_flight { Fate::Lose } else { Fate::Pass }
        }
    }));
    world.connect(CLIENT, server(), sends(10_000), closes_after_peer());
    world.finish(Duration::from_secs(120));
    assert_eq!(world.book.borrow().pairs[0].sides[1].received, 10_000);
}

#[test]
fn when_the_last_acknowledgment_is_lost_the_fin_comes_again_and_two_msl_begin_anew() {
    let fin_acked = Rc::new(Cell::new(None));
    let mut world = two();
    let (fin, lost) = (Cell::new(None), fin_acked.clone());
    world.filter = Some(Box::new(move |_, segment| {
        if is_fin(segment) && from_server(segment) {
            fin.set(Some(segment.end()));
        }
        let is_last_ack = is_bare_ack(segment) && fin.get() == Some(segment.ack) && lost.get().is_none();
        if is_last_ack {
            lost.set(Some(()));
        }
        if is_last_ack { Fate::Lose } else { Fate::Pass }
    }));
    world.connect(CLIENT, server(), sends(1_000), closes_after_peer());
    let over = until_nobody_waits(&mut world);
    assert_eq!(fin_acked.get(), Some(()), "it was lost");
    let fins: Vec<_> = world.log.iter().filter(|(_, segment)| is_fin(segment) && from_server(segment)).collect();
    assert_eq!(fins.len(), 2, "the FIN came again");
    let (again_at, again) = fins[1];
    let acks = world.log.iter().filter(|(_, segment)| is_bare_ack(segment) && segment.ack == again.end());
    assert_eq!(acks.count(), 2, "and was acknowledged again");
    assert_eq!(world.hosts[CLIENT].counter(Counter::TimeWaitRestarts), 1);
    let waited = over.since(*again_at);
    assert!(waited >= MSL + MSL && waited < MSL + MSL + Duration::from_millis(100), "{waited:?} from the second FIN");
    world.finish(Duration::from_secs(10));
}

#[test]
fn only_the_side_that_closed_first_waits_for_two_msl() {
    let serves_and_closes = Plan { bytes: 5_000, ..Plan::default() };
    for (client, server_plan, waiting) in
        [(sends(1_000), closes_after_peer(), [1, 0]), (closes_after_peer(), serves_and_closes, [0, 1])]
    {
        let mut world = two();
        world.connect(CLIENT, server(), client, server_plan);
        world.run_until(Duration::from_secs(60), |world| time_waits(world) != [0, 0]);
        let began = world.now;
        world.run(Duration::from_secs(1));
        assert_eq!(time_waits(&world), waiting);
        let waited = until_nobody_waits(&mut world).since(began);
        let waits = MSL + MSL;
        let to_the_ms = waited + Duration::from_millis(1) >= waits;
        assert!(to_the_ms && waited < waits + Duration::from_millis(100), "{waited:?}");
        world.finish(Duration::from_secs(10));
    }
}

#[test]
fn both_close_at_once_and_both_wait() {
    let mut world = two();
    // Both know at the same time that they have nothing more to say.
    let at_once = Plan { idle_ms: 1_000, ..Plan::default() };
    world.connect(CLIENT, server(), Plan { idle_ms: 1_010, ..at_once.clone() }, at_once);
    world.run(Duration::from_secs(5));
    let fins: Vec<_> = world.log.iter().filter(|(_, segment)| is_fin(segment)).collect();
    assert!(fins.len() == 2 && fins[1].0.since(fins[0].0) < ROUND_TRIP, "they cross: {fins:?}");
    assert_eq!(time_waits(&world), [1, 1], "RFC 9293 §3.6, figure 13");
    world.finish(Duration::from_secs(60));
}

#[test]
fn a_half_closed_peer_still_sends_a_megabyte() {
    for reverse in [false, true] {
        let mut world = two();
        let late = Plan { bytes: 1 << 20, starts: Starts::AfterPeerClose, ..Plan::default() };
        let (client, server_plan) = if reverse { (late, sends(100)) } else { (sends(100), late) };
        world.connect(CLIENT, server(), client, server_plan);
        world.finish(Duration::from_secs(120));
        assert_eq!(world.book.borrow().pairs[0].sides[usize::from(reverse)].received, 1 << 20);
    }
}

#[test]
fn segments_of_an_old_incarnation_do_not_get_into_the_next_of_the_same_ports() {
    for timestamps in [true, false] {
        let mut world = two_with(|number, config| {
            one_port(number, config);
            config.stack.tcp.timestamps = timestamps;
        });
        world.connect(CLIENT, server(), sends(30_000), Plan { bytes: 30_000, ..closes_after_peer() });
        world.run_until(Duration::from_secs(60), |world| time_waits(world) == [1, 0]);
        let old: Vec<Segment> = world.log.iter().map(|(_, segment)| segment.clone()).collect();
        // While one end still waits nothing of it does any harm, nor ends the wait.
        replay(&mut world, &old);
        world.run(Duration::from_secs(1));
        assert_eq!(time_waits(&world), [1, 0]);
        until_nobody_waits(&mut world);
        let slowly = Plan { bytes: 30_000, chunk: 300, pause_ms: 20, ..Plan::default() };
        world.connect(CLIENT, server(), slowly.clone(), Plan { ends: Ends::AfterPeer, ..slowly });
        for _ in 0..10 {
            world.run(Duration::from_millis(150));
            let connections = [CLIENT, SERVER].map(|host| world.hosts[host].stack().connections());
            assert_eq!(connections, [1, 1]);
            replay(&mut world, &old);
        }
        world.finish(Duration::from_secs(60)); // every byte is looked at
        assert_eq!(world.book.borrow().pairs[1].sides.clone().map(|side| side.received), [30_000; 2]);
    }
}

/// Everything comes once more, as other text than the connection's own.
fn replay(world: &mut World, segments: &[Segment]) {
    for segment in segments {
        world.inject_segment(segment, &vec![0x55; segment.text_len() as usize]);
    }
}
