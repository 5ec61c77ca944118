//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use handfast_drivers::simd;

use super::address::Address;
use super::{at, ipv4, tcp};

/// An unfinished ones' complement sum. Sums of parts add up as long as every part but the last has an even length.
///
/// It is kept in the machine's own byte order and unfolded: RFC 1071 §2 (B) shows that the order can be put right at the end.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// Ones' complement addition: a carry out of the top comes back in at the bottom.
    #[inline]
    const fn plus(self, more: u64) -> Sum {
        let (sum, carry) = self.0.overflowing_add(more);
        Sum(sum + carry as u64)
    }

    /// Adds 16-bit words that lie one after another in the packet.
    #[inline]
    pub const fn add(self, word: u16) -> Sum {
        self.plus(word.to_be() as u64)
    }

    /// The sum, folded to the 16 bits that a big-endian field holds; not complemented.
    #[inline]
    pub const fn fold(self) -> u16 {
        let (sum, carry) = (self.0 as u32).overflowing_add((self.0 >> 32) as u32);
        let sum = sum + carry as u32;
        // Each half is added to the other: the lower one's carry is what the upper one loses at its top.
        let sum = (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16;
        u16::from_be(sum)
    }
}

/// `initial` plus the sum of `bytes`, which are padded with a zero byte if their number is odd.
#[inline(always)]
pub fn sum(initial: Sum, bytes: &[u8]) -> Sum {
    // No lengths are more frequent than those of a TCP header with timestamps, and of that of a SYN.
    if let Some(header) = bytes.as_array::<32>() {
        return sum_array(initial, header);
    }
    if let Some(header) = bytes.as_array::<40>() {
        return sum_array(initial, header);
    }
    if bytes.len() < LONG { sum_short(initial, bytes) } else { sum_long(initial, bytes) }
}

/// Headers: eight bytes at a time, the carry handed on from one word to the next.
fn sum_short(initial: Sum, bytes: &[u8]) -> Sum {
    let (blocks, rest) = bytes.as_chunks::<32>();
    sum_rest(blocks.iter().fold(initial, sum_array), rest)
}

/// The end of what is summed: less than 32 bytes.
#[inline(always)]
fn sum_rest(initial: Sum, bytes: &[u8]) -> Sum {
    let (words, mut rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(initial, |sum, &word| sum.plus(u64::from_ne_bytes(word)));
    let mut last = 0;
    if let Some((&word, after)) = rest.split_first_chunk() {
        (last, rest) = (u64::from(u32::from_ne_bytes(word)), after);
    }
    if let Some((&word, after)) = rest.split_first_chunk() {
        (last, rest) = (last + u64::from(u16::from_ne_bytes(word)), after);
    }
    if let &[byte] = rest {
        last += u64::from(u16::from_ne_bytes([byte, 0]));
    }
    sum.plus(last)
}

/// Payload, with the processor's vectors.
#[inline(never)]
fn sum_long(initial: Sum, bytes: &[u8]) -> Sum {
    let (words, rest) = bytes.as_chunks();
    sum_rest(initial.plus(simd::sum_halves(words)), rest)
}

/// [`sum`] for the few bytes of a header whose length the compiler knows.
#[inline(always)]
pub fn sum_array<const N: usize>(initial: Sum, bytes: &[u8; N]) -> Sum {
    const { assert!(N.is_multiple_of(4)) };
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut sum, mut carry) = (initial.0, false);
    for &word in words {
        (sum, carry) = sum.carrying_add(u64::from_ne_bytes(word), carry);
    }
    if let Some(&last) = rest.first_chunk() {
        (sum, carry) = sum.carrying_add(u64::from(u32::from_ne_bytes(last)), carry);
    }
    // No overflow: a sum that has carried is not at the top.
    Sum(sum + u64::from(carry))
}

/// The sum of what was read as whole words.
#[inline(always)]
pub fn sum_words<const N: usize>(words: [u64; N]) -> Sum {
    let (mut sum, mut carry) = (0u64, false);
    for word in words {
        (sum, carry) = sum.carrying_add(word, carry);
    }
    // No overflow: a sum that has carried is not at the top.
    Sum(sum + u64::from(carry))
}

/// [`sum_words`] and less than 0xffff, which the compiler knows. One that comes out too large for a word, as next to none does, is not
/// valid: what is left of it is less than 0xffff, and no multiple of that but 0.
#[inline(always)]
pub fn sum_words_and<const N: usize>(words: [u64; N], known: u64) -> Sum {
    debug_assert!(known < 0xffff, "what is left is less");
    let (mut sum, mut carry) = (0u64, false);
    for word in words {
        (sum, carry) = sum.carrying_add(word, carry);
    }
    Sum(sum.carrying_add(known, carry).0)
}

/// Adds words of a header in host order to a sum that is `small`: below about 2^33, or of some such words, so that it stays far below
/// 2^64 and no carry has to be looked for.
#[inline(always)]
pub fn plus_words<const N: usize>(small: Sum, words: [u32; N]) -> Sum {
    Sum(words.into_iter().fold(small.0, |sum, word| sum + u64::from(word.to_be())))
}

