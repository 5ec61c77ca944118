//! The short way to read what nearly every packet is: TCP in IPv4 without IP options, whole, untagged, with nothing wrong.
//!
//! What it does not know it leaves to [`packet::read`](super::packet::read), which says what else it is, or what is wrong with it.

use super::checksum::{self, Demand, Sum};
use super::ethernet::{self, ETHERTYPE_IPV4};
use super::tcp::{self, Segment};
use super::{at, ipv4};

/// A packet that is usual as far as its first bytes say.
#[derive(Clone, Copy, Debug)]
pub struct Usual<'a> {
    headers: &'a [u8; HEADERS_LEN],
    /// TCP's header and payload.
    bytes: &'a [u8],
}

/// Between whom a usual packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Whom the frame is for, as [`Mac::word`](super::address::Mac::word).
    pub dst_mac: u64,
    /// The source address.
    pub src: [u8; 4],
    /// The destination address.
    pub dst: [u8; 4],
    /// The source's port, and below it the destination's.
    pub ports: u32,
}

impl<'a> Usual<'a> {
    /// Looks at a frame.
    #[inline(always)]
    pub fn new(frame: &'a [u8]) -> Option<Usual<'a>> {
        let headers = frame.first_chunk::<HEADERS_LEN>()?;
        let ip_len = usize::from(u16::from_be_bytes(at(headers, IP + 2)));
        let begins_as_usual = u64::from_ne_bytes(at(headers, IP)) & MASK == BEGINNING;
        if u16::from_be_bytes(at(headers, 12)) != ETHERTYPE_IPV4
            || headers[IP + 9] != tcp::PROTOCOL
            || !begins_as_usual
            || ip_len < ipv4::HEADER_LEN + tcp::HEADER_LEN
        {
            return None;
        }
        frame.get(L4_OFFSET..IP + ip_len).map(|bytes| Usual { headers, bytes })
    }

    /// Between whom it goes.
    #[inline(always)]
    pub fn ends(&self) -> Ends {
        Ends {
            // The sender's address begins in the same eight bytes.
            dst_mac: u64::from_le_bytes(at(self.headers, 0)) << 16,
            src: at(self.headers, IP + 12),
            dst: at(self.headers, IP + 16),
            ports: u32::from_be_bytes(at(self.headers, L4_OFFSET)),
        }
    }

    /// Reads its TCP header into `segment`, if it is valid; TCP's checksum is looked at as `demanded`.
    ///
    /// Where this returns `None`, what `segment` holds means nothing.
    #[inline(always)]
    pub fn read(&self, demanded: Demand, segment: &mut Segment) -> Option<()> {
        let ip: &[u8; ipv4::HEADER_LEN] = self.headers[IP..].first_chunk()?;
        let is_valid = ipv4::is_valid_source(at(ip, 12)) && checksum::is_valid(checksum::sum_array(Sum::ZERO, ip));
        let pseudo_header = checksum::pseudo_header_inside(ip);
        // Nearly every segment without payload has timestamps and nothing else.
        let read = match self.bytes.as_array() {
            _ if !is_valid => return None,
            Some(header) if tcp::is_stamped(header) => {
                demanded.is_met(checksum::sum_array(pseudo_header, header)).then_some(())?;
                tcp::read_stamped(header, segment)
            }
            _ => {
                demanded.is_met(checksum::sum(pseudo_header, self.bytes)).then_some(())?;
                tcp::read(self.bytes, segment)
            }
        };
        read.ok()
    }
}

/// Where in a usual packet the IP header starts.
const IP: usize = ethernet::HEADER_LEN;
/// Where in a usual packet the TCP header starts.
pub const L4_OFFSET: usize = IP + ipv4::HEADER_LEN;
const HEADERS_LEN: usize = L4_OFFSET + tcp::HEADER_LEN;
/// The first eight bytes of an IP header without options, of a packet that is whole: its version and length, and no fragment's
/// offset or flag. Whether it may be cut to fragments does not matter, nor what else is here.
const BEGINNING: u64 = u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
const MASK: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, !DONT_FRAGMENT, 0xff]);
const DONT_FRAGMENT: u8 = 0x40;

#[cfg(test)]
mod tests;
