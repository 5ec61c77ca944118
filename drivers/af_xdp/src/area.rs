//! The memory below a UMEM.

use crate::Error;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::fs;
use std::ptr::{self, NonNull};
use std::slice;

/// Memory that a [`Umem`](crate::Umem) can register.
///
/// # Safety
/// - `as_ptr` and `len` always give the same mapped, writable range, for as long as the value lives.
/// - The range starts on a page.
/// - The kernel writes into any chunk that is given to a fill ring, and reads any that is given to a transmit ring, until
///   it gives the chunk back. The implementor hands out no Rust reference into such a chunk.
#[allow(clippy::len_without_is_empty, reason = "an empty memory cannot be registered")]
pub unsafe trait Memory: Send + Sync {
    /// The first byte.
    fn as_ptr(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
}

/// Zeroed anonymous memory, unmapped on drop. It does not pass to a forked child: copy-on-write would part the process
/// from the pages that the device uses.
#[derive(Debug)]
pub struct Area {
    start: NonNull<u8>,
    len: usize,
}

impl Area {
    /// Maps at least `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// [`Error::HugePages`] when too few are reserved, [`Error::MemorySize`] for zero bytes, or what `mmap` says.
    pub fn new(bytes: usize, page_size: PageSize) -> Result<Self, Error> {
        Area::with(bytes, page_size, |_| {})
    }

    /// The same, with something written into it before anybody else sees it.
    ///
    /// # Errors
    /// As [`Area::new`].
    pub fn with(bytes: usize, page_size: PageSize, write: impl FnOnce(&mut [u8])) -> Result<Self, Error> {
        let (page, huge) = match page_size {
            PageSize::Normal => (rustix::param::page_size(), MapFlags::empty()),
            PageSize::Huge2M => (HUGE_2M, MapFlags::HUGETLB | MapFlags::HUGE_2MB),
        };
        let len = bytes.checked_next_multiple_of(page).filter(|&len| len > 0);
        let len = len.ok_or(Error::MemorySize { len: bytes, chunk_size: page })?;
        // Populated: a page fault belongs to setup, not to the first packets.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE | huge;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nobody's memory.
        let mapped =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let start = mapped.map_err(|errno| match page_size {
            PageSize::Normal => Error::Call { call: "mmap", errno },
            PageSize::Huge2M => Error::HugePages { needed: len / HUGE_2M, free: free_huge_pages(), errno },
        })?;
        let area = Area { start: NonNull::new(start.cast()).expect("mmap never gives address zero"), len };
        // SAFETY: the mapping was just made and nobody else knows of it.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) }
            .map_err(|errno| Error::Call { call: "madvise(MADV_DONTFORK)", errno })?;
        // SAFETY: the mapping is `len` bytes, zeroed, and this thread's alone: neither the kernel nor another thread knows
        // of it before this function returns.
        write(unsafe { slice::from_raw_parts_mut(area.start.as_ptr(), area.len) });
        Ok(area)
    }
}

/// The pages that an [`Area`] is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageSize {
    /// The machine's ordinary pages, 4 KiB on most.
    #[default]
    Normal,
    /// 2 MiB pages, which an administrator reserves: fewer TLB misses.
    Huge2M,
}

// SAFETY: the mapping is this value's own, page aligned, and lives until drop; only raw pointers to it are handed out.
unsafe impl Memory for Area {
    fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }
    fn len(&self) -> usize {
        self.len
    }
}

// SAFETY: the pointer is an owned mapping without thread affinity; this type itself never reads or writes through it.
unsafe impl Send for Area {}
// SAFETY: as above: a shared reference gives away nothing but the address.
unsafe impl Sync for Area {}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and whoever holds the address keeps the Area alive. The kernel has pinned the pages of
        // a registered UMEM itself and does not need this mapping.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn free_huge_pages() -> Option<usize> {
    fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").ok()?.trim().parse().ok()
}

const HUGE_2M: usize = 2 << 20;

#[cfg(test)]
mod tests;
