//! Values that hashes are spread over: the memory of an index.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// Values, of which each hash has one: the hash is taken for a fraction of 2⁶⁴ of their number, so whatever it is, there is one.
///
/// All else is as for a slice.
#[derive(Debug)]
pub struct Spread<T> {
    /// One at least.
    values: Box<[T]>,
}

impl<T> Spread<T> {
    /// Hashes over these. Panics if there are none.
    pub fn over(values: Vec<T>) -> Spread<T> {
        assert!(!values.is_empty(), "there is one for each hash");
        Spread { values: values.into_boxed_slice() }
    }

    /// Which value is this hash's.
    #[inline(always)]
    pub fn place_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.values.len() as u128) >> 64) as usize
    }

    /// This hash's value.
    #[inline(always)]
    pub fn of(&self, hash: u64) -> &T {
        // SAFETY: a hash is less than 2⁶⁴, so its share of values that are not none is less than their number.
        unsafe { self.values.get_unchecked(self.place_of(hash)) }
    }

    /// This hash's value, to change.
    #[inline(always)]
    pub fn of_mut(&mut self, hash: u64) -> &mut T {
        let place = self.place_of(hash);
        // SAFETY: as in `of`.
        unsafe { self.values.get_unchecked_mut(place) }
    }
}

impl<T> Deref for Spread<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T> DerefMut for Spread<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests;
