//! One stack and a peer made by hand: each segment is written here, and each answer is looked at.

use alloc::string::String;
use core::fmt::Write;

use super::*;
use crate::tcp::state::State;
use crate::wire::ethernet::Ethernet;

use crate::wire::packet;
use crate::wire::tcp::{Flags, Header, Seq, Timestamps};

pub(super) const SYN: Flags = Flags::SYN;
pub(super) const ACK: Flags = Flags::ACK;
pub(super) const RST: Flags = Flags::RST;
pub(super) const FIN_ACK: Flags = Flags(Flags::FIN.0 | Flags::ACK.0);
pub(super) const SYN_ACK: Flags = Flags(Flags::SYN.0 | Flags::ACK.0);
pub(super) const RST_ACK: Flags = Flags(Flags::RST.0 | Flags::ACK.0);

/// The peer's initial sequence number.
pub(super) const IRS: u32 = 1_000;
/// The first byte that the peer sends.
pub(super) const NXT: u32 = IRS + 1;

/// A segment of the peer. Sequence numbers are absolute on its side and relative to our ISS on ours.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) port: u16,
    /// After our ISS; `None` for everything that was seen.
    pub(super) ack: Option<u32>,
}

/// `<SEQ=seq><CTL=flags>`, acknowledging all that we sent, with a window of 10,000.
pub(super) fn segment(flags: Flags, seq: u32) -> Out {
    let header = Header { flags, seq: Seq(seq), window: 10_000, ..Header::default() };
    Out { header, payload: Vec::new(), port: PORT, ack: None }
}

impl Out {
    /// Acknowledges `ack` sequence numbers after our ISS, where the default is everything that was seen.
    pub(super) fn ack(mut self, ack: u32) -> Out {
        self.ack = Some(ack);
        self
    }
    pub(super) fn data(mut self, payload: &[u8]) -> Out {
        self.payload = payload.to_vec();
        self
    }
    pub(super) fn window(mut self, window: u16) -> Out {
        self.header.window = window;
        self
    }
    pub(super) fn stamp(mut self, value: u32) -> Out {
        self.header.options.timestamps = Some(Timestamps { value, echo: 0 });
        self
    }
    pub(super) fn port(mut self, port: u16) -> Out {
        self.port = port;
        self
    }
}

/// What the stack sent: flags, SEG.SEQ relative to our ISS, SEG.ACK relative to the peer's, payload.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) flags: Flags,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) payload: Vec<u8>,
}

impl core::fmt::Debug for Answer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "<{:?} seq={} ack={} len={}>", self.flags, self.seq, self.ack.wrapping_sub(IRS), self.payload.len())
    }
}

pub(super) fn answer(flags: Flags, seq: u32, ack: u32) -> Answer {
    Answer { flags, seq, ack, payload: Vec::new() }
}

/// An application that writes down what it hears, and reads unless it is told not to.
#[derive(Default)]
pub(super) struct Diary {
    pub(super) log: String,
    pub(super) read: Vec<u8>,
    pub(super) lazy: bool,
    pub(super) conn: Option<ConnId>,
    pub(super) on_accept: Option<fn(&mut Cx<'_>, ConnId)>,
    pub(super) on_close: Option<fn(&mut Cx<'_>, ConnId)>,
    pub(super) on_peer_close: Option<fn(&mut Cx<'_>, ConnId)>,
}

impl Diary {
    fn note(&mut self, what: impl core::fmt::Debug) {
        let space = if self.log.is_empty() { "" } else { " " };
        write!(self.log, "{space}{what:?}").unwrap();
    }
}

#[derive(Debug)]
pub(super) enum Heard {
    Accepted,
    Connected,
    Data,
    PeerClosed,
    Timer,
}

impl App for Diary {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.note(Heard::Accepted);
        self.conn = Some(conn);
        self.on_accept.inspect(|call| call(cx, conn));
    }
    fn on_connect(&mut self, _: &mut Cx<'_>, _: ConnId) {
        self.note(Heard::Connected);
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.note(Heard::Data);
        while !self.lazy
            && let Some(frame) = cx.recv(conn)
        {
            self.read.extend_from_slice(&frame);
        }
    }
    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.note(Heard::PeerClosed);
        self.on_peer_close.inspect(|call| call(cx, conn));
    }
    fn on_timer(&mut self, _: &mut Cx<'_>, _: ConnId) {
        self.note(Heard::Timer);
    }
    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        self.note(how);
        self.on_close.inspect(|call| call(cx, conn));
    }
}

