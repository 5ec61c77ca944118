use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::Caps;
use handfast_drivers::wire::{self, Spread, WirePort};
use handfast_drivers::wrap::Wrapped;

use super::*;
use crate::app::{Closed, ConnId, Cx};
use crate::metrics::{Counter, DropReason};

#[test]
fn one_worker_echoes() {
    for idle in [Idle::Spin, Idle::Sleep] {
        echo(&Case { idle, ..Case::default() });
    }
}

#[test]
fn two_workers_echo_and_neither_hears_the_others_connections() {
    for idle in [Idle::Spin, Idle::Sleep] {
        let metrics = echo(&Case { idle, workers: 2, ..Case::default() });
        assert_eq!(metrics.get(Counter::SteeredSegments), 0);
    }
}

#[test]
fn segments_that_come_to_the_wrong_worker_are_handed_over_and_nothing_is_lost() {
    for idle in [Idle::Spin, Idle::Sleep] {
        let metrics = echo(&Case { idle, workers: 2, spread: Spread::RoundRobin, ..Case::default() });
        assert!(metrics.get(Counter::SteeredSegments) > 1000, "{metrics:?}");
    }
}

#[test]
fn connections_are_closed_before_the_end() {
    let case = Case { idle: Idle::Sleep, ..Case::default() };
    let (tally, server_tally) = (Tally::default(), Tally::default());
    let (a, b) = case.ports();
    let server = case.runtime(b, SERVER).listen(7).spawn(server_tally.echo()).unwrap();
    let client = case.runtime(a, CLIENT).spawn(tally.client(&case)).unwrap();
    wait_for(|| tally.connected() == case.connections);
    // Both are told at once; the connections that are open go on to their ends.
    server.stop();
    client.stop();
    let (client, server) = (client.join().unwrap(), server.join().unwrap());
    assert_eq!((client.aborted(), server.aborted()), (0, 0), "{client} {server}");
    assert_eq!(tally.closed(), case.connections);
    assert_eq!(tally.orderly(), case.connections);
}

#[test]
fn connections_that_are_not_closed_in_time_are_reset() {
    let case = Case { idle: Idle::Sleep, bytes: usize::MAX, connections: 3, ..Case::default() };
    let tally = Tally::default();
    let (a, b) = case.ports();
    let server = case.runtime(b, SERVER).listen(7).drain(Duration::from_millis(50));
    let server = server.spawn(Tally::default().echo()).unwrap();
    let client = case.runtime(a, CLIENT).spawn(tally.client(&case)).unwrap();
    wait_for(|| tally.connected() == case.connections);
    server.stop();
    assert_eq!(server.join().unwrap().aborted(), case.connections as u32);
    wait_for(|| tally.closed() == case.connections);
    assert_eq!(tally.orderly(), 0);
    client.stop();
    client.join().unwrap();
}

/// A SYN from this port to the server's.
fn syn(caps: &Caps, port: u16) -> Vec<u8> {
    use crate::wire::address::Mac;
    use crate::wire::ethernet::{ETHERTYPE_IPV4, Ethernet};
    use crate::wire::packet::{Ip, emit_headers, headers_len};
    use crate::wire::tcp::{Flags, Header};
    let address = |cidr: &str| Address::from(cidr.parse::<Cidr>().unwrap().address());
    let link = Ethernet { dst: Mac([2, 0, 0, 0, 0, 0x0b]), src: Mac(caps.mac), vlan: None, ethertype: ETHERTYPE_IPV4 };
    let ip = Ip::new(address(CLIENT), address(SERVER));
    let header = Header { src_port: port, dst_port: 7, flags: Flags::SYN, window: 1000, ..Header::default() };
    let mut frame = vec![0; headers_len(false, false, &header, &[])];
    emit_headers(&mut frame, &link, &ip, &header, &[], &[], true);
    frame
}

