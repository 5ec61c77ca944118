//! Two stacks with a bad network between them, in virtual time: whatever is lost, late, repeated or refused for a while, the
//! bytes arrive, the connection ends as it should, and every frame goes home.

use alloc::collections::BTreeMap;

use super::*;
use crate::metrics::Counter;

/// What the network does to packets.
#[derive(Clone)]
struct Faults {
    /// One way, in microseconds.
    delay_us: u64,
    /// A packet is late by up to so much more: it is overtaken.
    jitter_us: u64,
    /// Of 1000 packets so many are lost.
    loss: u64,
    /// Of 1000 packets so many arrive twice.
    duplicates: u64,
    /// Only packets towards the client are lost: acknowledgments, mostly.
    loss_to_client_only: bool,
    /// Exactly this packet is lost, counted from 0 over both directions.
    drop: Vec<u64>,
    /// Everything is lost from then to then.
    blackout: Option<(Instant, Instant)>,
    seed: u64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            delay_us: 1_000,
            jitter_us: 0,
            loss: 0,
            duplicates: 0,
            loss_to_client_only: false,
            drop: Vec::new(),
            blackout: None,
            seed: 1,
        }
    }
}

/// A switch between two wires.
struct Network {
    ends: [WireDriver; 2],
    faults: Faults,
    underway: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    packets: u64,
    random: u64,
    rx: RxBurst,
}

impl Network {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if below == 0 { 0 } else { self.random % below }
    }

    /// Takes in what was sent, and delivers what is due.
    fn turn(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for from in 0..2 {
            self.ends[from].rx_burst(&mut self.rx);
            let mut rx = core::mem::take(&mut self.rx);
            for frame in rx.drain(..) {
                busy = true;
                self.take_in(now, 1 - from, &frame);
            }
            self.rx = rx;
        }
        let mut bursts = [TxBurst::new(), TxBurst::new()];
        while let Some(entry) = self.underway.first_entry()
            && entry.key().0 <= now
        {
            let (to, bytes) = entry.remove();
            let mut frame = self.ends[to].pool().alloc().expect("the switch has frames enough");
            frame.extend_from_slice(&bytes);
            bursts[to].push(frame);
            busy = true;
            if bursts[to].room() == 0 {
                break;
            }
        }
        for (end, burst) in self.ends.iter_mut().zip(&mut bursts) {
            end.tx_burst(burst);
            end.flush();
            assert!(burst.is_empty(), "what a host has no frame for is lost");
        }
        busy
    }

    fn take_in(&mut self, now: Instant, to: usize, bytes: &[u8]) {
        let number = self.packets;
        self.packets += 1;
        let dark = self.faults.blackout.is_some_and(|(from, until)| (from..until).contains(&now));
        let spared = self.faults.loss_to_client_only && to == 1;
        if dark || self.faults.drop.contains(&number) || (self.random(1_000) < self.faults.loss && !spared) {
            return;
        }
        let copies = if self.random(1_000) < self.faults.duplicates { 2 } else { 1 };
        for copy in 0..copies {
            let late_us = self.random(self.faults.jitter_us + 1);
            let at = now + Duration::from_micros(self.faults.delay_us + late_us);
            self.underway.insert((at, 2 * number + copy), (to, bytes.to_vec()));
        }
    }
}

/// Sends so much, checks what comes byte by byte, closes its half when all is sent.
struct Peer {
    connects: bool,
    bytes: u64,
    sent: u64,
    received: u64,
    /// Bytes a call of write.
    chunk: usize,
    /// Bytes a turn; then it waits for a millisecond.
    per_turn: u64,
    /// Does not read until then.
    reads_from: Instant,
    /// Gives its bytes in frames instead of writing them.
    by_frame: bool,
    conn: Option<ConnId>,
    closed: Vec<Closed>,
}

