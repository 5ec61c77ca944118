//! Source ports of active opens (RFC 6056).

use alloc::boxed::Box;
use core::ops::RangeInclusive;

use super::flow::{FlowHasher, FlowKey};

/// Chooses source ports by RFC 6056's algorithm 4, double-hash port selection: each destination walks through the range
/// from a secret place of its own, so that a port comes back as late as possible and tells an outsider nothing.
#[derive(Debug)]
pub struct Ports {
    hasher: FlowHasher,
    first: u16,
    last: u16,
    count: u32,
    /// How far the destinations have walked; some share a counter.
    counters: Box<[u16; COUNTERS]>,
}

impl Ports {
    /// Ports from `range`, under a secret of random words. An empty range gives no ports.
    pub fn new(secret: [u64; 4], range: RangeInclusive<u16>) -> Ports {
        let count = range.len() as u32;
        Ports {
            hasher: FlowHasher::new(secret),
            first: *range.start(),
            last: *range.end(),
            count,
            counters: Box::new([0; COUNTERS]),
        }
    }

    /// Begins to look for a port of ours for a connection with this key, whose own port is 0 until one is found.
    #[inline]
    pub fn towards(&self, key: &FlowKey) -> Walk {
        debug_assert_eq!(key.local_port, 0, "a destination has one walk");
        self.walk(self.hasher.hash(key))
    }

    /// The same between two IPv4 addresses.
    #[inline(always)]
    pub fn towards_v4(&self, local: [u8; 4], remote: [u8; 4], remote_port: u16) -> Walk {
        self.walk(self.hasher.hash_v4(local, remote, FlowKey { remote_port, ..FlowKey::default() }.ports()))
    }

    #[inline(always)]
    fn walk(&self, hash: u64) -> Walk {
        let offset = (((hash >> 32) * u64::from(self.count)) >> 32) as u32;
        Walk { counter: hash as usize % COUNTERS, offset, tried: 0 }
    }

    /// Takes the port that comes next: what comes after it is for the next walk. `None` after [`PROBES_MAX`] ports, or where there
    /// are none.
    #[inline]
    pub fn next(&mut self, walk: &mut Walk) -> Option<u16> {
        if walk.tried >= self.count.min(PROBES_MAX) {
            return None;
        }
        walk.tried += 1;
        let port = self.peek(walk)?;
        self.step(walk);
        Some(port)
    }

    /// The port that comes next, if there is any: it goes on being the next until a [`step`](Self::step) is taken.
    #[inline(always)]
    pub fn peek(&self, walk: &Walk) -> Option<u16> {
        let ahead = walk.offset + u32::from(self.counters[walk.counter]);
        let ahead = if ahead < self.count { ahead } else { ahead.wrapping_sub(self.count) };
        (self.count > 0).then(|| self.first.wrapping_add(ahead as u16))
    }

    /// The port that came next is taken: what comes after it is for the next walk.
    #[inline(always)]
    pub fn step(&mut self, walk: &Walk) {
        // The counter turns over at the end of the range, or the walk would jump there.
        let step = u32::from(self.counters[walk.counter]) + 1;
        self.counters[walk.counter] = if step < self.count { step as u16 } else { 0 };
    }

    /// The port that comes after `port`, one of the range, in every walk.
    #[inline]
    pub fn after(&self, port: u16) -> u16 {
        if port == self.last { self.first } else { port.wrapping_add(1) }
    }
}

/// A search for a port towards one destination.
#[derive(Debug)]
pub struct Walk {
    counter: usize,
    offset: u32,
    tried: u32,
}

/// The most ports of one walk.
pub const PROBES_MAX: u32 = 4096;

/// 16 KiB of counters.
const COUNTERS: usize = 8192;

#[cfg(test)]
mod tests;
