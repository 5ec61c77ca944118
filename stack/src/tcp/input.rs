//! SEGMENT ARRIVES (RFC 9293 §3.10.7) for connections that have a `Tcb`. Queues what came and notes what is owed; sends nothing.

use handfast_drivers::frame::Frame;

use crate::metrics::{Counter, DropReason};
use crate::tcp::env::Env;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Tcb};
use crate::tcp::{ack, close, open, recv};
use crate::wire::tcp::{Flags, Segment};

/// What becomes of a segment that was not simply taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Discarded; what the peer is owed, if anything, is noted in the connection.
    Drop(DropReason),
    /// Discarded and answered by a reset that takes its numbers from the segment (RFC 9293 §3.10.7.1). The connection stays.
    Refuse(DropReason),
    /// Discarded, and the connection ends with a reset from us.
    Reset(DropReason),
    /// The connection is over: the peer reset it.
    PeerReset,
}

/// A segment arrives. `frame` holds its payload and nothing else; it is taken if it is kept.
#[inline]
pub fn segment_arrives(tcb: &mut Tcb, seg: &Segment, frame: &mut Option<Frame>, env: &mut Env) -> Result<(), Verdict> {
    match tcb.state() {
        State::SynSent => open::syn_sent_arrives(tcb, seg, frame, env),
        // The record is about to go. A SYN comes again and finds the listener; a refusal would end its attempt.
        State::Closed if seg.flags.syn() && !seg.flags.ack() => Err(Verdict::Drop(DropReason::NoConnection)),
        State::Closed => Err(Verdict::Refuse(DropReason::NoConnection)),
        _ => otherwise(tcb, seg, frame, env),
    }
}

/// §3.10.7.4, the other states.
#[inline]
fn otherwise(tcb: &mut Tcb, seg: &Segment, frame: &mut Option<Frame>, env: &mut Env) -> Result<(), Verdict> {
    if !passes_at_sight(tcb, seg) {
        if tcb.state() == State::SynReceived && open::completes_simultaneous_open(tcb, seg) {
            return open::both_syns_crossed(tcb, seg, env);
        }
        first_to_fourth(tcb, seg, env)?;
    }
    heard(tcb, seg, env);
    fifth_ack(tcb, seg, env)?;
    // Sixth, URG: urgent data is delivered in line, as RFC 6093 §4 has applications ask for.
    text_and_fin(tcb, seg, frame, env)
}

/// Seventh and eighth. The FIN counts even if the text before it is known already: it may come with old text.
#[inline]
pub(super) fn text_and_fin(
    tcb: &mut Tcb,
    seg: &Segment,
    frame: &mut Option<Frame>,
    env: &mut Env,
) -> Result<(), Verdict> {
    if seg.payload_len > 0 {
        return text_then_fin(tcb, seg, frame, env);
    }
    if seg.flags.fin() || tcb.cold.is_some() {
        close::eighth_fin(tcb, seg, env);
    }
    Ok(())
}

fn text_then_fin(tcb: &mut Tcb, seg: &Segment, frame: &mut Option<Frame>, env: &mut Env) -> Result<(), Verdict> {
    let text = recv::text(tcb, seg.seq, frame, env);
    if !matches!(text, Err(Verdict::Reset(_))) && (seg.flags.fin() || tcb.cold.is_some()) {
        close::eighth_fin(tcb, seg, env);
    }
    text
}

/// What nearly every segment is: the next in order, not older than the last by its timestamp, with an ACK and without SYN and
/// RST. Whatever the window, the first four steps let it pass.
#[inline(always)]
fn passes_at_sight(tcb: &Tcb, seg: &Segment) -> bool {
    let stamp_holds = match (tcb.bits.has(Bits::TIMESTAMPS), seg.timestamps) {
        (true, Some(timestamps)) => timestamps.value.wrapping_sub(tcb.ts_recent) as i32 >= 0,
        (agreed, _) => !agreed,
    };
    seg.seq == tcb.rcv_nxt && seg.flags.only(Flags::SYN | Flags::RST | Flags::ACK) == Flags::ACK && stamp_holds
}

/// The first steps one by one.
#[inline(never)]
fn first_to_fourth(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    fourth_syn(tcb, seg, env)?; // RFC 5961 §4.2: whatever the sequence number, so before the first step
    first_sequence(tcb, seg, env)?;
    second_rst(tcb, seg, env)
}

/// First: PAWS, then the sequence number.
fn first_sequence(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    if tcb.bits.has(Bits::TIMESTAMPS) && !seg.flags.rst() {
        let Some(timestamps) = seg.timestamps else {
            // RFC 7323 §3.2: once agreed, a segment without the option SHOULD be dropped.
            return Err(Verdict::Drop(DropReason::TimestampMissing));
        };
        let older = (timestamps.value.wrapping_sub(tcb.ts_recent) as i32) < 0;
        // RFC 7323 §5.5: after 24 days of idleness TS.Recent says nothing.
        if older && env.now_ms.wrapping_sub(tcb.ts_recent_at_ms) < TS_RECENT_VALID_MS {
            return unacceptable(tcb, seg, DropReason::PawsFailed, env);
        }
    }
    let wnd = tcb.rcv_wnd();
    let acceptable = match (seg.len(), wnd) {
        (0, 0) => seg.seq == tcb.rcv_nxt,
        (0, _) => seg.seq.within(tcb.rcv_nxt, wnd),
        // RFC 9293 §3.10.7.4: with a window of zero no text is taken, but valid ACKs and RSTs are.
        (_, 0) => seg.seq == tcb.rcv_nxt,
        (len, _) => seg.seq.within(tcb.rcv_nxt, wnd) || seg.seq.add(len - 1).within(tcb.rcv_nxt, wnd),
    };
    if acceptable {
        return Ok(());
    }
    let reason = match seg.seq.before(tcb.rcv_nxt) {
        true => DropReason::Duplicate,
        false => DropReason::OutOfWindow,
    };
    unacceptable(tcb, seg, reason, env)
}

