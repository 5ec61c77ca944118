//! What goes wrong at the start is said in a line that tells what to do, and in the exit status.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use af_xdp::{Area, PageSize, Socket, SocketConfig, Umem, UmemConfig};
use handfast_tests::lab::{Device, Family, Lab};
use handfast_tests::process::run_for;
use handfast_tests::{Scratch, example, say};

use crate::needs;

/// Runs it at our end; it must fail and say all of these.
#[track_caller]
fn fails(lab: &Lab, command: &mut Command, says: &[&str]) {
    let output = lab.ours.run(|| run_for(command, Duration::from_secs(20))).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    say(format_args!("{}", said.trim_end()));
    assert!(output.status.code().is_some_and(|code| code != 0), "{}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    for words in says {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

fn sink(flags: &str) -> Command {
    let mut command = example::example("sink");
    command.args(flags.split_whitespace());
    command
}

#[test]
fn wrong_flags_are_named() {
    needs!(root);
    let lab = Lab::new(Device::AfXdp, 1);
    for (flags, says) in [
        ("--address 192.0.2.1/24", "--interface"),
        ("--interface ours", "--address"),
        ("--interface ours --address 192.0.2.1/24 --colour red", "--colour"),
        ("--interface ours --address 192.0.2.300/24", "192.0.2.300/24"),
        ("--interface ours --address 192.0.2.1/33", "33"),
        ("--interface ours --address 192.0.2.0/24", "192.0.2.0/24"),
        ("--interface ours --address 192.0.2.1/24 --port 70000", "70000"),
        ("--interface ours --address 192.0.2.1/24 --port 0", "port 0"),
        ("--interface ours --address 192.0.2.1/24 --gateway 198.51.100.1", "198.51.100.1"),
        ("--interface ours --address 192.0.2.1/24 --vlan 5000", "5000"),
        ("--interface ours --address 192.0.2.1/24 --cores 4000", "4000"),
        ("--interface ours --address 192.0.2.1/24 --cores 0,0", "twice"),
        ("--interface ours --address 192.0.2.1/24 --frames 1", "frames"),
        ("--interface ours --address 192.0.2.1/24 --impair loss=lots", "loss=lots"),
    ] {
        fails(&lab, &mut sink(flags), &[says]);
    }
}

#[test]
fn what_keeps_it_from_its_device_is_named_with_what_to_do() {
    needs!(root, "setpriv");
    let lab = Lab::new(Device::AfXdp, 2);
    let flags = "--interface ours --address 192.0.2.1/24 --cores 0,1 --sleep";

    fails(&lab, &mut sink("--interface none --address 192.0.2.1/24"), &["none"]);
    // Two queues and one worker: what arrives on the other would be lost.
    fails(&lab, &mut sink("--interface ours --address 192.0.2.1/24"), &["ours", "queues", "ethtool -L"]);

    // Nobody must be able to run it.
    let folder = Scratch::new();
    let copy = folder.path().join("sink");
    std::fs::copy(example::example("sink").get_program(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    for driver in ["", "--driver tap"] {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(&copy);
        fails(&lab, nobody.args(flags.split_whitespace()).args(driver.split_whitespace()), &["CAP_NET_ADMIN"]);
    }

    let service = std::net::SocketAddr::new(Family::V4.ours(), 9);
    let first = example::start(&lab, &mut sink(flags), service);
    fails(&lab, &mut sink(flags), &["ours", "XDP program"]);
    drop(first);

    // Somebody else's socket has the second queue.
    let _other = lab.ours.run(|| {
        let area = Area::new(64 * 4096, PageSize::Normal).unwrap();
        let umem = Umem::new(Arc::new(area), UmemConfig::default()).unwrap();
        Socket::bind(&umem, "ours", 1, &SocketConfig::default()).unwrap()
    });
    fails(&lab, &mut sink(flags), &["ours", "queue 1", "another"]);
    drop(_other);

    lab.ours.address("ours", Family::V4.ours(), 24);
    fails(&lab, &mut sink(flags), &["192.0.2.1", "ip address del"]);
}
