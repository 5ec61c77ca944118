//! Many connections, opened by either side and closed by either side first: none fails, none is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handfast_tests::apps::{Echo, Opener, Plan, Tally};
use handfast_tests::kernel::{self, FirstToClose, Load, Nginx, REQUEST, Server, Service};
use handfast_tests::lab::{Device, EVERY_WAY, Family, Lab, Metrics, Setting, nothing_left, service};
use handfast_tests::say;

use crate::needs;

const COUNT: u64 = 100_000;

fn opened_by_the_kernel(device: Device, family: Family, first: FirstToClose) {
    let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
    let app = tally.clone();
    let running = lab.spawn(Setting::default(), move |_| Echo::new(&app, first)).unwrap();
    let load = Load { to: vec![service(family)], connections: COUNT, at_a_time: 32, first };
    let outcome = lab.peer().run(|| kernel::open_and_close(&load));
    say(format_args!("{device:?} {family:?}, opened by the kernel, {first:?} closes first: {outcome}"));
    assert_eq!((outcome.done, outcome.failures.len()), (COUNT, 0), "{outcome}\n{}", Metrics(&running));
    let report = nothing_left(running, Duration::from_secs(10));
    assert_eq!(tally.accepted(), COUNT, "{report}");
    assert_eq!(lab.peer().run(kernel::sockets_left), Vec::<String>::new());
    tally.assert_all_orderly(COUNT);
}

#[test]
fn none_of_many_connections_that_the_kernel_opens_fails_or_is_left() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        opened_by_the_kernel(device, family, FirstToClose::Client);
    }
}

#[test]
fn none_of_many_connections_that_the_kernel_opens_and_we_close_first_fails_or_is_left() {
    needs!(root);
    opened_by_the_kernel(Device::AfXdp, Family::V4, FirstToClose::Server);
    opened_by_the_kernel(Device::Tap, Family::V6, FirstToClose::Server);
}

fn opened_by_us(lab: &Lab, to: SocketAddr, request: &'static [u8], close_after: Option<u64>) {
    let tally = Arc::new(Tally::default());
    let (app, begun) = (tally.clone(), Instant::now());
    let plan = Plan { to: vec![to], connections: COUNT, at_a_time: 64, request, close_after };
    let running = lab.spawn(Setting::default(), move |_| Opener::new(&app, plan.clone())).unwrap();
    let all = tally.wait_for(COUNT, Duration::from_secs(120));
    let (device, took) = (lab.device, begun.elapsed().as_secs_f64());
    let rate = COUNT as f64 / took;
    let first = if close_after.is_some() { "we close" } else { "it closes" };
    say(format_args!(
        "{device:?}, opened by us to {to}, {first} first: {} in {took:.2} s ({rate:.0} a second)",
        tally.ended()
    ));
    assert!(all, "{:?}\n{}", tally.how(), Metrics(&running));
    tally.assert_all_orderly(COUNT);
    nothing_left(running, Duration::from_secs(10));
    assert_eq!(lab.peer().run(kernel::sockets_left), Vec::<String>::new());
}

#[test]
fn none_of_many_connections_that_we_open_to_a_kernel_server_fails_or_is_left() {
    needs!(root);
    for ((device, family), service) in EVERY_WAY.into_iter().zip([Service::Echo, Service::EchoOnce].into_iter().cycle())
    {
        let lab = Lab::new(device, 1);
        let to = SocketAddr::new(family.peer(), 9);
        // A TAP device gets its address when it is opened; so the server takes every address.
        let any = if family == Family::V4 { "0.0.0.0:9" } else { "[::]:9" };
        let server = lab.peer().run(|| Server::start(any.parse().unwrap(), service, 64));
        opened_by_us(&lab, to, REQUEST, (service == Service::Echo).then_some(REQUEST.len() as u64));
        assert_eq!((server.done(), server.failures()), (COUNT, vec![]));
    }
}

#[test]
fn none_of_many_connections_that_we_open_to_nginx_fails_or_is_left() {
    needs!(root, "nginx");
    for (device, family) in [(Device::AfXdp, Family::V4), (Device::AfXdp, Family::V6)] {
        let lab = Lab::new(device, 1);
        let _nginx = lab.peer().run(|| Nginx::start("return 200 'hello';"));
        opened_by_us(&lab, SocketAddr::new(family.peer(), 80), b"GET / HTTP/1.0\r\n\r\n", None);
    }
}
