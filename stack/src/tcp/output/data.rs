//! Data: which segments of the send queue go now, first or again.

use handfast_drivers::burst::TxBurst;

use super::{Path, Progress, advertise, header, options, told};
use crate::metrics::Counter;
use crate::tcp::chain::NIL;
use crate::tcp::env::Env;
use crate::tcp::send_queue;
use crate::tcp::tcb::{Bits, Tcb};
use crate::tcp::timers;
use crate::wire::tcp::Flags;

/// What is lost first, then what is new.
pub(super) fn send(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    let ahead = tcb.stamp_us.wrapping_sub(env.now_us32()) < 1 << 20;
    tcb.stamp_us = if ahead { tcb.stamp_us.wrapping_add(1) } else { env.now_us32() };
    if tcb.lost_bytes() > 0 {
        let progress = retransmit(tcb, env, path, tx);
        if progress != Progress::Done {
            return progress;
        }
    }
    tcb.bits.clear(Bits::CWND_LIMITED);
    let unsent = tcb.tx_unsent;
    while tcb.tx_unsent != NIL {
        match next_segment(tcb, env) {
            Next::Send(at) => match send_segment(tcb, at, env, path, tx) {
                Sending::Sent => {}
                Sending::DeviceHasIt => break,
                Sending::Full => return Progress::Full,
            },
            Next::Wait => break,
            Next::NoFrame => return Progress::NoFrame,
            Next::Probe => {
                timers::arm_persist(tcb, env);
                break;
            }
        }
    }
    if tcb.tx_unsent != unsent {
        timers::arm_tail_probe(tcb, env);
    }
    Progress::Done
}

/// Sends again what is taken for lost, oldest first, as the congestion window allows (RFC 6675 §5).
#[cold]
fn retransmit(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    let mut at = tcb.tx.head();
    while at != tcb.tx_unsent && tcb.lost_bytes() > 0 {
        let Some((held, _, &mut sent)) = env.tx.get_mut(at) else { break };
        let len = held.len() as u32;
        if !sent.lost || sent.sacked {
            at = env.tx.next(at);
            continue;
        }
        let pipe = tcb.pipe();
        if pipe > 0 && pipe + len.min(tcb.segment_max()) > tcb.congestion.cwnd && !tcb.bits.has(Bits::RTX_NOW) {
            break;
        }
        if held.is_sending() {
            // It is on its way out already: that is the retransmission. Should it be lost, the timer finds out.
            tcb.bits.clear(Bits::RTX_NOW);
            timers::arm_rtx(tcb, env);
            at = env.tx.next(at);
            continue;
        }
        // The path may have become narrower since; a closed window lets one byte through (RFC 9293 §3.8.6.1).
        let len_max = if tcb.snd_wnd == 0 { 1 } else { tcb.segment_max() };
        let Some(first) = send_queue::split(tcb, at, len_max.min(len), env) else {
            timers::arm_rtx(tcb, env);
            return Progress::NoFrame;
        };
        match send_segment(tcb, first, env, path, tx) {
            Sending::Sent => {
                env.metrics.count(Counter::Retransmissions);
                tcb.bits.clear(Bits::RTX_NOW);
                at = env.tx.next(first);
            }
            Sending::DeviceHasIt => break,
            Sending::Full => return Progress::Full,
        }
        if tcb.snd_wnd == 0 {
            break;
        }
    }
    Progress::Done
}

enum Next {
    Send(u32),
    Wait,
    NoFrame,
    Probe,
}

/// Decides about the first unsent segment: Nagle (RFC 9293 §3.7.4), silly windows (§3.8.6.2.1), both windows. May split it.
#[inline]
fn next_segment(tcb: &mut Tcb, env: &mut Env) -> Next {
    let at = tcb.tx_unsent;
    let Some((held, slot)) = env.tx.get(at) else { return Next::Wait };
    let segment_max = tcb.segment_max();
    // The segments of the queue may be short each and still be much together.
    let short = tcb.snd_end.since(slot.seq) < segment_max;
    let len = (held.len() as u32).min(segment_max);
    let whole = held.len() as u32 <= segment_max;
    let flight = tcb.flight();
    let window_end = tcb.snd_una.add(tcb.snd_wnd);
    let window = if window_end.after(slot.seq) { window_end.since(slot.seq) } else { 0 };
    // A short segment waits while anything is unacknowledged, unless nothing can be added to it any more.
    let nagle = flight > 0 && !tcb.bits.has(Bits::NODELAY.and(Bits::FIN_QUEUED));
    if window < len {
        let worthwhile = window > 0 && window >= (tcb.snd_wnd_max / 2).min(segment_max) && !nagle;
        // RFC 9293 §3.8.6.1: at least one octet of new data; or what the window allows, after the override timeout.
        let probe = tcb.bits.has(Bits::PROBE_OWED);
        if probe || worthwhile && tcb.pipe() + window <= tcb.congestion.cwnd {
            return split(tcb, at, window.max(1), env);
        }
        return if flight == 0 { Next::Probe } else { Next::Wait };
    }
    if flight == 0 {
        restart_after_idle(tcb, env);
    } else if tcb.pipe() + len > tcb.congestion.cwnd {
        tcb.bits.set(Bits::CWND_LIMITED);
        return Next::Wait;
    }
    if short && nagle {
        return Next::Wait;
    }
    if whole { Next::Send(at) } else { split(tcb, at, len, env) }
}