impl Peer {
    fn sends(bytes: u64) -> Peer {
        Peer {
            connects: false,
            bytes,
            sent: 0,
            received: 0,
            chunk: 100_000,
            per_turn: u64::MAX,
            reads_from: Instant::ZERO,
            by_frame: false,
            conn: None,
            closed: Vec::new(),
        }
    }

    fn byte(at: u64) -> u8 {
        (at ^ (at >> 8).wrapping_mul(31)) as u8
    }

    fn push(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let until = self.bytes.min(self.sent.saturating_add(self.per_turn));
        while self.sent < until {
            let len = (until - self.sent).min(self.chunk as u64);
            let bytes: Vec<u8> = (self.sent..self.sent + len).map(Peer::byte).collect();
            let taken = if self.by_frame {
                let Some(mut frame) = cx.alloc() else { break };
                let taken = frame.extend_from_slice(&bytes);
                if cx.send(conn, frame).is_err() {
                    break;
                }
                taken
            } else {
                cx.write(conn, &bytes)
            };
            self.sent += taken as u64;
            if taken == 0 {
                break;
            }
        }
        if self.sent == self.bytes {
            cx.shutdown(conn);
        } else if self.per_turn < u64::MAX {
            let at = cx.now() + Duration::from_millis(1);
            cx.wake_at(at);
        }
    }

    fn pull(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if cx.now() < self.reads_from {
            return cx.wake_at(self.reads_from);
        }
        while let Some(frame) = cx.recv(conn) {
            for &byte in frame.iter() {
                assert_eq!(byte, Peer::byte(self.received), "byte {}", self.received);
                self.received += 1;
            }
        }
    }
}

impl App for Peer {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        if self.connects {
            cx.connect(SocketAddr::new(SERVER.into(), 80)).unwrap();
        }
    }
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.conn = Some(conn);
        self.push(cx, conn);
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_accept(cx, conn);
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.pull(cx, conn);
    }
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.push(cx, conn);
    }
    fn on_peer_close(&mut self, _: &mut Cx<'_>, _: ConnId) {}
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        if let Some(conn) = self.conn {
            self.pull(cx, conn);
            if self.per_turn < u64::MAX && self.sent < self.bytes {
                self.push(cx, conn);
            }
        }
    }
    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.conn = None;
        self.closed.push(how);
    }
}

/// Client and server with a network between them.
struct Net {
    client: Host<Peer>,
    server: Host<Peer>,
    network: Network,
    now: Instant,
}

const START: Instant = Instant::from_micros(1_000_000);
/// TIME-WAIT must outlast the longest pause between two FINs.
const MSL: Duration = Duration::from_secs(60);

fn after_ms(ms: u64) -> Instant {
    START + Duration::from_millis(ms)
}

impl Net {
    fn new(client: Peer, server: Peer, faults: Faults, configure: impl Fn(&mut Config)) -> Net {
        Net::with_mtus(client, server, faults, configure, [1500, 1500], 4096)
    }

    fn with_mtus(
        client: Peer,
        server: Peer,
        faults: Faults,
        configure: impl Fn(&mut Config),
        mtus: [u16; 2],
        frames_per_queue: u32,
    ) -> Net {
        let side =
            |mtu| wire::Config { mtu, frames_per_queue, ring_len: 1024, lossless: false, ..wire::Config::default() };
        // The hosts are ends of different kinds, for their Ethernet addresses to differ.
        let ((host_a, net_a), (net_b, host_b)) = (wire::pair(side(mtus[0])), wire::pair(side(mtus[1])));
        let configure = |config: &mut Config| {
            config.tcp.msl = MSL;
            configure(config);
        };
        let client = Host::new(host_a, CLIENT, configure, Peer { connects: true, ..client });
        let mut server = Host::new(host_b, SERVER, configure, server);
        server.stack.listen(None, 80).unwrap();
        let random = faults.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let network =
            Network { ends: [net_a, net_b], faults, underway: BTreeMap::new(), packets: 0, random, rx: RxBurst::new() };
        let mut net = Net { client, server, network, now: START };
        net.client.stack.start(net.now, &mut net.client.app);
        net
    }

