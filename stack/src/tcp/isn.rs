//! Initial sequence numbers and timestamp offsets (RFC 6528, RFC 7323 §5.4).

use siphasher::sip::SipHasher24;

use crate::demux::flow::FlowKey;
use crate::time::Instant;
use crate::wire::tcp::Seq;

/// The secret that keeps initial sequence numbers unguessable.
#[derive(Clone)]
pub struct IsnSecret {
    prf: SipHasher24,
    offset: [u64; 2],
}

impl IsnSecret {
    /// Secrets of 16 bytes each, which must come from the operating system's random source.
    pub fn new(key: &[u8; 16], offset: [u64; 2]) -> IsnSecret {
        IsnSecret { prf: SipHasher24::new_with_key(key), offset: [offset[0], offset[1] | 1] }
    }

    /// ISN = M + F(connection, secret), where M ticks every 4 µs (RFC 6528 §3).
    #[inline]
    pub fn generate(&self, key: &FlowKey, now: Instant) -> Seq {
        let ports = (u32::from(key.local_port) << 16 | u32::from(key.remote_port)).to_be_bytes();
        let hash = match key.local.is_v4() {
            true => {
                let mut bytes = [0; 12];
                bytes[..4].copy_from_slice(&key.local.as_v4());
                bytes[4..8].copy_from_slice(&key.remote.as_v4());
                bytes[8..].copy_from_slice(&ports);
                self.prf.hash(&bytes)
            }
            false => {
                let mut bytes = [0; 36];
                bytes[..16].copy_from_slice(key.local.octets());
                bytes[16..32].copy_from_slice(key.remote.octets());
                bytes[32..].copy_from_slice(&ports);
                self.prf.hash(&bytes)
            }
        };
        Seq((now.as_micros() / 4) as u32).add(hash as u32)
    }

    /// What only we can compute of a connection and three words. It has nothing in common with the connection's number.
    #[cold]
    pub fn of_connection(&self, key: &FlowKey, words: [u32; 3]) -> u64 {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(key.local.octets());
        bytes[16..32].copy_from_slice(key.remote.octets());
        let ports = u32::from(key.local_port) << 16 | u32::from(key.remote_port);
        for (at, word) in [ports, words[0], words[1], words[2]].iter().enumerate() {
            bytes[32 + 4 * at..][..4].copy_from_slice(&word.to_be_bytes());
        }
        self.prf.hash(&bytes)
    }

    /// What is added to our clock in the connection's timestamps, the same for each of its records. It hides the clock, not a
    /// sequence number: a secret multiplication of the flow's hash is enough.
    #[inline]
    pub fn timestamp_offset(&self, flow_hash: u64) -> u32 {
        let product = u128::from(flow_hash ^ self.offset[0]) * u128::from(self.offset[1]);
        (product as u64 ^ (product >> 64) as u64) as u32
    }
}

impl core::fmt::Debug for IsnSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IsnSecret(..)")
    }
}

#[cfg(test)]
mod tests;
