//! Source ports of active opens (RFC 6056).

use alloc::boxed::Box;
use alloc::vec;
use core::ops::RangeInclusive;

use super::flow::{FlowHasher, FlowKey};
use crate::wire::address::Address;

/// Chooses source ports by RFC 6056's algorithm 4, double-hash port selection: each destination walks through the range
/// from a secret place of its own, so that a port comes back as late as possible and tells an outsider nothing.
#[derive(Debug)]
pub struct Ports {
    hasher: FlowHasher,
    first: u16,
    count: u32,
    /// How far the destinations have walked; some share a counter.
    counters: Box<[u16]>,
}

impl Ports {
    /// Ports from `range`, under a secret of random words. An empty range gives no ports.
    pub fn new(secret: [u64; 4], range: RangeInclusive<u16>) -> Ports {
        let count = range.len() as u32;
        Ports { hasher: FlowHasher::new(secret), first: *range.start(), count, counters: vec![0; COUNTERS].into() }
    }

    /// The ports for a connection from `local` to `remote`, the one that is to be tried first at the front: at most
    /// [`PROBES_MAX`]. Each that is taken is passed by the next walk.
    #[inline]
    pub fn towards(&mut self, local: Address, remote: Address, remote_port: u16) -> Walk<'_> {
        let hash = self.hasher.hash(&FlowKey { local, remote, local_port: 0, remote_port });
        let (first, count) = (self.first, self.count);
        let offset = (((hash >> 32) * u64::from(count)) >> 32) as u32;
        Walk {
            counter: &mut self.counters[hash as usize % COUNTERS],
            first,
            count,
            offset,
            left: count.min(PROBES_MAX),
        }
    }
}

/// Ports on the way to one destination.
#[derive(Debug)]
pub struct Walk<'a> {
    counter: &'a mut u16,
    first: u16,
    count: u32,
    offset: u32,
    left: u32,
}

impl Walk<'_> {
    /// The port that comes next, without taking it. Means nothing where the range is empty.
    #[inline]
    pub fn peek(&self) -> u16 {
        let ahead = self.offset + u32::from(*self.counter);
        self.first.wrapping_add(if ahead < self.count { ahead } else { ahead.wrapping_sub(self.count) } as u16)
    }
}

impl Iterator for Walk<'_> {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let port = self.peek();
        // The counter turns over at the end of the range, or the walk would jump there.
        let step = u32::from(*self.counter) + 1;
        *self.counter = if step < self.count { step as u16 } else { 0 };
        Some(port)
    }
}

/// The most ports of one walk.
pub const PROBES_MAX: u32 = 4096;

/// 16 KiB of counters.
const COUNTERS: usize = 8192;

#[cfg(test)]
mod tests;