fn split(tcb: &mut Tcb, at: u32, len: u32, env: &mut Env) -> Next {
    send_queue::split(tcb, at, len, env).map_or(Next::NoFrame, Next::Send)
}

/// RFC 5681 §4.1: after a pause longer than the timeout, counted from the last that was sent, begin as at the start.
#[inline]
fn restart_after_idle(tcb: &mut Tcb, env: &Env) {
    let idle_ms = env.now_ms.wrapping_sub(tcb.sent_at_ms);
    if idle_ms > IDLE_MIN_MS && tcb.snd_una.since(tcb.iss) > 1 && idle_ms > tcb.rtt.timeout_ms(&env.config) {
        let segment_max = tcb.segment_max();
        tcb.congestion.restart(segment_max);
    }
}

enum Sending {
    Sent,
    DeviceHasIt,
    Full,
}

/// Sends element `at` of the send queue, with the FIN if nothing follows it.
#[inline]
fn send_segment(tcb: &mut Tcb, at: u32, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Sending {
    if tx.room() == 0 {
        return Sending::Full;
    }
    let Some((held, slot)) = env.tx.get(at) else { return Sending::DeviceHasIt };
    if held.is_sending() {
        // Before the header is made: what it tells of the window counts as told.
        timers::arm_rtx(tcb, env);
        return Sending::DeviceHasIt;
    }
    let (seq, next) = (slot.seq, env.tx.next(at));
    let mut flags = Flags::ACK;
    if next == NIL {
        flags |= Flags::PSH;
        if tcb.bits.has(Bits::FIN_QUEUED) {
            flags |= Flags::FIN;
        }
    }
    let window = advertise(tcb, env);
    let header = header(tcb, seq, flags, window, options(tcb, env));
    let header_len = path.headers_len(&tcb.key_ip(), &header, &[]);
    let Some((held, _, sent)) = env.tx.get_mut(at) else { return Sending::DeviceHasIt };
    let Some((room, payload)) = held.header_mut(header_len) else { return Sending::DeviceHasIt };
    let len = payload.len();
    path.emit(room, &tcb.key_ip(), &header, &[], payload);
    if tx.push_held(held, header_len, len).is_err() {
        return Sending::DeviceHasIt;
    }
    if sent.lost {
        (sent.lost, sent.resent) = (false, true);
        tcb.cold_mut().lost_bytes -= len as u32;
    }
    (sent.at_us, sent.times) = (tcb.stamp_us, sent.times.saturating_add(1));
    tcb.sent_at_ms = env.now_ms;
    let end = seq.add(len as u32 + u32::from(flags.fin()));
    if at == tcb.tx_unsent {
        tcb.tx_unsent = next;
        if tcb.bits.has(Bits::PROBE_OWED) {
            tcb.bits.clear(Bits::PROBE_OWED);
            env.metrics.count(Counter::WindowProbes);
        }
        if tcb.flight() == 0 {
            tcb.bits.clear(Bits::RTX_ARMED); // until now it was for a try to send
        }
    }
    if end.after(tcb.snd_nxt) {
        tcb.snd_nxt = end;
    }
    // What is out of order is told by an acknowledgment without data: that has room for the blocks.
    let blocks_owed = tcb.bits.has(Bits::ACK_NOW) && tcb.cold.as_ref().is_some_and(|cold| !cold.ooo.is_empty());
    told(tcb);
    if blocks_owed {
        tcb.bits.set(Bits::ACK_NOW);
    }
    timers::arm_rtx(tcb, env);
    Sending::Sent
}

/// No timeout is shorter: most segments need not compute theirs.
const IDLE_MIN_MS: u32 = 1;
