//! The time that middleware goes by: the system's, or one that a simulation sets.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// A clock. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// In microseconds.
    Manual(Arc<AtomicU64>),
    #[cfg(feature = "std")]
    System { started: std::time::Instant, started_ns: u64 },
}

impl Clock {
    /// A clock that stands at zero until it is [set](Self::set_us).
    pub fn manual() -> Clock {
        Clock(Kind::Manual(Arc::default()))
    }

    /// Time since 1970. It never goes back: it takes the date once and counts on from there.
    #[cfg(feature = "std")]
    pub fn system() -> Clock {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Clock(Kind::System { started: std::time::Instant::now(), started_ns: since_1970.as_nanos() as u64 })
    }

    /// Sets a manual clock and all its clones, in microseconds. Does nothing to the system's.
    pub fn set_us(&self, now_us: u64) {
        match &self.0 {
            Kind::Manual(us) => us.store(now_us, Ordering::Relaxed),
            #[cfg(feature = "std")]
            Kind::System { .. } => {}
        }
    }

    /// The time in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Kind::Manual(us) => us.load(Ordering::Relaxed).saturating_mul(1000),
            #[cfg(feature = "std")]
            Kind::System { started, started_ns } => started_ns + started.elapsed().as_nanos() as u64,
        }
    }
}
