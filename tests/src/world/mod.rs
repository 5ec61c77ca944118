//! A world: any number of stacks in virtual time, with links that do what links do, and nothing that is not repeated by the same
//! seed. It is checked at every step; what does not hold is a panic, and whoever runs a seed says how to run it again.
//!
//! | file | its one job |
//! | --- | --- |
//! | `random` | everything by chance |
//! | `link` | a switch, and to each host a link that loses, delays, turns over, repeats, damages |
//! | `nic` | a host's card: frames that are being sent are its own for a while |
//! | `host` | a stack, an application, a card; comes up, takes its turns, crashes; frames and counters add up |
//! | `apps` | what applications do, and the ledger of who sent which bytes and who read them |
//! | `packet` | reads segments with code that shares nothing with the stack's |
//! | `observer` | what RFC 9293 lets a host send next |
//! | `record` | pcapng |
//! | `mix` | a world out of a seed |

pub mod apps;
pub mod host;
pub mod link;
pub mod mix;
pub mod nic;
pub mod observer;
pub mod packet;
pub mod random;
pub mod record;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use handfast::time::{Duration, Instant};
use handfast::{Closed, Cx};

use self::apps::{Book, Ledger, Peer, Plan, Side};
use self::host::{Host, HostConfig};
use self::link::{Accidents, At, Link, Network};
use self::observer::Observer;
use self::packet::{Packet, Segment};
use self::random::Random;
use self::record::Recorder;

/// What a test does with a packet on its way up from a host, before chance does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Lets it go on.
    Pass,
    /// It is lost.
    Lose,
    /// It comes twice, the second time so much later.
    Twice(Duration),
    /// It comes so much later than the others.
    Late(Duration),
    /// Bits of it are flipped.
    Damage,
}

/// Decides about every TCP segment that is sent; the number counts them from 0.
pub type Filter = Box<dyn FnMut(u64, &Segment) -> Fate>;

/// Something that happens at its time.
pub type Event = Box<dyn FnOnce(&mut World)>;

/// A world.
pub struct World {
    /// What time it is.
    pub now: Instant,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The links.
    pub network: Network,
    /// All planned connections.
    pub book: Book,
    /// What the links have shown.
    pub observer: Observer,
    /// Decides about segments.
    pub filter: Option<Filter>,
    /// Every TCP segment that was sent, while [`keeps_log`](Self::keeps_log).
    pub log: Vec<(Instant, Segment)>,
    /// Keep the log.
    pub keeps_log: bool,
    /// What the switch passes on, in bytes of IP: larger packets are dropped, and their senders told.
    pub narrow: Option<u16>,
    events: BTreeMap<(Instant, u64), Event>,
    numbered: u64,
    segments: u64,
    turns: u64,
    crashes: u64,
    random: Random,
    recorder: Option<Recorder>,
}

