//! Handfast and the kernel on one interface, and what stays behind when handfast is killed.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use handfast_tests::apps::{Echo, Tally};
use handfast_tests::kernel::{self, FirstToClose, Load, Server, Service};
use handfast_tests::lab::{Device, Family, Lab, Setting, nothing_left, service};
use handfast_tests::process::succeed;
use handfast_tests::{example, say};

use crate::needs;

#[test]
fn tcp_of_the_kernel_goes_on_beside_ours_on_the_same_interface() {
    needs!(root);
    let (lab, tally) = (Lab::new(Device::AfXdp, 1), Arc::new(Tally::default()));
    let families = [Family::V4, Family::V6];
    for family in families {
        lab.ours.address(lab.interface(), family.host(3), family.prefix_len());
    }
    let kernels = families.map(|family| SocketAddr::new(family.host(3), 7));
    let _servers = kernels.map(|address| lab.ours.run(|| Server::start(address, Service::Echo, 16)));
    let app = tally.clone();
    let running = lab.spawn(Setting::default(), move |_| Echo::new(&app, FirstToClose::Client)).unwrap();
    let to = families.map(service).into_iter().chain(kernels).collect();
    let load = Load { to, connections: 4_000, at_a_time: 32, first: FirstToClose::Client };
    let outcome = lab.peer().run(|| kernel::open_and_close(&load));
    say(format_args!("half to us, half to the kernel beside us: {outcome}"));
    assert_eq!((outcome.done, outcome.failures), (4_000, vec![]));
    nothing_left(running, Duration::from_secs(10));
    tally.assert_all_orderly(2_000);
}

#[test]
fn nothing_stays_attached_after_a_kill_and_the_next_start_works_at_once() {
    needs!(root);
    let lab = Lab::new(Device::AfXdp, 2);
    let attached = || succeed(Command::new("ip").args(["-details", "link", "show", lab.interface()])).contains("xdp");
    let service = SocketAddr::new(Family::V4.ours(), 9);
    for _ in 0..3 {
        let cores = ["--cores", "0,1"];
        let mut sink = example::start(&lab, example::on(&lab, "sink").args(cores), service);
        assert!(lab.ours.run(attached));
        sink.kill();
        assert!(!lab.ours.run(attached), "its program is still attached");
    }
}
