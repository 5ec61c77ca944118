//! Who owns each frame. A [`Region`] is memory cut into equal frames; each worker has a [`FramePool`] over its share of it.
//!
//! | type | means | may | becomes |
//! | --- | --- | --- | --- |
//! | [`Frame`] | the CPU owns it alone | read, write, prepend, append | sent → on a ring; [`hold`](Frame::hold) → `Held`; dropped → free |
//! | [`Held`] | ours until acknowledged | read; be sent again unless the device still has it | dropped → free now, or when the device is done |
//! | [`Desc`] | on a ring, or on its way to another core | nothing; drivers only | received → `Frame`; completed → free |
//!
//! One byte per frame says who owns it. It is checked whenever the kernel hands a frame back, a driver has sent one or another core
//! parted with it, in release builds too: a frame that they never had is a panic and not a corrupted connection. What proves itself that
//! it is the one owner, a `Frame` that is dropped or a descriptor on a ring in memory, is not asked. So a frame is on a list of free ones
//! once at most. Which region a descriptor is of, whatever carries it knows: a [`TxBurst`](crate::burst::TxBurst), a ring.

use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

pub(crate) use self::carry::carry_usual;
pub use self::pool::FramePool;
use self::pool::Inner;
pub use self::region::{Census, FrameSize, Region};

mod carry;
mod pool;
mod region;

/// Bytes kept free before the payload of an allocated frame: Ethernet, one VLAN tag, IPv6 and the longest TCP header are 118.
pub const HEADROOM: usize = 128;

/// A frame that the CPU owns alone. Its bytes are a packet, or the payload of one to be.
pub struct Frame {
    pool: NonNull<Inner>,
    /// In one piece, as it came and as it goes.
    desc: Desc,
}

impl Frame {
    /// Its number in the region.
    #[inline]
    pub fn index(&self) -> u32 {
        self.desc.index
    }

    /// Free bytes before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.desc.head as usize
    }

    /// Free bytes after the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.inner().frames.len() - self.desc.head as usize - self.desc.len as usize
    }

    /// Makes `n` bytes before the data part of it and gives them to be written. Panics without that much headroom.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> &mut [u8] {
        if n > self.headroom() {
            no_room(n, self.headroom());
        }
        self.desc.head -= n as u16;
        self.desc.len += n as u16;
        &mut self[..n]
    }

    /// Makes `n` bytes after the data part of it and gives them to be written. Panics without that much tailroom.
    #[inline]
    pub fn append(&mut self, n: usize) -> &mut [u8] {
        if n > self.tailroom() {
            no_room(n, self.tailroom());
        }
        let start = self.desc.len as usize;
        self.desc.len += n as u16;
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
        if n > self.desc.len as usize {
            no_room(n, self.desc.len as usize);
        }
        self.desc.head += n as u16;
        self.desc.len -= n as u16;
    }

    /// Keeps the first `n` bytes of the data. Does nothing if there are fewer.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.desc.len = self.desc.len.min(n.min(u16::MAX as usize) as u16);
    }

    /// Empties the frame: no data, [`HEADROOM`] before it, as it came from the pool.
    #[inline]
    pub fn reset(&mut self) {
        (self.desc.head, self.desc.len) = (HEADROOM as u16, 0);
    }

    /// [Empties](Self::reset) the frame and gives `n` bytes of it to be written. Panics if it is shorter than them and what is before.
    #[inline(always)]
    pub fn renew(&mut self, n: usize) -> &mut [u8] {
        // What fits into the smallest frame fits into all: where the length is a constant, nothing is left to be compared.
        if n > FrameSize::Small.bytes() - HEADROOM && n > self.inner().frames.len() - HEADROOM {
            no_room(n, self.inner().frames.len() - HEADROOM);
        }
        (self.desc.head, self.desc.len) = (HEADROOM as u16, n as u16);
        self
    }

    /// Whether the frame is part of `region`.
    #[inline]
    pub fn is_in(&self, region: &Arc<Region>) -> bool {
        Arc::ptr_eq(self.inner().region(), region)
    }

    /// Keeps the frame for retransmission: it can be sent any number of times until the `Held` is dropped.
    #[inline]
    pub fn hold(self) -> Held {
        Held { frame: ManuallyDrop::new(self) }
    }

    /// Whether that is the pool that the frame goes back to.
    #[inline(always)]
    pub(crate) fn is_of(&self, pool: Option<&FramePool>) -> bool {
        pool.map(FramePool::place) == Some(self.pool)
    }

    /// The pool that the frame goes back to.
    pub fn pool(&self) -> FramePool {
        FramePool::of(self.pool)
    }

    #[inline]
    pub(crate) fn post(self) -> Desc {
        self.leave(DEVICE)
    }

    #[inline]
    fn leave(self, to: u8) -> Desc {
        let frame = ManuallyDrop::new(self);
        frame.hand_over(CPU, to);
        Inner::drop_ref(frame.pool);
        // SAFETY: the frame is not used after this, nor dropped.
        unsafe { core::ptr::read(&frame.desc) }
    }

    /// The descriptor alone, without handing anything over: the pool still counts a frame.
    #[inline(always)]
    fn into_desc(self) -> Desc {
        let frame = ManuallyDrop::new(self);
        // SAFETY: as in `leave`.
        unsafe { core::ptr::read(&frame.desc) }
    }

    #[inline(always)]
    fn inner(&self) -> &Inner {
        // SAFETY: Inner lives until the last handle or frame is gone, and this is a frame.
        unsafe { self.pool.as_ref() }
    }

    /// Where the data begins.
    #[inline(always)]
    fn start(&self) -> *mut u8 {
        // SAFETY: the number was checked before it came into a `Frame`, and the head lies inside the frame.
        unsafe { self.inner().frames.at(self.desc.index).add(self.desc.head as usize) }
    }

    #[inline(always)]
    fn hand_over(&self, from: u8, to: u8) {
        // SAFETY: the number was checked before it came into a `Frame`; its pool keeps the region.
        unsafe { self.inner().frames.hand_over(self.desc.index, from, to) }
    }
}

