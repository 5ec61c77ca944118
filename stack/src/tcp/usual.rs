//! The segments that open and end nearly every connection, each taken in one go. One look tells them from all others, for which
//! [`input`](crate::tcp::input) has every step of RFC 9293 §3.10.7; what a step would do to these is done here, and nothing else.

use crate::demux::syn_rcvd::SynRcvd;
use crate::metrics::Counter;
use crate::tcp::env::Env;
use crate::tcp::rtt::Rtt;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::tcp::{close, open, timers};
use crate::wire::tcp::{Flags, Segment, Seq, Timestamps};

/// What a SYN with all options offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// SEG.SEQ: the peer's initial sequence number.
    pub irs: Seq,
    /// As the peer wrote it.
    pub mss: u16,
    /// The peer's window scale, at most 14.
    pub shift: u8,
    /// TSval.
    pub ts_value: u32,
}

/// What a SYN offers that has all options, as nearly every SYN has. `None` for any other segment.
#[inline(always)]
pub fn begins(seg: &Segment) -> Option<Offer> {
    if seg.flags.only(DECIDING) != Flags::SYN || !seg.sack_permitted {
        return None;
    }
    let Timestamps { value: ts_value, .. } = seg.timestamps?;
    Some(Offer { irs: seg.seq, mss: seg.mss?, shift: seg.window_scale?, ts_value })
}