#[test]
fn a_neighbour_that_looks_elsewhere_for_a_while_loses_no_answer() {
    for idle in [Idle::Spin, Idle::Sleep] {
        let case = Case { idle, ..Case::default() };
        let (a, b) = case.ports();
        let server = case.runtime(b, SERVER).listen(7).drain(Duration::ZERO).spawn(Tally::default().echo()).unwrap();
        let mut peer = a.open(1).unwrap().remove(0).start().unwrap();
        let (mut rx, mut tx, mut sent, mut answers) = (RxBurst::new(), TxBurst::new(), 0, 0);
        let begun = Instant::now();
        while answers < 1000 {
            while sent < 1000 && tx.room() > 0 {
                let mut frame = peer.pool().alloc().expect("more frames than segments");
                frame.extend_from_slice(&syn(peer.caps(), 2000 + sent));
                tx.push(frame);
                sent += 1;
            }
            peer.tx_burst(&mut tx);
            peer.flush();
            // Meanwhile the wire fills up both ways, and the server's bursts do.
            if begun.elapsed() > Duration::from_millis(20).into() {
                peer.rx_burst(&mut rx);
                answers += rx.drain(..).len();
            }
            assert!(begun.elapsed() < Duration::from_secs(10).into(), "{answers} of {sent} are answered");
        }
        assert_eq!(server.metrics().drops(DropReason::TransmitFull), 0);
        server.stop();
        while server.is_running() {
            peer.rx_burst(&mut rx);
            rx.clear();
        }
        server.join().unwrap();
    }
}

#[test]
fn a_stop_flag_that_is_set_from_outside_ends_a_run() {
    let case = Case { idle: Idle::Sleep, ..Case::default() };
    let runtime = case.runtime(case.ports().0, CLIENT);
    runtime.stop_flag().store(true, Ordering::Relaxed);
    runtime.run(Tally::default().echo()).unwrap();
}

#[test]
fn a_panic_stops_the_other_workers_and_is_told() {
    for idle in [Idle::Spin, Idle::Sleep] {
        let case = Case { idle, workers: 2, ..Case::default() };
        let (a, _b) = case.ports();
        let running = case.runtime(a, CLIENT).spawn(|core| Panics { core }).unwrap();
        let error = running.join().unwrap_err();
        assert_eq!(error.to_string(), "worker 1 panicked: as the test wants it; the others were stopped");
    }
}

struct Panics {
    core: u16,
}

impl App for Panics {
    fn on_start(&mut self, _: &mut Cx<'_>) {
        if self.core == 1 {
            panic!("as the {} wants it", "test");
        }
    }
}

#[test]
fn a_worker_that_cannot_start_keeps_all_from_running_and_everything_is_given_back() {
    let case = Case { workers: 2, ..Case::default() };
    let (a, b) = case.ports();
    drop(b);
    let region = a.region().unwrap().clone();
    let failing = Wrapped::new(a, |queue, driver| if queue == 1 { Err("no luck".into()) } else { Ok(driver) });
    let error = case.runtime(failing, CLIENT).spawn(Tally::default().echo()).unwrap_err();
    assert_eq!(error.to_string(), "no luck");
    assert_eq!(Arc::strong_count(&region), 1, "a queue is still open");

    let (a, b) = case.ports();
    drop(b);
    let region = a.region().unwrap().clone();
    let panicking = Wrapped::new(a, |queue, driver| if queue == 1 { panic!("no luck") } else { Ok(driver) });
    let error = case.runtime(panicking, CLIENT).spawn(Tally::default().echo()).unwrap_err();
    assert_eq!(error.to_string(), "worker 1 panicked: no luck; the others were stopped");
    assert_eq!(Arc::strong_count(&region), 1, "a queue is still open");
}

