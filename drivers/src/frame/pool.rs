//! The frames of one worker: those that are free, and how they leave and come back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::fmt;
use core::mem::{MaybeUninit, offset_of};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;

#[cfg(any(feature = "xdp", test))]
use super::FILL;
use super::region::{Census, Frames};
use super::{CPU, DEVICE, Desc, FREE, Frame, FrameSize, HEADROOM, HELD_BY_DEVICE, Region, TRANSIT};
use super::{no_room, wrong_owner};
use crate::burst::{BURST, RxBurst};
use crate::ring::Poster;

/// One worker's share of a region. A handle: clones are the same pool. Not `Send`: frames belong to a core.
///
/// The pool lives as long as any handle or frame of it.
pub struct FramePool {
    inner: NonNull<Inner>,
}

impl FramePool {
    /// A pool of the frames in `share`. Panics if another pool has or had one of them: what is sent or posted may outlive a pool.
    pub fn new(region: Arc<Region>, share: Range<u32>) -> FramePool {
        assert!(share.end <= region.frames(), "the share lies inside the region");
        region.claim(share.clone());
        let inner = NonNull::from(Box::leak(Box::new(Inner::new(region, share))));
        FramePool { inner }
    }

    /// A pool over a new region of its own.
    pub fn with_frames(frames: u32, size: FrameSize) -> FramePool {
        FramePool::new(Region::new(frames, size), 0..frames)
    }

    /// A free frame, empty, with [`HEADROOM`] before it; `None` when there is none.
    #[inline]
    pub fn alloc(&self) -> Option<Frame> {
        let index = self.inner().pop_free(CPU)?;
        Some(self.frame(index, HEADROOM as u16, 0))
    }

    /// How many frames are free here.
    #[inline]
    pub fn free(&self) -> usize {
        self.inner().free_len.get()
    }

    /// How many frames this pool began with.
    pub fn capacity(&self) -> usize {
        self.inner().share_len as usize
    }

    /// The region that the frames are part of.
    pub fn region(&self) -> &Arc<Region> {
        self.inner().region()
    }

    /// Who owns how many of the frames that this pool began with. For checks: it reads every owner byte. What was posted on a ring in
    /// memory stays posted, also where that ring is gone, unless it came back before.
    pub fn census(&self) -> Census {
        let mut census = self.region().census(self.share());
        let posted = self.inner().posted.get() as u32;
        census.free -= posted;
        census.receiving += posted;
        census
    }

    /// The frames that this pool began with.
    pub fn share(&self) -> Range<u32> {
        let inner = self.inner();
        inner.share_start..inner.share_start + inner.share_len
    }

    /// Whether it is the same pool.
    #[inline(always)]
    pub(crate) fn is_same(&self, other: Option<&FramePool>) -> bool {
        other.map(FramePool::place) == Some(self.inner)
    }

    /// Where it is: no other pool is there while a handle or a frame of this one lives.
    #[inline(always)]
    pub(super) fn place(&self) -> NonNull<Inner> {
        self.inner
    }

    /// Sends a frame of this pool's region to another core's pool, where [`adopt`](Self::adopt) makes it a frame again.
    pub fn part_with(frame: Frame) -> Desc {
        // Whoever takes it in, if only by another region's descriptor of the same number, sees what was written before.
        fence(Ordering::Release);
        frame.leave(TRANSIT)
    }

    /// Takes in a frame that another core parted with. Panics if the region has no such frame on its way.
    pub fn adopt(&self, desc: Desc) -> Frame {
        let end = desc.head as usize + desc.len as usize;
        assert!(end <= self.inner().frames.len(), "the frame is of this region");
        self.region().hand_over(desc.index, TRANSIT, CPU);
        if !self.inner().is_ours(desc.index) {
            self.inner().has_had_guests.set(true);
        }
        self.frame(desc.index, desc.head, desc.len)
    }

    /// A frame that was freed here but belongs to another worker's share, to be [brought home](Self::bring_home) there.
    pub fn take_away(&self) -> Option<Desc> {
        let inner = self.inner();
        let last = inner.away_len.get().checked_sub(1)?;
        inner.away_len.set(last);
        let index = inner.away[last].get();
        self.region().hand_over(index, FREE, TRANSIT);
        Some(Desc { index, head: 0, len: 0 })
    }

