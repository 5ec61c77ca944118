//! Two stacks whose applications do whatever they may, at any time, over a network that loses, repeats and delays; with small
//! tables, few frames, a device that takes nothing for a while, and a clock that wraps. After each turn the tables agree, whoever
//! has something to do is queued, once, and nobody was called who was not to be; at the end nothing is left.
//!
//! Each seed is a world of its own. A failure names its seed: to run it alone, let `SEEDS` be that one.

extern crate std;

use alloc::collections::BTreeMap;
use core::ops::Range;

use super::*;
use crate::tcp::tcb::Bits;

const SEEDS: Range<u64> = 1..121;

/// What is rare, and must have come about in some world.
const RARE: [Counter; 7] = [
    Counter::ClosedOrderly,
    Counter::TimeWaits,
    Counter::TimeWaitReused,
    Counter::SynCookiesOpened,
    Counter::SynRcvdExpired,
    Counter::TimedOut,
    Counter::Retransmissions,
];

#[test]
fn whatever_applications_do_the_tables_agree_and_nothing_is_left() {
    let mut seen = [0; RARE.len()];
    for seed in SEEDS {
        let Ok(ends) = std::panic::catch_unwind(|| World::new(seed).run()) else { panic!("seed {seed}") };
        for host in ends.map(|end| end.host) {
            seen.iter_mut().zip(RARE).for_each(|(sum, rare)| *sum += host.stack.metrics().get(rare));
        }
    }
    assert!(!seen.contains(&0), "{seen:?} of {RARE:?}");
}

/// Two ends and the network between them.
struct World {
    ends: [End; 2],
    random: Random,
    /// Of 100 packets so many are lost, twice as many come late, and of the others so many come twice.
    loss: u64,
    underway: Vec<(usize, Vec<u8>)>,
    now: Instant,
}

const ROUNDS: u32 = 700;
/// After so many rounds of rest, what is still open is aborted; sometimes at once.
const PATIENCE: u32 = 400;
const ROUNDS_OF_REST: u32 = 4_000;

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let frames_per_queue = if random.one_in(3) { 96 } else { 1_024 };
        let wire = wire::Config { frames_per_queue, ring_len: 64, ..wire::Config::default() };
        // The hosts are ends of different kinds, for their Ethernet addresses to differ.
        let ((host_a, net_a), (net_b, host_b)) = (wire::pair(wire.clone()), wire::pair(wire));
        let mut end = |driver, wire: WireDriver, ours, theirs: Address| {
            let app = Whim::new(Random(random.below(u64::MAX) | 1), SocketAddr::new(theirs.into(), 80));
            let peer = (theirs, Mac(wire.caps().mac));
            let host = Host::new(driver, ours, |config| limit(config, peer, &mut random), app);
            End { host, wire, answers: TxBurst::new() }
        };
        let mut ends = [end(host_a, net_a, CLIENT, SERVER), end(host_b, net_b, SERVER, CLIENT)];
        // The milliseconds wrap in 9 s.
        let now = Instant::from_micros(((1 << 32) - 9_000) * 1_000);
        for End { host, .. } in &mut ends {
            host.stack.listen(None, 80).unwrap();
            host.stack.start(now, &mut host.app);
        }
        let loss = 6 * random.below(3);
        World { ends, random, loss, underway: Vec::new(), now }
    }

    fn run(mut self) -> [End; 2] {
        for _ in 0..ROUNDS {
            self.round();
        }
        self.ends.iter_mut().for_each(|end| end.host.app.is_resting = true);
        for round in 0.. {
            if self.underway.is_empty() && self.ends.iter().all(End::is_clean) {
                break;
            }
            assert!(round < ROUNDS_OF_REST, "{:?}", self.ends.each_ref().map(|end| end.host.stack.left()));
            if round % PATIENCE == 0 && (round > 0 || self.random.one_in(2)) {
                self.ends.iter_mut().for_each(End::abort_all);
            }
            self.round();
            self.now += Duration::from_millis(20);
        }
        let mut known = self.ends.iter().flat_map(|end| end.host.app.known.values());
        assert!(known.all(|stage| *stage == Stage::Over), "an end was not told");
        self.ends
    }

    fn round(&mut self) {
        for at in 0..2 {
            let end = &mut self.ends[at];
            end.turn(self.now, &mut self.random);
            end.check();
            let mut rx = RxBurst::new();
            end.wire.rx_burst(&mut rx);
            end.wire.flush();
            self.underway.extend(rx.drain(..).map(|frame| (1 - at, frame.to_vec())));
        }
        self.deliver();
        self.now += match self.random.below(40) {
            0 => Duration::from_millis(1_200),
            1 => Duration::from_millis(300),
            n if n < 20 => Duration::from_micros(50),
            n => Duration::from_millis(n % 12),
        };
    }

    /// What is underway arrives, is lost, arrives twice, or waits for the next round.
    fn deliver(&mut self) {
        for (to, bytes) in core::mem::take(&mut self.underway) {
            if self.random.below(100) < self.loss {
                continue;
            }
            if self.random.below(100) < 2 * self.loss {
                self.underway.push((to, bytes));
                continue;
            }
            let wire = &mut self.ends[to].wire;
            let mut tx = TxBurst::new();
            for _ in 0..1 + u64::from(self.random.below(100) < self.loss) {
                // Some frames are left to receive in, lest each wait for the other.
                let Some(mut frame) = wire.pool().alloc().filter(|_| wire.pool().free() >= 44) else { break };
                frame.extend_from_slice(&bytes);
                tx.push(frame);
            }
            wire.tx_burst(&mut tx);
            wire.flush();
        }
    }
}

