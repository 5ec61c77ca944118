//! What happens when time passes: retransmission (RFC 6298 §5), zero-window probes (RFC 9293 §3.8.6.1), delayed
//! acknowledgment, keep-alive (§3.8.4), FIN-WAIT-2 and the application's own timer.
//!
//! The deadlines are in the record; the wheel has one entry per connection, armed for the earliest of them, or sooner. A
//! deadline that moves later leaves the wheel alone: when the entry comes up, the record is looked at, and the entry goes back to
//! sleep.

use crate::metrics::Counter;
use crate::tcp::chain::NIL;
use crate::tcp::congestion::Phase;
use crate::tcp::env::Env;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, RtxTimer, Tcb};
use crate::tcp::{ack, sack};

/// What a deadline did to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// It lives; something may be owed.
    Alive,
    /// The peer does not answer: it is given up.
    TimedOut,
    /// FIN-WAIT-2 has waited long enough.
    Abandoned,
}

/// Acts on every deadline that has passed.
pub fn expired(tcb: &mut Tcb, env: &mut Env) -> Expired {
    let now = env.now_ms;
    if tcb.bits.has(Bits::ACK_DELAYED) && passed(tcb.ack_at_ms, now) {
        tcb.bits.clear(Bits::ACK_DELAYED);
        tcb.bits.set(Bits::ACK_NOW);
        env.metrics.count(Counter::DelayedAcks);
    }
    if tcb.bits.has(Bits::APP_ARMED) && passed(tcb.app_at_ms, now) {
        tcb.bits.clear(Bits::APP_ARMED);
        tcb.events.add(Events::TIMER);
    }
    if tcb.bits.has(Bits::IDLE_ARMED) && passed(tcb.idle_at_ms, now) {
        tcb.bits.clear(Bits::IDLE_ARMED);
        match idle(tcb, env) {
            Expired::Alive => {}
            over => return over,
        }
    }
    if tcb.bits.has(Bits::RTX_ARMED) && passed(tcb.rtx_at_ms, now) {
        tcb.bits.clear(Bits::RTX_ARMED);
        return retransmission(tcb, env);
    }
    Expired::Alive
}

/// The deadlines beside that of retransmission.
pub const OTHER_DEADLINES: Bits = Bits::ACK_DELAYED.and(Bits::IDLE_ARMED).and(Bits::APP_ARMED);

/// The earliest deadline, in wrapped milliseconds.
#[inline]
pub fn next_deadline(tcb: &Tcb) -> Option<u32> {
    const OPENING: Bits = Bits::RTX_ARMED.and(Bits::IDLE_ARMED);
    match tcb.bits.only(Bits::RTX_ARMED.and(OTHER_DEADLINES)) {
        Bits(0) => None,
        Bits::RTX_ARMED => Some(tcb.rtx_at_ms),
        OPENING if !passed(tcb.idle_at_ms, tcb.rtx_at_ms) => Some(tcb.rtx_at_ms),
        _ => earliest(tcb),
    }
}

/// Of several deadlines, which lie within 24 days of each other.
#[inline(never)]
fn earliest(tcb: &Tcb) -> Option<u32> {
    let all = [
        (Bits::RTX_ARMED, tcb.rtx_at_ms),
        (Bits::ACK_DELAYED, tcb.ack_at_ms),
        (Bits::IDLE_ARMED, tcb.idle_at_ms),
        (Bits::APP_ARMED, tcb.app_at_ms),
    ];
    let mut earliest = None;
    for (armed, at) in all {
        if tcb.bits.has(armed) && !earliest.is_some_and(|earlier| passed(earlier, at)) {
            earliest = Some(at);
        }
    }
    earliest
}

/// `at` is not after `now`, both wrapped milliseconds.
#[inline]
pub fn passed(at: u32, now: u32) -> bool {
    now.wrapping_sub(at) as i32 >= 0
}

/// Arms the retransmission timer if it is not armed (RFC 6298 §5.1).
#[inline]
pub fn arm_rtx(tcb: &mut Tcb, env: &Env) {
    if !tcb.bits.has(Bits::RTX_ARMED) {
        start_rtx(tcb, env);
    }
}

