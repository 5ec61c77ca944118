//! Many connections, opened by either side and closed by either side first: none fails, none is left.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use handfast::ip::routes::OwnRange;
use handfast::{App, Closed, ConnId, Cx};
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

/// Opens a connection from each address of a range, some at a time, and closes it.
struct FromEach {
    range: OwnRange,
    to: SocketAddr,
    begun: u32,
    open: u32,
    closed: Arc<AtomicU32>,
}

impl App for FromEach {
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        while self.open < 64 && self.begun < self.range.count {
            cx.connect_from(self.range.nth(self.begun).into(), self.to).expect("an address of ours, and a route");
            self.begun += 1;
            self.open += 1;
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.close(conn);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, _conn: ConnId, how: Closed) {
        assert_eq!(how, Closed::Orderly);
        self.open -= 1;
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn connections_come_from_thousands_of_addresses_of_ours() {
    needs!(root);
    for (family, network, first) in
        [(Family::V4, "198.18.0.0/16", "198.18.3.251"), (Family::V6, "fd00:1::/96", "fd00:1::fffb")]
    {
        let (lab, count) = (Lab::new(Device::AfXdp, 1), 5000);
        lab.peer().ip(&format!("route add {network} via {}", family.ours()));
        let to = SocketAddr::new(family.peer(), 9);
        let listener = lab.peer().run(|| TcpListener::bind(to)).unwrap();
        let peers = thread::spawn(move || {
            let addresses = (0..count).map(|_| {
                let (mut stream, from) = listener.accept().unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                from.ip()
            });
            addresses.collect::<BTreeSet<IpAddr>>()
        });
        let range = OwnRange { first: first.parse::<IpAddr>().unwrap().into(), count };
        let (closed, mut setting) = (Arc::new(AtomicU32::new(0)), Setting::default());
        setting.config.ip.ranges.push(range);
        let tally = closed.clone();
        let app = move |_| FromEach { range, to, begun: 0, open: 0, closed: tally.clone() };
        let running = lab.spawn(setting, app).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while closed.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "{} of {count}\n{}", closed.load(Ordering::Relaxed), Metrics(&running));
            thread::sleep(Duration::from_millis(10));
        }
        let expected: BTreeSet<IpAddr> = (0..count).map(|index| range.nth(index).into()).collect();
        assert_eq!(peers.join().unwrap(), expected);
        nothing_left(running, Duration::from_secs(10));
    }
}
