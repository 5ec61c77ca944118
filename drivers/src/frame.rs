//! Who owns each frame. A [`Region`] is memory cut into equal frames; each worker has a [`FramePool`] over its share of it.
//!
//! | type | means | may | becomes |
//! | --- | --- | --- | --- |
//! | [`Frame`] | the CPU owns it alone | read, write, prepend, append | sent → on a ring; [`hold`](Frame::hold) → `Held`; dropped → free |
//! | [`Held`] | ours until acknowledged | read; be sent again unless the device still has it | dropped → free now, or when the device is done |
//! | [`Desc`] | on a ring, or on its way to another core | nothing; drivers only | received → `Frame`; completed → free |
//!
//! One byte per frame says who owns it. It is checked at each hand-over, in release builds too: a driver or kernel that
//! returns a frame it never had is a panic and not a corrupted connection.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut, Range};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use arrayvec::ArrayVec;

use crate::burst::BURST;

/// Bytes kept free before the payload of an allocated frame: Ethernet, one VLAN tag, IPv6 and the longest TCP header are 118.
pub const HEADROOM: usize = 128;

/// The size of each frame of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameSize {
    /// 2048 bytes: an MTU of 1500.
    Small = 2048,
    /// 4096 bytes: an MTU of up to 3500.
    Large = 4096,
}

impl FrameSize {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }
}

/// Memory cut into frames, shared by the workers of one device.
pub struct Region {
    base: NonNull<u8>,
    size: FrameSize,
    /// The same in bytes.
    frame_len: usize,
    owners: Box<[AtomicU8]>,
    memory: Memory,
}

