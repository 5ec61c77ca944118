//! What comes in: reassembly, the receive window, when to acknowledge (RFC 9293 §3.8.6, §3.10.7.4 seventh).

use handfast_drivers::frame::Frame;

use crate::metrics::{Counter, DropReason};
use crate::tcp::chain::NIL;
use crate::tcp::env::Env;
use crate::tcp::input::Verdict;
use crate::tcp::sack::Cold;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::wire::tcp::Seq;

/// Takes a segment's text: `frame` holds exactly the payload, which begins at `seq`.
#[inline]
pub fn text(tcb: &mut Tcb, mut seq: Seq, frame: &mut Option<Frame>, env: &mut Env) -> Result<(), Verdict> {
    let Some(payload) = frame.as_mut().filter(|payload| !payload.is_empty()) else { return Ok(()) };
    if !tcb.state().can_receive() {
        // RFC 9293 §3.10.7.4: this should not occur, since a FIN came from the remote side. The text is ignored.
        return Ok(());
    }
    if seq.before(tcb.rcv_nxt) {
        let known = tcb.rcv_nxt.since(seq) as usize;
        if known >= payload.len() {
            tcb.bits.set(Bits::ACK_NOW);
            return Err(Verdict::Drop(DropReason::Duplicate));
        }
        payload.trim_front(known);
        seq = tcb.rcv_nxt;
    }
    // RFC 9293 §3.10.7.4: what lies beyond the window is cut off, and comes again; what lies beyond the FIN is none.
    let fin_at = tcb.cold.as_ref().and_then(|cold| cold.fin_at);
    let edge = fin_at.map_or(tcb.rcv_adv, |fin_at| fin_at.min(tcb.rcv_adv));
    let room = if edge.before(seq) { 0 } else { edge.since(seq) as usize };
    if room == 0 {
        tcb.bits.set(Bits::ACK_NOW);
        return Err(Verdict::Drop(DropReason::OutOfWindow));
    }
    payload.truncate(room);
    if tcb.bits.has(Bits::APP_CLOSED) {
        // RFC 9293 §3.6.1: the application closed and will not read this: tell the peer by a reset.
        return Err(Verdict::Reset(DropReason::DataAfterClose));
    }
    let kept = tcb.rx_frames + tcb.cold.as_ref().map_or(0, |cold| cold.ooo_frames);
    if seq == tcb.rcv_nxt {
        let Some(payload) = frame.take() else { return Ok(()) };
        return in_order(tcb, payload, kept, env);
    }
    tcb.bits.set(Bits::ACK_NOW);
    // What is out of order may never be of use: it leaves frames to what is in order, of whichever connection.
    let frames_left = env.frames_reserved.max(env.pool.capacity() / OUT_OF_ORDER_LEAVES);
    if kept >= env.config.recv_frames_max || env.pool.free() < frames_left {
        return Err(Verdict::Drop(DropReason::ReassemblyFull));
    }
    let Some(payload) = frame.take() else { return Ok(()) };
    env.metrics.count(Counter::OutOfOrder);
    out_of_order(tcb, seq, payload, env)
}

#[inline]
fn in_order(tcb: &mut Tcb, payload: Frame, kept: u16, env: &mut Env) -> Result<(), Verdict> {
    let len = payload.len() as u32;
    // An application that has taken everything gets more even when frames are short: else two ends whose frames all wait to
    // be acknowledged would wait for each other.
    let short = env.pool.free() < env.frames_reserved;
    if kept >= env.config.recv_frames_max || (short && !tcb.rx.is_empty()) {
        // The frames are used up although the bytes are not. What is out of order makes room (RFC 2018 §8 allows that), or
        // it would wait for ever for what it keeps out.
        discard_out_of_order(tcb, env);
        if tcb.rx_frames >= env.config.recv_frames_max || env.pool.free() < env.frames_reserved {
            tcb.bits.set(Bits::ACK_NOW);
            return Err(Verdict::Drop(DropReason::ReceiveQueueFull));
        }
    }
    append(tcb, payload, env);
    tcb.events.add(Events::DATA);
    tcb.rcv_mss = tcb.rcv_mss.max(len as u16);
    if tcb.cold.as_ref().is_some_and(|cold| !cold.ooo.is_empty()) {
        absorb(tcb, env);
        // RFC 5681 §4.2: a segment that fills a gap is acknowledged at once.
        tcb.bits.set(Bits::ACK_NOW);
    }
    owe_ack(tcb, env);
    Ok(())
}

