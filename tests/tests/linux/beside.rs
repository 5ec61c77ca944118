//! Handfast and the kernel on one interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use handfast_tests::apps::{Echo, Tally};
use handfast_tests::kernel::{self, FirstToClose, Load, Server, Service};
use handfast_tests::lab::{Device, Family, Lab, Setting, nothing_left, service};
use handfast_tests::say;

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
