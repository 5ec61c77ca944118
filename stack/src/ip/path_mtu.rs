//! Path MTUs that are smaller than the link's (RFC 1191, RFC 8201).

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::hash_of;
use crate::time::{Duration, Instant};
use crate::wire::address::Address;

/// What is known of some paths; of all others nothing is known. Bounded: a new path takes the place of an old one.
#[derive(Debug)]
pub struct PathMtus {
    paths: HashTable<Path>,
    hasher: SipHasher13,
    paths_max: usize,
}

impl PathMtus {
    /// Nothing known yet. `key` is secret: it keeps strangers from choosing where addresses fall.
    pub fn new(paths_max: usize, key: [u8; 16]) -> PathMtus {
        let paths_max = paths_max.max(1);
        let hasher = SipHasher13::new_with_key(&key);
        PathMtus { paths: HashTable::with_capacity(paths_max), hasher, paths_max }
    }

    /// Whether nothing is known.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The MTU in bytes of the path to `dst` over a link of `link_mtu`.
    #[inline(always)]
    pub fn get(&self, now: Instant, dst: Address, link_mtu: u16) -> u16 {
        if self.paths.is_empty() { link_mtu } else { self.find(now, dst, link_mtu) }
    }

    #[inline(never)]
    fn find(&self, now: Instant, dst: Address, link_mtu: u16) -> u16 {
        let path = self.paths.find(hash_of(self.hasher, dst), |path| path.dst == dst && now < path.expires);
        path.map_or(link_mtu, |path| path.mtu.min(link_mtu))
    }

    /// A router said that packets to `dst` must not be larger than `mtu` bytes. Returns the new path MTU if it is lower than
    /// before: such a message never raises it (RFC 8201 §4).
    pub fn lower(&mut self, now: Instant, dst: Address, mtu: u32, link_mtu: u16) -> Option<u16> {
        // RFC 8201 §4: less than IPv6's minimum is discarded. Of IPv4 no link that matters has less than our floor, which
        // keeps forgers from making us send crumbs.
        let mtu = match dst.is_v4() {
            true => u16::try_from(mtu).ok()?.max(FLOOR_V4),
            false => u16::try_from(mtu).ok().filter(|&mtu| mtu >= FLOOR_V6)?,
        };
        if mtu >= self.get(now, dst, link_mtu) {
            return None;
        }
        let (hash, hasher, expires) = (hash_of(self.hasher, dst), self.hasher, now + LIFETIME);
        if let Some(path) = self.paths.find_mut(hash, |path| path.dst == dst) {
            (path.mtu, path.expires) = (mtu, expires);
            return Some(mtu);
        }
        if self.paths.len() >= self.paths_max {
            self.paths.retain(|path| now < path.expires);
        }
        if self.paths.len() >= self.paths_max {
            let victim = self.paths.iter().next().map(|path| path.dst);
            if let Some(victim) = victim
                && let Ok(found) = self.paths.find_entry(hash_of(hasher, victim), |path| path.dst == victim)
            {
                found.remove();
            }
        }
        self.paths.insert_unique(hash, Path { dst, mtu, expires }, |path| hash_of(hasher, path.dst));
        Some(mtu)
    }
}

#[derive(Clone, Copy, Debug)]
struct Path {
    dst: Address,
    mtu: u16,
    expires: Instant,
}

/// RFC 1191 §6.3, RFC 8201 §5.3: after ten minutes the path may have become better.
const LIFETIME: Duration = Duration::from_secs(600);
/// 512 bytes of payload and the longest usual headers.
const FLOOR_V4: u16 = 552;
/// RFC 8200 §5.
const FLOOR_V6: u16 = 1280;

#[cfg(test)]
mod tests;