/// Adds pairs of words of a header in host order, the first in the upper half.
#[inline(always)]
pub fn plus_pairs<const N: usize>(initial: Sum, pairs: [u64; N]) -> Sum {
    pairs.into_iter().fold(initial, |sum, pair| sum.plus(pair.to_be()))
}

/// The checksum field that goes with `sum`.
#[inline]
pub const fn finish(sum: Sum) -> u16 {
    !sum.fold()
}

/// [`finish`] of a sum that is not 0, such as that of a header. Then the field is what is left of `−sum` by 0xffff.
#[inline(always)]
pub const fn finish_header(sum: Sum) -> u16 {
    debug_assert!(sum.0 != 0, "nothing but zeros has another checksum");
    // 0xffff · ONES is 2⁶⁴ − 1: times −ONES, a sum is the fraction in 2⁻⁶⁴ of −sum / 0xffff, and too much by sum / 0xffff of those.
    // Times 0xffff that is less than one.
    let fraction = sum.0.wrapping_mul(ONES.wrapping_neg());
    u16::from_be(((fraction as u128 * 0xffff) >> 64) as u16)
}

/// Whether a sum that included its checksum field says that the bytes are as they were sent.
#[inline]
pub const fn is_valid(sum: Sum) -> bool {
    Demand::new(true).is_met(sum)
}

/// What is asked of sums: to be valid, or, where a device has looked at them already, nothing.
///
/// Numbers of a word's size: where this lies in memory an instruction finds them, and where they are constants another has to bring each.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// [`ONES`].
    factor: u64,
    /// The least product of a sum and that.
    product_min: u64,
}

impl Demand {
    /// To be valid, or nothing.
    #[inline]
    pub const fn new(verify: bool) -> Demand {
        // Folding gives 0xffff for its multiples, but for 0. Times 0xffff, ONES is −1: the multiples alone come out as −1 to −ONES.
        Demand { factor: ONES, product_min: if verify { ONES.wrapping_neg() } else { 0 } }
    }

    /// Whether a sum that included its checksum field is good enough.
    #[inline]
    pub const fn is_met(&self, sum: Sum) -> bool {
        sum.0.wrapping_mul(self.factor) >= self.product_min
    }
}

/// The sum of the pseudo header: RFC 9293 §3.1 for IPv4, RFC 8200 §8.1 for IPv6. It is small: a header's words are added with no
/// carry.
///
/// One sum serves both: a v4-mapped address has 0xffff before its four octets, which is zero in ones' complement, and the
/// two layouts differ in zero bytes only.
#[inline]
pub fn pseudo_header(src: &Address, dst: &Address, protocol: u8, len: u32) -> Sum {
    let Sum(sum) = sum_array(sum_array(Sum::ZERO, &src.octets()), &dst.octets());
    let small = (sum & u64::from(u32::MAX)) + (sum >> 32);
    Sum(small + u64::from(len.to_be()) + u64::from(u16::from(protocol).to_be()))
}

/// [`pseudo_header`] between two IPv4 addresses.
#[inline]
pub fn pseudo_header_v4(src: &Address, dst: &Address, protocol: u8, len: u32) -> Sum {
    // The length of an IPv4 packet has 16 bits: one word holds it and the protocol.
    Sum(addresses_v4(src, dst).0 + u64::from((len << 16 | u32::from(protocol)).to_be()))
}

/// The sum of two IPv4 addresses: part of the IP header's and of the pseudo header's.
#[inline(always)]
pub fn addresses_v4(src: &Address, dst: &Address) -> Sum {
    let word = |address: &Address| u64::from(u32::from_ne_bytes(address.as_v4()));
    Sum(word(src) + word(dst))
}

/// The sum of TCP's pseudo header, out of the IPv4 header without options that it repeats.
#[inline(always)]
pub fn pseudo_header_inside(ip: &[u8; ipv4::HEADER_LEN]) -> Sum {
    let [src, dst] = [12, 16].map(|place| u64::from(u32::from_ne_bytes(at(ip, place))));
    // The segment is as much shorter than the packet as the header is long: its complement is taken away by being added.
    const REST: u64 = (tcp::PROTOCOL as u16).to_be() as u64 + (!(ipv4::HEADER_LEN as u16)).to_be() as u64;
    Sum(src + dst + u64::from(u16::from_ne_bytes(at(ip, 2))) + REST)
}

/// The checksum after one word under it changed (RFC 1624, equation 3).
#[inline]
pub const fn update(checksum: u16, old_word: u16, new_word: u16) -> u16 {
    finish(Sum::ZERO.add(!checksum).add(!old_word).add(new_word))
}

const ONES: u64 = 0x0001_0001_0001_0001;
/// From so many bytes on the vectors pay.
const LONG: usize = 256;

#[cfg(test)]
mod tests;
