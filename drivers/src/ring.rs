//! A bounded ring between one producer and one consumer. Values move; nothing is locked and nothing is compared and swapped.
//!
//! Each side keeps its own index and a copy of the other's, and looks at the other's only when the copy says full or empty.
//! Values pushed are seen by the consumer after [`publish`](Producer::publish), and the room of values popped by the producer
//! after [`release`](Consumer::release): a burst costs one store to shared memory, whatever its length.

use alloc::boxed::Box;
use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::NonNull;

use self::sync::{Arc, AtomicBool, AtomicU32, Ordering, UnsafeCell};

/// A ring for at least `len` values: the next power of two. Panics above 2^31.
pub fn ring<T: Send>(len: u32) -> (Producer<T>, Consumer<T>) {
    let slots = (0..len.max(1).next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared =
        Arc::new(Shared { head: Padded::default(), tail: Padded::default(), closed: Padded::default(), slots });
    let other = ManuallyDrop::new(Arc::clone(&shared));
    let slots = Slots { first: NonNull::from(&shared.slots[0]), mask: shared.slots.len() as u32 - 1 };
    (
        Producer { shared: ManuallyDrop::new(shared), slots, tail: 0, published: 0, head_seen: 0 },
        Consumer { shared: other, slots, head: 0, released: 0, tail_seen: 0 },
    )
}

/// The side that puts values in.
pub struct Producer<T: Send> {
    shared: ManuallyDrop<Arc<Shared<T>>>,
    slots: Slots<T>,
    tail: u32,
    published: u32,
    head_seen: u32,
}

impl<T: Send> Producer<T> {
    /// How many values fit now.
    #[inline]
    pub fn room(&mut self) -> usize {
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        (self.slots.mask + 1 - self.tail.wrapping_sub(self.head_seen)) as usize
    }

    /// Puts a value in, to be seen after [`publish`](Self::publish). Gives it back when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head_seen) > self.slots.mask && self.room() == 0 {
            return Err(value);
        }
        // SAFETY: there is room for it.
        unsafe { self.put(value) };
        Ok(())
    }

    /// # Safety
    /// There is [`room`](Self::room).
    #[inline]
    unsafe fn put(&mut self, value: T) {
        // SAFETY: head ≤ tail < head + slots, so the consumer has released this slot (the acquire load in `room`) and does not
        // look at it before the tail is published.
        unsafe { self.slots.at(self.tail).as_ref().with_mut(|slot| (*slot).write(value)) };
        self.tail = self.tail.wrapping_add(1);
    }

    /// Puts in values until there are no more or the ring is full, and publishes them; says how many.
    pub fn push_burst(&mut self, values: impl IntoIterator<Item = T>) -> usize {
        let room = self.room();
        let first = self.tail;
        for value in values.into_iter().take(room) {
            let _ = self.push(value);
        }
        self.publish();
        self.tail.wrapping_sub(first) as usize
    }

    /// Shows the consumer all that was pushed.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.published = self.tail;
            self.shared.tail.0.store(self.tail, Ordering::Release);
        }
    }

    /// The consumer is gone: what is pushed is never popped.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.0.load(Ordering::Acquire)
    }

    /// Leaves. Of the two sides, exactly the one that leaves last gets what is still in the ring.
    pub fn close(self) -> Option<Leftover<T>> {
        ManuallyDrop::new(self).leave()
    }

    fn leave(&mut self) -> Option<Leftover<T>> {
        self.publish();
        // SAFETY: taken once, since `close` forgets self and nothing is used after drop.
        Shared::leave(unsafe { ManuallyDrop::take(&mut self.shared) })
    }
}

impl<T: Send> Drop for Producer<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The side that takes values out, in the order in which they were put in.
pub struct Consumer<T: Send> {
    shared: ManuallyDrop<Arc<Shared<T>>>,
    slots: Slots<T>,
    head: u32,
    released: u32,
    tail_seen: u32,
}

