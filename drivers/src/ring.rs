//! A bounded ring on which values make a round between two sides, as descriptors do between a driver and its card: one side posts
//! them, the other fills them in where they are, and the first takes them back in the same order.
//!
//! Nothing is locked and nothing is compared and swapped. Each side keeps its own indices and a copy of the other's. What is posted
//! is seen by the filler, and what is filled by the poster, a burst at a time: it costs one store to shared memory, whatever its
//! length. Room for more has nobody to ask for: who posts is who takes.

use alloc::boxed::Box;
use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::NonNull;

use self::sync::{Arc, AtomicBool, AtomicU32, Ordering, UnsafeCell};

/// A ring for at least `len` values: the next power of two. Panics above 2^31.
pub fn ring<T: Send>(len: u32) -> (Poster<T>, Filler<T>) {
    let slots = (0..len.max(1).next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        posted: Padded::default(),
        filled: Padded::default(),
        closed: Padded::default(),
        taken: AtomicU32::new(0),
        slots,
    });
    let other = ManuallyDrop::new(Arc::clone(&shared));
    let slots = Slots { first: NonNull::from(&shared.slots[0]), mask: shared.slots.len() as u32 - 1 };
    (
        Poster { shared: ManuallyDrop::new(shared), slots, taken: 0, posted: 0 },
        Filler { shared: other, slots, filled: 0, published: 0, posted_seen: 0 },
    )
}

/// The side that values come from and return to.
pub struct Poster<T: Send> {
    shared: ManuallyDrop<Arc<Shared<T>>>,
    slots: Slots<T>,
    taken: u32,
    posted: u32,
}

impl<T: Send> Poster<T> {
    /// How many values are on the ring.
    #[inline]
    pub fn len(&self) -> usize {
        self.posted.wrapping_sub(self.taken) as usize
    }

    /// No value is on the ring.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.posted == self.taken
    }

    /// Posts `count` values that lie one after the other, as far as there is room; says how many.
    ///
    /// # Safety
    /// So many valid values begin at `first`, and those that are posted are used nowhere else any more.
    #[inline]
    pub unsafe fn post_from(&mut self, first: *const T, count: usize) -> usize {
        let count = count.min(self.slots.mask as usize + 1 - self.len());
        let mut from = first;
        for run in self.slots.runs(self.posted, count) {
            for nth in 0..run.len {
                // SAFETY: posted < taken + slots, so what was in this slot was taken, and the filler does not look at it before the
                // index is published; the rest is as the caller promises.
                unsafe { run.at(nth).with_mut(|slot| (*slot).write(from.add(nth).read())) };
            }
            // SAFETY: so many values are there.
            from = unsafe { from.add(run.len) };
        }
        if count > 0 {
            self.posted = self.posted.wrapping_add(count as u32);
            self.shared.posted.0.store(self.posted, Ordering::Release);
        }
        count
    }

    /// Takes up to `max` filled values back.
    #[inline]
    pub fn take_burst(&mut self, max: usize) -> TakeBurst<'_, T> {
        let filled = self.shared.filled.0.load(Ordering::Acquire);
        let count = max.min(filled.wrapping_sub(self.taken) as usize) as u32;
        let (taken, end) = (self.taken, self.taken.wrapping_add(count));
        // What a forgotten burst has not given out is lost, and nothing is given out twice.
        self.taken = end;
        TakeBurst { slots: self.slots, taken, end, poster: self }
    }

    /// Leaves. Of the two sides, exactly the one that leaves last gets what is still on the ring.
    pub fn close(self) -> Option<Leftover<T>> {
        ManuallyDrop::new(self).leave()
    }

    fn leave(&mut self) -> Option<Leftover<T>> {
        self.shared.taken.store(self.taken, Ordering::Relaxed);
        // SAFETY: taken once, since `close` forgets self and nothing is used after drop.
        Shared::leave(unsafe { ManuallyDrop::take(&mut self.shared) })
    }
}

impl<T: Send> Drop for Poster<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The side that fills values in.
pub struct Filler<T: Send> {
    shared: ManuallyDrop<Arc<Shared<T>>>,
    slots: Slots<T>,
    filled: u32,
    published: u32,
    posted_seen: u32,
}

