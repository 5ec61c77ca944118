//! The work that is measured: in time by criterion, in instructions by `scripts/bench-counts`.
//!
//! Each body does the same work in every run: secrets and random numbers are fixed, and time is what the body says it is.

use std::collections::VecDeque;
use std::hint::black_box;

use handfast::app::{App, ConnId, Cx};
use handfast::config::Config;
use handfast::demux::flow::{FlowHasher, FlowKey};
use handfast::demux::flows::{Flows, Owner};
use handfast::metrics::Counter;
use handfast::time::{Duration, Instant};
use handfast::timer_wheel::TimerWheel;
use handfast::wire::address::{Address, Mac};
use handfast::wire::checksum::{self, Sum};
use handfast::wire::ethernet::{ETHERTYPE_IPV4, Ethernet};
use handfast::wire::packet::{self, Ip};
use handfast::wire::tcp::{Flags, Header, Options, Segment, Seq, Timestamps};
use handfast::wire::usual::Usual;
use handfast_drivers::burst::{BURST, RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use handfast_drivers::frame::{FramePool, FrameSize};
use handfast_drivers::wire;

use crate::duo::{CloseBack, Duo, End, OpenAbort, OpenClose, Sink};

/// A piece of work that can be done any number of times.
pub struct Body {
    /// What is done.
    pub name: &'static str,
    /// Payload bytes of one operation; 0 where they do not matter.
    pub bytes: u64,
    /// The two numbers of operations whose difference is counted in instructions; `None`: this body is only timed.
    pub counted: Option<(u64, u64)>,
    /// It takes long to set up, or much memory.
    pub heavy: bool,
    /// Sets up.
    pub make: fn() -> Work,
}

/// Does so many operations.
pub type Work = Box<dyn FnMut(u64)>;

/// All bodies, the smallest work first.
pub const ALL: &[Body] = &[
    body("frame/alloc-post-complete", (10_000, 30_000), frame_posted),
    body("frame/hold-post-complete-ack", (10_000, 30_000), frame_held),
    Body { bytes: 64, ..body("checksum/64", (10_000, 30_000), || checksum_of(64)) },
    Body { bytes: 1_448, ..body("checksum/1448", (2_000, 6_000), || checksum_of(1_448)) },
    Body { bytes: 8_192, ..body("checksum/8192", (1_000, 3_000), || checksum_of(8_192)) },
    body("parse/ack", (10_000, 30_000), || parse(0)),
    Body { bytes: 1_448, ..body("parse/1448", (2_000, 6_000), || parse(1_448)) },
    Body { counted: None, ..body("flows/find/1k", NEVER, || flows_find(1_000)) },
    body("flows/find/100k", (64_000, 192_000), || flows_find(100_000)),
    Body { counted: None, ..body("flows/find/1M", NEVER, || flows_find(1_000_000)) },
    Body { counted: None, heavy: true, ..body("flows/find/10M", NEVER, || flows_find(10_000_000)) },
    Body { counted: None, ..body("flows/replace-one/1k", NEVER, || flows_churn(1_000)) },
    body("flows/replace-one/100k", (64_000, 192_000), || flows_churn(100_000)),
    Body { counted: None, ..body("flows/replace-one/1M", NEVER, || flows_churn(1_000_000)) },
    Body { counted: None, heavy: true, ..body("flows/replace-one/10M", NEVER, || flows_churn(10_000_000)) },
    body("wheel/arm-cancel", (10_000, 30_000), wheel_moves),
    body("wheel/arm-expire", (10_000, 30_000), wheel_expires),
    body("handshake/server", (1_280, 3_840), handshake),
    body("handshake-abort/both-ends", (1_280, 3_840), handshake_abort),
    body("connection/both-ends", (1_280, 3_840), connection),
    Body { bytes: 64, ..body("request-response/64", (2_560, 7_680), request_response) },
    Body { bytes: 1_448, ..body("bulk/segment", (2_560, 7_680), bulk) },
];

const NEVER: (u64, u64) = (0, 0);

const fn body(name: &'static str, counted: (u64, u64), make: fn() -> Work) -> Body {
    Body { name, bytes: 0, counted: Some(counted), heavy: false, make }
}

/// A frame is taken, filled with a header's length, sent, and comes back: what an acknowledgment costs in frames.
fn frame_posted() -> Work {
    let pool = FramePool::with_frames(1_024, FrameSize::Small);
    let mut tx = TxBurst::new();
    in_bursts(move |burst| {
        for _ in 0..burst {
            let mut frame = pool.alloc().expect("all frames came back");
            black_box(frame.append(54));
            tx.push(frame);
        }
        tx.cancel();
    })
}

/// A frame with payload is held, its header written, sent, comes back from the device, and is acknowledged.
fn frame_held() -> Work {
    let pool = FramePool::with_frames(1_024, FrameSize::Small);
    let mut tx = TxBurst::new();
    let mut kept = Vec::with_capacity(BURST);
    in_bursts(move |burst| {
        for _ in 0..burst {
            let mut frame = pool.alloc().expect("all frames came back");
            black_box(frame.append(1_448));
            let mut held = frame.hold();
            let (header, payload) = held.header_mut(54).expect("it is not sent yet");
            black_box((header, payload));
            tx.push_held(&mut held, 54, 1_448).expect("it is not sent yet");
            kept.push(held);
        }
        tx.cancel();
        kept.clear();
    })
}

fn checksum_of(len: usize) -> Work {
    let bytes: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    Box::new(move |n| {
        for _ in 0..n {
            black_box(checksum::finish(checksum::sum(Sum::ZERO, black_box(&bytes))));
        }
    })
}

/// Reads a frame's headers and verifies its checksums.
fn parse(payload_len: usize) -> Work {
    let payload = vec![0x5a; payload_len];
    let options = Options { timestamps: Some(Timestamps { value: 7, echo: 9 }), ..Options::default() };
    let header =
        Header { src_port: 40_000, dst_port: 80, flags: Flags::ACK, window: 1_000, options, ..Header::default() };
    let frame = packet_to_server(1, &header, &payload);
    let usual = Usual::new(frame.first_chunk().map(|octets| Mac(*octets)), true);
    let mut segment = Segment::default();
    Box::new(move |n| {
        for _ in 0..n {
            let ends = usual.read(black_box(&frame), &mut segment);
            black_box((ends.expect("it is usual"), &segment));
        }
    })
}

/// Finds flows of a full table in random order, a burst at a time as the stack does.
fn flows_find(flows: u32) -> Work {
    let (hasher, index) = full_table(flows);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut wanted = [(0, 0); BURST];
    in_bursts(move |burst| {
        for wanted in &mut wanted[..burst] {
            let flow = random.below(flows);
            *wanted = (flow, hasher.hash(&flow_key(flow)));
            index.prefetch(wanted.1);
        }
        for &(flow, hash) in &wanted[..burst] {
            let found = index.find(hash, |owner| owner == Owner::Conn(flow));
            assert_eq!(found, Some(Owner::Conn(flow)));
        }
    })
}

/// Forgets the oldest flow of a full table and adds a new one, a burst at a time.
fn flows_churn(flows: u32) -> Work {
    let (hasher, mut index) = full_table(flows);
    // Numbers of flows that are not in the table: as many as a connection's key has in this bench, less those that are.
    let (mut oldest, mut newest) = (0, flows);
    let turn_over = |flow: u32| if flow + 1 == Owner::INDEX_LIMIT { 0 } else { flow + 1 };
    in_bursts(move |burst| {
        let mut hashes = [(0, 0); BURST];
        let (mut going, mut coming) = (oldest, newest);
        for hashes in &mut hashes[..burst] {
            *hashes = (hasher.hash(&flow_key(going)), hasher.hash(&flow_key(coming)));
            index.prefetch(hashes.0);
            index.prefetch(hashes.1);
            (going, coming) = (turn_over(going), turn_over(coming));
        }
        for &(going, coming) in &hashes[..burst] {
            assert!(index.remove(going, Owner::Conn(oldest)));
            assert!(index.insert(coming, Owner::Conn(newest)).is_some());
            (oldest, newest) = (turn_over(oldest), turn_over(newest));
        }
    })
}

fn full_table(flows: u32) -> (FlowHasher, Flows) {
    let hasher = FlowHasher::new([1, 2, 3, 4]);
    let mut index = Flows::with_capacity(flows);
    for flow in 0..flows {
        assert!(index.insert(hasher.hash(&flow_key(flow)), Owner::Conn(flow)).is_some());
    }
    (hasher, index)
}

/// Flow number `flow` of a server: the peer's address and port differ.
fn flow_key(flow: u32) -> FlowKey {
    let [a, b, c, d] = flow.to_be_bytes();
    FlowKey {
        local: Address::v4([10, 0, 0, 2]),
        remote: Address::v4([172, a, b, c]),
        local_port: 80,
        remote_port: 1_024 + u16::from(d),
    }
}

/// A hundred thousand timers; one is moved and another taken back and set again. As connections do that send and are answered.
fn wheel_moves() -> Work {
    let mut wheel = TimerWheel::new(TIMERS, 0);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    (0..TIMERS).for_each(|id| wheel.arm(id, 1 + random.below(60_000)));
    Box::new(move |n| {
        for _ in 0..n {
            wheel.arm(random.below(TIMERS), 1 + random.below(60_000));
            let id = random.below(TIMERS);
            black_box(wheel.cancel(id));
            wheel.arm(id, 1 + random.below(60_000));
        }
    })
}

/// A hundred thousand timers expire over a minute, and each is set again when it does.
fn wheel_expires() -> Work {
    let mut wheel = TimerWheel::new(TIMERS, 0);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    (0..TIMERS).for_each(|id| wheel.arm(id, 1 + random.below(60_000)));
    let mut now = 0u32;
    Box::new(move |n| {
        let mut left = n;
        while left > 0 {
            match wheel.pop_expired(now) {
                Some(id) => {
                    wheel.arm(id, now.wrapping_add(1 + random.below(60_000)));
                    left -= 1;
                }
                None => now = now.wrapping_add(1),
            }
        }
    })
}

const TIMERS: u32 = 100_000;

/// The server's side of SYN, SYN-ACK, ACK, and the reset that ends it. The peer patches packets that it has prepared.
fn handshake() -> Work {
    let (mut peer, wire) = wire::pair(wire::Config::default());
    let mut config = config();
    config.ip.addresses = vec![crate::duo::own_address(2)];
    config.ip.neighbours = vec![(PEER, Mac(PEER_MAC))];
    config.listen = vec![80];
    let mut server = End::new(wire, config, CloseBack);
    let mut packets: Vec<_> = (0..BURST as u16).map(Prepared::new).collect();
    let (mut rx, mut tx) = (RxBurst::new(), TxBurst::new());
    let mut now = Instant::from_micros(1_000_000);
    in_bursts(move |burst| {
        let mut exchange = |which: fn(&Prepared) -> &[u8], packets: &mut [Prepared], answers: usize| {
            for packet in packets.iter() {
                let mut frame = peer.pool().alloc().expect("frames came back");
                frame.extend_from_slice(which(packet));
                tx.push(frame);
            }
            peer.tx_burst(&mut tx);
            server.turn(now);
            peer.rx_burst(&mut rx);
            assert_eq!(rx.len(), answers);
            for (packet, answer) in packets.iter_mut().zip(rx.drain(..)) {
                packet.answered(&answer);
            }
            now += Duration::from_micros(20);
        };
        let packets = &mut packets[..burst];
        exchange(|prepared| &prepared.syn, packets, burst);
        exchange(|prepared| &prepared.ack, packets, 0);
        exchange(|prepared| &prepared.reset, packets, 0);
        assert_eq!((server.stack.connections(), server.stack.half_open()), (0, 0));
    })
}

/// A client's packets of one handshake, whole but for the acknowledgment number.
struct Prepared {
    syn: Vec<u8>,
    ack: Vec<u8>,
    reset: Vec<u8>,
}

impl Prepared {
    fn new(at: u16) -> Prepared {
        let timestamps = Some(Timestamps { value: 1, echo: 0 });
        let syn = Options { mss: Some(1_460), window_scale: Some(7), sack_permitted: true, timestamps };
        let (seq, next) = (Seq(1_000), Seq(1_001));
        let packet = |seq, flags, options| {
            let header =
                Header { src_port: 2_000 + at, dst_port: 80, seq, flags, window: 65_535, options, ..Header::default() };
            packet_to_server(1, &header, &[])
        };
        Prepared {
            syn: packet(seq, Flags::SYN, syn),
            ack: packet(next, Flags::ACK, Options { timestamps, ..Options::default() }),
            reset: packet(next, Flags::RST | Flags::ACK, Options { timestamps, ..Options::default() }),
        }
    }

    /// Puts the number in that acknowledges this SYN-ACK.
    fn answered(&mut self, syn_ack: &[u8]) {
        let Some(&seq) = syn_ack[SEQ_AT..].first_chunk::<4>() else { return };
        let ack = u32::from_be_bytes(seq).wrapping_add(1).to_be_bytes();
        for packet in [&mut self.ack, &mut self.reset] {
            for half in [0, 2] {
                let at = SEQ_AT + 4 + half;
                let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
                let new = u16::from_be_bytes([ack[half], ack[half + 1]]);
                let sum = u16::from_be_bytes([packet[SUM_AT], packet[SUM_AT + 1]]);
                packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
                packet[SUM_AT..SUM_AT + 2].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
            }
        }
    }
}

/// Where the sequence number of an IPv4 packet is, and its TCP checksum.
const SEQ_AT: usize = 14 + 20 + 4;
const SUM_AT: usize = 14 + 20 + 16;

/// What the comparison with peers does: a handshake and a reset, both ends, 64 at once.
fn handshake_abort() -> Work {
    let mut duo = Duo::new(wire::Config::default(), &config(), &[80], OpenAbort::default(), CloseBack);
    Box::new(move |n| {
        duo.client.app.at_once = BURST as u32;
        for _ in 0..n.div_ceil(BURST as u64) {
            duo.open_and_abort(STEP);
        }
    })
}

/// A whole connection, both ends, 64 at once: SYN, SYN-ACK, a FIN each way, all acknowledged, TIME-WAIT, and its end.
fn connection() -> Work {
    let ports: Vec<u16> = (1_000..1_256).collect();
    let client = OpenClose { concurrency: BURST as u32, ports: ports.clone(), ..OpenClose::default() };
    let mut duo = Duo::new(wire::Config::default(), &config(), &ports, client, CloseBack);
    let two_msl = 2 * config().tcp.msl.as_millis();
    Box::new(move |n| {
        let end = duo.client.app.done + n;
        duo.client.app.begin_max = end;
        duo.start();
        while duo.client.app.done < end {
            duo.turn(STEP);
            // Where more is begun than TIME-WAIT holds, the oldest must be over first.
            if duo.client.stack.time_waits() >= TIME_WAITS_KEPT {
                duo.turn(Duration::from_millis(two_msl + 100));
            }
        }
        duo.turn(Duration::from_millis(two_msl + 100));
        while duo.client.stack.connections() + duo.server.stack.connections() + duo.client.stack.time_waits() > 0 {
            duo.turn(STEP);
        }
        assert_eq!(duo.client.app.failed, 0, "each closed in order");
        assert_eq!(duo.server.stack.metrics().get(Counter::Retransmissions), 0, "nothing was lost");
    })
}

const TIME_WAITS_KEPT: u32 = 500_000;

/// A request of 64 bytes and its answer, on 64 connections at once.
fn request_response() -> Work {
    let client = Asker { open: BURST, ..Asker::default() };
    let mut duo = Duo::new(wire::Config::default(), &config(), &[80], client, Echo);
    while duo.client.app.idle.len() < BURST {
        duo.turn(STEP);
    }
    Box::new(move |n| {
        duo.client.app.left = n;
        while duo.client.app.left > 0 || duo.client.app.idle.len() < BURST {
            duo.turn(STEP);
        }
    })
}

/// Asks, and asks again on whichever connection is answered.
#[derive(Default)]
struct Asker {
    open: usize,
    idle: VecDeque<ConnId>,
    left: u64,
}

impl App for Asker {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.open {
            cx.connect(([10, 0, 0, 2], 80).into()).expect("there is room");
        }
    }

    fn on_connect(&mut self, _: &mut Cx<'_>, conn: ConnId) {
        self.idle.push_back(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let mut answered = false;
        while let Some(frame) = cx.recv(conn) {
            answered |= frame.len() == REQUEST.len();
        }
        if answered {
            self.idle.push_back(conn);
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        while self.left > 0
            && let Some(conn) = self.idle.pop_front()
        {
            assert_eq!(cx.write(conn, &REQUEST), REQUEST.len(), "the queue is empty");
            self.left -= 1;
        }
    }
}

const REQUEST: [u8; 64] = [0x51; 64];

struct Echo;

impl App for Echo {
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(frame) = cx.recv(conn) {
            cx.send(conn, frame).expect("there is room for one request");
        }
    }
}

/// Full segments one way, in frames, as fast as windows let them.
fn bulk() -> Work {
    let mut duo = Duo::new(wire::Config::default(), &config(), &[80], Source::default(), Sink::default());
    Box::new(move |n| {
        let end = duo.server.app.received + n * SEGMENT_LEN;
        duo.client.app.left = n;
        while duo.server.app.received < end {
            duo.turn(STEP);
        }
        assert_eq!(duo.client.stack.metrics().get(Counter::Retransmissions), 0, "nothing was lost");
    })
}

/// Sends full segments.
#[derive(Default)]
struct Source {
    conn: Option<ConnId>,
    left: u64,
}

impl App for Source {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        cx.connect(([10, 0, 0, 2], 80).into()).expect("there is room");
    }

    fn on_connect(&mut self, _: &mut Cx<'_>, conn: ConnId) {
        self.conn = Some(conn);
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        let Some(conn) = self.conn else { return };
        while self.left > 0
            && cx.room(conn) > 0
            && let Some(mut frame) = cx.alloc()
        {
            frame.append(SEGMENT_LEN as usize);
            cx.send(conn, frame).expect("room was checked");
            self.left -= 1;
        }
    }
}

