//! `handfast-load` at both ends through AF_XDP: what it reports is what passed the wire.

use std::process::Command;
use std::time::Duration;

use handfast_tests::capture::{Capture, Sent};
use handfast_tests::netns::{Netns, veth};
use handfast_tests::process::{Running, run_for};
use handfast_tests::{Scratch, example, full, say};
use serde_json::Value;

use crate::needs;

/// A client and a server, each at the end of a wire to a bridge of the kernel's, where all that passes can be seen.
struct Bridged {
    client: Netns,
    bridge: Netns,
    server: Netns,
}

impl Bridged {
    fn new() -> Bridged {
        let bridged = Bridged { client: Netns::new(), bridge: Netns::new(), server: Netns::new() };
        // The bridge itself says nothing.
        bridged.bridge.sysctl("ipv6/conf/default/disable_ipv6", "1");
        bridged.bridge.ip("link add name both type bridge mcast_snooping 0");
        for (end, port) in [(&bridged.client, "client"), (&bridged.server, "server")] {
            veth((end, "ours"), (&bridged.bridge, port), 1, 1500);
            bridged.bridge.ip(&format!("link set {port} master both"));
        }
        bridged.bridge.ip("link set both up");
        bridged
    }

    fn serve(&self, flags: &str) -> Running {
        let mut command = on_interface(&format!("server --address 192.0.2.1/24 {flags}"));
        let mut server = self.server.run(|| Running::start(&mut command));
        // When it runs it says how.
        let line = server.first_line();
        assert!(line.contains("queue 0: XDP in native mode"), "{line}");
        server
    }

    /// The client's report, and whether it says that all went well.
    fn load(&self, flags: &str) -> Value {
        let mut command = on_interface("client --address 192.0.2.101-192.0.2.200/24 --target 192.0.2.1:7");
        command.args(flags.split_whitespace());
        let output = self.client.run(|| run_for(&mut command, Duration::from_secs(120))).expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
        assert!(output.status.success(), "{}: {report}\n{errors}", output.status);
        report
    }
}

/// The bridge's kernel and the capture run on the same cores: workers that spin keep them from it, and packets are lost.
const IDLE: &str = "--sleep";

fn on_interface(words: &str) -> Command {
    let mut command = example::load();
    command.args("--driver af_xdp --interface ours --json".split_whitespace()).args(words.split_whitespace());
    command
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

/// With `HANDFAST_FULL=1` it is a minute at half of what can be reached; otherwise a second at a leisurely rate.
#[test]
fn the_report_of_an_open_loop_is_what_a_capture_of_it_says() {
    needs!(root, "tcpdump");
    let (bridged, scratch) = (Bridged::new(), Scratch::new());
    let (rate, duration) = match full() {
        false => (1000, 1),
        true => {
            let mut server = bridged.serve(IDLE);
            let report = bridged.load(&format!("--duration 10 --concurrency 512 {IDLE}"));
            server.stop();
            let most = report["connections_per_second"].as_f64().expect("a rate");
            say(format_args!("at most {most:.0} connections a second: {report}"));
            (most as u64 / 2, 60)
        }
    };
    let capture = Capture::of_headers(&bridged.bridge, "client", scratch.path().join("headers.pcap"));
    let mut server = bridged.serve(IDLE);
    let client = bridged.load(&format!("--rate {rate} --duration {duration} {IDLE}"));
    let (status, written) = server.stop();
    assert!(status.success(), "{status}: {written}");
    let server: Value = serde_json::from_str(written.lines().next().unwrap_or_default()).expect("one line of JSON");
    let counts = capture.count();
    let p99 = number(&client["handshake_us"], "p99");
    say(format_args!("{rate} a second for {duration} s: p99 of the handshake {p99} µs; {client}; {server}"));

    // The client's is the one that sent SYN.
    let (clients, servers): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(_, sent)| sent.syns > 0);
    let ([(_, from_client)], [(_, from_server)]) = (&clients[..], &servers[..]) else {
        panic!("one client and one server, and nobody else: {clients:?} {servers:?}")
    };
    let opened = number(&client, "opened");
    assert_eq!(opened, rate * duration);
    let as_reported = |report: &Value, to: &str, syns, syn_acks| Sent {
        packets: number(report, &format!("packets_{to}")),
        bytes: number(report, &format!("bytes_{to}")),
        syns,
        syn_acks,
        fins: number(report, "closed"),
        resets: 0,
    };
    assert_eq!((number(&client, "failed"), number(&client, "retransmissions")), (0, 0), "{client}");
    assert_eq!((number(&server, "failed"), number(&server, "retransmissions")), (0, 0), "{server}");
    assert_eq!(number(&client, "established"), opened, "{client}");
    assert_eq!((number(&server, "opened"), number(&server, "closed")), (opened, opened), "{server}");
    assert_eq!(*from_client, as_reported(&client, "sent", opened, 0));
    assert_eq!(*from_server, as_reported(&client, "received", 0, opened));
    assert_eq!(*from_client, as_reported(&server, "received", opened, 0));
    assert_eq!(*from_server, as_reported(&server, "sent", 0, opened));
}
