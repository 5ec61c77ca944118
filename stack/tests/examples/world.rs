//! Two stacks at the ends of an in-memory wire, in simulated time.

use handfast::app::App;
use handfast::config::Config;
use handfast::ip::routes::OwnAddress;
use handfast::metrics::{Counter, DropReason};
use handfast::stack::{Entropy, Stack};
use handfast::time::{Duration, Instant};
use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use handfast_drivers::frame::Census;
use handfast_drivers::wire::{self, WireDriver};

/// The address of the first end, which is the server's.
pub(crate) const SERVER: [u8; 4] = [192, 0, 2, 1];
/// The address of the second end.
pub(crate) const CLIENT: [u8; 4] = [192, 0, 2, 2];

pub(crate) struct World<A, B> {
    pub(crate) server: End<A>,
    pub(crate) client: End<B>,
    pub(crate) now: Instant,
}

pub(crate) struct End<A> {
    pub(crate) app: A,
    pub(crate) stack: Stack,
    driver: WireDriver,
    tx: TxBurst,
}

impl<A: App, B: App> World<A, B> {
    pub(crate) fn new(server: A, client: B, configure: impl Fn(&mut Config)) -> World<A, B> {
        let (a, b) = wire::pair(wire::Config { frames_per_queue: 16_384, ..wire::Config::default() });
        let now = Instant::from_micros(1_000_000);
        let config = |address| {
            let mut config = Config::default();
            config.limits.conns_max = 4_096;
            config.limits.time_wait_max = 8_192;
            configure(&mut config);
            config.ip.addresses = vec![OwnAddress { address: std::net::IpAddr::from(address).into(), prefix_len: 24 }];
            config
        };
        let server = End::new(server, a, config(SERVER), now);
        World { server, client: End::new(client, b, config(CLIENT), now), now }
    }

    /// Lets time pass until `done`. When nothing is on its way, time jumps to the next deadline. Panics after `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not done after {limit:?}");
            let moved = self.server.turn(self.now) | self.client.turn(self.now);
            let soon = self.now + Duration::from_micros(50);
            let deadlines = [self.server.stack.next_deadline(), self.client.stack.next_deadline()];
            self.now = match (moved, deadlines.into_iter().flatten().min()) {
                (false, Some(at)) => at.max(soon).min(end),
                _ => soon,
            };
        }
    }

    /// Lets everything end, TIME-WAIT included. Then no connection is left and every frame is in its pool or posted.
    pub(crate) fn finish(mut self) -> (A, B) {
        self.run_until(Duration::from_secs(400), |world| {
            let is_over = |stack: &Stack| stack.connections() + stack.half_open() + stack.time_waits() == 0;
            is_over(&world.server.stack) && is_over(&world.client.stack)
        });
        let World { server, client, .. } = self;
        let pools = [server.stack.pool().clone(), client.stack.pool().clone()];
        let (server, client) = (server.finish(), client.finish());
        for (pool, is_last) in pools.into_iter().zip([false, true]) {
            // What the end that went first had posted, and nobody had filled, stays so.
            let receiving = if is_last { 0 } else { pool.census().receiving };
            let free = pool.capacity() as u32 - receiving;
            assert_eq!(pool.census(), Census { free, receiving, ..Census::default() }, "every frame is home");
        }
        (server, client)
    }
}

impl<A: App> End<A> {
    fn new(mut app: A, driver: WireDriver, config: Config, now: Instant) -> End<A> {
        let entropy = Entropy(std::array::from_fn(|i| i as u8));
        let mut stack =
            Stack::new(config, driver.pool().clone(), driver.caps(), &entropy).expect("the configuration is valid");
        stack.start(now, &mut app);
        End { app, stack, driver, tx: TxBurst::new() }
    }

    /// `true` if anything came or went.
    fn turn(&mut self, now: Instant) -> bool {
        let mut rx = RxBurst::new();
        // Even if what the wire did not take yet leaves no room for answers: two ends that wait for each other would wait for ever.
        self.driver.tx_burst(&mut self.tx);
        self.driver.rx_burst(&mut rx);
        let mut moved = !rx.is_empty() || !self.tx.is_empty();
        self.stack.turn(now, &mut rx, &mut self.tx, &mut self.app);
        loop {
            moved |= !self.tx.is_empty();
            self.driver.tx_burst(&mut self.tx);
            if !self.tx.is_empty() || self.stack.output(&mut self.tx) {
                break;
            }
        }
        self.driver.tx_burst(&mut self.tx);
        self.driver.flush();
        moved
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.stack.metrics().get(counter)
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.stack.metrics().drops(reason)
    }

    /// Puts down the stack and the device.
    fn finish(self) -> A {
        assert!(self.tx.is_empty(), "nothing waits to be sent");
        self.app
    }
}
