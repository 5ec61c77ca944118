//! A pool of records with a fixed limit, addressed by index and guarded by generation.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use handfast_drivers::prefetch::prefetch_all;

/// Up to `capacity` records. Memory is reserved at construction and touched only as records are first used; the record
/// freed last is used first, while it is still in the cache.
///
/// Costs `size_of::<Option<T>>() + 8` bytes a record, rounded up to whole cache lines: a `T` with a spare bit pattern costs no more
/// than itself.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    /// The place that became vacant last, or [`NONE`]: the others follow it.
    free: u32,
    len: u32,
    capacity: u32,
}

/// A place that was taken and has no record yet.
#[derive(Debug)]
#[must_use = "the place stays taken"]
pub struct Vacant<'a, T>(&'a mut Option<T>);

impl<'a, T> Vacant<'a, T> {
    /// Puts the record there.
    #[inline(always)]
    pub fn fill(self, record: T) -> &'a mut T {
        self.0.get_or_insert(record)
    }
}

/// A record, and what the slab knows of its place, so that one look finds both.
#[derive(Debug)]
#[repr(C, align(64))]
struct Place<T> {
    record: Option<T>,
    /// Changes each time the record is removed.
    generation: NonZeroU32,
    /// In a vacant place, the one that became vacant before it.
    next_free: u32,
}

impl<T> Slab<T> {
    /// An empty slab for up to `capacity` records.
    pub fn with_capacity(capacity: u32) -> Slab<T> {
        assert!(capacity < NONE, "the last index is none");
        Slab { places: Vec::with_capacity(capacity as usize), free: NONE, len: 0, capacity }
    }

    /// Stores a record: its index and generation, and the record where it lies; `None` if the slab is full.
    #[inline(always)]
    pub fn insert(&mut self, record: T) -> Option<(u32, NonZeroU32, &mut T)> {
        self.take_place().map(|(index, generation, place)| (index, generation, place.fill(record)))
    }

    /// Takes a place for a record that is made where it is to lie: its index and generation; `None` if the slab is full.
    #[inline(always)]
    pub fn take_place(&mut self) -> Option<(u32, NonZeroU32, Vacant<'_, T>)> {
        if self.free == NONE {
            self.grow()?;
        }
        let index = self.free;
        let Place { record, generation, next_free } = &mut self.places[index as usize];
        (self.free, self.len) = (*next_free, self.len + 1);
        Some((index, *generation, Vacant(record)))
    }

    /// Adds a place that no record was in yet.
    #[cold]
    fn grow(&mut self) -> Option<()> {
        let index = self.places.len() as u32;
        if index == self.capacity {
            return None;
        }
        self.places.push(Place { record: None, generation: FIRST_GENERATION, next_free: NONE });
        self.free = index;
        Some(())
    }

    /// The record at `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.record.as_ref()
    }

    /// The record at `index`, to change.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.record.as_mut()
    }

    /// The record at `index` and its generation.
    #[inline(always)]
    pub fn entry(&self, index: u32) -> Option<(NonZeroU32, &T)> {
        let place = self.places.get(index as usize)?;
        Some((place.generation, place.record.as_ref()?))
    }

    /// The record at `index`, to change, and its generation.
    #[inline(always)]
    pub fn entry_mut(&mut self, index: u32) -> Option<(NonZeroU32, &mut T)> {
        let place = self.places.get_mut(index as usize)?;
        Some((place.generation, place.record.as_mut()?))
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
        let place = self.places.get_mut(index as usize)?;
        let record = place.record.take()?;
        place.vacated(self.free);
        (self.free, self.len) = (index, self.len - 1);
        Some(record)
    }

    /// Drops the record at `index` where it lies, if there is one.
    #[inline(always)]
    pub fn discard(&mut self, index: u32) {
        if let Some(place) = self.places.get_mut(index as usize)
            && place.record.is_some()
        {
            place.vacated(self.free);
            (self.free, self.len) = (index, self.len - 1);
            place.record = None;
        }
    }

    /// Asks the processor to fetch the record at `index`.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        if let Some(place) = self.places.get(index as usize) {
            prefetch_all(place);
        }
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
        let places = (0..).zip(&self.places);
        places.filter_map(|(index, place)| Some((index, place.generation, place.record.as_ref()?)))
    }
}

impl<T> Place<T> {
    /// Handles of the record that was here are stale from here on.
    #[inline(always)]
    fn vacated(&mut self, free: u32) {
        self.generation = self.generation.checked_add(1).unwrap_or(FIRST_GENERATION);
        self.next_free = free;
    }
}

const FIRST_GENERATION: NonZeroU32 = NonZeroU32::MIN;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
