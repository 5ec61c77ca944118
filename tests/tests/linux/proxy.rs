//! The proxy between two kernels: client, proxy and server each in a namespace, on one bridge.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use handfast_tests::kernel::{self, FirstToClose, Load, Nginx, Server, Service};
use handfast_tests::lab::Family;
use handfast_tests::netns::{Netns, veth};
use handfast_tests::process::{Running, run_for, succeed};
use handfast_tests::{Scratch, example, say};

use crate::needs;

const CONNECTIONS: u64 = 10_000;
const MIB: u64 = 1024;

struct Bridged {
    client: Netns,
    proxy: Netns,
    server: Netns,
    _switch: Netns,
}

/// Hosts 1, 2 and 3 are the proxy, the client and the server.
fn bridged() -> Bridged {
    let (client, proxy, server, switch) = (Netns::new(), Netns::new(), Netns::new(), Netns::new());
    switch.ip("link add bridge type bridge forward_delay 0 mcast_snooping 0");
    switch.ip("link set bridge up");
    for (netns, name, host) in [(&proxy, "proxy", 1), (&client, "client", 2), (&server, "server", 3)] {
        veth((netns, "wire"), (&switch, name), 1, 1500);
        switch.ip(&format!("link set {name} master bridge"));
        if host != 1 {
            for family in [Family::V4, Family::V6] {
                netns.address("wire", family.host(host), family.prefix_len());
            }
            kernel::widen(netns);
        }
    }
    Bridged { client, proxy, server, _switch: switch }
}

#[test]
fn the_proxy_carries_many_connections_and_a_gibibyte_without_copying_a_byte() {
    needs!(root, "nginx", "curl");
    let Bridged { client, proxy, server, _switch } = bridged();
    for (family, backend_port) in [(Family::V4, 7), (Family::V6, 80)] {
        let backend = SocketAddr::new(family.host(3), backend_port);
        let mut command = example::example("tcp_proxy");
        command.args(["--interface", "wire", "--address", &family.ours_cidr(), "--sleep"]);
        command.args(["--listen", "7", "--to", &backend.to_string()]);
        let running = proxy.run(|| Running::start(&mut command));
        let front = SocketAddr::new(family.ours(), 7);
        if backend_port == 7 {
            many(&client, &server, front, backend);
        } else {
            large(&client, &server, front);
        }
        let report = example::stop(running);
        assert!(report.contains("closed_orderly"), "{report}");
        assert!(!report.contains("payload_bytes_copied"), "{report}");
    }
}

fn many(client: &Netns, server: &Netns, front: SocketAddr, backend: SocketAddr) {
    let behind = server.run(|| Server::start(backend, Service::Echo, 64));
    let load = Load { to: vec![front], connections: CONNECTIONS, at_a_time: 32, first: FirstToClose::Client };
    let outcome = client.run(|| kernel::open_and_close(&load));
    say(format_args!("through the proxy: {outcome}"));
    assert_eq!((outcome.done, outcome.failures), (CONNECTIONS, vec![]));
    assert_eq!((behind.done(), behind.failures()), (CONNECTIONS, vec![]));
}

fn large(client: &Netns, server: &Netns, front: SocketAddr) {
    let folder = Scratch::new();
    let file = folder.path().join("file");
    let size = (MIB << 20).to_string();
    // Nothing in it is like anything else in it, and it is the same each time.
    let fill =
        format!("openssl enc -aes-128-ctr -pass pass:handfast -nosalt -pbkdf2 </dev/zero 2>/dev/null | head -c {size}");
    let fill = format!("{{ {fill} || true; }} >{}", file.display());
    succeed(Command::new("bash").args(["-c", &fill]));
    let _nginx = server.run(|| Nginx::start(&format!("root {};", folder.path().display())));
    let fetch =
        format!("set -o pipefail; curl -sS --fail --retry 5 --retry-connrefused http://{front}/file | sha256sum");
    let begun = Instant::now();
    let limit = std::time::Duration::from_secs(300);
    let output = client.run(|| run_for(Command::new("bash").args(["-c", &fetch]), limit)).unwrap();
    let mbps = (MIB << 23) as f64 / 1e6 / begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    say(format_args!("through the proxy: {MIB} MiB, {mbps:.0} Mbit/s"));
    let sum = succeed(Command::new("sha256sum").arg(&file));
    assert_eq!(String::from_utf8_lossy(&output.stdout).split_whitespace().next(), sum.split_whitespace().next());
}
