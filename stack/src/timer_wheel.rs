//! A hierarchical timer wheel: one deadline for each of a fixed set of ids, armed and cancelled in constant time.
//!
//! Four levels of 256 slots cover the 32-bit millisecond clock. An entry lies at the level of the highest byte in which
//! its deadline differs from the wheel's time, so lower levels always come due first and an idle gap of any length is
//! skipped through the bitmaps. When a slot of a higher level comes due, its whole list is set aside in one step and
//! filed anew a few entries at a time: a million deadlines that share a slot delay each other, not the packets.

use alloc::vec::Vec;

/// Deadlines of the ids `0..capacity`, at most one each.
///
/// Ticks are milliseconds of [`Instant::as_millis32`](crate::time::Instant::as_millis32) and wrap. A deadline may lie up
/// to 2³¹ − 1 ms (24 days) after the time last given to [`pop_expired`](TimerWheel::pop_expired); what seems to lie further
/// is past. So each turn first calls `pop_expired`, then arms.
#[derive(Debug)]
pub struct TimerWheel {
    /// The heads of all lists, then one node per id. Memory is reserved for all ids and touched as they are first armed.
    nodes: Vec<Node>,
    /// Which slots of each level have entries.
    occupied: [Bitmap; LEVELS],
    /// Everything that expires at or before this has left the slots.
    elapsed: u32,
    armed: u32,
    capacity: u32,
}

impl TimerWheel {
    /// A wheel for the ids `0..capacity` that starts at the time `now`.
    ///
    /// # Panics
    /// If `capacity` is so near to `u32::MAX` that the list heads do not fit beside it.
    pub fn new(capacity: u32, now: u32) -> TimerWheel {
        assert!(capacity <= CAPACITY_MAX, "at most {CAPACITY_MAX} timers");
        let mut nodes = Vec::with_capacity(capacity as usize + HEADS as usize);
        nodes.extend((0..HEADS).map(|head| Node { next: head, prev: head, deadline: 0 }));
        TimerWheel { nodes, occupied: [[0; 4]; LEVELS], elapsed: now, armed: 0, capacity }
    }

    /// Lets `id` expire at `deadline`, and no more at the deadline it may have had.
    ///
    /// # Panics
    /// If `id` is not below the capacity.
    #[inline]
    pub fn arm(&mut self, id: u32, deadline: u32) {
        let node = self.node_of(id);
        if self.nodes[node as usize].next != NONE {
            self.unlink(node);
        } else {
            self.armed += 1;
        }
        self.nodes[node as usize].deadline = deadline;
        self.file(node, deadline);
    }

    /// Lets `id` expire at `deadline` at the latest: an earlier deadline that it has stays. Says which it has now.
    #[inline(always)]
    pub fn arm_by(&mut self, id: u32, deadline: u32) -> u32 {
        match self.deadline(id) {
            Some(earlier) if deadline.wrapping_sub(earlier) as i32 >= 0 => earlier,
            _ => self.arm_anew(id, deadline),
        }
    }

    #[inline(never)]
    fn arm_anew(&mut self, id: u32, deadline: u32) -> u32 {
        self.arm(id, deadline);
        deadline
    }

    /// Takes back the deadline of `id`. Whether there was one.
    #[inline]
    pub fn cancel(&mut self, id: u32) -> bool {
        let armed = self.is_armed(id);
        if armed {
            let node = id + HEADS;
            self.unlink(node);
            self.nodes[node as usize].next = NONE;
            self.armed -= 1;
        }
        armed
    }

    /// Whether `id` has a deadline that has not yet been popped.
    #[inline]
    pub fn is_armed(&self, id: u32) -> bool {
        self.deadline(id).is_some()
    }

    /// The deadline of `id`.
    #[inline]
    pub fn deadline(&self, id: u32) -> Option<u32> {
        self.nodes.get(id as usize + HEADS as usize).filter(|n| n.next != NONE).map(|n| n.deadline)
    }

    /// How many ids are armed.
    pub fn len(&self) -> u32 {
        self.armed
    }

    /// Whether no id is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Disarms and returns one id whose deadline is at or before `now`; `None` when there are no more for this turn.
    ///
    /// Never early. Late only if more than [`REFILED_PER_CALL_MAX`] deadlines share the range of one slot: then `None` may
    /// come while some still wait to be filed, and [`next_deadline`](TimerWheel::next_deadline) says that work is left.
    #[inline]
    pub fn pop_expired(&mut self, now: u32) -> Option<u32> {
        while let Some((level, slot)) = self.next_slot() {
            let start = self.slot_start(level, slot);
            if is_after(start, now) {
                break;
            }
            self.elapsed = start;
            self.open(level, slot);
        }
        // With nothing armed the gap may be of any length, and a clock that seems to step back has wrapped.
        if is_after(now, self.elapsed) || self.armed == 0 {
            self.elapsed = now;
        }
        if self.has_opened() { self.pop_opened(now) } else { None }
    }

    /// A lower bound of the earliest deadline, exact if that is within the current 256 ms; `None` if nothing is armed.
    /// Not after the time of the last `pop_expired` if there is work for it to do now.
    #[inline]
    pub fn next_deadline(&self) -> Option<u32> {
        if self.has_opened() {
            return Some(self.elapsed);
        }
        self.next_slot().map(|(level, slot)| self.slot_start(level, slot))
    }

    /// Whether any entry has left its slot and is still armed.
    #[inline]
    fn has_opened(&self) -> bool {
        (DUE..HEADS).any(|list| self.nodes[list as usize].next != list)
    }

