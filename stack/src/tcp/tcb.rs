//! The record of one connection from SYN-SENT to LAST-ACK.
//!
//! The fields stand in the order of their cache lines, and those of a line that are zero at first stand together. R: read, W: written,
//! on the path of a received segment (in) or of one sent (out):
//!
//! | line | fields | in | out |
//! | --- | --- | --- | --- |
//! | 0 | key, state, events, bits, rcv_nxt, rcv_adv, last_ack_sent, ts_recent | RW | RW |
//! | 1 | send sequence space and window, send queue, congestion window | RW | RW |
//! | 2 | receive queue, deadlines, round-trip time | RW | R |
//! | 3 | neighbour, cold part, application's word, rare | R | R |

use alloc::boxed::Box;

use crate::demux::conns::Record;
use crate::demux::flow::FlowKey;
use crate::demux::flows::Place;
use crate::ip::NeighbourId;
use crate::tcp::chain::Chain;
use crate::tcp::close::Closed;
use crate::tcp::congestion::Congestion;
use crate::tcp::open;
use crate::tcp::rtt::Rtt;
use crate::tcp::sack::Cold;
use crate::tcp::state::State;
use crate::wire::tcp::Seq;

/// A transmission control block (RFC 9293 §3.3.1).
#[derive(Debug)]
#[repr(C)]
pub struct Tcb {
    /// Addresses and ports.
    pub key: FlowKey,
    /// The connection's state; changed by [`enter`](Tcb::enter) only.
    state: State,
    /// How the connection ended, once it has, other than by its state.
    pub closed: Option<Closed>,
    /// What the application has yet to hear.
    pub events: Events,
    /// A tail loss probe was sent since new data was acknowledged.
    pub tail_probed: bool,
    /// What is owed and what was agreed.
    pub bits: Bits,
    /// RCV.NXT.
    pub rcv_nxt: Seq,
    /// RCV.NXT + RCV.WND as advertised: the right edge, which never moves left.
    pub rcv_adv: Seq,
    /// SEG.ACK of the last segment sent: Last.ACK.sent of RFC 7323.
    pub last_ack_sent: Seq,
    /// TS.Recent.
    pub ts_recent: u32,
    /// When `ts_recent` was taken, in milliseconds.
    pub ts_recent_at_ms: u32,

    /// SND.UNA.
    pub snd_una: Seq,
    /// SND.NXT: the highest ever sent; retransmission does not move it back.
    pub snd_nxt: Seq,
    /// One past the last byte queued to be sent, without the FIN.
    pub snd_end: Seq,
    /// SND.WND in bytes, scaled.
    pub snd_wnd: u32,
    /// SND.WL1.
    pub snd_wl1: Seq,
    /// SND.WL2.
    pub snd_wl2: Seq,
    /// Sent or to be sent, until acknowledged.
    pub tx: Chain,
    /// The first element of `tx` that was never sent.
    pub tx_unsent: u32,
    /// Frames in `tx`.
    pub tx_frames: u16,
    /// Payload of a full segment without options, in bytes.
    pub mss: u16,
    /// Congestion window and its control.
    pub congestion: Congestion,

    /// In order, not yet taken by the application.
    pub rx: Chain,
    /// The peer's segment size as seen, in bytes: two of them are acknowledged at once.
    pub rcv_mss: u16,
    /// Frames in `rx`.
    pub rx_frames: u16,
    /// Round-trip time and retransmission timeout.
    pub rtt: Rtt,
    /// Keep-alive, FIN-WAIT-2 or connect timeout; armed if [`Bits::IDLE_ARMED`].
    pub idle_at_ms: u32,
    /// When a segment was last answered that needs no answer (RFC 5961 §7).
    pub answered_at_ms: u32,
    /// When a segment of the peer last came.
    pub heard_at_ms: u32,
    /// Bytes in `rx`.
    pub rx_bytes: u32,
    /// Retransmission or persist timer, in milliseconds; armed if [`Bits::RTX_ARMED`].
    pub rtx_at_ms: u32,
    /// Delayed acknowledgment; armed if [`Bits::ACK_DELAYED`].
    pub ack_at_ms: u32,
    /// The application's timer; armed if [`Bits::APP_ARMED`].
    pub app_at_ms: u32,
    /// When the wheel looks at this connection next; armed if [`Bits::WHEEL_ARMED`].
    pub wheel_at_ms: u32,
    /// When the oldest unanswered transmission was first repeated; means something if [`Bits::STALLED`].
    pub stalled_at_ms: u32,
    /// When data was last sent.
    pub sent_at_ms: u32,
    /// When the last output was, in wrapped microseconds; of two in one microsecond the second is one later. Within one, what
    /// is sent again goes before what is new, so stamp and sequence number together tell the order (RFC 8985 §5.1).
    pub stamp_us: u32,

