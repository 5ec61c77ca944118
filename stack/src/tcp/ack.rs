//! What an acknowledgment does: frees what is acknowledged, measures, opens the window, finds losses and recovers from them
//! (RFC 9293 §3.10.7.4 fifth, RFC 5681, RFC 6298, RFC 6582, RFC 6675).

use crate::metrics::{Counter, DropReason};
use crate::tcp::congestion::Phase;
use crate::tcp::env::{Env, Sent};
use crate::tcp::input::{Verdict, challenge};
use crate::tcp::sack;
use crate::tcp::send_queue;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::tcp::timers;
use crate::wire::tcp::Segment;

/// Takes the acknowledgment and the window of an acceptable segment.
#[inline(always)]
pub fn acknowledge(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    let acked = seg.ack.since(tcb.snd_una);
    if acked > tcb.flight() {
        return not_in_flight(tcb, seg, env);
    }
    if acked > 0 {
        new_data_acked(tcb, seg, acked, env);
    } else {
        same_ack_again(tcb, seg, env);
    }
    update_window(tcb, seg, env);
    Ok(())
}

/// An acknowledgment of what was never sent, or an old one.
#[cold]
fn not_in_flight(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    // RFC 9293 §3.10.7.4: an ACK of something not yet sent: send an ACK, drop the segment.
    // RFC 5961 §5.2: nor one that is older than any window that the peer can have in mind.
    if seg.ack.after(tcb.snd_nxt) || tcb.snd_una.since(seg.ack) > tcb.snd_wnd_max.max(1) {
        challenge(tcb, env);
        return Err(Verdict::Drop(DropReason::AckUnacceptable));
    }
    Ok(()) // an old duplicate: RFC 9293 §3.10.7.4, ignored, its text is not
}

/// Our SYN is acknowledged: nothing else was sent before.
#[inline]
pub fn syn_acked(tcb: &mut Tcb, seg: &Segment, env: &Env) {
    tcb.snd_una = seg.ack;
    stop_waiting(tcb);
    tell_of_room(tcb, env);
}

/// The application hears of room in the send queue, if it wanted some, once it is worth while.
#[inline]
fn tell_of_room(tcb: &mut Tcb, env: &Env) {
    if tcb.bits.has(Bits::WANTS_ROOM) && send_queue::room(tcb, env) >= env.config.send_buffer_bytes / 4 {
        tcb.bits.clear(Bits::WANTS_ROOM);
        tcb.events.add(Events::WRITABLE);
    }
}

/// What was waited for has come: the timer stops, to start anew if anything is still in flight, and nothing is stalled.
#[inline(always)]
fn stop_waiting(tcb: &mut Tcb) {
    tcb.bits.clear(Bits::STALLED);
    (tcb.persist_backoff, tcb.tail_probed) = (0, false);
    timers::disarm_rtx(tcb);
}

/// The first window of a connection, from the segment that completed it.
#[inline(always)]
pub fn first_window(tcb: &mut Tcb, seg: &Segment) {
    let shift = if seg.flags.syn() { 0 } else { tcb.snd_shift };
    tcb.snd_wnd = u32::from(seg.window) << shift;
    tcb.snd_wnd_max = tcb.snd_wnd;
    (tcb.snd_wl1, tcb.snd_wl2) = (seg.seq, seg.ack);
}

