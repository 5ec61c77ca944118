//! The program itself: what it prints, and its exit status.

use std::process::{Command, Output};

use serde_json::Value;

fn load(flags: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handfast-load"));
    command.args(flags.split_whitespace()).output().expect("the binary runs")
}

fn json(flags: &str) -> Value {
    let output = load(&format!("--json {flags}"));
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags}: {}\n{text}{errors}", output.status);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn both_ends_on_one_core_close_all_that_they_open() {
    let report = json("--cores 0 --duration 1");
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((&report["driver"], &report["role"], count("cores")), (&"wire".into(), &"both".into(), 1));
    assert!(count("opened") > 1000);
    assert_eq!((count("established"), count("closed"), count("failed")), (count("opened"), count("opened"), 0));
    assert_eq!(report["failures_by_cause"], serde_json::json!({}));
    assert_eq!(report["drops"], serde_json::json!({}));
    // SYN, SYN-ACK, ACK with FIN, FIN with ACK, ACK; and the neighbours' questions.
    let packets = report["packets_per_connection"].as_f64().unwrap();
    assert!((5.0..5.1).contains(&packets), "{packets}");
    assert_eq!(count("packets_sent") + count("packets_received"), report["queues"][0]["packets"].as_u64().unwrap());
    assert!(report["handshake_us"]["p50"].as_u64() <= report["handshake_us"]["max"].as_u64());
    let best = report["connections_per_second_best_100ms"].as_f64().unwrap();
    assert!(best >= report["connections_per_second"].as_f64().unwrap() * 0.9, "{report}");
}

#[test]
fn both_ends_on_workers_of_their_own_close_all_that_they_open() {
    let report = json("--queues 1 --connections 20000 --sleep --app http");
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((count("opened"), count("established"), count("closed"), count("failed")), (20_000, 20_000, 20_000, 0));
    assert!(report["first_byte_us"]["p999"].is_u64());
}

#[test]
fn memory_is_there_from_the_start_or_the_right_to_it_is_asked_for() {
    let flags = "--cores 0 --connections 1000";
    let output = load(&format!("--json --lock-memory {flags}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let locked: Value = serde_json::from_slice(&output.stdout).unwrap();
        let resident = [&locked, &json(flags)].map(|report| report["resident_bytes_max"].as_u64().unwrap());
        assert!(resident[0] > 2 * resident[1], "{resident:?}");
    } else {
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains("ulimit -l unlimited"), "{errors}");
    }
}

#[test]
fn a_servers_report_is_the_other_sides_view() {
    let report = json("server --cores 0 --connections 1000 --requests 2 --response-bytes 5000");
    assert_eq!((&report["role"], &report["opened"], &report["closed"]), (&"server".into(), &1000.into(), &1000.into()));
    assert!(report["bytes_sent"].as_u64() > report["bytes_received"].as_u64());
}

#[test]
fn failures_beyond_what_is_allowed_are_in_the_exit_status() {
    let flags = "--cores 0 --connections 100 --rate 1000 --hold 1 --conns-max 1";
    let output = load(flags);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("raise --conns-max"));
    assert!(load(&format!("{flags} --max-failures 99")).status.success());
}

#[test]
fn flags_that_do_not_go_together_end_with_status_2_and_a_reason() {
    for (flags, why) in [
        ("--rate 1 --concurrency 1", "cannot be used with"),
        ("--target 192.0.2.1:80", "says nothing to a wire"),
        ("client --driver af_xdp --interface x --address 192.0.2.1/24", "--target is missing"),
    ] {
        let output = load(flags);
        assert_eq!(output.status.code(), Some(2), "{flags}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{flags}: {said}");
    }
    let output = load("--cores 4095");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("core 4095 is not there"));
    let output = load("server --driver af_xdp --interface no-such-if0 --address 192.0.2.1/24");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-if0"));
}
