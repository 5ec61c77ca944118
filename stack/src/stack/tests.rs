use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use handfast_drivers::wire::{self, WireDriver};

use super::*;
use crate::app::Closed;
use crate::ip::routes::OwnAddress;
use crate::metrics::DropReason;
use crate::time::Duration;
use crate::wire::address::Address;

mod asked;
mod chaos;
mod drops;
mod loss;
mod peer;
mod segments;
mod sight;
mod states;

/// One end: a stack on a queue of an in-memory wire, and its application.
struct Host<A> {
    driver: WireDriver,
    stack: Stack,
    app: A,
    rx: RxBurst,
    tx: TxBurst,
}

impl<A: App> Host<A> {
    fn new(driver: WireDriver, address: Address, configure: impl FnOnce(&mut Config), app: A) -> Host<A> {
        let mut config = Config::default();
        config.ip.addresses = vec![OwnAddress { address, prefix_len: if address.is_v4() { 24 } else { 64 } }];
        config.tcp.msl = Duration::from_secs(1);
        configure(&mut config);
        let stack = Stack::new(config, driver.pool().clone(), driver.caps(), &Entropy([7; 64])).unwrap();
        Host { driver, stack, app, rx: RxBurst::new(), tx: TxBurst::new() }
    }

    fn turn(&mut self, now: Instant) -> bool {
        self.driver.rx_burst(&mut self.rx);
        let busy = !self.rx.is_empty();
        self.stack.turn(now, &mut self.rx, &mut self.tx, &mut self.app);
        loop {
            self.driver.tx_burst(&mut self.tx);
            if self.stack.output(&mut self.tx) || !self.tx.is_empty() {
                break;
            }
        }
        self.driver.tx_burst(&mut self.tx);
        self.driver.flush();
        for (at, tcb) in self.stack.conns.iter() {
            tcb.check(&self.stack.env).unwrap_or_else(|broken| panic!("{at:?}: {broken}: {tcb:?}"));
        }
        busy
    }

    fn is_clean(&self) -> bool {
        self.stack.connections() == 0
            && self.stack.half_open() == 0
            && self.stack.flows.len() == self.stack.waiting.len() as usize
    }
}

struct World<C, S> {
    client: Host<C>,
    server: Host<S>,
    now: Instant,
}

const CLIENT: Address = Address::v4([10, 0, 0, 1]);
const SERVER: Address = Address::v4([10, 0, 0, 2]);

impl<C: App, S: App> World<C, S> {
    fn new(client: C, server: S) -> World<C, S> {
        World::with(client, server, |_| {}, CLIENT, SERVER)
    }

    fn with(client: C, server: S, configure: impl Fn(&mut Config), a: Address, b: Address) -> World<C, S> {
        let (wire_a, wire_b) = wire::pair(wire::Config::default());
        let client = Host::new(wire_a, a, &configure, client);
        let mut server = Host::new(wire_b, b, &configure, server);
        server.stack.listen(None, 80).unwrap();
        let mut world = World { client, server, now: Instant::from_micros(1_000_000) };
        world.client.stack.start(world.now, &mut world.client.app);
        world
    }

    /// Runs until both are quiet and nothing is due within `span`.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut turns = 0;
        while self.now <= end {
            turns += 1;
            assert!(turns < 2_000_000, "it goes on for ever");
            let busy = self.client.turn(self.now) | self.server.turn(self.now);
            self.now += Duration::from_micros(10);
            if !busy && !self.client.turn(self.now) && !self.server.turn(self.now) {
                let due = [self.client.stack.next_deadline(), self.server.stack.next_deadline()];
                let Some(due) = due.into_iter().flatten().min() else { break };
                self.now = self.now.max(due);
            }
        }
    }

    fn assert_all_is_back(&self) {
        assert!(self.client.is_clean() && self.server.is_clean());
        for pool in [self.client.stack.pool(), self.server.stack.pool()] {
            let census = pool.census();
            assert_eq!(census.owned + census.sending + census.moving, 0, "{census:?}");
        }
    }
}

