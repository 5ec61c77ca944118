//! For tests of the sending half: one connection with nothing around it. What it sends is read off a wire, what the peer answers
//! is written by hand. Sequence numbers are told relative to the first byte of data.

use alloc::vec::Vec;

use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use handfast_drivers::wire::{self, WireDriver};

use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::tcp::env::Env;
use crate::tcp::input::Verdict;
use crate::tcp::output::{self, Path, Progress};
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Tcb};
use crate::tcp::timers::{self, Expired};
use crate::tcp::{ack, send_queue};
use crate::time::{Duration, Instant};
use crate::wire::address::{Address, Mac};
use crate::wire::ethernet::Ethernet;
use crate::wire::packet::{self, Packet};
use crate::wire::tcp::{Flags, SackBlocks, Segment, Seq, Timestamps};

/// Payload of a full segment of these connections, without options.
pub(crate) const MSS: u32 = 1000;

/// A segment that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Out {
    pub(crate) seq: u32,
    pub(crate) len: u32,
    pub(crate) flags: Flags,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Sender {
    pub(crate) tcb: Tcb,
    pub(crate) env: Env,
    pub(crate) tx: TxBurst,
    pub(crate) window: u16,
    first: Seq,
    written: u32,
    near: WireDriver,
    far: WireDriver,
    path: Path,
}

impl Sender {
    /// An established connection without options.
    pub(crate) fn new() -> Sender {
        Sender::with(|_| {}, Seq(4_294_960_000), 256)
    }

    pub(crate) fn with(configure: impl FnOnce(&mut TcpConfig), iss: Seq, frames_per_queue: u32) -> Sender {
        let (near, far) = wire::pair(wire::Config { frames_per_queue, ring_len: 64, ..wire::Config::default() });
        let mut config = TcpConfig::default();
        configure(&mut config);
        let nodelay = !config.nagle;
        let mut env = Env::new(config, near.pool().clone(), 0);
        env.at(Instant::from_micros(50_000_000));
        let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
        let mut tcb = Tcb::new(FlowKey { local, remote, local_port: 1, remote_port: 2 }, iss, MSS as u16);
        tcb.begin(State::Established);
        let first = iss.add(1);
        (tcb.snd_una, tcb.snd_nxt) = (first, first);
        (tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent) = (Seq(1), Seq(1), Seq(1));
        (tcb.snd_wnd, tcb.snd_wnd_max, tcb.snd_wl2) = (60_000, 60_000, first);
        tcb.heard_at_ms = env.now_ms;
        tcb.congestion.start(MSS);
        tcb.congestion.recover = iss;
        if nodelay {
            tcb.bits.set(Bits::NODELAY);
        }
        let link = Ethernet { src: Mac(near.caps().mac), dst: Mac(far.caps().mac), vlan: None, ethertype: 0x0800 };
        let path = Path::new(link, &remote, false);
        Sender { tcb, env, tx: TxBurst::new(), window: 60_000, first, written: 0, near, far, path }
    }

    pub(crate) fn byte(at: u32) -> u8 {
        (at ^ (at >> 8)) as u8
    }

    /// Queues so many bytes; says how many there was room for.
    pub(crate) fn write(&mut self, len: u32) -> u32 {
        let bytes: Vec<u8> = (self.written..self.written + len).map(Sender::byte).collect();
        let taken = send_queue::write(&mut self.tcb, &bytes, &mut self.env) as u32;
        self.written += taken;
        taken
    }

    /// How much was queued in all.
    pub(crate) fn written(&self) -> u32 {
        self.written
    }

    /// How much is acknowledged.
    pub(crate) fn acked(&self) -> u32 {
        self.tcb.snd_una.since(self.first)
    }

    /// Queues a frame of so many bytes.
    pub(crate) fn push(&mut self, len: u32) {
        let bytes: Vec<u8> = (self.written..self.written + len).map(Sender::byte).collect();
        let mut frame = self.env.pool.alloc().expect("a frame");
        frame.extend_from_slice(&bytes);
        send_queue::push(&mut self.tcb, frame, &mut self.env);
        self.written += len;
    }

    /// Lets it send, without the device's taking anything.
    pub(crate) fn run(&mut self) -> Progress {
        output::run(&mut self.tcb, &mut self.env, &self.path, &mut self.tx)
    }

