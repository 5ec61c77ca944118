//! Closing (RFC 9293 §3.6): each half by its FIN, and TIME-WAIT after both.

use crate::demux::flows::MarkedPlace;
use crate::demux::time_wait::TimeWait;
use crate::metrics::DropReason;
use crate::tcp::env::Env;
use crate::tcp::recv;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::wire::tcp::{Flags, Header, Options, Segment, Timestamps};

/// Closes our half: a FIN follows the last byte that was queued (RFC 9293 §3.10.4). Does nothing the second time.
#[inline]
pub fn shutdown(tcb: &mut Tcb) {
    if !tcb.state().can_queue() || tcb.bits.has(Bits::FIN_QUEUED) {
        return;
    }
    tcb.bits.set(Bits::FIN_QUEUED);
    match tcb.state() {
        State::Established => tcb.enter(State::FinWait1),
        State::CloseWait => tcb.enter(State::LastAck),
        // Not open yet: the FIN waits until it is.
        _ => {}
    }
}

/// The application wants no more of the connection: closes our half, and what still comes is refused by a reset.
pub fn close(tcb: &mut Tcb, env: &mut Env) {
    if tcb.bits.has(Bits::APP_CLOSED) {
        return;
    }
    shutdown(tcb);
    tcb.bits.set(Bits::APP_CLOSED);
    recv::discard(tcb, env);
    if tcb.state() == State::FinWait2 {
        arm_fin_wait_2(tcb, env);
    }
}

/// [`close`]s the connection of which nothing is kept that was received, as they are closed as a rule: whether it is such a one.
#[inline(always)]
pub fn close_at_sight(tcb: &mut Tcb) -> bool {
    let closed_before = Bits::FIN_QUEUED.and(Bits::APP_CLOSED).and(Bits::REPORTED);
    if tcb.bits.has(closed_before) || !tcb.rx.is_empty() || tcb.cold.is_some() {
        return false;
    }
    let next = match tcb.state() {
        State::Established => State::FinWait1,
        State::CloseWait => State::LastAck,
        State::SynSent
        | State::SynReceived
        | State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait
        | State::Closed => return false,
    };
    tcb.enter(next);
    tcb.bits.set(Bits::FIN_QUEUED.and(Bits::APP_CLOSED));
    true
}

/// Our FIN is acknowledged, now or before.
#[inline]
pub fn our_fin_is_acked(tcb: &mut Tcb, env: &Env) {
    match tcb.state() {
        State::FinWait1 => {
            tcb.enter(State::FinWait2);
            if tcb.bits.has(Bits::APP_CLOSED) {
                arm_fin_wait_2(tcb, env);
            }
        }
        State::Closing => tcb.enter(State::TimeWait),
        State::LastAck => tcb.enter(State::Closed),
        _ => {}
    }
}

/// With nobody left to read, FIN-WAIT-2 does not wait for ever.
pub(super) fn arm_fin_wait_2(tcb: &mut Tcb, env: &Env) {
    tcb.bits.set(Bits::IDLE_ARMED);
    tcb.idle_at_ms = env.now_ms.wrapping_add(env.fixed.fin_wait_2_timeout_ms);
}

/// Eighth: the FIN bit (RFC 9293 §3.10.7.4). The FIN counts once everything before it has come.
#[inline(always)]
pub fn eighth_fin(tcb: &mut Tcb, seg: &Segment, env: &mut Env) {
    if !tcb.state().can_receive() {
        // A FIN that comes again is acknowledged again: the sequence check saw to that.
        return;
    }
    let due = seg.flags.fin() && seg.seq.add(seg.payload_len.into()) == tcb.rcv_nxt;
    if (tcb.cold.is_some() || !due) && !counts_yet(tcb, seg, env) {
        return;
    }
    take_fin(tcb);
    match tcb.state() {
        State::Established => tcb.enter(State::CloseWait),
        // If our FIN were acknowledged, the fifth step would have moved us to FIN-WAIT-2.
        State::FinWait1 => tcb.enter(State::Closing),
        State::FinWait2 => {
            tcb.bits.clear(Bits::IDLE_ARMED);
            tcb.enter(State::TimeWait);
        }
        State::SynSent
        | State::SynReceived
        | State::CloseWait
        | State::Closing
        | State::LastAck
        | State::TimeWait
        | State::Closed => {}
    }
}

/// The peer's FIN counts now.
#[inline(always)]
pub(super) fn take_fin(tcb: &mut Tcb) {
    tcb.rcv_nxt += 1;
    if tcb.rcv_adv.before(tcb.rcv_nxt) {
        tcb.rcv_adv = tcb.rcv_nxt; // a FIN takes no room
    }
    tcb.bits.set(Bits::ACK_NOW.and(Bits::PEER_FIN));
    tcb.events.add(Events::PEER_CLOSED);
}

