//! A pool of records with a fixed limit, addressed by index and guarded by generation.

use alloc::vec::Vec;

use handfast_drivers::prefetch::prefetch_all;

/// Up to `capacity` records. Memory is reserved at construction and touched only as records are first used; the record
/// freed last is used first, while it is still in the cache.
///
/// Costs `size_of::<Option<T>>() + 8` bytes a record: a `T` with a spare bit pattern costs no more than itself.
#[derive(Debug)]
pub struct Slab<T> {
    records: Vec<Option<T>>,
    places: Vec<Place>,
    /// The record that was removed last, or [`NONE`]: the others follow it.
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

/// What a slab knows of a record's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Never 0; changes each time the record is removed.
    generation: u32,
    /// In a vacant place, the one that became vacant before it.
    next_free: u32,
}

impl<T> Slab<T> {
    /// An empty slab for up to `capacity` records.
    pub fn with_capacity(capacity: u32) -> Slab<T> {
        assert!(capacity < NONE, "the last index is none");
        Slab {
            records: Vec::with_capacity(capacity as usize),
            places: Vec::with_capacity(capacity as usize),
            free: NONE,
            len: 0,
            capacity,
        }
    }

    /// Stores a record: its index and generation, and the record where it lies; `None` if the slab is full.
    #[inline(always)]
    pub fn insert(&mut self, record: T) -> Option<(u32, u32, &mut T)> {
        self.take_place().map(|(index, generation, place)| (index, generation, place.fill(record)))
    }

    /// Takes a place for a record that is made where it is to lie: its index and generation; `None` if the slab is full.
    #[inline(always)]
    pub fn take_place(&mut self) -> Option<(u32, u32, Vacant<'_, T>)> {
        if self.free == NONE {
            self.grow()?;
        }
        let index = self.free;
        let Place { generation, next_free } = self.places[index as usize];
        (self.free, self.len) = (next_free, self.len + 1);
        Some((index, generation, Vacant(&mut self.records[index as usize])))
    }

    /// Adds a place that no record was in yet.
    #[cold]
    fn grow(&mut self) -> Option<()> {
        let index = self.records.len() as u32;
        if index == self.capacity {
            return None;
        }
        self.records.push(None);
        self.places.push(Place { generation: FIRST_GENERATION, next_free: NONE });
        self.free = index;
        Some(())
    }

    /// The record at `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.records.get(index as usize)?.as_ref()
    }

    /// The record at `index`, to change.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.records.get_mut(index as usize)?.as_mut()
    }

    /// The record at `index`, to change, and its generation.
    #[inline(always)]
    pub fn entry_mut(&mut self, index: u32) -> Option<(u32, &mut T)> {
        let generation = self.generation(index)?;
        Some((generation, self.get_mut(index)?))
    }

    /// The record at `index` if it is still the one that was given this generation.
    #[inline]
    pub fn get_checked(&self, index: u32, generation: u32) -> Option<&T> {
        if self.generation(index) == Some(generation) { self.get(index) } else { None }
    }

    /// The record at `index`, to change, if it is still the one that was given this generation.
    #[inline]
    pub fn get_checked_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        if self.generation(index) == Some(generation) { self.get_mut(index) } else { None }
    }

    /// The generation of the record at `index`, or the one that the next record there will have.
    #[inline]
    pub fn generation(&self, index: u32) -> Option<u32> {
        self.places.get(index as usize).map(|place| place.generation)
    }

    /// Takes the record at `index` out, if there is one.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let record = self.records.get_mut(index as usize)?.take()?;
        self.freed(index);
        Some(record)
    }

    /// Drops the record at `index` where it lies, if there is one.
    #[inline(always)]
    pub fn discard(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(index as usize)
            && record.is_some()
        {
            *record = None;
            self.freed(index);
        }
    }

    #[inline(always)]
    fn freed(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        place.generation = place.generation.checked_add(1).unwrap_or(FIRST_GENERATION);
        place.next_free = self.free;
        (self.free, self.len) = (index, self.len - 1);
    }

    /// Asks the processor to fetch the record at `index`.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        if let Some(record) = self.records.get(index as usize) {
            prefetch_all(record);
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
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        let generations = self.places.iter().map(|place| place.generation);
        let full = |((index, generation), record)| Option::as_ref(record).map(|record| (index, generation, record));
        (0..).zip(generations).zip(&self.records).filter_map(full)
    }
}

const FIRST_GENERATION: u32 = 1;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