// SAFETY: the memory behind `base` is only touched through a frame's one owner, which `owners` tracks; frames move between
// threads through queues that synchronise.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `frames` frames of ordinary memory, zeroed, aligned to 4096 bytes.
    pub fn new(frames: u32, size: FrameSize) -> Arc<Region> {
        let layout = Layout::from_size_align(frames.max(1) as usize * size.bytes(), 4096).expect("frames × size fits");
        // SAFETY: the layout is not empty.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Region::over(base, frames, size, Memory::Allocated(layout))
    }

    /// `frames` frames of ordinary memory, mapped: for a device of the kernel's, which may go on using its pages for a moment
    /// after it was closed. On a heap they might be somebody else's by then.
    #[cfg(feature = "std")]
    pub fn mapped(frames: u32, size: FrameSize) -> std::io::Result<Arc<Region>> {
        Region::map(frames, size, rustix::param::page_size(), rustix::mm::MapFlags::empty())
    }

    /// `frames` frames of 2 MiB pages. Fails with `ENOMEM` unless enough are reserved (`vm.nr_hugepages`).
    #[cfg(feature = "std")]
    pub fn with_huge_pages(frames: u32, size: FrameSize) -> std::io::Result<Arc<Region>> {
        use rustix::mm::MapFlags;
        Region::map(frames, size, 2 << 20, MapFlags::HUGETLB | MapFlags::HUGE_2MB)
    }

    #[cfg(feature = "std")]
    fn map(frames: u32, size: FrameSize, page: usize, flags: rustix::mm::MapFlags) -> std::io::Result<Arc<Region>> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let len = (frames.max(1) as usize * size.bytes()).next_multiple_of(page);
        let flags = flags | MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe { mmap_anonymous(core::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags)? };
        let base = NonNull::new(base.cast()).expect("mmap does not map the null page");
        let region = Region::over(base, frames, size, Memory::Mapped(len));
        // Copy-on-write after a fork would part the process from the pages that a device uses.
        // SAFETY: the mapping was just made, and nobody else knows of it.
        unsafe { madvise(base.as_ptr().cast(), len, Advice::LinuxDontFork)? };
        Ok(region)
    }

    fn over(base: NonNull<u8>, frames: u32, size: FrameSize, memory: Memory) -> Arc<Region> {
        let owners = (0..frames).map(|_| AtomicU8::new(FREE)).collect();
        Arc::new(Region { base, size, frame_len: size.bytes(), owners, memory })
    }

    /// How many frames there are.
    pub fn frames(&self) -> u32 {
        self.owners.len() as u32
    }

    /// The size of each frame.
    pub fn frame_size(&self) -> FrameSize {
        self.size
    }

    /// Where the frames begin; `frames() × frame_size()` bytes.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Who owns how many of `frames`. For checks: it reads every owner byte.
    pub fn census(&self, frames: Range<u32>) -> Census {
        let mut census = Census::default();
        for owner in &self.owners[frames.start as usize..frames.end as usize] {
            match owner.load(Ordering::Acquire) {
                FREE => census.free += 1,
                FILL => census.receiving += 1,
                TRANSIT => census.moving += 1,
                o if o & DEVICE != 0 => census.sending += 1,
                _ => census.owned += 1,
            }
        }
        census
    }

    /// For drivers: the bytes of a frame on a ring.
    #[inline(always)]
    pub(crate) fn bytes(&self, desc: &Desc) -> &[u8] {
        assert!(desc.index < self.frames(), "the frame is of this region");
        // SAFETY: a Desc is made only from a frame of a region, in bounds; while it exists the CPU only reads those bytes.
        unsafe { core::slice::from_raw_parts(self.at(desc.index).add(desc.head as usize), desc.len as usize) }
    }

    /// For drivers: plays the device that writes a received packet into a posted frame. `false` if it does not fit.
    #[inline(always)]
    pub(crate) fn write(&self, desc: &mut Desc, packet: &[u8]) -> bool {
        if HEADROOM + packet.len() > self.frame_len {
            return false;
        }
        debug_assert_eq!(self.owners[desc.index as usize].load(Ordering::Relaxed), FILL, "the frame is posted");
        (desc.head, desc.len) = (HEADROOM as u16, packet.len() as u16);
        // SAFETY: the frame is on a fill ring, its only Desc is borrowed exclusively here, and the packet fits.
        unsafe { core::ptr::copy_nonoverlapping(packet.as_ptr(), self.at(desc.index).add(HEADROOM), packet.len()) }
        true
    }

    /// For drivers: a frame was posted to receive into, and its pool is gone.
    pub(crate) fn abandon(&self, desc: Desc) {
        self.hand_over(desc.index, FILL, FREE);
    }

    fn at(&self, index: u32) -> *mut u8 {
        debug_assert!(index < self.frames());
        // SAFETY: every index in a Frame, Held or Desc was checked against `owners`, which has one byte per frame.
        unsafe { self.base.as_ptr().add(index as usize * self.frame_len) }
    }

    /// Changes a frame's owner; panics if it is not `from`.
    #[inline(always)]
    fn hand_over(&self, index: u32, from: u8, to: u8) {
        hand_over(&self.owners, index, from, to);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.memory {
            // SAFETY: allocated in `new` with this layout; nobody else has the region any more.
            Memory::Allocated(layout) => unsafe { dealloc(self.base.as_ptr(), layout) },
            #[cfg(feature = "std")]
            // SAFETY: mapped in `map` with this length; nobody else has the region any more.
            Memory::Mapped(len) => unsafe {
                let _ = rustix::mm::munmap(self.base.as_ptr().cast(), len);
            },
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} × {} bytes)", self.frames(), self.frame_len)
    }
}

/// Who owns how many frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    /// In a pool.
    pub free: u32,
    /// A `Frame` or `Held` of the CPU, and of nobody else.
    pub owned: u32,
    /// Posted to receive into.
    pub receiving: u32,
    /// Being sent, held or not.
    pub sending: u32,
    /// On their way to another core.
    pub moving: u32,
}

/// One worker's share of a region. A handle: clones are the same pool. Not `Send`: frames belong to a core.
///
/// The pool lives as long as any handle or frame of it.
pub struct FramePool {
    inner: NonNull<Inner>,
}

impl FramePool {
    /// A pool of the frames in `share`, which no other pool may have. Panics if they are not all free.
    pub fn new(region: Arc<Region>, share: Range<u32>) -> FramePool {
        assert!(share.end <= region.frames(), "the share lies inside the region");
        assert_eq!(region.census(share.clone()).free as usize, share.len(), "the share is free");
        let free: Box<[Cell<u32>]> = share.clone().rev().map(Cell::new).collect();
        let away = (0..region.frames() as usize - share.len()).map(|_| Cell::new(0)).collect();
        let free_len = Cell::new(free.len());
        let refs = Cell::new(1);
        let inner = Box::new(Inner { free, free_len, away, away_len: Cell::new(0), share, refs, region });
        FramePool { inner: NonNull::from(Box::leak(inner)) }
    }

    /// A pool over a new region of its own.
    pub fn with_frames(frames: u32, size: FrameSize) -> FramePool {
        FramePool::new(Region::new(frames, size), 0..frames)
    }

