//! A whole stack between a hostile network and a fickle application. After every step: no panic, each frame accounted for, the
//! invariants of every connection, counters that agree with what was carried; at the end nothing is left.

use std::cell::RefCell;

use handfast::drivers::driver::Driver;
use handfast::ip::routes::OwnAddress;
use handfast::stack::{Entropy, Left};
use handfast::tcp::state::State;
use handfast::time::{Duration, Instant};
use handfast::wire::address::Mac;
use handfast::wire::packet::{self, Packet};
use handfast::{Config, Counter, Stack};

use super::app::{Call, Fuzzed, OfConn, habit};
use super::device::Device;
use super::frames::{self, ACK, Addresses, FIN, PSH, RST, SYN, Segment};
use super::{Seen, Source};

pub(super) fn run(bytes: &[u8], seen: &mut Seen) {
    thread_local! {
        // Making a wire costs more than a case. A case leaves it as it found it.
        static WIRE: RefCell<Option<Device>> = const { RefCell::new(None) };
    }
    let mut device = WIRE.take().unwrap_or_else(Device::new);
    device.settle();
    let mut case = Case::new(Source::new(bytes), device);
    case.tell = seen.tell;
    case.stack.trace_all(seen.tell);
    while !case.source.is_empty() {
        case.step();
    }
    case.end();
    WIRE.set(Some(case.device));
    seen.cases += 1;
    seen.frames += case.given;
    seen.metrics.merge(case.stack.metrics());
    seen.states.iter_mut().zip(case.app.seen.states).for_each(|(sum, n)| *sum += n);
}

/// A conversation, as a peer sees it.
#[derive(Clone, Default, Debug)]
struct Peer {
    port: u16,
    /// The stack's port.
    local_port: u16,
    /// SEG.SEQ of the stack's last SYN, if there was one.
    iss: Option<u32>,
    /// One past the last that the stack sent.
    seen: u32,
    /// Acknowledged so far.
    una: u32,
    /// The stack's last acknowledgment and window, and its window's scale.
    acked: Option<u32>,
    window: u32,
    shift: u8,
    /// The sequence number of our SYN.
    irs: u32,
    /// The stack's last timestamp.
    ts_echo: Option<u32>,
    /// Each byte of the stack's stream less its sequence number.
    phase: Option<u8>,
    /// The last packet that the stack sent, for ICMP errors to quote.
    last: Vec<u8>,
}

impl Peer {
    /// What the stack expects next.
    fn next(&self) -> u32 {
        self.acked.unwrap_or(self.irs)
    }
}

struct Case<'a> {
    source: Source<'a>,
    device: Device,
    stack: Stack,
    app: Fuzzed,
    addresses: Addresses,
    peers: [Peer; 6],
    now: Instant,
    stalled: bool,
    given: u64,
    taken: u64,
    scratch: Vec<u8>,
    tell: bool,
    told: usize,
}

