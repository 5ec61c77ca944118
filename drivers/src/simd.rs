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
