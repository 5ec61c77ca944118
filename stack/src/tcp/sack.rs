//! What a connection needs only when segments are lost or out of order, and the two halves of selective acknowledgment: the
//! scoreboard of what the peer has (RFC 2018 §5, RFC 6675 §4) and the blocks that say what we have (RFC 2018 §4).

use alloc::boxed::Box;

use crate::tcp::chain::Chain;
use crate::tcp::env::Env;
use crate::tcp::tcb::Tcb;
use crate::wire::tcp::{SackBlocks, Seq};

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
    // RFC 2018 §5: blocks at or below SND.UNA repeat what is known (RFC 2883), blocks beyond SND.NXT are no news of ours.
    let valid = |&&(start, end): &&(Seq, Seq)| start.before(end) && start.at_or_after(una) && end.at_or_before(nxt);
    if tcb.tx.is_empty() || !blocks.as_slice().iter().any(|block| valid(&block)) {
        return false;
    }
    let (mut at, unsent) = (tcb.tx.head(), tcb.tx_unsent);
    let (mut bytes, mut frames, mut found) = (0, 0, 0);
    while at != unsent {
        let next = env.tx.next(at);
        let Some((held, &mut seq, sent)) = env.tx.get_mut(at) else { break };
        let (len, end) = (held.len() as u32, seq.add(held.len() as u32));
        let covers = |&(start, stop): &(Seq, Seq)| start.at_or_before(seq) && end.at_or_before(stop);
        if !sent.sacked && blocks.as_slice().iter().filter(valid).any(covers) {
            (bytes, frames) = (bytes + len, frames + 1);
            found += if sent.lost { len } else { 0 };
            (sent.sacked, sent.lost) = (true, false);
        }
        at = next;
    }
    if frames > 0 {
        let cold = tcb.cold_mut();
        cold.sacked_bytes += bytes;
        cold.sacked_frames += frames;
        cold.lost_bytes -= found;
    }
    frames > 0
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
