//! What a connection needs only when segments are lost or out of order, and the two halves of selective acknowledgment: the
//! scoreboard of what the peer has (RFC 2018 §5, RFC 6675 §4) and the blocks that say what we have (RFC 2018 §4).

use alloc::boxed::Box;

use crate::tcp::chain::Chain;
use crate::tcp::env::{Env, Sent};
use crate::tcp::tcb::Tcb;
use crate::wire::tcp::{SackBlocks, Seq};

const STAMPS_AHEAD_US: i32 = 1 << 21;

/// Duplicate acknowledgments, or segments selectively acknowledged above, that make a segment lost (RFC 6675 §2).
pub const DUP_THRESH: u32 = 3;

/// The part of a connection that most never have.
#[derive(Debug)]
pub struct Cold {
    /// Received out of order, by sequence number, without overlap.
    pub ooo: Chain,
    /// Frames in `ooo`.
    pub ooo_frames: u16,
    /// The peer's FIN came out of order; its sequence number.
    pub fin_at: Option<Seq>,
    /// Where the segment begins that came out of order last: its block is told first.
    pub ooo_last: Seq,
    /// Bytes in flight that the peer has.
    pub sacked_bytes: u32,
    /// Segments of them.
    pub sacked_frames: u16,
    /// Bytes taken for lost and not yet sent again.
    pub lost_bytes: u32,
    /// Of what arrived at the peer, that which was sent last: RACK.segment (RFC 8985 §5.2).
    pub newest: Option<Delivered>,
}

/// When a segment that arrived was sent, where it ended, and how long its acknowledgment took.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    at_us: u32,
    end: Seq,
    rtt_us: u32,
}

impl Delivered {
    /// A segment that ends at `end` and was sent as `sent` says has arrived (RFC 8985 §6.2, step 2). `None` if it may have
    /// been its first transmission: what comes back sooner than the path allows answers an earlier one.
    pub fn new(sent: &Sent, end: Seq, now_us: u32, srtt_us: u32) -> Option<Delivered> {
        let rtt_us = sent.ago_us(now_us);
        (sent.times == 1 || rtt_us >= srtt_us / 2).then_some(Delivered { at_us: sent.at_us, end, rtt_us })
    }

    /// It was sent after a segment that was sent at `at_us` and ends at `end`.
    fn is_after(&self, at_us: u32, end: Seq) -> bool {
        self.at_us.wrapping_sub(at_us) as i32 > 0 || self.at_us == at_us && self.end.after(end)
    }

    /// Not so long ago that its stamp, which wraps after 71 minutes, seems to be of a time to come. Stamps may be a little ahead.
    fn is_past(&self, now_us: u32) -> bool {
        now_us.wrapping_sub(self.at_us) as i32 >= -STAMPS_AHEAD_US
    }

    /// The one of the two that was sent last, where `this` may be old and `other` is not.
    pub fn newest(this: Option<Delivered>, other: Option<Delivered>, now_us: u32) -> Option<Delivered> {
        match (this.filter(|this| this.is_past(now_us)), other) {
            (Some(this), Some(other)) if !other.is_after(this.at_us, this.end) => Some(this),
            (this, other) => other.or(this),
        }
    }
}

impl Tcb {
    /// The cold part, made when first needed.
    pub fn cold_mut(&mut self) -> &mut Cold {
        self.cold.get_or_insert_with(|| {
            Box::new(Cold {
                ooo: Chain::EMPTY,
                ooo_frames: 0,
                fin_at: None,
                ooo_last: Seq(0),
                sacked_bytes: 0,
                sacked_frames: 0,
                lost_bytes: 0,
                newest: None,
            })
        })
    }

    /// Bytes taken for lost and not yet sent again.
    #[inline]
    pub fn lost_bytes(&self) -> u32 {
        self.cold.as_ref().map_or(0, |cold| cold.lost_bytes)
    }

    /// How much is probably in the network (RFC 6675 §4, SetPipe). Without SACK each duplicate acknowledgment stands for one
    /// segment that has left it (RFC 5681 §3.2, step 4). A FIN is not counted: it must not hold up what was lost before it.
    #[inline]
    pub fn pipe(&self) -> u32 {
        let flight = self.flight() - u32::from(self.fin_sent() && !self.fin_acked());
        let Some(cold) = &self.cold else {
            return flight.saturating_sub(u32::from(self.congestion.dup_acks) * self.segment_max());
        };
        let gone = match cold.sacked_bytes {
            0 => u32::from(self.congestion.dup_acks) * self.segment_max(),
            sacked => sacked,
        };
        flight.saturating_sub(gone).saturating_sub(cold.lost_bytes)
    }
}