    /// Frees a frame of this share that another worker sent back.
    pub fn bring_home(&self, desc: Desc) {
        self.release(desc, TRANSIT);
    }

    /// For bursts: a free frame, to be sent with `len` bytes, that are to be written as long as nobody looks at the burst.
    #[inline(always)]
    pub(crate) fn post_new<'a>(&'a self, len: usize, burst: &'a mut ArrayVec<Desc, BURST>) -> Option<&'a mut [u8]> {
        // First, while what the caller has just read of the burst cannot have changed.
        if burst.is_full() {
            burst_full();
        }
        let inner = self.inner();
        let room = inner.frames.len() - HEADROOM;
        // What fits into the smallest frame fits into all: where the length is a constant, nothing is left to be compared.
        if len > FrameSize::Small.bytes() - HEADROOM && len > room {
            no_room(len, room);
        }
        let index = inner.pop_free(DEVICE)?;
        // SAFETY: it is not full.
        unsafe { burst.push_unchecked(Desc { index, head: HEADROOM as u16, len: len as u16 }) };
        // SAFETY: the bytes are inside the frame, which was free; its one Desc is in the burst, which is borrowed exclusively
        // as long as the bytes are, and the pool, which keeps the region, is borrowed as long.
        Some(unsafe { core::slice::from_raw_parts_mut(inner.frames.at(index).add(HEADROOM), len) })
    }

    /// For drivers: posts up to `max` free frames on a ring in memory, to receive into. They lie there as they lay in the list.
    #[inline(always)]
    pub(crate) fn post_burst(&self, ring: &mut Poster<Desc>, max: usize) {
        let inner = self.inner();
        let first = inner.free.as_ptr().cast::<Desc>();
        let count = max.min(inner.free_len.get());
        let left = inner.free_len.get() - count;
        // SAFETY: the list was longer than this; a place in it is as good as a descriptor, and the frame is now on the ring instead.
        let posted = unsafe { ring.post_from(first.add(left), count) };
        debug_assert_eq!(posted, count, "the ring has room");
        inner.free_len.set(left);
        inner.posted.set(inner.posted.get() + posted);
    }

    /// For drivers: a frame that was posted on a ring in memory and not used.
    ///
    /// # Safety
    /// [`post_burst`](Self::post_burst) of this pool posted it.
    pub(crate) unsafe fn unpost(&self, desc: Desc) {
        let inner = self.inner();
        debug_assert!(inner.is_ours(desc.index));
        inner.posted.set(inner.posted.get() - 1);
        // SAFETY: it was taken off the list when it was posted, and is nowhere else.
        unsafe { inner.push_free(desc.index) };
    }

    /// For drivers: a free frame to receive into.
    #[cfg(any(feature = "xdp", test))]
    #[inline]
    pub(crate) fn take_for_fill(&self) -> Option<Desc> {
        Some(Desc { index: self.inner().pop_free(FILL)?, head: HEADROOM as u16, len: 0 })
    }

    /// For drivers: a frame that was posted to receive into and not used.
    #[cfg(any(feature = "xdp", test))]
    pub(crate) fn unfill(&self, desc: Desc) {
        self.release(desc, FILL);
    }

    /// For drivers: the device is closed, and what it still had of this share to receive into is free.
    #[cfg(feature = "xdp")]
    pub(crate) fn unfill_all(&self) {
        for index in self.share() {
            // SAFETY: the share lies inside the region.
            let owner = unsafe { self.inner().frames.owner(index) };
            // Only this pool posts frames of its share to receive into.
            if owner.load(Ordering::Relaxed) == FILL {
                self.unfill(Desc { index, head: 0, len: 0 });
            }
        }
    }

    /// For drivers: the device put `len` bytes at `head` of a frame that was posted to receive into.
    #[cfg(feature = "xdp")]
    #[inline]
    pub(crate) fn received(&self, index: u32, head: u16, len: u16) -> Frame {
        assert!(head as usize + len as usize <= self.inner().frames.len(), "the device stays inside its frame");
        self.inner().filled(&Desc { index, head, len });
        self.frame(index, head, len)
    }