    /// A free frame, empty, with [`HEADROOM`] before it; `None` when there is none.
    #[inline]
    pub fn alloc(&self) -> Option<Frame> {
        let index = self.inner().pop_free()?;
        self.inner().region.hand_over(index, FREE, CPU);
        Some(self.frame(index, HEADROOM as u16, 0))
    }

    /// How many frames are free here.
    #[inline]
    pub fn free(&self) -> usize {
        self.inner().free_len.get()
    }

    /// How many frames this pool began with.
    pub fn capacity(&self) -> usize {
        self.inner().share.len()
    }

    /// The region that the frames are part of.
    pub fn region(&self) -> &Arc<Region> {
        &self.inner().region
    }

    /// The frames that this pool began with.
    pub fn share(&self) -> Range<u32> {
        self.inner().share.clone()
    }

    /// Sends a frame of this pool's region to another core's pool, where [`adopt`](Self::adopt) makes it a frame again.
    pub fn part_with(frame: Frame) -> Desc {
        frame.leave(TRANSIT)
    }

    /// Takes in a frame that another core parted with. Panics if it is of another region.
    pub fn adopt(&self, desc: Desc) -> Frame {
        self.inner().region.hand_over(desc.index, TRANSIT, CPU);
        self.frame(desc.index, desc.head, desc.len)
    }

    /// A frame that was freed here but belongs to another worker's share, to be [brought home](Self::bring_home) there.
    pub fn take_away(&self) -> Option<Desc> {
        let inner = self.inner();
        let last = inner.away_len.get().checked_sub(1)?;
        inner.away_len.set(last);
        let index = inner.away[last].get();
        inner.region.hand_over(index, FREE, TRANSIT);
        Some(Desc { index, head: 0, len: 0 })
    }

    /// Frees a frame of this share that another worker sent back.
    pub fn bring_home(&self, desc: Desc) {
        self.inner().region.hand_over(desc.index, TRANSIT, FREE);
        self.inner().push_free(desc.index);
    }

