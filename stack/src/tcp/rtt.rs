//! Round-trip time and retransmission timeout (RFC 6298).

use crate::config::TcpConfig;

/// What a connection knows of its round trips.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rtt {
    /// SRTT in microseconds; 0 before the first measurement.
    pub srtt_us: u32,
    /// RTTVAR in microseconds; before the first measurement, what the timeout is at least.
    pub rttvar_us: u32,
    /// Timeouts in a row without an acknowledgment of new data: the timeout is doubled so many times.
    pub backoff: u8,
}

impl Rtt {
    /// After the first measurement (RFC 6298 §2.2), which is at least 1 µs and at most half an hour.
    #[inline]
    pub const fn first(rtt_us: u32) -> Rtt {
        let rtt_us = if rtt_us == 0 { 1 } else { rtt_us };
        Rtt { srtt_us: rtt_us, rttvar_us: rtt_us / 2, backoff: 0 }
    }

    /// The SYN was lost: data begins with a timeout of 3 s (RFC 6298 §5.7), unless a round trip was measured.
    #[inline]
    pub fn handshake_was_slow(&mut self) {
        self.backoff = 0;
        if self.srtt_us == 0 {
            self.rttvar_us = 3_000_000;
        }
    }

    /// Takes a measurement (RFC 6298 §2.2, §2.3). Never one of a segment that was sent twice (§3, Karn).
    #[inline]
    pub fn measured(&mut self, rtt_us: u32) {
        // A measurement is at least 1 µs and, so that the sums below fit, at most half an hour.
        let rtt_us = rtt_us.clamp(1, 1 << 31);
        if self.srtt_us == 0 {
            *self = Rtt { backoff: self.backoff, ..Rtt::first(rtt_us) };
        } else {
            let deviation = self.srtt_us.abs_diff(rtt_us);
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + deviation / 4;
            self.srtt_us = (self.srtt_us - self.srtt_us / 8 + rtt_us / 8).max(1);
        }
    }

    /// What [`is_short`](Self::is_short) compares with. What K·RTTVAR is at least is added to it there, and taken away here.
    pub const fn short_us(config: &TcpConfig) -> u64 {
        config.rto_min.as_micros().saturating_sub(1_000)
    }

    /// Whether the timeout, if it is not doubled, is the shortest that there is, as where round trips are short: then it need not be
    /// worked out.
    #[inline(always)]
    pub fn is_short(&self, short_us: u64) -> bool {
        // Before the first measurement, 0 − 1 is longer than any.
        u64::from(self.srtt_us.wrapping_sub(1)) + 4 * u64::from(self.rttvar_us) < short_us
    }

    /// The retransmission timeout in milliseconds, backed off (RFC 6298 §2.2–§2.5, §5.5).
    #[inline(never)]
    pub fn timeout_ms(&self, config: &TcpConfig) -> u32 {
        let (min, max) = (config.rto_min.as_micros(), config.rto_max.as_micros());
        let base_us = match self.srtt_us {
            0 => config.rto_initial.as_micros().max(self.rttvar_us.into()),
            // RTO = SRTT + max(G, K·RTTVAR), with a clock granularity G of 1 ms.
            srtt => (u64::from(srtt) + (4 * u64::from(self.rttvar_us)).max(1_000)).max(min),
        };
        // At most ten minutes: `Config` sees to that.
        let timeout_us = if self.backoff == 0 { base_us } else { base_us << self.backoff.min(16) }.min(max) as u32;
        // Rounded up, and a tick more: the clock may be just about to move.
        (timeout_us + 1_999) / 1_000
    }
}

#[cfg(test)]
mod tests;
