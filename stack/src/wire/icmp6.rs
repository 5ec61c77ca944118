//! ICMPv6 (RFC 4443): echo, errors, and the way to neighbour discovery.

use super::address::Address;
use super::checksum;
use super::icmp::{ErrorKind, IcmpError, Quoted, change_type};
use super::ndp::Ndp;
use crate::metrics::DropReason;

/// An ICMPv6 message that asks something of us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmp6 {
    /// To be answered with what it carries.
    EchoRequest,
    /// Something is wrong with what we sent.
    Error(IcmpError),
    /// Neighbour discovery.
    Ndp(Ndp),
}

impl Icmp6 {
    /// Reads a message and verifies its checksum; `bytes` is all that its IP packet carries.
    ///
    /// # Errors
    /// [`DropReason::IcmpMalformed`], [`DropReason::IcmpIgnored`], [`DropReason::IcmpUnrelated`] for an error about
    /// something that is not TCP, or [`DropReason::NdpInvalid`].
    pub fn parse(src: &Address, dst: &Address, hop_limit: u8, bytes: &[u8]) -> Result<Icmp6, DropReason> {
        let Some((&[kind, code, _, _, m0, m1, m2, m3], quoted)) = bytes.split_first_chunk() else {
            return Err(DropReason::IcmpMalformed);
        };
        if !verify_checksum(src, dst, bytes) {
            return Err(DropReason::IcmpMalformed);
        }
        let kind = match (kind, code) {
            (ECHO_REQUEST, 0) => return Ok(Icmp6::EchoRequest),
            (133..=137, _) => return Ndp::parse(src, dst, hop_limit, bytes).map(Icmp6::Ndp),
            (UNREACHABLE, 0 | 2) => ErrorKind::NetworkUnreachable,
            (UNREACHABLE, 1 | 5 | 6) => ErrorKind::Prohibited,
            (UNREACHABLE, 3) => ErrorKind::HostUnreachable,
            (UNREACHABLE, 4) => ErrorKind::PortUnreachable,
            // RFC 4443 §3.2: the code is ignored.
            (PACKET_TOO_BIG, _) => ErrorKind::PacketTooBig { mtu: u32::from_be_bytes([m0, m1, m2, m3]) },
            (TIME_EXCEEDED, _) => ErrorKind::TimeExceeded,
            (PARAMETER_PROBLEM, 1) => ErrorKind::ProtocolUnreachable,
            (PARAMETER_PROBLEM, _) => ErrorKind::ParameterProblem,
            _ => return Err(DropReason::IcmpIgnored),
        };
        Ok(Icmp6::Error(IcmpError { kind, quoted: Quoted::parse_v6(quoted)? }))
    }

    /// Turns an echo request into its reply, in place. `bytes` is what the IP packet carries. The checksum holds when the
    /// packet's addresses change places.
    pub fn reply(bytes: &mut [u8]) {
        change_type(bytes, ECHO_REPLY);
    }
}

fn verify_checksum(src: &Address, dst: &Address, bytes: &[u8]) -> bool {
    checksum::is_valid(checksum::sum(checksum::pseudo_header(src, dst, PROTOCOL, bytes.len() as u32), bytes))
}

/// The checksum of a message that is `header`, its checksum field 0, and `rest`.
pub(super) fn checksum(src: &Address, dst: &Address, header: &[u8], rest: &[u8]) -> [u8; 2] {
    let sum = checksum::pseudo_header(src, dst, PROTOCOL, (header.len() + rest.len()) as u32);
    checksum::finish(checksum::sum(checksum::sum(sum, header), rest)).to_be_bytes()
}

/// The header of a destination-unreachable message from `src` to `dst` before `quoted`, its checksum included.
pub fn emit_unreachable(src: &Address, dst: &Address, code: u8, quoted: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    let sum = checksum(src, dst, &header, quoted);
    header[2..4].copy_from_slice(&sum);
    header
}

/// ICMPv6's number in the IP header.
pub const PROTOCOL: u8 = 58;
/// The header of a message, in bytes.
pub const HEADER_LEN: usize = 8;
/// Destination unreachable: no one listens on that port.
pub const CODE_PORT_UNREACHABLE: u8 = 4;

const UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

#[cfg(test)]
mod tests;
