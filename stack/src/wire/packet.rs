//! Whole frames: the one parse that the pipeline does, and the headers that it writes before a payload.

use core::ops::Range;

use super::address::{Address, Mac};
use super::arp::Arp;
use super::checksum::{self, Sum};
use super::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::tcp::{self, SackBlock, Segment};
use super::{at, icmp, icmp6};
use crate::metrics::DropReason;

/// A received frame, read as far as its transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet {
    /// TCP over IPv4 or IPv6.
    Tcp(Net, Segment),
    /// ICMP over IPv4: [`Net::l4`] is the message, not yet verified.
    Icmp(Net),
    /// ICMPv6 over IPv6: [`Net::l4`] is the message, not yet verified.
    Icmp6(Net),
    /// ARP.
    Arp(Link, Arp),
    /// Another protocol over IP, by its number.
    Other(Net, u8),
}

/// What a frame turned out to be, when its headers were [`read`] into place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// TCP: the segment was read too.
    Tcp,
    /// ICMP over IPv4.
    Icmp,
    /// ICMPv6 over IPv6.
    Icmp6,
    /// ARP, well-formed; of [`Net`] only the link was read.
    Arp,
    /// Another protocol over IP, by its number.
    Other(u8),
}

/// Reads a frame. For the data path there are [`Usual::read`](super::usual::Usual::read) and [`read`], which move nothing.
///
/// # Errors
/// The reason to drop the frame.
pub fn parse(frame: &[u8], verify_checksums: bool) -> Result<Packet, DropReason> {
    let (mut net, mut segment) = (Net::default(), Segment::default());
    Ok(match read(frame, verify_checksums, &mut net, &mut segment)? {
        Kind::Tcp => Packet::Tcp(net, segment),
        Kind::Icmp => Packet::Icmp(net),
        Kind::Icmp6 => Packet::Icmp6(net),
        Kind::Arp => Packet::Arp(net.link, Arp::parse(&frame[usize::from(net.link.header_len)..])?),
        Kind::Other(protocol) => Packet::Other(net, protocol),
    })
}

/// Reads a frame's headers into `net` and, if it is TCP, `segment`; where it fails, what they hold means nothing.
/// `verify_checksums` is about TCP's: where the device has verified it, it need not be done twice.
///
/// What is ours and what is not, addresses and VLAN, is for the caller to say.
///
/// # Errors
/// The reason to drop the frame.
#[inline(never)]
pub fn read(frame: &[u8], verify_checksums: bool, net: &mut Net, segment: &mut Segment) -> Result<Kind, DropReason> {
    let (ethernet, header_len) = Ethernet::parse(frame)?;
    net.link =
        Link { src_mac: ethernet.src, dst_mac: ethernet.dst, vlan: ethernet.vlan, header_len: header_len as u16 };
    let packet = frame.get(header_len..).ok_or(DropReason::Truncated)?;
    let protocol = match ethernet.ethertype {
        ETHERTYPE_IPV4 => {
            let ip = Ipv4::parse(packet)?;
            (net.src, net.dst, net.hop_limit, net.ip_len) = (ip.src, ip.dst, ip.hop_limit, ip.total_len);
            net.l4_offset = net.link.header_len + u16::from(ip.header_len);
            match ip.protocol {
                icmp::PROTOCOL => return Ok(Kind::Icmp),
                protocol => protocol,
            }
        }
        ETHERTYPE_IPV6 => {
            let ip = Ipv6::parse(packet)?;
            (net.src, net.dst, net.hop_limit, net.ip_len) = (ip.src, ip.dst, ip.hop_limit, ip.total_len);
            // The headers are inside the frame, whose length is a u16; if it is not, this is no packet of ours.
            net.l4_offset = net.link.header_len.checked_add(ip.header_len).ok_or(DropReason::IpHeader)?;
            match ip.protocol {
                icmp6::PROTOCOL => return Ok(Kind::Icmp6),
                // Only ICMPv6 may come from `::` (RFC 4291 §2.5.2).
                _ if ip.src.is_unspecified() => return Err(DropReason::BadSource),
                protocol => protocol,
            }
        }
        ETHERTYPE_ARP => return Arp::parse(packet).map(|_| Kind::Arp),
        _ => return Err(DropReason::EtherType),
    };
    if protocol != tcp::PROTOCOL {
        return Ok(Kind::Other(protocol));
    }
    let bytes = net.l4(frame);
    tcp::read(bytes, segment)?;
    if verify_checksums && !tcp::verify_checksum(&net.src, &net.dst, bytes) {
        return Err(DropReason::TcpChecksum);
    }
    Ok(Kind::Tcp)
}

/// What the link's header said.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Link {
    /// Who put the frame on the link.
    pub src_mac: Mac,
    /// Whom the frame is for: us, a group, everyone, or (on a promiscuous device) someone else.
    pub dst_mac: Mac,
    /// The VLAN, if the frame has one.
    pub vlan: Option<u16>,
    /// The header's length in bytes, a tag included: where the IP header starts.
    pub header_len: u16,
}