/// Starts the retransmission timer anew, whatever it was armed for.
#[inline(always)]
pub fn start_rtx(tcb: &mut Tcb, env: &Env) {
    tcb.bits.set(Bits::RTX_ARMED);
    (tcb.rtx_at_ms, tcb.rtx_for) = (env.now_ms.wrapping_add(timeout_ms(tcb, env)), RtxTimer::Timeout);
}

/// [`start_rtx`] for the first SYN.
#[inline(always)]
pub fn start_first_rtx(tcb: &mut Tcb, env: &Env) {
    debug_assert!(tcb.rtx_for == RtxTimer::Timeout, "no other is armed before the connection is open");
    tcb.bits.set(Bits::RTX_ARMED);
    tcb.rtx_at_ms = env.now_ms.wrapping_add(env.fixed.rto_initial_ms);
}

/// New data was sent, or acknowledged with more in flight: should the last of it be lost, a probe finds out sooner than the
/// timeout (RFC 8985 §7.2).
#[inline]
pub fn arm_tail_probe(tcb: &mut Tcb, env: &Env) {
    let unfit = Bits::PERSIST.and(Bits::STALLED);
    if tcb.tail_probed
        || tcb.rtx_for == RtxTimer::Reordering
        || tcb.congestion.phase == Phase::Loss
        || tcb.rtt.srtt_us == 0
        || tcb.rtt.backoff > 0
        || !tcb.bits.has(Bits::SACK)
        || !tcb.bits.has(Bits::RTX_ARMED)
        || tcb.bits.has(unfit)
        || !tcb.state().is_synchronised()
    {
        return;
    }
    // A single segment may wait for the peer's delayed acknowledgment.
    let delay_ms = if tcb.flight() <= tcb.segment_max() { PEER_ACK_DELAY_MS } else { 0 };
    let probe_at_ms = env.now_ms.wrapping_add((2 * (tcb.rtt.srtt_us / 1_000) + 1).max(TAIL_PROBE_MIN_MS) + delay_ms);
    // A probe that was due for what was sent before waits for what is sent now.
    if tcb.rtx_for == RtxTimer::TailProbe || !passed(tcb.rtx_at_ms, probe_at_ms) {
        (tcb.rtx_at_ms, tcb.rtx_for) = (probe_at_ms, RtxTimer::TailProbe);
    }
}

/// How long ago the retransmission timer was armed, in milliseconds, while its timeout is still the same.
#[cold]
pub fn since_armed_ms(tcb: &Tcb, env: &Env) -> Option<u32> {
    let left_ms = tcb.rtx_at_ms.wrapping_sub(env.now_ms);
    (tcb.bits.has(Bits::RTX_ARMED) && tcb.rtx_for == RtxTimer::Timeout)
        .then(|| timeout_ms(tcb, env).checked_sub(left_ms))
        .flatten()
}

/// The timeout of what is in flight. A probe's is doubled like any other (RFC 9293 §3.8.6.1, SHLD-30).
#[inline(always)]
fn timeout_ms(tcb: &Tcb, env: &Env) -> u32 {
    if tcb.rtt.backoff | tcb.persist_backoff != 0 || !tcb.rtt.is_short(env.fixed.short_rtt_us) {
        return timeout_worked_out_ms(tcb, env);
    }
    env.fixed.rto_min_ms
}

#[cold]
#[inline(never)]
fn timeout_worked_out_ms(tcb: &Tcb, env: &Env) -> u32 {
    let mut rtt = tcb.rtt;
    rtt.backoff = rtt.backoff.max(tcb.persist_backoff);
    rtt.timeout_ms(&env.config)
}

/// Something is owed that cannot be sent now, for want of a frame or a neighbour, and perhaps nobody will say when it can:
/// try again after a while. The timer is that of retransmission; with data in flight it is armed already, or armed as that.
pub fn arm_retry(tcb: &mut Tcb, span_ms: u32, env: &Env) {
    if tcb.flight() > 0 {
        arm_rtx(tcb, env);
    } else if !tcb.bits.has(Bits::RTX_ARMED) {
        tcb.bits.set(Bits::RTX_ARMED);
        (tcb.rtx_at_ms, tcb.rtx_for) = (env.now_ms.wrapping_add(span_ms), RtxTimer::Timeout);
    }
}

