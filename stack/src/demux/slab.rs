//! A pool of records with a fixed limit, addressed by index and guarded by generation.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use handfast_drivers::prefetch::prefetch_all_of_nth;

/// Up to `capacity` records. Memory is reserved at construction and touched only as records are first used; the record
/// freed last is used first, while it is still in the cache.
///
/// Costs `size_of::<T>() + 8` bytes a record, rounded up to whole cache lines.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    /// The place that became vacant last, or [`NONE`]: the others follow it.
    free: u32,
    len: u32,
    capacity: u32,
}

/// A record, and what the slab knows of its place, so that one look finds both.
#[derive(Debug)]
#[repr(C, align(64))]
struct Place<T> {
    /// In a vacant place, one that means nothing.
    record: T,
    /// Changes each time the record is removed.
    generation: NonZeroU32,
    /// In a vacant place, the one that became vacant before it; else [`TAKEN`].
    next_free: u32,
}

impl<T: Default> Slab<T> {
    /// An empty slab for up to `capacity` records.
    pub fn with_capacity(capacity: u32) -> Slab<T> {
        assert!(capacity < TAKEN, "the last two indices are none");
        Slab { places: Vec::with_capacity(capacity as usize), free: NONE, len: 0, capacity }
    }

    /// Stores a record: its index and generation, and the record where it lies; `None` if the slab is full.
    #[inline(always)]
    pub fn insert(&mut self, record: T) -> Option<(u32, NonZeroU32, &mut T)> {
        let (index, generation, place) = self.take_place()?;
        *place = record;
        Some((index, generation, place))
    }

    /// Takes a place for a record that is made where it lies, out of one that was there before: its index and generation; `None` if the
    /// slab is full.
    #[inline(always)]
    pub fn take_place(&mut self) -> Option<(u32, NonZeroU32, &mut T)> {
        if self.free == NONE {
            self.grow()?;
        }
        let index = self.free;
        let Place { record, generation, next_free } = &mut self.places[index as usize];
        (self.free, self.len) = (*next_free, self.len + 1);
        *next_free = TAKEN;
        Some((index, *generation, record))
    }

    /// Adds a place that no record was in yet.
    #[cold]
    fn grow(&mut self) -> Option<()> {
        let index = self.places.len() as u32;
        if index == self.capacity {
            return None;
        }
        self.places.push(Place { record: T::default(), generation: FIRST_GENERATION, next_free: NONE });
        self.free = index;
        Some(())
    }

    /// The record at `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.entry(index).map(|(_, record)| record)
    }

    /// The record at `index`, to change.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entry_mut(index).map(|(_, record)| record)
    }

    /// The record at `index` and its generation.
    #[inline(always)]
    pub fn entry(&self, index: u32) -> Option<(NonZeroU32, &T)> {
        let place = self.places.get(index as usize).filter(|place| place.next_free == TAKEN)?;
        Some((place.generation, &place.record))
    }

    /// The record at `index`, to change, and its generation.
    #[inline(always)]
    pub fn entry_mut(&mut self, index: u32) -> Option<(NonZeroU32, &mut T)> {
        let place = self.places.get_mut(index as usize).filter(|place| place.next_free == TAKEN)?;
        Some((place.generation, &mut place.record))
    }

    /// The record at `index` if it is still the one that was given this generation.
    #[inline]
    pub fn get_checked(&self, index: u32, generation: NonZeroU32) -> Option<&T> {
        let (now, record) = self.entry(index)?;
        (now == generation).then_some(record)
    }

    /// The record at `index`, to change, if it is still the one that was given this generation.
    #[inline]
    pub fn get_checked_mut(&mut self, index: u32, generation: NonZeroU32) -> Option<&mut T> {
        let (now, record) = self.entry_mut(index)?;
        (now == generation).then_some(record)
    }

    /// Takes the record at `index` out, if there is one.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let mut record = T::default();
        self.vacate(index, |old| record = core::mem::take(old)).then_some(record)
    }

    /// Vacates the place at `index`, if there is a record: `leave` is to take what that has beside its own memory. Whether there was one.
    #[inline(always)]
    pub fn vacate(&mut self, index: u32, leave: impl FnOnce(&mut T)) -> bool {
        let place = self.places.get_mut(index as usize).filter(|place| place.next_free == TAKEN);
        let Some(place) = place else { return false };
        leave(&mut place.record);
        // Handles of the record that was here are stale from here on.
        place.generation = place.generation.checked_add(1).unwrap_or(FIRST_GENERATION);
        place.next_free = self.free;
        (self.free, self.len) = (index, self.len - 1);
        true
    }

    /// Asks the processor to fetch the record at `index`.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        prefetch_all_of_nth(&self.places, index as usize);
    }

    /// How many records there are.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there may be.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All records, each with its index and generation. Walks over every index that was ever used.
    pub fn iter(&self) -> impl Iterator<Item = (u32, NonZeroU32, &T)> {
        let taken = (0..).zip(&self.places).filter(|(_, place)| place.next_free == TAKEN);
        taken.map(|(index, place)| (index, place.generation, &place.record))
    }
}

const FIRST_GENERATION: NonZeroU32 = NonZeroU32::MIN;
const NONE: u32 = u32::MAX;
const TAKEN: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests;