    /// Only when there was loss or disorder.
    pub cold: Option<Box<Cold>>,
    /// The application's word.
    pub user: u64,
    /// Where frames for this peer go next.
    pub neighbour: NeighbourId,
    /// What the retransmission timer is armed for.
    pub rtx_for: RtxTimer,
    /// Keep-alive probes sent since the peer was last heard.
    pub probes: u8,
    /// Unanswered zero-window probes: the persist timer is doubled so many times.
    pub persist_backoff: u8,
    /// Snd.Wind.Shift.
    pub snd_shift: u8,
    /// Largest SND.WND seen (RFC 9293 §3.8.6.2.1, Max(SND.WND)).
    pub snd_wnd_max: u32,
    /// The peer's initial sequence number.
    pub irs: Seq,
    /// Where its flow lies in the index.
    pub place: Place,
    /// Added to our millisecond clock in TSval (RFC 7323 §5.4).
    pub ts_offset: u32,
    /// Our initial sequence number.
    pub iss: Seq,
    /// Rcv.Wind.Shift.
    pub rcv_shift: u8,
}

const _: () = assert!(size_of::<Tcb>() <= 248, "with its handle's generation, a Tcb is four cache lines");

impl Tcb {
    /// A closed connection of `key` that knows nothing yet.
    pub fn new(key: FlowKey, iss: Seq, mss: u16) -> Tcb {
        Tcb {
            key,
            state: State::Closed,
            closed: None,
            events: Events::default(),
            bits: Bits::default(),
            rcv_nxt: Seq(0),
            rcv_adv: Seq(0),
            last_ack_sent: Seq(0),
            ts_recent: 0,
            ts_recent_at_ms: 0,
            snd_una: iss,
            snd_nxt: iss,
            snd_end: iss.add(1),
            snd_wnd: 0,
            snd_wl1: Seq(0),
            snd_wl2: Seq(0),
            tx: Chain::EMPTY,
            tx_unsent: super::chain::NIL,
            tx_frames: 0,
            mss,
            congestion: Congestion::new(),
            rx: Chain::EMPTY,
            rx_bytes: 0,
            rx_frames: 0,
            rcv_mss: RCV_MSS_MIN,
            rtx_at_ms: 0,
            ack_at_ms: 0,
            idle_at_ms: 0,
            app_at_ms: 0,
            wheel_at_ms: 0,
            answered_at_ms: 0,
            heard_at_ms: 0,
            stalled_at_ms: 0,
            sent_at_ms: 0,
            rtt: Rtt::default(),
            cold: None,
            user: 0,
            place: Place::BEYOND,
            neighbour: NeighbourId::default(),
            ts_offset: 0,
            snd_wnd_max: 0,
            iss,
            irs: Seq(0),
            snd_shift: 0,
            rcv_shift: 0,
            probes: 0,
            persist_backoff: 0,
            stamp_us: 0,
            rtx_for: RtxTimer::Timeout,
            tail_probed: false,
        }
    }

