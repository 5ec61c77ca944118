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
    /// Never 0; changes each time the record is removed.
    generations: Vec<u32>,
    /// Indices of removed records, the last one on top.
    free: Vec<u32>,
    capacity: u32,
}

impl<T> Slab<T> {
    /// An empty slab for up to `capacity` records.
    pub fn with_capacity(capacity: u32) -> Slab<T> {
        Slab {
            records: Vec::with_capacity(capacity as usize),
            generations: Vec::with_capacity(capacity as usize),
            free: Vec::with_capacity(capacity as usize),
            capacity,
        }
    }

    /// Stores a record: its index and generation, and the record where it lies; `None` if the slab is full.
    #[inline(always)]
    pub fn insert(&mut self, record: T) -> Option<(u32, u32, &mut T)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        Some((index, self.generations[index as usize], self.records[index as usize].insert(record)))
    }

    /// A place that no record was in yet.
    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let index = self.records.len() as u32;
        if index == self.capacity {
            return None;
        }
        self.records.push(None);
        self.generations.push(FIRST_GENERATION);
        Some(index)
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
        self.generations.get(index as usize).copied()
    }

    /// Takes the record at `index` out, if there is one.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let record = self.records.get_mut(index as usize)?.take()?;
        self.freed(index);
        Some(record)
    }

    /// Drops the record at `index` where it lies, if there is one.
    #[inline]
    pub fn discard(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(index as usize)
            && record.is_some()
        {
            *record = None;
            self.freed(index);
        }
    }

    #[inline]
    fn freed(&mut self, index: u32) {
        let generation = &mut self.generations[index as usize];
        *generation = generation.checked_add(1).unwrap_or(FIRST_GENERATION);
        self.free.push(index);
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
        (self.records.len() - self.free.len()) as u32
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
        let generations = self.generations.iter().copied();
        let full = |((index, generation), record)| Option::as_ref(record).map(|record| (index, generation, record));
        (0..).zip(generations).zip(&self.records).filter_map(full)
    }
}

const FIRST_GENERATION: u32 = 1;

#[cfg(test)]
mod tests;