#[test]
fn what_cannot_work_is_said_before_anything_is_opened() {
    let port = || Case::default().ports().0;
    let with = || Runtime::new(Config::default()).port(port()).address(CLIENT.parse().unwrap());
    let error = |runtime: Runtime<WirePort>| runtime.spawn(Tally::default().echo()).unwrap_err();
    assert!(matches!(error(Runtime::new(Config::default()).port(port())), Error::Config(ConfigError::NoAddress)));
    assert!(matches!(error(with().vlan(4095)), Error::Vlan(4095)));
    assert!(matches!(error(with().listen(0)), Error::ListenPort));
    assert!(matches!(error(with().gateway([10, 0, 1, 1].into())), Error::Gateway(_)));
    assert!(matches!(error(with().gateway([10, 0, 0, 1].into())), Error::Gateway(_)));
    assert!(matches!(error(with().workers(0)), Error::Workers(0)));
    assert!(matches!(error(with().cores([])), Error::Workers(0)));
    assert!(matches!(error(with().cores([100_000])), Error::Core { core: 100_000, .. }));
    let usable = core_affinity::get_core_ids().unwrap()[0].id;
    assert!(matches!(error(with().cores([usable, usable])), Error::SameCore(_)));
    let error = error(with().workers(2));
    assert!(matches!(&error, Error::Device(why) if why.is::<wire::Error>()), "{error}");
}

#[test]
fn workers_run_on_their_cores() {
    let usable = core_affinity::get_core_ids().unwrap()[0].id;
    let case = Case { idle: Idle::Sleep, ..Case::default() };
    let at = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = at.clone();
    let running = case.runtime(case.ports().0, CLIENT).cores([usable]).spawn(move |_| {
        let only = core_affinity::get_core_ids().unwrap();
        seen.store(only[0].id * only.len(), Ordering::Relaxed);
        Server(Tally::default())
    });
    let running = running.unwrap();
    assert_eq!(running.snapshot().len(), 1);
    assert_eq!(at.load(Ordering::Relaxed), usable);
}

struct Case {
    idle: Idle,
    workers: u16,
    spread: Spread,
    connections: usize,
    bytes: usize,
}

impl Default for Case {
    fn default() -> Case {
        Case { idle: Idle::Spin, workers: 1, spread: Spread::ByRss(None), connections: 64, bytes: 20_000 }
    }
}

impl Case {
    fn ports(&self) -> (WirePort, WirePort) {
        let config = wire::Config { queues: self.workers, spread: self.spread.clone(), ..wire::Config::default() };
        wire::ports(config.clone(), config)
    }

    fn runtime<P: Port>(&self, port: P, address: &str) -> Runtime<P> {
        let mut config = Config::default();
        config.limits.conns_max = 1024;
        config.limits.syn_rcvd_max = 1024;
        config.limits.time_wait_max = 1024;
        let runtime = Runtime::new(config).port(port).address(address.parse().unwrap());
        runtime.workers(self.workers.into()).idle(self.idle).drain(Duration::from_secs(20))
    }
}

/// Opens connections, has all bytes echoed, closes; checks that nothing is left. The counters of both sides.
fn echo(case: &Case) -> Metrics {
    let (tally, server_tally) = (Tally::default(), Tally::default());
    let (a, b) = case.ports();
    let regions = [a.region().unwrap().clone(), b.region().unwrap().clone()];
    let server = case.runtime(b, SERVER).listen(7).spawn(server_tally.echo()).unwrap();
    let client = case.runtime(a, CLIENT).spawn(tally.client(case)).unwrap();
    let deadline = Instant::now() + core::time::Duration::from_secs(20);
    while tally.closed() < case.connections {
        assert!(Instant::now() < deadline, "stuck\n{:?}\n{:?}", client.snapshot(), server.snapshot());
        thread::sleep(core::time::Duration::from_millis(1));
    }
    wait_for(|| server.snapshot().iter().all(|worker| worker.connections == 0));
    let (seen, seen_by_server) = (client.snapshot(), server.snapshot());
    assert_eq!((seen.len(), seen_by_server.len()), (usize::from(case.workers), usize::from(case.workers)));
    assert!(seen.iter().all(|worker| worker.time_waits > 0), "all workers opened connections: {seen:?}");
    server.stop();
    client.stop();
    let (client, server) = (client.join().unwrap(), server.join().unwrap());

    assert_eq!(tally.orderly(), case.connections);
    assert_eq!(tally.bytes(), case.connections * case.bytes);
    assert_eq!(server_tally.closed(), case.connections);
    assert_eq!((client.aborted(), server.aborted()), (0, 0));
    let mut metrics = client.metrics();
    metrics.merge(&server.metrics());
    assert_eq!(metrics.get(Counter::Established), 2 * case.connections as u64);
    assert_eq!(metrics.drops(DropReason::HandoverFull), 0);
    for region in regions {
        // What a worker had posted counts as free here, whether it is home or not; the wire's own tests see that it is.
        let census = region.census(0..region.frames());
        assert_eq!(census.free, region.frames(), "{census:?}\n{client}\n{server}");
    }
    metrics
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + core::time::Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it never happens");
        thread::sleep(core::time::Duration::from_millis(1));
    }
}