impl<T: Send> Filler<T> {
    /// Fills in the oldest posted values, each by what stands `beside` it, until one of them is refused or nothing is posted or
    /// beside; says how many. The poster sees them after [`publish`](Self::publish).
    #[inline(always)]
    pub fn fill_burst<U>(&mut self, beside: &[U], mut fill: impl FnMut(&mut T, &U) -> bool) -> usize {
        if (self.posted_seen.wrapping_sub(self.filled) as usize) < beside.len() {
            self.look();
        }
        let count = beside.len().min(self.posted_seen.wrapping_sub(self.filled) as usize);
        let mut filled = 0;
        for run in self.slots.runs(self.filled, count) {
            let beside = &beside[filled..][..run.len];
            let mut nth = 0;
            // SAFETY: filled ≤ this slot < posted: the poster has written it (the acquire load in `look`), and neither takes nor
            // writes it before it is published.
            while nth < run.len && unsafe { run.at(nth).with_mut(|slot| fill((*slot).assume_init_mut(), &beside[nth])) }
            {
                nth += 1;
            }
            filled += nth;
            if nth < run.len {
                break;
            }
        }
        self.filled = self.filled.wrapping_add(filled as u32);
        filled
    }

    /// Fills in the oldest posted value, if there is one; the poster sees it after [`publish`](Self::publish).
    #[inline]
    pub fn fill<R>(&mut self, fill: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.posted_seen == self.filled {
            self.look();
        }
        if self.posted_seen == self.filled {
            return None;
        }
        // SAFETY: as in `fill_burst`: one at least is posted and not filled.
        let result = unsafe { self.slots.at(self.filled).as_ref().with_mut(|slot| fill((*slot).assume_init_mut())) };
        self.filled = self.filled.wrapping_add(1);
        Some(result)
    }

    /// Shows the poster all that was filled.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.filled {
            self.published = self.filled;
            self.shared.filled.0.store(self.filled, Ordering::Release);
        }
    }

    /// The poster is gone: what is filled is never taken.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.0.load(Ordering::Acquire)
    }

    /// Leaves. Of the two sides, exactly the one that leaves last gets what is still on the ring.
    pub fn close(self) -> Option<Leftover<T>> {
        ManuallyDrop::new(self).leave()
    }

    #[inline(always)]
    fn look(&mut self) {
        self.posted_seen = self.shared.posted.0.load(Ordering::Acquire);
    }

    fn leave(&mut self) -> Option<Leftover<T>> {
        self.publish();
        // SAFETY: taken once, since `close` forgets self and nothing is used after drop.
        Shared::leave(unsafe { ManuallyDrop::take(&mut self.shared) })
    }
}

impl<T: Send> Drop for Filler<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Filled values on their way out of a ring.
pub struct TakeBurst<'a, T: Send> {
    poster: &'a mut Poster<T>,
    slots: Slots<T>,
    taken: u32,
    end: u32,
}

impl<T: Send> Iterator for TakeBurst<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.taken == self.end {
            return None;
        }
        // SAFETY: taken < filled, so the filler is done with this slot (the acquire load in `take_burst`). It is read once: the
        // index moves past it before the slot is used again.
        let value = unsafe { self.slots.at(self.taken).as_ref().with_mut(|slot| (*slot).assume_init_read()) };
        self.taken = self.taken.wrapping_add(1);
        Some(value)
    }

    /// As by [`next`](Self::next), in a closer loop.
    #[inline(always)]
    fn fold<B, F: FnMut(B, T) -> B>(mut self, init: B, mut f: F) -> B {
        let mut folded = init;
        for run in self.slots.runs(self.taken, self.len()) {
            for nth in 0..run.len {
                // SAFETY: as in `next`.
                let value = unsafe { run.at(nth).with_mut(|slot| (*slot).assume_init_read()) };
                self.taken = self.taken.wrapping_add(1);
                folded = f(folded, value);
            }
        }
        folded
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl<T: Send> TakeBurst<'_, T> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end.wrapping_sub(self.taken) as usize
    }
}

