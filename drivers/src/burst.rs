//! Bursts: fixed-capacity arrays in which frames move between a driver and the stack.

use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use arrayvec::ArrayVec;

use crate::frame::{Desc, Frame, FramePool, Held};

/// How many frames move at once.
pub const BURST: usize = 64;

/// Frames that a driver received; ours.
pub type RxBurst = ArrayVec<Frame, BURST>;

/// Empties a burst: each frame is handed on with a place for it. Panics if the places are fewer; if `to` does, the frames that it was
/// not given yet are lost.
#[inline(always)]
pub fn deal<T>(rx: &mut RxBurst, places: &mut [T], mut to: impl FnMut(Dealt<'_>, &mut T)) {
    let places = &mut places[..rx.len()];
    // SAFETY: nothing is fewer, and the burst does not drop what is dropped or taken as `Dealt`.
    unsafe { rx.set_len(0) };
    let first = rx.as_mut_ptr().cast::<ManuallyDrop<Frame>>();
    for (nth, place) in places.iter_mut().enumerate() {
        // SAFETY: so many were there, and each is dealt once.
        to(Dealt { frame: unsafe { &mut *first.add(nth) } }, place);
    }
}

/// A frame of a burst that is being [dealt](deal): to be looked at where it lies, and to be taken, once.
#[derive(Debug)]
pub struct Dealt<'a> {
    frame: &'a mut ManuallyDrop<Frame>,
}

impl Dealt<'_> {
    /// The frame itself.
    #[inline(always)]
    pub fn take(self) -> Frame {
        let dealt = ManuallyDrop::new(self);
        // SAFETY: as the `Dealt` is not dropped, and was made once of this frame, nobody else takes it or drops it.
        unsafe { core::ptr::read(&**dealt.frame) }
    }
}

impl Deref for Dealt<'_> {
    type Target = Frame;
    #[inline(always)]
    fn deref(&self) -> &Frame {
        self.frame
    }
}

impl Drop for Dealt<'_> {
    fn drop(&mut self) {
        // SAFETY: it was not taken, and is not used after this.
        unsafe { ManuallyDrop::drop(self.frame) };
    }
}

/// Frames to be sent, in order, all of one region. What is in here belongs to the device already.
#[derive(Default, Debug)]
pub struct TxBurst {
    descs: ArrayVec<Desc, BURST>,
    /// A pool of the region that the frames are of: a descriptor does not say it.
    pool: Option<FramePool>,
}

/// The device still has the frame from an earlier transmission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StillSending;

impl TxBurst {
    /// An empty burst.
    pub fn new() -> TxBurst {
        TxBurst::default()
    }

