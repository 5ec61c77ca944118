//! Everything of one core, and the straight line of a segment through it:
//!
//! ```text
//! rx → 1 parse → 2 demux → 3 tcp → 4 app → 5 output → tx
//! ```
//!
//! Each stage is a loop over the burst, so that its code stays in the cache while the next stage's memory is being fetched.
//! Timers, other cores and the application mark connections too; all join at stages 4 and 5, the one output path.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use handfast_drivers::burst::{BURST, RxBurst, TxBurst};
use handfast_drivers::driver::Caps;
use handfast_drivers::frame::{Desc, FramePool};

use crate::app::{App, ConnId, Cx};
use crate::config::{Config, ConfigError, LISTENERS_MAX};
use crate::demux::conns::Conns;
use crate::demux::flow::FlowHasher;
use crate::demux::flows::{Flows, Guess, Owner};
use crate::demux::listeners::Listeners;
use crate::demux::ports::Ports;
use crate::demux::rss::Home;
use crate::demux::syn_rcvd::SynRcvds;
use crate::demux::time_wait::TimeWaits;
use crate::demux::turns::Turns;
use crate::ip::{Ip, Learned};
use crate::metrics::{Counter, Metrics};
use crate::tcp::env::Env;
use crate::tcp::isn::IsnSecret;
use crate::tcp::output::mss;
use crate::tcp::tcb::{Bits, Tcb};
use crate::time::{Duration, Instant};
use crate::timer_wheel::TimerWheel;
use crate::trace::{Trace, TraceKind, TraceRecord};
use crate::wire::address::Mac;
use crate::wire::icmp::IcmpError;
use crate::wire::tcp::{Flags, Seq};
use crate::wire::usual::Usual;

mod arrivals;
mod check;
mod icmp;
mod lifecycle;
mod output;
mod parse;

pub use self::check::Left;
use self::parse::Arrived;

/// A TCP/IP stack on one core. It has no clock and does no I/O: whoever drives it brings bursts and says what time it is.
#[derive(Debug)]
pub struct Stack {
    config: Config,
    env: Env,
    ip: Ip,
    flows: Flows,
    hasher: FlowHasher,
    conns: Conns<Tcb>,
    half_open: SynRcvds,
    waiting: TimeWaits,
    listeners: Listeners,
    ports: Ports,
    isn: IsnSecret,
    /// The [span of time](crate::tcp::cookie::epoch) in which a SYN was last answered by a cookie.
    cookies_in: Option<u32>,
    /// The MSS to announce where the path is as wide as the link: IPv6's and IPv4's.
    link_mss: [u16; 2],
    wheel: TimerWheel,
    /// Whether [usual SYNs](crate::tcp::usual::begins) are answered at sight.
    begins_at_sight: bool,
    home: Home,
    core: u16,
    tx_checksum: bool,
    rx_checksum: bool,
    /// What nearly all frames are like.
    usual: Usual,
    /// Connections with something for the application.
    marked: Turns,
    /// Connections with something to send.
    owing: Turns,
    /// Segments of other cores' flows.
    strays: ArrayVec<(u16, Desc), BURST>,
    /// ICMP errors about them.
    astray_errors: ArrayVec<(u16, IcmpError), BURST>,
    /// What the burst's frames were read into: a place for each. Of the first `arrived_len` those with a frame are taken.
    arrived: Vec<Arrived>,
    arrived_len: usize,
    /// A place among them is no longer [prepared](Arrived::prepare).
    arrived_otherwise: bool,
    trace: Trace,
    wake_at: Option<Instant>,
    shutting_down: bool,
}

/// Random bytes from the operating system: the secrets of one process, the same for all its stacks.
#[derive(Clone)]
pub struct Entropy(pub [u8; 64]);