impl<T: Send> Drop for TakeBurst<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.poster.taken = self.taken;
    }
}

/// What was on a ring when both sides had left.
pub struct Leftover<T: Send> {
    shared: Arc<Shared<T>>,
}

impl<T: Send> Iterator for Leftover<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        // SAFETY: both sides have left, and `leave` gives one of them this value.
        unsafe { self.shared.take_oldest() }
    }
}

impl<T: Send> fmt::Debug for Poster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Poster({} on {})", self.len(), self.slots.mask + 1)
    }
}

impl<T: Send> fmt::Debug for Filler<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filler(at {} of {})", self.filled, self.slots.mask + 1)
    }
}

type Slot<T> = UnsafeCell<MaybeUninit<T>>;

/// Where the slots of a ring are, so that a side need not look it up.
struct Slots<T> {
    first: NonNull<Slot<T>>,
    mask: u32,
}

impl<T> Slots<T> {
    #[inline(always)]
    fn at(&self, index: u32) -> NonNull<Slot<T>> {
        // SAFETY: there are mask + 1 slots.
        unsafe { self.first.add((index & self.mask) as usize) }
    }

    /// `count` slots from `index` on, as they lie in memory: some up to the end of the ring and some from its beginning.
    #[inline(always)]
    fn runs(&self, index: u32, count: usize) -> [Run<T>; 2] {
        let before_end = count.min((self.mask + 1 - (index & self.mask)) as usize);
        [Run { first: self.at(index), len: before_end }, Run { first: self.first, len: count - before_end }]
    }
}

/// Slots one after the other.
struct Run<T> {
    first: NonNull<Slot<T>>,
    len: usize,
}

impl<T> Run<T> {
    /// # Safety
    /// The run is longer than this, no longer than the ring, and the ring lives.
    #[inline(always)]
    unsafe fn at<'a>(&self, nth: usize) -> &'a Slot<T> {
        debug_assert!(nth < self.len);
        // SAFETY: as the caller promises.
        unsafe { self.first.add(nth).as_ref() }
    }
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slots<T> {}

// SAFETY: each side has a reference to the ring beside this, which keeps the slots alive; which of the two may use a slot, the
// indices say.
unsafe impl<T: Send> Send for Slots<T> {}

struct Shared<T> {
    /// The next slot to post to, written by the poster.
    posted: Padded<AtomicU32>,
    /// The next slot to fill, written by the filler.
    filled: Padded<AtomicU32>,
    /// One side has left.
    closed: Padded<AtomicBool>,
    /// The next slot to take from. The poster's own until it leaves.
    taken: AtomicU32,
    slots: Box<[Slot<T>]>,
}

// SAFETY: a slot is the filler's from filled to posted and the poster's otherwise, and both indices are handed over with
// release and acquire, so each slot has one user at a time. Values cross threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn leave(this: Arc<Shared<T>>) -> Option<Leftover<T>>
    where
        T: Send,
    {
        // Acquire: what the other side wrote before it left is to be seen by the one that clears up.
        this.closed.0.swap(true, Ordering::AcqRel).then_some(Leftover { shared: this })
    }

    /// # Safety
    /// Nobody else may use the ring any more.
    unsafe fn take_oldest(&self) -> Option<T> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.posted.0.load(Ordering::Relaxed) {
            return None;
        }
        self.taken.store(taken.wrapping_add(1), Ordering::Relaxed);
        let slot = &self.slots[taken as usize & (self.slots.len() - 1)];
        // SAFETY: taken < posted, so the slot is written and not yet taken; the caller is alone and the index is past it now.
        Some(unsafe { slot.with_mut(|slot| (*slot).assume_init_read()) })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the ring.
        while unsafe { self.take_oldest() }.is_some() {}
    }
}

/// Two cache lines for itself: processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

#[cfg(not(all(test, loom)))]
mod sync {
    pub(super) use alloc::sync::Arc;
    pub(super) use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    /// The shape of loom's cell.
    pub(super) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(core::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(all(test, loom))]
mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
}

#[cfg(test)]
mod tests;