/// What the network's header said, and where in the frame things are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Net {
    /// The link's header.
    pub link: Link,
    /// The source address; never multicast, broadcast or loopback.
    pub src: Address,
    /// The destination address.
    pub dst: Address,
    /// The hop limit or time to live that was left.
    pub hop_limit: u8,
    /// The IP packet's length in bytes; what follows it in the frame is padding.
    pub ip_len: u16,
    /// Where the transport's header starts.
    pub l4_offset: u16,
}

impl Net {
    /// Where in the frame the transport's header and payload are.
    #[inline]
    pub fn l4_range(&self) -> Range<usize> {
        usize::from(self.l4_offset)..usize::from(self.link.header_len) + usize::from(self.ip_len)
    }

    /// The transport's header and payload in `frame`, the frame that this was read from.
    #[inline]
    pub fn l4<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.l4_range()]
    }

    /// Where in the frame the payload of its TCP `segment` is.
    #[inline]
    pub fn payload_range(&self, segment: &Segment) -> Range<usize> {
        let Range { start, end } = self.l4_range();
        start + segment.header_len()..end
    }
}

/// Who put this frame, whose headers were read, on the link.
#[inline]
pub fn src_mac(frame: &[u8]) -> Mac {
    frame.first_chunk::<ETHERNET_LEN>().map(|header| Mac(at(header, 6))).unwrap_or_default()
}

/// Makes a received packet's Ethernet and IP headers those of its answer, in place: addresses change places, the hop limit
/// is ours. Checksums over the addresses hold, since a sum does not know their order.
///
/// `net` is what [`parse`] said of `frame`.
pub fn turn_around(frame: &mut [u8], net: &Net) {
    let (dst_mac, src_mac) = frame[..12].split_at_mut(6);
    dst_mac.swap_with_slice(src_mac);
    let ip = &mut frame[usize::from(net.link.header_len)..usize::from(net.l4_offset)];
    if net.src.is_v4() {
        let (src, dst) = ip[12..20].split_at_mut(4);
        src.swap_with_slice(dst);
        let old_word = u16::from_be_bytes([ip[8], ip[9]]);
        ip[8] = HOP_LIMIT;
        let checksum =
            checksum::update(u16::from_be_bytes([ip[10], ip[11]]), old_word, u16::from_be_bytes([ip[8], ip[9]]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        let (src, dst) = ip[8..40].split_at_mut(16);
        src.swap_with_slice(dst);
        ip[7] = HOP_LIMIT;
    }
}

/// What an IP header to be written says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// The source address; its family is the packet's.
    pub src: Address,
    /// The destination address, of the same family.
    pub dst: Address,
    /// DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// Hop limit or time to live; [`HOP_LIMIT`] but for neighbour discovery.
    pub hop_limit: u8,
    /// 20 bits, the same for all packets of a flow (RFC 6437 §3); IPv6 only.
    pub flow_label: u32,
}

impl Ip {
    /// From `src` to `dst` with the usual hop limit and nothing else.
    #[inline]
    pub const fn new(src: Address, dst: Address) -> Ip {
        Ip { src, dst, traffic_class: 0, hop_limit: HOP_LIMIT, flow_label: 0 }
    }
}

/// The length in bytes of all headers before a TCP payload: the room that [`emit_headers`] needs.
#[inline]
pub const fn headers_len(vlan: bool, v6: bool, header: &tcp::Header, sack: &[SackBlock]) -> usize {
    ip_headers_len(vlan, v6) + header.len(sack)
}

/// The length in bytes of the Ethernet and IP headers.
#[inline]
pub const fn ip_headers_len(vlan: bool, v6: bool) -> usize {
    let ethernet = super::ethernet::HEADER_LEN + if vlan { super::ethernet::TAG_LEN } else { 0 };
    ethernet + if v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }
}

/// Writes the Ethernet, IP and TCP headers of a segment into `out`, which ends where `payload` begins in the frame.
/// The EtherType in `link` does not matter: it follows from the addresses.
///
/// Without `compute_tcp_checksum` the checksum field holds the folded sum of the pseudo header, as devices want it that
/// finish the checksum themselves.
///
/// # Panics
/// If `out` is not [`headers_len`] long, or the packet would be longer than 65,535 bytes.
#[inline(always)]
pub fn emit_headers(
    out: &mut [u8],
    link: &Ethernet,
    ip: &Ip,
    header: &tcp::Header,
    sack: &[SackBlock],
    payload: &[u8],
    compute_tcp_checksum: bool,
) {
    match is_usual(link, &ip.src) {
        true => emit_usual_headers(out, &usual_start(link), ip, header, sack, payload, compute_tcp_checksum),
        // By value: what is only looked at here need not be in memory there.
        false => emit_any_headers(out, *link, *ip, *header, sack, payload, compute_tcp_checksum),
    }
}

/// Whether the packets of this source are IPv4 on an untagged link, where everything has its place.
#[inline(always)]
const fn is_usual(link: &Ethernet, src: &Address) -> bool {
    link.vlan.is_none() && src.is_v4()
}

