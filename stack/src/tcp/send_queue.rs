//! What waits to be sent or acknowledged. One element is one segment: it is sent whole and sent again whole.

use handfast_drivers::frame::{Frame, Held};

use crate::metrics::Counter;
use crate::tcp::chain::NIL;
use crate::tcp::env::{Env, Sent};
use crate::tcp::sack::Delivered;
use crate::tcp::tcb::{Bits, Tcb};
use crate::tcp::timers;
use crate::wire::tcp::Seq;

/// Bytes that the application may still queue; 0 when there is no room for another frame.
pub fn room(tcb: &Tcb, env: &Env) -> u32 {
    if tcb.tx_frames >= env.config.send_frames_max {
        return 0;
    }
    env.config.send_buffer_bytes.saturating_sub(tcb.tx_bytes())
}

/// Appends a frame's payload. With Nagle's algorithm a small one is copied behind the last segment, if that was not sent and has
/// room: a frame and a header for each would cost more (RFC 9293 §3.7.4). Without it, frames are segments as they come.
pub fn push(tcb: &mut Tcb, frame: Frame, env: &mut Env) {
    let segment_max = tcb.segment_max() as usize;
    if tcb.tx_unsent != NIL
        && !tcb.bits.has(Bits::NODELAY)
        && frame.len() < COALESCE_BELOW_BYTES
        && let Some((last, _, _)) = env.tx.get_mut(tcb.tx.tail())
        && last.len() + frame.len() <= segment_max.min(last.len() + last.tailroom())
    {
        tcb.snd_end += last.extend_from_slice(&frame, segment_max) as u32;
        return env.metrics.add(Counter::PayloadBytesCopied, frame.len() as u64);
    }
    append(tcb, frame, env);
}

fn append(tcb: &mut Tcb, frame: Frame, env: &mut Env) {
    let (at, len) = (frame.index(), frame.len() as u32);
    env.tx.push_back(&mut tcb.tx, at, frame.hold(), tcb.snd_end);
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
        append(tcb, frame, env);
    }
    if written < bytes.len() && tcb.tx_bytes() == 0 {
        // For want of frames; no acknowledgment will tell that there are some again.
        timers::arm_retry(tcb, RETRY_MS, env);
    }
    env.metrics.add(Counter::PayloadBytesCopied, written as u64);
    written
}

/// Drops what `ack` acknowledges. Gives the record of the newest segment that was acknowledged whole and sent just once: a
/// round-trip measurement (RFC 6298 §3); `None` too when any of the others was sent again or selectively acknowledged.
#[inline]
pub fn acknowledged(tcb: &mut Tcb, ack: Seq, env: &mut Env) -> Option<Sent> {
    let mut sample = None;
    let mut ambiguous = false;
    let now_us = env.now_us32();
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
        if let Some(cold) = &mut tcb.cold
            && !sent.sacked
            && covered >= len
        {
            let delivered = Delivered::new(sent, seq.add(len), now_us, tcb.rtt.srtt_us);
            cold.newest = Delivered::newest(cold.newest, delivered, now_us);
        }
        if covered < len {
            held.trim_front(gone as usize);
            *seq = ack;
            break;
        }
        // One that was sent again, or that the peer had for some time, makes the acknowledgment late for those behind it.
        ambiguous |= sent.times != 1 || sent.sacked;
        sample = Some(*sent);
        env.tx.pop_front(&mut tcb.tx);
        tcb.tx_frames -= 1;
    }
    sample.filter(|_| !ambiguous)
}

/// Makes two segments of element `at`: its first `len` bytes, at least one, and the rest. At the head the smaller part is
/// copied, elsewhere the second, which needs no search for what is before. Gives the element that is the first part; `None`
/// when there is no frame for a copy, or the device has the frame.
pub fn split(tcb: &mut Tcb, at: u32, len: u32, env: &mut Env) -> Option<u32> {
    let (held, &mut seq, &mut sent) = env.tx.get_mut(at)?;
    let whole = held.len() as u32;
    if len >= whole {
        return Some(at);
    }
    if len == 0 || held.is_sending() || tcb.tx_frames == u16::MAX {
        return None;
    }
    let mut copy = env.pool.alloc()?;
    let new = copy.index();
    let rest = whole - len;
    let in_front = rest as usize > copy.tailroom() || (at == tcb.tx.head() && len <= rest);
    let copied = if in_front { len } else { rest };
    env.metrics.add(Counter::PayloadBytesCopied, copied.into());
    if in_front {
        copy.extend_from_slice(&held.payload()[..len as usize]);
        held.trim_front(len as usize);
        insert_before(tcb, at, new, copy.hold(), seq, len, env);
    } else {
        copy.extend_from_slice(&held.payload()[len as usize..]);
        held.truncate(len as usize);
        env.tx.insert_after(&mut tcb.tx, at, new, copy.hold(), seq.add(len));
    }
    if let Some((_, _, note)) = env.tx.get_mut(new) {
        *note = sent;
    }
    tcb.tx_frames += 1;
    if sent.sacked
        && let Some(cold) = &mut tcb.cold
    {
        cold.sacked_frames += 1;
    }
    Some(if in_front { new } else { at })
}

/// Puts a new element in front of `at`, whose payload now begins `len` later.
fn insert_before(tcb: &mut Tcb, at: u32, new: u32, front: Held, seq: Seq, len: u32, env: &mut Env) {
    if let Some((_, start, _)) = env.tx.get_mut(at) {
        *start = seq.add(len);
    }
    let mut prev = NIL;
    let mut here = tcb.tx.head();
    while here != at && here != NIL {
        (prev, here) = (here, env.tx.next(here));
    }
    env.tx.insert_after(&mut tcb.tx, prev, new, front, seq);
    if tcb.tx_unsent == at {
        tcb.tx_unsent = new;
    }
}

const COALESCE_BELOW_BYTES: usize = 256;
/// Milliseconds until what failed for want of a frame is tried again.
const RETRY_MS: u32 = 10;

#[cfg(test)]
mod tests;