/// What the applications of all workers have seen.
#[derive(Clone, Default)]
struct Tally(Arc<[AtomicUsize; 4]>);

impl Tally {
    fn connected(&self) -> usize {
        self.0[0].load(Ordering::Relaxed)
    }
    fn bytes(&self) -> usize {
        self.0[1].load(Ordering::Relaxed)
    }
    fn orderly(&self) -> usize {
        self.0[2].load(Ordering::Relaxed)
    }
    fn closed(&self) -> usize {
        self.0[3].load(Ordering::Relaxed)
    }
    fn add(&self, what: usize, n: usize) {
        self.0[what].fetch_add(n, Ordering::Relaxed);
    }
    fn ended(&self, how: Closed) {
        self.add(2, usize::from(how == Closed::Orderly));
        self.add(3, 1);
    }
    fn echo(&self) -> impl Fn(u16) -> Server + Send + Sync + use<> {
        let tally = self.clone();
        move |_| Server(tally.clone())
    }
    fn client(&self, case: &Case) -> impl Fn(u16) -> Client + Send + Sync + use<> {
        let (tally, left, bytes) = (self.clone(), case.connections / usize::from(case.workers), case.bytes);
        move |_| Client { tally: tally.clone(), left, bytes }
    }
}

struct Server(Tally);

impl App for Server {
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            cx.send(conn, frame).unwrap();
        }
    }
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_data(cx, conn);
    }
    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.0.ended(how);
    }
}

/// Sends so many bytes on each connection, and takes them back.
struct Client {
    tally: Tally,
    /// Connections to be opened, one a turn.
    left: usize,
    bytes: usize,
}

impl Client {
    fn fill(&self, cx: &mut Cx<'_>, conn: ConnId) {
        // The word is how much was sent; the pattern depends on it.
        let mut sent = cx.user(conn) as usize;
        while sent < self.bytes.min(1 << 20) {
            let pattern: [u8; 1000] = core::array::from_fn(|at| ((sent + at) % 251) as u8);
            let written = cx.write(conn, &pattern[..(self.bytes - sent).min(1000)]);
            sent += written;
            if written == 0 {
                break;
            }
        }
        cx.set_user(conn, sent as u64);
        if sent == self.bytes {
            cx.shutdown(conn);
        }
    }
}

impl App for Client {
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        if self.left > 0 {
            self.left -= 1;
            cx.connect(SocketAddr::from(([10, 0, 0, 2], 7))).unwrap();
            cx.wake_at(cx.now());
        }
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.tally.add(0, 1);
        self.fill(cx, conn);
    }
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.fill(cx, conn);
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(frame) = cx.recv(conn) {
            self.tally.add(1, frame.len());
        }
    }
    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.tally.ended(how);
    }
}

const CLIENT: &str = "10.0.0.1/24";
const SERVER: &str = "10.0.0.2/24";
