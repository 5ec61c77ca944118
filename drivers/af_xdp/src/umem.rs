//! Memory cut into chunks, and the sockets that share it.

use crate::error::Error;
use crate::socket::Bound;
use crate::{Errno, Memory};
use rustix::fd::AsFd;
use rustix::net::sockopt;
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Memory cut into chunks, shared by any number of sockets. A clone is another handle to the same UMEM.
///
/// The kernel learns of it, and locks its pages, with the first socket, and forgets it with the last.
#[derive(Clone)]
pub struct Umem {
    shared: Arc<Shared>,
}

/// How the memory is cut, and the rings that every queue gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Bytes of a chunk: 2048, or 4096 (any power of two up to the page size).
    pub chunk_size: u32,
    /// Bytes left free before a received frame, besides the 256 of the kernel's own.
    pub headroom: u32,
    /// Entries of a fill ring, a power of two.
    pub fill_size: u32,
    /// Entries of a completion ring, a power of two.
    pub completion_size: u32,
    /// Bytes before a sent frame for [`TxMetadata`](crate::TxMetadata); 0 is none. Linux 6.8.
    pub tx_metadata_len: u32,
    /// In copy mode, have the kernel compute the checksums that metadata asks for, instead of leaving them to the device
    /// (`XDP_UMEM_TX_SW_CSUM`). For devices without that offload, and for peers on the same machine. Linux 6.8.
    pub tx_software_checksum: bool,
}

impl Default for UmemConfig {
    /// Chunks of 2048 bytes, rings of 2048 entries, nothing else.
    fn default() -> Self {
        UmemConfig {
            chunk_size: 2048,
            headroom: 0,
            fill_size: 2048,
            completion_size: 2048,
            tx_metadata_len: 0,
            tx_software_checksum: false,
        }
    }
}

impl UmemConfig {
    /// Bytes of a received frame that a chunk has room for.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.chunk_size.saturating_sub(self.headroom).saturating_sub(KERNEL_HEADROOM)
    }

    fn check(&self, memory: &dyn Memory) -> Result<(), Error> {
        let &UmemConfig { chunk_size, headroom, fill_size, completion_size, tx_metadata_len, .. } = self;
        let page = rustix::param::page_size();
        if !chunk_size.is_power_of_two() || chunk_size < 2048 || chunk_size as usize > page {
            return Err(Error::ChunkSize { chunk_size, page });
        }
        if self.room() == 0 {
            return Err(Error::Headroom { headroom, chunk_size });
        }
        check_ring("fill", fill_size)?;
        check_ring("completion", completion_size)?;
        if !tx_metadata_len.is_multiple_of(8) || tx_metadata_len >= 256 {
            return Err(Error::TxMetadataLen { len: tx_metadata_len });
        }
        if !memory.as_ptr().addr().get().is_multiple_of(page) {
            return Err(Error::MemoryAlignment { page });
        }
        let len = memory.len();
        if len == 0 || !len.is_multiple_of(chunk_size as usize) {
            return Err(Error::MemorySize { len, chunk_size: chunk_size as usize });
        }
        Ok(())
    }
}

impl Umem {
    /// Cuts `memory` into chunks.
    ///
    /// # Errors
    /// Those of [`Error`] that name a setting; the kernel is asked when the first socket binds.
    pub fn new(memory: Arc<dyn Memory>, config: UmemConfig) -> Result<Self, Error> {
        config.check(&*memory)?;
        Ok(Umem { shared: Arc::new(Shared { memory, config, sockets: Mutex::new(Vec::new()) }) })
    }

    /// The chunk that a descriptor's `addr` lies in: the offset of its first byte.
    #[inline]
    #[must_use]
    pub fn chunk_of(&self, addr: u64) -> u64 {
        addr & !u64::from(self.shared.config.chunk_size - 1)
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.shared.memory.len() / self.shared.config.chunk_size as usize
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<dyn Memory> {
        &self.shared.memory
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &UmemConfig {
        &self.shared.config
    }

    /// The sockets bound so far, those that are gone removed. Held while a socket binds: the first decides for the others.
    pub(crate) fn sockets(&self) -> MutexGuard<'_, Vec<Weak<Bound>>> {
        let mut sockets = self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets
    }

    /// Tells the kernel of the memory, through the first socket.
    pub(crate) fn register(&self, fd: impl AsFd) -> Result<(), Error> {
        let Shared { memory, config, .. } = &*self.shared;
        let mut flags = 0;
        if config.tx_software_checksum {
            flags |= libc::XDP_UMEM_TX_SW_CSUM;
        }
        if config.tx_metadata_len != 0 {
            flags |= libc::XDP_UMEM_TX_METADATA_LEN;
        }
        let register = |flags| {
            let registration = XdpUmemReg {
                addr: memory.as_ptr().as_ptr() as u64,
                len: memory.len() as u64,
                chunk_size: config.chunk_size,
                headroom: config.headroom,
                flags: XdpUmemRegFlags::from_bits_retain(flags),
                tx_metadata_len: config.tx_metadata_len,
            };
            sockopt::set_xdp_umem_reg(&fd, registration)
        };
        let answer = match register(flags) {
            // The first kernels with metadata took the length without its flag.
            Err(Errno::INVAL) if flags & libc::XDP_UMEM_TX_METADATA_LEN != 0 && crate::socket::kernel_is((6, 8)) => {
                register(flags & !libc::XDP_UMEM_TX_METADATA_LEN)
            }
            answer => answer,
        };
        answer.map_err(|errno| match errno {
            Errno::NOBUFS | Errno::PERM => Error::MemoryLock { bytes: memory.len(), errno },
            Errno::INVAL if flags != 0 && !crate::socket::kernel_is((6, 8)) => {
                crate::socket::too_old("transmit metadata", "6.8")
            }
            errno => Error::Call { call: "setsockopt(XDP_UMEM_REG)", errno },
        })
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem").field("chunks", &self.chunks()).field("config", self.config()).finish_non_exhaustive()
    }
}

struct Shared {
    memory: Arc<dyn Memory>,
    config: UmemConfig,
    sockets: Mutex<Vec<Weak<Bound>>>,
}

pub(crate) fn check_ring(ring: &'static str, size: u32) -> Result<(), Error> {
    if size.is_power_of_two() { Ok(()) } else { Err(Error::RingSize { ring, size }) }
}

/// `XDP_PACKET_HEADROOM`, which the kernel keeps before every received frame.
const KERNEL_HEADROOM: u32 = 256;

#[cfg(test)]
mod tests;