/// An unacceptable segment is acknowledged, unless it is a reset. The connection answers empty ones at a limited rate, lest
/// two ends answer each other's answers for ever (RFC 5961 §5.3). It may still be the answer that a keep-alive waits for.
#[cold]
fn unacceptable(tcb: &mut Tcb, seg: &Segment, reason: DropReason, env: &mut Env) -> Result<(), Verdict> {
    if !seg.flags.rst() {
        tcb.heard_at_ms = env.now_ms;
        if seg.len() > 0 || may_answer(tcb, env) {
            tcb.bits.set(Bits::ACK_NOW);
        }
    }
    Err(Verdict::Drop(reason))
}

/// Second: RST (RFC 5961 §3.2).
fn second_rst(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    if !seg.flags.rst() {
        return Ok(());
    }
    if tcb.state() == State::TimeWait {
        // RFC 1337 §4: it does not end TIME-WAIT, nor what is still to be read.
        return Err(Verdict::Drop(DropReason::ResetIgnored));
    }
    if seg.seq == tcb.rcv_nxt {
        return Err(Verdict::PeerReset);
    }
    if seg.seq.before(tcb.rcv_nxt) {
        return Err(Verdict::Drop(DropReason::OutOfWindow)); // only its text reaches into the window
    }
    challenge(tcb, env);
    Err(Verdict::Drop(DropReason::ResetChallenged))
}

/// Fourth: SYN (RFC 5961 §4.2). A SYN-RECEIVED that gets its SYN again repeats its SYN-ACK.
fn fourth_syn(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    if !seg.flags.syn() || seg.flags.rst() {
        return Ok(());
    }
    if tcb.state() == State::SynReceived && seg.seq == tcb.irs {
        tcb.bits.set(Bits::SYN_OWED);
        return Err(Verdict::Drop(DropReason::Duplicate));
    }
    if tcb.bits.has(Bits::ACTIVE) && seg.flags.ack() && seg.seq == tcb.irs && seg.ack == tcb.iss.add(1) {
        // The peer's SYN-ACK again: our ACK was lost. Its sender knows both numbers, so nothing need be held back.
        tcb.bits.set(Bits::ACK_NOW);
        return Err(Verdict::Drop(DropReason::Duplicate));
    }
    challenge(tcb, env);
    Err(Verdict::Drop(DropReason::SynChallenged))
}

/// A segment that passed the first steps is from the peer: it is alive, and its clock is known (RFC 7323 §4.3).
#[inline]
fn heard(tcb: &mut Tcb, seg: &Segment, env: &Env) {
    tcb.heard_at_ms = env.now_ms;
    tcb.probes = 0;
    if let Some(timestamps) = seg.timestamps
        && tcb.bits.has(Bits::TIMESTAMPS)
        && seg.seq.at_or_before(tcb.last_ack_sent)
    {
        tcb.ts_recent = timestamps.value;
        tcb.ts_recent_at_ms = env.now_ms;
    }
}

/// Fifth: ACK.
#[inline]
fn fifth_ack(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    if !seg.flags.ack() {
        return Err(Verdict::Drop(DropReason::NoAck));
    }
    if tcb.state() == State::SynReceived {
        our_syn_is_acked(tcb, seg, env)?;
    }
    ack::acknowledge(tcb, seg, env)?;
    if tcb.fin_acked() {
        close::our_fin_is_acked(tcb, env);
    }
    Ok(())
}

/// After a simultaneous open.
#[cold]
fn our_syn_is_acked(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    if !(seg.ack.after(tcb.snd_una) && seg.ack.at_or_before(tcb.snd_nxt)) {
        return Err(Verdict::Refuse(DropReason::AckUnacceptable));
    }
    open::established(tcb, env);
    ack::first_window(tcb, seg);
    Ok(())
}

/// Owes the peer a challenge ACK (RFC 5961 §3.2, §4.2), unless there were too many on this connection, or on all of them in
/// this second (§7). Each connection's own limit keeps one from using up the common one, or from measuring it.
#[cold]
pub(super) fn challenge(tcb: &mut Tcb, env: &mut Env) {
    if may_answer(tcb, env) && env.challenges.take(env.now) {
        env.metrics.count(Counter::ChallengeAcks);
        tcb.bits.set(Bits::ACK_NOW);
    } else {
        env.metrics.dropped(DropReason::RateLimited);
    }
}

/// Whether this connection may answer one more segment that nothing obliges it to answer.
fn may_answer(tcb: &mut Tcb, env: &Env) -> bool {
    let may = env.now_ms.wrapping_sub(tcb.answered_at_ms) >= ANSWERS_APART_MS;
    if may {
        tcb.answered_at_ms = env.now_ms;
    }
    may
}

/// Time between two challenge ACKs on one connection.
pub(super) const ANSWERS_APART_MS: u32 = 200;
const TS_RECENT_VALID_MS: u32 = 24 * 24 * 3600 * 1000;

#[cfg(test)]
mod tests;