impl Deref for Frame {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: head + len lies inside the frame (prepend, append, received and adopt check it); the CPU alone owns it, through
        // this value. Bytes never written by anyone are zero from the region's allocation.
        unsafe { core::slice::from_raw_parts(self.start(), self.desc.len as usize) }
    }
}

impl DerefMut for Frame {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.start(), self.desc.len as usize) }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        self.hand_over(CPU, FREE);
        // SAFETY: it was just made free.
        unsafe { self.inner().push_free(self.desc.index) };
        Inner::drop_ref(self.pool);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {} + {} bytes)", self.desc.index, self.desc.head, self.desc.len)
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
        self.frame.desc.index
    }

    /// Length of the payload in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.frame.desc.len as usize
    }

    /// No payload is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frame.desc.len == 0
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
        // SAFETY: the number was checked before it came into a `Frame`; its pool keeps the region.
        unsafe { self.frame.inner().frames.owner(self.frame.desc.index) }.load(Ordering::Relaxed) & DEVICE != 0
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
            core::slice::from_raw_parts_mut(frame.start().sub(header_len), header_len + frame.desc.len as usize)
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

    #[inline(always)]
    pub(crate) fn frame(&self) -> &Frame {
        &self.frame
    }

    #[inline]
    pub(crate) fn post(&mut self, header_len: usize, payload_len: usize) -> Option<Desc> {
        if self.is_sending() {
            return None;
        }
        let frame = &self.frame;
        if header_len > frame.headroom() || payload_len > frame.desc.len as usize {
            no_room(header_len + payload_len, frame.headroom());
        }
        frame.hand_over(CPU, HELD_BY_DEVICE);
        Some(Desc {
            index: frame.desc.index,
            head: frame.desc.head - header_len as u16,
            len: (header_len + payload_len) as u16,
        })
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if self.is_sending() {
            // The completion frees it.
            self.frame.hand_over(HELD_BY_DEVICE, DEVICE);
            Inner::drop_ref(self.frame.pool);
        } else {
            // SAFETY: this is the only place that drops it, and the Held is gone after this.
            unsafe { ManuallyDrop::drop(&mut self.frame) }
        }
    }
}

/// A frame on a ring or on its way to another core: 8 bytes, neither copied nor cloned, so that a frame is in one place only.
#[derive(PartialEq, Eq, Debug)]
#[repr(C)]
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

/// Or on an in-memory ring to be received into: there the descriptors say so, which nobody can make.
const FREE: u8 = 0;
const CPU: u8 = 1;
const DEVICE: u8 = 2;
const FILL: u8 = 4;
const TRANSIT: u8 = 8;
const HELD_BY_DEVICE: u8 = CPU | DEVICE;
/// No pool has it yet.
const UNCLAIMED: u8 = 16;

#[cfg(test)]
mod tests;
