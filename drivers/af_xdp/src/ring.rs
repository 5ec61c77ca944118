//! The four rings: one producer, one consumer, the kernel on the other side.
//!
//! Indices count without end and wrap at 2^32; a slot is `index & mask`. The one who writes an index publishes it with
//! release, the other reads it with acquire. Each side remembers the other's index and looks again only when that
//! is not enough, so that the shared cache lines move once per batch.

use crate::{Errno, Error};
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::xdp::XdpRingOffset;
use std::fmt;
use std::iter::FusedIterator;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

/// Empty chunks on their way to the kernel: their offsets in the UMEM. The kernel ignores the bits below the chunk size.
///
/// It may look full right after a receive: the kernel publishes what it received before it publishes that it took the
/// chunks. Have somewhere to keep a refused chunk.
///
/// One ring belongs to one queue of one interface. In zero-copy mode reception starts, and goes on, only while
/// [`needs_wakeup`](Producer::needs_wakeup) is answered with [`Socket::kick_rx`](crate::Socket::kick_rx).
pub type Fill = Producer<u64>;

/// Frames on their way to the device. Those of one packet that spans several chunks follow each other, all but the
/// last marked [`Desc::CONTINUED`], and are submitted together: ask for [`room`](Producer::room) first.
pub type Tx = Producer<Desc>;

/// Sent frames on their way back: exactly the `addr` that was pushed to [`Tx`]. One ring belongs to one queue, also when
/// several sockets send on it. A frame that waits here is no longer read by anybody; while this ring is full nothing is sent.
pub type Completion = Consumer<u64>;

/// Received frames. `addr` is where the frame begins, somewhere inside its chunk. Frames marked [`Desc::CONTINUED`] go on in
/// the next descriptor, which may come with the next drain.
pub type Rx = Consumer<Desc>;

/// One frame, or a part of one: `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Its first byte, counted from the start of the UMEM.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// [`Desc::CONTINUED`] and [`Desc::METADATA`]; other bits are zero.
    pub options: u32,
}

impl Desc {
    /// The packet goes on in the next descriptor: `XDP_PKT_CONTD`, with [`multi_buffer`](crate::SocketConfig::multi_buffer).
    pub const CONTINUED: u32 = 1 << 0;
    /// [`TxMetadata`](crate::TxMetadata) lies before the frame: `XDP_TX_METADATA`.
    pub const METADATA: u32 = 1 << 1;

    /// A whole frame without options.
    #[must_use]
    pub const fn new(addr: u64, len: u32) -> Self {
        Desc { addr, len, options: 0 }
    }

    /// Whether the packet goes on in the next descriptor.
    #[must_use]
    pub const fn continued(&self) -> bool {
        self.options & Self::CONTINUED != 0
    }
}

/// A ring that we write and the kernel reads: [`Fill`] and [`Tx`].
pub struct Producer<T> {
    ring: Ring<T>,
    /// The next entry to write. The kernel sees it after `submit`.
    head: u32,
    /// The first index that is not ours to write: the kernel's, when we last looked, plus the size.
    limit: u32,
}

impl<T: Copy> Producer<T> {
    /// Writes one entry, which the kernel sees after [`submit`](Producer::submit). False when the ring is full: nothing was written.
    #[inline]
    #[must_use = "a refused entry stays with the caller"]
    pub fn push(&mut self, entry: T) -> bool {
        if self.head == self.limit && self.look() == 0 {
            return false;
        }
        // SAFETY: the slot is inside the ring by the mask. The kernel does not read it before `submit` publishes it and
        // has finished with its former content, as its index, acquired into `limit`, says; nobody else maps the ring.
        unsafe { self.ring.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Publishes everything written so far.
    #[inline]
    pub fn submit(&mut self) {
        self.ring.producer().store(self.head, Ordering::Release);
    }

    /// Entries that can be written now. The kernel's index is read only if fewer than `want` are known to be free.
    #[inline]
    #[must_use]
    pub fn room(&mut self, want: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.head);
        if known >= want { known } else { self.look() }
    }

    /// Submitted entries that the kernel has not taken.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u32 {
        let submitted = self.ring.producer().load(Ordering::Relaxed);
        submitted.wrapping_sub(self.ring.consumer().load(Ordering::Relaxed))
    }

    /// Whether the kernel asks to be woken for this ring. It may begin to ask at any time: look at every turn, not only
    /// after a submit.
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// Entries that the ring holds.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.ring.size()
    }

    #[inline]
    fn look(&mut self) -> u32 {
        self.limit = self.ring.consumer().load(Ordering::Acquire).wrapping_add(self.ring.size());
        self.limit.wrapping_sub(self.head)
    }

    pub(crate) fn new(ring: Ring<T>) -> Self {
        let head = ring.producer().load(Ordering::Relaxed);
        let mut producer = Producer { ring, head, limit: 0 };
        producer.look();
        producer
    }
}

impl Tx {
    /// Whether [`Socket::kick_tx`](crate::Socket::kick_tx) is due: frames wait and the kernel asks to be woken. In copy
    /// mode nothing is sent without a kick and one kick sends at most the budget, so ask at every turn until it is false.
    #[inline]
    #[must_use]
    pub fn wants_kick(&self) -> bool {
        self.needs_wakeup() && self.pending() != 0
    }
}

