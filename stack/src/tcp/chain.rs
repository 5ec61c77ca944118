//! Queues of frames: a [`Store`] holds the frames of all connections of a core, a [`Chain`] is one connection's list in it.
//!
//! The store has one slot per frame of the region, so a chain needs no memory of its own: eight bytes, head and tail. Each
//! element carries the sequence number at which its payload begins.

use alloc::vec::Vec;

use crate::wire::tcp::Seq;

/// A list of frames in a [`Store`]. Whoever drops it must have emptied it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chain {
    head: u32,
    tail: u32,
}

/// No element.
pub const NIL: u32 = u32::MAX;

impl Chain {
    /// A list of nothing.
    pub const EMPTY: Chain = Chain { head: NIL, tail: NIL };

    /// Nothing in it.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Its first element, or [`NIL`].
    #[inline]
    pub const fn head(&self) -> u32 {
        self.head
    }

    /// Its last element, or [`NIL`].
    #[inline]
    pub const fn tail(&self) -> u32 {
        self.tail
    }
}

/// The elements of all chains, indexed by frame number.
#[derive(Debug)]
pub struct Store<T, N> {
    slots: Vec<Slot<T, N>>,
}

/// An element: a frame, where its payload begins, and what its owner notes about it.
#[derive(Debug)]
pub struct Slot<T, N> {
    item: Option<T>,
    next: u32,
    /// Sequence number of the payload's first byte.
    pub seq: Seq,
    /// What the owner of the chain notes.
    pub note: N,
}

impl<T, N: Default> Store<T, N> {
    /// A store for frames numbered below `frames`.
    pub fn new(frames: u32) -> Store<T, N> {
        let slot = || Slot { item: None, next: NIL, seq: Seq(0), note: N::default() };
        Store { slots: (0..frames).map(|_| slot()).collect() }
    }

    /// Appends frame number `at`.
    #[inline]
    pub fn push_back(&mut self, chain: &mut Chain, at: u32, item: T, seq: Seq) {
        self.insert_after(chain, chain.tail, at, item, seq);
    }

    /// Inserts frame number `at` behind element `prev`, or as the first one where that is [`NIL`].
    #[inline]
    pub fn insert_after(&mut self, chain: &mut Chain, prev: u32, at: u32, item: T, seq: Seq) {
        let next = if prev == NIL { chain.head } else { self.slots[prev as usize].next };
        let slot = &mut self.slots[at as usize];
        debug_assert!(slot.item.is_none(), "a frame is in one chain");
        *slot = Slot { item: Some(item), next, seq, note: N::default() };
        match prev {
            NIL => chain.head = at,
            _ => self.slots[prev as usize].next = at,
        }
        if next == NIL {
            chain.tail = at;
        }
    }

    /// Takes the first element out.
    #[inline]
    pub fn pop_front(&mut self, chain: &mut Chain) -> Option<(T, Seq)> {
        if chain.head == NIL {
            return None;
        }
        let slot = &mut self.slots[chain.head as usize];
        let item = slot.item.take();
        (chain.head, slot.next) = (slot.next, NIL);
        if chain.head == NIL {
            chain.tail = NIL;
        }
        item.map(|item| (item, slot.seq))
    }

    /// Takes out the element behind `prev` (the first one where that is [`NIL`]).
    pub fn remove_after(&mut self, chain: &mut Chain, prev: u32) -> Option<(T, Seq)> {
        if prev == NIL {
            return self.pop_front(chain);
        }
        let at = self.slots[prev as usize].next;
        if at == NIL {
            return None;
        }
        let slot = &mut self.slots[at as usize];
        let (item, next, seq) = (slot.item.take(), slot.next, slot.seq);
        slot.next = NIL;
        self.slots[prev as usize].next = next;
        if chain.tail == at {
            chain.tail = prev;
        }
        item.map(|item| (item, seq))
    }

    /// Drops every element: the frames are free.
    pub fn clear(&mut self, chain: &mut Chain) {
        while self.pop_front(chain).is_some() {}
    }

    /// The element behind `at`, or [`NIL`].
    #[inline]
    pub fn next(&self, at: u32) -> u32 {
        self.slots[at as usize].next
    }

    /// An element; `None` for [`NIL`].
    #[inline]
    pub fn get(&self, at: u32) -> Option<(&T, &Slot<T, N>)> {
        let slot = self.slots.get(at as usize)?;
        slot.item.as_ref().map(|item| (item, slot))
    }

    /// An element to be changed, its position and note; `None` for [`NIL`].
    #[inline]
    pub fn get_mut(&mut self, at: u32) -> Option<(&mut T, &mut Seq, &mut N)> {
        let slot = self.slots.get_mut(at as usize)?;
        slot.item.as_mut().map(|item| (item, &mut slot.seq, &mut slot.note))
    }

    /// The elements of `chain` in order, with their numbers.
    pub fn iter<'a>(&'a self, chain: &Chain) -> impl Iterator<Item = (u32, &'a T, &'a Slot<T, N>)> + 'a {
        let mut at = chain.head;
        core::iter::from_fn(move || {
            let (item, slot) = self.get(at)?;
            let here = at;
            at = slot.next;
            Some((here, item, slot))
        })
    }
}

#[cfg(test)]
mod tests;
