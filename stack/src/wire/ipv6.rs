//! IPv6 headers and the extension headers that may be passed over (RFC 8200).

use super::address::Address;
use crate::metrics::DropReason;

/// An IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6 {
    /// The source address.
    pub src: Address,
    /// The destination address.
    pub dst: Address,
    /// What it carries, after any extension headers.
    pub protocol: u8,
    /// DSCP (RFC 2474) in the upper six bits, ECN (RFC 3168) in the lower two.
    pub traffic_class: u8,
    /// The flow label: 20 bits (RFC 6437).
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// The length in bytes of the header and the extension headers: 40 when written.
    pub header_len: u16,
    /// The packet's length in bytes, headers included.
    pub total_len: u16,
}

impl Ipv6 {
    /// Reads the headers of a whole packet; `bytes` may go on after its end (Ethernet's padding).
    ///
    /// # Errors
    /// [`DropReason::Truncated`], [`DropReason::IpHeader`], [`DropReason::Fragment`], [`DropReason::ExtensionHeader`], or
    /// [`DropReason::BadSource`] and [`DropReason::NotOurAddress`] for addresses that no packet may carry.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Ipv6, DropReason> {
        let mut ipv6 = Ipv6::parse_fixed(bytes)?;
        let Some(packet) = bytes.get(..usize::from(ipv6.total_len)) else { return Err(DropReason::Truncated) };
        // RFC 4942 §2.2: a v4-mapped address belongs to no packet.
        if ipv6.src.is_v4() || !ipv6.src.is_valid_source() {
            return Err(DropReason::BadSource);
        }
        if ipv6.dst.is_v4() {
            return Err(DropReason::NotOurAddress);
        }
        if is_extension(ipv6.protocol) {
            ipv6.pass_extensions(packet)?;
        }
        Ok(ipv6)
    }

    /// Reads the headers that an ICMPv6 error quotes: the rest of their packet may be missing.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], [`DropReason::IpHeader`], [`DropReason::Fragment`] or [`DropReason::ExtensionHeader`].
    pub(super) fn parse_quoted(bytes: &[u8]) -> Result<Ipv6, DropReason> {
        let mut ipv6 = Ipv6::parse_fixed(bytes)?;
        ipv6.pass_extensions(bytes)?;
        Ok(ipv6)
    }

    #[inline]
    fn parse_fixed(bytes: &[u8]) -> Result<Ipv6, DropReason> {
        let Some((&[v0, v1, v2, v3, len0, len1, protocol, hop_limit], rest)) = bytes.split_first_chunk() else {
            return Err(DropReason::Truncated);
        };
        let Some((&src, rest)) = rest.split_first_chunk() else { return Err(DropReason::Truncated) };
        let Some(&dst) = rest.first_chunk() else { return Err(DropReason::Truncated) };
        let start = u32::from_be_bytes([v0, v1, v2, v3]);
        let Some(total_len) = u16::from_be_bytes([len0, len1]).checked_add(HEADER_LEN as u16) else {
            return Err(DropReason::IpHeader);
        };
        if start >> 28 != 6 {
            return Err(DropReason::IpHeader);
        }
        Ok(Ipv6 {
            src: Address::v6(src),
            dst: Address::v6(dst),
            protocol,
            traffic_class: (start >> 20) as u8,
            flow_label: start & 0xf_ffff,
            hop_limit,
            header_len: HEADER_LEN as u16,
            total_len,
        })
    }

    /// Goes over extension headers up to what they carry. RFC 8200 §4.1: each kind occurs at most once, destination
    /// options twice, hop-by-hop options first; more than [`MAX_EXTENSIONS`] are refused (RFC 8504 §5.3).
    #[cold]
    fn pass_extensions(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let mut at = HEADER_LEN;
        for nth in 0..=MAX_EXTENSIONS {
            if !is_extension(self.protocol) {
                // The headers ended inside the packet, whose length is a u16.
                self.header_len = at as u16;
                return Ok(());
            }
            let Some(header) = packet.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
                return Err(DropReason::Truncated);
            };
            let [next, len, third, fourth, ..] = *header;
            let mut end = at + 8 * (usize::from(len) + 1);
            match self.protocol {
                HOP_BY_HOP if nth > 0 => return Err(DropReason::ExtensionHeader),
                HOP_BY_HOP | DESTINATION_OPTIONS => {
                    check_options(packet.get(at + 2..end).ok_or(DropReason::Truncated)?)?;
                }
                // RFC 8200 §4.4: with no segments left it is ignored. `fourth` is Segments Left.
                ROUTING if fourth == 0 => {}
                ROUTING => return Err(DropReason::ExtensionHeader),
                // RFC 6946 §4: an atomic fragment is a whole packet. It has a fixed length.
                _ if u16::from_be_bytes([third, fourth]) & FRAGMENT_OFFSET_AND_MORE == 0 => end = at + 8,
                _ => return Err(DropReason::Fragment),
            }
            if end > packet.len() {
                return Err(DropReason::Truncated);
            }
            (self.protocol, at) = (next, end);
        }
        Err(DropReason::ExtensionHeader)
    }

    /// Writes a header without extensions into `out`.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        let start = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        out[..4].copy_from_slice(&start.to_be_bytes());
        out[4..6].copy_from_slice(&(self.total_len - HEADER_LEN as u16).to_be_bytes());
        out[6] = self.protocol;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.src.octets());
        out[24..].copy_from_slice(&self.dst.octets());
    }
}

/// RFC 8200 §4.2: the two highest bits of an unknown option's type say whether the packet may be taken without it.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    loop {
        options = match *options {
            [] => return Ok(()),
            [PAD1, ref rest @ ..] => rest,
            [kind, len, ref rest @ ..] if kind & 0xc0 == 0 => {
                rest.get(usize::from(len)..).ok_or(DropReason::ExtensionHeader)?
            }
            _ => return Err(DropReason::ExtensionHeader),
        }
    }
}

#[inline]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// A header without extensions, in bytes.
pub const HEADER_LEN: usize = 40;
/// How many extension headers a packet may have: one of each that RFC 8200 §4.1 lists, destination options twice.
pub const MAX_EXTENSIONS: usize = 5;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT_OFFSET_AND_MORE: u16 = 0xfff9;
const PAD1: u8 = 0;

#[cfg(test)]
mod tests;