impl World {
    /// A world without hosts. The same seed has the same accidents.
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        World {
            now: START,
            hosts: Vec::new(),
            network: Network::new(random.fork()),
            book: Rc::new(RefCell::new(Ledger::default())),
            observer: Observer::default(),
            filter: None,
            log: Vec::new(),
            keeps_log: false,
            narrow: None,
            events: BTreeMap::new(),
            numbered: 0,
            segments: 0,
            turns: 0,
            crashes: 0,
            random,
            recorder: None,
        }
    }

    /// Records all that passes from now on. Call it before hosts join.
    pub fn record(&mut self, path: &Path) {
        self.recorder = Some(Recorder::create(path));
    }

    /// A host joins by its link and comes up; its number.
    pub fn join(&mut self, config: HostConfig, up: Link, down: Link) -> usize {
        let number = self.hosts.len();
        if let Some(recorder) = &mut self.recorder {
            recorder.interface(&format!("host{number}"));
        }
        self.network.join(up, down);
        self.hosts.push(Host::new(number, config));
        self.boot(number);
        number
    }

    /// A host comes up.
    pub fn boot(&mut self, host: usize) {
        self.hosts[host].boot(self.now, &self.book);
    }

    /// A host loses its power and forgets everything.
    pub fn crash(&mut self, host: usize) {
        self.crashes += 1;
        self.hosts[host].crash();
        for address in &self.hosts[host].config.addresses {
            self.observer.forget(*address);
        }
    }

    /// Has something happen at a time.
    pub fn at(&mut self, at: Instant, event: impl FnOnce(&mut World) + 'static) {
        self.numbered += 1;
        self.events.insert((at, self.numbered), Box::new(event));
    }

    /// Has a host's application do something now.
    pub fn act(&mut self, host: usize, act: impl FnOnce(&mut Cx<'_>, &mut Peer) + 'static) {
        self.hosts[host].act(Box::new(act));
    }

    /// Has a host's application do something now, and waits for what comes of it.
    pub fn with<R: 'static>(&mut self, host: usize, act: impl FnOnce(&mut Cx<'_>, &mut Peer) -> R + 'static) -> R {
        let result = Rc::new(RefCell::new(None));
        let cell = result.clone();
        self.act(host, move |cx, peer| *cell.borrow_mut() = Some(act(cx, peer)));
        let done = self.run_until(Duration::from_secs(1), |_| result.borrow().is_some());
        assert!(done, "a host that is up has its turn");
        result.take().expect("it is there")
    }

    /// Plans a connection and has `host` begin it now; its number in the ledger.
    pub fn connect(&mut self, host: usize, to: SocketAddr, client: Plan, server: Plan) -> usize {
        let pair = self.book.borrow_mut().plan(client, server);
        self.act(host, move |cx, peer| {
            peer.connect(cx, pair, to);
        });
        pair
    }

    /// Puts a packet on the link to a host, as if it came from the network.
    pub fn inject(&mut self, host: usize, bytes: Vec<u8>) {
        self.network.arrive(self.now, At::Host(host), bytes.into(), false);
    }

    /// Puts a segment on the link to the host whose address it is for; `seen` if it is one that a host of this world once sent.
    pub fn inject_segment(&mut self, segment: &Segment, text: &[u8]) {
        let to = self.host_of(segment.to.ip()).expect("a host with that address");
        let from = self.host_of(segment.from.ip()).map_or([2, 0, 0, 0, 9, 9], |from| self.hosts[from].mac);
        let bytes = packet::write((from, self.hosts[to].mac), segment, text);
        self.inject(to, bytes);
    }

    /// The host that has an address.
    pub fn host_of(&self, address: std::net::IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.config.addresses.contains(&address))
    }

    /// Runs until `done`, or for `span`; whether it is done.
    pub fn run_until(&mut self, span: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + span;
        loop {
            if done(self) {
                return true;
            }
            match self.next_at().filter(|at| *at <= end) {
                Some(at) => self.step(at),
                None => {
                    self.now = end;
                    return done(self);
                }
            }
        }
    }

    /// Runs for a time.
    pub fn run(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// Runs until nothing is left anywhere, and holds what was done against the ledger. Panics if it takes longer than `limit`.
    pub fn finish(&mut self, limit: Duration) {
        let quiet = |world: &World| {
            world.events.is_empty()
                && world.network.underway() == 0
                && world.hosts.iter().all(|host| !host.has_acts() && host.left() == Default::default())
        };
        let done = self.run_until(limit, quiet);
        let left: Vec<_> = self.hosts.iter().map(Host::left).collect();
        assert!(done, "something is left after {} s: {left:?}, {:#?}", limit.as_secs_f64(), self.unfinished());
        for host in &self.hosts {
            let mut sent = observer::Sent::default();
            for address in &host.config.addresses {
                let of = self.observer.sent(*address);
                sent.resets += of.resets;
                sent.syns += of.syns;
                sent.again += of.again;
            }
            host.agrees(sent).unwrap_or_else(|broken| panic!("{:?}: {broken}", host.config.addresses));
        }
        self.audit();
    }

    fn unfinished(&self) -> Vec<apps::Pair> {
        let open = |side: &Side| side.opened && side.closed.is_none() && !side.aborted && !side.crashed;
        self.book.borrow().pairs.iter().filter(|pair| pair.sides.iter().any(open)).cloned().collect()
    }

    /// Every connection that had no excuse ended as its plans say, with all bytes there.
    fn audit(&self) {
        for (number, pair) in self.book.borrow().pairs.iter().enumerate().filter(|(_, pair)| pair.begun.is_some()) {
            let [client, server] = &pair.sides;
            for (me, peer) in [(client, server), (server, client)] {
                let told = || format!("connection {number}: {pair:#?}");
                assert!(me.received <= peer.sent, "more was read than sent: {}", told());
                let over = me.closed.is_some() || me.aborted || me.crashed || !me.opened;
                assert!(over, "nobody was told of the end: {}", told());
                if me.peer_closed && !pair.excused {
                    assert!(me.received == peer.sent && peer.finished, "an end that is none: {}", told());
                }
                let unruly = me.plan.ends.is_unruly() || peer.plan.ends.is_unruly();
                // Who asks for a neighbour asks three times.
                let accidents = self.network.accidents != Accidents::default() || self.crashes > 0;
                let unreachable = client.closed == Some(Closed::Unreachable) && accidents;
                if pair.excused || unruly || unreachable {
                    continue;
                }
                assert!(me.opened, "it was not opened: {}", told());
                // Whose last acknowledgment was lost for longer than 2·MSL hears a reset, or nothing.
                let all = me.received == peer.sent && me.finished && peer.finished && peer.received == me.sent;
                assert!(all, "bytes are missing: {}", told());
                let orderly = me.closed == Some(Closed::Orderly);
                let last = matches!(me.closed, Some(Closed::Reset | Closed::TimedOut));
                assert!(orderly || last && peer.closed == Some(Closed::Orderly), "no orderly end: {}", told());
            }
        }
    }

    /// When something happens next.
    pub fn next_at(&self) -> Option<Instant> {
        let hosts = self.hosts.iter().filter_map(|host| host.next_at(self.now));
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        hosts.chain(event).chain(self.network.next_at()).min()
    }

    fn step(&mut self, at: Instant) {
        self.now = self.now.max(at);
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "it goes on for ever: {:#?}", self.unfinished());
        while let Some(event) = self.events.first_entry().filter(|event| event.key().0 <= self.now) {
            event.remove()(self);
        }
        while let Some(packet) = self.network.arrived(self.now) {
            match packet.place {
                At::Switch(from) => self.switch(from, packet.bytes, packet.damaged),
                At::Host(to) => self.deliver(to, &packet.bytes, packet.damaged),
            }
        }
        for number in 0..self.hosts.len() {
            self.hosts[number].turn(self.now);
            for bytes in self.hosts[number].sent(self.now) {
                self.send(number, bytes);
            }
        }
    }

    /// A host's card has sent a packet.
    fn send(&mut self, from: usize, bytes: Rc<[u8]>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.packet(self.now, from, true, &bytes);
        }
        let place = At::Switch(from);
        match packet::read(&bytes).unwrap_or_else(|broken| panic!("host {from} sends what is broken: {broken}")) {
            Packet::Other => self.network.carry(self.now, place, bytes, false),
            Packet::Tcp(segment) => {
                // What goes to nobody here answers what nobody here has sent.
                match self.host_of(segment.to.ip()) {
                    Some(_) => self.observer.sends(self.now, &segment),
                    None => self.observer.answers(&segment),
                }
                .unwrap_or_else(|broken| panic!("{broken}: {segment:?}"));
                self.book.borrow_mut().saw(&segment);
                let number = self.segments;
                self.segments += 1;
                let fate = self.filter.as_mut().map_or(Fate::Pass, |filter| filter(number, &segment));
                if self.keeps_log {
                    self.log.push((self.now, segment));
                }
                match fate {
                    Fate::Pass => self.network.carry(self.now, place, bytes, false),
                    Fate::Lose => {}
                    Fate::Twice(later) => {
                        self.network.carry(self.now, place, bytes.clone(), false);
                        self.network.arrive(self.now + later, place, bytes, false);
                    }
                    Fate::Late(later) => self.network.arrive(self.now + later, place, bytes, false),
                    Fate::Damage => {
                        let bits = packet::checksummed(&bytes).expect("a TCP segment has a checksum");
                        let bytes = link::flip(&bytes, bits, &mut self.random);
                        self.network.carry(self.now, place, bytes, true);
                    }
                }
            }
        }
    }

    /// The switch passes a packet on: to the host with that address, or to all.
    fn switch(&mut self, from: usize, bytes: Rc<[u8]>, damaged: bool) {
        if let Some(mtu) = self.narrow.filter(|mtu| bytes.len() > 14 + usize::from(*mtu)) {
            self.network.accidents.too_big += 1;
            // Who cannot read a packet cannot say so.
            if !damaged {
                let answer = packet::too_big([2, 0, 0, 0, 9, 9], &bytes, mtu);
                self.network.carry(self.now, At::Host(from), answer.into(), false);
            }
            return;
        }
        for to in 0..self.hosts.len() {
            let for_it = bytes[0] & 1 == 1 || bytes[..6] == self.hosts[to].mac;
            if to != from && for_it {
                self.network.carry(self.now, At::Host(to), bytes.clone(), damaged);
            }
        }
    }

    /// A packet reaches a host.
    fn deliver(&mut self, to: usize, bytes: &[u8], damaged: bool) {
        if let Some(recorder) = &mut self.recorder {
            recorder.packet(self.now, to, false, bytes);
        }
        if self.hosts[to].deliver(bytes, damaged)
            && !damaged
            && let Ok(Packet::Tcp(segment)) = packet::read(bytes)
        {
            self.observer.reaches(self.now, &segment);
        }
    }

    /// TCP segments sent so far.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Steps taken so far.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Excuses every connection of a host that is not over: it crashes.
    pub fn excuse(&mut self, host: usize) {
        let addresses = &self.hosts[host].config.addresses;
        for pair in &mut self.book.borrow_mut().pairs {
            let concerns = pair.ends.is_some_and(|ends| ends.iter().any(|end| addresses.contains(&end.ip())));
            let over = pair.sides.iter().all(|side| side.closed.is_some() || side.aborted);
            pair.excused |= concerns && !over;
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World of {} hosts at {:?}", self.hosts.len(), self.now)
    }
}

/// The time at which every world begins.
pub const START: Instant = Instant::from_micros(1_000_000);
const TURNS_MAX: u64 = 20_000_000;