/// Takes the blocks of an acknowledgment into the scoreboard. Says whether it learnt anything.
pub fn update(tcb: &mut Tcb, blocks: &SackBlocks, env: &mut Env) -> bool {
    let (una, nxt) = (tcb.snd_una, tcb.snd_nxt);
    // RFC 2018 §5: blocks below SND.UNA repeat what is known (RFC 2883), blocks beyond SND.NXT are no news of ours. None begins
    // at SND.UNA, which would be acknowledged then: the oldest segment can always be taken for lost.
    let valid = |&&(start, end): &&(Seq, Seq)| start.before(end) && start.after(una) && end.at_or_before(nxt);
    if tcb.tx.is_empty() || !blocks.as_slice().iter().any(|block| valid(&block)) {
        return false;
    }
    let (mut at, unsent) = (tcb.tx.head(), tcb.tx_unsent);
    let (mut bytes, mut frames, mut found) = (0, 0, 0);
    let (now_us, mut newest) = (env.now_us32(), None);
    while at != unsent {
        let next = env.tx.next(at);
        let Some((held, &mut seq, sent)) = env.tx.get_mut(at) else { break };
        let (len, end) = (held.len() as u32, seq.add(held.len() as u32));
        let covers = |&(start, stop): &(Seq, Seq)| start.at_or_before(seq) && end.at_or_before(stop);
        if !sent.sacked && blocks.as_slice().iter().filter(valid).any(covers) {
            (bytes, frames) = (bytes + len, frames + 1);
            found += if sent.lost { len } else { 0 };
            (sent.sacked, sent.lost) = (true, false);
            newest = Delivered::newest(newest, Delivered::new(sent, end, now_us, tcb.rtt.srtt_us), now_us);
        }
        at = next;
    }
    if frames > 0 {
        let cold = tcb.cold_mut();
        cold.sacked_bytes += bytes;
        cold.sacked_frames += frames;
        cold.lost_bytes -= found;
        cold.newest = Delivered::newest(cold.newest, newest, now_us);
    }
    frames > 0
}

/// Takes for lost what was overtaken: something that was sent later has arrived, and this had a quarter of a round trip more
/// (RFC 8985 §6.2, step 5). Unlike the count of duplicates it finds the loss of what was sent again, and needs no three
/// segments. Gives the time in microseconds until the last of those that were overtaken has had its time.
pub fn mark_overtaken_lost(tcb: &mut Tcb, env: &mut Env) -> Option<u32> {
    let (mut at, unsent, now_us) = (tcb.tx.head(), tcb.tx_unsent, env.now_us32());
    let reordering_us = tcb.rtt.srtt_us / 4;
    let cold = tcb.cold.as_mut()?;
    let newest = cold.newest.filter(|newest| newest.is_past(now_us))?;
    let mut wait_us = None;
    while at != unsent {
        let next = env.tx.next(at);
        let Some((held, &mut seq, sent)) = env.tx.get_mut(at) else { break };
        let len = held.len() as u32;
        if !(sent.sacked || sent.lost) && newest.is_after(sent.at_us, seq.add(len)) {
            let left_us = (newest.rtt_us + reordering_us).wrapping_sub(sent.ago_us(now_us)) as i32;
            if left_us <= 0 {
                sent.lost = true;
                cold.lost_bytes += len;
            } else {
                wait_us = wait_us.max(Some(left_us as u32));
            }
        }
        at = next;
    }
    wait_us
}

/// Takes the last segment that was sent for lost, to be sent again as a probe (RFC 8985 §7.3).
pub fn mark_tail_lost(tcb: &mut Tcb, env: &mut Env) {
    let mut last = tcb.tx.head();
    while last != tcb.tx_unsent && env.tx.get(last).is_some() && env.tx.next(last) != tcb.tx_unsent {
        last = env.tx.next(last);
    }
    if last == tcb.tx_unsent {
        return;
    }
    if let Some((held, _, sent)) = env.tx.get_mut(last)
        && !(sent.sacked || sent.lost)
    {
        sent.lost = true;
        tcb.cold_mut().lost_bytes += held.len() as u32;
    }
}

