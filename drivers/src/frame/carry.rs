//! Packets from frames of one region into frames of another: what two cards and the cable between them do.

use super::{Desc, FramePool, FrameSize, HEADROOM, Region};
use crate::ring::Filler;

/// For the in-memory wire: carries packets that a pool sends into frames that `to` posted, and completes them. Begins with the
/// first and ends before one that is not usual: longer than a few headers or than `len_max`, shorter than `len_min`, not at
/// [`HEADROOM`], held, or of another worker's share. Says how many.
#[inline]
pub(crate) fn carry_usual(
    from: &FramePool,
    packets: &[Desc],
    to: &Region,
    posted: &mut Filler<Desc>,
    lens: (u16, u16),
) -> usize {
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: this processor has AVX, as was just asked.
        return unsafe { carry_usual_avx(from, packets, to, posted, lens) };
    }
    carry_usual_inline(from, packets, to, posted, lens)
}

/// With AVX a packet is copied by half as many instructions.
#[cfg(all(target_arch = "x86_64", feature = "std"))]
#[target_feature(enable = "avx")]
fn carry_usual_avx(
    from: &FramePool,
    packets: &[Desc],
    to: &Region,
    posted: &mut Filler<Desc>,
    lens: (u16, u16),
) -> usize {
    carry_usual_inline(from, packets, to, posted, lens)
}

#[inline(always)]
fn carry_usual_inline(
    from: &FramePool,
    packets: &[Desc],
    to: &Region,
    posted: &mut Filler<Desc>,
    (len_min, len_max): (u16, u16),
) -> usize {
    // How much longer than the shortest: what is shorter than that counts as too long.
    let excess_max = len_max.min(SHORT as u16) - len_min;
    let usual_min = head_and_len(HEADROOM as u16, len_min);
    let sent = from.sent();
    let carried = posted.fill_burst(packets, |posted, packet| {
        // Where the packet begins and how long it is, in one look: after the turn another place is a large number.
        let differs = head_and_len(packet.head, packet.len).wrapping_sub(usual_min).rotate_left(16);
        if differs > u32::from(excess_max) {
            return false;
        }
        let Some(frame) = sent.usual(packet.index) else { return false };
        // SAFETY: so many bytes are inside the frame that was posted, whose only Desc is borrowed exclusively here, and inside the
        // packet's, which nobody writes while its Desc exists.
        unsafe {
            let to = to.frames.at(posted.index).add(HEADROOM);
            core::ptr::copy_nonoverlapping(sent.at(&frame).add(HEADROOM), to, SHORT);
        }
        (posted.head, posted.len) = (packet.head, packet.len);
        sent.make_free(&frame);
        true
    });
    // SAFETY: these were just made free.
    unsafe { sent.list(&packets[..carried]) };
    carried
}

#[inline(always)]
fn head_and_len(head: u16, len: u16) -> u32 {
    u32::from(len) << 16 | u32::from(head)
}

/// Packets up to this length are copied with a few instructions, whatever their length: all that a TCP sends without payload.
const SHORT: usize = 96;
const _: () = assert!(HEADROOM + SHORT <= FrameSize::Small.bytes());