    /// Runs until nothing is due, or the time is over.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut turns = 0_u32;
        loop {
            turns += 1;
            assert!(turns < 3_000_000, "it goes on for ever");
            let busy = self.client.turn(self.now) | self.server.turn(self.now);
            if self.network.turn(self.now) | busy {
                continue;
            }
            let due = [self.client.stack.next_deadline(), self.server.stack.next_deadline()];
            let arrival = self.network.underway.first_key_value().map(|(&(at, _), _)| at);
            let Some(due) = due.into_iter().flatten().chain(arrival).min() else { break };
            if due > end {
                break;
            }
            self.now = due.max(self.now + Duration::from_micros(1));
        }
    }

    /// Runs to the end, which must be a good one.
    #[track_caller]
    fn succeeds(mut self, span: Duration) -> Net {
        self.run(span);
        let told = alloc::format!(
            "{:?} client {}→{} server {}→{}",
            self.now,
            self.client.app.sent,
            self.server.app.received,
            self.server.app.sent,
            self.client.app.received
        );
        assert_eq!(self.server.app.received, self.client.app.bytes, "{told}");
        assert_eq!(self.client.app.received, self.server.app.bytes, "{told}");
        assert_eq!(self.client.app.closed, [Closed::Orderly], "{told}");
        assert_eq!(self.server.app.closed, [Closed::Orderly], "{told}");
        self.all_is_back();
        self
    }

    #[track_caller]
    fn all_is_back(&self) {
        assert!(self.client.is_clean() && self.server.is_clean());
        for pool in [self.client.stack.pool(), self.server.stack.pool()] {
            let census = pool.census();
            assert_eq!(census.owned + census.sending + census.moving, 0, "{census:?}");
        }
    }

    fn count(&self, counter: Counter) -> u64 {
        self.client.stack.metrics().get(counter) + self.server.stack.metrics().get(counter)
    }
}

/// Every way in which the options can be agreed.
fn each_variant(mut test: impl FnMut(&dyn Fn(&mut Config))) {
    for bits in 0..8_u8 {
        test(&move |config| {
            config.tcp.sack = bits & 1 == 0;
            config.tcp.timestamps = bits & 2 == 0;
            config.tcp.nagle = bits & 4 == 0;
        });
    }
}

const MINUTES: Duration = Duration::from_secs(600);

#[test]
fn each_packet_of_a_small_connection_may_be_lost() {
    each_variant(|configure| {
        let mut nth = 0;
        loop {
            let faults = Faults { drop: vec![nth], ..Faults::default() };
            let net = Net::new(Peer::sends(5_000), Peer::sends(3_000), faults, configure).succeeds(MINUTES);
            assert!(net.now < after_ms(5_000) + MSL + MSL, "packet {nth}: {:?}", net.now);
            nth += 1;
            if nth >= net.network.packets {
                break;
            }
        }
        assert!(nth > 12, "{nth} packets");
    });
}

#[test]
fn any_two_packets_of_a_small_connection_may_be_lost() {
    for first in 0..18 {
        for second in first + 1..18 {
            let faults = Faults { drop: vec![first, second], ..Faults::default() };
            Net::new(Peer::sends(5_000), Peer::sends(3_000), faults, |_| {}).succeeds(MINUTES);
        }
    }
}

#[test]
fn random_loss_duplication_and_reordering_are_repaired() {
    for (loss, duplicates, jitter_us) in
        [(10, 0, 0), (50, 0, 0), (200, 0, 0), (0, 300, 0), (0, 0, 3_000), (50, 50, 2_000), (200, 200, 5_000)]
    {
        each_variant(|configure| {
            for seed in 1..4 {
                let faults = Faults { loss, duplicates, jitter_us, seed, ..Faults::default() };
                Net::new(Peer::sends(60_000), Peer::sends(40_000), faults, |config| {
                    configure(config);
                    config.tcp.give_up = Duration::from_secs(3_600); // so bad a path may well be silent for minutes
                })
                .succeeds(Duration::from_secs(6_000));
            }
        });
    }
}