    /// Pops from the lists that were set aside, the nearest level first, and files what is not yet due.
    fn pop_opened(&mut self, now: u32) -> Option<u32> {
        let mut budget = REFILED_PER_CALL_MAX;
        for list in DUE..HEADS {
            loop {
                let node = self.nodes[list as usize].next;
                if node == list {
                    break;
                }
                let deadline = self.nodes[node as usize].deadline;
                self.unlink(node);
                if list == DUE || !is_after(deadline, now) {
                    self.nodes[node as usize].next = NONE;
                    self.armed -= 1;
                    return Some(node - HEADS);
                }
                self.file(node, deadline);
                budget -= 1;
                if budget == 0 {
                    return None;
                }
            }
        }
        None
    }

    /// Puts an unlinked node where its deadline belongs.
    #[inline]
    fn file(&mut self, node: u32, deadline: u32) {
        let list = if is_after(deadline, self.elapsed) {
            let level = ((deadline ^ self.elapsed).ilog2() / SLOT_BITS) as usize;
            let slot = slot_of(level, deadline);
            self.occupied[level][slot / 64] |= 1 << (slot % 64);
            head(level, slot)
        } else {
            DUE
        };
        self.splice_before(list, node, node);
    }

    /// Moves a whole slot to the end of its level's list of opened entries. Those of the lowest level are due.
    #[inline]
    fn open(&mut self, level: usize, slot: usize) {
        self.occupied[level][slot / 64] &= !(1 << (slot % 64));
        let slot_head = head(level, slot);
        let Node { next: first, prev: last, .. } = self.nodes[slot_head as usize];
        self.nodes[slot_head as usize] = Node { next: slot_head, prev: slot_head, deadline: 0 };
        self.splice_before(DUE + level as u32, first, last);
    }

    /// Links the chain `first..=last` before `list`'s head, which is the end of the list.
    #[inline]
    fn splice_before(&mut self, list: u32, first: u32, last: u32) {
        let before = core::mem::replace(&mut self.nodes[list as usize].prev, last);
        self.nodes[before as usize].next = first;
        self.nodes[first as usize].prev = before;
        self.nodes[last as usize].next = list;
    }

    /// Takes a node out of whichever list it is in.
    #[inline]
    fn unlink(&mut self, node: u32) {
        let Node { next, prev, .. } = self.nodes[node as usize];
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        // Neighbours that are one and the same are the head of a list that is now empty.
        if next == prev && next < DUE {
            let (level, slot) = (next as usize / SLOTS, next as usize % SLOTS);
            self.occupied[level][slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// The node of `id`, made now if it was never armed.
    #[inline]
    fn node_of(&mut self, id: u32) -> u32 {
        assert!(id < self.capacity, "timer {id} of {}", self.capacity);
        let node = id + HEADS;
        if node as usize >= self.nodes.len() {
            self.grow(node);
        }
        node
    }

    /// Touches the reserved memory as far as `node`.
    #[cold]
    fn grow(&mut self, node: u32) {
        self.nodes.resize(node as usize + 1, Node { next: NONE, prev: NONE, deadline: 0 });
    }

    /// The occupied slot that comes due first.
    #[inline]
    fn next_slot(&self) -> Option<(usize, usize)> {
        for (level, bitmap) in self.occupied.iter().enumerate() {
            if *bitmap == [0; 4] {
                continue;
            }
            // Below the top level all entries share the higher bytes of `elapsed`, so none lies before it. The top one is a ring.
            let current = slot_of(level, self.elapsed);
            return first_from(bitmap, current).or_else(|| first_from(bitmap, 0)).map(|slot| (level, slot));
        }
        None
    }

    /// The first millisecond of a slot that is ahead of `elapsed`.
    #[inline]
    fn slot_start(&self, level: usize, slot: usize) -> u32 {
        let shift = level as u32 * SLOT_BITS;
        let higher = (u64::from(self.elapsed) >> (shift + SLOT_BITS) << (shift + SLOT_BITS)) as u32;
        higher | (slot as u32) << shift
    }
}

/// The most entries that one call of [`TimerWheel::pop_expired`] moves from a coarse slot to finer ones.
pub const REFILED_PER_CALL_MAX: u32 = 256;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// [`NONE`] in a node that is in no list.
    next: u32,
    prev: u32,
    deadline: u32,
}

type Bitmap = [u64; SLOTS / 64];

const LEVELS: usize = 4;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
/// The list of what is due, followed by one list for each higher level of what left its slot and must be filed anew.
const DUE: u32 = (LEVELS * SLOTS) as u32;
const HEADS: u32 = DUE + LEVELS as u32;
const NONE: u32 = u32::MAX;
const CAPACITY_MAX: u32 = NONE - HEADS;

#[inline]
const fn head(level: usize, slot: usize) -> u32 {
    (level * SLOTS + slot) as u32
}

#[inline]
const fn slot_of(level: usize, tick: u32) -> usize {
    (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS
}

#[inline]
const fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The first set bit at or after `from`.
#[inline]
fn first_from(bitmap: &Bitmap, from: usize) -> Option<usize> {
    let mut word = from / 64;
    let mut bits = bitmap[word] & (u64::MAX << (from % 64));
    loop {
        if bits != 0 {
            return Some(word * 64 + bits.trailing_zeros() as usize);
        }
        word += 1;
        bits = *bitmap.get(word)?;
    }
}

#[cfg(test)]
mod tests;
