//! The table of connections and the handle that an application holds.

use core::fmt;
use core::num::NonZeroU32;

use super::slab::Slab;

/// Names one connection of one worker. One that is no longer open is an error, never another connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    index: u32,
    generation: NonZeroU32,
}

impl ConnId {
    /// The connection's place in its worker's tables. Reused after it closes.
    #[inline]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The handle as a number that is never 0, for interfaces that know only numbers.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        (self.generation.get() as u64) << 32 | self.index as u64
    }

    /// What [`to_bits`](ConnId::to_bits) made; `None` for a number that it never makes.
    #[inline]
    pub const fn from_bits(bits: u64) -> Option<ConnId> {
        match NonZeroU32::new((bits >> 32) as u32) {
            Some(generation) => Some(ConnId { index: bits as u32, generation }),
            None => None,
        }
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({}#{})", self.index, self.generation)
    }
}

/// What a connection keeps, in memory that the next one has after it.
pub trait Record: Default {
    /// Gives back what it has beside its own memory.
    fn leave(&mut self);
}

/// The connections of one worker. `T` is what a connection keeps.
#[derive(Debug)]
pub struct Conns<T> {
    slab: Slab<T>,
}

impl<T: Record> Conns<T> {
    /// Room for up to `capacity` connections.
    pub fn with_capacity(capacity: u32) -> Conns<T> {
        Conns { slab: Slab::with_capacity(capacity) }
    }

    /// Takes a place for a connection that is made where it lies, out of one that was there before; `None` if the table is full.
    #[inline(always)]
    pub fn take_place(&mut self) -> Option<(ConnId, &mut T)> {
        let (index, generation, place) = self.slab.take_place()?;
        Some((ConnId { index, generation }, place))
    }

    /// The connection of this handle, if it still is.
    #[inline]
    pub fn get(&self, id: ConnId) -> Option<&T> {
        self.slab.get_checked(id.index, id.generation)
    }

    /// The connection of this handle, to change, if it still is.
    #[inline]
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.slab.get_checked_mut(id.index, id.generation)
    }

    /// The connection at this place in the table.
    #[inline]
    pub fn at(&self, index: u32) -> Option<&T> {
        self.slab.get(index)
    }

    /// The connection at this place in the table, to change.
    #[inline]
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slab.get_mut(index)
    }

    /// The connection at this place in the table, to change, and its handle.
    #[inline(always)]
    pub fn entry_mut(&mut self, index: u32) -> Option<(ConnId, &mut T)> {
        let (generation, conn) = self.slab.entry_mut(index)?;
        Some((ConnId { index, generation }, conn))
    }

    /// The handle of the connection at this place in the table.
    #[inline]
    pub fn id_at(&self, index: u32) -> Option<ConnId> {
        self.slab.entry(index).map(|(generation, _)| ConnId { index, generation })
    }

    /// Drops the connection at this place, if there is one. Its handle is stale from here on.
    #[inline]
    pub fn discard(&mut self, index: u32) {
        self.slab.vacate(index, T::leave);
    }

    /// Asks the processor to fetch the connection at this place.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        self.slab.prefetch(index);
    }

    /// How many connections there are.
    #[inline]
    pub fn len(&self) -> u32 {
        self.slab.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// How many there may be.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.slab.capacity()
    }

    /// All connections. Walks over every place that was ever used.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.slab.iter().map(|(index, generation, conn)| (ConnId { index, generation }, conn))
    }
}

const _: () = assert!(size_of::<Option<ConnId>>() == 8);

#[cfg(test)]
mod tests;
