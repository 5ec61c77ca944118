//! What a frame asks of the device when it is sent.

use crate::Desc;
use std::ptr::NonNull;

/// `struct xsk_tx_metadata`: lies [`tx_metadata_len`](crate::UmemConfig::tx_metadata_len) bytes before the frame's first,
/// and counts when the frame's descriptor says [`Desc::METADATA`]. Linux 6.8.
///
/// With metadata registered, the kernel lets a frame reach only up to `tx_metadata_len` bytes before the end of its chunk.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxMetadata {
    flags: u64,
    csum_start: u16,
    csum_offset: u16,
    reserved: u32,
    launch_time: u64,
}

impl TxMetadata {
    /// Bytes to register.
    pub const LEN: u32 = size_of::<Self>() as u32;

    /// Have the Internet checksum from byte `start` of the frame to its end written to byte `start + offset`. For TCP,
    /// `start` is where its header begins, `offset` is 16, and the field already holds the sum of the pseudo header.
    #[must_use]
    pub const fn checksum(start: u16, offset: u16) -> Self {
        TxMetadata { flags: CHECKSUM, csum_start: start, csum_offset: offset, reserved: 0, launch_time: 0 }
    }

    /// Writes this before the frame that begins at `frame`, and marks its descriptor.
    ///
    /// # Safety
    /// The `tx_metadata_len` bytes before `frame` are writable, belong to the frame's chunk, and nobody else uses the
    /// chunk now. `tx_metadata_len` is what was registered, and at least [`TxMetadata::LEN`].
    pub unsafe fn write(self, frame: NonNull<u8>, tx_metadata_len: u32, desc: &mut Desc) {
        debug_assert!(tx_metadata_len >= Self::LEN);
        // SAFETY: the caller owns these bytes; they may lie unaligned.
        unsafe { frame.as_ptr().sub(tx_metadata_len as usize).cast::<Self>().write_unaligned(self) };
        desc.options |= Desc::METADATA;
    }
}

/// `XDP_TXMD_FLAGS_CHECKSUM`
const CHECKSUM: u64 = 1 << 1;

#[cfg(test)]
mod tests;
