//! Who listens: local address and port to listener.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::flow::FlowKey;
use super::slab::Slab;
use crate::wire::address::Address;

/// Names a listener. One that was closed is an error, never another listener.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId {
    index: u32,
    generation: NonZeroU32,
}

/// A port that accepts connections.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Listener {
    /// Where it listens: one address, every address of a family (`0.0.0.0`, `::`), or everywhere (`None`).
    pub address: Option<Address>,
    /// The port.
    pub port: u16,
    /// Connections that it has half-open now.
    pub half_open: u32,
    /// How many may be half-open.
    pub half_open_max: u32,
}

/// Why a listener cannot be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListenError {
    /// There is a listener on the same address and port.
    #[error("this address and port already have a listener: close it first, or listen on another port")]
    InUse,
    /// The table is full.
    #[error("there are as many listeners as the configuration allows: raise the limit or close one")]
    TooMany,
}

/// The listeners of a worker. An exact address goes before its family's wildcard, and that before everywhere.
#[derive(Debug)]
pub struct Listeners {
    slab: Slab<Listener>,
    /// Sorted: the ends of one port lie together.
    ends: Vec<(End, u32)>,
    /// For each port the place of its first end, plus one; 0 where nobody listens; [`SOLE`] and the listener's index where one
    /// listens everywhere, and no other.
    ports: Box<[u32; PORTS]>,
}

impl Listeners {
    /// Room for up to `capacity` listeners.
    pub fn with_capacity(capacity: u32) -> Listeners {
        assert!(capacity <= 1 << 16, "a half-open connection remembers its listener in 16 bits");
        let ports = vec![0; PORTS].into_boxed_slice().try_into().expect("it has this length");
        Listeners { slab: Slab::with_capacity(capacity), ends: Vec::with_capacity(capacity as usize), ports }
    }

    /// Adds a listener.
    ///
    /// # Errors
    /// [`ListenError::InUse`] if the very same address and port are taken, [`ListenError::TooMany`] at the limit.
    pub fn insert(&mut self, listener: Listener) -> Result<ListenerId, ListenError> {
        let end = (listener.port, Scope::of(listener.address));
        let Err(at) = self.ends.binary_search_by_key(&end, |(end, _)| *end) else { return Err(ListenError::InUse) };
        let (index, generation, _) = self.slab.insert(listener).ok_or(ListenError::TooMany)?;
        self.ends.insert(at, (end, index));
        self.find_ports();
        Ok(ListenerId { index, generation })
    }

    /// The listener for a segment to this address and port, and its place in the table: what a half-open connection remembers of it.
    #[inline]
    pub fn find(&self, local: Address, port: u16) -> Option<(u16, &Listener)> {
        let place = self.place_of(local, port)?;
        Some((place, self.slab.get(place.into())?))
    }

    /// The same, to count on. Its address and port stay as they are.
    #[inline]
    pub fn find_mut(&mut self, local: Address, port: u16) -> Option<(u16, &mut Listener)> {
        let place = self.place_of(local, port)?;
        Some((place, self.slab.get_mut(place.into())?))
    }

    #[inline(always)]
    fn place_of(&self, local: Address, port: u16) -> Option<u16> {
        let entry = self.ports[usize::from(port)];
        if entry & SOLE == 0 {
            return self.find_among(entry, local, port);
        }
        Some(entry as u16)
    }

    /// Of the listeners on one port, whose first is this, the most exact that fits.
    #[inline(never)]
    fn find_among(&self, first: u32, local: Address, port: u16) -> Option<u16> {
        let first = first.checked_sub(1)? as usize;
        let family = if local.is_v4() { Scope::V4 } else { Scope::V6 };
        // In the order of the scopes, so the first that fits is the most exact.
        let fits = |scope: Scope| scope == Scope::All || scope == family || scope == Scope::One(local);
        let of_port = self.ends[first..].iter().take_while(|((other, _), _)| *other == port);
        let (_, index) = *of_port.into_iter().find(|((_, scope), _)| fits(*scope))?;
        Some(index as u16)
    }

    /// A listener, if it is still there.
    pub fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.slab.get_checked(id.index, id.generation)
    }

    /// The listener at a place, to count on, if it is the one for this flow's end.
    #[inline(always)]
    pub fn at_mut(&mut self, place: u16, key: &FlowKey) -> Option<&mut Listener> {
        let listener = self.slab.get_mut(place.into())?;
        let fits =
            listener.port == key.local_port && listener.address.is_none_or(|address| is_within(address, key.local));
        fits.then_some(listener)
    }

    /// Closes a listener. What it has accepted stays open.
    pub fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        self.get(id)?;
        self.ends.retain(|(_, index)| *index != id.index);
        self.find_ports();
        self.slab.remove(id.index)
    }

    fn find_ports(&mut self) {
        self.ports.fill(0);
        for (place, ((port, scope), index)) in self.ends.iter().enumerate().rev() {
            let entry = &mut self.ports[usize::from(*port)];
            // The scope that is everywhere is a port's last, so nobody was seen on it before this one.
            let is_alone =
                *scope == Scope::All && self.ends[..place].last().is_none_or(|((other, _), _)| other != port);
            *entry = if is_alone { SOLE | *index } else { place as u32 + 1 };
        }
    }

    /// All listeners.
    pub fn iter(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        self.slab.iter().map(|(index, generation, listener)| (ListenerId { index, generation }, listener))
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

/// Whether a listener on `address`, which may be all of a family, hears what comes to `local`.
#[inline(never)]
fn is_within(address: Address, local: Address) -> bool {
    match address.is_unspecified() {
        true => address.is_v4() == local.is_v4(),
        false => address == local,
    }
}

const PORTS: usize = 1 << 16;
const SOLE: u32 = 1 << 31;

type End = (u16, Scope);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Scope {
    One(Address),
    V4,
    V6,
    All,
}

impl Scope {
    fn of(address: Option<Address>) -> Scope {
        match address {
            None => Scope::All,
            Some(Address::UNSPECIFIED_V4) => Scope::V4,
            Some(Address::UNSPECIFIED_V6) => Scope::V6,
            Some(address) => Scope::One(address),
        }
    }
}

#[cfg(test)]
mod tests;