    /// What the device takes now.
    pub(crate) fn taken(&mut self) -> Vec<Out> {
        let (mut rx, mut out) = (RxBurst::new(), Vec::new());
        self.near.tx_burst(&mut self.tx);
        self.near.flush();
        self.far.rx_burst(&mut rx);
        for frame in rx.drain(..) {
            let Ok(Packet::Tcp(net, seg)) = packet::parse(&frame, true) else { panic!("a good segment") };
            let bytes = frame[net.payload_range(&seg)].to_vec();
            let seq = seg.seq.since(self.first);
            for (at, &byte) in bytes.iter().enumerate() {
                assert_eq!(byte, Sender::byte(seq + at as u32), "byte {} of the stream", seq + at as u32);
            }
            out.push(Out { seq, len: bytes.len() as u32, flags: seg.flags, bytes });
        }
        out
    }

    /// Fills the burst with what is no packet.
    pub(crate) fn fill_burst(&mut self) {
        while self.tx.room() > 0 {
            self.tx.push(self.env.pool.alloc().expect("a frame"));
        }
    }

    /// Sends that.
    pub(crate) fn drain_burst(&mut self) {
        let mut rx = RxBurst::new();
        self.near.tx_burst(&mut self.tx);
        self.near.flush();
        self.far.rx_burst(&mut rx);
    }

    /// Everything that it sends now, taken by the device.
    pub(crate) fn output(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        loop {
            let progress = self.run();
            out.extend(self.taken());
            if progress != Progress::Full {
                self.check();
                return out;
            }
        }
    }

    /// The same, as (sequence number, length).
    #[track_caller]
    pub(crate) fn sends(&mut self, expected: &[(u32, u32)]) {
        let sent: Vec<_> = self.output().iter().map(|out| (out.seq, out.len)).collect();
        assert_eq!(sent, expected);
    }

    pub(crate) fn segment(&self, ack: u32) -> Segment {
        Segment {
            seq: self.tcb.rcv_nxt,
            ack: self.first.add(ack),
            flags: Flags::ACK,
            window: self.window,
            ..Segment::default()
        }
    }

    pub(crate) fn arrives(&mut self, seg: &Segment) -> Result<(), Verdict> {
        self.tcb.heard_at_ms = self.env.now_ms;
        ack::acknowledge(&mut self.tcb, seg, &mut self.env)
    }

    /// An acknowledgment comes.
    #[track_caller]
    pub(crate) fn ack(&mut self, ack: u32) {
        let seg = self.segment(ack);
        self.arrives(&seg).unwrap();
    }

    /// One with selective blocks.
    #[track_caller]
    pub(crate) fn sack(&mut self, ack: u32, blocks: &[(u32, u32)]) {
        let mut sack = SackBlocks::EMPTY;
        for &(start, end) in blocks {
            sack.push(self.first.add(start), self.first.add(end));
        }
        let seg = Segment { sack, ..self.segment(ack) };
        self.arrives(&seg).unwrap();
    }

    /// One with a timestamp that echoes what was sent so long ago.
    #[track_caller]
    pub(crate) fn ack_echoing(&mut self, ack: u32, ago_ms: u32) {
        let echo = self.tcb.ts_value(self.env.now_ms).wrapping_sub(ago_ms);
        let seg = Segment { timestamps: Some(Timestamps { value: 1, echo }), ..self.segment(ack) };
        self.arrives(&seg).unwrap();
    }

    pub(crate) fn passes(&mut self, ms: u64) {
        let now = self.env.now + Duration::from_millis(ms);
        self.env.at(now);
    }

    /// Time passes until the next deadline; how long that was, in milliseconds, and what it did.
    #[track_caller]
    pub(crate) fn expires(&mut self) -> (u32, Expired) {
        let at = timers::next_deadline(&self.tcb).expect("a timer is armed");
        let span_ms = at.wrapping_sub(self.env.now_ms);
        self.passes(span_ms.into());
        (span_ms, timers::expired(&mut self.tcb, &mut self.env))
    }

    #[track_caller]
    pub(crate) fn check(&self) {
        if let Err(broken) = self.tcb.check(&self.env) {
            panic!("{broken}: {:?}", self.tcb);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.env.tx.clear(&mut self.tcb.tx);
    }
}
