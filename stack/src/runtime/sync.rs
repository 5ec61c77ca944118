//! What workers share beside queues: whether one sleeps, and points that all have passed.
//!
//! A worker says that it is about to sleep, then looks into its box once more; a sender puts something in, then looks whether the
//! worker sleeps. With a full fence between the two steps of each, at least one of them sees the other, so that no wake-up is lost.

use self::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Whether a worker sleeps.
#[derive(Debug)]
pub(super) struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// Awake.
    pub(super) fn new() -> Sleeper {
        Sleeper { asleep: AtomicBool::new(false) }
    }

    /// For the worker: whether it may sleep now, since its box `is_empty` still.
    pub(super) fn lies_down(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may = is_empty();
        if !may {
            self.gets_up();
        }
        may
    }

    /// For the worker, after it slept.
    pub(super) fn gets_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// For whoever put something into the box: whether the worker has to be woken. Only one of many is told so.
    pub(super) fn must_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

/// A point that each worker passes once, and nobody goes beyond before all have.
#[derive(Debug)]
pub(super) struct Gate(AtomicUsize);

impl Gate {
    pub(super) fn new(workers: usize) -> Gate {
        Gate(AtomicUsize::new(workers))
    }

    /// This worker is here.
    pub(super) fn pass(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// All are.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

#[cfg(not(all(test, loom)))]
mod atomic {
    pub(super) use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

/// `scripts/loom` goes through every interleaving, and every order that the memory model allows.
#[cfg(all(test, loom))]
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

#[cfg(all(test, loom))]
mod tests;