    /// For bursts: a free frame, to be sent with `len` bytes, that are to be written as long as nobody looks at the burst.
    #[inline(always)]
    pub(crate) fn post_new<'a>(&self, len: usize, burst: &'a mut ArrayVec<Desc, BURST>) -> Option<&'a mut [u8]> {
        let inner = self.inner();
        let room = inner.region.frame_len - HEADROOM;
        if len > room {
            no_room(len, room);
        }
        let index = inner.pop_free()?;
        inner.region.hand_over(index, FREE, DEVICE);
        burst.push(Desc { index, head: HEADROOM as u16, len: len as u16 });
        // SAFETY: the bytes are inside the frame, which was free; its one Desc is in the burst, which is borrowed exclusively
        // as long as the bytes are.
        Some(unsafe { core::slice::from_raw_parts_mut(inner.region.at(index).add(HEADROOM), len) })
    }

    /// For drivers: gives up to `max` free frames to receive into to `post`; says how many.
    #[inline]
    pub(crate) fn fill(&self, max: usize, mut post: impl FnMut(Desc)) -> usize {
        let inner = self.inner();
        let (left, taken) = inner.free[..inner.free_len.get()].split_at(inner.free_len.get().saturating_sub(max));
        inner.free_len.set(left.len());
        let owners = &*inner.region.owners;
        for index in taken.iter().rev().map(Cell::get) {
            hand_over(owners, index, FREE, FILL);
            post(Desc { index, head: HEADROOM as u16, len: 0 });
        }
        taken.len()
    }

    /// For drivers: a free frame to receive into.
    #[cfg(any(feature = "xdp", test))]
    #[inline]
    pub(crate) fn take_for_fill(&self) -> Option<Desc> {
        let index = self.inner().pop_free()?;
        self.inner().region.hand_over(index, FREE, FILL);
        Some(Desc { index, head: HEADROOM as u16, len: 0 })
    }

    /// For drivers: a frame that was posted to receive into and not used.
    pub(crate) fn unfill(&self, desc: Desc) {
        self.inner().region.hand_over(desc.index, FILL, FREE);
        self.inner().push_free(desc.index);
    }

    /// For drivers: the device is closed, and what it still had of this share to receive into is free.
    #[cfg(feature = "xdp")]
    pub(crate) fn unfill_all(&self) {
        let inner = self.inner();
        for index in inner.share.clone() {
            // Only this pool posts frames of its share to receive into.
            if inner.region.owners[index as usize].load(Ordering::Relaxed) == FILL {
                self.unfill(Desc { index, head: 0, len: 0 });
            }
        }
    }

    /// For drivers: the device put `len` bytes at `head` of a frame that was posted to receive into.
    #[cfg(feature = "xdp")]
    #[inline]
    pub(crate) fn received(&self, index: u32, head: u16, len: u16) -> Frame {
        let inner = self.inner();
        assert!(head as usize + len as usize <= inner.region.frame_len, "the device stays inside its frame");
        inner.region.hand_over(index, FILL, CPU);
        self.frame(index, head, len)
    }

    /// For drivers: [`received`](Self::received), of a descriptor that comes back with a packet written into its frame.
    #[inline]
    pub(crate) fn filled(&self, desc: Desc) -> Frame {
        self.inner().region.hand_over(desc.index, FILL, CPU);
        self.frame(desc.index, desc.head, desc.len)
    }

    /// For drivers: the device has sent this frame.
    #[inline]
    pub(crate) fn completed(&self, index: u32) {
        let inner = self.inner();
        let owner = &inner.region.owners[index as usize];
        match owner.load(Ordering::Relaxed) {
            DEVICE => {
                owner.store(FREE, Ordering::Relaxed);
                inner.push_free(index);
            }
            HELD_BY_DEVICE => owner.store(CPU, Ordering::Relaxed),
            found => wrong_owner(index, found, DEVICE),
        }
    }

    /// For drivers: the device has sent these frames.
    #[inline]
    pub(crate) fn completed_burst(&self, descs: impl Iterator<Item = Desc>) {
        let inner = self.inner();
        let (owners, free, share) = (&*inner.region.owners, &*inner.free, inner.share.clone());
        let mut free_len = inner.free_len.get();
        for desc in descs {
            // The usual: it is not held, and it is ours.
            let owner = &owners[desc.index as usize];
            if owner.load(Ordering::Relaxed) == DEVICE && share.contains(&desc.index) {
                owner.store(FREE, Ordering::Relaxed);
                free[free_len].set(desc.index);
                free_len += 1;
            } else {
                inner.free_len.set(free_len);
                self.completed(desc.index);
                free_len = inner.free_len.get();
            }
        }
        inner.free_len.set(free_len);
    }

    #[inline]
    fn frame(&self, index: u32, head: u16, len: u16) -> Frame {
        self.inner().refs.set(self.inner().refs.get() + 1);
        Frame { pool: self.inner, index, head, len }
    }

    #[inline(always)]
    fn inner(&self) -> &Inner {
        // SAFETY: Inner lives until the last handle or frame is gone, and this is a handle.
        unsafe { self.inner.as_ref() }
    }
}

impl Clone for FramePool {
    fn clone(&self) -> FramePool {
        self.inner().refs.set(self.inner().refs.get() + 1);
        FramePool { inner: self.inner }
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        drop_ref(self.inner);
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FramePool({} of {} free)", self.free(), self.capacity())
    }
}

/// A frame that the CPU owns alone. Its bytes are a packet, or the payload of one to be.
pub struct Frame {
    pool: NonNull<Inner>,
    index: u32,
    head: u16,
    len: u16,
}