    /// Makes what every connection begins with of what another has left: the rest is for those who open it to write, and
    /// its place in the index for those who enter it there.
    #[inline(always)]
    pub fn renew(&mut self, state: State) {
        debug_assert!(self.cold.is_none(), "what was left has nothing beside its own memory");
        (self.state, self.closed) = (state, None);
        (self.tx, self.tx_unsent, self.tx_frames) = (Chain::EMPTY, super::chain::NIL, 0);
        (self.rx, self.rx_bytes, self.rx_frames, self.rcv_mss) = (Chain::EMPTY, 0, 0, RCV_MSS_MIN);
        (self.rtx_at_ms, self.ack_at_ms, self.app_at_ms, self.wheel_at_ms) = (0, 0, 0, 0);
        (self.stalled_at_ms, self.sent_at_ms) = (0, 0);
        (self.user, self.neighbour) = (0, NeighbourId::default());
        (self.probes, self.persist_backoff, self.stamp_us) = (0, 0, 0);
        (self.rtx_for, self.tail_probed) = (RtxTimer::Timeout, false);
    }

    /// The state as it is first recorded.
    #[cfg(test)]
    pub fn begin(&mut self, state: State) {
        debug_assert!(self.state == State::Closed);
        self.state = state;
    }

    /// The connection's state.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// Moves to another state; panics unless RFC 9293 §3.3.2 has that arrow.
    #[inline]
    pub fn enter(&mut self, next: State) {
        if !self.state.may_become(next) {
            no_such_transition(self.state, next);
        }
        self.state = next;
    }

    /// Nothing more happens on it: it was ended, or both halves were closed.
    #[inline]
    pub fn is_over(&self) -> bool {
        debug_assert!(self.closed.is_none() || self.state == State::Closed, "what was ended is closed");
        matches!(self.state, State::TimeWait | State::Closed)
    }

    /// Frames are queued on it, or may be.
    #[inline]
    pub fn has_frames(&self) -> bool {
        !self.rx.is_empty() || !self.tx.is_empty() || self.cold.is_some()
    }

    /// SND.NXT − SND.UNA: bytes in flight, SYN and FIN counted.
    #[inline]
    pub fn flight(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// RCV.WND: what the peer may still send, in bytes.
    #[inline]
    pub fn rcv_wnd(&self) -> u32 {
        self.rcv_adv.since(self.rcv_nxt)
    }

    /// Bytes queued and not acknowledged.
    #[inline]
    pub fn tx_bytes(&self) -> u32 {
        // The SYN stands before the first byte, the FIN after the last; neither is in the queue.
        let una = if self.snd_una == self.iss { self.snd_una.add(1) } else { self.snd_una };
        if una.after(self.snd_end) { 0 } else { self.snd_end.since(una) }
    }

    /// Payload of a full segment, in bytes: what the options leave (RFC 6691).
    #[inline]
    pub fn segment_max(&self) -> u32 {
        u32::from(self.mss) - if self.bits.has(Bits::TIMESTAMPS) { open::TIMESTAMPS_LEN } else { 0 }
    }

    /// Our FIN was sent: its sequence number is `snd_end`.
    #[inline]
    pub fn fin_sent(&self) -> bool {
        self.snd_nxt.after(self.snd_end)
    }

    /// Our FIN is acknowledged.
    #[inline]
    pub fn fin_acked(&self) -> bool {
        self.snd_una.after(self.snd_end)
    }

    /// TSval at a time in milliseconds.
    #[inline]
    pub fn ts_value(&self, now_ms: u32) -> u32 {
        now_ms.wrapping_add(self.ts_offset)
    }
}

impl Default for Tcb {
    fn default() -> Tcb {
        Tcb::new(FlowKey::default(), Seq(0), 0)
    }
}

impl Record for Tcb {
    #[inline(always)]
    fn leave(&mut self) {
        self.cold = None;
    }
}

/// What the retransmission timer is armed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtxTimer {
    /// The retransmission timeout (RFC 6298), or the persist timer.
    Timeout,
    /// A tail loss probe (RFC 8985 §7).
    TailProbe,
    /// Segments that were overtaken have had their time to arrive (RFC 8985 §6.2, step 5).
    Reordering,
}

/// What the application has yet to hear of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Events(pub u8);

impl Events {
    /// A passive open is complete.
    pub const ACCEPTED: Events = Events(1);
    /// An active open is complete.
    pub const CONNECTED: Events = Events(2);
    /// There is data to be taken.
    pub const DATA: Events = Events(4);
    /// There is room again to send.
    pub const WRITABLE: Events = Events(8);
    /// The peer has sent its FIN.
    pub const PEER_CLOSED: Events = Events(16);
    /// The application's timer went off.
    pub const TIMER: Events = Events(32);

