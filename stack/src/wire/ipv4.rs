//! IPv4 headers (RFC 791, RFC 1122 §3.2.1).

use super::address::Address;
use super::checksum::{self, Sum};
use crate::metrics::DropReason;

/// An IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4 {
    /// The source address.
    pub src: Address,
    /// The destination address.
    pub dst: Address,
    /// What it carries.
    pub protocol: u8,
    /// DSCP (RFC 2474) in the upper six bits, ECN (RFC 3168) in the lower two.
    pub traffic_class: u8,
    /// Time to live.
    pub hop_limit: u8,
    /// The header's length in bytes: 20 to 60 when read, 20 when written.
    pub header_len: u8,
    /// The packet's length in bytes, header included.
    pub total_len: u16,
}

impl Ipv4 {
    /// Reads the header of a whole packet; `bytes` may go on after its end (Ethernet's padding).
    ///
    /// # Errors
    /// [`DropReason::Truncated`], [`DropReason::IpHeader`], [`DropReason::IpChecksum`], [`DropReason::Fragment`], or
    /// [`DropReason::BadSource`] for a source address that no host may have.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Ipv4, DropReason> {
        let ipv4 = Ipv4::parse_quoted(bytes)?;
        if usize::from(ipv4.total_len) > bytes.len() {
            return Err(DropReason::Truncated);
        }
        let fixed = bytes.first_chunk::<HEADER_LEN>().ok_or(DropReason::Truncated)?;
        let mut sum = checksum::sum_array(Sum::ZERO, fixed);
        if usize::from(ipv4.header_len) > HEADER_LEN {
            let options = &bytes[HEADER_LEN..usize::from(ipv4.header_len)];
            sum = checksum::sum(sum, options);
            check_options(options)?;
        }
        if !checksum::is_valid(sum) {
            return Err(DropReason::IpChecksum);
        }
        if fixed[6] & MORE_FRAGMENTS != 0 {
            return Err(DropReason::Fragment);
        }
        if !ipv4.src.is_valid_source() {
            return Err(DropReason::BadSource);
        }
        Ok(ipv4)
    }

    /// Reads the header that an ICMP error quotes: the rest of its packet may be missing, and a router may have changed it
    /// without mending the checksum.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], [`DropReason::IpHeader`], or [`DropReason::Fragment`] for all fragments but the first.
    #[inline]
    pub(super) fn parse_quoted(bytes: &[u8]) -> Result<Ipv4, DropReason> {
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else { return Err(DropReason::Truncated) };
        let header_len = (fixed[0] & 0xf) * 4;
        let total_len = u16::from_be_bytes([fixed[2], fixed[3]]);
        if fixed[0] >> 4 != 4 || usize::from(header_len) < HEADER_LEN || total_len < u16::from(header_len) {
            return Err(DropReason::IpHeader);
        }
        if bytes.len() < usize::from(header_len) {
            return Err(DropReason::Truncated);
        }
        if u16::from_be_bytes([fixed[6], fixed[7]]) & FRAGMENT_OFFSET != 0 {
            return Err(DropReason::Fragment);
        }
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
        Ok(Ipv4 {
            src: Address::v4([s0, s1, s2, s3]),
            dst: Address::v4([d0, d1, d2, d3]),
            protocol: fixed[9],
            traffic_class: fixed[1],
            hop_limit: fixed[8],
            header_len,
            total_len,
        })
    }

    /// Writes a header without options into `out`, the checksum included. It is atomic: DF is set, and then the identification
    /// means nothing and is 0 (RFC 6864 §4.1).
    #[inline(always)]
    pub fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        out[0] = VERSION_AND_LEN;
        out[1] = self.traffic_class;
        self.emit_rest(out.last_chunk_mut().expect("the one is shorter than the other"));
    }

    /// [`emit`](Self::emit)s what comes after version, length and traffic class.
    #[inline(always)]
    pub(super) fn emit_rest(&self, out: &mut [u8; HEADER_LEN - 2]) {
        let (class, len) = (u32::from(self.traffic_class), u32::from(self.total_len));
        let (hops, protocol) = (u32::from(self.hop_limit), u32::from(self.protocol));
        let words =
            [u32::from(VERSION_AND_LEN) << 24 | class << 16 | len, DONT_FRAGMENT << 8, hops << 24 | protocol << 16];
        let sum = checksum::plus_words(checksum::addresses_v4(&self.src, &self.dst), words);
        out[..8].copy_from_slice(
            &(u64::from(len) << 48 | u64::from(words[1]) << 16 | u64::from(words[2] >> 16)).to_be_bytes(),
        );
        out[8..10].copy_from_slice(&checksum::finish_header(sum).to_be_bytes());
        out[10..14].copy_from_slice(&self.src.as_v4());
        out[14..].copy_from_slice(&self.dst.as_v4());
    }
}

/// Whether a host may send from this address: [`Address::is_valid_source`].
#[inline(always)]
pub const fn is_valid_source(src: [u8; 4]) -> bool {
    // 224/4 and above are multicast, reserved or broadcast.
    src[0].wrapping_sub(1) < 223 && src[0] != 127
}

/// Options are passed over, but for source routes: such a packet may have its last destination still before it (RFC 7126 §4.3).
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    loop {
        options = match *options {
            [] | [END, ..] => return Ok(()),
            [NOP, ref rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(DropReason::IpHeader),
            [_, len, ..] if len >= 2 && usize::from(len) <= options.len() => &options[usize::from(len)..],
            _ => return Err(DropReason::IpHeader),
        }
    }
}

/// A header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// The first octet of a header without options.
pub(super) const VERSION_AND_LEN: u8 = 0x45;

const DONT_FRAGMENT: u32 = 0x40;
const MORE_FRAGMENTS: u8 = 0x20;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const END: u8 = 0;
const NOP: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

#[cfg(test)]
mod tests;
