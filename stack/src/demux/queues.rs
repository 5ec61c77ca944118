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

    /// Stores a record at the end of a queue; `None` if all records are in use.
    #[inline]
    pub(super) fn insert(&mut self, queue: usize, record: R) -> Option<u32> {
        let mut index = self.free;
        if index != END {
            self.free = self.nodes[index as usize].next;
            self.nodes[index as usize].record = record;
        } else {
            index = self.nodes.len() as u32;
            if index == self.capacity {
                return None;
            }
            self.nodes.push(Node { record, next: END, prev: END });
        }
        self.len += 1;
        self.append(queue, index);
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
        self.unlink(queue, index);
        let node = &mut self.nodes[index as usize];
        (node.prev, node.next) = (FREE, self.free);
        self.free = index;
        self.len -= 1;
    }

    /// Takes the record out that has waited longest in a queue, if there is one.
    #[inline(always)]
    pub(super) fn discard_first(&mut self, queue: usize) {
        let index = self.ends[queue].first;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        let next = node.next;
        (node.prev, node.next) = (FREE, self.free);
        self.free = index;
        self.len -= 1;
        self.ends[queue].first = next;
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.prev = END,
            None => self.ends[queue].last = END,
        }
    }

    /// Moves a record from the queue that it is in to the end of another, or of the same.
    #[inline]
    pub(super) fn move_to_end(&mut self, from: usize, to: usize, index: u32) {
        self.unlink(from, index);
        self.append(to, index);
    }

    /// The record that has waited longest in a queue.
    #[inline]
    pub(super) fn first(&self, queue: usize) -> Option<(u32, &R)> {
        let first = self.ends[queue].first;
        self.nodes.get(first as usize).map(|node| (first, &node.record))
    }

    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        if let Some(node) = self.nodes.get(index as usize) {
            prefetch(node);
        }
    }

    /// Fetches the record that comes after this one in its queue.
    #[inline]
    pub(super) fn prefetch_next(&self, index: u32) {
        if let Some(node) = self.nodes.get(index as usize) {
            self.prefetch(node.next);
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

    #[inline]
    fn append(&mut self, queue: usize, index: u32) {
        let last = core::mem::replace(&mut self.ends[queue].last, index);
        let node = &mut self.nodes[index as usize];
        (node.prev, node.next) = (last, END);
        match last {
            END => self.ends[queue].first = index,
            last => self.nodes[last as usize].next = index,
        }
    }

    #[inline(always)]
    fn unlink(&mut self, queue: usize, index: u32) {
        let Node { next, prev, .. } = self.nodes[index as usize];
        match prev {
            END => self.ends[queue].first = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            END => self.ends[queue].last = prev,
            next => self.nodes[next as usize].prev = prev,
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
