//! The index of all flows: hash of the flow key to the record that owns the flow, whatever its life stage.

use alloc::vec;

use handfast_drivers::prefetch::prefetch_nth;
use handfast_drivers::simd::{Bytes16, matching_bytes};
use handfast_drivers::spread::Spread;

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

/// Who may own a flow.
#[derive(Clone, Copy, Default, Debug)]
pub struct Guess(u32);

impl Guess {
    /// Nobody was found: it names a record that is not there.
    pub const NOBODY: Guess = Guess(u32::MAX);

    /// The owner, if it is one.
    #[inline(always)]
    pub const fn owner(self) -> Owner {
        Owner::unpack(self.0)
    }

    /// The connection, if it is one: else more than any.
    #[inline(always)]
    pub const fn conn(self) -> u32 {
        // So are connections packed.
        self.0
    }
}

/// Where a flow lies in the index, in 31 bits. It stays there for as long as it is known, whoever owns it: the record that owns it
/// keeps its place, and need not look for it to hand it over or to forget it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(u32);

impl Place {
    /// Not in the bucket of its hash, or not known: it is to be looked for.
    pub const BEYOND: Place = Place(u32::MAX >> 1);

    #[inline(always)]
    const fn new(bucket: usize, slot: usize) -> Place {
        Place((bucket << SLOT_BITS | slot) as u32)
    }

    #[inline(always)]
    const fn bucket(self) -> usize {
        (self.0 >> SLOT_BITS) as usize
    }

    #[inline(always)]
    const fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }
}

/// A place with a mark, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkedPlace(u32);

impl MarkedPlace {
    /// The place, with a mark or without.
    #[inline(always)]
    pub const fn new(place: Place, is_marked: bool) -> MarkedPlace {
        MarkedPlace(place.0 | (is_marked as u32) << 31)
    }

    /// The place.
    #[inline(always)]
    pub const fn place(self) -> Place {
        Place(self.0 & u32::MAX >> 1)
    }

    /// Whether it has the mark.
    #[inline(always)]
    pub const fn is_marked(self) -> bool {
        self.0 >> 31 != 0
    }
}

/// Room for a flow in the index.
#[derive(Debug)]
pub struct Vacancy<'a> {
    bucket: &'a mut Bucket,
    len: &'a mut usize,
    tag: u8,
    place: Place,
}

impl Vacancy<'_> {
    /// Adds the flow: its place.
    #[inline(always)]
    pub fn fill(self, owner: Owner) -> Place {
        let slot = self.place.slot();
        self.bucket.owners[slot] = owner.pack();
        self.bucket.tags.0[slot] = self.tag;
        *self.len += 1;
        self.place
    }
}

/// Hash of the flow key to owner. The keys are in the records.
///
/// A bucket is one cache line: twelve owners, each with eight bits of its hash. What does not fit goes to the next bucket,
/// and each bucket counts what went past it: a search ends where that count is zero, and a removal takes its own part
/// back. So a removal leaves no trace, and the index, whose size is fixed from the start, never has to be hashed anew: no flow is ever
/// moved.
#[derive(Debug)]
pub struct Flows {
    buckets: Spread<Bucket>,
    len: usize,
    limit: usize,
}

impl Flows {
    /// An index for up to `limit` flows: 8 bytes a flow.
    pub fn with_capacity(limit: u32) -> Flows {
        assert!(limit <= LIMIT_MAX, "the index is for at most {LIMIT_MAX} flows");
        let limit = limit as usize;
        let buckets = vec![Bucket::EMPTY; limit.div_ceil(FLOWS_PER_BUCKET).max(1)];
        Flows { buckets: Spread::over(buckets), len: 0, limit }
    }

