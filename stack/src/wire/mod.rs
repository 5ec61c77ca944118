//! Bytes ↔ header values. No state, no allocation, and no input makes it panic.
//!
//! | file | its one job |
//! | --- | --- |
//! | `packet` | start here: a whole frame → [`Packet`](packet::Packet), and all the headers before a payload |
//! | `usual` | the short way for nearly every packet |
//! | `ethernet` | Ethernet II, one VLAN tag |
//! | `arp` | ARP for IPv4 |
//! | `ipv4`, `ipv6` | IP headers, options and extension headers passed over |
//! | `icmp`, `icmp6` | echo, and errors with the segment that they quote |
//! | `ndp` | neighbour discovery |
//! | `tcp` | TCP headers and options, `Seq`, `Flags` |
//! | `address` | `Address` (IPv4 and IPv6 in one type) and `Mac` |
//! | `checksum` | RFC 1071 sums, pseudo headers, RFC 1624 updates |

pub mod address;
pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmp6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod packet;
pub mod tcp;
pub mod usual;

/// So many bytes of a header, at a place that the compiler knows to be inside.
#[inline(always)]
fn at<const N: usize, const LEN: usize>(header: &[u8; LEN], place: usize) -> [u8; N] {
    *header[place..].first_chunk().expect("the place is inside the header")
}
