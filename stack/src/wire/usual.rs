//! The short way to read what nearly every packet is: TCP in IPv4 without IP options, whole, untagged, with nothing wrong.
//!
//! What it does not know it leaves to [`packet::read`](super::packet::read), which says what else it is, or what is wrong with it.

use handfast_drivers::simd::{self, Pattern};

use super::address::Mac;
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

/// What usual frames to a station are like, and what is asked of their checksums.
#[derive(Clone, Debug)]
pub struct Usual {
    /// The first sixteen bytes. The sender's address and the class of the packet do not matter.
    begins: Pattern,
    ip_sum: Demand,
    tcp_sum: Demand,
}

impl Usual {
    /// Usual frames to `dst_mac`; no frame is, if that is none. TCP's checksum is to be verified, or not.
    pub const fn new(dst_mac: Option<Mac>, verify: bool) -> Usual {
        let begins = match dst_mac {
            Some(Mac(octets)) => Pattern::ANY.with(0, &octets).with(IP - 2, &[0x08, 0, 0x45]),
            None => Pattern::NONE,
        };
        Usual { begins, ip_sum: Demand::new(true), tcp_sum: Demand::new(verify) }
    }

    /// Reads the TCP header of a usual frame into `segment`. Whether its [`Ends`] may be, and whether it is for us, is for the caller to
    /// say: the record of a flow says that at once.
    ///
    /// Where this returns `None`, what `segment` holds means nothing.
    #[inline(always)]
    pub fn read(&self, frame: &[u8], segment: &mut Segment) -> Option<Ends> {
        match self.read_bare(frame, segment) {
            None => self.read_any(frame, segment),
            ends => ends,
        }
    }

    /// Nearly every segment without payload has timestamps and nothing else, or is a SYN with all that those have: of them it is known
    /// where everything is.
    #[inline(always)]
    fn read_bare(&self, frame: &[u8], segment: &mut Segment) -> Option<Ends> {
        let headers = frame.first_chunk::<STAMPED_END>()?;
        let addresses = u64::from_ne_bytes(at(headers, IP + 12));
        if u16::from_ne_bytes(at(headers, IP + 2)) == USUAL_SYN_IP_LEN {
            let header = frame.get(L4_OFFSET..)?.first_chunk()?;
            if !self.is_like(headers, &WHOLE_TCP, &tcp::USUAL_SYN)
                || !tcp::read_usual_syn(header, segment)
                || !self.tcp_sum.is_met(sum_of::<_, 6>(addresses, header))
            {
                return None;
            }
        } else {
            let header = headers.last_chunk()?;
            if !self.is_like(headers, &WHOLE_STAMPED, &tcp::STAMPED) {
                return None;
            }
            tcp::read_stamped(header, segment);
            if !self.tcp_sum.is_met(sum_of::<_, 5>(addresses, header)) {
                return None;
            }
        }
        let [begins, ends] = [u64::from_ne_bytes(at(headers, IP)), u32::from_ne_bytes(at(headers, IP + 8)).into()];
        if !self.ip_sum.is_met(checksum::sum_words([begins, ends, addresses])) {
            return None;
        }
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses.to_ne_bytes();
        let ports = u32::from_be_bytes(at(headers, L4_OFFSET));
        Some(Ends { src: [s0, s1, s2, s3], dst: [d0, d1, d2, d3], ports })
    }

    /// Whether these are the first bytes of a frame to us, as these patterns say what is [`WHOLE_TCP`] and its header.
    #[inline(always)]
    fn is_like(&self, headers: &[u8; STAMPED_END], whole_tcp: &Pattern, tcp: &Pattern) -> bool {
        const TOLD_AT: usize = L4_OFFSET + tcp::TOLD_AT;
        let bytes = [sixteen(headers, 0), sixteen(headers, 16), sixteen(headers, TOLD_AT)];
        simd::all_match(bytes, [&self.begins, whole_tcp, tcp])
    }