    /// For drivers: frames that were posted on a ring in memory come back with packets, as many as `rx` has room for.
    /// Where in its frame a packet is, [`Region::write`] said, or what does the same.
    ///
    /// # Safety
    /// What is on the ring, [`post_burst`](Self::post_burst) of this pool posted.
    #[inline(always)]
    pub(crate) unsafe fn filled_burst(&self, ring: &mut Poster<Desc>, rx: &mut RxBurst) {
        let inner = self.inner();
        let (before, first, frames) = (rx.len(), rx.as_mut_ptr(), inner.frames);
        let mut len = before;
        ring.take_burst(rx.remaining_capacity()).for_each(|desc| {
            debug_assert!(inner.is_ours(desc.index));
            // SAFETY: the pool posted it, so there is such a frame; the region is kept.
            unsafe { frames.give(desc.index, CPU) };
            // SAFETY: the ring gives no more than there is room for.
            unsafe { first.add(len).write(Frame { pool: self.inner, desc }) };
            len += 1;
        });
        // SAFETY: so many were written.
        unsafe { rx.set_len(len) };
        inner.posted.set(inner.posted.get() + before - len);
        inner.refs.set(inner.refs.get() + len - before);
    }

    /// Frees the frames that are still in their places, as dropping each would, in a closer loop for those of this pool.
    ///
    /// Should `frame_of` panic, the pool's memory stays for ever.
    #[inline(always)]
    pub fn free_burst<T>(&self, places: &mut [T], frame_of: impl Fn(&mut T) -> &mut Option<Frame>) {
        let (inner, frames) = (self.inner(), self.inner().frames);
        for places in places.chunks_mut(BURST) {
            // `frame_of` may be anybody's code, which may take frames and free some: what is freed here joins the list afterwards.
            let (mut freed, mut count) = ([const { MaybeUninit::uninit() }; BURST], 0);
            for place in places {
                let place = frame_of(place);
                if place.as_ref().map(|frame| frame.pool) == Some(self.inner) {
                    let Some(desc) = place.take().map(Frame::into_desc) else { continue };
                    // Whoever has a `Frame` has the frame: its owner need not be looked at.
                    // SAFETY: it is one of the region's, which the pool keeps.
                    unsafe { frames.owner(desc.index) }.store(FREE, Ordering::Relaxed);
                    // SAFETY: the places of a chunk are no more than the array's.
                    unsafe { freed.get_unchecked_mut(count) }.write(desc);
                    count += 1;
                } else if place.is_some() {
                    free_other(place);
                }
            }
            // They were references; this handle is one more.
            inner.refs.set(inner.refs.get() - count);
            // SAFETY: so many were written, each a frame that was just made free and is nowhere else.
            unsafe { inner.push_burst(core::slice::from_raw_parts(freed.as_ptr().cast(), count)) };
        }
    }

    /// For drivers: the device has sent this frame.
    #[inline]
    pub(crate) fn completed(&self, index: u32) {
        let sent = self.sent();
        match sent.usual(index) {
            Some(frame) => {
                sent.make_free(&frame);
                // SAFETY: it was just made free.
                unsafe { self.inner().push_free(index) };
            }
            None => self.inner().completed(index),
        }
    }

    /// For drivers: frames that the device has sent.
    #[inline(always)]
    pub(super) fn sent(&self) -> Sent<'_> {
        let inner = self.inner();
        Sent { inner, frames: inner.frames, share: (inner.share_start, inner.share_len) }
    }

    /// A new handle.
    pub(super) fn of(inner: NonNull<Inner>) -> FramePool {
        // SAFETY: the caller has a handle or a frame.
        let refs = unsafe { &inner.as_ref().refs };
        refs.set(refs.get() + 1);
        FramePool { inner }
    }

    fn release(&self, desc: Desc, from: u8) {
        self.region().hand_over(desc.index, from, FREE);
        // SAFETY: it was just made free.
        unsafe { self.inner().push_free(desc.index) };
    }

    /// Its number was checked.
    #[inline]
    fn frame(&self, index: u32, head: u16, len: u16) -> Frame {
        self.inner().refs.set(self.inner().refs.get() + 1);
        Frame { pool: self.inner, desc: Desc { index, head, len } }
    }

    #[inline(always)]
    pub(super) fn inner(&self) -> &Inner {
        // SAFETY: Inner lives until the last handle or frame is gone, and this is a handle.
        unsafe { self.inner.as_ref() }
    }
}

