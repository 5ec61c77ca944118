//! So many a second: answers that nothing obliges us to give.

use crate::time::Instant;

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    /// Millionths of a token.
    tokens: u64,
    filled: Instant,
}

impl RateLimit {
    /// At most `per_second` a second, and as many at once.
    pub const fn new(per_second: u32) -> RateLimit {
        RateLimit { per_second, tokens: per_second as u64 * TOKEN, filled: Instant::ZERO }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = now.since(self.filled).as_micros().saturating_mul(u64::from(self.per_second));
        self.tokens = self.tokens.saturating_add(earned).min(u64::from(self.per_second) * TOKEN);
        self.filled = now;
        let taken = self.tokens >= TOKEN;
        self.tokens -= if taken { TOKEN } else { 0 };
        taken
    }
}

const TOKEN: u64 = 1_000_000;

#[cfg(test)]
mod tests;
