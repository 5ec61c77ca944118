//! A host: a stack, its application and its card, driven as the runtime's worker drives them, and checked after every turn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use handfast::config::Config;
use handfast::ip::routes::OwnAddress;
use handfast::metrics::{Counter, DropReason};
use handfast::stack::{Entropy, Left, Stack};
use handfast::time::{Duration, Instant};
use handfast::wire::address::Address;
use handfast_drivers::burst::{RxBurst, TxBurst};

use super::apps::{Act, Book, Peer};
use super::nic::{Nic, NicConfig};
use super::observer::Sent;

/// How a host is made, each time that it comes up.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Its addresses. The first of a family is used to connect from.
    pub addresses: Vec<IpAddr>,
    /// Its card.
    pub nic: NicConfig,
    /// Its stack. Addresses are set from the above.
    pub stack: Config,
    /// At least so long between two looks at the card, in microseconds: what came in between is one burst.
    pub poll_us: u64,
    /// Its secrets, which stay the same when it comes up again.
    pub entropy: [u8; 64],
}

impl HostConfig {
    /// The host 10.0.0.`last` and fd00::`last`, with the defaults of everything.
    pub fn plain(last: u8) -> HostConfig {
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()));
        let mut stack = Config::default();
        // Each core has memory for a million of TIME-WAITs, and a world has many cores.
        stack.limits.conns_max = 1024;
        stack.limits.syn_rcvd_max = 1024;
        stack.limits.time_wait_max = 4096;
        HostConfig { addresses: vec![v4, v6], nic: NicConfig::default(), stack, poll_us: 1, entropy: [last; 64] }
    }
}

/// What a running host is.
#[derive(Debug)]
struct Running {
    nic: Nic,
    stack: Stack,
    app: Peer,
    rx: RxBurst,
    tx: TxBurst,
    answers: TxBurst,
    /// Output was not done when the card's queue was full.
    owed: bool,
}

/// A host, up or down.
#[derive(Debug)]
pub struct Host {
    /// How it is made.
    pub config: HostConfig,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    running: Option<Running>,
    /// It looks at its card from then on.
    ready_at: Instant,
    /// Something is to be done that no deadline tells of.
    prodded: bool,
}

impl Host {
    /// A host that is down.
    pub fn new(number: usize, config: HostConfig) -> Host {
        let mac = [2, 0, 0, 0, 1, number as u8];
        Host { config, mac, running: None, ready_at: Instant::ZERO, prodded: false }
    }

    /// Comes up.
    pub fn boot(&mut self, now: Instant, book: &Book) {
        let nic = Nic::new(self.mac, self.config.nic);
        let mut config = self.config.stack.clone();
        let own = |&address: &IpAddr| OwnAddress {
            address: Address::from(address),
            prefix_len: if address.is_ipv4() { 24 } else { 64 },
        };
        config.ip.addresses = self.config.addresses.iter().map(own).collect();
        let stack = Stack::new(config, nic.pool().clone(), nic.caps(), &Entropy(self.config.entropy));
        let mut stack = stack.unwrap_or_else(|error| panic!("a configuration that cannot be: {error}"));
        let mut app = Peer::new(book.clone());
        stack.start(now, &mut app);
        let (rx, tx, answers) = (RxBurst::new(), TxBurst::new(), TxBurst::new());
        self.running = Some(Running { nic, stack, app, rx, tx, answers, owed: false });
        (self.ready_at, self.prodded) = (now, true);
    }

    /// Loses its power: everything is forgotten. Every frame must come home even so.
    pub fn crash(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.app.crashed();
        let pool = running.nic.pool().clone();
        drop(running);
        let home = (pool.free(), pool.census().free as usize);
        assert_eq!(home, (pool.capacity(), pool.capacity()), "a frame outlives its host: {:?}", pool.census());
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    fn up(&self) -> &Running {
        self.running.as_ref().expect("the host is up")
    }

    /// Its stack. Panics if the host is down.
    pub fn stack(&self) -> &Stack {
        &self.up().stack
    }

    /// Its application. Panics if the host is down.
    pub fn app(&self) -> &Peer {
        &self.up().app
    }

    /// Its application, to set up. Panics if the host is down.
    pub fn app_mut(&mut self) -> &mut Peer {
        &mut self.running.as_mut().expect("the host is up").app
    }

    /// Its card. Panics if the host is down.
    pub fn nic(&self) -> &Nic {
        &self.up().nic
    }

    /// A counter of its stack, 0 if it is down.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.running.as_ref().map_or(0, |up| up.stack.metrics().get(counter))
    }

    /// What is left of its connections. Frames and packets that are still being sent count as frames.
    pub fn left(&self) -> Left {
        let Some(up) = &self.running else { return Left::default() };
        let mut left = up.stack.left();
        left.frames += up.nic.sending() + up.tx.len() + up.answers.len();
        left
    }

    /// Has its application do something in its next turn.
    pub fn act(&mut self, act: Act) {
        if let Some(up) = &mut self.running {
            up.app.acts.push(act);
            self.prodded = true;
        }
    }

    /// Its application has something to do in its next turn.
    pub fn has_acts(&self) -> bool {
        self.running.as_ref().is_some_and(|up| !up.app.acts.is_empty())
    }