impl Frame {
    /// Its number in the region.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Free bytes before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.head as usize
    }

    /// Free bytes after the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.inner().region.frame_len - self.head as usize - self.len as usize
    }

    /// Makes `n` bytes before the data part of it and gives them to be written. Panics without that much headroom.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> &mut [u8] {
        if n > self.headroom() {
            no_room(n, self.headroom());
        }
        self.head -= n as u16;
        self.len += n as u16;
        &mut self[..n]
    }

    /// Makes `n` bytes after the data part of it and gives them to be written. Panics without that much tailroom.
    #[inline]
    pub fn append(&mut self, n: usize) -> &mut [u8] {
        if n > self.tailroom() {
            no_room(n, self.tailroom());
        }
        let start = self.len as usize;
        self.len += n as u16;
        &mut self[start..]
    }

    /// Copies as much of `bytes` as fits behind the data; says how many.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.tailroom());
        self.append(n).copy_from_slice(&bytes[..n]);
        n
    }

    /// Drops the first `n` bytes of the data: they become headroom. Panics if there are fewer.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        if n > self.len as usize {
            no_room(n, self.len as usize);
        }
        self.head += n as u16;
        self.len -= n as u16;
    }

    /// Keeps the first `n` bytes of the data. Does nothing if there are fewer.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n.min(u16::MAX as usize) as u16);
    }

    /// Empties the frame: no data, [`HEADROOM`] before it, as it came from the pool.
    #[inline]
    pub fn reset(&mut self) {
        (self.head, self.len) = (HEADROOM as u16, 0);
    }

    /// Whether the frame is part of `region`.
    #[inline]
    pub fn is_in(&self, region: &Arc<Region>) -> bool {
        Arc::ptr_eq(&self.inner().region, region)
    }

    /// Keeps the frame for retransmission: it can be sent any number of times until the `Held` is dropped.
    #[inline]
    pub fn hold(self) -> Held {
        Held { frame: ManuallyDrop::new(self) }
    }

    /// The pool that the frame goes back to.
    pub fn pool(&self) -> FramePool {
        let inner = self.inner();
        inner.refs.set(inner.refs.get() + 1);
        FramePool { inner: self.pool }
    }

    #[inline]
    pub(crate) fn post(self) -> Desc {
        self.leave(DEVICE)
    }

    #[inline]
    fn leave(self, to: u8) -> Desc {
        self.inner().region.hand_over(self.index, CPU, to);
        let desc = Desc { index: self.index, head: self.head, len: self.len };
        let pool = self.pool;
        core::mem::forget(self);
        drop_ref(pool);
        desc
    }

    #[inline(always)]
    fn inner(&self) -> &Inner {
        // SAFETY: Inner lives until the last handle or frame is gone, and this is a frame.
        unsafe { self.pool.as_ref() }
    }
}

impl Deref for Frame {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: head + len lies inside the frame (prepend, append and received check it); the CPU alone owns it, through
        // this value. Bytes never written by anyone are zero from the region's allocation.
        unsafe {
            core::slice::from_raw_parts(self.inner().region.at(self.index).add(self.head as usize), self.len as usize)
        }
    }
}

impl DerefMut for Frame {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and `self` is borrowed exclusively.
        unsafe {
            core::slice::from_raw_parts_mut(
                self.inner().region.at(self.index).add(self.head as usize),
                self.len as usize,
            )
        }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        self.inner().region.hand_over(self.index, CPU, FREE);
        self.inner().push_free(self.index);
        drop_ref(self.pool);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {} + {} bytes)", self.index, self.head, self.len)
    }
}

/// A frame that may have been sent and is not yet acknowledged. Its bytes are the payload; headers go before them.
#[derive(Debug)]
pub struct Held {
    frame: ManuallyDrop<Frame>,
}

impl Held {
    /// Its number in the region.
    #[inline]
    pub fn index(&self) -> u32 {
        self.frame.index
    }

    /// Length of the payload in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.frame.len as usize
    }

    /// No payload is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frame.len == 0
    }

    /// Free bytes after the payload.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.frame.tailroom()
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.frame
    }

    /// The device still has it.
    #[inline]
    pub fn is_sending(&self) -> bool {
        self.frame.inner().region.owners[self.frame.index as usize].load(Ordering::Relaxed) & DEVICE != 0
    }

    /// The `header_len` bytes before the payload, to be written, and the payload; `None` while the device has the frame.
    #[inline]
    pub fn header_mut(&mut self, header_len: usize) -> Option<(&mut [u8], &[u8])> {
        if self.is_sending() {
            return None;
        }
        if header_len > self.frame.headroom() {
            no_room(header_len, self.frame.headroom());
        }
        let frame = &mut self.frame;
        // SAFETY: the bytes are inside the frame, before the data; the device does not have it and `self` is borrowed exclusively.
        let whole: &mut [u8] = unsafe {
            core::slice::from_raw_parts_mut(
                frame.inner().region.at(frame.index).add(frame.head as usize - header_len),
                header_len + frame.len as usize,
            )
        };
        let (header, payload) = whole.split_at_mut(header_len);
        Some((header, payload))
    }

    /// Copies as much of `bytes` as fits behind the payload, up to `len_max` bytes of payload; says how many. None while the device has it.
    pub fn extend_from_slice(&mut self, bytes: &[u8], len_max: usize) -> usize {
        if self.is_sending() {
            return 0;
        }
        let n = bytes.len().min(len_max.saturating_sub(self.len()));
        self.frame.extend_from_slice(&bytes[..n])
    }

    /// Drops the first `n` bytes of the payload: they are acknowledged. Panics if there are fewer.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        self.frame.trim_front(n);
    }

    /// Keeps the first `n` bytes of the payload.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.frame.truncate(n);
    }

    /// The frame itself again, unless the device has it.
    pub fn release(self) -> Result<Frame, Held> {
        if self.is_sending() {
            return Err(self);
        }
        let mut held = ManuallyDrop::new(self);
        // SAFETY: the Held is not used or dropped again, so the frame is taken once.
        Ok(unsafe { ManuallyDrop::take(&mut held.frame) })
    }

    #[inline]
    pub(crate) fn post(&mut self, header_len: usize, payload_len: usize) -> Option<Desc> {
        if self.is_sending() {
            return None;
        }
        let frame = &self.frame;
        if header_len > frame.headroom() || payload_len > frame.len as usize {
            no_room(header_len + payload_len, frame.headroom());
        }
        frame.inner().region.hand_over(frame.index, CPU, HELD_BY_DEVICE);
        Some(Desc { index: frame.index, head: frame.head - header_len as u16, len: (header_len + payload_len) as u16 })
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if self.is_sending() {
            // The completion frees it.
            self.frame.inner().region.hand_over(self.frame.index, HELD_BY_DEVICE, DEVICE);
            drop_ref(self.frame.pool);
        } else {
            // SAFETY: this is the only place that drops it, and the Held is gone after this.
            unsafe { ManuallyDrop::drop(&mut self.frame) }
        }
    }
}

