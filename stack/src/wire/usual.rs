//! The short way to read what nearly every packet is: TCP in IPv4 without IP options, whole, untagged, with nothing wrong.
//!
//! What it does not know it leaves to [`packet::read`](super::packet::read), which says what else it is, or what is wrong with it.

use super::checksum::{self, Demand, Sum};
use super::ethernet;
use super::tcp::{self, Segment};
use super::{at, ipv4};

/// Between whom a usual packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The source address.
    pub src: [u8; 4],
    /// The destination address.
    pub dst: [u8; 4],
    /// The source's port, and below it the destination's.
    pub ports: u32,
}

impl Ends {
    /// Whether a host may send from this address and these ports are ports: where it does, its flow's record says so.
    #[inline]
    pub fn may_be(&self) -> bool {
        ipv4::is_valid_source(self.src) && self.ports >> 16 != 0 && self.ports as u16 != 0
    }
}

/// Reads the TCP header of a usual frame to `dst_mac` ([`Mac::word`](super::address::Mac::word)) into `segment`; TCP's checksum is
/// looked at as `demanded`. Whether its [`Ends`] may be, and whether it is for us, is for the caller to say: the record of a flow says
/// that at once.
///
/// Where this returns `None`, what `segment` holds means nothing.
#[inline(always)]
pub fn read(frame: &[u8], dst_mac: u64, demanded: Demand, segment: &mut Segment) -> Option<Ends> {
    match read_bare(frame, dst_mac, demanded, segment) {
        None => read_any(frame, dst_mac, demanded, segment),
        ends => ends,
    }
}

/// Nearly every segment without payload has timestamps and nothing else, or is a SYN with all that those have: of them it is known
/// where everything is.
#[inline(always)]
fn read_bare(frame: &[u8], dst_mac: u64, demanded: Demand, segment: &mut Segment) -> Option<Ends> {
    let headers = frame.first_chunk::<STAMPED_END>()?;
    let addresses = u64::from_ne_bytes(at(headers, IP + 12));
    // First what tells them from those that carry something.
    match u16::from_ne_bytes(at(headers, IP + 2)) {
        STAMPED_IP_LEN => {
            let header = headers.last_chunk()?;
            if !tcp::read_stamped(header, segment) || !demanded.is_met(sum_of::<_, 5>(addresses, header)) {
                return None;
            }
        }
        USUAL_SYN_IP_LEN => {
            let header = frame.get(L4_OFFSET..)?.first_chunk()?;
            if !tcp::read_usual_syn(header, segment) || !demanded.is_met(sum_of::<_, 6>(addresses, header)) {
                return None;
            }
        }
        _ => return None,
    }
    if !is_whole_tcp_to(dst_mac, headers) {
        return None;
    }
    let [begins, ends] = [u64::from_ne_bytes(at(headers, IP)), u32::from_ne_bytes(at(headers, IP + 8)).into()];
    if !checksum::is_valid(checksum::sum_words([begins, ends, addresses])) {
        return None;
    }
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses.to_ne_bytes();
    let ports = u32::from_be_bytes(at(headers, L4_OFFSET));
    Some(Ends { src: [s0, s1, s2, s3], dst: [d0, d1, d2, d3], ports })
}

/// What is usual otherwise: mostly, it carries something. Cold, so that the others, which are shorter, do not jump around it.
#[cold]
#[inline(never)]
fn read_any(frame: &[u8], dst_mac: u64, demanded: Demand, segment: &mut Segment) -> Option<Ends> {
    let headers = frame.first_chunk::<HEADERS_LEN>()?;
    let ip_len = usize::from(u16::from_be_bytes(at(headers, IP + 2)));
    if ip_len < ipv4::HEADER_LEN + tcp::HEADER_LEN {
        return None;
    }
    let bytes = frame.get(L4_OFFSET..IP + ip_len)?;
    let ip: &[u8; ipv4::HEADER_LEN] = headers[IP..].first_chunk()?;
    let is_valid = is_whole_tcp_to(dst_mac, headers) && checksum::is_valid(checksum::sum_array(Sum::ZERO, ip));
    if !is_valid || !demanded.is_met(checksum::sum(checksum::pseudo_header_inside(ip), bytes)) {
        return None;
    }
    tcp::read(bytes, segment).ok()?;
    Some(Ends { src: at(ip, 12), dst: at(ip, 16), ports: u32::from_be_bytes(at(headers, L4_OFFSET)) })
}

/// Whether these are the first bytes of a frame to `dst_mac` with a whole TCP segment in IPv4 without options. Whether it may be cut
/// to fragments does not matter, nor how far it may go.
#[inline(always)]
fn is_whole_tcp_to<const LEN: usize>(dst_mac: u64, headers: &[u8; LEN]) -> bool {
    // The sender's address begins in the same eight bytes.
    let to = u64::from_le_bytes(at(headers, 0)) << 16;
    let [begins, goes_on] = [IP - 2, IP + 6].map(|place| u32::from_ne_bytes(at(headers, place)));
    to == dst_mac && begins & BEGINNING_MASK == BEGINNING && goes_on & WHOLE_TCP_MASK == WHOLE_TCP
}

/// The sum of a TCP header of a length that the compiler knows, with its pseudo header: its `WORDS` and another. One that comes out too
/// large for a word, as next to none does, is not valid here: [`read_any`] looks at it again.
#[inline(always)]
fn sum_of<const LEN: usize, const WORDS: usize>(addresses: u64, header: &[u8; LEN]) -> Sum {
    const { assert!(LEN + 8 == 8 * WORDS) };
    let [protocol, len] = [tcp::PROTOCOL.into(), LEN as u16].map(|word| u64::from(u16::to_be(word)));
    let mut words = [addresses; WORDS];
    for (word, &octets) in words[1..].iter_mut().zip(header.as_chunks().0) {
        *word = u64::from_ne_bytes(octets);
    }
    checksum::sum_words(words).plus_known(protocol + len)
}

/// Where in a usual packet the IP header starts.
const IP: usize = ethernet::HEADER_LEN;
/// Where in a usual packet the TCP header starts.
pub const L4_OFFSET: usize = IP + ipv4::HEADER_LEN;
const HEADERS_LEN: usize = L4_OFFSET + tcp::HEADER_LEN;
const STAMPED_END: usize = L4_OFFSET + tcp::STAMPED_LEN;
/// In network order, as [`USUAL_SYN_IP_LEN`].
const STAMPED_IP_LEN: u16 = ((ipv4::HEADER_LEN + tcp::STAMPED_LEN) as u16).to_be();
const USUAL_SYN_IP_LEN: u16 = ((ipv4::HEADER_LEN + tcp::USUAL_SYN_LEN) as u16).to_be();
/// EtherType, version and length of the header, and the class, which does not matter.
const BEGINNING: u32 = u32::from_ne_bytes([0x08, 0, 0x45, 0]);
const BEGINNING_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
/// No fragment's offset or flag, any time to live, TCP.
const WHOLE_TCP: u32 = u32::from_ne_bytes([0, 0, 0, tcp::PROTOCOL]);
const WHOLE_TCP_MASK: u32 = u32::from_ne_bytes([!DONT_FRAGMENT, 0xff, 0, 0xff]);
const DONT_FRAGMENT: u8 = 0x40;
const _: () = assert!(ethernet::ETHERTYPE_IPV4 == 0x0800);

#[cfg(test)]
mod tests;