/// The stack under test and the peer's end of the wire.
pub(super) struct Peer {
    pub(super) host: Host<Diary>,
    pub(super) wire: WireDriver,
    pub(super) now: Instant,
    pub(super) iss: Seq,
    /// TSecr of the last segment.
    pub(super) echo: Option<u32>,
    /// TSval of the last segment.
    pub(super) stamp: Option<u32>,
    /// One past the last sequence number that we were sent.
    pub(super) seen: Seq,
    pub(super) header: Header,
    pub(super) window: u32,
    /// What it acknowledged with that window.
    pub(super) acked: Seq,
}

pub(super) const PORT: u16 = 40_000;

impl Peer {
    pub(super) fn with(configure: impl FnOnce(&mut Config)) -> Peer {
        let (ours, wire) = wire::pair(wire::Config { frames_per_queue: 512, ring_len: 64, ..wire::Config::default() });
        let mac = Mac(wire.caps().mac);
        let configure = |config: &mut Config| {
            config.ip.neighbours = vec![(CLIENT, mac)];
            config.tcp.ack_delay = Duration::ZERO;
            config.limits.conns_max = 16;
            config.limits.syn_rcvd_max = 16;
            config.limits.time_wait_max = 16;
            config.limits.frames_reserved = 8;
            configure(config);
        };
        let mut host = Host::new(ours, SERVER, configure, Diary::default());
        host.stack.listen(None, 80).unwrap();
        let mut peer = Peer {
            host,
            wire,
            now: Instant::from_micros(1_000_000),
            iss: Seq(0),
            echo: None,
            stamp: None,
            seen: Seq(0),
            header: Header::default(),
            window: 0,
            acked: Seq(0),
        };
        peer.turn();
        peer
    }

    pub(super) fn new() -> Peer {
        Peer::with(|_| {})
    }

    /// Everything that the stack has sent by now.
    pub(super) fn turn(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            self.host.turn(self.now);
            let mut rx = RxBurst::new();
            self.wire.rx_burst(&mut rx);
            self.wire.flush();
            if rx.is_empty() {
                return answers;
            }
            for frame in rx.drain(..) {
                let Ok(packet::Packet::Tcp(net, seg)) = packet::parse(&frame, true) else { panic!("not TCP") };
                if seg.flags.syn() {
                    (self.iss, self.seen) = (seg.seq, seg.seq);
                    self.header.dst_port = seg.src_port;
                }
                self.echo = seg.timestamps.map(|timestamps| timestamps.echo);
                self.stamp = seg.timestamps.map(|timestamps| timestamps.value);
                let end = seg.seq.add(seg.len());
                if !seg.flags.rst() {
                    self.seen = self.seen.max(end);
                    (self.window, self.acked) = (seg.window.into(), seg.ack);
                }
                let payload = frame[net.payload_range(&seg)].to_vec();
                let seq = if seg.flags.rst() && self.iss == Seq(0) { seg.seq.0 } else { seg.seq.since(self.iss) };
                let ack = if seg.flags.ack() { seg.ack.0 } else { 0 };
                let flags = Flags(seg.flags.0 & !Flags::PSH.0);
                answers.push(Answer { flags, seq, ack, payload });
            }
        }
    }

    /// Puts a segment on the wire.
    pub(super) fn put(&mut self, out: Out) {
        let mut out = out;
        out.header.dst_port = if self.header.dst_port == 0 { 80 } else { self.header.dst_port };
        self.put_between(CLIENT, SERVER, out);
    }

    /// Puts a segment on the wire that goes from one address to another, to the port that it says.
    pub(super) fn put_between(&mut self, src: Address, dst: Address, out: Out) {
        let Out { mut header, payload, port, ack } = out;
        header.src_port = port;
        if header.flags.ack() {
            header.ack = ack.map_or(self.seen, |ack| self.iss.add(ack));
        }
        let link = Ethernet {
            dst: Mac(self.host.driver.caps().mac),
            src: Mac(self.wire.caps().mac),
            vlan: None,
            ethertype: 0,
        };
        let mut frame = self.wire.pool().alloc().unwrap();
        frame.extend_from_slice(&payload);
        let len = packet::headers_len(false, false, &header, &[]);
        let ip = packet::Ip::new(src, dst);
        packet::emit_headers(frame.prepend(len), &link, &ip, &header, &[], &payload, true);
        let mut tx = TxBurst::new();
        tx.push(frame);
        self.wire.tx_burst(&mut tx);
        self.wire.flush();
    }

    /// A segment arrives; what is answered.
    pub(super) fn send(&mut self, out: Out) -> Vec<Answer> {
        self.put(out);
        self.turn()
    }

    pub(super) fn wait(&mut self, span: Duration) -> Vec<Answer> {
        self.now += span;
        self.turn()
    }

    /// The application calls.
    pub(super) fn call<T>(&mut self, call: impl FnOnce(&mut Cx<'_>, ConnId) -> T) -> (T, Vec<Answer>) {
        let conn = self.host.app.conn.unwrap();
        let result = call(&mut Cx { stack: &mut self.host.stack }, conn);
        (result, self.turn())
    }

    pub(super) fn close(&mut self) -> Vec<Answer> {
        self.call(|cx, conn| cx.close(conn)).1
    }

    pub(super) fn shutdown(&mut self) -> Vec<Answer> {
        self.call(|cx, conn| cx.shutdown(conn)).1
    }

    pub(super) fn connect(&mut self) -> Vec<Answer> {
        let to = SocketAddr::new(CLIENT.into(), PORT);
        let conn = Cx { stack: &mut self.host.stack }.connect(to).unwrap();
        self.host.app.conn = Some(conn);
        self.turn()
    }

    /// The state, wherever its record is; CLOSED and LISTEN are the same to a peer.
    pub(super) fn state(&self) -> State {
        let stack = &self.host.stack;
        if let Some((_, tcb)) = stack.conns.iter().next() {
            return tcb.state();
        }
        match (stack.half_open(), stack.time_waits()) {
            (1, 0) => State::SynReceived,
            (0, 1) => State::TimeWait,
            (0, 0) => State::Closed,
            more => panic!("{more:?}"),
        }
    }

    pub(super) fn log(&self) -> &str {
        &self.host.app.log
    }

    pub(super) fn drops(&self, reason: DropReason) -> u64 {
        self.host.stack.metrics().drops(reason)
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.host.stack.metrics().get(counter)
    }

    pub(super) fn assert_all_is_back(&self) {
        let pool = self.host.stack.pool();
        let census = pool.census();
        assert_eq!(census.owned + census.sending + census.moving, 0, "{census:?}");
    }
}