    /// A packet comes by its link.
    pub fn deliver(&mut self, bytes: &[u8], damaged: bool) -> bool {
        self.running.as_mut().is_some_and(|up| up.nic.deliver(bytes, damaged))
    }

    /// When it has something to do.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let up = self.running.as_ref()?;
        let at_once = self.prodded || up.nic.has_arrivals() || (up.owed && up.tx.is_empty());
        let wants = [at_once.then_some(now), up.stack.next_deadline()];
        let turn = wants.into_iter().flatten().min().map(|at| at.max(self.ready_at).max(now));
        [turn, up.nic.next_at()].into_iter().flatten().min()
    }

    /// What its card has sent by now.
    pub fn sent(&mut self, now: Instant) -> Vec<Rc<[u8]>> {
        let Some(up) = &mut self.running else { return Vec::new() };
        let sent = up.nic.sent(now);
        let waits = up.owed || !up.tx.is_empty() || !up.answers.is_empty();
        self.prodded |= waits && !sent.is_empty(); // the card has room again
        sent
    }

    /// One turn of the core's loop, if it is time for one, as the runtime's worker does it.
    pub fn turn(&mut self, now: Instant) {
        let Some(up) = &mut self.running else { return };
        let wants = self.prodded
            || up.nic.has_arrivals()
            || up.stack.next_deadline().is_some_and(|at| at <= now)
            || (up.owed && up.tx.is_empty());
        if !wants || now < self.ready_at {
            return;
        }
        self.prodded = false;
        // Time passes while it works, else a deadline that is due at once would be due for ever.
        self.ready_at = now + Duration::from_micros(self.config.poll_us.max(1));
        up.turn(now);
        if let Err(broken) = up.check() {
            panic!("{:?}: {broken}", self.config.addresses);
        }
    }

    /// Whether its counters agree with what its link carried.
    pub fn agrees(&self, sent: Sent) -> Result<(), String> {
        let Some(up) = &self.running else { return Ok(()) };
        let metrics = up.stack.metrics();
        let waiting: u64 = (up.tx.len() + up.answers.len()) as u64;
        let quiet = waiting == 0 && up.nic.sending() == 0;
        for (counter, seen, always) in [
            (Counter::PacketsSent, up.nic.taken + waiting, true),
            (Counter::PacketsReceived, up.nic.given, true),
            (Counter::BytesReceived, up.nic.given_bytes, true),
            (Counter::BytesSent, up.nic.taken_bytes, waiting == 0),
            (Counter::ResetsSent, sent.resets, quiet),
        ] {
            if always && metrics.get(counter) != seen {
                let all: String = metrics.iter().map(|(name, n)| format!("{name} {n} ")).collect();
                return Err(format!("{} is {} and the link saw {seen}: {all}", counter.name(), metrics.get(counter)));
            }
        }
        Ok(())
    }
}

impl Running {
    fn turn(&mut self, now: Instant) {
        let damage = self.damage_found();
        let damaged = self.nic.rx_burst(&mut self.rx);
        match self.tx.is_empty() && self.answers.is_empty() {
            true => self.stack.turn(now, &mut self.rx, &mut self.tx, &mut self.app),
            false => self.stack.take_in(now, &mut self.rx, &mut self.answers, &mut self.app),
        }
        self.owed = true;
        loop {
            self.nic.tx_burst(now, &mut self.tx);
            if self.tx.is_empty() {
                self.nic.tx_burst(now, &mut self.answers);
            }
            if !self.owed || !self.tx.is_empty() || !self.answers.is_empty() {
                break;
            }
            self.owed = !self.stack.output(&mut self.tx);
            if self.tx.is_empty() {
                break;
            }
        }
        let found = self.damage_found() - damage;
        let drops = || self.stack.metrics().iter().map(|(name, n)| format!("{name} {n} ")).collect::<String>();
        assert!(found == damaged, "of {damaged} damaged packets {found} were found: {}", drops());
    }

    /// Packets that were dropped because they make no sense.
    fn damage_found(&self) -> u64 {
        DAMAGE.iter().map(|&reason| self.stack.metrics().drops(reason)).sum()
    }

    fn check(&self) -> Result<(), String> {
        self.stack.check()?;
        let pool = self.nic.pool();
        let census = pool.census();
        let left = self.stack.left();
        let sending = self.nic.sending() + self.tx.len() + self.answers.len();
        let whole = (census.free as usize == pool.free())
            && census.owned as usize == left.frames
            && census.sending as usize == sending
            && census.receiving <= self.nic.posted_max()
            && census.moving == 0;
        match whole {
            true => Ok(()),
            false => Err(format!("frames: {census:?}, but queues have {} and the card {sending}", left.frames)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tx.cancel();
        self.answers.cancel();
    }
}

/// What a damaged packet may be dropped for.
const DAMAGE: [DropReason; 10] = [
    DropReason::Truncated,
    DropReason::IpHeader,
    DropReason::IpChecksum,
    DropReason::Fragment,
    DropReason::ExtensionHeader,
    DropReason::BadSource,
    DropReason::TcpMalformed,
    DropReason::TcpChecksum,
    DropReason::IcmpMalformed,
    DropReason::NdpInvalid,
];