/// An acknowledgment is owed for new data: at once for two full segments (RFC 9293 §3.8.6.3, SHLD-19), else soon.
#[inline]
fn owe_ack(tcb: &mut Tcb, env: &Env) {
    let unacknowledged = tcb.rcv_nxt.since(tcb.last_ack_sent);
    let delay_ms = env.config.ack_delay.as_millis() as u32;
    if delay_ms == 0 || unacknowledged >= 2 * u32::from(tcb.rcv_mss) {
        tcb.bits.set(Bits::ACK_NOW);
    } else if !tcb.bits.has(Bits::ACK_DELAYED) {
        tcb.bits.set(Bits::ACK_DELAYED);
        tcb.ack_at_ms = env.now_ms.wrapping_add(delay_ms);
    }
}

/// Puts a frame that begins at RCV.NXT behind the receive queue. A small one is copied into the last frame once half of the
/// frames that may be kept are: a frame of one byte pins as much memory as a full one. An application that keeps up, and
/// a stream of full segments, never come to that.
fn append(tcb: &mut Tcb, payload: Frame, env: &mut Env) {
    let len = payload.len();
    let seq = tcb.rcv_nxt;
    tcb.rcv_nxt += len as u32;
    tcb.rx_bytes += len as u32;
    if tcb.rx_frames >= env.config.recv_frames_max / 2
        && let Some((last, _, _)) = env.rx.get_mut(tcb.rx.tail())
        && len <= last.tailroom()
        && len < COALESCE_BELOW_BYTES
    {
        last.extend_from_slice(&payload);
        env.metrics.add(Counter::PayloadBytesCopied, len as u64);
        return;
    }
    env.rx.push_back(&mut tcb.rx, payload.index(), payload, seq);
    tcb.rx_frames += 1;
}

/// Moves what has become contiguous into the receive queue.
fn absorb(tcb: &mut Tcb, env: &mut Env) {
    while let Some(cold) = &mut tcb.cold
        && let Some((_, slot)) = env.rx.get(cold.ooo.head())
        && slot.seq.at_or_before(tcb.rcv_nxt)
        && let Some((mut payload, seq)) = env.rx.pop_front(&mut cold.ooo)
    {
        cold.ooo_frames -= 1;
        let known = tcb.rcv_nxt.since(seq) as usize;
        if known < payload.len() {
            payload.trim_front(known);
            append(tcb, payload, env);
        }
    }
}

/// Inserts a frame among those out of order; what is there already stays, what is new is kept.
fn out_of_order(tcb: &mut Tcb, mut seq: Seq, mut payload: Frame, env: &mut Env) -> Result<(), Verdict> {
    let cold = tcb.cold_mut();
    cold.ooo_last = seq;
    let prev = find_before(cold, seq, env);
    if let Some((before, slot)) = env.rx.get(prev) {
        let end = slot.seq.add(before.len() as u32);
        if end.after(seq) {
            let known = end.since(seq) as usize;
            if known >= payload.len() {
                return Err(Verdict::Drop(DropReason::Duplicate));
            }
            payload.trim_front(known);
            seq = end;
        }
    }
    let end = seq.add(payload.len() as u32);
    loop {
        let next = if prev == NIL { cold.ooo.head() } else { env.rx.next(prev) };
        let Some((after, slot)) = env.rx.get(next) else { break };
        if slot.seq.at_or_after(end) {
            break;
        }
        if slot.seq.add(after.len() as u32).after(end) {
            payload.truncate(slot.seq.since(seq) as usize);
            break;
        }
        env.rx.remove_after(&mut cold.ooo, prev);
        cold.ooo_frames -= 1;
    }
    if payload.is_empty() {
        return Err(Verdict::Drop(DropReason::Duplicate));
    }
    if cold.ooo_frames >= env.config.recv_frames_max / 2
        && payload.len() < COALESCE_BELOW_BYTES
        && let Some((before, &mut start, _)) = env.rx.get_mut(prev)
        && start.add(before.len() as u32) == seq
        && payload.len() <= before.tailroom()
    {
        before.extend_from_slice(&payload);
        env.metrics.add(Counter::PayloadBytesCopied, payload.len() as u64);
        return Ok(());
    }
    env.rx.insert_after(&mut cold.ooo, prev, payload.index(), payload, seq);
    cold.ooo_frames += 1;
    Ok(())
}

/// The last element that begins before or at `seq`, or [`NIL`]. Most segments belong at the end.
fn find_before(cold: &Cold, seq: Seq, env: &Env) -> u32 {
    if let Some((_, slot)) = env.rx.get(cold.ooo.tail())
        && slot.seq.at_or_before(seq)
    {
        return cold.ooo.tail();
    }
    env.rx.iter(&cold.ooo).take_while(|(_, _, slot)| slot.seq.at_or_before(seq)).last().map_or(NIL, |(at, _, _)| at)
}

