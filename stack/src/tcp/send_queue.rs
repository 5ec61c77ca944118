//! What waits to be sent or acknowledged. One element is one segment: it is sent whole and sent again whole.

use handfast_drivers::frame::{Frame, Held};

use crate::metrics::Counter;
use crate::tcp::chain::NIL;
use crate::tcp::env::{Env, Sent};
use crate::tcp::tcb::Tcb;
use crate::wire::tcp::Seq;

/// Bytes that the application may still queue; 0 when there is no room for another frame.
pub fn room(tcb: &Tcb, env: &Env) -> u32 {
    if tcb.tx_frames >= env.config.send_frames_max {
        return 0;
    }
    env.config.send_buffer_bytes.saturating_sub(tcb.tx_bytes())
}

/// Appends a frame's payload.
pub fn push(tcb: &mut Tcb, frame: Frame, env: &mut Env) {
    let (at, len) = (frame.index(), frame.len() as u32);
    push_held(tcb, at, frame.hold(), len, env);
}

fn push_held(tcb: &mut Tcb, at: u32, held: Held, len: u32, env: &mut Env) {
    env.tx.push_back(&mut tcb.tx, at, held, tcb.snd_end);
    tcb.snd_end += len;
    tcb.tx_frames += 1;
    if tcb.tx_unsent == NIL {
        tcb.tx_unsent = at;
    }
}

/// Copies as much of `bytes` as there is room for; says how many. Fills the last unsent segment before it takes a new frame.
pub fn write(tcb: &mut Tcb, mut bytes: &[u8], env: &mut Env) -> usize {
    let mut written = 0;
    bytes = &bytes[..bytes.len().min(room(tcb, env) as usize)];
    let segment_max = tcb.segment_max() as usize;
    if tcb.tx_unsent != NIL
        && let Some((held, _, _)) = env.tx.get_mut(tcb.tx.tail())
    {
        written = held.extend_from_slice(bytes, segment_max);
        tcb.snd_end += written as u32;
    }
    while written < bytes.len() && tcb.tx_frames < env.config.send_frames_max {
        if env.pool.free() <= env.frames_reserved {
            break;
        }
        let Some(mut frame) = env.pool.alloc() else { break };
        let rest = &bytes[written..];
        written += frame.extend_from_slice(&rest[..rest.len().min(segment_max)]);
        push(tcb, frame, env);
    }
    env.metrics.add(Counter::PayloadBytesCopied, written as u64);
    written
}

/// Drops what `ack` acknowledges. Gives the record of the newest segment that was acknowledged whole and sent just once: a
/// round-trip measurement (RFC 6298 §3).
#[inline]
pub fn acknowledged(tcb: &mut Tcb, ack: Seq, env: &mut Env) -> Option<Sent> {
    let mut sample = None;
    while tcb.tx.head() != tcb.tx_unsent
        && let Some((held, seq, sent)) = env.tx.get_mut(tcb.tx.head())
    {
        let covered = ack.since(*seq);
        if covered == 0 || covered > 1 << 31 {
            break;
        }
        let len = held.len() as u32;
        let gone = covered.min(len);
        if (sent.sacked || sent.lost)
            && let Some(cold) = &mut tcb.cold
        {
            match sent.sacked {
                true => cold.sacked_bytes -= gone,
                false => cold.lost_bytes -= gone,
            }
            cold.sacked_frames -= u16::from(sent.sacked && covered >= len);
        }
        if covered < len {
            held.trim_front(gone as usize);
            *seq = ack;
            break;
        }
        sample = (sent.times == 1).then_some(*sent);
        env.tx.pop_front(&mut tcb.tx);
        tcb.tx_frames -= 1;
    }
    sample
}

/// Makes two segments of element `at`: its first `len` bytes, at least one, and the rest. The smaller part is copied. Gives
/// the element that is the first part; `None` when there is no frame for a copy, or the device has the frame.
pub fn split(tcb: &mut Tcb, at: u32, len: u32, env: &mut Env) -> Option<u32> {
    let (held, &mut seq, &mut sent) = env.tx.get_mut(at)?;
    let whole = held.len() as u32;
    if len >= whole {
        return Some(at);
    }
    if len == 0 || held.is_sending() {
        return None;
    }
    let mut copy = env.pool.alloc()?;
    let copied = len.min(whole - len);
    env.metrics.add(Counter::PayloadBytesCopied, copied.into());
    let new = copy.index();
    let first = if len <= whole - len { new } else { at };
    if first == new {
        // The first part moves to the new frame, which then stands before the old one: the two swap their elements.
        copy.extend_from_slice(&held.payload()[..len as usize]);
        held.trim_front(len as usize);
        swap_in_front(tcb, at, new, copy.hold(), seq, len, sent, env);
    } else {
        copy.extend_from_slice(&held.payload()[len as usize..]);
        held.truncate(len as usize);
        env.tx.insert_after(&mut tcb.tx, at, new, copy.hold(), seq.add(len));
        if let Some((_, _, note)) = env.tx.get_mut(new) {
            *note = sent;
        }
    }
    tcb.tx_frames += 1;
    if sent.sacked
        && let Some(cold) = &mut tcb.cold
    {
        cold.sacked_frames += 1;
    }
    Some(first)
}

/// Puts a new element in front of `at`, whose payload now begins `len` later.
#[expect(clippy::too_many_arguments, reason = "the parts of one element")]
fn swap_in_front(tcb: &mut Tcb, at: u32, new: u32, front: Held, seq: Seq, len: u32, sent: Sent, env: &mut Env) {
    if let Some((_, start, _)) = env.tx.get_mut(at) {
        *start = seq.add(len);
    }
    let mut prev = NIL;
    let mut here = tcb.tx.head();
    while here != at && here != NIL {
        (prev, here) = (here, env.tx.next(here));
    }
    env.tx.insert_after(&mut tcb.tx, prev, new, front, seq);
    if let Some((_, _, note)) = env.tx.get_mut(new) {
        *note = sent;
    }
    if tcb.tx_unsent == at {
        tcb.tx_unsent = new;
    }
}

#[cfg(test)]
mod tests;