// Each state, reached by the shortest way. The peer's next sequence number is NXT, or NXT + 1 once its FIN is in.

pub(super) fn listen() -> Peer {
    Peer::new()
}

pub(super) fn syn_sent() -> Peer {
    let mut peer = Peer::new();
    let sent = peer.connect();
    assert_eq!((sent.len(), sent[0].flags), (1, SYN));
    peer
}

pub(super) fn half_open() -> Peer {
    let mut peer = Peer::new();
    assert_eq!(peer.send(segment(SYN, IRS)), [answer(SYN_ACK, 0, NXT)]);
    peer
}

pub(super) fn syns_crossed() -> Peer {
    let mut peer = syn_sent();
    assert_eq!(peer.send(segment(SYN, IRS)), [answer(SYN_ACK, 0, NXT)]);
    peer
}

pub(super) fn established() -> Peer {
    let mut peer = half_open();
    assert_eq!(peer.send(segment(ACK, NXT)), []);
    peer
}

pub(super) fn fin_wait_1() -> Peer {
    let mut peer = established();
    assert_eq!(peer.shutdown(), [answer(FIN_ACK, 1, NXT)]);
    peer
}

pub(super) fn fin_wait_2() -> Peer {
    let mut peer = fin_wait_1();
    assert_eq!(peer.send(segment(ACK, NXT)), []);
    peer
}

pub(super) fn close_wait() -> Peer {
    let mut peer = established();
    assert_eq!(peer.send(segment(FIN_ACK, NXT)), [answer(ACK, 1, NXT + 1)]);
    peer
}

pub(super) fn closing() -> Peer {
    let mut peer = fin_wait_1();
    assert_eq!(peer.send(segment(FIN_ACK, NXT).ack(1)), [answer(ACK, 2, NXT + 1)]);
    peer
}

pub(super) fn last_ack() -> Peer {
    let mut peer = close_wait();
    assert_eq!(peer.shutdown(), [answer(FIN_ACK, 1, NXT + 1)]);
    peer
}

pub(super) fn time_wait() -> Peer {
    let mut peer = fin_wait_2();
    assert_eq!(peer.send(segment(FIN_ACK, NXT)), [answer(ACK, 2, NXT + 1)]);
    peer
}

/// A connection in TIME-WAIT whose end the application has not heard of, since it has not read everything.
pub(super) fn unread_time_wait() -> Peer {
    let mut peer = established();
    peer.host.app.lazy = true;
    peer.send(segment(ACK, NXT).data(b"unread"));
    peer.shutdown();
    assert_eq!(peer.send(segment(FIN_ACK, NXT + 6)), [answer(ACK, 2, NXT + 7)]);
    peer
}

pub(super) type Start = fn() -> Peer;