/// Opens so many connections, each sends so much, then closes; counts how they ended.
#[derive(Default)]
struct Client {
    at: Option<SocketAddr>,
    connections: u32,
    bytes: usize,
    sent: Vec<(ConnId, usize)>,
    received: usize,
    connected: u32,
    closed: Vec<Closed>,
}

impl Client {
    fn new(connections: u32, bytes: usize) -> Client {
        Client { at: Some(SocketAddr::new(SERVER.into(), 80)), connections, bytes, ..Client::default() }
    }

    fn push(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some((_, sent)) = self.sent.iter_mut().find(|(id, _)| *id == conn) else { return };
        loop {
            let pattern: Vec<u8> = (*sent..self.bytes).map(|at| (at % 251) as u8).take(100_000).collect();
            let written = cx.write(conn, &pattern);
            *sent += written;
            if written < pattern.len() || pattern.is_empty() {
                break;
            }
        }
        if *sent == self.bytes {
            cx.shutdown(conn);
        }
    }
}

impl App for Client {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.connections {
            cx.connect(self.at.unwrap()).unwrap();
        }
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.connected += 1;
        self.sent.push((conn, 0));
        self.push(cx, conn);
    }
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.push(cx, conn);
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(frame) = cx.recv(conn) {
            self.received += frame.len();
        }
    }
    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.closed.push(how);
    }
}

#[derive(Default)]
struct Echo {
    accepted: u32,
    closed: Vec<Closed>,
}

impl App for Echo {
    fn on_accept(&mut self, _: &mut Cx<'_>, _: ConnId) {
        self.accepted += 1;
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            cx.send(conn, frame).expect("room was checked");
        }
    }
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_data(cx, conn);
    }
    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.closed.push(how);
    }
}

#[test]
fn a_connection_opens_and_closes_and_waits_for_two_msl() {
    let mut world = World::new(Client::new(1, 0), Echo::default());
    world.run(Duration::from_millis(500));
    assert_eq!((world.client.app.connected, world.server.app.accepted), (1, 1));
    assert_eq!(world.client.app.closed, [Closed::Orderly]);
    assert_eq!(world.server.app.closed, [Closed::Orderly]);
    assert_eq!((world.client.stack.time_waits(), world.server.stack.time_waits()), (1, 0));
    world.assert_all_is_back();
    world.run(Duration::from_secs(3));
    assert_eq!(world.client.stack.time_waits(), 0);
    assert_eq!(world.client.stack.metrics().drops_total() + world.server.stack.metrics().drops_total(), 0);
}

#[test]
fn many_connections_echo_what_they_are_sent() {
    let mut world = World::new(Client::new(200, 5_000), Echo::default());
    world.run(Duration::from_secs(5));
    assert_eq!(world.client.app.received, 200 * 5_000);
    assert_eq!(world.client.app.closed, vec![Closed::Orderly; 200]);
    world.assert_all_is_back();
    assert_eq!(world.server.stack.metrics().get(Counter::PayloadBytesCopied), 0);
}

#[test]
fn a_megabyte_goes_there_and_back() {
    let mut world = World::new(Client::new(1, 3_000_000), Echo::default());
    world.run(Duration::from_secs(60));
    assert_eq!(world.client.app.received, 3_000_000);
    assert_eq!(world.client.app.closed, [Closed::Orderly]);
    world.assert_all_is_back();
    assert_eq!(world.client.stack.metrics().get(Counter::Retransmissions), 0);
}

#[test]
fn the_same_goes_over_ipv6() {
    let address = |last| Address::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let client = Client { at: Some(SocketAddr::new(address(2).into(), 80)), ..Client::new(20, 20_000) };
    let mut world = World::with(client, Echo::default(), |_| {}, address(1), address(2));
    world.run(Duration::from_secs(5));
    assert_eq!(world.client.app.received, 20 * 20_000);
    world.assert_all_is_back();
}

#[test]
fn a_closed_port_refuses() {
    let client = Client { at: Some(SocketAddr::new(SERVER.into(), 81)), ..Client::new(3, 0) };
    let mut world = World::new(client, Echo::default());
    world.run(Duration::from_secs(1));
    assert_eq!(world.client.app.closed, vec![Closed::Refused; 3]);
    world.assert_all_is_back();
}

