//! Connections that wait for their turn in a stage.

use alloc::boxed::Box;
use alloc::vec;

/// A queue of up to `capacity` indices, first in, first out. Memory is reserved at construction and touched as it is used.
///
/// Whoever fills it sees to it that no index is in it twice, so that it never overflows: a bit in the record tells.
#[derive(Debug)]
pub struct Turns {
    /// A power of two.
    slots: Box<[u32]>,
    /// Both count on and wrap; their distance is the length.
    first: u32,
    end: u32,
}

impl Turns {
    /// Room for `capacity` indices, at most 2³¹.
    pub fn with_capacity(capacity: u32) -> Turns {
        Turns { slots: vec![0; capacity.next_power_of_two() as usize].into(), first: 0, end: 0 }
    }

    /// Puts an index behind all others.
    #[inline]
    pub fn push_back(&mut self, index: u32) {
        debug_assert!((self.len() as usize) < self.slots.len(), "an index is in the queue once");
        let at = self.place(self.end);
        self.slots[at] = index;
        self.end = self.end.wrapping_add(1);
    }

    /// Puts an index before all others.
    #[inline]
    pub fn push_front(&mut self, index: u32) {
        debug_assert!((self.len() as usize) < self.slots.len(), "an index is in the queue once");
        self.first = self.first.wrapping_sub(1);
        let at = self.place(self.first);
        self.slots[at] = index;
    }

    /// Takes the index that has waited longest.
    #[inline]
    pub fn pop_front(&mut self) -> Option<u32> {
        let index = self.get(0)?;
        self.first = self.first.wrapping_add(1);
        Some(index)
    }

    /// The index at place `at`, counted from the front.
    #[inline]
    pub fn get(&self, at: u32) -> Option<u32> {
        (at < self.len()).then(|| self.slots[self.place(self.first.wrapping_add(at))])
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> u32 {
        self.end.wrapping_sub(self.first)
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    #[inline]
    fn place(&self, count: u32) -> usize {
        count as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests;