impl<T: Send> Consumer<T> {
    /// How many values can be popped at least; looks for new ones only when there are none.
    #[inline]
    pub fn ready(&mut self) -> usize {
        if self.tail_seen == self.head {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.tail_seen.wrapping_sub(self.head) as usize
    }

    /// Takes the oldest value out; its room is the producer's after [`release`](Self::release).
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        // SAFETY: at least one is ready.
        (self.ready() > 0).then(|| unsafe { self.take() })
    }

    /// # Safety
    /// A value is [`ready`](Self::ready).
    #[inline]
    unsafe fn take(&mut self) -> T {
        // SAFETY: head < tail, so the producer has written this slot and published it (the acquire load in `ready`), and does not
        // write it again before the head is released. It is read once: the head moves past it.
        let value = unsafe { self.slots.at(self.head).as_ref().with_mut(|slot| (*slot).assume_init_read()) };
        self.head = self.head.wrapping_add(1);
        value
    }

    /// Takes out up to `max` values; their room is released when the iterator is dropped.
    #[inline]
    pub fn pop_burst(&mut self, max: usize) -> PopBurst<'_, T> {
        PopBurst { left: self.ready().min(max), consumer: self }
    }

    /// Gives the room of all that was popped to the producer.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.head {
            self.released = self.head;
            self.shared.head.0.store(self.head, Ordering::Release);
        }
    }

    /// The producer is gone: what is not [`ready`](Self::ready) after this was seen will never be.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.0.load(Ordering::Acquire)
    }

    /// Leaves. Of the two sides, exactly the one that leaves last gets what is still in the ring.
    pub fn close(self) -> Option<Leftover<T>> {
        ManuallyDrop::new(self).leave()
    }

    fn leave(&mut self) -> Option<Leftover<T>> {
        self.release();
        // SAFETY: taken once, since `close` forgets self and nothing is used after drop.
        Shared::leave(unsafe { ManuallyDrop::take(&mut self.shared) })
    }
}

impl<T: Send> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Moves the oldest values of one ring to another, each changed by what is `beside` it; as many as are ready, find room and have
/// something beside them: says how many. Room is released before values are published: who gets a value finds room for another.
#[inline]
pub fn pass_on<T: Send, U>(
    from: &mut Consumer<T>,
    to: &mut Producer<T>,
    beside: &[U],
    mut change: impl FnMut(&mut T, &U),
) -> usize {
    let count = from.ready().min(to.room()).min(beside.len());
    for beside in &beside[..count] {
        // SAFETY: so many are ready.
        let mut value = unsafe { from.take() };
        change(&mut value, beside);
        // SAFETY: and there is room for so many.
        unsafe { to.put(value) };
    }
    from.release();
    to.publish();
    count
}

/// Values on their way out of a ring.
pub struct PopBurst<'a, T: Send> {
    consumer: &'a mut Consumer<T>,
    left: usize,
}

impl<T: Send> Iterator for PopBurst<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: `left` began as no more than what was ready, and the consumer is borrowed.
        Some(unsafe { self.consumer.take() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Send> Drop for PopBurst<'_, T> {
    fn drop(&mut self) {
        self.consumer.release();
    }
}

/// What was in a ring when both sides had left.
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

impl<T: Send> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer(at {} of {})", self.tail, self.slots.mask + 1)
    }
}

impl<T: Send> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer(at {} of {})", self.head, self.slots.mask + 1)
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
    /// The next slot to pop, written by the consumer.
    head: Padded<AtomicU32>,
    /// The next slot to push, written by the producer.
    tail: Padded<AtomicU32>,
    /// One side has left.
    closed: Padded<AtomicBool>,
    slots: Box<[Slot<T>]>,
}

// SAFETY: a slot is the consumer's from head to tail and the producer's otherwise, and both indices are handed over with
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
        let head = self.head.0.load(Ordering::Relaxed);
        if head == self.tail.0.load(Ordering::Relaxed) {
            return None;
        }
        self.head.0.store(head.wrapping_add(1), Ordering::Relaxed);
        let slot = &self.slots[head as usize & (self.slots.len() - 1)];
        // SAFETY: head < tail, so the slot is written and not yet read; the caller is alone and the head is past it now.
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