    /// Asks the processor to fetch the bucket of this hash: the first step of a burst's search.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch_nth(&self.buckets, self.home(hash));
    }

    /// The likely owner of this hash, unverified: its record is what to prefetch before [`find`](Flows::find) compares keys.
    /// At the limit wrong for one flow in eight, or nobody; nobody for most flows that are not here.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<Guess> {
        let bucket = self.buckets.of(hash);
        bucket.owners.get(bucket.first(tag(hash))).map(|packed| Guess(*packed))
    }

    /// Whether a flow with this hash may be here: `false` for most that are not.
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        let bucket = self.buckets.of(hash);
        bucket.first(tag(hash)) < SLOTS || bucket.went_past() > 0
    }

    /// The owner with this hash for which `eq` finds the flow's key in its record.
    #[inline]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(Owner) -> bool) -> Option<Owner> {
        let bucket = self.buckets.of(hash);
        let first = bucket.owners.get(bucket.first(tag(hash))).copied();
        match first.map(Owner::unpack) {
            Some(owner) if eq(owner) => return Some(owner),
            None if bucket.went_past() == 0 => return None,
            _ => {}
        }
        let found = self.search(hash, |packed| Some(packed) != first && eq(Owner::unpack(packed)));
        found.map(|(_, _, packed)| Owner::unpack(packed))
    }

    /// Adds a flow that is not in the index: its place. `None`, and nothing done, if the index has no room, as it has for as many
    /// flows as it was made for.
    #[inline]
    #[must_use]
    pub fn insert(&mut self, hash: u64, owner: Owner) -> Option<Place> {
        let home = self.home(hash);
        match self.buckets.of_mut(hash).take(tag(hash), owner.pack()) {
            Some(slot) => {
                self.len += 1;
                Some(Place::new(home, slot))
            }
            None => self.insert_beyond(home, hash, owner.pack()),
        }
    }

    /// Room for a flow of which nothing is here that looks like it. `None` if there is something, or if the flow's first bucket is full.
    #[inline(always)]
    pub fn vacancy(&mut self, hash: u64) -> Option<Vacancy<'_>> {
        let home = self.home(hash);
        let Flows { buckets, len, .. } = self;
        let bucket = buckets.of_mut(hash);
        if bucket.first(tag(hash)) < SLOTS || bucket.went_past() > 0 {
            return None;
        }
        let slot = bucket.first(VACANT);
        (slot < SLOTS).then(|| Vacancy { bucket, len, tag: tag(hash), place: Place::new(home, slot) })
    }

    /// Hands a flow over to its record in another life stage, in place: which that is. Nothing is done if `from` is not there.
    #[inline(always)]
    pub fn replace(&mut self, hash: u64, from: Owner, to: Owner) -> Place {
        let home = self.home(hash);
        let bucket = self.buckets.of_mut(hash);
        let slot = bucket.first(tag(hash));
        // Nearly always it is the first that looks like it.
        match bucket.owners.get_mut(slot) {
            Some(packed) if *packed == from.pack() => {
                *packed = to.pack();
                Place::new(home, slot)
            }
            _ => self.replace_searched(hash, from, to),
        }
    }

    /// The same, for a flow whose place is known. `false`, and nothing done, if it is not there.
    #[inline(always)]
    pub fn replace_at(&mut self, place: Place, from: Owner, to: Owner) -> bool {
        match self.entry_mut(place) {
            Some((_, packed)) if *packed == from.pack() => *packed = to.pack(),
            _ => return false,
        }
        true
    }

    /// Forgets a flow. Whether it was there.
    #[inline(always)]
    pub fn remove(&mut self, hash: u64, owner: Owner) -> bool {
        let home = self.home(hash);
        let bucket = self.buckets.of_mut(hash);
        let slot = bucket.first(tag(hash));
        let is_removed = match bucket.owners.get(slot) {
            Some(packed) if *packed == owner.pack() => {
                bucket.tags.0[slot] = VACANT;
                true
            }
            _ => self.remove_searched(home, hash, owner.pack()),
        };
        self.len -= usize::from(is_removed);
        is_removed
    }

    /// Forgets a flow whose place is known. `false`, and nothing done, if it is not there.
    #[inline(always)]
    pub fn remove_at(&mut self, place: Place, owner: Owner) -> bool {
        match self.entry_mut(place) {
            Some((tag, packed)) if *packed == owner.pack() => *tag = VACANT,
            _ => return false,
        }
        self.len -= 1;
        true
    }

    /// Who owns the flow at this place, if one is there.
    pub fn owner_at(&self, place: Place) -> Option<Owner> {
        let Bucket { tags, owners } = self.buckets.get(place.bucket())?;
        let packed = owners.get(place.slot())?;
        (tags.0[place.slot()] != VACANT).then_some(Owner::unpack(*packed))
    }

    /// Asks the processor to fetch the bucket of this place.
    #[inline]
    pub fn prefetch_at(&self, place: Place) {
        prefetch_nth(&self.buckets, place.bucket());
    }

    /// Tag and owner at this place.
    #[inline(always)]
    fn entry_mut(&mut self, place: Place) -> Option<(&mut u8, &mut u32)> {
        let Bucket { tags, owners } = self.buckets.get_mut(place.bucket())?;
        let owner = owners.get_mut(place.slot())?;
        let tag = &mut tags.0[place.slot()];
        debug_assert!(*tag != VACANT, "a flow keeps its place until it is forgotten");
        Some((tag, owner))
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

    /// Bucket, slot and owner of the entry with this hash that `eq` accepts, wherever it is.
    #[inline(never)]
    fn search(&self, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<(usize, usize, u32)> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut owners = bucket.slots_with(tag(hash)).map(|slot| (slot, bucket.owners[slot]));
            if let Some((slot, packed)) = owners.find(|(_, packed)| eq(*packed)) {
                return Some((at, slot, packed));
            }
            if bucket.went_past() == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// The bucket of its hash is full.
    #[cold]
    fn insert_beyond(&mut self, home: usize, hash: u64, packed: u32) -> Option<Place> {
        if self.len >= self.limit {
            return None;
        }
        self.len += 1;
        let mut at = home;
        // There are more slots than the limit, so this ends.
        loop {
            self.buckets[at].add_past(1);
            at = self.after(at);
            if self.buckets[at].take(tag(hash), packed).is_some() {
                return Some(Place::BEYOND);
            }
        }
    }

    #[cold]
    fn replace_searched(&mut self, hash: u64, from: Owner, to: Owner) -> Place {
        let Some((at, slot, _)) = self.search(hash, |packed| packed == from.pack()) else { return Place::BEYOND };
        self.buckets[at].owners[slot] = to.pack();
        if at == self.home(hash) { Place::new(at, slot) } else { Place::BEYOND }
    }

    #[cold]
    fn remove_searched(&mut self, home: usize, hash: u64, packed: u32) -> bool {
        let Some((found, slot, _)) = self.search(hash, |other| other == packed) else { return false };
        self.buckets[found].tags.0[slot] = VACANT;
        let mut at = home;
        while at != found {
            self.buckets[at].add_past(-1);
            at = self.after(at);
        }
        true
    }

    /// The bucket that a flow goes to first.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        self.buckets.place_of(hash)
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
            0 => Owner::Conn(packed),
            1 => Owner::SynRcvd(index),
            _ => Owner::TimeWait(index),
        }
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// Twelve bytes of hash, [`VACANT`] in an empty slot; the last four bytes count the flows that went past.
    tags: Bytes16,
    owners: [u32; SLOTS],
}

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: Bytes16([0; SLOTS + 4]), owners: [0; SLOTS] };

    /// The first slot that carries this tag; if there is none, what is no slot.
    #[inline(always)]
    fn first(&self, tag: u8) -> usize {
        matching_bytes(&self.tags, tag).trailing_zeros() as usize
    }

    /// The slots that carry this tag.
    #[inline]
    fn slots_with(&self, tag: u8) -> impl Iterator<Item = usize> + use<> {
        let mut left = matching_bytes(&self.tags, tag) & ((1 << SLOTS) - 1);
        core::iter::from_fn(move || {
            let slot = left.trailing_zeros() as usize;
            let found = left != 0;
            left &= left.wrapping_sub(1);
            found.then_some(slot)
        })
    }

    /// Stores an entry in a vacant slot, if there is one: which.
    #[inline(always)]
    fn take(&mut self, tag: u8, packed: u32) -> Option<usize> {
        let slot = self.first(VACANT);
        *self.owners.get_mut(slot)? = packed;
        self.tags.0[slot] = tag;
        Some(slot)
    }

    /// How many flows went past.
    #[inline]
    fn went_past(&self) -> u32 {
        let [.., a, b, c, d] = self.tags.0;
        u32::from_ne_bytes([a, b, c, d])
    }

    fn add_past(&mut self, more: i32) {
        let went_past = self.went_past().wrapping_add_signed(more);
        self.tags.0[SLOTS..].copy_from_slice(&went_past.to_ne_bytes());
    }
}

#[inline]
const fn tag(hash: u64) -> u8 {
    // The bucket comes from the top of the hash, this from the bottom.
    let tag = hash as u8;
    tag + (tag == VACANT) as u8
}

const INDEX_BITS: u32 = 30;
const SLOTS: usize = 12;
const SLOT_BITS: u32 = SLOTS.next_power_of_two().trailing_zeros();
/// At the limit two thirds of the slots are used; after long churn one flow in ten is then not in its first bucket.
const FLOWS_PER_BUCKET: usize = 8;
/// So a place, whose bucket takes four bits less than there are flows, and the slot four, fits in 31 bits, and
/// [`Place::BEYOND`] is in no bucket.
const LIMIT_MAX: u32 = 1 << 29;
const VACANT: u8 = 0;

const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests;
