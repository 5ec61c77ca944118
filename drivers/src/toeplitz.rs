//! The Toeplitz hash, by which a device's receive-side scaling chooses a queue.
//!
//! The hash is linear: the hash of the input is the exclusive or of the hashes of its nibbles, each at its place. Those are
//! tabulated once from the key; a table is one cache line. It picks a core, never a hash table's bucket: whoever knows the
//! key can make collisions at will.

use alloc::boxed::Box;

use crate::driver::Rss;

/// The Toeplitz hash under one key.
#[derive(Clone)]
pub struct Toeplitz {
    /// Hash of each value of each nibble of the input, the high nibble of byte 0 first.
    tables: Box<[Line; INPUT_MAX * 2]>,
    /// The key repeats every 16 bits, so the hash of the input is that of the exclusive or of its 16-bit words.
    folds: bool,
}

impl Toeplitz {
    /// The hash under `key`, as devices report it: 40 or 52 bytes. A shorter one counts as followed by zeros.
    pub fn new(key: &[u8]) -> Toeplitz {
        let bit = |i: usize| key.get(i / 8).is_some_and(|byte| byte & (0x80 >> (i % 8)) != 0);
        let mut tables = Box::new([Line([0; 16]); INPUT_MAX * 2]);
        for (place, table) in tables.iter_mut().enumerate() {
            for (value, hash) in table.0.iter_mut().enumerate() {
                for set in (0..4).filter(|set| value & (8 >> set) != 0) {
                    // An input bit that is set contributes the 32 bits of the key that begin at its place.
                    let first = place * 4 + set;
                    *hash ^= (first..first + 32).fold(0, |word, i| word << 1 | bit(i) as u32);
                }
            }
        }
        let folds = (0..INPUT_MAX * 8 + 16).all(|i| bit(i) == bit(i + 16));
        Toeplitz { tables, folds }
    }

    /// The hash under [`SYMMETRIC_KEY`]: both directions of a flow hash alike.
    pub fn symmetric() -> Toeplitz {
        Toeplitz::new(&SYMMETRIC_KEY)
    }

    /// The hash of `input`. Panics if it is longer than two IPv6 addresses and two ports, 36 bytes.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        if self.folds && input.len().is_multiple_of(2) {
            let folded = input.chunks_exact(2).fold(0, |sum, pair| sum ^ u16::from_be_bytes([pair[0], pair[1]]));
            return self.sum(&folded.to_be_bytes());
        }
        self.sum(input)
    }

    /// The hash of a flow over IPv4.
    #[inline]
    pub fn hash_v4(&self, src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> u32 {
        let mut input = [0; 12];
        input[..4].copy_from_slice(&src);
        input[4..8].copy_from_slice(&dst);
        input[8..10].copy_from_slice(&sport.to_be_bytes());
        input[10..].copy_from_slice(&dport.to_be_bytes());
        self.hash(&input)
    }

    /// The hash of a flow over IPv6.
    #[inline]
    pub fn hash_v6(&self, src: [u8; 16], dst: [u8; 16], sport: u16, dport: u16) -> u32 {
        let mut input = [0; 36];
        input[..16].copy_from_slice(&src);
        input[16..32].copy_from_slice(&dst);
        input[32..34].copy_from_slice(&sport.to_be_bytes());
        input[34..].copy_from_slice(&dport.to_be_bytes());
        self.hash(&input)
    }

    /// The hash of an Ethernet frame as devices compute it: over addresses and ports of an unfragmented TCP segment, over the
    /// addresses of any other IP packet, `None` when it is not IP or cut short. One VLAN tag may be there.
    pub fn of_packet(&self, packet: &[u8]) -> Option<u32> {
        let ethertype = u16::from_be_bytes(*packet.get(12..)?.first_chunk()?);
        let (ethertype, ip) = match ethertype {
            VLAN => (u16::from_be_bytes(*packet.get(16..)?.first_chunk()?), &packet[18..]),
            _ => (ethertype, &packet[14..]),
        };
        match ethertype {
            IPV4 => self.of_ipv4(ip),
            IPV6 => self.of_ipv6(ip),
            _ => None,
        }
    }

    fn of_ipv4(&self, ip: &[u8]) -> Option<u32> {
        let header: &[u8; 20] = ip.first_chunk()?;
        let header_len = (header[0] & 15) as usize * 4;
        // RFC 791 §3.1: more fragments, or an offset.
        let fragment = header[6] & 0x3f != 0 || header[7] != 0;
        if header[9] != TCP || fragment || header_len < 20 {
            return Some(self.hash(&header[12..20]));
        }
        let mut input = [0; 12];
        input[..8].copy_from_slice(&header[12..20]);
        input[8..].copy_from_slice(ip.get(header_len..)?.get(..4)?);
        Some(self.hash(&input))
    }

    fn of_ipv6(&self, ip: &[u8]) -> Option<u32> {
        // Extension headers are not looked through; a fragment header is one.
        match ip.get(6)? {
            &TCP => Some(self.hash(ip.get(8..44)?)),
            _ => Some(self.hash(ip.get(8..40)?)),
        }
    }

    #[inline]
    fn sum(&self, input: &[u8]) -> u32 {
        assert!(input.len() <= INPUT_MAX, "two IPv6 addresses and two ports are the longest input");
        let pairs = self.tables.chunks_exact(2);
        input
            .iter()
            .zip(pairs)
            .fold(0, |hash, (byte, pair)| hash ^ pair[0].0[(byte >> 4) as usize] ^ pair[1].0[(byte & 15) as usize])
    }
}

impl core::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Toeplitz").field("folds", &self.folds).finish_non_exhaustive()
    }
}

impl Rss {
    /// Both directions of a flow reach the same queue, and the hashes are dealt out evenly.
    pub fn symmetric(queues: u16) -> Rss {
        Rss { key: SYMMETRIC_KEY.into(), table: (0..RSS_TABLE_LEN).map(|i| i % queues.max(1)).collect() }
    }

    /// The queue of a hash.
    #[inline]
    pub fn queue(&self, hash: u32) -> u16 {
        match self.table.len() {
            0 => 0,
            len => self.table[hash as usize % len],
        }
    }
}

/// Repeats every 16 bits, so that swapping two addresses or two ports changes nothing.
pub const SYMMETRIC_KEY: [u8; 52] = {
    let mut key = [0x6d; 52];
    let mut i = 1;
    while i < key.len() {
        key[i] = 0x5a;
        i += 2;
    }
    key
};

/// The 16 values of one nibble, on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u32; 16]);

/// Two IPv6 addresses and two ports.
const INPUT_MAX: usize = 36;
/// The length that common devices have.
const RSS_TABLE_LEN: u16 = 128;
const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;

#[cfg(test)]
mod tests;
