//! Work on many bytes at once, where the processor has instructions that safe code cannot name.

/// Sixteen bytes that are compared at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(16))]
pub struct Bytes16(pub [u8; 16]);

/// Bit `i` is set if byte `i` of `bytes` is `byte`.
#[inline(always)]
pub fn matching_bytes(bytes: &Bytes16, byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of every x86_64; the sixteen bytes that are read are there, and aligned as their type says.
    unsafe {
        use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi32};
        let wanted = _mm_set1_epi32((u32::from(byte) * 0x0101_0101) as i32);
        _mm_movemask_epi8(_mm_cmpeq_epi8(wanted, _mm_load_si128((&raw const bytes.0).cast()))) as u32
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable(bytes, byte)
}

/// Some bits of sixteen bytes, and what they are to be.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    mask: Bytes16,
    bits: Bytes16,
}

impl Pattern {
    /// What all sixteen bytes are like.
    pub const ANY: Pattern = Pattern { mask: Bytes16([0; 16]), bits: Bytes16([0; 16]) };

    /// What no sixteen bytes are like.
    pub const NONE: Pattern = Pattern { mask: Bytes16([0; 16]), bits: Bytes16([1; 16]) };

    /// The bytes from `at` on are also to be these. Panics unless they are among the sixteen.
    pub const fn with(mut self, at: usize, bytes: &[u8]) -> Pattern {
        let mut nth = 0;
        while nth < bytes.len() {
            self = self.with_bits(at + nth, 0xff, bytes[nth]);
            nth += 1;
        }
        self
    }

    /// The bits of `mask` in the byte `at` are also to be as in `bits`. Panics unless that is among the sixteen.
    pub const fn with_bits(mut self, at: usize, mask: u8, bits: u8) -> Pattern {
        (self.mask.0[at], self.bits.0[at]) = (mask, mask & bits);
        self
    }
}

/// Whether each sixteen bytes are as their pattern says: one look at all of them.
#[inline(always)]
pub fn all_match<const N: usize>(bytes: [&[u8; 16]; N], patterns: [&Pattern; N]) -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of every x86_64; what is read are live references' sixteen bytes, aligned where the type says so.
    unsafe {
        use core::arch::x86_64::{__m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_load_si128};
        use core::arch::x86_64::{_mm_movemask_epi8, _mm_set1_epi8};
        #[repr(C, packed)]
        struct Anywhere(__m128i);
        let mut matching = _mm_set1_epi8(-1);
        for (bytes, Pattern { mask, bits }) in bytes.into_iter().zip(patterns) {
            // Or the compiler would take words that are read afterwards out of these sixteen bytes, which costs more than to read them.
            let Anywhere(bytes) = (&raw const *bytes).cast::<Anywhere>().read_volatile();
            let [mask, bits] = [mask, bits].map(|all| _mm_load_si128((&raw const all.0).cast()));
            matching = _mm_and_si128(matching, _mm_cmpeq_epi8(_mm_and_si128(bytes, mask), bits));
        }
        _mm_movemask_epi8(matching) == 0xffff
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable_match(bytes, patterns)
}

/// [`all_match`] with plain arithmetic.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_match<const N: usize>(bytes: [&[u8; 16]; N], patterns: [&Pattern; N]) -> bool {
    let word = |bytes: &[u8; 16]| u128::from_ne_bytes(*bytes);
    let differing =
        |(bytes, pattern): (&[u8; 16], &Pattern)| word(bytes) & word(&pattern.mask.0) ^ word(&pattern.bits.0);
    bytes.into_iter().zip(patterns).map(differing).fold(0, |all, differing| all | differing) == 0
}

/// The sum of the halves of all words, in the machine's byte order.
pub fn sum_halves(words: &[[u8; 8]]) -> u64 {
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2, as was just asked; the memory is only read, through a live reference.
        return unsafe { sum_halves_avx2(words) };
    }
    sum_halves_inline(words)
}

#[cfg(all(target_arch = "x86_64", feature = "std"))]
#[target_feature(enable = "avx2")]
fn sum_halves_avx2(words: &[[u8; 8]]) -> u64 {
    sum_halves_inline(words)
}

/// The compiler makes vectors of it. Whole words are added up, carries lost, and apart from that their upper halves: from the two
/// follows the sum of the lower halves, without taking words to pieces.
#[inline(always)]
fn sum_halves_inline(words: &[[u8; 8]]) -> u64 {
    let (mut whole, mut upper) = (0u64, 0u64);
    for &word in words {
        let word = u64::from_ne_bytes(word);
        whole = whole.wrapping_add(word);
        upper += word >> 32;
    }
    whole.wrapping_sub(upper << 32) + upper
}

/// [`matching_bytes`] with plain arithmetic.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(bytes: &Bytes16, byte: u8) -> u32 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mask = |word: u64| {
        let differing = word ^ u64::from_ne_bytes([byte; 8]);
        let zeros = !(((differing & LOW) + LOW) | differing | LOW);
        // The multiplication gathers the eighth bits of all bytes in the top byte.
        ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    };
    let [low, high] = bytes.0.as_chunks().0 else { unreachable!("sixteen bytes are twice eight") };
    mask(u64::from_le_bytes(*low)) | mask(u64::from_le_bytes(*high)) << 8
}

#[cfg(test)]
mod tests;