const SEGMENT_LEN: u64 = 1_448;

/// Room for what the bodies do.
fn config() -> Config {
    let mut config = Config::default();
    config.limits.conns_max = 65_536;
    config.limits.time_wait_max = 1 << 20;
    config
}

/// How much time passes in a turn of both ends.
const STEP: Duration = Duration::from_micros(20);

/// Has work done a burst at a time.
fn in_bursts(mut burst: impl FnMut(usize) + 'static) -> Work {
    Box::new(move |n| {
        let mut left = n;
        while left > 0 {
            let some = left.min(BURST as u64);
            burst(some as usize);
            left -= some;
        }
    })
}

/// A whole packet from host `last` of the wire's network to the server.
fn packet_to_server(last: u8, header: &Header, payload: &[u8]) -> Vec<u8> {
    let link = Ethernet { dst: Mac(SERVER_MAC), src: Mac(PEER_MAC), vlan: None, ethertype: ETHERTYPE_IPV4 };
    let ip = Ip::new(Address::v4([10, 0, 0, last]), Address::v4([10, 0, 0, 2]));
    let headers_len = packet::headers_len(false, false, header, &[]);
    let mut frame = vec![0; headers_len + payload.len()];
    frame[headers_len..].copy_from_slice(payload);
    let (room, payload) = frame.split_at_mut(headers_len);
    packet::emit_headers(room, &link, &ip, header, &[], payload, true);
    frame
}

const PEER: Address = Address::v4([10, 0, 0, 1]);
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];

/// The same numbers in every run (xorshift64*).
struct Random(u64);

impl Random {
    #[inline]
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
        ((u64::from(word) * u64::from(limit)) >> 32) as u32
    }
}
