//! SYN cookies (RFC 4987 §3.6): when no more half-open connections may be kept, the SYN-ACK takes along what would have been kept,
//! and the third segment brings it back. Nothing is stored, so that a flood of SYNs costs no memory and shuts nobody out.
//!
//! Our initial sequence number is one bit of the time, three of the peer's MSS, and 28 that only we can compute from the connection,
//! the peer's initial sequence number and all that is encoded. The other options are the last six bits of our timestamp, which comes
//! back as its echo; without timestamps there are none. What is lost by that: the MSS is rounded down, and a third segment that is
//! lost is not asked for again.

use crate::demux::flow::FlowKey;
use crate::demux::syn_rcvd::{Offered, SynRcvd};
use crate::tcp::isn::IsnSecret;
use crate::time::Instant;
use crate::wire::tcp::{Segment, Seq};

/// The span of time that a cookie is made in, 67 s each. It is good in this one and the next.
#[inline]
pub fn epoch(now: Instant) -> u32 {
    (now.as_micros() >> EPOCH_SHIFT) as u32
}

/// Makes a half-open record into what its cookie can say, its sequence number the cookie.
pub fn bake(secret: &IsnSecret, record: &SynRcvd, epoch: u32) -> SynRcvd {
    let mss = MSS.iter().rposition(|mss| *mss <= record.mss).unwrap_or(0);
    let offered = if record.offered.timestamps() { record.offered } else { NOTHING };
    let iss = cookie(secret, &record.key, record.irs, mss as u32, offered, epoch);
    SynRcvd { iss, offered, mss: MSS[mss], ..*record }
}

/// The latest timestamp, not after `ts_value`, that says what was offered.
pub fn stamp(ts_value: u32, offered: Offered) -> u32 {
    let stamp = (ts_value & !OFFERED_MASK) | u32::from(offered.bits());
    if (ts_value.wrapping_sub(stamp) as i32) < 0 { stamp.wrapping_sub(OFFERED_MASK + 1) } else { stamp }
}

/// The record that a third segment brings back; `None` if it brings no cookie of ours.
pub fn open(secret: &IsnSecret, key: &FlowKey, seg: &Segment, epoch: u32) -> Option<SynRcvd> {
    let (iss, irs) = (seg.ack - 1, seg.seq - 1);
    let offered = seg.timestamps.map_or(NOTHING, |theirs| Offered::from_bits((theirs.echo & OFFERED_MASK) as u8));
    if seg.flags.syn() || !seg.flags.ack() || offered.timestamps() != seg.timestamps.is_some() {
        return None;
    }
    let made_in = if iss.0 >> 31 == epoch & 1 { epoch } else { epoch.wrapping_sub(1) };
    let mss = iss.0 >> MAC_BITS & 7;
    let ts_recent = seg.timestamps.map_or(0, |theirs| theirs.value);
    let is_ours = cookie(secret, key, irs, mss, offered, made_in) == iss;
    let mss = MSS[mss as usize];
    is_ours.then_some(SynRcvd { key: *key, iss, irs, ts_recent, mss, listener: 0, offered, retries: 0, due: 0 })
}

fn cookie(secret: &IsnSecret, key: &FlowKey, irs: Seq, mss: u32, offered: Offered, epoch: u32) -> Seq {
    let said = mss << 8 | u32::from(offered.bits());
    let mac = secret.of_connection(key, [irs.0, epoch, said]) as u32;
    Seq(epoch << 31 | mss << MAC_BITS | mac & ((1 << MAC_BITS) - 1))
}

/// Sizes that occur; the largest that is not above the peer's is used.
const MSS: [u16; 8] = [64, 536, 1220, 1300, 1380, 1440, 1460, 8940];
const NOTHING: Offered = Offered::new(None, false, false);
const MAC_BITS: u32 = 28;
const OFFERED_MASK: u32 = 63;
const EPOCH_SHIFT: u32 = 26;

#[cfg(test)]
mod tests;
