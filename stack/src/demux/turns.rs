//! Connections that wait for their turn in a stage.

use alloc::boxed::Box;
use alloc::vec;

/// A queue of up to `capacity` indices, first in, first out. Memory is reserved at construction and touched as it is used.
///
/// Whoever fills it sees to it that no index is in it twice, so that it never overflows: a bit in the record tells.
///
/// It lies in one piece: a stage takes all out as a rule, and then the next burst begins at the front again.
#[derive(Debug)]
pub struct Turns {
    /// Twice the capacity, so that what waits is rarely moved to the front.
    slots: Box<[u32]>,
    first: usize,
    end: usize,
}

impl Turns {
    /// Room for `capacity` indices.
    pub fn with_capacity(capacity: u32) -> Turns {
        Turns { slots: vec![0; 2 * capacity.max(1) as usize].into(), first: 0, end: 0 }
    }

    /// Puts an index behind all others.
    #[inline]
    pub fn push_back(&mut self, index: u32) {
        match self.slots.get_mut(self.end) {
            Some(slot) => {
                *slot = index;
                self.end += 1;
            }
            None => self.push_after_moving(index),
        }
    }

    /// What waits is at most half of all: so many can be pushed before this comes again.
    #[cold]
    fn push_after_moving(&mut self, index: u32) {
        self.slots.copy_within(self.first..self.end, 0);
        (self.first, self.end) = (0, self.end - self.first);
        self.slots[self.end] = index;
        self.end += 1;
    }

    /// Takes the index that has waited longest.
    #[inline]
    pub fn pop_front(&mut self) -> Option<u32> {
        if self.is_empty() {
            self.begin_anew();
            return None;
        }
        let index = *self.slots.get(self.first)?;
        self.first += 1;
        Some(index)
    }

    /// Whoever takes out a number of them, and so does not see that none is left, says so after it.
    #[inline]
    pub fn drained(&mut self) {
        if self.is_empty() {
            self.begin_anew();
        }
    }

    /// The memory that was used last is used next.
    #[inline]
    fn begin_anew(&mut self) {
        (self.first, self.end) = (0, 0);
    }

    /// Puts an index before all others: the one that was taken last, as a rule, whose place is still free.
    #[cold]
    pub fn put_back(&mut self, index: u32) {
        if self.first == 0 {
            self.slots.copy_within(..self.end, 1);
            (self.first, self.end) = (1, self.end + 1);
        }
        self.first -= 1;
        self.slots[self.first] = index;
    }

    /// The index at place `at`, counted from the front.
    #[inline]
    pub fn get(&self, at: usize) -> Option<u32> {
        self.slots[self.first..self.end].get(at).copied()
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.first
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }
}

#[cfg(test)]
mod tests;