/// What was overtaken is looked at again in `wait_us` (RFC 8985 §6.2, step 5), unless the timer goes off before.
pub fn arm_reordering(tcb: &mut Tcb, wait_us: u32, env: &Env) {
    let at_ms = env.now_ms.wrapping_add(wait_us / 1_000 + 1);
    if !(tcb.bits.has(Bits::RTX_ARMED) && passed(tcb.rtx_at_ms, at_ms)) {
        tcb.bits.set(Bits::RTX_ARMED);
        (tcb.rtx_at_ms, tcb.rtx_for) = (at_ms, RtxTimer::Reordering);
    }
}

/// New data was acknowledged: the timer stops, to start anew if anything is still in flight (RFC 6298 §5.2, §5.3).
#[inline]
pub fn disarm_rtx(tcb: &mut Tcb) {
    tcb.bits.clear(Bits::RTX_ARMED.and(Bits::PERSIST));
}

/// Data waits but the window is closed and nothing is in flight: probe it after a while (RFC 9293 §3.8.6.1, MUST-35).
pub fn arm_persist(tcb: &mut Tcb, env: &Env) {
    if !tcb.bits.has(Bits::PERSIST) {
        // A retry that was armed before is not a probe.
        tcb.bits.clear(Bits::RTX_ARMED);
        tcb.bits.set(Bits::PERSIST);
    }
    arm_rtx(tcb, env);
}

/// The window opened while it was being probed: the probe's byte may have been refused, so it goes first and at once.
pub fn window_opened(tcb: &mut Tcb, env: &mut Env) {
    tcb.bits.clear(Bits::PERSIST.and(Bits::RTX_ARMED).and(Bits::PROBE_OWED).and(Bits::STALLED));
    tcb.persist_backoff = 0;
    sack::mark_all_lost(tcb, env);
    if tcb.tx.is_empty() && tcb.fin_sent() {
        tcb.bits.set(Bits::FIN_AGAIN);
    }
}

/// Starts watching for a silent peer, if that is configured.
#[inline(always)]
pub fn arm_keepalive(tcb: &mut Tcb, env: &Env) {
    if let Some(idle) = env.config.keepalive_idle {
        tcb.bits.set(Bits::IDLE_ARMED);
        tcb.idle_at_ms = env.now_ms.wrapping_add(idle.as_millis() as u32);
    }
}

/// The connect timeout, the FIN-WAIT-2 timeout or the keep-alive timer went off.
fn idle(tcb: &mut Tcb, env: &mut Env) -> Expired {
    match tcb.state() {
        State::SynSent | State::SynReceived => return Expired::TimedOut,
        State::FinWait2 if tcb.bits.has(Bits::APP_CLOSED) => return Expired::Abandoned,
        State::TimeWait | State::Closed => return Expired::Alive,
        _ => {}
    }
    let Some(idle) = env.config.keepalive_idle else { return Expired::Alive };
    let idle_ms = idle.as_millis() as u32;
    let silent_ms = env.now_ms.wrapping_sub(tcb.heard_at_ms);
    tcb.bits.set(Bits::IDLE_ARMED);
    if silent_ms < idle_ms {
        tcb.probes = 0;
        tcb.idle_at_ms = tcb.heard_at_ms.wrapping_add(idle_ms);
        return Expired::Alive;
    }
    if tcb.probes >= env.config.keepalive_probes {
        return Expired::TimedOut;
    }
    tcb.probes += 1;
    tcb.bits.set(Bits::KEEPALIVE_OWED);
    tcb.idle_at_ms = env.now_ms.wrapping_add(env.config.keepalive_interval.as_millis() as u32);
    Expired::Alive
}