/// How an IPv4 packet on an untagged link begins: the Ethernet header, and version, length and traffic class as they nearly always are.
pub type UsualStart = [u8; USUAL_START_LEN];

/// The start of packets that this Ethernet header carries, whose EtherType does not matter.
#[inline]
pub fn usual_start(link: &Ethernet) -> UsualStart {
    let mut start = [0; USUAL_START_LEN];
    Ethernet { ethertype: ETHERTYPE_IPV4, vlan: None, ..*link }.emit(&mut start);
    start[ETHERNET_LEN] = ipv4::VERSION_AND_LEN;
    start
}

/// [`emit_headers`] over IPv4 on an untagged link.
#[inline(always)]
pub fn emit_usual_headers(
    out: &mut [u8],
    start: &UsualStart,
    ip: &Ip,
    header: &tcp::Header,
    sack: &[SackBlock],
    payload: &[u8],
    compute_tcp_checksum: bool,
) {
    let (out, pseudo_header) = emit_usual_lower(out, start, ip, payload.len());
    header.emit(sack, out, pseudo_header, payload, compute_tcp_checksum);
}

/// The first half of [`emit_usual_headers`]: writes the Ethernet and IP headers. The room that is left for TCP's, and the sum of its
/// pseudo header.
#[inline(always)]
pub fn emit_usual_lower<'a>(out: &'a mut [u8], start: &UsualStart, ip: &Ip, payload_len: usize) -> (&'a mut [u8], Sum) {
    let (lower, out) = out.split_first_chunk_mut().expect("the room is that of the headers");
    let len = out.len() + payload_len;
    emit_ipv4_headers(lower, start, ip, tcp::PROTOCOL, len);
    (out, checksum::pseudo_header_v4(&ip.src, &ip.dst, tcp::PROTOCOL, len as u32))
}

#[cold]
fn emit_any_headers(
    out: &mut [u8],
    link: Ethernet,
    ip: Ip,
    header: tcp::Header,
    sack: &[SackBlock],
    payload: &[u8],
    compute_tcp_checksum: bool,
) {
    let (lower, out) = out.split_at_mut(ip_headers_len(link.vlan.is_some(), !ip.src.is_v4()));
    let len = out.len() + payload.len();
    emit_ip_headers(lower, &link, &ip, tcp::PROTOCOL, len);
    header.emit(sack, out, tcp::pseudo_header(&ip.src, &ip.dst, len), payload, compute_tcp_checksum);
}

/// [`emit_ip_headers`] for IPv4 on an untagged link.
#[inline(always)]
fn emit_ipv4_headers(out: &mut [u8; UNTAGGED_V4_LEN], start: &UsualStart, ip: &Ip, protocol: u8, len: usize) {
    let (out_start, rest) = out.split_first_chunk_mut().expect("the one is longer than the other");
    *out_start = *start;
    let total_len =
        u16::try_from(ipv4::HEADER_LEN + len).expect("a packet fits in a frame, which is smaller than 64 KiB");
    let &Ip { src, dst, traffic_class, hop_limit, .. } = ip;
    if traffic_class != 0 {
        out_start[USUAL_START_LEN - 1] = traffic_class;
    }
    let rest = rest.as_mut_array().expect("the one is as much longer than the other");
    Ipv4 { src, dst, protocol, traffic_class, hop_limit, header_len: 20, total_len }.emit_rest(rest);
}

/// Writes the Ethernet and IP headers of a packet that carries `len` bytes of `protocol`, checksum included, into `out`.
///
/// # Panics
/// If `out` is not [`ip_headers_len`] long, or the packet would be longer than 65,535 bytes.
#[inline]
pub fn emit_ip_headers(out: &mut [u8], link: &Ethernet, ip: &Ip, protocol: u8, len: usize) {
    let &Ip { src, dst, traffic_class, hop_limit, flow_label } = ip;
    let (link_room, out) = out.split_at_mut(link.len());
    let total_len = u16::try_from(out.len() + len).expect("a packet fits in a frame, which is smaller than 64 KiB");
    if ip.src.is_v4() {
        Ethernet { ethertype: ETHERTYPE_IPV4, ..*link }.emit(link_room);
        let out = out.try_into().expect("the room before the payload is exactly that of the headers");
        Ipv4 { src, dst, protocol, traffic_class, hop_limit, header_len: 20, total_len }.emit(out);
    } else {
        Ethernet { ethertype: ETHERTYPE_IPV6, ..*link }.emit(link_room);
        let out = out.try_into().expect("the room before the payload is exactly that of the headers");
        Ipv6 { src, dst, protocol, traffic_class, flow_label, hop_limit, header_len: 40, total_len }.emit(out);
    }
}

/// The hop limit of what we send (RFC 1700's recommendation for IP's default time to live).
pub const HOP_LIMIT: u8 = 64;

const ETHERNET_LEN: usize = super::ethernet::HEADER_LEN;
const UNTAGGED_V4_LEN: usize = ETHERNET_LEN + ipv4::HEADER_LEN;
const USUAL_START_LEN: usize = ETHERNET_LEN + 2;

#[cfg(test)]
mod tests;
