//! NewReno: slow start and additive increase, multiplicative decrease (RFC 5681 §3.1, RFC 6582).

use super::Congestion;

/// Grows the window by what was acknowledged: in slow start by at most eight segments an acknowledgment (RFC 9406 §4.2; two,
/// as in RFC 3465 §2.2, starve senders whose peer acknowledges a whole burst at once), in congestion avoidance by one segment
/// a window.
#[inline]
pub(super) fn acked(c: &mut Congestion, bytes: u32, mss: u32) {
    if c.cwnd < c.ssthresh {
        c.cwnd = c.cwnd.saturating_add(bytes.min(8 * mss));
        return;
    }
    c.acked = c.acked.saturating_add(bytes);
    if c.acked >= c.cwnd {
        c.acked -= c.cwnd;
        c.cwnd = c.cwnd.saturating_add(mss);
    }
}

/// max(FlightSize / 2, 2·SMSS) (RFC 5681 §3.1, equation 4).
pub(super) fn ssthresh(flight: u32, mss: u32) -> u32 {
    (flight / 2).max(2 * mss)
}