/// Room for few connections, or for many; and nobody is waited for long.
fn limit(config: &mut Config, peer: (Address, Mac), random: &mut Random) {
    let small = random.one_in(2);
    config.limits.conns_max = if small { 5 } else { 200 };
    config.limits.syn_rcvd_max = if small { 3 } else { 40 };
    config.limits.backlog_max = if small { 2 } else { 40 };
    config.limits.time_wait_max = if random.one_in(2) { 4 } else { 64 };
    config.limits.frames_reserved = 8;
    config.tcp.ephemeral_port_min = 40_000;
    config.tcp.ephemeral_port_max = if small { 40_012 } else { 40_400 };
    config.tcp.give_up = Duration::from_secs(8);
    config.tcp.connect_give_up = Duration::from_secs(6);
    config.tcp.fin_wait_2_timeout = Duration::from_secs(3);
    config.tcp.keepalive_idle = random.one_in(3).then_some(Duration::from_secs(2));
    config.tcp.keepalive_interval = Duration::from_secs(1);
    config.tcp.keepalive_probes = 2;
    if !random.one_in(3) {
        config.ip.neighbours = vec![peer];
    }
}

struct End {
    host: Host<Whim>,
    /// The other end of its wire.
    wire: WireDriver,
    /// Sent while the device takes nothing.
    answers: TxBurst,
}

impl End {
    fn turn(&mut self, now: Instant, random: &mut Random) {
        let End { host, answers, .. } = self;
        host.driver.tx_burst(&mut host.tx);
        host.driver.tx_burst(answers);
        if !answers.is_empty() {
            // Not even answers leave: nothing is taken in.
        } else if !host.tx.is_empty() || random.one_in(5) {
            host.driver.rx_burst(&mut host.rx);
            host.stack.take_in(now, &mut host.rx, answers, &mut host.app);
            host.driver.tx_burst(answers);
        } else if random.one_in(3) {
            // One burst only.
            host.driver.rx_burst(&mut host.rx);
            host.stack.turn(now, &mut host.rx, &mut host.tx, &mut host.app);
            host.driver.tx_burst(&mut host.tx);
        } else {
            host.turn(now);
        }
        host.driver.flush();
    }

    /// What [`Stack::check`] looks at, and that nobody is forgotten.
    fn check(&self) {
        let stack = &self.host.stack;
        stack.check().unwrap();
        for (queue, bit) in [(&stack.owing, Bits::OWING), (&stack.marked, Bits::MARKED)] {
            let mut queued: Vec<u32> = (0..queue.len()).filter_map(|at| queue.get(at)).collect();
            queued.sort_unstable();
            let known = stack.conns.iter().filter(|(_, tcb)| tcb.bits.has(bit)).map(|(conn, _)| conn.index());
            assert_eq!(queued, known.collect::<Vec<_>>(), "{bit:?}");
        }
        const QUEUED: Bits = Bits::OWING.and(Bits::MARKED);
        const OWED: Bits = Bits::SYN_OWED.and(Bits::ACK_NOW).and(Bits::RESET_OWED);
        const WAITS: Bits = Bits::AWAITS_NEIGHBOUR.and(Bits::RTX_ARMED);
        for (_, tcb) in stack.conns.iter().filter(|(_, tcb)| !tcb.bits.has(QUEUED)) {
            match tcb.is_over() {
                true => assert!(!tcb.bits.has(Bits::REPORTED) && !tcb.rx.is_empty(), "it stays for ever: {tcb:?}"),
                false => assert!(tcb.bits.has(WAITS) || !tcb.bits.has(OWED), "what it owes is forgotten: {tcb:?}"),
            }
        }
    }

    /// Ends whatever is open, of which the application hears nothing.
    fn abort_all(&mut self) {
        self.host.stack.abort_all();
        self.host.app.known.values_mut().for_each(|stage| *stage = Stage::Over);
    }

