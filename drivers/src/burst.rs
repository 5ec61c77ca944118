//! Bursts: fixed-capacity arrays in which frames move between a driver and the stack.

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

/// Frames to be sent, in order. What is in here belongs to the device already.
#[derive(Default, Debug)]
pub struct TxBurst {
    descs: ArrayVec<Desc, BURST>,
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

    /// Gives a frame away: it returns to its pool once it is sent. Panics when the burst is full: ask [`room`](Self::room) first.
    #[inline]
    pub fn push(&mut self, frame: Frame) {
        self.descs.push(frame.post());
    }

    /// Sends a packet of `len` bytes in a free frame of `pool`, and gives its bytes to be written; `None` without a frame.
    /// Panics when the burst is full, or the frame too short: ask [`room`](Self::room) first.
    #[inline(always)]
    pub fn push_new<'a>(&'a mut self, pool: &'a FramePool, len: usize) -> Option<&'a mut [u8]> {
        pool.post_new(len, &mut self.descs)
    }

    /// Sends `header_len` bytes of header, written before the payload, and the first `payload_len` bytes of `held`, which stays
    /// ours for retransmission. Refused while the device has it. Panics when the burst is full.
    #[inline]
    pub fn push_held(&mut self, held: &mut Held, header_len: usize, payload_len: usize) -> Result<(), StillSending> {
        self.descs.push(held.post(header_len, payload_len).ok_or(StillSending)?);
        Ok(())
    }

    /// For drivers: takes the `count` oldest frames out; the rest stay. Panics if there are fewer.
    #[inline]
    pub fn drain_front(&mut self, count: usize) -> impl Iterator<Item = Desc> + '_ {
        self.descs.drain(..count)
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
    pub fn cancel(&mut self, pool: &FramePool) {
        pool.completed_burst(self.descs.drain(..));
    }

    /// For middleware: what is to be sent, in order.
    pub fn descs(&self) -> &[Desc] {
        &self.descs
    }

    /// For middleware: puts a descriptor that was taken out of a burst into this one. Panics when the burst is full.
    pub fn push_desc(&mut self, desc: Desc) {
        self.descs.push(desc);
    }
}