/// Gives the application the oldest frame of the receive queue.
pub fn take(tcb: &mut Tcb, env: &mut Env) -> Option<Frame> {
    let (frame, _) = env.rx.pop_front(&mut tcb.rx)?;
    tcb.rx_frames -= 1;
    tcb.rx_bytes -= frame.len() as u32;
    tcb.bits.set(Bits::WINDOW_CHECK);
    Some(frame)
}

/// Frees everything that was received and not taken.
#[inline]
pub fn discard(tcb: &mut Tcb, env: &mut Env) {
    if !tcb.rx.is_empty() {
        env.rx.clear(&mut tcb.rx);
        (tcb.rx_bytes, tcb.rx_frames) = (0, 0);
    }
    if tcb.cold.is_some() {
        discard_out_of_order(tcb, env);
    }
}

/// Frees what was received out of order.
pub fn discard_out_of_order(tcb: &mut Tcb, env: &mut Env) {
    if let Some(cold) = &mut tcb.cold {
        env.rx.clear(&mut cold.ooo);
        cold.ooo_frames = 0;
    }
}

/// Where the text that was received ends, with what is out of order.
pub fn kept_end(tcb: &Tcb, env: &Env) -> Seq {
    let last = tcb.cold.as_ref().and_then(|cold| env.rx.get(cold.ooo.tail()));
    last.map_or(tcb.rcv_nxt, |(frame, slot)| slot.seq.add(frame.len() as u32))
}

/// The window to advertise, in bytes; moves RCV.NXT + RCV.WND. Silly windows are avoided (RFC 9293 §3.8.6.2.2): the right
/// edge moves by a segment, or half the buffer, or not at all.
#[inline(always)]
pub fn advertise(tcb: &mut Tcb, env: &Env) -> u32 {
    let edge = open_edge(tcb, env);
    if edge.after(tcb.rcv_adv) && edge.since(tcb.rcv_adv) >= worth_telling(tcb, env) {
        tcb.rcv_adv = edge;
    }
    tcb.rcv_wnd()
}

/// Nothing is kept, and the header can say all that is free.
#[inline(always)]
pub fn may_tell_whole_window(tcb: &Tcb, env: &Env) -> bool {
    tcb.rx_frames == 0 && tcb.rcv_shift == env.fixed.whole_window_shift
}

/// What [`advertise`] comes to in the header's field, if [that is so](may_tell_whole_window).
#[inline(always)]
pub fn advertise_whole(tcb: &mut Tcb, env: &Env) -> u16 {
    let (whole, window) = (env.fixed.whole_window, tcb.rcv_wnd());
    if whole < window + worth_telling(tcb, env) {
        debug_assert!(window >> tcb.rcv_shift <= u16::MAX.into(), "nothing wider was ever promised");
        return (window >> tcb.rcv_shift) as u16;
    }
    tcb.rcv_adv = tcb.rcv_nxt.add(whole);
    env.fixed.whole_window_field
}

/// Whether the window has opened so far that the peer should hear of it at once.
pub fn window_update_due(tcb: &Tcb, env: &Env) -> bool {
    let edge = open_edge(tcb, env);
    if !tcb.state().can_receive() || !edge.after(tcb.rcv_adv) {
        return false;
    }
    let opened = edge.since(tcb.rcv_adv);
    // While the window is still wide the next acknowledgment tells; when it is narrow the peer may be waiting.
    let narrow = tcb.rcv_wnd() < env.config.recv_buffer_bytes / 2;
    opened >= worth_telling(tcb, env) && (narrow || opened >= env.config.recv_buffer_bytes / 2)
}

/// How far the window could open: what is free of the buffer, in bytes and in frames.
#[inline(always)]
fn open_edge(tcb: &Tcb, env: &Env) -> Seq {
    tcb.rcv_nxt.add(match may_tell_whole_window(tcb, env) {
        true => env.fixed.whole_window,
        false => free(tcb, env),
    })
}

/// What is free of the buffer, as far as the 16 bits of the header can say.
#[inline(never)]
fn free(tcb: &Tcb, env: &Env) -> u32 {
    let free_bytes = env.config.recv_buffer_bytes.saturating_sub(tcb.rx_bytes);
    let free_frames = u32::from(env.config.recv_frames_max.saturating_sub(tcb.rx_frames));
    free_bytes.min(free_frames * u32::from(tcb.rcv_mss)).min(u32::from(u16::MAX) << tcb.rcv_shift)
}

#[inline(always)]
fn worth_telling(tcb: &Tcb, env: &Env) -> u32 {
    env.fixed.half_buffer.min(u32::from(tcb.mss))
}

/// Text out of order leaves one frame in so many free.
const OUT_OF_ORDER_LEAVES: usize = 8;
const COALESCE_BELOW_BYTES: usize = 512;

#[cfg(test)]
mod tests;
