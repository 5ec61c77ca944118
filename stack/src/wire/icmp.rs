//! ICMP (RFC 792): echo, and the errors that mean something to a connection.

use super::address::Address;
use super::checksum::{self, Sum};
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;
use super::tcp::{self, Seq};
use crate::metrics::DropReason;

/// An ICMP message that asks something of us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmp {
    /// To be answered with what it carries.
    EchoRequest,
    /// Something is wrong with what we sent.
    Error(IcmpError),
}

impl Icmp {
    /// Reads a message and verifies its checksum; `bytes` is all that its IP packet carries.
    ///
    /// # Errors
    /// [`DropReason::IcmpMalformed`], [`DropReason::IcmpIgnored`], or [`DropReason::IcmpUnrelated`] for an error about
    /// something that is not TCP.
    pub fn parse(bytes: &[u8]) -> Result<Icmp, DropReason> {
        let Some((&[kind, code, _, _, _, _, mtu0, mtu1], quoted)) = bytes.split_first_chunk() else {
            return Err(DropReason::IcmpMalformed);
        };
        if !checksum::is_valid(checksum::sum(Sum::ZERO, bytes)) {
            return Err(DropReason::IcmpMalformed);
        }
        let kind = match (kind, code) {
            (ECHO_REQUEST, 0) => return Ok(Icmp::EchoRequest),
            (UNREACHABLE, FRAGMENTATION_NEEDED) => ErrorKind::PacketTooBig {
                mtu: match u16::from_be_bytes([mtu0, mtu1]) {
                    0 => plateau_below(quoted),
                    mtu => u32::from(mtu),
                },
            },
            (UNREACHABLE, 0 | 5 | 6 | 11) => ErrorKind::NetworkUnreachable,
            (UNREACHABLE, 1 | 7 | 8 | 12) => ErrorKind::HostUnreachable,
            (UNREACHABLE, 2) => ErrorKind::ProtocolUnreachable,
            (UNREACHABLE, 3) => ErrorKind::PortUnreachable,
            (UNREACHABLE, 9 | 10 | 13..=15) => ErrorKind::Prohibited,
            (TIME_EXCEEDED, _) => ErrorKind::TimeExceeded,
            (PARAMETER_PROBLEM, _) => ErrorKind::ParameterProblem,
            // Source quench among them, deprecated by RFC 6633, and redirects, which a host with one router has no use for.
            _ => return Err(DropReason::IcmpIgnored),
        };
        Ok(Icmp::Error(IcmpError { kind, quoted: Quoted::parse_v4(quoted)? }))
    }

    /// Turns an echo request into its reply, in place. `bytes` is what the IP packet carries.
    pub fn reply(bytes: &mut [u8]) {
        change_type(bytes, ECHO_REPLY);
    }
}

/// Gives a message another type and mends its checksum.
pub(super) fn change_type(bytes: &mut [u8], new: u8) {
    if let Some([kind, code, sum0, sum1]) = bytes.first_chunk_mut() {
        let (old_word, new_word) = (u16::from_be_bytes([*kind, *code]), u16::from_be_bytes([new, *code]));
        *kind = new;
        [*sum0, *sum1] = checksum::update(u16::from_be_bytes([*sum0, *sum1]), old_word, new_word).to_be_bytes();
    }
}

/// RFC 1191 §5: a router that names no MTU is believed to have the next one below the packet's length.
fn plateau_below(quoted: &[u8]) -> u32 {
    let len = quoted.first_chunk().map_or(0, |&[_, _, len0, len1]| u32::from(u16::from_be_bytes([len0, len1])));
    PLATEAUS.into_iter().find(|&mtu| mtu < len).unwrap_or(PLATEAUS[PLATEAUS.len() - 1])
}

/// An ICMP or ICMPv6 error about a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// What it is wrong with.
    pub quoted: Quoted,
}

/// What an error says, for IPv4 and IPv6 alike. RFC 1122 §4.2.3.9 and RFC 5461 say what TCP makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// No way to the network, or a failed source route.
    NetworkUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// The host does not speak TCP.
    ProtocolUnreachable,
    /// No one listens on the port.
    PortUnreachable,
    /// A filter forbids it.
    Prohibited,
    /// Fragmentation needed (RFC 1191) or packet too big (RFC 8201).
    PacketTooBig {
        /// The next hop's MTU in bytes, as claimed: whoever uses it sets a floor.
        mtu: u32,
    },
    /// The hop limit ran out.
    TimeExceeded,
    /// A header field that someone does not understand.
    ParameterProblem,
}

/// The start of a TCP segment of ours, as an error quotes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// The segment's source: us, if the error is about anything of ours.
    pub src: Address,
    /// The segment's destination.
    pub dst: Address,
    /// Our port.
    pub src_port: u16,
    /// The peer's port.
    pub dst_port: u16,
    /// SEG.SEQ: RFC 5927 §4.1 wants it to be in flight.
    pub seq: Seq,
}

impl Quoted {
    fn parse_v4(quoted: &[u8]) -> Result<Quoted, DropReason> {
        let ip = Ipv4::parse_quoted(quoted).map_err(|_| DropReason::IcmpMalformed)?;
        Quoted::parse_tcp(ip.src, ip.dst, ip.protocol, &quoted[usize::from(ip.header_len)..])
    }

    pub(super) fn parse_v6(quoted: &[u8]) -> Result<Quoted, DropReason> {
        let ip = Ipv6::parse_quoted(quoted).map_err(|_| DropReason::IcmpMalformed)?;
        Quoted::parse_tcp(ip.src, ip.dst, ip.protocol, &quoted[usize::from(ip.header_len)..])
    }

    /// RFC 792 promises the first eight bytes, no more.
    fn parse_tcp(src: Address, dst: Address, protocol: u8, bytes: &[u8]) -> Result<Quoted, DropReason> {
        if protocol != tcp::PROTOCOL {
            return Err(DropReason::IcmpUnrelated);
        }
        let Some(&[s0, s1, d0, d1, n0, n1, n2, n3]) = bytes.first_chunk() else {
            return Err(DropReason::IcmpMalformed);
        };
        Ok(Quoted {
            src,
            dst,
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            seq: Seq(u32::from_be_bytes([n0, n1, n2, n3])),
        })
    }
}

/// The body of a destination-unreachable message's header for `code`, its checksum included, before `quoted`.
pub fn emit_unreachable(code: u8, quoted: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    let sum = checksum::sum(checksum::sum_array(Sum::ZERO, &header), quoted);
    header[2..4].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    header
}

/// ICMP's number in the IP header.
pub const PROTOCOL: u8 = 1;
/// The header of a message, in bytes.
pub const HEADER_LEN: usize = 8;
/// Destination unreachable: no one here speaks that protocol.
pub const CODE_PROTOCOL_UNREACHABLE: u8 = 2;
/// Destination unreachable: no one listens on that port.
pub const CODE_PORT_UNREACHABLE: u8 = 3;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const FRAGMENTATION_NEEDED: u8 = 4;
/// RFC 1191 §7.1.
const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

#[cfg(test)]
mod tests;
