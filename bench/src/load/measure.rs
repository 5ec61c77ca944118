//! What one core counts, and the sum of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use handfast::{Closed, ConnectError};
use hdrhistogram::Histogram;

/// Why a connection failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Cause {
    /// A reset answered the SYN.
    Refused,
    /// A reset, where none was asked for.
    Reset,
    /// No answer for too long.
    TimedOut,
    /// The network says that nobody is there, or no neighbour answered.
    Unreachable,
    /// We reset it: data came after we had closed.
    Aborted,
    /// The peer closed before it had sent what it was to send, or before it was its turn.
    ClosedEarly,
    /// Not the protocol that was asked for.
    BadMessage,
    /// An HTTP status of 400 or more.
    HttpStatus,
    /// Every local port towards the target was in use or in TIME-WAIT.
    NoPort,
    /// Every connection record was in use.
    NoRecord,
    /// No route to the target, or none of our addresses goes with it.
    NoRoute,
    /// It was due, and the load was over before there was time to begin it.
    NotBegun,
    /// It was open still when the time to end was over.
    Unfinished,
}

impl Cause {
    pub(super) const ALL: [Cause; 13] = [
        Cause::Refused,
        Cause::Reset,
        Cause::TimedOut,
        Cause::Unreachable,
        Cause::Aborted,
        Cause::ClosedEarly,
        Cause::BadMessage,
        Cause::HttpStatus,
        Cause::NoPort,
        Cause::NoRecord,
        Cause::NoRoute,
        Cause::NotBegun,
        Cause::Unfinished,
    ];

    /// The cause's stable name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Cause::Refused => "refused",
            Cause::Reset => "reset",
            Cause::TimedOut => "timed_out",
            Cause::Unreachable => "unreachable",
            Cause::Aborted => "aborted",
            Cause::ClosedEarly => "closed_early",
            Cause::BadMessage => "bad_message",
            Cause::HttpStatus => "http_status",
            Cause::NoPort => "no_port",
            Cause::NoRecord => "no_record",
            Cause::NoRoute => "no_route",
            Cause::NotBegun => "not_begun",
            Cause::Unfinished => "unfinished",
        }
    }
}

impl From<Closed> for Cause {
    fn from(how: Closed) -> Cause {
        match how {
            Closed::Orderly => Cause::ClosedEarly,
            Closed::Reset => Cause::Reset,
            Closed::Refused => Cause::Refused,
            Closed::TimedOut => Cause::TimedOut,
            Closed::Unreachable => Cause::Unreachable,
            Closed::Aborted => Cause::Aborted,
        }
    }
}

impl From<ConnectError> for Cause {
    fn from(error: ConnectError) -> Cause {
        match error {
            ConnectError::NoPort => Cause::NoPort,
            ConnectError::TooManyConnections => Cause::NoRecord,
            _ => Cause::NoRoute,
        }
    }
}

/// What one core counts. Times are in microseconds of the clock that all cores of one end share.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    /// Begun, or due; of a server: accepted.
    pub(super) opened: u64,
    pub(super) established: u64,
    /// Ended as they were to end.
    pub(super) closed: u64,
    failed: [u64; Cause::ALL.len()],
    /// From SYN, or when it was due, to ESTABLISHED.
    pub(super) handshake_us: Histogram<u64>,
    /// From the end of a request to the first byte of its response; of a server: from ESTABLISHED to the first byte.
    pub(super) first_byte_us: Histogram<u64>,
    /// From our FIN or the peer's, whichever was first, to the end of the connection.
    pub(super) close_us: Histogram<u64>,
    windows: Vec<u32>,
    started_us: u64,
    ended_us: u64,
}

impl Measure {
    pub(super) fn new() -> Measure {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("bounds that are in order");
        Measure {
            opened: 0,
            established: 0,
            closed: 0,
            failed: [0; Cause::ALL.len()],
            handshake_us: histogram(),
            first_byte_us: histogram(),
            close_us: histogram(),
            windows: Vec::new(),
            started_us: u64::MAX,
            ended_us: 0,
        }
    }

    /// The load begins.
    pub(super) fn start(&mut self, now_us: u64) {
        self.started_us = self.started_us.min(now_us);
    }

