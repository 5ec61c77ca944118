use std::time::Duration;

use clap::Parser;
use handfast::metrics::Metrics;
use serde_json::Value;

use super::super::args::Args;
use super::super::measure::{Cause, Measure};
use super::super::run::QueueOutcome;
use super::*;

fn end(measure: Measure) -> EndOutcome {
    let mut metrics = Metrics::new();
    metrics.add(Counter::PacketsSent, 30);
    metrics.add(Counter::PacketsReceived, 20);
    metrics.add(Counter::TimeWaits, 10);
    metrics.dropped(DropReason::TimeWaitFull);
    EndOutcome {
        measure,
        queues: vec![QueueOutcome::wire(0, &metrics)],
        metrics,
        time_waits: 9,
        frames_missing: 0,
        device_lost: 0,
    }
}

fn report() -> Report {
    let mut measure = Measure::new();
    measure.start(0);
    measure.opened = 11;
    measure.established = 10;
    (0..10).for_each(|_| measure.close(1_000_000));
    measure.fail(Cause::NoPort, 1_000_000);
    measure.handshake_us.saturating_record(42);
    let plan = Plan::new(&Args::parse_from(["handfast-load", "--cores", "0"])).unwrap();
    let outcome = Outcome {
        client: Some(end(measure)),
        server: Some(end(Measure::new())),
        cpu: Duration::from_micros(50),
        resident_bytes_max: 1 << 20,
        interrupted: false,
    };
    Report::new(&plan, &outcome)
}

#[test]
fn the_json_object_has_the_keys_that_are_documented_and_no_others() {
    let text = report().to_json();
    assert_eq!(text.lines().count(), 1);
    let Ok(Value::Object(object)) = serde_json::from_str(&text) else { panic!("{text}") };
    let mut keys = [
        "driver",
        "role",
        "cores",
        "seconds",
        "opened",
        "established",
        "closed",
        "failed",
        "failures_by_cause",
        "connections_per_second",
        "connections_per_second_best_100ms",
        "handshake_us",
        "first_byte_us",
        "close_us",
        "packets_sent",
        "packets_received",
        "bytes_sent",
        "bytes_received",
        "packets_per_connection",
        "retransmissions",
        "drops",
        "cpu_us_per_connection",
        "resident_bytes_max",
        "queues",
    ];
    keys.sort_unstable();
    let mut found: Vec<_> = object.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, keys);
    let keys_of = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for name in ["handshake_us", "first_byte_us", "close_us"] {
        let mut found = keys_of(&object[name]);
        found.sort_unstable();
        assert_eq!(found, ["max", "p50", "p90", "p99", "p999"]);
    }
    let mut found = keys_of(&object["queues"][0]);
    found.sort_unstable();
    assert_eq!(found, ["attach", "copy_mode", "packets", "queue"]);
}

#[test]
fn the_figures_are_the_clients_and_drops_are_of_both() {
    let report: Value = serde_json::from_str(&report().to_json()).unwrap();
    assert_eq!(report["role"], "both");
    assert_eq!(report["failures_by_cause"]["no_port"], 1);
    assert_eq!(report["packets_per_connection"], 5.0);
    assert_eq!(report["cpu_us_per_connection"], 5.0);
    assert_eq!(report["drops"]["time_wait_full"], 2);
    assert_eq!(report["connections_per_second"], 10.0);
    assert_eq!(report["connections_per_second_best_100ms"], 100.0);
    assert_eq!(report["handshake_us"]["p99"], 42);
    assert_eq!(report["first_byte_us"]["p99"], Value::Null);
}

#[test]
fn the_text_says_what_was_cut_short_and_what_to_do() {
    let text = report().to_text();
    for part in
        ["11 opened", "1 no port", "--time-wait-max", "more addresses", "1 in the best 100 ms".trim_start_matches('1')]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn numbers_are_grouped_by_thousands() {
    let pairs = [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")];
    assert!(pairs.into_iter().all(|(number, text)| grouped(number) == text));
}
