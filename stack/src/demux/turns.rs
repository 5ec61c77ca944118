//! Connections that wait for their turn in a stage.

use alloc::boxed::Box;
use alloc::vec;

/// A queue of up to `capacity` indices, first in, first out. Memory is reserved at construction and touched as it is used.
///
/// Whoever fills it sees to it that no index is in it twice, so that it never overflows: a bit in the record tells.
///
/// A stage [walks](Turns::walk) over what waits, and what comes meanwhile waits behind: so each of its two parts is filled from the
/// front, and emptied without being written.
#[derive(Debug)]
pub struct Turns {
    /// Those whose turn comes first: what a walk has left.
    before: Walk,
    /// All that came since.
    behind: Box<[u32]>,
    behind_len: usize,
}

/// Those whose turn it is.
#[derive(Default, Debug)]
#[must_use = "the others wait for its end"]
pub struct Walk {
    slots: Box<[u32]>,
    first: usize,
    end: usize,
}

impl Walk {
    /// In the order of their turns.
    #[inline]
    pub fn indices(&self) -> &[u32] {
        &self.slots[self.first..self.end]
    }
}

impl Turns {
    /// Room for `capacity` indices.
    pub fn with_capacity(capacity: u32) -> Turns {
        let room = || vec![0; capacity.max(1) as usize].into();
        Turns { before: Walk { slots: room(), first: 0, end: 0 }, behind: room(), behind_len: 0 }
    }

    /// Puts an index behind all others.
    #[inline]
    pub fn push_back(&mut self, index: u32) {
        self.behind[self.behind_len] = index;
        self.behind_len += 1;
    }

    /// How many walks go over all that wait.
    #[inline]
    pub fn walks(&self) -> usize {
        usize::from(self.before.first != self.before.end) + usize::from(self.behind_len > 0)
    }

    /// Takes out those that wait, if none of them was left by the walk before; else takes out those first. Until its
    /// [end](Self::ended) there is no other walk.
    #[inline]
    pub fn walk(&mut self) -> Walk {
        if self.before.first == self.before.end {
            core::mem::swap(&mut self.before.slots, &mut self.behind);
            (self.before.first, self.before.end) = (0, core::mem::take(&mut self.behind_len));
        }
        core::mem::take(&mut self.before)
    }

    /// A walk has ended: all have had their turn.
    #[inline]
    pub fn ended(&mut self, walk: Walk) {
        self.before = Walk { first: walk.end, ..walk };
    }

    /// A walk has ended before this one had its turn: it is the first in the next.
    #[inline(never)]
    pub fn ended_before(&mut self, walk: Walk, index: u32) {
        let had = walk.indices().iter().position(|&at| at == index).unwrap_or(walk.indices().len());
        self.before = Walk { first: walk.first + had, ..walk };
    }

    /// The index at place `at`, counted from the front.
    #[inline]
    pub fn get(&self, at: usize) -> Option<u32> {
        let before = self.before.indices();
        let found = before.get(at).or_else(|| self.behind[..self.behind_len].get(at - before.len()));
        found.copied()
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.before.indices().len() + self.behind_len
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.walks() == 0
    }
}

#[cfg(test)]
mod tests;
