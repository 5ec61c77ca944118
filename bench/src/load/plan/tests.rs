use clap::Parser;

use super::*;

fn plan(text: &str) -> Result<Plan, String> {
    let words = std::iter::once("handfast-load").chain(text.split_whitespace());
    Plan::new(&Args::try_parse_from(words).unwrap())
}

#[test]
fn one_core_runs_both_ends_and_more_are_split() {
    let solo = plan("--cores 0").unwrap();
    assert!(solo.is_solo());
    assert_eq!((solo.client_workers, solo.cpus.len()), (1, 1));
    let split = plan("--cores 0,1,2").unwrap();
    assert!(!split.is_solo());
    assert_eq!((split.client_workers, split.cpus.len()), (1, 3));
    assert_eq!(plan("--queues 2").unwrap().cpus, [None; 4]);
}

#[test]
fn the_default_is_five_seconds_in_closed_loop() {
    let plan = plan("--cores 0").unwrap();
    assert_eq!((plan.client.pace, plan.client.requests), (Pace::Closed(CONCURRENCY), 0));
    assert_eq!(plan.client.duration_us, 5_000_000);
    let counted = super::tests::plan("--cores 0 --connections 10").unwrap();
    assert_eq!((counted.client.duration_us, counted.client.connections), (u64::MAX / 2, 10));
}

#[test]
fn addresses_and_time_waits_suffice_for_what_is_expected() {
    let plan = plan("--cores 0 --rate 1000000 --duration 5 --time-wait-max 6000000").unwrap();
    assert!(plan.client.sources_v4.len() as u64 * PORTS_PER_ADDRESS > 5_000_000);
    let config = plan.client_config();
    assert_eq!(config.limits.time_wait_max, 6_000_000);
    for source in &plan.client.sources_v4 {
        let source = (*source).into();
        let own = config.ip.addresses.iter().any(|own| own.address == source);
        assert!(own || config.ip.ranges.iter().any(|range| range.contains(source)));
        assert!(source.is_valid_source());
    }
    config.check().unwrap();
    plan.server_config().check().unwrap();
}

#[test]
fn who_closes_first_has_room_for_time_wait() {
    let waits = |text: &str| {
        let plan = plan(text).unwrap();
        [plan.client_limits.time_wait_max, plan.server_limits.time_wait_max]
    };
    let [client, server] = waits("--cores 0 --connections 1000000");
    assert!(client >= 1_000_000 && server < 100_000, "{client} {server}");
    let [client, server] = waits("--cores 0 --connections 1000000 --closer server");
    assert!(server >= 1_000_000 && client < 100_000, "{client} {server}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (text, why) in [
        ("--interface eth1", "says nothing to a wire"),
        ("--target 192.0.2.1:80", "says nothing to a wire"),
        ("--driver af_xdp", "client or server"),
        ("client --driver af_xdp --interface eth1 --address 192.0.2.1/24", "--target is missing"),
        ("client --driver af_xdp --address 192.0.2.1/24 --target 192.0.2.2:80", "--interface is missing"),
        ("server --driver af_xdp --interface eth1", "--address is missing"),
        ("client --driver tap --interface t --address 192.0.2.1/24 --target [2001:db8::1]:80", "of the family"),
        ("client --driver tap --interface t --address 192.0.2.1/24 --target 192.0.2.2:0", "port 0"),
        ("--kernel-address 192.0.2.2/24", "is for --driver tap"),
        ("--cores 0,1 --queues 2", "does not go with 2 cores"),
        ("--app echo --request-bytes 5 --response-bytes 6", "--app answer"),
        ("--app discard --response-bytes 6", "--app answer"),
        ("--app http --request-bytes 6", "requests of its own"),
        ("--app http --path index.html", "begins with a slash"),
        ("--cores 0,1,2,3,4,5 --concurrency 2", "less than one connection"),
    ] {
        let error = plan(text).map(|_| ()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn the_application_follows_from_the_bytes() {
    for (text, app, requests, answer) in [
        ("", AppKind::Discard, 0, Answer::Bytes(0)),
        ("--requests 2", AppKind::Echo, 2, Answer::Bytes(1)),
        ("--request-bytes 100", AppKind::Echo, 1, Answer::Bytes(100)),
        ("--request-bytes 100 --response-bytes 0", AppKind::Discard, 1, Answer::Bytes(0)),
        ("--request-bytes 100 --response-bytes 7", AppKind::Answer, 1, Answer::Bytes(7)),
        ("--app http", AppKind::Http, 1, Answer::Http),
    ] {
        let plan = plan(text).unwrap();
        assert_eq!((plan.server.app, plan.client.requests, plan.client.answer), (app, requests, answer), "{text}");
    }
}

#[test]
fn an_open_loop_rises_evenly_and_then_keeps_its_rate() {
    let client = (*plan("--cores 0 --rate 1000 --ramp 2").unwrap().client).clone();
    let due = |index| client.due_us(1000.0, index);
    // Half of the rate for two seconds.
    assert_eq!(due(0), 0);
    assert_eq!(due(250), 1_000_000);
    assert_eq!(due(1000), 2_000_000);
    assert_eq!(due(2000), 3_000_000);
    assert_eq!(client.due_count(1000.0, 1_000_000), 250);
    assert_eq!(client.due_count(1000.0, 3_000_000), 2000);
    let steady = (*plan("--cores 0,1,2,3 --rate 1000").unwrap().client).clone();
    assert_eq!((steady.workers, steady.due_us(1000.0, 500)), (2, 1_000_000));
}
