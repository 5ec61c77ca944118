//! A fixed pool of small records, each in one of a few queues: the ground of the tables whose records wait their turn.

use alloc::vec::Vec;

use handfast_drivers::prefetch::prefetch;

/// Up to `capacity` records of one cache line, in `N` first-in-first-out queues. A record can leave from anywhere.
///
/// Memory is reserved at construction and touched as records are first used.
#[derive(Debug)]
pub(super) struct Queues<R, const N: usize> {
    nodes: Vec<Node<R>>,
    ends: [Ends; N],
    /// Records that were removed, the last one first, chained by `next`.
    free: u32,
    len: u32,
    capacity: u32,
}

impl<R: Copy, const N: usize> Queues<R, N> {
    pub(super) fn with_capacity(capacity: u32) -> Self {
        const { assert!(size_of::<Node<R>>() == 64, "a record and its links fill one cache line") };
        assert!(capacity < FREE, "at most {FREE} records");
        let nodes = Vec::with_capacity(capacity as usize);
        Queues { nodes, ends: [Ends { first: END, last: END }; N], free: END, len: 0, capacity }
    }

    /// Stores a record, made once there is a place for it, at the end of a queue; `None` if all records are in use.
    #[inline(always)]
    pub(super) fn insert(&mut self, queue: usize, record: impl FnOnce() -> R) -> Option<u32> {
        let mut index = self.free;
        let prev = self.ends[queue].last;
        if let Some(node) = self.nodes.get_mut(index as usize) {
            self.free = node.next;
            *node = Node { record: record(), next: END, prev };
        } else {
            // There is none that was used before.
            index = self.nodes.len() as u32;
            if index == self.capacity || self.nodes.len() == self.nodes.capacity() {
                return None;
            }
            self.nodes.push(Node { record: record(), next: END, prev });
        }
        self.len += 1;
        self.appended(queue, prev, index);
        Some(index)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&R> {
        match self.nodes.get(index as usize) {
            Some(node) if node.prev != FREE => Some(&node.record),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut R> {
        match self.nodes.get_mut(index as usize) {
            Some(node) if node.prev != FREE => Some(&mut node.record),
            _ => None,
        }
    }

    /// Takes a record out. `queue` is the one that it is in.
    #[inline]
    pub(super) fn remove(&mut self, queue: usize, index: u32) -> Option<R> {
        let record = *self.get(index)?;
        self.discard(queue, index);
        Some(record)
    }

    /// Takes a record out that is there. `queue` is the one that it is in.
    #[inline(always)]
    pub(super) fn discard(&mut self, queue: usize, index: u32) {
        let node = &mut self.nodes[index as usize];
        let (prev, next) = (node.prev, node.next);
        (node.prev, node.next) = (FREE, self.free);
        self.unlinked(queue, prev, next);
        self.free = index;
        self.len -= 1;
    }

    /// Takes the records out that have waited longest in a queue, as long as `goes` says so of each.
    #[inline(always)]
    pub(super) fn discard_while(&mut self, queue: usize, mut goes: impl FnMut(u32, &R) -> bool) {
        let first = self.ends[queue].first;
        let (mut next, mut last, mut count) = (first, END, 0);
        while let Some(node) = self.nodes.get_mut(next as usize)
            && goes(next, &node.record)
        {
            node.prev = FREE;
            (last, next, count) = (next, node.next, count + 1);
        }
        // They are chained already.
        let Some(node) = self.nodes.get_mut(last as usize) else { return };
        node.next = self.free;
        self.free = first;
        self.len -= count;
        self.ends[queue].first = next;
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.prev = END,
            None => self.ends[queue].last = END,
        }
    }

    /// Moves a record from the queue that it is in to the end of another, or of the same.
    #[inline]
    pub(super) fn move_to_end(&mut self, from: usize, to: usize, index: u32) {
        let Node { prev, next, .. } = self.nodes[index as usize];
        self.unlinked(from, prev, next);
        let last = self.ends[to].last;
        let node = &mut self.nodes[index as usize];
        (node.prev, node.next) = (last, END);
        self.appended(to, last, index);
    }

    /// The record that has waited longest in a queue.
    #[inline]
    pub(super) fn first(&self, queue: usize) -> Option<(u32, &R)> {
        let first = self.ends[queue].first;
        self.nodes.get(first as usize).map(|node| (first, &node.record))
    }

    /// The records of a queue, in order.
    pub(super) fn iter(&self, queue: usize) -> impl Iterator<Item = (u32, &R)> {
        let mut next = self.ends[queue].first;
        core::iter::from_fn(move || {
            let (at, node) = (next, self.nodes.get(next as usize)?);
            next = node.next;
            Some((at, &node.record))
        })
    }

    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        if let Some(node) = self.nodes.get(index as usize) {
            prefetch(node);
        }
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A record that knows its neighbours now comes after `last` in a queue.
    #[inline(always)]
    fn appended(&mut self, queue: usize, last: u32, index: u32) {
        self.ends[queue].last = index;
        match self.nodes.get_mut(last as usize) {
            Some(node) => node.next = index,
            None => self.ends[queue].first = index,
        }
    }

    /// There is no record any more between these two of a queue.
    #[inline(always)]
    fn unlinked(&mut self, queue: usize, prev: u32, next: u32) {
        match self.nodes.get_mut(prev as usize) {
            Some(node) => node.next = next,
            None => self.ends[queue].first = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.prev = prev,
            None => self.ends[queue].last = prev,
        }
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Node<R> {
    record: R,
    next: u32,
    /// [`FREE`] in a record that is not in use.
    prev: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

const END: u32 = u32::MAX;
const FREE: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests;
