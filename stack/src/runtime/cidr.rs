//! An address and the network around it, as people write it: `192.0.2.1/24`.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use thiserror::Error;

use crate::ip::routes::OwnAddress;
use crate::wire::address::Address;

/// An address with the prefix length of its network, such as `192.0.2.1/24` or `2001:db8::1/64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// `address` in a network whose prefix has `prefix_len` bits.
    ///
    /// # Errors
    /// More bits than the address has, or an address that no host can have.
    pub fn new(address: IpAddr, prefix_len: u8) -> Result<Cidr, CidrError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix_len > bits {
            return Err(CidrError::PrefixTooLong { prefix_len: prefix_len.into(), bits });
        }
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(CidrError::NotAHost(address));
        }
        let cidr = Cidr { address, prefix_len };
        // Networks of two addresses or one have no others (RFC 3021, RFC 6164).
        let names_network = bits - prefix_len > 1
            && match address {
                IpAddr::V4(v4) => {
                    let host_bits = u32::MAX >> prefix_len;
                    [0, host_bits].contains(&(u32::from(v4) & host_bits))
                }
                // RFC 4291 §2.6.1: the anycast address of the network's routers.
                IpAddr::V6(v6) => u128::from(v6) & (u128::MAX >> prefix_len) == 0,
            };
        if names_network {
            return Err(CidrError::Network(cidr));
        }
        Ok(cidr)
    }

    /// The address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length of the network, in bits.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix_len) = text.split_once('/').ok_or_else(|| CidrError::NoPrefix(text.into()))?;
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address(address.into()))?;
        let digits = prefix_len.bytes().all(|byte| byte.is_ascii_digit());
        let number = prefix_len.parse().ok().filter(|_| digits);
        let prefix_len: u32 = number.ok_or_else(|| CidrError::Prefix(prefix_len.into()))?;
        match u8::try_from(prefix_len) {
            Ok(prefix_len) => Cidr::new(address, prefix_len),
            Err(_) => Err(CidrError::PrefixTooLong { prefix_len, bits: if address.is_ipv4() { 32 } else { 128 } }),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl From<Cidr> for OwnAddress {
    fn from(cidr: Cidr) -> OwnAddress {
        OwnAddress { address: Address::from(cidr.address), prefix_len: cidr.prefix_len }
    }
}

/// Why a text is not an address with its network.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CidrError {
    /// No slash.
    #[error("'{0}' has no prefix length: write the network's after a slash, such as 192.0.2.1/24 or 2001:db8::1/64")]
    NoPrefix(String),
    /// What is before the slash is not an address.
    #[error("'{0}' is not an IPv4 or IPv6 address: write one such as 192.0.2.1 or 2001:db8::1")]
    Address(String),
    /// What is after the slash is not a number.
    #[error("'{0}' is not a prefix length: write the network's number of bits, such as 24, and no netmask")]
    Prefix(String),
    /// More bits than the address has.
    #[error("a prefix of {prefix_len} bits: an address of this family has {bits}")]
    PrefixTooLong {
        /// What was written.
        prefix_len: u32,
        /// The most there may be.
        bits: u8,
    },
    /// Unspecified, multicast or loopback.
    #[error("{0} cannot be a host's address on a network: give one that the network's other hosts can send to")]
    NotAHost(IpAddr),
    /// The first address of a network, or the last of an IPv4 network.
    #[error("{0} names the network itself or its broadcast address: give the address of a host in it")]
    Network(Cidr),
}

#[cfg(test)]
mod tests;
