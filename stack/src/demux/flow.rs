//! The key of a flow, with the keyed hash that finds it.

use core::fmt;

use crate::wire::address::Address;

/// The two ends of a connection, as this host sees them.
#[derive(Clone, Copy, Default, Eq)]
pub struct FlowKey {
    /// Our address.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl FlowKey {
    /// Both ports: the peer's, and below it ours.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        (self.remote_port as u32) << 16 | self.local_port as u32
    }
}

impl PartialEq for FlowKey {
    /// Most keys that are compared are equal: all words are looked at together, without a branch for each.
    #[inline]
    fn eq(&self, other: &FlowKey) -> bool {
        let differing = |a: &Address, b: &Address| (a.words().0 ^ b.words().0) | (a.words().1 ^ b.words().1);
        let ports = u64::from(self.ports() ^ other.ports());
        differing(&self.local, &other.local) | differing(&self.remote, &other.remote) | ports == 0
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{} <-> [{}]:{}", self.local, self.local_port, self.remote, self.remote_port)
    }
}

/// A hash whose values nobody can foretell or steer who does not know the secret.
///
/// Each step multiplies two words to 128 bits and folds the halves together. Every factor that a peer can choose is
/// masked with a secret first, so whether two of its keys meet depends on the secret: about one pair in 2⁶⁰ does.
#[derive(Clone, Debug)]
pub struct FlowHasher {
    masks: [u64; 4],
    finish: [u64; 2],
}

impl FlowHasher {
    /// A hash under this secret: random words from the operating system.
    pub const fn new(secret: [u64; 4]) -> FlowHasher {
        // Constants (the fraction of π) keep a poor secret, such as a test's zeros, from making poor factors.
        let masks = [secret[0] ^ PI[0], secret[1] ^ PI[1], secret[2] ^ PI[2], secret[3] ^ PI[3]];
        let finish = [fold(masks[0], masks[2]) ^ PI[4], fold(masks[1], masks[3]) ^ PI[5] | 1];
        FlowHasher { masks, finish }
    }

    /// The hash of a flow. All its bits are equally good.
    #[inline]
    pub const fn hash(&self, key: &FlowKey) -> u64 {
        // Both ends are of one family.
        match key.local.is_v4() {
            true => self.hash_v4(key.local.as_v4(), key.remote.as_v4(), key.ports()),
            false => self.hash_v6(key),
        }
    }

    /// The hash of an IPv4 flow: two addresses are one word.
    #[inline(always)]
    pub const fn hash_v4(&self, local: [u8; 4], remote: [u8; 4], ports: u32) -> u64 {
        let addresses = (u32::from_ne_bytes(local) as u64) << 32 | u32::from_ne_bytes(remote) as u64;
        self.finish(fold(addresses ^ self.masks[0], ports as u64 ^ self.masks[1]))
    }

    #[inline(never)]
    const fn hash_v6(&self, key: &FlowKey) -> u64 {
        let (local, remote) = (key.local.words(), key.remote.words());
        let a = fold(local.0 ^ self.masks[0], remote.0 ^ self.masks[1]);
        let b = fold(local.1 ^ self.masks[2], remote.1 ^ self.masks[3]);
        self.finish(fold(a ^ key.ports() as u64, b))
    }

    #[inline(always)]
    const fn finish(&self, hash: u64) -> u64 {
        fold(hash ^ self.finish[0], self.finish[1])
    }
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

const PI: [u64; 6] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
];

const _: () = assert!(size_of::<FlowKey>() == 36);

#[cfg(test)]
mod tests;