#[inline(always)]
fn new_data_acked(tcb: &mut Tcb, seg: &Segment, acked: u32, env: &mut Env) {
    // A SYN or FIN is in no queue.
    let sample = if tcb.tx.is_empty() { None } else { send_queue::acknowledged(tcb, seg.ack, env) };
    tcb.snd_una = seg.ack;
    measure(tcb, seg, sample, env);
    stop_waiting(tcb);
    let learnt = seg.sack.len > 0 && tcb.bits.has(Bits::SACK) && sack::update(tcb, &seg.sack, env);
    if tcb.congestion.phase == Phase::Open {
        tcb.congestion.dup_acks = 0;
        // Only a window that was in use has shown what the path carries (RFC 7661 §4.1). The last output says whether it
        // was: a burst of acknowledgments all tell of that one.
        if tcb.bits.has(Bits::CWND_LIMITED) {
            tcb.congestion.acked(acked, tcb.segment_max());
        }
        if learnt {
            find_loss(tcb, env);
        }
    } else {
        recovering(tcb, acked, env);
    }
    if tcb.flight() > 0 {
        timers::arm_rtx(tcb, env); // unless it is armed for what was overtaken
        timers::arm_tail_probe(tcb, env);
    }
    tell_of_room(tcb, env);
}

/// A round trip: of a segment that was sent just once (RFC 6298 §3), else by the timestamp that came back (RFC 7323 §4.1).
/// Only a measurement ends the back-off: a path that has become slower would never be measured otherwise (Karn's rule).
#[inline]
fn measure(tcb: &mut Tcb, seg: &Segment, sample: Option<Sent>, env: &Env) {
    if let Some(sent) = sample {
        tcb.rtt.measured(sent.ago_us(env.now_us32()));
        tcb.rtt.backoff = 0;
    } else if tcb.rtt.backoff > 0 {
        measure_by_timestamp(tcb, seg, env);
    }
}

/// The echo must be that of what was sent last. An older one says that the first transmission arrived, not when: its
/// acknowledgment may have been lost, and a duplicate does not renew the echo.
#[cold]
fn measure_by_timestamp(tcb: &mut Tcb, seg: &Segment, env: &Env) {
    if let Some(timestamps) = seg.timestamps.filter(|_| tcb.bits.has(Bits::TIMESTAMPS)) {
        let elapsed_ms = tcb.ts_value(env.now_ms).wrapping_sub(timestamps.echo);
        if elapsed_ms <= env.now_ms.wrapping_sub(tcb.sent_at_ms) {
            tcb.rtt.measured(elapsed_ms.min(1 << 21) * 1_000);
            tcb.rtt.backoff = 0;
            return;
        }
    }
    // The path works, slow or not. The next loss must find time for several attempts before the connection is given up.
    while tcb.rtt.backoff > 0 && u64::from(tcb.rtt.timeout_ms(&env.config)) > env.config.give_up.as_millis() / 16 {
        tcb.rtt.backoff -= 1;
    }
}

/// New data was acknowledged while something is being recovered.
#[cold]
fn recovering(tcb: &mut Tcb, acked: u32, env: &mut Env) {
    let segment_max = tcb.segment_max();
    if tcb.snd_una.at_or_after(tcb.congestion.recover) {
        tcb.congestion.phase = Phase::Open;
        tcb.congestion.dup_acks = 0;
        tcb.bits.clear(Bits::RTX_NOW);
        if tcb.lost_bytes() > 0 {
            find_loss(tcb, env); // what was sent during the recovery was lost too: that is another one
        }
        return;
    }
    match tcb.congestion.phase {
        Phase::Recovery => {
            // RFC 6582 §3.2: a partial acknowledgment shows the next loss and deflates the window.
            let segments = (acked / segment_max).min(255) as u8;
            tcb.congestion.dup_acks = tcb.congestion.dup_acks.saturating_sub(segments);
            sack::mark_head_lost(tcb, env);
            mark_lost(tcb, env);
            if !tcb.bits.has(Bits::SACK) {
                tcb.bits.set(Bits::RTX_NOW);
            }
        }
        Phase::Loss => {
            // RFC 3465 §2.3: after a timeout one segment an acknowledgment.
            tcb.congestion.acked(acked.min(segment_max), segment_max);
            mark_lost(tcb, env);
            if tcb.tx.is_empty() && tcb.fin_sent() {
                tcb.bits.set(Bits::FIN_AGAIN); // all that is left of what was lost
            }
        }
        Phase::Open => {}
    }
}