#[test]
fn three_megabytes_arrive_despite_loss() {
    for (loss, jitter_us) in [(0, 0), (10, 0), (50, 500)] {
        for sack in [true, false] {
            let faults = Faults { loss, jitter_us, ..Faults::default() };
            let net = Net::new(Peer::sends(3_000_000), Peer::sends(0), faults, |config| config.tcp.sack = sack)
                .succeeds(MINUTES);
            if loss == 0 {
                assert_eq!(net.count(Counter::Retransmissions), 0);
            }
        }
    }
}

#[test]
fn lost_acknowledgments_cost_no_data() {
    let faults = Faults { loss: 300, loss_to_client_only: true, ..Faults::default() };
    Net::new(Peer::sends(300_000), Peer::sends(0), faults, |_| {}).succeeds(MINUTES);
}

#[test]
fn duplicated_packets_alone_cause_no_retransmission() {
    let faults = Faults { duplicates: 500, ..Faults::default() };
    let net = Net::new(Peer::sends(500_000), Peer::sends(0), faults, |_| {}).succeeds(MINUTES);
    assert_eq!(net.count(Counter::Retransmissions), 0);
    assert_eq!(net.count(Counter::FastRecoveries), 0);
}

#[test]
fn a_blackout_shorter_than_the_limit_is_survived() {
    for sack in [true, false] {
        for timestamps in [true, false] {
            let faults = Faults { blackout: Some((after_ms(20), after_ms(90_000))), ..Faults::default() };
            let net = Net::new(Peer::sends(1_000_000), Peer::sends(0), faults, |config| {
                config.tcp.sack = sack;
                config.tcp.timestamps = timestamps;
            });
            net.succeeds(MINUTES);
        }
    }
}

#[test]
fn a_blackout_longer_than_the_limit_times_out() {
    let faults = Faults { blackout: Some((after_ms(20), after_ms(10_000_000))), ..Faults::default() };
    let mut net = Net::new(Peer::sends(1_000_000), Peer::sends(1_000_000), faults, |_| {});
    net.run(Duration::from_secs(400));
    assert_eq!(net.client.app.closed, [Closed::TimedOut]);
    assert_eq!(net.server.app.closed, [Closed::TimedOut]);
    assert!(net.now > after_ms(120_000), "R2 is at least 100 s");
    net.all_is_back();
}

#[test]
fn a_reader_that_pauses_for_minutes_is_waited_for() {
    for (loss, seed) in [(0, 1), (100, 1), (100, 2), (100, 3)] {
        let faults = Faults { loss, seed, ..Faults::default() };
        let reads_from = after_ms(400_000);
        let net = Net::new(Peer::sends(1_000_000), Peer { reads_from, ..Peer::sends(0) }, faults, |_| {});
        let net = net.succeeds(Duration::from_secs(2_000));
        let probes = net.count(Counter::WindowProbes) + net.count(Counter::Retransmissions);
        assert!(loss > 0 || (4..30).contains(&probes), "{probes} probes in 400 s: their interval doubles");
        assert!(net.now < after_ms(480_000) + MSL + MSL, "the window's opening is acted on at once: {:?}", net.now);
    }
}

#[test]
fn a_connection_whose_peer_never_reads_stays_as_long_as_probes_are_answered() {
    let reads_from = after_ms(100_000_000);
    let server = Peer { reads_from, ..Peer::sends(0) };
    let mut net = Net::new(Peer::sends(1_000_000), server, Faults::default(), |_| {});
    net.run(Duration::from_secs(1_000));
    assert_eq!((net.client.app.closed.len(), net.server.app.closed.len()), (0, 0));
    // When nobody answers any more, it ends.
    net.network.faults.blackout = Some((net.now, after_ms(100_000_000)));
    net.run(Duration::from_secs(400));
    assert_eq!(net.client.app.closed, [Closed::TimedOut]);
}