    fn is_clean(&self) -> bool {
        let census = self.host.stack.pool().census();
        self.host.stack.left() == Left::default() && census.owned + census.sending + census.moving == 0
    }
}

/// How far a connection has come for its application.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Opening,
    Open,
    Closed,
    Over,
}

/// Does what comes to its mind, with any connection of late, those that are over included.
struct Whim {
    random: Random,
    to: SocketAddr,
    /// Begins nothing any more.
    is_resting: bool,
    known: BTreeMap<ConnId, Stage>,
    latest: Vec<ConnId>,
}

impl Whim {
    fn new(random: Random, to: SocketAddr) -> Whim {
        Whim { random, to, is_resting: false, known: BTreeMap::new(), latest: Vec::new() }
    }

    fn begins(&mut self, cx: &mut Cx<'_>, conn: ConnId, stage: Stage) {
        assert_eq!(cx.user(conn), 0, "{conn:?} has a word of another");
        cx.set_user(conn, conn.to_bits());
        assert_eq!(self.known.insert(conn, stage), None, "{conn:?} was there before");
        self.latest.truncate(47);
        self.latest.insert(0, conn);
    }

    /// A call, which comes in these stages only.
    #[track_caller]
    fn hears(&mut self, cx: &Cx<'_>, conn: ConnId, stages: &[Stage]) {
        let stage = self.known[&conn];
        assert!(stages.contains(&stage), "{conn:?} is {stage:?} to its application and {:?}", cx.state(conn));
        assert_eq!(cx.user(conn), conn.to_bits());
    }

    fn goes_to(&mut self, conn: ConnId, stage: Stage) {
        let known = self.known.get_mut(&conn).expect("it began");
        *known = stage.max(*known);
    }

    fn connect(&mut self, cx: &mut Cx<'_>) {
        if let Ok(conn) = cx.connect(self.to) {
            self.begins(cx, conn, Stage::Opening);
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.close(conn);
        self.goes_to(conn, Stage::Closed);
    }

    /// Two things at most: to this connection, or to any.
    fn act(&mut self, cx: &mut Cx<'_>, conn: Option<ConnId>) {
        let things = if self.is_resting { 0 } else { self.random.below(3) };
        for _ in 0..things {
            let any = self.latest.get(self.random.below(self.latest.len() as u64) as usize);
            match conn.filter(|_| self.random.one_in(2)).or(any.copied()) {
                Some(conn) => self.act_on(cx, conn),
                None => self.connect(cx),
            }
        }
    }

    fn act_on(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        match self.random.below(24) {
            0..=2 => self.connect(cx),
            3..=7 => self.close(cx, conn),
            8 => {
                cx.abort(conn);
                self.goes_to(conn, Stage::Over);
                assert!(cx.state(conn).is_none());
            }
            9..=12 => drop(cx.write(conn, &vec![7; self.random.below(4_000) as usize])),
            13 | 14 => cx.shutdown(conn),
            15 | 16 => while cx.recv(conn).is_some() {},
            17 => drop(cx.recv(conn)),
            18 => cx.set_timer(conn, Duration::from_millis(self.random.below(1_500))),
            19 if self.random.one_in(4) => drop(cx.unlisten(80)),
            20 => drop(cx.listen(80)),
            21 => drop(cx.room(conn)),
            22 => cx.trace(conn, self.random.one_in(4)),
            _ if self.random.one_in(16) => cx.trace_all(self.random.one_in(4)),
            _ => {}
        }
    }
}

impl App for Whim {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.begins(cx, conn, Stage::Open);
        self.act(cx, Some(conn));
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.hears(cx, conn, &[Stage::Opening]);
        self.goes_to(conn, Stage::Open);
        self.act(cx, Some(conn));
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.hears(cx, conn, &[Stage::Open]);
        while !self.random.one_in(8) && cx.recv(conn).is_some() {}
        self.act(cx, Some(conn));
    }
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.hears(cx, conn, &[Stage::Opening, Stage::Open]);
        self.act(cx, Some(conn));
    }
    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.hears(cx, conn, &[Stage::Open]);
        if !self.random.one_in(4) {
            self.close(cx, conn);
        }
        self.act(cx, Some(conn));
    }
    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_writable(cx, conn);
    }
    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, _: Closed) {
        self.hears(cx, conn, &[Stage::Opening, Stage::Open, Stage::Closed]);
        self.goes_to(conn, Stage::Over);
        self.act(cx, Some(conn));
    }
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        if !self.is_resting && self.random.one_in(8) {
            for _ in 0..1 << self.random.below(8) {
                self.connect(cx);
            }
            let _ = cx.listen(80);
        }
        self.act(cx, None);
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20).checked_rem(below).unwrap_or(0)
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