/// SND.UNA again: nothing new, a window update, or a duplicate acknowledgment (RFC 5681 §2).
#[inline]
fn same_ack_again(tcb: &mut Tcb, seg: &Segment, env: &mut Env) {
    if tcb.flight() == 0 || tcb.tx.is_empty() {
        return;
    }
    if tcb.bits.has(Bits::SACK) {
        // RFC 6675 §2: with SACK a duplicate is what tells something new. The others come of duplicated segments.
        if seg.sack.len > 0 && sack::update(tcb, &seg.sack, env) {
            find_loss(tcb, env);
        }
        return;
    }
    let window = u32::from(seg.window) << tcb.snd_shift;
    let duplicate = seg.payload_len == 0 && !seg.flags.fin() && window == tcb.snd_wnd && window > 0;
    // After a timeout all that was in flight is taken for lost already: that it leaves the network makes no room.
    if duplicate && tcb.congestion.phase != Phase::Loss {
        tcb.congestion.dup_acks = tcb.congestion.dup_acks.saturating_add(1);
        find_loss(tcb, env);
    }
}

/// Takes for lost what is, by the count of what arrived after it or by time. Whether anything is lost now; what may yet arrive
/// is looked at again when it has had its time.
fn mark_lost(tcb: &mut Tcb, env: &mut Env) -> bool {
    sack::mark_lost(tcb, env);
    if let Some(wait_us) = sack::mark_overtaken_lost(tcb, env) {
        timers::arm_reordering(tcb, wait_us, env);
    }
    tcb.lost_bytes() > 0
}

/// Fast retransmit (RFC 5681 §3.2, RFC 6675 §5, RFC 8985 §6.2).
#[cold]
pub(super) fn find_loss(tcb: &mut Tcb, env: &mut Env) {
    let lost = mark_lost(tcb, env);
    if tcb.congestion.phase != Phase::Open {
        return;
    }
    // RFC 6582 §3.2, step 2: SND.UNA must be beyond RECOVER. It is never before it when nothing is being recovered; just at it,
    // duplicates may be answers to what was sent again needlessly.
    let by_count = u32::from(tcb.congestion.dup_acks) >= sack::DUP_THRESH && tcb.snd_una != tcb.congestion.recover;
    if !(lost || by_count) {
        return;
    }
    sack::mark_head_lost_again(tcb, env);
    // RFC 5681 §3.2, step 3, RFC 6675 §5, step 4.3: the first lost segment goes at once, whatever the window.
    tcb.bits.set(Bits::RTX_NOW);
    let (flight, segment_max) = (tcb.flight(), tcb.segment_max());
    tcb.congestion.recover = tcb.snd_nxt;
    tcb.congestion.phase = Phase::Recovery;
    tcb.congestion.loss_found(flight, segment_max);
    env.metrics.count(Counter::FastRecoveries);
}

/// SND.WND (RFC 9293 §3.10.7.4): only from segments newer than the last that set it. Unlike there, what acknowledges more is
/// newer whatever its sequence number, for the peer may be sending old text again: without its window the right edge, SND.UNA +
/// SND.WND, would move with SND.UNA to where the peer has not moved it.
#[inline]
fn update_window(tcb: &mut Tcb, seg: &Segment, env: &mut Env) {
    let newer = tcb.snd_wl2.before(seg.ack) || (tcb.snd_wl2 == seg.ack && tcb.snd_wl1.at_or_before(seg.seq));
    if !newer {
        return;
    }
    let was = tcb.snd_wnd;
    tcb.snd_wnd = u32::from(seg.window) << tcb.snd_shift;
    tcb.snd_wnd_max = tcb.snd_wnd_max.max(tcb.snd_wnd);
    (tcb.snd_wl1, tcb.snd_wl2) = (seg.seq, seg.ack);
    if was == 0 && tcb.snd_wnd > 0 && tcb.bits.has(Bits::PERSIST) {
        timers::window_opened(tcb, env);
    }
}

#[cfg(test)]
mod tests;