impl<'a> Case<'a> {
    fn new(mut source: Source<'a>, device: Device) -> Case<'a> {
        let (how, sizes, habits) = (source.byte(), source.byte(), source.byte());
        let addresses = Addresses::new(how & 1 != 0);
        let mut config = Config::default();
        let prefix_len = if addresses.is_v6() { 64 } else { 24 };
        config.ip.addresses = vec![OwnAddress { address: addresses.own, prefix_len }];
        if how & 2 == 0 {
            config.ip.neighbours = vec![(addresses.peer, Mac(addresses.peer_mac))];
        }
        config.ip.neighbours_max = 4;
        config.ip.waiters_max = 2;
        config.ip.waiting_packets_max = 2;
        config.ip.path_mtus_max = 2;
        config.tcp.timestamps = how & 4 == 0;
        config.tcp.sack = how & 8 == 0;
        config.tcp.window_scaling = how & 16 == 0;
        config.tcp.nagle = how & 32 == 0;
        config.tcp.ack_delay = Duration::from_millis(if how & 64 == 0 { 40 } else { 0 });
        config.tcp.keepalive_idle = (how & 128 != 0).then(|| Duration::from_secs(10));
        config.tcp.keepalive_interval = Duration::from_secs(2);
        config.tcp.keepalive_probes = 2;
        config.tcp.give_up = Duration::from_secs(20);
        config.tcp.connect_give_up = Duration::from_secs(20);
        config.tcp.fin_wait_2_timeout = Duration::from_secs(10);
        config.tcp.msl = Duration::from_secs(2);
        config.tcp.syn_ack_retries = 2;
        let small = |bit: u8| sizes & bit != 0;
        config.tcp.recv_buffer_bytes = if small(1) { 4 << 10 } else { 256 << 10 };
        config.tcp.send_buffer_bytes = if small(2) { 4 << 10 } else { 64 << 10 };
        config.tcp.recv_frames_max = if small(4) { 4 } else { 64 };
        config.tcp.send_frames_max = if small(8) { 4 } else { 64 };
        config.limits.conns_max = if small(16) { 1 } else { 4 };
        config.limits.syn_rcvd_max = if small(32) { 1 } else { 4 };
        config.limits.time_wait_max = if small(64) { 1 } else { 4 };
        config.limits.frames_reserved = if small(128) { 4 } else { 16 };
        config.tcp.challenge_acks_per_second = 4;
        config.listen = vec![80];
        let entropy = Entropy([how; 64]);
        let stack =
            Stack::new(config, device.near.pool().clone(), device.near.caps(), &entropy).expect("a good configuration");
        let app = Fuzzed::new(addresses.peer.into(), habits & 0x7f, habits & 0x80 != 0);
        let peer = |port, local_port| Peer { port, local_port, ..Peer::default() };
        let passive = [1_000, 1_001, 1_002, 1_003].map(|port| peer(port, 80));
        let [a, b, c, d] = passive;
        let peers = [a, b, c, d, peer(2_000, 0), peer(2_001, 0)];
        let now = Instant::from_micros(1_000_000);
        Case {
            source,
            device,
            stack,
            app,
            addresses,
            peers,
            now,
            stalled: false,
            given: 0,
            taken: 0,
            scratch: Vec::new(),
            tell: false,
            told: 0,
        }
    }

    fn step(&mut self) {
        let op = self.source.byte();
        let mut frame = Vec::new();
        match op % 32 {
            // The next segment of a good conversation; more often than all else, or none would come far.
            0..=9 => self.good(&mut frame),
            10..=16 => self.near_miss(&mut frame),
            17 => {
                self.good(&mut frame);
                frames::mutate(&mut self.source, &mut frame);
            }
            18 => {
                self.near_miss(&mut frame);
                frames::mutate(&mut self.source, &mut frame);
            }
            19 => {
                frames::any(&mut self.source, &self.addresses, &mut frame);
                if op & 32 != 0 {
                    frames::mutate(&mut self.source, &mut frame);
                }
            }
            20 => {
                let peer = usize::from(self.source.byte()) % self.peers.len();
                let quoted = Some(&self.peers[peer].last[..]).filter(|last| !last.is_empty());
                frames::error(&mut self.source, &self.addresses, quoted, &mut frame);
            }
            21 => frame.extend_from_slice(self.source.take(usize::from(op) / 2)),
            22..=26 => self.call(),
            27 => self.app.habits = self.source.byte() & 0x7f,
            28 => {
                self.stalled = !self.stalled;
                if op == 28 {
                    self.stack.shut_down(self.now, &mut self.app);
                }
            }
            29 => self.now += Duration::from_micros(self.source.byte().into()),
            _ => {
                let steps = [0, 1, 40, 200, 1_000, 4_000, 30_000, 3_600_000, 23 * 24 * 3_600_000];
                let span = Duration::from_millis(self.source.pick(&steps));
                let due = self.stack.next_deadline();
                self.now = match due {
                    Some(due) if op & 64 == 0 => self.now.max(due),
                    // A worker that is an hour late has slept; clocks wrap after 49 days, and deadlines are told apart within 24.
                    Some(due) => (self.now + span).min(self.now.max(due) + HOUR),
                    None => self.now + span,
                };
            }
        }
        if !frame.is_empty() {
            frames::settle(&mut frame, &mut self.scratch);
            self.device.deliver(&frame);
            // The rest of a burst follows.
            if op & 0xc0 == 0xc0 {
                return;
            }
        }
        self.turn();
        let count = if op & 0x80 == 0 { usize::MAX } else { usize::from(op & 3) };
        self.sent(count);
    }

    /// A peer, but not one that waits for our connect.
    fn talking(&self, which: u8) -> usize {
        let at = usize::from(which >> 2) % 6;
        if at > 3 && self.peers[at].iss.is_none() { usize::from(which & 3) } else { at }
    }

    /// What a peer that means well sends next.
    fn good(&mut self, out: &mut Vec<u8>) {
        let (which, what) = (self.source.byte(), self.source.byte());
        let now_ms = self.now.as_millis32();
        let at = self.talking(which);
        let peer = &mut self.peers[at];
        let mut segment = Segment {
            src_port: peer.port,
            dst_port: peer.local_port,
            seq: peer.next(),
            ack: peer.seen,
            flags: ACK,
            window: u16::MAX,
            ..Segment::default()
        };
        peer.una = peer.seen;
        match (peer.iss, peer.acked) {
            // Nothing was heard yet, or a reset.
            (None, _) => {
                segment.flags = SYN;
                peer.irs = u32::from(what).wrapping_mul(0x0101_0101).wrapping_sub(3);
                (segment.seq, segment.ack) = (peer.irs, 0);
                syn_options(what, now_ms, None, &mut segment.options);
            }
            (Some(_), None) => {
                segment.flags = SYN | if what & 0x80 == 0 { ACK } else { 0 };
                peer.irs = u32::from(what).wrapping_mul(0x0203_0405);
                segment.seq = peer.irs;
                syn_options(what, now_ms, peer.ts_echo, &mut segment.options);
            }
            _ => {
                segment.payload_len = [0, 1, 9, 536, 1_400, 700][usize::from(what & 7) % 6];
                match what >> 4 {
                    0..=2 => segment.flags |= FIN,
                    3 => segment.flags = RST | (what & ACK),
                    4 => segment.flags |= PSH,
                    _ => {}
                }
                timestamps(now_ms, peer.ts_echo, &mut segment.options);
            }
        }
        frames::segment(&segment, &self.addresses, out);
    }

    /// A segment whose fields lie at the edges of what the stack accepts, or just beyond.
    fn near_miss(&mut self, out: &mut Vec<u8>) {
        let (which, flags, edges, more) =
            (self.source.byte(), self.source.byte(), self.source.byte(), self.source.byte());
        let far = self.source.byte();
        let peer = &self.peers[self.talking(which)];
        let (window, flight) = (peer.window, peer.seen.wrapping_sub(peer.una));
        let seq = match edges & 15 {
            0..=3 => 0,
            4 => 1_u32.wrapping_neg(),
            5 => 1,
            6 => window,
            7 => window.wrapping_sub(1),
            8 => window.wrapping_add(1),
            9 => u32::from(far),
            10 => u32::from(far) << 6,
            11 => u32::from(far).wrapping_neg(),
            12 => (u32::from(far) << 6).wrapping_neg(),
            13 => 1 << 31,
            14 => (1 << 31) - 1,
            _ => u32::from(far) << 24,
        };
        let ack = match edges >> 4 {
            0..=5 => 0,
            6 => 1,
            7 => 1_u32.wrapping_neg(),
            8 => flight.wrapping_neg(),
            9 => flight.wrapping_neg().wrapping_sub(1),
            10 => (flight / 2).wrapping_neg(),
            11 => u32::from(far).wrapping_neg(),
            12 => 1 << 31,
            13 => (1_u32 << 16).wrapping_neg(),
            14 => u32::from(far),
            _ => u32::from(far) << 24,
        };
        // Mostly one of the flags' usual combinations.
        let usual = [ACK, ACK, ACK | PSH, ACK | FIN, SYN, SYN | ACK, RST, RST | ACK, 0, FIN, ACK | FIN | PSH, ACK];
        let flags = if flags < 240 { usual[usize::from(flags) % usual.len()] } else { flags << 2 | flags & 3 };
        let mut segment = Segment {
            src_port: peer.port,
            dst_port: peer.local_port,
            seq: peer.next().wrapping_add(seq),
            ack: peer.seen.wrapping_add(ack),
            flags,
            window: [u16::MAX, 0, 1, 100, 1_460, 30_000, u16::from(far), u16::from(far) << 8][usize::from(more >> 5)],
            payload_len: [0, 0, 1, 2, 100, 536, 1_400, usize::from(far)][usize::from(more & 7)],
            ..Segment::default()
        };
        let now_ms = self.now.as_millis32();
        match more >> 3 & 3 {
            0 if flags & SYN != 0 => syn_options(far, now_ms, peer.ts_echo, &mut segment.options),
            0 => timestamps(now_ms, peer.ts_echo, &mut segment.options),
            1 => {
                let stale = [1, 100_000, 1 << 31, 0x7fff_ffff][usize::from(far & 3)];
                timestamps(
                    now_ms.wrapping_sub(stale),
                    peer.ts_echo.map(|echo| echo.wrapping_add(far.into())),
                    &mut segment.options,
                );
            }
            2 => {
                timestamps(now_ms, peer.ts_echo, &mut segment.options);
                let blocks = usize::from(1 + far % 3);
                segment.options.extend_from_slice(&[1, 1, 5, 2 + 8 * blocks as u8]);
                for _ in 0..blocks {
                    let (from, len) = (self.source.byte(), self.source.byte());
                    let part = |of: u8| (u64::from(of) * u64::from(flight.max(64)) / 128) as u32;
                    let start = peer.una.wrapping_add(part(from));
                    let end = start.wrapping_add(part(len));
                    segment.options.extend_from_slice(&start.to_be_bytes());
                    segment.options.extend_from_slice(&end.to_be_bytes());
                }
            }
            _ => segment.options.extend_from_slice(self.source.take(usize::from(far % 41))),
        }
        frames::segment(&segment, &self.addresses, out);
    }

    fn call(&mut self) {
        let (which, what, more) = (self.source.byte(), self.source.byte(), self.source.byte());
        let len = [0, 1, 100, 1_460, 1_461, 5_000, 70_000, usize::from(more)][usize::from(more & 7)];
        let port = [80, 81, 0][usize::from(more) % 3];
        let of_conn = match what % 20 {
            0..=4 => OfConn::Write(len),
            5 | 6 => OfConn::Send(len),
            7 | 8 => OfConn::Shutdown,
            9 => OfConn::Close,
            10 => OfConn::Abort,
            11 | 12 => OfConn::Read,
            13 => return self.app.calls.push(Call::Forget),
            14 | 15 => return self.app.calls.push(Call::Connect(2_000 + u16::from(more & 1))),
            16 => return self.app.calls.push(Call::Listen(port)),
            17 => return self.app.calls.push(Call::Unlisten(port)),
            18 => OfConn::Nodelay(more & 1 == 0),
            _ if more & 1 == 0 => OfConn::Timer(u64::from(more) * 10),
            _ => OfConn::ClearTimer,
        };
        self.app.calls.push(Call::OfConn(which, of_conn));
    }

    /// One turn of a worker's loop.
    fn turn(&mut self) {
        let Device { near, rx, tx, answers, .. } = &mut self.device;
        near.rx_burst(rx);
        self.given += rx.len() as u64;
        let before = tx.len() + answers.len();
        self.app.seen.states[State::SynReceived as usize] += u64::from(self.stack.half_open());
        self.app.seen.states[State::TimeWait as usize] += u64::from(self.stack.time_waits());
        if self.stalled && !tx.is_empty() {
            // As the worker does: it sends nothing new, but answers.
            self.stack.take_in(self.now, rx, answers, &mut self.app);
            self.taken += (tx.len() + answers.len() - before) as u64;
        } else {
            self.stack.turn(self.now, rx, tx, &mut self.app);
            self.taken += (tx.len() + answers.len() - before) as u64;
            let mut turns = 0;
            while !self.stalled {
                self.device.take();
                let done = self.stack.output(&mut self.device.tx);
                self.taken += self.device.tx.len() as u64;
                turns += 1;
                assert!(turns < 10_000, "output goes on for ever");
                if done && self.device.tx.is_empty() {
                    break;
                }
            }
        }
        assert!(self.device.rx.is_empty(), "a burst is taken whole");
        if self.tell {
            self.stack.trace().iter().skip(self.told).for_each(|record| println!("{record:?}"));
            self.told = self.stack.trace().iter().count();
        }
        self.check();
    }

    /// The device is done with so many frames, and the peers see them.
    fn sent(&mut self, count: usize) {
        if !self.stalled {
            self.device.take();
        }
        let Case { device, peers, addresses, .. } = self;
        device.sent(count, |frame| observe(frame, addresses, peers));
    }

    fn check(&self) {
        self.stack.check().unwrap_or_else(|broken| panic!("{broken}"));
        let Device { near, sending, tx, answers, .. } = &self.device;
        let metrics = self.stack.metrics();
        assert_eq!(metrics.get(Counter::PacketsReceived), self.given, "every frame that came is counted");
        assert_eq!(metrics.get(Counter::PacketsSent), self.taken, "every frame that went is counted");
        let census = near.pool().census();
        assert_eq!(
            census.sending as usize,
            sending.len() + tx.len() + answers.len(),
            "what the device has: {census:?}"
        );
        assert_eq!(
            census.owned as usize,
            self.stack.left().frames + self.app.held.len(),
            "what queues have: {census:?}"
        );
        assert_eq!(census.moving, 0);
        let opened = metrics.get(Counter::ActiveOpens) + metrics.get(Counter::PassiveOpens);
        assert!(metrics.get(Counter::Established) <= opened, "no connection without a SYN");
        assert!(
            metrics.get(Counter::ClosedOrderly)
                <= metrics.get(Counter::Established) + metrics.get(Counter::ActiveOpens)
        );
    }

    /// The network falls silent, the application closes or aborts, time passes: nothing may be left.
    fn end(&mut self) {
        self.stalled = false;
        self.app.habits = habit::CLOSES;
        self.app.echoes = false;
        let aborts = self.given & 1 == 0;
        self.app.calls = vec![Call::Forget, Call::Unlisten(80), Call::Unlisten(81)];
        let (mut turns, mut nothing_due) = (0, false);
        loop {
            // What arrived before the end may still open. A call makes a turn due at once, so not each time.
            let conns = if turns % 16 == 0 || nothing_due { self.app.conns.len() } else { 0 };
            for which in 0..conns as u8 {
                // Those that abort leave the list.
                let (which, call) = if aborts { (0, OfConn::Abort) } else { (which, OfConn::Close) };
                self.app.calls.push(Call::OfConn(which, call));
            }
            self.turn();
            self.sent(usize::MAX);
            if self.stack.left() == Left::default() && self.device.sending.is_empty() {
                break;
            }
            turns += 1;
            // What waits for a frame looks again each millisecond, until it is given up.
            assert!(turns < 100_000, "it does not end: {:?}", self.stack.left());
            let due = self.stack.next_deadline();
            assert!(due.is_some() || !nothing_due, "nothing is due: {:?}", self.stack.left());
            nothing_due = due.is_none();
            self.now = self.now.max(due.unwrap_or(self.now));
        }
        assert!(self.app.conns.is_empty(), "the application hears of every end");
        let pool = self.device.near.pool();
        let census = pool.census();
        assert_eq!((census.owned, census.sending), (0, 0), "every frame is back: {census:?}");
    }
}

/// Every frame that the stack sends is well-formed, and its stream is where its sequence numbers say.
fn observe(frame: &[u8], addresses: &Addresses, peers: &mut [Peer]) {
    let packet = packet::parse(frame, true).unwrap_or_else(|reason| panic!("{reason:?} of our own: {frame:02x?}"));
    let Packet::Tcp(net, segment) = packet else { return };
    assert!(net.src == addresses.own, "from an address that is not ours: {:?}", net.src);
    // An address may have been changed on the way to us.
    let peers = if net.dst == addresses.peer { peers } else { &mut [] };
    let Some(peer) = peers.iter_mut().find(|peer| peer.port == segment.dst_port) else { return };
    peer.last = frame[usize::from(net.link.header_len)..].to_vec();
    let flags = segment.flags;
    if flags.syn() {
        assert!(!flags.fin() && !flags.rst() && segment.payload_len == 0);
        let again = peer.iss == Some(segment.seq.0);
        peer.iss = Some(segment.seq.0);
        if !again {
            (peer.una, peer.seen, peer.acked, peer.phase) = (segment.seq.0, segment.seq.0, None, None);
        }
        peer.shift = segment.window_scale.unwrap_or(0);
        peer.local_port = segment.src_port;
    }
    // Another connection to the same port of the peer, or one that a cookie opened whose SYN-ACK was not the last.
    let is_of = |iss: u32| segment.seq.0.wrapping_sub(iss) < 1 << 24;
    if segment.src_port != peer.local_port || !(flags.rst() || peer.iss.is_none_or(is_of)) {
        return;
    }
    if flags.rst() {
        (peer.iss, peer.acked) = (None, None);
        return;
    }
    let end = segment.seq.add(segment.len());
    if end.0.wrapping_sub(peer.seen) as i32 > 0 {
        peer.seen = end.0;
    }
    if flags.ack() {
        peer.acked = Some(segment.ack.0);
        peer.window = u32::from(segment.window) << if flags.syn() { 0 } else { peer.shift };
    }
    peer.ts_echo = segment.timestamps.map(|timestamps| timestamps.value);
    let payload = &frame[net.payload_range(&segment)];
    if let Some(&first) = payload.first() {
        let phase = *peer.phase.get_or_insert(first.wrapping_sub(segment.seq.0 as u8));
        for (at, &byte) in payload.iter().enumerate() {
            let expected = (segment.seq.0 as u8).wrapping_add(at as u8).wrapping_add(phase);
            assert_eq!(byte, expected, "byte {at} of what is sent at {:?}", segment.seq);
        }
    }
}

fn syn_options(what: u8, now_ms: u32, echo: Option<u32>, out: &mut Vec<u8>) {
    if what & 1 == 0 {
        let mss: u16 = [1_460, 536, 0, 9_000][usize::from(what >> 4 & 3)];
        out.extend_from_slice(&[2, 4]);
        out.extend_from_slice(&mss.to_be_bytes());
    }
    if what & 2 == 0 {
        out.extend_from_slice(&[1, 3, 3, what >> 3 & 15]);
    }
    if what & 4 == 0 {
        out.extend_from_slice(&[1, 1, 4, 2]);
    }
    if what & 8 == 0 {
        timestamps(now_ms, echo.or(Some(0)), out);
    }
}

fn timestamps(value: u32, echo: Option<u32>, out: &mut Vec<u8>) {
    if let Some(echo) = echo {
        out.extend_from_slice(&[1, 1, 8, 10]);
        out.extend_from_slice(&value.to_be_bytes());
        out.extend_from_slice(&echo.to_be_bytes());
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
