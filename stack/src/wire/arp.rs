//! ARP for IPv4 over Ethernet (RFC 826).

use super::address::{Address, Mac};
use crate::metrics::DropReason;

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// ar$sha.
    pub sender_mac: Mac,
    /// ar$spa.
    pub sender: Address,
    /// ar$tha: means nothing in a request.
    pub target_mac: Mac,
    /// ar$tpa.
    pub target: Address,
}

/// ar$op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has its address.
    Reply,
}

impl Arp {
    /// Reads a packet; what follows it is Ethernet's padding.
    ///
    /// # Errors
    /// [`DropReason::ArpMalformed`] for what is short, not Ethernet and IPv4, of another operation, or sent by a group address.
    pub fn parse(bytes: &[u8]) -> Result<Arp, DropReason> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<8>() else { return Err(DropReason::ArpMalformed) };
        let operation = match *fixed {
            [0, 1, 8, 0, 6, 4, 0, 1] => Operation::Request,
            [0, 1, 8, 0, 6, 4, 0, 2] => Operation::Reply,
            _ => return Err(DropReason::ArpMalformed),
        };
        let Some((&sender_mac, rest)) = rest.split_first_chunk::<6>() else { return Err(DropReason::ArpMalformed) };
        let Some((&sender, rest)) = rest.split_first_chunk::<4>() else { return Err(DropReason::ArpMalformed) };
        let Some((&target_mac, rest)) = rest.split_first_chunk::<6>() else { return Err(DropReason::ArpMalformed) };
        let Some(&target) = rest.first_chunk::<4>() else { return Err(DropReason::ArpMalformed) };
        let arp = Arp {
            operation,
            sender_mac: Mac(sender_mac),
            sender: Address::v4(sender),
            target_mac: Mac(target_mac),
            target: Address::v4(target),
        };
        // RFC 1812 §3.3.2: do not believe a reply that claims a group address.
        if arp.sender_mac.is_multicast() || arp.sender_mac == Mac([0; 6]) {
            return Err(DropReason::ArpMalformed);
        }
        Ok(arp)
    }

    /// The packet as written.
    pub fn emit(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, if self.operation == Operation::Request { 1 } else { 2 }]);
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender.as_v4());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target.as_v4());
        out
    }
}

/// An ARP packet, in bytes.
pub const LEN: usize = 28;

#[cfg(test)]
mod tests;