#[test]
fn tiny_buffers_are_enough() {
    for loss in [0, 50] {
        let faults = Faults { loss, ..Faults::default() };
        Net::new(Peer::sends(100_000), Peer::sends(100_000), faults, |config| {
            config.tcp.recv_buffer_bytes = 4096;
            config.tcp.send_buffer_bytes = 4096;
            config.tcp.recv_frames_max = 4;
            config.tcp.send_frames_max = 4;
        })
        .succeeds(Duration::from_secs(3_000));
    }
}

#[test]
fn single_bytes_arrive_with_and_without_nagle() {
    for (nagle, by_frame) in [(true, false), (false, false), (true, true), (false, true)] {
        for loss in [0, 50] {
            let client = Peer { chunk: 1, per_turn: 3, by_frame, ..Peer::sends(500) };
            let faults = Faults { loss, delay_us: 5_000, ..Faults::default() };
            let net = Net::new(client, Peer::sends(0), faults, |config| config.tcp.nagle = nagle).succeeds(MINUTES);
            let sent = net.client.stack.metrics().get(Counter::PacketsSent);
            assert!(!nagle || loss > 0 || sent < 60, "{sent} packets for 500 bytes");
        }
    }
}

#[test]
fn peers_of_different_mtu_use_the_smaller() {
    for mtus in [[1500, 600], [600, 1500]] {
        for by_frame in [false, true] {
            let (client, server) =
                (Peer { by_frame, ..Peer::sends(100_000) }, Peer { by_frame, ..Peer::sends(100_000) });
            let faults = Faults { loss: 20, ..Faults::default() };
            Net::with_mtus(client, server, faults, |_| {}, mtus, 4096).succeeds(MINUTES);
        }
    }
}

#[test]
fn few_frames_slow_a_transfer_but_do_not_stop_it() {
    for loss in [0, 50] {
        let faults = Faults { loss, ..Faults::default() };
        Net::with_mtus(
            Peer::sends(300_000),
            Peer::sends(300_000),
            faults,
            |config| config.limits.frames_reserved = 16,
            [1500, 1500],
            128,
        )
        .succeeds(MINUTES);
    }
}

/// Sends one frame whose headroom it has used up.
#[derive(Default)]
struct Greedy {
    refused: Option<crate::app::SendError>,
}

impl App for Greedy {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        cx.connect(SocketAddr::new(SERVER.into(), 80)).unwrap();
    }
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let mut frame = cx.alloc().unwrap();
        frame.prepend(100);
        self.refused = cx.send(conn, frame).err().map(|refused| refused.reason);
        cx.close(conn);
    }
}

#[test]
fn a_frame_without_room_for_headers_is_given_back() {
    let mut world = World::new(Greedy::default(), Echo::default());
    world.run(Duration::from_secs(1));
    assert_eq!(world.client.app.refused, Some(crate::app::SendError::Headroom));
    world.assert_all_is_back();
}

#[test]
fn losses_are_found_without_waiting_for_the_timeout() {
    for (loss, jitter_us, timeouts_max) in [(10, 0, 1), (10, 300, 1), (50, 0, 6)] {
        for seed in 1..4 {
            let faults = Faults { loss, jitter_us, seed, ..Faults::default() };
            let net = Net::new(Peer::sends(3_000_000), Peer::sends(0), faults, |_| {}).succeeds(MINUTES);
            let timeouts = net.count(Counter::RetransmissionTimeouts);
            let told = net.client.stack.metrics().iter().collect::<Vec<_>>();
            assert!(timeouts <= timeouts_max, "loss {loss}, seed {seed}: {timeouts} timeouts, {told:?}");
        }
    }
}