impl Clone for FramePool {
    fn clone(&self) -> FramePool {
        FramePool::of(self.inner)
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        Inner::drop_ref(self.inner);
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FramePool({} of {} free)", self.free(), self.capacity())
    }
}

/// Frames on their way back from a device that has sent them.
pub(super) struct Sent<'a> {
    inner: &'a Inner,
    /// Copies of what is there: a loop has them at hand.
    frames: Frames,
    share: (u32, u32),
}

impl Sent<'_> {
    /// The usual frame that a device has: one of this share, that nobody holds.
    #[inline(always)]
    pub(super) fn usual(&self, index: u32) -> Option<Usual> {
        let (start, len) = self.share;
        if index.wrapping_sub(start) >= len {
            return None;
        }
        // SAFETY: the share lies inside the region, which the pool keeps.
        let owner = unsafe { self.frames.owner(index) };
        (owner.load(Ordering::Relaxed) == DEVICE).then_some(Usual { index })
    }

    /// Where it begins.
    #[inline(always)]
    pub(super) fn at(&self, frame: &Usual) -> *const u8 {
        // SAFETY: it is one of the region's.
        unsafe { self.frames.at(frame.index) }
    }

    /// The device has sent it: it is free, and to be put on the list.
    #[inline(always)]
    pub(super) fn make_free(&self, frame: &Usual) {
        // SAFETY: it is one of the region's, which the pool keeps.
        unsafe { self.frames.owner(frame.index) }.store(FREE, Ordering::Relaxed);
    }

    /// Puts frames on the list.
    ///
    /// # Safety
    /// Each was [usual](Self::usual), was [made free](Self::make_free) and is on no list.
    #[inline(always)]
    pub(super) unsafe fn list(&self, freed: &[Desc]) {
        // SAFETY: as the caller promises.
        unsafe { self.inner.push_burst(freed) };
    }
}

/// The number of a [usual](Sent::usual) frame.
pub(super) struct Usual {
    index: u32,
}

/// A place in the list of free frames. Like a [`Desc`] in memory, so that many go onto a ring at once; of that only the frame's number
/// means something.
#[repr(C)]
struct Listed {
    index: Cell<u32>,
    rest: Cell<[u16; 2]>,
}

impl Listed {
    fn new(index: u32) -> Listed {
        Listed { index: Cell::new(index), rest: Cell::default() }
    }
}

pub(super) struct Inner {
    /// A copy of the region's.
    pub(super) frames: Frames,
    share_start: u32,
    share_len: u32,
    /// A stack: the frame freed last is used first, while it is in the cache. There is room for each frame of the share.
    free: Box<[Listed]>,
    free_len: Cell<usize>,
    /// How many are on rings in memory to be received into.
    posted: Cell<usize>,
    /// Frames of other workers' shares may be among this pool's.
    has_had_guests: Cell<bool>,
    /// Handles and frames that point here.
    refs: Cell<usize>,
    /// Freed here, but of another worker's share.
    away: Box<[Cell<u32>]>,
    away_len: Cell<usize>,
    region: Arc<Region>,
}

impl Inner {
    fn new(region: Arc<Region>, share: Range<u32>) -> Inner {
        let guests = region.frames() as usize - share.len();
        Inner {
            frames: region.frames,
            share_start: share.start,
            share_len: share.len() as u32,
            free: share.clone().rev().map(Listed::new).collect(),
            free_len: Cell::new(share.len()),
            posted: Cell::new(0),
            has_had_guests: Cell::new(false),
            refs: Cell::new(1),
            away: (0..guests).map(|_| Cell::new(0)).collect(),
            away_len: Cell::new(0),
            region,
        }
    }

    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    #[inline(always)]
    fn is_ours(&self, index: u32) -> bool {
        index.wrapping_sub(self.share_start) < self.share_len
    }