/// Takes for lost what the peer lacks although it has enough of what was sent after it (RFC 6675 §4, IsLost). Says whether
/// anything is lost now.
pub fn mark_lost(tcb: &mut Tcb, env: &mut Env) -> bool {
    let segment_max = tcb.segment_max();
    let (mut at, unsent) = (tcb.tx.head(), tcb.tx_unsent);
    let Some(cold) = &mut tcb.cold else { return false };
    let (mut bytes_above, mut frames_above) = (cold.sacked_bytes, u32::from(cold.sacked_frames));
    while at != unsent && (bytes_above > (DUP_THRESH - 1) * segment_max || frames_above >= DUP_THRESH) {
        let next = env.tx.next(at);
        let Some((held, _, sent)) = env.tx.get_mut(at) else { break };
        if sent.sacked {
            (bytes_above, frames_above) = (bytes_above - held.len() as u32, frames_above - 1);
        } else if !sent.lost && !sent.resent {
            sent.lost = true;
            cold.lost_bytes += held.len() as u32;
        }
        at = next;
    }
    cold.lost_bytes > 0
}

/// Takes the oldest segment in flight for lost, if it was not sent again already.
pub fn mark_head_lost(tcb: &mut Tcb, env: &mut Env) {
    if tcb.tx.head() == tcb.tx_unsent {
        return;
    }
    if let Some((held, _, sent)) = env.tx.get_mut(tcb.tx.head())
        && !(sent.sacked || sent.lost || sent.resent)
    {
        sent.lost = true;
        tcb.cold_mut().lost_bytes += held.len() as u32;
    }
}

/// The same, even if it was sent again already.
pub fn mark_head_lost_again(tcb: &mut Tcb, env: &mut Env) {
    if let Some((_, _, sent)) = env.tx.get_mut(tcb.tx.head()) {
        sent.resent = false;
    }
    mark_head_lost(tcb, env);
}

/// Takes every segment in flight for lost that is longer than a path carries that has become narrower.
pub fn mark_oversized_lost(tcb: &mut Tcb, env: &mut Env) {
    let segment_max = tcb.segment_max();
    let (mut at, unsent, mut lost) = (tcb.tx.head(), tcb.tx_unsent, 0);
    while at != unsent {
        let next = env.tx.next(at);
        let Some((held, _, sent)) = env.tx.get_mut(at) else { break };
        if held.len() as u32 > segment_max && !(sent.sacked || sent.lost) {
            (sent.lost, sent.resent) = (true, false);
            lost += held.len() as u32;
        }
        at = next;
    }
    if lost > 0 {
        tcb.cold_mut().lost_bytes += lost;
    }
}

/// Takes everything in flight for lost, after a timeout. What was selectively acknowledged is forgotten: the peer may have
/// dropped it (RFC 2018 §8).
pub fn mark_all_lost(tcb: &mut Tcb, env: &mut Env) {
    let (mut at, unsent, mut lost) = (tcb.tx.head(), tcb.tx_unsent, 0);
    while at != unsent {
        let next = env.tx.next(at);
        let Some((held, _, sent)) = env.tx.get_mut(at) else { break };
        (sent.sacked, sent.lost, sent.resent) = (false, true, false);
        lost += held.len() as u32;
        at = next;
    }
    if lost > 0 {
        let cold = tcb.cold_mut();
        (cold.sacked_bytes, cold.sacked_frames, cold.lost_bytes) = (0, 0, lost);
    }
}

/// The blocks that say what we have out of order: the newest first (RFC 2018 §4).
pub fn blocks(tcb: &Tcb, env: &Env) -> SackBlocks {
    let mut blocks = SackBlocks::EMPTY;
    let Some(cold) = &tcb.cold else { return blocks };
    if cold.ooo.is_empty() {
        return blocks;
    }
    let mut runs = SackBlocks::EMPTY;
    let mut run: Option<(Seq, Seq)> = None;
    let mut newest = None;
    for (_, frame, slot) in env.rx.iter(&cold.ooo) {
        let end = slot.seq.add(frame.len() as u32);
        run = match run {
            Some((start, stop)) if stop == slot.seq => Some((start, end)),
            full => {
                if let Some((start, stop)) = full {
                    note_run(&mut runs, &mut newest, start, stop, cold.ooo_last);
                }
                Some((slot.seq, end))
            }
        };
    }
    if let Some((start, stop)) = run {
        note_run(&mut runs, &mut newest, start, stop, cold.ooo_last);
    }
    if let Some((start, stop)) = newest {
        blocks.push(start, stop);
    }
    for &(start, stop) in runs.as_slice() {
        blocks.push(start, stop);
    }
    blocks
}

fn note_run(runs: &mut SackBlocks, newest: &mut Option<(Seq, Seq)>, start: Seq, stop: Seq, last: Seq) {
    if last.within(start, stop.since(start)) {
        *newest = Some((start, stop));
    } else {
        runs.push(start, stop);
    }
}

#[cfg(test)]
mod tests;