impl Stack {
    /// A stack on `core` of `cores`, receiving from and sending to a queue with these capabilities.
    ///
    /// An Ethernet address of zero or an MTU of 0 in the configuration is replaced by the device's.
    pub fn new(mut config: Config, pool: FramePool, caps: &Caps, entropy: &Entropy) -> Result<Stack, ConfigError> {
        if config.ip.mac == Mac([0; 6]) {
            config.ip.mac = Mac(caps.mac);
        }
        if config.ip.mtu == 0 {
            config.ip.mtu = caps.mtu;
        }
        config.check()?;
        if config.ip.mtu > caps.mtu || config.ip.mtu < MTU_MIN {
            let (value, min, max) = (config.ip.mtu.into(), MTU_MIN.into(), caps.mtu.into());
            return Err(ConfigError::OutOfRange { name: "ip.mtu", value, min, max });
        }
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| entropy.0[8 * at + i]));
        let half = |at: usize| core::array::from_fn(|i| entropy.0[16 * at + i]);
        config.ip.hash_key = half(2);
        let limits = config.limits.clone();
        let two_msl_ms = 2 * config.tcp.msl.as_millis() as u32;
        let (port_min, port_max) = (config.tcp.ephemeral_port_min, config.tcp.ephemeral_port_max);
        let tcp = &config.tcp;
        let mut stack = Stack {
            env: Env::new(config.tcp.clone(), pool, limits.frames_reserved as usize),
            ip: Ip::new(&config.ip),
            flows: Flows::with_capacity(limits.conns_max + limits.syn_rcvd_max + limits.time_wait_max),
            hasher: FlowHasher::new([word(0), word(1), word(2), word(3)]),
            conns: Conns::with_capacity(limits.conns_max),
            half_open: SynRcvds::with_capacity(limits.syn_rcvd_max),
            waiting: TimeWaits::with_capacity(limits.time_wait_max, two_msl_ms),
            listeners: Listeners::with_capacity(LISTENERS_MAX),
            // What IPv4 keys are folded with comes from the first two words: here it is not what the index has.
            ports: Ports::new([word(2), word(3), word(4), word(5)], port_min..=port_max),
            isn: IsnSecret::new(&half(3), [word(4), word(5)]),
            cookies_in: None,
            link_mss: [false, true].map(|is_v4| mss(config.ip.mtu, is_v4)),
            wheel: TimerWheel::new(limits.conns_max, 0),
            begins_at_sight: tcp.timestamps
                && tcp.sack
                && tcp.window_scaling
                && config.ip.vlan.is_none()
                && !caps.tx_checksum,
            home: Home::new(caps.queues, caps.rss.as_ref()),
            core: caps.queue,
            tx_checksum: caps.tx_checksum,
            rx_checksum: caps.rx_checksum,
            usual: Usual::new(config.ip.vlan.is_none().then_some(config.ip.mac), !caps.rx_checksum),
            marked: Turns::with_capacity(limits.conns_max),
            owing: Turns::with_capacity(limits.conns_max),
            strays: ArrayVec::new(),
            astray_errors: ArrayVec::new(),
            arrived: (0..BURST).map(|_| Arrived::new()).collect(),
            arrived_len: 0,
            arrived_otherwise: false,
            trace: Trace::new(TRACE_RECORDS),
            wake_at: None,
            shutting_down: false,
            config,
        };
        for port in stack.config.listen.clone() {
            // A port that is named twice is listened on once.
            let _ = stack.listen(None, port);
        }
        Ok(stack)
    }

    /// One turn: takes in a burst, lets time pass, calls the application, sends. Frames to be sent are left in `tx`; when
    /// it fills up, empty it and call [`output`](Self::output) until that says there is no more.
    ///
    /// Answers go straight into `tx`, so bring it empty, or with room for as many frames as `rx` has.
    pub fn turn<A: App>(&mut self, now: Instant, rx: &mut RxBurst, tx: &mut TxBurst, app: &mut A) {
        self.take_in(now, rx, tx, app);
        self.output(tx);
    }

    /// The turn without its last stage: only answers are put into `tx`, at most one for each frame of `rx`. For a time when the
    /// device does not take what was sent before.
    pub fn take_in<A: App>(&mut self, now: Instant, rx: &mut RxBurst, tx: &mut TxBurst, app: &mut A) {
        self.env.at(now);
        let sent_before = tx.len();
        self.parse(rx, tx); // 1
        self.demux(); // 2
        self.tcp(tx); // 3
        self.expire(tx);
        self.call(app); // 4
        self.count_sent(&tx.descs()[sent_before..]);
    }

    /// Stage 5. Sends what is owed, as far as `tx` has room. `true` when nothing is left to send, or nothing that could be sent before
    /// frames come back: that is for the next turn.
    #[inline]
    pub fn output(&mut self, tx: &mut TxBurst) -> bool {
        self.owing.is_empty() || self.output_owed(tx)
    }

    #[inline(never)]
    fn output_owed(&mut self, tx: &mut TxBurst) -> bool {
        let sent_before = tx.len();
        let done = self.send_owed(tx);
        self.count_sent(&tx.descs()[sent_before..]);
        done
    }

    fn count_sent(&mut self, sent: &[Desc]) {
        self.env.metrics.add(Counter::PacketsSent, sent.len() as u64);
        self.env.metrics.add(Counter::BytesSent, sent.iter().map(|desc| desc.len() as u64).sum());
    }

    /// Tells the application that the core starts.
    pub fn start<A: App>(&mut self, now: Instant, app: &mut A) {
        self.env.at(now);
        app.on_start(&mut Cx { stack: self });
    }

    /// Begins to end: the application is told, nothing new is opened. What is half-open may still complete, since the peer
    /// may believe it open already, but no SYN-ACK is sent again.
    pub fn shut_down<A: App>(&mut self, now: Instant, app: &mut A) {
        self.env.at(now);
        (self.shutting_down, self.begins_at_sight) = (true, false);
        app.on_shutdown(&mut Cx { stack: self });
    }

    /// Stage 2 brings the records closer; stage 3 finds them there.
    fn demux(&mut self) {
        for arrived in &mut self.arrived[..self.arrived_len] {
            let Some(guess) = self.flows.guess(arrived.hash) else {
                arrived.guess = Guess::NOBODY;
                continue;
            };
            arrived.guess = guess;
            match guess.owner() {
                Owner::Conn(at) => self.conns.prefetch(at),
                Owner::SynRcvd(at) => self.half_open.prefetch(at),
                Owner::TimeWait(at) => self.waiting.prefetch(at),
            }
        }
    }

    /// Stage 3.
    fn tcp(&mut self, tx: &mut TxBurst) {
        let mut burst = core::mem::take(&mut self.arrived);
        let arrived = &mut burst[..self.arrived_len];
        let arrived_there = arrived.iter_mut().filter(|arrived| arrived.frame.is_some());
        match self.trace.wants(false) {
            true => arrived_there.for_each(|arrived| self.any_segment_arrives(arrived, tx)),
            false => arrived_there.for_each(|arrived| self.segment_arrives(arrived, tx)),
        }
        self.env.pool.free_burst(arrived, |arrived| &mut arrived.frame);
        if core::mem::take(&mut self.arrived_otherwise) {
            arrived.iter_mut().for_each(Arrived::prepare);
        }
        self.arrived_len = 0;
        // What stands there is empty: there is nothing to be dropped.
        core::mem::forget(core::mem::replace(&mut self.arrived, burst));
    }

    /// Segments that came here and belong to other cores: the core, and the frame on its way there.
    pub fn take_strays(&mut self) -> impl Iterator<Item = (u16, Desc)> + '_ {
        self.strays.drain(..)
    }

    /// What this core's queue has told about neighbours, for the other cores, which do not hear it.
    pub fn take_learned(&mut self) -> impl Iterator<Item = Learned> + '_ {
        self.ip.take_learned()
    }

    /// What another core heard about a neighbour.
    pub fn learn(&mut self, learned: Learned) {
        self.ip.learn(self.env.now, learned);
    }

    /// When [`turn`](Self::turn) should be called at the latest, if nothing arrives before; `None` for never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let now_ms = self.env.now_ms;
        let in_ms = |at: u32| {
            let wait_ms = (at.wrapping_sub(now_ms) as i32).max(0) as u64;
            Instant::from_micros((self.env.now.as_micros() / 1_000 + wait_ms) * 1_000)
        };
        let deadlines = [
            self.wheel.next_deadline().map(in_ms),
            self.half_open.next_deadline().map(in_ms),
            self.waiting.next_deadline().map(in_ms),
            self.ip.next_poll(),
            self.wake_at,
            (!self.marked.is_empty()).then_some(self.env.now),
            // Owed still, after output: there is no frame to send it in.
            (!self.owing.is_empty()).then_some(self.env.now + NO_FRAME_WAIT),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.env.metrics
    }

    /// For whoever drives the stack: counts what it drops itself.
    pub fn metrics_mut(&mut self) -> &mut Metrics {
        &mut self.env.metrics
    }

    /// Where frames come from.
    pub fn pool(&self) -> &FramePool {
        &self.env.pool
    }

    /// The trace ring.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Records every connection in the trace ring, or only those that the application chose.
    pub fn trace_all(&mut self, all: bool) {
        self.trace.set_all(all);
    }

    #[cold]
    fn note(&mut self, at: u32, kind: TraceKind, flags: Flags, seq: Seq, ack: Seq, payload_len: u16) {
        if let (Some(conn), Some(tcb)) = (self.conns.id_at(at), self.conns.at(at)) {
            let state = tcb.state();
            self.trace.record(TraceRecord { at: self.env.now, conn, kind, state, flags, seq, ack, payload_len });
        }
    }

    /// How it was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which core this is, from 0.
    pub fn core(&self) -> u16 {
        self.core
    }

    /// Connections from SYN-SENT to LAST-ACK.
    pub fn connections(&self) -> u32 {
        self.conns.len()
    }

    /// Half-open passive connections.
    pub fn half_open(&self) -> u32 {
        self.half_open.len()
    }

    /// Connections in TIME-WAIT.
    pub fn time_waits(&self) -> u32 {
        self.waiting.len()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn conn(&self, conn: ConnId) -> Option<&Tcb> {
        self.conns.get(conn).filter(|tcb| !tcb.bits.has(Bits::REPORTED))
    }

    pub(crate) fn conn_mut(&mut self, conn: ConnId) -> Option<(&mut Tcb, &mut Env)> {
        let tcb = self.conns.get_mut(conn).filter(|tcb| !tcb.bits.has(Bits::REPORTED))?;
        Some((tcb, &mut self.env))
    }

    pub(crate) fn wake_at(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |sooner| sooner.min(at)));
    }

    /// Has connection `index` looked at in stage 5, and in stage 4 before that if there is something for the application.
    #[inline]
    pub(crate) fn mark(&mut self, index: u32) {
        if let Some(tcb) = self.conns.at_mut(index) {
            enqueue(tcb, index, &mut self.marked, &mut self.owing);
        }
    }
}

/// A connection is in each queue once, and what was marked comes to be owing by itself.
#[inline]
fn enqueue(tcb: &mut Tcb, at: u32, marked: &mut Turns, owing: &mut Turns) {
    if tcb.bits.has(Bits::MARKED) {
        return;
    }
    if !tcb.events.is_empty() || tcb.is_over() {
        tcb.bits.set(Bits::MARKED);
        marked.push_back(at);
    } else if !tcb.bits.has(Bits::OWING) {
        tcb.bits.set(Bits::OWING);
        owing.push_back(at);
    }
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Entropy(..)")
    }
}

const NO_FRAME_WAIT: Duration = Duration::from_millis(1);
const TRACE_RECORDS: usize = 4096;
/// What every IPv4 link carries in practice (RFC 1122 §3.3.3).
const MTU_MIN: u16 = 576;

#[cfg(test)]
mod tests;