/// Whether everything before the peer's FIN has come, where anything was out of order.
#[cold]
fn counts_yet(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> bool {
    if seg.flags.fin() {
        let at = seg.seq.add(seg.payload_len.into());
        if at != tcb.rcv_nxt {
            // Text that came from beyond it contradicts it.
            if at.after(tcb.rcv_nxt) && at.at_or_before(tcb.rcv_adv) && recv::kept_end(tcb, env).at_or_before(at) {
                tcb.cold_mut().fin_at = Some(at);
                tcb.bits.set(Bits::ACK_NOW);
            }
            return false;
        }
    } else if tcb.cold.as_ref().and_then(|cold| cold.fin_at) != Some(tcb.rcv_nxt) {
        return false;
    }
    if let Some(cold) = &mut tcb.cold {
        cold.fin_at = None;
    }
    recv::discard_out_of_order(tcb, env); // nothing follows a FIN
    true
}

/// What TIME-WAIT keeps of a connection that is in it.
#[inline(always)]
pub fn time_wait(tcb: &Tcb) -> TimeWait {
    TimeWait {
        key: tcb.key,
        snd_nxt: tcb.snd_nxt,
        rcv_nxt: tcb.rcv_nxt,
        ts_recent: tcb.ts_recent,
        expiry: 0,
        place: MarkedPlace::new(tcb.place, tcb.bits.has(Bits::TIMESTAMPS)),
    }
}

/// What becomes of a segment in TIME-WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// The FIN came again: acknowledged again, and 2·MSL starts anew.
    Restart,
    /// Acknowledged again, at a limited rate.
    Acknowledge(DropReason),
    /// Ignored.
    Drop(DropReason),
    /// A new connection may take the place of this one (RFC 6191 §2, RFC 9293 §3.10.7.4 MAY-2).
    NewConnection,
}

/// SEGMENT ARRIVES in TIME-WAIT (RFC 9293 §3.10.7.4, RFC 1337, RFC 6191).
pub fn time_wait_arrives(record: &TimeWait, seg: &Segment) -> Waiting {
    if seg.flags.rst() {
        // RFC 1337 §4: a reset does not end TIME-WAIT.
        return Waiting::Drop(DropReason::ResetIgnored);
    }
    let newer_timestamp = match (record.timestamps(), seg.timestamps) {
        (true, Some(theirs)) => Some((theirs.value.wrapping_sub(record.ts_recent) as i32).signum()),
        _ => None,
    };
    if seg.flags.syn() && !seg.flags.ack() {
        let new = match newer_timestamp {
            Some(1) => true,
            // The same millisecond: the sequence number decides, as without timestamps.
            Some(0) | None => seg.seq.at_or_after(record.rcv_nxt),
            _ => false,
        };
        return if new { Waiting::NewConnection } else { Waiting::Acknowledge(DropReason::SynChallenged) };
    }
    if newer_timestamp == Some(-1) {
        return Waiting::Acknowledge(DropReason::PawsFailed);
    }
    if seg.flags.fin() && seg.seq.add(seg.len()) == record.rcv_nxt {
        return Waiting::Restart;
    }
    match seg.len() {
        // A plain acknowledgment of ours needs no answer: two TIME-WAITs would answer each other for ever.
        0 if seg.seq == record.rcv_nxt => Waiting::Drop(DropReason::Duplicate),
        _ => Waiting::Acknowledge(DropReason::Duplicate),
    }
}

/// The ACK that TIME-WAIT sends.
pub fn time_wait_ack(record: &TimeWait, ts_value: u32) -> Header {
    Header {
        src_port: record.key.local_port,
        dst_port: record.key.remote_port,
        seq: record.snd_nxt,
        ack: record.rcv_nxt,
        flags: Flags::ACK,
        window: 0,
        options: Options {
            timestamps: record.timestamps().then_some(Timestamps { value: ts_value, echo: record.ts_recent }),
            ..Options::default()
        },
    }
}

/// The reset that answers a segment for which there is no connection (RFC 9293 §3.10.7.1); `None` for a reset.
pub fn refusal(seg: &Segment) -> Option<Header> {
    if seg.flags.rst() {
        return None;
    }
    let (seq, ack, flags) = match seg.flags.ack() {
        true => (seg.ack, crate::wire::tcp::Seq(0), Flags::RST),
        false => (crate::wire::tcp::Seq(0), seg.seq.add(seg.len()), Flags::RST | Flags::ACK),
    };
    Some(Header { src_port: seg.dst_port, dst_port: seg.src_port, seq, ack, flags, ..Header::default() })
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// Both halves were closed.
    Orderly,
    /// The peer reset it.
    Reset,
    /// The peer refused the connection by a reset.
    Refused,
    /// The peer did not answer for too long.
    TimedOut,
    /// The network or the peer said that it cannot be reached, or no neighbour answered.
    Unreachable,
    /// We reset it: data came after the application had closed, or it was closed with data unread.
    Aborted,
}

#[cfg(test)]
mod tests;
