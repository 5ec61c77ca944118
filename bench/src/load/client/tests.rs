//! Client and server against each other over a wire, in time that the test chooses.

use std::sync::mpsc::channel;

use clap::Parser;
use handfast::time::Duration;
use handfast_drivers::wire;

use super::super::args::Args;
use super::super::plan::Plan;
use super::super::server::Server;
use super::super::solo::wire_config;
use super::*;
use crate::duo::End;

struct Run {
    client: Measure,
    server: Measure,
    /// When it was over, in microseconds.
    over_us: u64,
}

/// Runs both ends until the client is over, in steps of 20 µs and for a minute at most; then for a second more.
fn run(flags: &str) -> Run {
    run_with(flags, |_, _| {})
}

fn run_with(flags: &str, mut each_turn: impl FnMut(u64, &Watch)) -> Run {
    let plan = Plan::new(&Args::parse_from(format!("handfast-load --cores 0 {flags}").split_whitespace())).unwrap();
    let (watch, (to_client, client_result), (to_server, server_result)) = (Watch::new(1), channel(), channel());
    let (a, b) = wire::pair(wire_config(&plan, 1));
    let mut client = End::new(a, plan.client_config(), Client::new(plan.client.clone(), 0, watch.clone(), to_client));
    let mut server = End::new(b, plan.server_config(), Server::new(plan.server.clone(), 0, Watch::new(1), to_server));
    let (mut now, mut over_us) = (Instant::from_micros(1_000_000), None);
    server.stack.start(now, &mut server.app);
    client.stack.start(now, &mut client.app);
    while now.as_micros() < over_us.unwrap_or(60_000_000) + 1_000_000 {
        each_turn(now.as_micros(), &watch);
        let moved = client.turn(now) + server.turn(now);
        if over_us.is_none() && watch.finished() {
            over_us = Some(now.as_micros());
        }
        now += Duration::from_micros(if moved > 0 { 20 } else { 500 });
    }
    assert_eq!(
        (client.stack.connections(), server.stack.connections(), server.stack.half_open()),
        (0, 0, 0),
        "{flags}"
    );
    drop((client, server));
    Run {
        client: client_result.recv().unwrap(),
        server: server_result.recv().unwrap(),
        over_us: over_us.expect("it is over in a minute"),
    }
}

#[test]
fn every_connection_ends_as_it_was_to_end() {
    for flags in [
        "",
        "--closer server",
        "--close rst",
        "--close rst --closer server",
        "--requests 3",
        "--requests 3 --closer server",
        "--requests 2 --close rst --closer server",
        "--request-bytes 5000 --response-bytes 0",
        "--request-bytes 5000 --response-bytes 0 --requests 2 --closer server",
        "--request-bytes 100 --response-bytes 20000 --requests 2",
        "--request-bytes 100 --response-bytes 20000 --requests 2 --closer server",
        "--request-bytes 600000 --app echo --concurrency 2",
        "--app http --requests 3 --response-bytes 4000",
        "--app http --requests 3 --response-bytes 0 --closer server",
        "--hold 50ms",
        "--hold 50ms --requests 2 --closer server",
        "--rate 5000 --ramp 20ms",
    ] {
        let Run { client, server, .. } = run(&format!("--connections 100 {flags}"));
        let counts = |m: &Measure| (m.opened, m.established, m.closed, m.failures().collect::<Vec<_>>());
        assert_eq!(counts(&client), (100, 100, 100, vec![]), "client, {flags}");
        // What is opened and reset within one burst, the server's application is not told of.
        let at_least = if flags == "--close rst" { 50 } else { 100 };
        assert_eq!(counts(&server), (server.opened, server.opened, server.opened, vec![]), "server, {flags}");
        assert!((at_least..=100).contains(&server.opened), "server, {flags}: {}", server.opened);
        assert_eq!(client.handshake_us.len(), 100);
        let requests = client.first_byte_us.len();
        match flags.contains("request") && !flags.contains("response-bytes 0") {
            true => assert!(requests >= 100, "{flags}: {requests}"),
            false => assert!(requests == 0 || flags.contains("http"), "{flags}: {requests}"),
        }
    }
}

#[test]
fn a_closed_loop_keeps_as_many_open_as_it_was_told() {
    let mut most = 0;
    let Run { client, .. } = run_with("--concurrency 16 --hold 20ms --duration 1", |_, watch| {
        let counts = watch.counts();
        most = most.max(counts.opened - counts.closed);
    });
    assert_eq!(most, 16);
    // 50 rounds of 20 ms, and a little.
    assert!((600..=800).contains(&client.closed), "{}", client.closed);
}

#[test]
fn an_open_loop_opens_what_is_due_and_counts_latency_from_then() {
    let Run { client, .. } = run("--rate 1000 --duration 2");
    assert_eq!(client.opened, 2000);
    assert!(client.handshake_us.max() < 2_000, "{}", client.handshake_us.max());
    // With one record only those after the first have to fail, and are not left out.
    let Run { client, .. } = run("--rate 1000 --duration 1 --hold 10 --conns-max 1");
    assert_eq!((client.opened, client.closed), (1000, 1));
    assert_eq!(client.failures().collect::<Vec<_>>(), [("no_record", 999)]);
}

#[test]
fn held_connections_are_closed_when_the_load_is_to_end() {
    let Run { client, over_us, .. } = run_with("--concurrency 50 --hold 30 --duration 60", |now_us, watch| {
        watch.hurry.store(now_us > 3_000_000, Ordering::Relaxed);
    });
    assert_eq!((client.opened, client.closed, client.failed()), (50, 50, 0));
    assert!(over_us < 3_500_000);
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let plan = Plan::new(&Args::parse_from("handfast-load --cores 0 --connections 5".split_whitespace())).unwrap();
    let (watch, (to_client, result), (to_server, _)) = (Watch::new(1), channel(), channel());
    let (a, b) = wire::pair(wire_config(&plan, 1));
    let mut client = End::new(a, plan.client_config(), Client::new(plan.client.clone(), 0, watch.clone(), to_client));
    let mut config = plan.server_config();
    config.listen = vec![9];
    let mut server = End::new(b, config, Server::new(plan.server.clone(), 0, Watch::new(1), to_server));
    let mut now = Instant::from_micros(1);
    client.stack.start(now, &mut client.app);
    while !watch.finished() && now.as_micros() < 10_000_000 {
        client.turn(now);
        server.turn(now);
        now += Duration::from_micros(100);
    }
    drop(client);
    let measure = result.recv().unwrap();
    assert_eq!((measure.opened, measure.established), (5, 0));
    assert_eq!(measure.failures().collect::<Vec<_>>(), [("refused", 5)]);
}

#[test]
fn a_word_keeps_phase_and_time() {
    let phases = [Phase::Opening, Phase::Working, Phase::Holding, Phase::Closing];
    for phase in phases.into_iter().chain(Cause::ALL.map(Phase::Failing)) {
        assert_eq!(Phase::of(phase.since(123_456_789)), (phase, 123_456_789));
    }
}