/// A frame on a ring or on its way to another core: 8 bytes, neither copied nor cloned, so that a frame is in one place only.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a descriptor that is lost is a frame that is lost"]
pub struct Desc {
    pub(crate) index: u32,
    pub(crate) head: u16,
    pub(crate) len: u16,
}

impl Desc {
    /// The frame's number in its region.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Length of the packet in bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// An empty packet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

struct Inner {
    /// A stack: the frame freed last is used first, while it is in the cache.
    free: Box<[Cell<u32>]>,
    free_len: Cell<usize>,
    /// Freed here, but of another worker's share.
    away: Box<[Cell<u32>]>,
    away_len: Cell<usize>,
    share: Range<u32>,
    /// Handles and frames that point here.
    refs: Cell<usize>,
    region: Arc<Region>,
}

impl Inner {
    #[inline]
    fn pop_free(&self) -> Option<u32> {
        let last = self.free_len.get().checked_sub(1)?;
        self.free_len.set(last);
        Some(self.free[last].get())
    }

    #[inline]
    fn push_free(&self, index: u32) {
        if index.wrapping_sub(self.share.start) < self.share.end - self.share.start {
            let len = self.free_len.get();
            self.free[len].set(index);
            self.free_len.set(len + 1);
        } else {
            self.push_away(index);
        }
    }

    #[cold]
    fn push_away(&self, index: u32) {
        let len = self.away_len.get();
        self.away[len].set(index);
        self.away_len.set(len + 1);
    }
}

/// [`Region::hand_over`] for many: the bytes are looked up once.
#[inline(always)]
fn hand_over(owners: &[AtomicU8], index: u32, from: u8, to: u8) {
    let owner = &owners[index as usize];
    let found = owner.load(Ordering::Relaxed);
    if found != from {
        wrong_owner(index, found, from);
    }
    owner.store(to, Ordering::Relaxed);
}

#[inline]
fn drop_ref(inner: NonNull<Inner>) {
    // SAFETY: the caller gives up one of the counted references, so Inner is alive here.
    let refs = unsafe { &inner.as_ref().refs };
    refs.set(refs.get() - 1);
    if refs.get() == 0 {
        // SAFETY: it was leaked from a Box in FramePool::new and this was the last reference.
        drop(unsafe { Box::from_raw(inner.as_ptr()) });
    }
}

enum Memory {
    Allocated(Layout),
    #[cfg(feature = "std")]
    Mapped(usize),
}

#[cold]
#[inline(never)]
fn wrong_owner(index: u32, found: u8, expected: u8) -> ! {
    panic!("frame {index} has owner bits {found:#x}, not {expected:#x}: a driver or queue returned what it never had")
}

#[cold]
#[inline(never)]
fn no_room(wanted: usize, room: usize) -> ! {
    panic!("{wanted} bytes do not fit into the {room} that the frame has there")
}

const FREE: u8 = 0;
const CPU: u8 = 1;
const DEVICE: u8 = 2;
const FILL: u8 = 4;
const TRANSIT: u8 = 8;
const HELD_BY_DEVICE: u8 = CPU | DEVICE;

#[cfg(test)]
mod tests;