#[test]
fn nobody_at_the_address_is_unreachable() {
    let client = Client { at: Some("10.0.0.77:80".parse().unwrap()), ..Client::new(2, 0) };
    let mut world = World::new(client, Echo::default());
    world.run(Duration::from_secs(30));
    assert_eq!(world.client.app.closed, vec![Closed::Unreachable; 2]);
    world.assert_all_is_back();
}

/// Sends a little every few seconds, so many times.
struct Ticker {
    left: u32,
}

impl App for Ticker {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        cx.connect(SocketAddr::new(SERVER.into(), 80)).unwrap();
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.set_timer(conn, Duration::from_secs(7));
    }
    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.write(conn, b"tick");
        self.left -= 1;
        match self.left {
            0 => cx.shutdown(conn),
            _ => cx.set_timer(conn, Duration::from_secs(7)),
        }
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.recv(conn).is_some() {}
    }
}

#[test]
fn a_neighbour_that_answers_connections_is_not_asked_whether_it_is_there() {
    let mut world = World::new(Ticker { left: 40 }, Echo::default());
    world.run(Duration::from_secs(300));
    let asked = |stack: &Stack| stack.metrics().get(Counter::NeighbourSolicitations);
    assert_eq!((asked(&world.client.stack), asked(&world.server.stack)), (1, 0), "only who was not known");
    assert_eq!((world.client.app.left, world.server.app.closed.len()), (0, 1));
    world.assert_all_is_back();
}

/// Opens connections and sets a timer on each; counts those that went off.
#[derive(Default)]
struct Alarms {
    connections: u32,
    rang: u32,
}

impl App for Alarms {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.connections {
            cx.connect(SocketAddr::new(SERVER.into(), 80)).unwrap();
        }
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.set_timer(conn, Duration::from_secs(5));
    }
    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.rang += 1;
        cx.close(conn);
    }
}

#[test]
fn deadlines_that_fall_together_are_spread_over_turns() {
    let mut world = World::new(Alarms { connections: 3_000, ..Alarms::default() }, Echo::default());
    world.run(Duration::from_secs(1));
    assert_eq!(world.client.stack.connections(), 3_000);
    world.now += Duration::from_secs(10);
    let mut turns = Vec::new();
    while turns.last() != Some(&3_000) {
        assert!(world.client.stack.next_deadline().is_some_and(|at| at <= world.now), "there is work left");
        world.client.turn(world.now);
        turns.push(world.client.app.rang);
    }
    assert_eq!(turns, [1_024, 2_048, 3_000]);
    world.run(Duration::from_secs(1));
    world.assert_all_is_back();
}

#[test]
fn the_trace_tells_a_connection_from_its_first_segment_to_its_end() {
    use crate::trace::TraceKind::{Ended, Received, Sent};
    let mut world = World::new(Client::new(2, 10), Echo::default());
    world.client.stack.trace_all(true);
    world.run(Duration::from_millis(500));
    let first = world.client.stack.trace().iter().next().unwrap().conn;
    let kinds: Vec<_> = world.client.stack.trace().iter().filter(|r| r.conn == first).map(|r| r.kind).collect();
    // SYN; SYN-ACK; ACK, data and FIN; the echo and its FIN; the last ACK, from which on TIME-WAIT goes on alone.
    assert_eq!(kinds, [Sent, Received, Sent, Received, Ended, Sent]);
    assert!(world.server.stack.trace().iter().next().is_none());
}

#[test]
fn an_mtu_that_the_device_does_not_carry_is_refused() {
    let (wire, _other) = wire::pair(wire::Config::default());
    for (mtu, good) in [(0, true), (576, true), (1500, true), (1501, false), (100, false)] {
        let mut config = Config::default();
        config.ip.addresses = vec![OwnAddress { address: CLIENT, prefix_len: 24 }];
        config.ip.mtu = mtu;
        let stack = Stack::new(config, wire.pool().clone(), wire.caps(), &Entropy([7; 64]));
        assert_eq!(stack.is_ok(), good, "{mtu}");
    }
}