/// The retransmission timer went off (RFC 6298 §5.4–§5.7), or the persist timer, or what could not be sent is tried again.
fn retransmission(tcb: &mut Tcb, env: &mut Env) -> Expired {
    tcb.bits.clear(Bits::AWAITS_NEIGHBOUR);
    match core::mem::replace(&mut tcb.rtx_for, RtxTimer::Timeout) {
        RtxTimer::Timeout => {}
        RtxTimer::Reordering => {
            ack::find_loss(tcb, env);
            arm_rtx(tcb, env);
            return Expired::Alive;
        }
        RtxTimer::TailProbe => {
            tcb.tail_probed = true;
            env.metrics.count(Counter::TailProbes);
            sack::mark_tail_lost(tcb, env);
            tcb.bits.set(if tcb.tx.is_empty() { Bits::FIN_AGAIN } else { Bits::RTX_NOW });
            arm_rtx(tcb, env);
            return Expired::Alive;
        }
    }
    let waits = tcb.flight() == 0 && !tcb.bits.has(Bits::PERSIST);
    if waits && tcb.bits.has(Bits::WANTS_ROOM) {
        tcb.bits.clear(Bits::WANTS_ROOM);
        tcb.events.add(Events::WRITABLE); // what could not be written for want of frames
    }
    // A FIN that cannot be sent is as much of a reason to give up as data.
    let unsent = tcb.tx_unsent != NIL || (tcb.bits.has(Bits::FIN_QUEUED) && !tcb.fin_sent());
    if waits && !(unsent && tcb.state().is_synchronised()) {
        return Expired::Alive;
    }
    let first = !tcb.bits.has(Bits::STALLED);
    if first {
        tcb.bits.set(Bits::STALLED);
        tcb.stalled_at_ms = env.now_ms;
    }
    // RFC 9293 §3.8.3, R2. An open that is not answered has a limit of its own.
    let stalled_ms = env.now_ms.wrapping_sub(tcb.stalled_at_ms);
    let give_up = stalled_ms > env.config.give_up.as_millis() as u32 && tcb.state().is_synchronised();
    if waits {
        return if give_up { Expired::TimedOut } else { Expired::Alive };
    }
    if tcb.flight() == 0 || (tcb.snd_wnd == 0 && tcb.state().is_synchronised()) {
        tcb.bits.set(Bits::PERSIST);
        tcb.persist_backoff = tcb.persist_backoff.saturating_add(1);
        if tcb.flight() == 0 {
            tcb.bits.set(Bits::PROBE_OWED);
        } else if tcb.tx.is_empty() {
            tcb.bits.set(Bits::FIN_AGAIN);
        } else {
            sack::mark_head_lost_again(tcb, env);
            tcb.bits.set(Bits::RTX_NOW); // whatever the congestion window: else nothing goes, and nothing arms the timer
        }
        // RFC 9293 §3.8.6.1, MUST-37: as long as probes are answered the connection stays; but not for ever when the
        // application has closed it and nobody is left to decide (RFC 6429 §3).
        let answered = !tcb.bits.has(Bits::APP_CLOSED)
            && tcb.heard_at_ms.wrapping_sub(tcb.stalled_at_ms) as i32 > 0
            && env.now_ms.wrapping_sub(tcb.heard_at_ms) <= env.config.give_up.as_millis() as u32;
        return if give_up && !answered { Expired::TimedOut } else { Expired::Alive };
    }
    env.metrics.count(Counter::RetransmissionTimeouts);
    if give_up {
        return Expired::TimedOut;
    }
    tcb.rtt.backoff = tcb.rtt.backoff.saturating_add(1);
    match tcb.state() {
        State::SynSent | State::SynReceived => tcb.bits.set(Bits::SYN_OWED),
        _ => {
            let (flight, segment_max) = (tcb.flight(), tcb.segment_max());
            tcb.congestion.timed_out(flight, segment_max, first);
            tcb.congestion.phase = Phase::Loss;
            tcb.congestion.recover = tcb.snd_nxt;
            tcb.congestion.dup_acks = 0;
            sack::mark_all_lost(tcb, env);
            // RFC 6298 §5.4: the earliest goes again, whatever the window.
            tcb.bits.set(if tcb.tx.is_empty() { Bits::FIN_AGAIN } else { Bits::RTX_NOW });
        }
    }
    Expired::Alive
}

const TAIL_PROBE_MIN_MS: u32 = 10;
const PEER_ACK_DELAY_MS: u32 = 200;

#[cfg(test)]
mod tests;