    /// Adds events.
    #[inline]
    pub fn add(&mut self, events: Events) {
        self.0 |= events.0;
    }

    /// Takes `events` away and says whether any was there.
    #[inline]
    pub fn take(&mut self, events: Events) -> bool {
        let had = self.0 & events.0 != 0;
        self.0 &= !events.0;
        had
    }

    /// Both.
    #[inline]
    pub const fn and(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }

    /// Any of `events` is there.
    #[inline]
    pub fn has(self, events: Events) -> bool {
        self.0 & events.0 != 0
    }

    /// None.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What is owed to the peer, what was agreed with it, and which deadlines count.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bits(pub u32);

#[allow(missing_docs, reason = "the names say it, and the RFC the rest")]
impl Bits {
    // Agreed in the SYNs.
    pub const TIMESTAMPS: Bits = Bits(1 << 0);
    pub const SACK: Bits = Bits(1 << 1);
    pub const SCALING: Bits = Bits(1 << 2);
    // Owed.
    pub const SYN_OWED: Bits = Bits(1 << 3);
    pub const ACK_NOW: Bits = Bits(1 << 4);
    pub const ACK_DELAYED: Bits = Bits(1 << 5);
    pub const FIN_QUEUED: Bits = Bits(1 << 6);
    pub const FIN_AGAIN: Bits = Bits(1 << 7);
    pub const PROBE_OWED: Bits = Bits(1 << 8);
    pub const KEEPALIVE_OWED: Bits = Bits(1 << 9);
    pub const WINDOW_CHECK: Bits = Bits(1 << 10);
    // Deadlines.
    pub const RTX_ARMED: Bits = Bits(1 << 12);
    pub const IDLE_ARMED: Bits = Bits(1 << 13);
    pub const APP_ARMED: Bits = Bits(1 << 14);
    pub const WHEEL_ARMED: Bits = Bits(1 << 15);
    // The application's.
    pub const NODELAY: Bits = Bits(1 << 16);
    pub const APP_CLOSED: Bits = Bits(1 << 17);
    pub const WANTS_ROOM: Bits = Bits(1 << 18);
    pub const APP_KNOWS: Bits = Bits(1 << 19);
    // The stack's.
    pub const MARKED: Bits = Bits(1 << 20);
    pub const OWING: Bits = Bits(1 << 21);
    pub const REPORTED: Bits = Bits(1 << 22);
    pub const RESET_OWED: Bits = Bits(1 << 23);
    pub const AWAITS_NEIGHBOUR: Bits = Bits(1 << 24);
    pub const TRACED: Bits = Bits(1 << 25);
    // The connection's history.
    pub const ACTIVE: Bits = Bits(1 << 26);
    pub const PERSIST: Bits = Bits(1 << 27);
    pub const PEER_FIN: Bits = Bits(1 << 28);
    pub const STALLED: Bits = Bits(1 << 29);
    pub const CWND_LIMITED: Bits = Bits(1 << 30);
    pub const RTX_NOW: Bits = Bits(1 << 31);

    /// Any of `bits` is set.
    #[inline]
    pub const fn has(self, bits: Bits) -> bool {
        self.0 & bits.0 != 0
    }

    /// Those of `bits` that are set.
    #[inline]
    pub const fn only(self, bits: Bits) -> Bits {
        Bits(self.0 & bits.0)
    }

    /// Sets `bits`.
    #[inline]
    pub const fn set(&mut self, bits: Bits) {
        self.0 |= bits.0;
    }

    /// Clears `bits`.
    #[inline]
    pub const fn clear(&mut self, bits: Bits) {
        self.0 &= !bits.0;
    }

    /// Both.
    #[inline]
    pub const fn and(self, other: Bits) -> Bits {
        Bits(self.0 | other.0)
    }
}

/// What the peer's segments are taken for before any was seen.
pub const RCV_MSS_MIN: u16 = 536;

#[cold]
#[inline(never)]
fn no_such_transition(from: State, to: State) -> ! {
    panic!("no arrow leads from {from:?} to {to:?}")
}
