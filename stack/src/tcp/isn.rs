//! Initial sequence numbers and timestamp offsets (RFC 6528, RFC 7323 §5.4).

use core::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::demux::flow::FlowKey;
use crate::time::Instant;
use crate::wire::tcp::Seq;

/// The secret that keeps initial sequence numbers unguessable.
#[derive(Clone)]
pub struct IsnSecret(SipHasher24);

impl IsnSecret {
    /// A secret of 16 bytes, which must come from the operating system's random source.
    pub fn new(key: &[u8; 16]) -> IsnSecret {
        IsnSecret(SipHasher24::new_with_key(key))
    }

    /// ISN = M + F(connection, secret), where M ticks every 4 µs (RFC 6528 §3), and the connection's timestamp offset.
    pub fn generate(&self, key: &FlowKey, now: Instant) -> (Seq, u32) {
        let mut bytes = [0; 36];
        bytes[..16].copy_from_slice(key.local.octets());
        bytes[16..32].copy_from_slice(key.remote.octets());
        bytes[32..34].copy_from_slice(&key.local_port.to_be_bytes());
        bytes[34..].copy_from_slice(&key.remote_port.to_be_bytes());
        let mut hasher = self.0;
        hasher.write(&bytes);
        let hash = hasher.finish128();
        (Seq((now.as_micros() / 4) as u32).add(hash.h1 as u32), hash.h2 as u32)
    }
}

impl core::fmt::Debug for IsnSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IsnSecret(..)")
    }
}

#[cfg(test)]
mod tests;
