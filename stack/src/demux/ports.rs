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

    /// The next port for a connection from `local` to `remote` that `is_usable` accepts: one whose flow is not in use and whose
    /// packets come home; beside it the port that will be tried first after it. `None` if it refuses [`PROBES_MAX`] in a row;
    /// the next call goes on behind those.
    pub fn pick(
        &mut self,
        local: Address,
        remote: Address,
        remote_port: u16,
        mut is_usable: impl FnMut(u16) -> bool,
    ) -> Option<(u16, u16)> {
        let hash = self.hasher.hash(&FlowKey { local, remote, local_port: 0, remote_port });
        let (first, count) = (self.first, self.count);
        let offset = (((hash >> 32) * u64::from(count)) >> 32) as u32;
        let counter = &mut self.counters[hash as usize % COUNTERS];
        let port = |step: u16| {
            let ahead = offset + u32::from(step);
            first + if ahead < count { ahead } else { ahead - count } as u16
        };
        for _ in 0..count.min(PROBES_MAX) {
            let step = *counter;
            // The counter turns over at the end of the range, or the walk would jump there.
            *counter = if u32::from(step) + 1 < count { step + 1 } else { 0 };
            if is_usable(port(step)) {
                return Some((port(step), port(*counter)));
            }
        }
        None
    }
}

/// The most ports that one call of [`Ports::pick`] tries.
pub const PROBES_MAX: u32 = 4096;

/// 16 KiB of counters.
const COUNTERS: usize = 8192;

#[cfg(test)]
mod tests;
