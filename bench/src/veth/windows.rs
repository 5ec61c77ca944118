//! What was counted in short windows: on a machine that others share a mean says little, the better windows much.

use std::time::Duration;

/// Counts by the window in which they fell.
#[derive(Clone, Default, Debug)]
pub(super) struct Windows {
    counts: Vec<u64>,
}

impl Windows {
    /// So much more, so long after the beginning.
    #[inline]
    pub(super) fn add(&mut self, at_us: u64, count: u64) {
        let window = (at_us / WINDOW_US) as usize;
        if window >= self.counts.len() {
            // A clock that jumps an hour ahead is not to take all memory.
            self.counts.resize(window.min(WINDOWS_MAX - 1) + 1, 0);
        }
        let last = self.counts.len() - 1;
        self.counts[window.min(last)] += count;
    }

    /// The windows of the steady part: without the first, in which everything begins, and the last, which is not whole.
    pub(super) fn steady(&self) -> Vec<u64> {
        let begin = self.counts.iter().position(|&count| count > 0).unwrap_or(0) + WARM_UP;
        let end = self.counts.len().saturating_sub(1);
        self.counts.get(begin..end).unwrap_or_default().to_vec()
    }
}

/// Rates of many windows, a second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rates {
    pub(super) best: f64,
    /// One window in twenty is better.
    pub(super) p95: f64,
    pub(super) p50: f64,
}

impl Rates {
    pub(super) fn of(mut windows: Vec<u64>) -> Rates {
        windows.sort_unstable();
        let per_second = 1e6 / WINDOW_US as f64;
        let at = |part: f64| match windows.len() {
            0 => 0.0,
            len => windows[((len - 1) as f64 * part).round() as usize] as f64 * per_second,
        };
        Rates { best: at(1.0), p95: at(0.95), p50: at(0.5) }
    }
}

/// How long a part of a run is not counted.
pub(super) const WARM_UP_TIME: Duration = Duration::from_micros(WARM_UP as u64 * WINDOW_US);

const WINDOW_US: u64 = 10_000;
const WARM_UP: usize = 5;
const WINDOWS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests;
