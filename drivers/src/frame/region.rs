//! The memory that frames are cut from, and the byte of each frame that says who owns it.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use super::{DEVICE, Desc, FILL, FREE, HEADROOM, TRANSIT, UNCLAIMED, wrong_owner};

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
    pub(super) frames: Frames,
    size: FrameSize,
    /// A leaked box: a byte for each frame.
    owners: NonNull<[AtomicU8]>,
    memory: Memory,
}

// SAFETY: the memory behind `frames` is only touched through a frame's one owner, which `owners` tracks; frames move between
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
        let owners = NonNull::from(Box::leak((0..frames).map(|_| AtomicU8::new(UNCLAIMED)).collect::<Box<[_]>>()));
        let frames = Frames { base, frame_len: size.bytes(), owners: owners.cast(), count: frames };
        Arc::new(Region { frames, size, owners, memory })
    }

    /// How many frames there are.
    pub fn frames(&self) -> u32 {
        self.frames.count
    }

    /// The size of each frame.
    pub fn frame_size(&self) -> FrameSize {
        self.size
    }

    /// Where the frames begin; `frames() × frame_size()` bytes.
    pub fn base(&self) -> NonNull<u8> {
        self.frames.base
    }

    /// Who owns how many of `frames`. For checks: it reads every owner byte. What is posted on a ring in memory counts as free; the
    /// [pool](super::FramePool::census) knows better.
    pub fn census(&self, frames: Range<u32>) -> Census {
        let mut census = Census::default();
        for owner in &self.owners()[frames.start as usize..frames.end as usize] {
            match owner.load(Ordering::Acquire) {
                FREE | UNCLAIMED => census.free += 1,
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
        let (head, len) = (desc.head as usize, desc.len as usize);
        assert!(desc.index < self.frames() && head + len <= self.frames.len(), "the frame is of this region");
        // SAFETY: the bytes were just seen to be in bounds; while a Desc exists the CPU only reads those of its frame.
        unsafe { core::slice::from_raw_parts(self.frames.at(desc.index).add(head), len) }
    }

    /// For drivers: plays the device that writes a received packet into a posted frame. `false` if it does not fit.
    #[inline(always)]
    pub(crate) fn write(&self, desc: &mut Desc, packet: &[u8]) -> bool {
        if HEADROOM + packet.len() > self.frames.len() {
            return false;
        }
        debug_assert_eq!(self.owners()[desc.index as usize].load(Ordering::Relaxed), FREE, "the frame is posted");
        (desc.head, desc.len) = (HEADROOM as u16, packet.len() as u16);
        // SAFETY: the frame is on a fill ring of this region, its only Desc is borrowed exclusively here, and the packet fits.
        unsafe {
            core::ptr::copy_nonoverlapping(packet.as_ptr(), self.frames.at(desc.index).add(HEADROOM), packet.len())
        }
        true
    }

    /// Gives frames to the one pool that ever has them. Panics if another has or had one of them.
    pub(super) fn claim(&self, share: Range<u32>) {
        for owner in &self.owners()[share.start as usize..share.end as usize] {
            let claimed = owner.compare_exchange(UNCLAIMED, FREE, Ordering::Relaxed, Ordering::Relaxed);
            assert!(claimed.is_ok(), "the share is no other pool's");
        }
    }

    /// Changes a frame's owner; panics if it is not `from`, or if there is no such frame. Of two threads with descriptors of the same
    /// number, one of which must be another region's, one panics.
    pub(super) fn hand_over(&self, index: u32, from: u8, to: u8) {
        assert!(index < self.frames(), "the frame is of this region");
        let owner = &self.owners()[index as usize];
        if let Err(found) = owner.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed) {
            wrong_owner(index, found, from);
        }
    }

    fn owners(&self) -> &[AtomicU8] {
        // SAFETY: leaked in `over`, and freed by `drop` only.
        unsafe { self.owners.as_ref() }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: leaked in `over`; nobody else has the region any more.
        drop(unsafe { Box::from_raw(self.owners.as_ptr()) });
        match self.memory {
            // SAFETY: allocated in `new` with this layout; nobody else has the region any more.
            Memory::Allocated(layout) => unsafe { dealloc(self.base().as_ptr(), layout) },
            #[cfg(feature = "std")]
            // SAFETY: mapped in `map` with this length; nobody else has the region any more.
            Memory::Mapped(len) => unsafe {
                let _ = rustix::mm::munmap(self.base().as_ptr().cast(), len);
            },
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} × {} bytes)", self.frames(), self.size.bytes())
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

/// Where the frames of a region are and who owns each: a copy of this stands where it is looked up for every packet, beside an
/// `Arc` of the region.
#[derive(Clone, Copy)]
pub(super) struct Frames {
    base: NonNull<u8>,
    frame_len: usize,
    owners: NonNull<AtomicU8>,
    count: u32,
}

impl Frames {
    /// How long each is.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.frame_len
    }

    /// Where a frame begins.
    ///
    /// # Safety
    /// There is such a frame.
    #[inline(always)]
    pub(super) unsafe fn at(&self, index: u32) -> *mut u8 {
        debug_assert!(index < self.count);
        // SAFETY: the memory at `base` has so many frames.
        unsafe { self.base.as_ptr().add(index as usize * self.frame_len) }
    }

    /// Who owns a frame.
    ///
    /// # Safety
    /// There is such a frame, in a region that lives as long as the reference.
    #[inline(always)]
    pub(super) unsafe fn owner<'a>(&self, index: u32) -> &'a AtomicU8 {
        debug_assert!(index < self.count);
        // SAFETY: there is a byte for each frame.
        unsafe { self.owners.add(index as usize).as_ref() }
    }

    /// Changes a frame's owner; panics if it is not `from`.
    ///
    /// # Safety
    /// There is such a frame, in a region that lives.
    #[inline(always)]
    pub(super) unsafe fn hand_over(&self, index: u32, from: u8, to: u8) {
        // SAFETY: as the caller promises.
        let owner = unsafe { self.owner(index) };
        let found = owner.load(Ordering::Relaxed);
        if found != from {
            wrong_owner(index, found, from);
        }
        owner.store(to, Ordering::Relaxed);
    }

    /// Gives a frame that was just taken from a list of free ones, or off a ring that it was posted on, to an owner.
    ///
    /// # Safety
    /// There is such a frame, in a region that lives.
    #[inline(always)]
    pub(super) unsafe fn give(&self, index: u32, to: u8) {
        // SAFETY: as the caller promises.
        let owner = unsafe { self.owner(index) };
        debug_assert_eq!(owner.load(Ordering::Relaxed), FREE, "what is on the list, or was posted, is free");
        owner.store(to, Ordering::Relaxed);
    }
}

enum Memory {
    Allocated(Layout),
    #[cfg(feature = "std")]
    Mapped(usize),
}