    /// How many more frames fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.descs.remaining_capacity()
    }

    /// How many frames wait in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.descs.len()
    }

    /// Nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.descs.is_empty()
    }

    /// Gives a frame away: it returns to its pool once it is sent. Panics when the burst is full: ask [`room`](Self::room) first;
    /// and beside frames of another region.
    #[inline(always)]
    pub fn push(&mut self, frame: Frame) {
        if !frame.is_of(self.pool.as_ref()) {
            self.join_of(&frame);
        }
        self.descs.push(frame.post());
    }

    /// Sends a packet of `len` bytes in a free frame of `pool`, and gives its bytes to be written; `None` without a frame.
    /// Panics when the burst is full, or the frame too short: ask [`room`](Self::room) first; and beside frames of another region.
    #[inline(always)]
    pub fn push_new<'a>(&'a mut self, pool: &'a FramePool, len: usize) -> Option<&'a mut [u8]> {
        if !pool.is_same(self.pool.as_ref()) {
            // As long as it is said to be: where that is a constant, it stays one.
            return self.push_first(pool, len).map(|bytes| &mut bytes[..len]);
        }
        pool.post_new(len, &mut self.descs)
    }

    /// Sends `header_len` bytes of header, written before the payload, and the first `payload_len` bytes of `held`, which stays
    /// ours for retransmission. Refused while the device has it. Panics when the burst is full, and beside frames of another region.
    #[inline]
    pub fn push_held(&mut self, held: &mut Held, header_len: usize, payload_len: usize) -> Result<(), StillSending> {
        if !held.frame().is_of(self.pool.as_ref()) {
            self.join_of(held.frame());
        }
        self.descs.push(held.post(header_len, payload_len).ok_or(StillSending)?);
        Ok(())
    }

    /// For middleware: takes the `count` oldest frames out, to be sent later; the rest stay. Panics if there are fewer.
    pub fn drain_front(&mut self, count: usize) -> impl Iterator<Item = Delayed> + '_ {
        let TxBurst { descs, pool } = self;
        descs.drain(..count).map(|desc| Delayed { desc, pool: pool.clone().expect("what is in a burst is of a pool") })
    }

    /// For drivers: takes the `count` oldest frames out; the rest stay. Panics if there are fewer.
    #[cfg(any(feature = "tap", feature = "xdp", test))]
    #[inline]
    pub(crate) fn drain_descs(&mut self, count: usize) -> impl Iterator<Item = Desc> + '_ {
        self.descs.drain(..count)
    }

    /// For drivers: panics unless all frames are of the region that `pool` is of, so that their numbers mean its frames.
    #[inline(always)]
    pub(crate) fn check_region(&self, pool: &FramePool) {
        if !pool.is_same(self.pool.as_ref()) {
            self.look_closer(pool);
        }
    }

    /// For drivers: shows all frames to `take`, which says how many of the first it took; the rest stay. Says the same.
    #[inline(always)]
    pub(crate) fn take_front(&mut self, take: impl FnOnce(&[Desc]) -> usize) -> usize {
        let len = self.descs.len();
        // SAFETY: nothing is fewer, and descriptors need no drop. If `take` panics, none is here twice.
        unsafe { self.descs.set_len(0) };
        // SAFETY: so many were there, and nobody writes them while the burst is borrowed.
        let taken = take(unsafe { core::slice::from_raw_parts(self.descs.as_ptr(), len) });
        if taken < len {
            // SAFETY: the rest moves to the front.
            unsafe {
                let first = self.descs.as_mut_ptr();
                core::ptr::copy(first.add(taken), first, len - taken);
                self.descs.set_len(len - taken);
            }
        }
        taken
    }

    /// Sends nothing of it: the frames go back to their pool, those that are held stay held. For the end, when the device
    /// takes no more.
    pub fn cancel(&mut self) {
        if let Some(pool) = &self.pool {
            self.descs.drain(..).for_each(|desc| pool.completed(desc.index));
        }
    }

    /// What is to be sent, in order.
    pub fn descs(&self) -> &[Desc] {
        &self.descs
    }

    /// For middleware: the packets that are to be sent, in order.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let pool = self.pool.as_ref();
        self.descs.iter().map(move |desc| pool.expect("what is in a burst is of a pool").region().bytes(desc))
    }

    /// For middleware: puts a frame that was taken out of a burst into this one. Panics when the burst is full, and beside frames of
    /// another region.
    pub fn push_delayed(&mut self, delayed: Delayed) {
        self.join(&delayed.pool);
        self.descs.push(delayed.desc);
    }

    /// Frames of `pool` come into the burst; panics if others of another region are there. The pool stays as long as the burst does:
    /// nothing else is at its address.
    #[cold]
    #[inline(never)]
    fn join(&mut self, pool: &FramePool) {
        if self.descs.is_empty() {
            self.pool = Some(pool.clone());
        }
        self.look_closer(pool);
    }

    #[cold]
    #[inline(never)]
    fn push_first<'a>(&'a mut self, pool: &'a FramePool, len: usize) -> Option<&'a mut [u8]> {
        self.join(pool);
        pool.post_new(len, &mut self.descs)
    }

    #[cold]
    #[inline(never)]
    fn join_of(&mut self, frame: &Frame) {
        self.join(&frame.pool());
    }

    #[cold]
    #[inline(never)]
    fn look_closer(&self, pool: &FramePool) {
        let same = self.pool.as_ref().is_none_or(|ours| Arc::ptr_eq(ours.region(), pool.region()));
        assert!(same || self.descs.is_empty(), "the frames of a burst are of one region, and it is the device's");
    }
}

/// For middleware: a frame that was to be sent and was taken out of its burst, to be put into another one.
#[derive(Debug)]
#[must_use = "a frame that is neither sent nor cancelled is lost"]
pub struct Delayed {
    desc: Desc,
    pool: FramePool,
}

impl Delayed {
    /// A frame that nobody wanted to send yet.
    pub(crate) fn new(frame: Frame) -> Delayed {
        Delayed { pool: frame.pool(), desc: frame.post() }
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        self.pool.region().bytes(&self.desc)
    }

    /// Length of the packet in bytes.
    pub fn len(&self) -> usize {
        self.desc.len()
    }

    /// An empty packet.
    pub fn is_empty(&self) -> bool {
        self.desc.is_empty()
    }

    /// Does not send it: the frame goes back to its pool, or stays held.
    pub fn cancel(self) {
        self.pool.completed(self.desc.index);
    }
}

#[cfg(test)]
mod tests;
