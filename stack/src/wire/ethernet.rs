//! Ethernet II headers with at most one IEEE 802.1Q tag.

use super::address::Mac;
use crate::metrics::DropReason;

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Where the frame goes.
    pub dst: Mac,
    /// Where it comes from.
    pub src: Mac,
    /// The VLAN, 1 to 4094. A frame tagged with VLAN 0 carries a priority only and counts as untagged (IEEE 802.1Q §9.6).
    pub vlan: Option<u16>,
    /// What it carries.
    pub ethertype: u16,
}

impl Ethernet {
    /// Reads a header; its length in bytes comes with it. A second tag is left as the EtherType.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], or [`DropReason::Vlan`] for the reserved VLAN 4095.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<(Ethernet, usize), DropReason> {
        let Some((&dst, rest)) = frame.split_first_chunk() else { return Err(DropReason::Truncated) };
        let Some((&src, rest)) = rest.split_first_chunk() else { return Err(DropReason::Truncated) };
        let Some((&ethertype, rest)) = rest.split_first_chunk() else { return Err(DropReason::Truncated) };
        let ethertype = u16::from_be_bytes(ethertype);
        let mut ethernet = Ethernet { dst: Mac(dst), src: Mac(src), vlan: None, ethertype };
        if ethernet.ethertype != ETHERTYPE_VLAN {
            return Ok((ethernet, HEADER_LEN));
        }
        let Some(&[c0, c1, t0, t1]) = rest.first_chunk() else { return Err(DropReason::Truncated) };
        ethernet.vlan = match u16::from_be_bytes([c0, c1]) & 0xfff {
            0 => None,
            0xfff => return Err(DropReason::Vlan),
            vlan => Some(vlan),
        };
        ethernet.ethertype = u16::from_be_bytes([t0, t1]);
        Ok((ethernet, HEADER_LEN + TAG_LEN))
    }

    /// The length in bytes when written: 14, or 18 with a tag.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        if self.vlan.is_some() { HEADER_LEN + TAG_LEN } else { HEADER_LEN }
    }

    /// Writes the header into the first [`len`](Ethernet::len) bytes of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        let ([t0, t1], out) = (self.ethertype.to_be_bytes(), &mut out[..self.len()]);
        out[..6].copy_from_slice(&self.dst.0);
        out[6..12].copy_from_slice(&self.src.0);
        match self.vlan {
            None => out[12..].copy_from_slice(&[t0, t1]),
            Some(vlan) => {
                let ([v0, v1], [c0, c1]) = (ETHERTYPE_VLAN.to_be_bytes(), vlan.to_be_bytes());
                out[12..].copy_from_slice(&[v0, v1, c0, c1, t0, t1]);
            }
        }
    }
}

/// An untagged header, in bytes.
pub const HEADER_LEN: usize = 14;
/// An 802.1Q tag, in bytes.
pub const TAG_LEN: usize = 4;
/// IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// An IEEE 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

#[cfg(test)]
mod tests;
