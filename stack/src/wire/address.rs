//! Addresses: one 16-byte type for IPv4 and IPv6, and the Ethernet address.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use super::ipv4;

/// An IPv4 or IPv6 address. IPv4 is kept v4-mapped (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2), so that flow keys have one shape.
///
/// A v4-mapped address is always IPv4 here: the IPv6 parser refuses packets that carry one (RFC 4942 §2.2).
///
/// Four words of four octets each as they lie in a packet: of single octets the compiler makes sixteen moves of what it keeps in
/// registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address([u32; 4]);

impl Address {
    /// `0.0.0.0`.
    pub const UNSPECIFIED_V4: Address = Address::v4([0; 4]);
    /// `::`.
    pub const UNSPECIFIED_V6: Address = Address([0; 4]);

    /// The IPv4 address `a.b.c.d`.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Address {
        Address([0, 0, V4_MAPPED, u32::from_ne_bytes(octets)])
    }

    /// Makes an IPv4 address this one: what is before the four octets is not written again.
    #[inline(always)]
    pub const fn set_v4(&mut self, octets: [u8; 4]) {
        debug_assert!(self.is_v4());
        self.0[3] = u32::from_ne_bytes(octets);
    }

    /// The IPv6 address of these octets. A v4-mapped one is an IPv4 address.
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Address {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Address([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.0;
        (a | b) | (c ^ V4_MAPPED) == 0
    }

    /// The last four octets: the IPv4 address, if this is one.
    #[inline]
    pub const fn as_v4(&self) -> [u8; 4] {
        self.0[3].to_ne_bytes()
    }

    /// All sixteen octets.
    #[inline]
    pub const fn octets(&self) -> [u8; 16] {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] =
            [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes(), self.0[3].to_ne_bytes()];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The address as two words, for hashing and comparing.
    #[inline]
    pub const fn words(&self) -> (u64, u64) {
        let [a, b, c, d] = self.0;
        (a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32)
    }

    #[inline]
    const fn octet(&self, at: usize) -> u8 {
        self.0[at / 4].to_ne_bytes()[at % 4]
    }

    /// A multicast group: `224.0.0.0/4` or `ff00::/8`.
    #[inline]
    pub const fn is_multicast(&self) -> bool {
        if self.is_v4() { self.octet(12) & 0xf0 == 0xe0 } else { self.octet(0) == 0xff }
    }

    /// `0.0.0.0` or `::`.
    #[inline]
    pub const fn is_unspecified(&self) -> bool {
        let (a, b) = self.words();
        let (c, d) = Address::UNSPECIFIED_V4.words();
        a == 0 && (b == 0 || (a == c && b == d))
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() { self.octet(12) == 127 } else { u128::from_be_bytes(self.octets()) == 1 }
    }

    /// `169.254.0.0/16` or `fe80::/10`.
    #[inline]
    pub const fn is_link_local(&self) -> bool {
        if self.is_v4() {
            self.octet(12) == 169 && self.octet(13) == 254
        } else {
            self.octet(0) == 0xfe && self.octet(1) & 0xc0 == 0x80
        }
    }

    /// `255.255.255.255`.
    #[inline]
    pub const fn is_broadcast(&self) -> bool {
        self.is_v4() && u32::from_ne_bytes(self.as_v4()) == u32::MAX
    }

    /// Whether a host may send from this address: not multicast, reserved, broadcast, loopback or `0.0.0.0/8`
    /// (RFC 1122 §3.2.1.3, RFC 4291 §2.5.2, §2.7). `::` is such a source: neighbour discovery uses it.
    #[inline]
    pub const fn is_valid_source(&self) -> bool {
        if self.is_v4() { ipv4::is_valid_source(self.as_v4()) } else { self.octet(0) != 0xff && !self.is_loopback() }
    }

    /// The first `prefix_len` bits of both are equal, counted in the address's own family.
    pub const fn in_prefix(&self, network: Address, prefix_len: u8) -> bool {
        if self.is_v4() != network.is_v4() {
            return false;
        }
        let bits = if self.is_v4() { prefix_len as u32 + 96 } else { prefix_len as u32 };
        let differ = u128::from_be_bytes(self.octets()) ^ u128::from_be_bytes(network.octets());
        differ.leading_zeros() >= bits
    }

    /// The group that a node with this IPv6 address listens to for its resolution: `ff02::1:ffXX:XXXX` (RFC 4291 §2.7.1).
    pub const fn solicited_node(&self) -> Address {
        let [.., a, b, c] = self.octets();
        Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Address {
        Address::v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Address {
        Address::v6(ip.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> IpAddr {
        if address.is_v4() { Ipv4Addr::from(address.as_v4()).into() } else { Ipv6Addr::from(address.octets()).into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = core::net::AddrParseError;
    fn from_str(text: &str) -> Result<Address, Self::Err> {
        text.parse::<IpAddr>().map(Address::from)
    }
}

/// The octets before those of an IPv4 address that are not 0: ff:ff.
const V4_MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An Ethernet address.
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl PartialEq for Mac {
    /// As two words, which share two bytes: six bytes are otherwise put together from parts first.
    #[inline(always)]
    fn eq(&self, other: &Mac) -> bool {
        let words = |&Mac([a, b, c, d, e, f]): &Mac| [[a, b, c, d], [c, d, e, f]].map(u32::from_ne_bytes);
        let ([a, b], [x, y]) = (words(self), words(other));
        (a ^ x) | (b ^ y) == 0
    }
}

impl Mac {
    /// Everyone: `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// A group address; broadcast is one.
    #[inline]
    pub const fn is_multicast(&self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Where frames to this multicast group go (RFC 1112 §6.4, RFC 2464 §7); broadcast for `255.255.255.255`.
    pub const fn for_multicast(group: Address) -> Mac {
        let [.., a, b, c, d] = group.octets();
        match (group.is_v4(), group.is_broadcast()) {
            (true, true) => Mac::BROADCAST,
            (true, false) => Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d]),
            (false, _) => Mac([0x33, 0x33, a, b, c, d]),
        }
    }

    /// The link-local address made of this one: `fe80::/64` with a modified EUI-64 (RFC 4291 appendix A).
    pub const fn link_local(&self) -> Address {
        let [a, b, c, d, e, f] = self.0;
        Address::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six pairs of hexadecimal digits joined by `:` or `-`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an Ethernet address is six pairs of hexadecimal digits, as in 02:00:00:00:00:01")]
pub struct MacParseError;

impl FromStr for Mac {
    type Err = MacParseError;
    fn from_str(text: &str) -> Result<Mac, MacParseError> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or(MacParseError)?;
        }
        if parts.next().is_some() { Err(MacParseError) } else { Ok(Mac(octets)) }
    }
}

#[cfg(test)]
mod tests;
