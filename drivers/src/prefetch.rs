//! Asks the processor to bring memory closer before it is needed. A hint: it changes no value.

/// Prefetches the cache line of `value` into the first-level cache.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and never changes memory, whatever the address; this one is a live reference's.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>((value as *const T).cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Prefetches the cache line where the value at `nth` begins; if there is none, the hint is lost.
#[inline(always)]
pub fn prefetch_nth<T>(values: &[T], nth: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above; the address need not be that of a value.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
            values.as_ptr().wrapping_add(nth).cast(),
        )
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, nth);
}

/// Prefetches every cache line of the value at `nth`, which begins with one; if there is none, the hint is lost.
#[inline(always)]
pub fn prefetch_all_of_nth<T>(values: &[T], nth: usize) {
    #[cfg(target_arch = "x86_64")]
    // The first line last: there it meets what values of one line do.
    for line in (0..size_of::<T>().div_ceil(CACHE_LINE)).rev() {
        let line = values.as_ptr().wrapping_add(nth).cast::<u8>().wrapping_add(line * CACHE_LINE);
        // SAFETY: as above.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, nth);
}

#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;