    /// What is usual otherwise: mostly, it carries something. Cold, so that the others, which are shorter, do not jump around it.
    #[cold]
    #[inline(never)]
    fn read_any(&self, frame: &[u8], segment: &mut Segment) -> Option<Ends> {
        let headers = frame.first_chunk::<HEADERS_LEN>()?;
        let ip_len = usize::from(u16::from_be_bytes(at(headers, IP + 2)));
        if ip_len < ipv4::HEADER_LEN + tcp::HEADER_LEN {
            return None;
        }
        let bytes = frame.get(L4_OFFSET..IP + ip_len)?;
        let ip: &[u8; ipv4::HEADER_LEN] = headers[IP..].first_chunk()?;
        let is_whole = simd::all_match([sixteen(headers, 0), sixteen(headers, 16)], [&self.begins, &WHOLE_TCP]);
        if !is_whole || !self.ip_sum.is_met(checksum::sum_array(Sum::ZERO, ip)) {
            return None;
        }
        if !self.tcp_sum.is_met(checksum::sum(checksum::pseudo_header_inside(ip), bytes)) {
            return None;
        }
        tcp::read(bytes, segment).ok()?;
        Some(Ends { src: at(ip, 12), dst: at(ip, 16), ports: u32::from_be_bytes(at(headers, L4_OFFSET)) })
    }
}

/// The sum of a TCP header of a length that the compiler knows, with its pseudo header: its `WORDS` and another. One that comes out too
/// large for a word, as next to none does, is not valid here: [`Usual::read_any`] looks at it again.
#[inline(always)]
fn sum_of<const LEN: usize, const WORDS: usize>(addresses: u64, header: &[u8; LEN]) -> Sum {
    const { assert!(LEN + 8 == 8 * WORDS) };
    let [protocol, len] = [tcp::PROTOCOL.into(), LEN as u16].map(|word| u64::from(u16::to_be(word)));
    let mut words = [addresses; WORDS];
    for (word, &octets) in words[1..].iter_mut().zip(header.as_chunks().0) {
        *word = u64::from_ne_bytes(octets);
    }
    checksum::sum_words_and(words, protocol + len)
}

/// Sixteen bytes of some headers, at a place that the compiler knows to be inside.
#[inline(always)]
fn sixteen<const LEN: usize>(headers: &[u8; LEN], place: usize) -> &[u8; 16] {
    headers[place..].first_chunk().expect("the place is inside the headers")
}

/// Where in a usual packet the IP header starts.
const IP: usize = ethernet::HEADER_LEN;
/// Where in a usual packet the TCP header starts.
pub const L4_OFFSET: usize = IP + ipv4::HEADER_LEN;
const HEADERS_LEN: usize = L4_OFFSET + tcp::HEADER_LEN;
const STAMPED_END: usize = L4_OFFSET + tcp::STAMPED_LEN;
/// In network order.
const USUAL_SYN_IP_LEN: u16 = ((ipv4::HEADER_LEN + tcp::USUAL_SYN_LEN) as u16).to_be();
/// The second sixteen bytes of a frame with a whole TCP segment: no fragment's offset or flag. Whether it may be cut to fragments does
/// not matter, nor how far it may go.
const WHOLE_TCP: Pattern =
    Pattern::ANY.with_bits(IP - 10, !DONT_FRAGMENT, 0).with(IP - 9, &[0]).with(IP - 7, &[tcp::PROTOCOL]);
/// The same of the length of a header with timestamps and nothing else.
const WHOLE_STAMPED: Pattern = WHOLE_TCP.with(IP - 14, &((ipv4::HEADER_LEN + tcp::STAMPED_LEN) as u16).to_be_bytes());
const DONT_FRAGMENT: u8 = 0x40;
const _: () = assert!(IP == 14, "where the patterns begin is counted from the frame's beginning");
const _: () = assert!(ethernet::ETHERTYPE_IPV4 == 0x0800);

#[cfg(test)]
mod tests;