    /// Takes a free frame out; its owner is `to` then.
    #[inline(always)]
    fn pop_free(&self, to: u8) -> Option<u32> {
        let last = self.free_len.get().checked_sub(1)?;
        self.free_len.set(last);
        // SAFETY: the list was longer than this, and every number in it was checked; the region is kept.
        let index = unsafe { self.free.get_unchecked(last) }.index.get();
        // SAFETY: as above.
        unsafe { self.frames.give(index, to) };
        Some(index)
    }

    /// Takes a frame in that was handed over to nobody.
    ///
    /// # Safety
    /// The frame is one of the region's, and its owner was just changed to `FREE`: so it is on no list.
    #[inline(always)]
    pub(super) unsafe fn push_free(&self, index: u32) {
        if !self.is_ours(index) {
            return self.push_away(index);
        }
        let len = self.free_len.get();
        // SAFETY: a frame of the share is on the list once at most, so it is never longer than the share, and has room for that.
        unsafe { self.free.get_unchecked(len) }.index.set(index);
        self.free_len.set(len + 1);
    }

    /// Takes frames in that were handed over to nobody.
    ///
    /// # Safety
    /// As of [`push_free`](Self::push_free), each.
    #[inline(always)]
    unsafe fn push_burst(&self, freed: &[Desc]) {
        if self.has_had_guests.get() {
            // SAFETY: as the caller promises.
            return freed.iter().for_each(|desc| unsafe { self.push_free(desc.index) });
        }
        let len = self.free_len.get();
        // SAFETY: all frames of this pool are of its share; for the rest as in `push_free`. A place holds all that a descriptor does.
        unsafe {
            let end = self.free.as_ptr().cast::<Desc>().cast_mut().add(len);
            core::ptr::copy_nonoverlapping(freed.as_ptr(), end, freed.len());
        }
        self.free_len.set(len + freed.len());
    }

    #[cold]
    fn push_away(&self, index: u32) {
        let len = self.away_len.get();
        self.away[len].set(index);
        self.away_len.set(len + 1);
    }

    /// The device put a packet into a frame.
    #[cfg(feature = "xdp")]
    #[inline(always)]
    fn filled(&self, desc: &Desc) {
        if !self.is_ours(desc.index) {
            not_ours(desc.index);
        }
        // SAFETY: the share lies inside the region, which is kept.
        unsafe { self.frames.hand_over(desc.index, FILL, CPU) };
    }

    /// The device has sent a frame, whichever it is.
    #[cold]
    fn completed(&self, index: u32) {
        assert!(index < self.region.frames(), "the frame is of this region");
        // SAFETY: there is such a frame, and the region is kept.
        let owner = unsafe { self.frames.owner(index) };
        match owner.load(Ordering::Relaxed) {
            DEVICE => {
                owner.store(FREE, Ordering::Relaxed);
                // SAFETY: it was just made free.
                unsafe { self.push_free(index) };
            }
            HELD_BY_DEVICE => owner.store(CPU, Ordering::Relaxed),
            found => wrong_owner(index, found, DEVICE),
        }
    }

    #[inline]
    pub(super) fn drop_ref(inner: NonNull<Inner>) {
        // SAFETY: the caller gives up one of the counted references, so Inner is alive here.
        let refs = unsafe { &inner.as_ref().refs };
        refs.set(refs.get() - 1);
        if refs.get() == 0 {
            // SAFETY: it was leaked from a Box in FramePool::new and this was the last reference.
            drop(unsafe { Box::from_raw(inner.as_ptr()) });
        }
    }
}

#[cold]
#[inline(never)]
fn free_other(place: &mut Option<Frame>) {
    *place = None;
}

#[cold]
#[inline(never)]
fn burst_full() -> ! {
    panic!("the burst is full: ask room() first")
}

#[cfg(feature = "xdp")]
#[cold]
#[inline(never)]
fn not_ours(index: u32) -> ! {
    panic!("frame {index} was not posted by this pool: a driver returned what it never had")
}

const _: () = assert!(size_of::<Listed>() == size_of::<Desc>() && offset_of!(Listed, index) == offset_of!(Desc, index));
const _: () = assert!(align_of::<Listed>() == align_of::<Desc>());