/// In SYN-SENT, takes the SYN-ACK of a peer that agrees to all that we offer, to a SYN that was sent once (RFC 9293 §3.10.7.3).
/// `false`, and nothing done, for any other segment.
#[inline(never)]
pub fn opens(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> bool {
    let (Some(timestamps), Some(mss), Some(shift)) = (&seg.timestamps, &seg.mss, &seg.window_scale) else {
        return false;
    };
    let is_usual = tcb.state() == State::SynSent
        && seg.flags.only(DECIDING) == Flags::SYN | Flags::ACK
        && seg.payload_len == 0
        && seg.ack == tcb.snd_nxt
        && seg.ack == tcb.iss.add(1)
        && seg.sack_permitted
        && env.fixed.all_options
        && tcb.rtt.backoff == 0
        && !tcb.bits.has(Bits::FIN_QUEUED.and(Bits::WANTS_ROOM).and(Bits::TRACED));
    if !is_usual {
        return false;
    }
    tcb.irs = seg.seq;
    tcb.rcv_nxt = seg.seq.add(1);
    tcb.rcv_adv = tcb.rcv_nxt.add(env.fixed.syn_window);
    tcb.last_ack_sent = tcb.rcv_nxt;
    (tcb.ts_recent, tcb.ts_recent_at_ms) = (timestamps.value, env.now_ms);
    tcb.heard_at_ms = env.now_ms;
    tcb.mss = tcb.mss.min((*mss).max(open::MSS_MIN));
    tcb.snd_shift = *shift;
    if let Some(rtt_ms) = open::since_echo_ms(tcb, timestamps.echo, env) {
        tcb.rtt = Rtt::first((rtt_ms + 1) * 1_000); // rounded up to the tick
    }
    tcb.enter(State::Established);
    tcb.bits.clear(Bits::IDLE_ARMED.and(Bits::SYN_OWED).and(Bits::RTX_ARMED));
    tcb.bits.set(open::ALL_AGREED.and(Bits::ACK_NOW));
    tcb.events.add(Events::CONNECTED);
    tcb.congestion.start(tcb.segment_max());
    tcb.congestion.recover = tcb.iss;
    timers::arm_keepalive(tcb, env);
    tcb.snd_una = seg.ack;
    // RFC 7323 §2.2: the window of a SYN is not scaled.
    tcb.snd_wnd = seg.window.into();
    tcb.snd_wnd_max = tcb.snd_wnd;
    (tcb.snd_wl1, tcb.snd_wl2) = (seg.seq, seg.ack);
    env.metrics.count(Counter::Established);
    true
}

/// The timestamps of the third segment as it nearly always is: in order, not older than the SYN, with the ACK of our SYN-ACK, which was
/// sent once and agreed to all options, without text. `None` for any other segment.
#[inline(always)]
pub fn completes(record: &SynRcvd, seg: &Segment) -> Option<Timestamps> {
    let timestamps = seg.timestamps?;
    let is_usual = seg.payload_len == 0
        && seg.seq == record.irs.add(1)
        && seg.ack == record.iss.add(1)
        && seg.flags.only(Flags::SYN | Flags::RST | Flags::ACK) == Flags::ACK
        && timestamps.value.wrapping_sub(record.ts_recent) as i32 >= 0
        && record.offered.is_all()
        && record.retries == 0;
    is_usual.then_some(timestamps)
}

/// What [`open::passive`] leaves of a segment that [`completes`].
#[inline(always)]
pub fn third_segment(tcb: &mut Tcb, seg: &Segment, timestamps: Timestamps) {
    tcb.ts_recent = timestamps.value;
    if seg.flags.fin() {
        close::take_fin(tcb);
        tcb.enter(State::CloseWait);
    }
}

/// In other states, takes the acknowledgment of our FIN and all before it, without text, perhaps with the peer's FIN. Nothing of ours
/// is sent any more but acknowledgments: neither the peer's window nor the path's capacity matter. `false`, and nothing done, for
/// any other segment.
#[inline(always)]
pub fn ends(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> bool {
    let Some(timestamps) = &seg.timestamps else { return false };
    // As in `input::passes_at_sight`, and nothing else to be done but what is done below.
    let is_usual = seg.payload_len == 0
        && seg.ack == tcb.snd_nxt
        && tcb.fin_sent()
        && seg.seq == tcb.rcv_nxt
        && seg.flags.only(Flags::SYN | Flags::RST | Flags::ACK) == Flags::ACK
        && timestamps.value.wrapping_sub(tcb.ts_recent) as i32 >= 0
        && tcb.bits.only(Bits::TIMESTAMPS.and(Bits::WANTS_ROOM).and(Bits::TRACED)) == Bits::TIMESTAMPS
        && tcb.tx.is_empty()
        && tcb.cold.is_none()
        && tcb.rtt.backoff == 0;
    if !is_usual {
        return false;
    }
    match tcb.state() {
        State::FinWait1 if seg.flags.fin() => {
            // By way of FIN-WAIT-2, whose deadline does not count any more.
            tcb.bits.clear(Bits::IDLE_ARMED);
            close::take_fin(tcb);
            tcb.enter(State::TimeWait);
        }
        State::FinWait1 => {
            tcb.enter(State::FinWait2);
            if tcb.bits.has(Bits::APP_CLOSED) {
                close::arm_fin_wait_2(tcb, env);
            }
        }
        State::Closing => tcb.enter(State::TimeWait),
        State::LastAck => tcb.enter(State::Closed),
        State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait2
        | State::CloseWait
        | State::TimeWait
        | State::Closed => return false,
    }
    tcb.snd_una = seg.ack;
    tcb.bits.clear(Bits::STALLED.and(Bits::RTX_ARMED).and(Bits::PERSIST));
    (tcb.heard_at_ms, tcb.probes) = (env.now_ms, 0);
    if seg.seq.at_or_before(tcb.last_ack_sent) {
        (tcb.ts_recent, tcb.ts_recent_at_ms) = (timestamps.value, env.now_ms);
    }
    true
}

/// Whether the peer resets a connection that both ends know: RFC 5961 §3.2 has that stand just at RCV.NXT. No other step asks
/// anything of such a segment. In TIME-WAIT it is ignored (RFC 1337 §4).
#[inline(always)]
pub fn resets(tcb: &Tcb, seg: &Segment) -> bool {
    let counts = !matches!(tcb.state(), State::SynSent | State::TimeWait | State::Closed);
    seg.flags.rst() && seg.seq == tcb.rcv_nxt && counts
}

/// What decides about a segment in SYN-SENT.
const DECIDING: Flags = Flags(Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0 | Flags::ACK.0);

#[cfg(test)]
mod tests;