    /// A connection ended as it was to end.
    pub(super) fn close(&mut self, now_us: u64) {
        self.closed += 1;
        self.ended_us = now_us;
        let window = (now_us / WINDOW_US) as usize;
        if window >= self.windows.len() {
            self.windows.resize(window + 1, 0);
        }
        self.windows[window] += 1;
    }

    /// A connection failed.
    pub(super) fn fail(&mut self, cause: Cause, now_us: u64) {
        self.fail_many(cause, 1);
        self.ended_us = now_us;
    }

    /// So many connections failed.
    pub(super) fn fail_many(&mut self, cause: Cause, count: u64) {
        self.failed[cause as usize] += count;
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.iter().sum()
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Cause::ALL.iter().map(|&cause| (cause.name(), self.failed[cause as usize])).filter(|&(_, count)| count > 0)
    }

    /// Begun and not over.
    pub(super) fn open(&self) -> u64 {
        self.opened - self.closed - self.failed()
    }

    /// From the beginning of the load to the end of the last connection.
    pub(super) fn seconds(&self) -> f64 {
        self.ended_us.saturating_sub(self.started_us) as f64 / 1e6
    }

    /// The most that were closed within 100 ms, as a rate.
    pub(super) fn best_per_second(&self) -> f64 {
        f64::from(self.windows.iter().copied().max().unwrap_or(0)) * 1e6 / WINDOW_US as f64
    }

    pub(super) fn merge(&mut self, other: &Measure) {
        self.opened += other.opened;
        self.established += other.established;
        self.closed += other.closed;
        for (sum, count) in self.failed.iter_mut().zip(other.failed) {
            *sum += count;
        }
        for (sum, one) in [
            (&mut self.handshake_us, &other.handshake_us),
            (&mut self.first_byte_us, &other.first_byte_us),
            (&mut self.close_us, &other.close_us),
        ] {
            sum.add(one).expect("the same bounds");
        }
        if self.windows.len() < other.windows.len() {
            self.windows.resize(other.windows.len(), 0);
        }
        for (sum, count) in self.windows.iter_mut().zip(&other.windows) {
            *sum += count;
        }
        self.started_us = self.started_us.min(other.started_us);
        self.ended_us = self.ended_us.max(other.ended_us);
    }
}

/// What the workers of one end and the thread that watches them tell each other while they run.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Nothing more is to be opened, and nothing held.
    pub(super) hurry: Arc<AtomicBool>,
    cores: Arc<[Live]>,
}

/// One worker's counts, written by it alone: once a turn.
#[derive(Default, Debug)]
#[repr(align(128))]
pub(super) struct Live {
    opened: AtomicU64,
    established: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    finished: AtomicBool,
}

/// All workers' counts together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) established: u64,
    pub(super) closed: u64,
    pub(super) failed: u64,
}

impl Watch {
    pub(super) fn new(workers: usize) -> Watch {
        Watch { hurry: Arc::default(), cores: (0..workers).map(|_| Live::default()).collect() }
    }

    /// Tells what `core` has counted.
    pub(super) fn publish(&self, core: u16, measure: &Measure, finished: bool) {
        let live = &self.cores[usize::from(core)];
        live.opened.store(measure.opened, Ordering::Relaxed);
        live.established.store(measure.established, Ordering::Relaxed);
        live.closed.store(measure.closed, Ordering::Relaxed);
        live.failed.store(measure.failed(), Ordering::Relaxed);
        live.finished.store(finished, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        self.cores.iter().fold(Counts::default(), |sum, live| Counts {
            opened: sum.opened + live.opened.load(Ordering::Relaxed),
            established: sum.established + live.established.load(Ordering::Relaxed),
            closed: sum.closed + live.closed.load(Ordering::Relaxed),
            failed: sum.failed + live.failed.load(Ordering::Relaxed),
        })
    }

    /// All have opened what they were to open, and all of that is over.
    pub(super) fn finished(&self) -> bool {
        self.cores.iter().all(|live| live.finished.load(Ordering::Relaxed))
    }
}

const WINDOW_US: u64 = 100_000;
/// Longer ones count as an hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;

#[cfg(test)]
mod tests;
