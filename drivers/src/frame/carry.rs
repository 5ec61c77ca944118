//! Packets from frames of one region into frames of another: what two cards and the cable between them do.

use super::pool::Completions;
use super::region::Frames;
use super::{Desc, FramePool, FrameSize, HEADROOM, Region};

/// For the in-memory wire: carries packets that a pool sends, and completes them.
pub(crate) struct Carrier<'a> {
    from: Completions<'a>,
    to: Frames,
    region: &'a Region,
    /// How much longer than the shortest a packet may be: one that is even shorter counts as too long.
    excess_max: u16,
    short_excess_max: u16,
    len_min: u16,
}

impl<'a> Carrier<'a> {
    /// Carries from frames of `from` into frames of `to`, that `to` posted to receive into. Packets are at least `len_min` long and
    /// at most `len_max`, which fits into a frame behind [`HEADROOM`].
    #[inline(always)]
    pub(crate) fn new(from: &'a FramePool, to: &'a Region, len_min: u16, len_max: u16) -> Carrier<'a> {
        let (excess_max, short_excess_max) = (len_max - len_min, len_max.min(SHORT as u16) - len_min);
        Carrier { from: from.completions(), to: to.frames, region: to, len_min, excess_max, short_excess_max }
    }

    /// Writes a packet into a posted frame of the other region, and is done with its own. `false` if its length is wrong.
    #[inline(always)]
    pub(crate) fn carry(&mut self, packet: &Desc, posted: &mut Desc) -> bool {
        let is_short = packet.len.wrapping_sub(self.len_min) <= self.short_excess_max;
        if is_short
            && packet.head <= HEAD_MAX
            && let Some(frame) = self.from.usual(packet.index)
        {
            // SAFETY: so many bytes are inside the frame that was posted, whose only Desc is borrowed exclusively here, and inside
            // the packet's, which nobody writes while its Desc exists.
            unsafe {
                let to = self.to.at(posted.index).add(HEADROOM);
                core::ptr::copy_nonoverlapping(self.from.at(&frame).add(packet.head as usize), to, SHORT);
            }
            debug_assert_eq!(posted.head as usize, HEADROOM, "as it was posted");
            posted.len = packet.len;
            self.from.completed_usual(frame);
            return true;
        }
        if packet.len.wrapping_sub(self.len_min) > self.excess_max {
            return false;
        }
        carry_any(self.from.region(), packet, self.region, posted);
        self.from.completed(packet.index);
        true
    }
}

#[inline(never)]
fn carry_any(from: &Region, packet: &Desc, to: &Region, posted: &mut Desc) {
    let fits = to.write(posted, from.bytes(packet));
    assert!(fits, "the MTU was checked against the frame size");
}

/// Packets up to this length are copied with a few instructions, whatever their length: all that a TCP sends without payload.
const SHORT: usize = 96;
/// So many bytes behind this are inside the frame.
const HEAD_MAX: u16 = (FrameSize::Small.bytes() - SHORT) as u16;
const _: () = assert!(HEADROOM <= HEAD_MAX as usize);
