//! The clock that the workers of one runtime share.

use crate::time::Instant;

/// Monotonic time since the runtime was started. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// What time it is. No system call where the kernel's vDSO has the clock.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(self.origin.elapsed().as_micros() as u64)
    }
}
