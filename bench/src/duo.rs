//! Both ends of an in-memory wire on one thread, in time that the caller chooses: the body of most benchmarks.

use std::hint::black_box;
use std::net::SocketAddr;

use handfast::app::{App, Closed, ConnId, Cx};
use handfast::config::Config;
use handfast::ip::routes::OwnAddress;
use handfast::stack::{Entropy, Stack};
use handfast::time::{Duration, Instant};
use handfast::wire::address::Address;
use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use handfast_drivers::wire::{self, WireDriver};

/// One end: a stack on its driver, and an application.
pub struct End<D, A> {
    driver: D,
    /// The stack.
    pub stack: Stack,
    /// The application.
    pub app: A,
    rx: RxBurst,
    tx: TxBurst,
    /// What answers arriving segments while `tx` waits for the device.
    answers: TxBurst,
}

impl<D: Driver, A: App> End<D, A> {
    /// An end with this address.
    pub fn new(driver: D, config: Config, app: A) -> End<D, A> {
        let stack = Stack::new(config, driver.pool().clone(), driver.caps(), &Entropy([42; 64]))
            .expect("the configuration is one of ours");
        End { driver, stack, app, rx: RxBurst::new(), tx: TxBurst::new(), answers: TxBurst::new() }
    }

    /// One turn of the core's loop, as the runtime's worker does it but for never waiting to receive; how many frames moved.
    pub fn turn(&mut self, now: Instant) -> usize {
        self.driver.rx_burst(&mut self.rx);
        let mut moved = self.rx.len();
        // While the device takes nothing only answers are sent: if both ends waited for each other, they would wait for ever.
        match self.tx.is_empty() && self.answers.is_empty() {
            true => self.stack.turn(now, &mut self.rx, &mut self.tx, &mut self.app),
            false => self.stack.take_in(now, &mut self.rx, &mut self.answers, &mut self.app),
        }
        let mut owed = true;
        loop {
            let waiting = self.tx.len() + self.answers.len();
            self.driver.tx_burst(&mut self.tx);
            if self.tx.is_empty() {
                self.driver.tx_burst(&mut self.answers);
            }
            let left = self.tx.len() + self.answers.len();
            moved += waiting - left;
            if !owed || left > 0 {
                break;
            }
            owed = !self.stack.output(&mut self.tx);
            if self.tx.is_empty() {
                break;
            }
        }
        self.driver.flush();
        moved
    }
}

/// A client and a server on one wire.
pub struct Duo<C, S> {
    /// The client's end.
    pub client: End<WireDriver, C>,
    /// The server's end.
    pub server: End<WireDriver, S>,
    /// The time of both.
    pub now: Instant,
}

impl<C: App, S: App> Duo<C, S> {
    /// A client at 10.0.0.1 and a server at 10.0.0.2 that listens on `ports`.
    pub fn new(wire: wire::Config, config: &Config, ports: &[u16], client: C, server: S) -> Duo<C, S> {
        let (wire_a, wire_b) = wire::pair(wire);
        let mut config_a = config.clone();
        config_a.ip.addresses = vec![own_address(1)];
        let mut config_b = config.clone();
        config_b.ip.addresses = vec![own_address(2)];
        config_b.listen = ports.to_vec();
        let mut duo = Duo {
            client: End::new(wire_a, config_a, client),
            server: End::new(wire_b, config_b, server),
            now: Instant::from_micros(1_000_000),
        };
        duo.start();
        duo
    }

    /// Tells the client's application that it starts, once more: it may have got something new to do.
    pub fn start(&mut self) {
        self.client.stack.start(self.now, &mut self.client.app);
    }

    /// Both ends once; then `step` passes. How many frames moved.
    pub fn turn(&mut self, step: Duration) -> usize {
        let moved = self.client.turn(self.now) + self.server.turn(self.now);
        self.now += step;
        moved
    }
}

/// Host `last` of the wire's network.
pub fn own_address(last: u8) -> OwnAddress {
    OwnAddress { address: Address::v4([10, 0, 0, last]), prefix_len: 24 }
}

/// Keeps so many connections going: opens one, closes it when it is open, and begins the next when it is over.
#[derive(Default)]
pub struct OpenClose {
    /// How many at once.
    pub concurrency: u32,
    /// Ports of the server, used in turn.
    pub ports: Vec<u16>,
    /// Whose turn it is.
    pub next_port: usize,
    /// How many were begun.
    pub begun: u64,
    /// How many to begin at most.
    pub begin_max: u64,
    /// How many ended orderly.
    pub done: u64,
    /// How many ended otherwise.
    pub failed: u64,
}

impl OpenClose {
    fn begin(&mut self, cx: &mut Cx<'_>) {
        if self.begun == self.begin_max {
            return;
        }
        let Some(&port) = self.ports.get(self.next_port) else { return };
        match cx.connect(SocketAddr::from(([10, 0, 0, 2], port))) {
            Ok(_) => {
                self.begun += 1;
                self.next_port = if self.next_port + 1 < self.ports.len() { self.next_port + 1 } else { 0 };
            }
            Err(_) => self.failed += 1,
        }
    }
}

impl App for OpenClose {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.concurrency {
            self.begin(cx);
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.close(conn);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, _: ConnId, how: Closed) {
        match how {
            Closed::Orderly => self.done += 1,
            _ => self.failed += 1,
        }
        self.begin(cx);
    }
}

/// Opens so many connections whenever it starts, and aborts them when it is told to.
#[derive(Default)]
pub struct OpenAbort {
    /// How many at once.
    pub at_once: u32,
    /// Those that are open.
    pub open: Vec<ConnId>,
    /// They are to be aborted.
    pub aborts: bool,
}

impl App for OpenAbort {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.at_once {
            cx.connect(([10, 0, 0, 2], 80).into()).expect("there is room");
        }
    }

    fn on_connect(&mut self, _: &mut Cx<'_>, conn: ConnId) {
        self.open.push(conn);
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        if self.aborts {
            self.open.drain(..).for_each(|conn| cx.abort(conn));
        }
    }
}

impl<S: App> Duo<OpenAbort, S> {
    /// Opens so many connections as the client is to, and when all are open aborts all.
    pub fn open_and_abort(&mut self, step: Duration) {
        self.client.app.aborts = false;
        self.start();
        while self.server.stack.connections() < self.client.app.at_once {
            self.turn(step);
        }
        self.client.app.aborts = true;
        while self.server.stack.connections() > 0 {
            self.turn(step);
        }
    }
}

/// Closes when the peer has closed.
#[derive(Default)]
pub struct CloseBack;

impl App for CloseBack {}

/// Takes what comes, and counts it.
#[derive(Default)]
pub struct Sink {
    /// Payload bytes that came.
    pub received: u64,
}

impl App for Sink {
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(frame) = cx.recv(conn) {
            self.received += black_box(&frame[..]).len() as u64;
        }
    }
}