/// A ring that the kernel writes and we read: [`Completion`] and [`Rx`].
pub struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read. The kernel sees it when a `Drain` is dropped.
    tail: u32,
    /// The kernel's index when we last looked.
    limit: u32,
}

impl<T: Copy> Consumer<T> {
    /// Takes up to `max` entries, oldest first. Those that were iterated over are the kernel's again when the iterator is
    /// dropped, the rest stay for the next drain.
    #[inline]
    pub fn drain(&mut self, max: u32) -> Drain<'_, T> {
        let end = self.tail.wrapping_add(self.available(max).min(max));
        Drain { released: self.tail, end, ring: self }
    }

    /// Entries that wait. The kernel's index is read only if fewer than `want` are known to.
    #[inline]
    #[must_use]
    pub fn available(&mut self, want: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.tail);
        if known >= want {
            return known;
        }
        self.limit = self.ring.producer().load(Ordering::Acquire);
        self.limit.wrapping_sub(self.tail)
    }

    /// Entries that the ring holds.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.ring.size()
    }

    pub(crate) fn new(ring: Ring<T>) -> Self {
        let tail = ring.consumer().load(Ordering::Relaxed);
        Consumer { ring, tail, limit: tail }
    }
}

/// The entries of one [`Consumer::drain`].
pub struct Drain<'a, T: Copy> {
    ring: &'a mut Consumer<T>,
    released: u32,
    end: u32,
}

impl<T: Copy> Iterator for Drain<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.ring.tail == self.end {
            return None;
        }
        // SAFETY: the slot is inside the ring by the mask, the kernel wrote it before it published the index that `end` was
        // derived from with acquire, and writes it again only after the drop below has released it.
        let entry = unsafe { self.ring.ring.slot(self.ring.tail).read() };
        self.ring.tail = self.ring.tail.wrapping_add(1);
        Some(entry)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.wrapping_sub(self.ring.tail) as usize;
        (left, Some(left))
    }
}

impl<T: Copy> ExactSizeIterator for Drain<'_, T> {}
impl<T: Copy> FusedIterator for Drain<'_, T> {}

impl<T: Copy> Drop for Drain<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // An idle poll leaves the shared cache line alone.
        if self.ring.tail != self.released {
            self.ring.ring.consumer().store(self.ring.tail, Ordering::Release);
        }
    }
}

impl<T: Copy> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("ring", &self.ring).field("head", &self.head).finish_non_exhaustive()
    }
}

impl<T: Copy> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("ring", &self.ring).field("tail", &self.tail).finish_non_exhaustive()
    }
}

/// The shared memory of one ring.
pub(crate) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    _map: Mapping,
}

impl<T> Ring<T> {
    /// Maps a ring that the socket has been given the size of.
    pub(crate) fn map(fd: BorrowedFd<'_>, page_offset: u64, at: &XdpRingOffset, size: u32) -> Result<Self, Error> {
        let map = Mapping::of(fd, page_offset, ring_len::<T>(at, size))
            .map_err(|errno| Error::Call { call: "mmap of a ring", errno })?;
        Ok(Self::over(map, at, size))
    }

    fn over(map: Mapping, at: &XdpRingOffset, size: u32) -> Self {
        assert!(size.is_power_of_two() && map.len >= ring_len::<T>(at, size));
        let flags = at.flags.expect("checked when the offsets were read");
        let end = at.desc.max(4) - 4;
        assert!(at.producer <= end && at.consumer <= end && flags <= end, "the kernel's indices precede the entries");
        // SAFETY: the offsets lie inside the mapping, as was just asserted.
        let field = |offset: u64| unsafe { map.start.add(offset as usize) };
        Ring {
            producer: field(at.producer).cast(),
            consumer: field(at.consumer).cast(),
            flags: field(flags).cast(),
            entries: field(at.desc).cast(),
            mask: size - 1,
            _map: map,
        }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: inside the mapping that `self` owns; shared with the kernel, which like us accesses it atomically.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: the mask keeps the slot inside the `size` entries that `over` found room for.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }

    #[inline]
    fn size(&self) -> u32 {
        self.mask + 1
    }
}

// SAFETY: the pointers are to a mapping that this value owns and that has no thread affinity. Not Sync: there is one
// producer and one consumer, and we are one of them.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("size", &self.size()).finish_non_exhaustive()
    }
}

struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn of(fd: BorrowedFd<'_>, page_offset: u64, len: usize) -> Result<Self, Errno> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, page_offset)
        }?;
        Ok(Mapping { start: NonNull::new(start.cast()).expect("mmap never gives address zero"), len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and the ring whose pointers lead here goes with it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn ring_len<T>(at: &XdpRingOffset, size: u32) -> usize {
    at.desc as usize + size as usize * size_of::<T>()
}

/// `XDP_RING_NEED_WAKEUP`
const NEED_WAKEUP: u32 = 1;

#[cfg(test)]
mod tests;
