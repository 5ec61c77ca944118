//! The index of all flows: hash of the flow key to the record that owns the flow, whatever its life stage.

use alloc::vec;
use alloc::vec::Vec;

use handfast_drivers::prefetch::prefetch;
use handfast_drivers::simd::matching_bytes;

/// Who owns a flow: a record of one of the life stages' tables, by its index there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A connection with a full record.
    Conn(u32),
    /// A half-open connection.
    SynRcvd(u32),
    /// A connection in TIME-WAIT.
    TimeWait(u32),
}

/// Hash of the flow key to owner. The keys are in the records.
///
/// A bucket is one cache line: twelve owners, each with eight bits of its hash. What does not fit goes to the next bucket,
/// and each bucket counts what went past it: a search ends where that count is zero, and a removal takes its own part
/// back. So a removal leaves no trace, and the index, whose size is fixed from the start, never has to be hashed anew.
#[derive(Debug)]
pub struct Flows {
    buckets: Vec<Bucket>,
    len: usize,
    limit: usize,
}

impl Flows {
    /// An index for up to `limit` flows: 8 bytes a flow.
    pub fn with_capacity(limit: u32) -> Flows {
        let limit = limit as usize;
        Flows { buckets: vec![Bucket::EMPTY; limit.div_ceil(FLOWS_PER_BUCKET).max(1)], len: 0, limit }
    }

    /// Asks the processor to fetch the bucket of this hash: the first step of a burst's search.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// The likely owner of this hash, unverified: its record is what to prefetch before [`find`](Flows::find) compares keys.
    /// At the limit wrong for one flow in eight, or `None`; `None` for most flows that are not here.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<Owner> {
        let bucket = &self.buckets[self.home(hash)];
        // What is found behind the tags, or not at all, is no slot.
        let slot = matching_bytes(bucket.tags, tag(hash)).trailing_zeros() as usize;
        bucket.owners.get(slot).map(|packed| Owner::unpack(*packed))
    }

    /// Whether a flow with this hash may be here: `false` for most that are not.
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        let bucket = &self.buckets[self.home(hash)];
        bucket.slots_with(tag(hash)).next().is_some() || bucket.tags[1] >= WENT_PAST_ONE
    }

    /// The owner with this hash for which `eq` finds the flow's key in its record.
    #[inline]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(Owner) -> bool) -> Option<Owner> {
        let (at, slot) = self.position(hash, |packed| eq(Owner::unpack(packed)))?;
        Some(Owner::unpack(self.buckets[at].owners[slot]))
    }

    /// Adds a flow that is not in the index. `false`, and nothing done, if the index is at its limit.
    #[inline]
    #[must_use]
    pub fn insert(&mut self, hash: u64, owner: Owner) -> bool {
        if self.len >= self.limit {
            return false;
        }
        let mut at = self.home(hash);
        loop {
            // There are more slots than the limit allows flows, so this ends.
            let bucket = &mut self.buckets[at];
            if let Some(slot) = bucket.slots_with(VACANT).next() {
                bucket.tags[slot / 8] |= u64::from(tag(hash)) << (slot % 8 * 8);
                bucket.owners[slot] = owner.pack();
                self.len += 1;
                return true;
            }
            bucket.tags[1] += WENT_PAST_ONE;
            at = self.after(at);
        }
    }

    /// Hands a flow over to its record in another life stage, in place. Whether `from` was there.
    #[inline]
    pub fn replace(&mut self, hash: u64, from: Owner, to: Owner) -> bool {
        let found = self.position(hash, |packed| packed == from.pack());
        if let Some((at, slot)) = found {
            self.buckets[at].owners[slot] = to.pack();
        }
        found.is_some()
    }

    /// Forgets a flow. Whether it was there.
    #[inline]
    pub fn remove(&mut self, hash: u64, owner: Owner) -> bool {
        let Some((found, slot)) = self.position(hash, |packed| packed == owner.pack()) else { return false };
        self.buckets[found].tags[slot / 8] &= !(0xff << (slot % 8 * 8));
        self.len -= 1;
        let mut at = self.home(hash);
        while at != found {
            self.buckets[at].tags[1] -= WENT_PAST_ONE;
            at = self.after(at);
        }
        true
    }

    /// How many flows there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there may be.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.limit
    }

    /// Bucket and slot of the entry with this hash that `eq` accepts.
    #[inline]
    fn position(&self, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let home = self.home(hash);
        let bucket = &self.buckets[home];
        if let Some(slot) = bucket.slots_with(tag(hash)).find(|slot| eq(bucket.owners[*slot])) {
            return Some((home, slot));
        }
        if bucket.tags[1] < WENT_PAST_ONE { None } else { self.position_beyond(home, hash, eq) }
    }

    #[inline(never)]
    fn position_beyond(&self, home: usize, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let mut at = home;
        for _ in 1..self.buckets.len() {
            at = self.after(at);
            let bucket = &self.buckets[at];
            if let Some(slot) = bucket.slots_with(tag(hash)).find(|slot| eq(bucket.owners[*slot])) {
                return Some((at, slot));
            }
            if bucket.tags[1] < WENT_PAST_ONE {
                break;
            }
        }
        None
    }

    /// The bucket that a flow goes to first: the hash, as a fraction of 2⁶⁴, of the number of buckets.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }
}

impl Owner {
    /// Records that one table can have, so that an index leaves room for the stage.
    pub const INDEX_LIMIT: u32 = 1 << INDEX_BITS;

    #[inline]
    const fn pack(self) -> u32 {
        let (stage, index) = match self {
            Owner::Conn(index) => (0, index),
            Owner::SynRcvd(index) => (1, index),
            Owner::TimeWait(index) => (2, index),
        };
        debug_assert!(index < Owner::INDEX_LIMIT);
        stage << INDEX_BITS | index
    }

    #[inline]
    const fn unpack(packed: u32) -> Owner {
        let index = packed & (Owner::INDEX_LIMIT - 1);
        match packed >> INDEX_BITS {
            0 => Owner::Conn(index),
            1 => Owner::SynRcvd(index),
            _ => Owner::TimeWait(index),
        }
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// Twelve bytes of hash, [`VACANT`] in an empty slot; the last four bytes count the flows that went past.
    tags: [u64; 2],
    owners: [u32; SLOTS],
}

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: [0; 2], owners: [0; SLOTS] };

    /// The slots that carry this tag.
    #[inline]
    fn slots_with(&self, tag: u8) -> impl Iterator<Item = usize> + use<> {
        let mut left = matching_bytes(self.tags, tag) & ((1 << SLOTS) - 1);
        core::iter::from_fn(move || {
            let slot = left.trailing_zeros() as usize;
            let found = left != 0;
            left &= left.wrapping_sub(1);
            found.then_some(slot)
        })
    }
}

#[inline]
const fn tag(hash: u64) -> u8 {
    // The bucket comes from the top of the hash, this from the bottom.
    let tag = hash as u8;
    if tag == VACANT { 1 } else { tag }
}

const INDEX_BITS: u32 = 30;
const SLOTS: usize = 12;
/// At the limit two thirds of the slots are used; after long churn one flow in ten is then not in its first bucket.
const FLOWS_PER_BUCKET: usize = 8;
const VACANT: u8 = 0;
const WENT_PAST_ONE: u64 = 1 << 32;

const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests;
