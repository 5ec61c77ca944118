//! Initial sequence numbers and timestamp offsets (RFC 6528, RFC 7323 §5.4).

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::demux::flow::FlowKey;
use crate::time::Instant;
use crate::wire::tcp::Seq;

/// The secret that keeps initial sequence numbers unguessable.
#[derive(Clone)]
pub struct IsnSecret {
    prf: Prf,
    offset: [u64; 2],
}

impl IsnSecret {
    /// Secrets of 16 bytes each, which must come from the operating system's random source.
    pub fn new(key: &[u8; 16], offset: [u64; 2]) -> IsnSecret {
        IsnSecret { prf: Prf(Aes128::new(&Array(*key))), offset: [offset[0], offset[1] | 1] }
    }

    /// ISN = M + F(connection, secret), where M ticks every 4 µs (RFC 6528 §3).
    #[inline]
    pub fn generate(&self, key: &FlowKey, now: Instant) -> Seq {
        match key.local.is_v4() {
            true => self.generate_v4(key, now),
            false => clock(now).add(self.of_v6(key) as u32),
        }
    }

    /// [`generate`](Self::generate) between two IPv4 addresses.
    #[inline(always)]
    pub fn generate_v4(&self, key: &FlowKey, now: Instant) -> Seq {
        let words = [key.local.as_v4(), key.remote.as_v4()].map(u32::from_ne_bytes);
        clock(now).add(self.prf.of([block([words[0], words[1], ports(key), Use::IsnV4 as u32])]) as u32)
    }

    #[cold]
    fn of_v6(&self, key: &FlowKey) -> u64 {
        let first = block([0, 0, ports(key), Use::IsnV6 as u32]);
        self.prf.of([first, key.local.octets(), key.remote.octets()])
    }

    /// What only we can compute of a connection and three words. It has nothing in common with the connection's number.
    #[cold]
    pub fn of_connection(&self, key: &FlowKey, words: [u32; 3]) -> u64 {
        let first = block([words[0], 0, ports(key), Use::Words as u32]);
        let last = block([words[1], words[2], 0, 0]);
        self.prf.of([first, key.local.octets(), key.remote.octets(), last])
    }

    /// What is added to our clock in the connection's timestamps, the same for each of its records. It hides the clock, not a
    /// sequence number: a secret multiplication of the flow's hash is enough.
    #[inline]
    pub fn timestamp_offset(&self, flow_hash: u64) -> u32 {
        let product = u128::from(flow_hash ^ self.offset[0]) * u128::from(self.offset[1]);
        (product as u64 ^ (product >> 64) as u64) as u32
    }
}

/// A pseudo-random function of blocks: their CBC-MAC under AES, which is one instruction a round on most processors. That is
/// one as long as no message begins like another that is longer (Bellare, Kilian, Rogaway 2000): the first block says how long it is.
#[derive(Clone)]
struct Prf(Aes128);

impl Prf {
    #[inline]
    fn of<const N: usize>(&self, blocks: [[u8; 16]; N]) -> u64 {
        let chained = blocks.into_iter().fold(0, |chained: u128, block| {
            let mut block = Array((chained ^ u128::from_ne_bytes(block)).to_ne_bytes());
            self.0.encrypt_block(&mut block);
            u128::from_ne_bytes(block.0)
        });
        chained as u64
    }
}

/// The last word of a message's first block: what it is for, and so how long it is.
enum Use {
    IsnV4 = 1,
    IsnV6 = 2,
    Words = 3,
}

/// M: it ticks every 4 µs.
#[inline]
const fn clock(now: Instant) -> Seq {
    Seq((now.as_micros() / 4) as u32)
}

#[inline]
const fn block([a, b, c, d]: [u32; 4]) -> [u8; 16] {
    (a as u128 | (b as u128) << 32 | (c as u128) << 64 | (d as u128) << 96).to_ne_bytes()
}

#[inline]
const fn ports(key: &FlowKey) -> u32 {
    (key.local_port as u32) << 16 | key.remote_port as u32
}

impl core::fmt::Debug for IsnSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IsnSecret(..)")
    }
}

#[cfg(test)]
mod tests;
