//! Our addresses, and where packets for others go first.

use alloc::vec::Vec;

use crate::wire::address::Address;

/// A way to a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The network; bits beyond the prefix do not count.
    pub network: Address,
    /// Its prefix length in bits, of 32 or 128.
    pub prefix_len: u8,
    /// The router, which is a neighbour; `None` where the network's hosts are neighbours themselves.
    pub gateway: Option<Address>,
}

impl Route {
    /// Everything of the router's family goes to it.
    pub const fn default_via(gateway: Address) -> Route {
        let network = if gateway.is_v4() { Address::UNSPECIFIED_V4 } else { Address::UNSPECIFIED_V6 };
        Route { network, prefix_len: 0, gateway: Some(gateway) }
    }
}

/// An address of ours and the network that is around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnAddress {
    /// The address.
    pub address: Address,
    /// The prefix length in bits of the network whose hosts are neighbours.
    pub prefix_len: u8,
}

impl OwnAddress {
    /// The directed broadcast address of this network, if it has one: none with a prefix of 31 bits or more (RFC 3021).
    fn is_broadcast(&self, dst: Address) -> bool {
        self.address.is_v4()
            && self.prefix_len < 31
            && dst.in_prefix(self.address, self.prefix_len)
            && u32::from_be_bytes(dst.as_v4()) | u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0)
                == u32::MAX
    }
}

/// Addresses of ours one after the other, in networks that [`OwnAddress`]es or routes name: for more connections to one
/// destination than one address has ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnRange {
    /// The first.
    pub first: Address,
    /// How many; they differ in their last 32 bits.
    pub count: u32,
}

impl OwnRange {
    /// The address at `index`, which counts round the range.
    pub fn nth(&self, index: u32) -> Address {
        let mut octets = self.first.octets();
        let [.., a, b, c, d] = octets;
        let last = u32::from_be_bytes([a, b, c, d]).wrapping_add(index % self.count.max(1));
        octets[12..].copy_from_slice(&last.to_be_bytes());
        Address::v6(octets)
    }

    /// Whether `address` is one of them.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        let [address, first] = [address, self.first].map(|address| u128::from_be_bytes(address.octets()));
        address >> 32 == first >> 32 && (address as u32).wrapping_sub(first as u32) < self.count
    }

    /// Whether `group` is that of the solicited nodes of one of them.
    fn solicits(&self, group: Address) -> bool {
        let [.., a, b, c] = group.octets();
        let [.., x, y, z] = self.first.octets();
        let distance = u32::from_be_bytes([0, a, b, c]).wrapping_sub(u32::from_be_bytes([0, x, y, z])) & 0xff_ffff;
        !self.first.is_v4() && distance < self.count && self.nth(distance).solicited_node() == group
    }
}

/// The addresses and routes of one interface. Few: they are searched from end to end.
#[derive(Clone, Debug)]
pub struct Routes {
    own: Vec<OwnAddress>,
    /// The first of them: often it is the only one.
    first: Option<Address>,
    /// It, if it is.
    only: Option<Address>,
    /// It, if it is of IPv4.
    only_v4: Option<Address>,
    has_more: bool,
    has_router_of_both: bool,
    ranges: Vec<OwnRange>,
    /// Longest prefix first.
    routes: Vec<Route>,
}

impl Routes {
    /// `own` addresses with their networks, `ranges` of more, and `routes` to others.
    pub fn new(own: Vec<OwnAddress>, ranges: Vec<OwnRange>, mut routes: Vec<Route>) -> Routes {
        routes.extend(own.iter().map(|o| Route { network: o.address, prefix_len: o.prefix_len, gateway: None }));
        routes.sort_by_key(|route| core::cmp::Reverse(route.prefix_len));
        let (first, has_more) = (own.first().map(|own| own.address), own.len() > 1 || !ranges.is_empty());
        let is_of_both = |route: &Route| route.gateway.is_some_and(|gateway| gateway.is_v4() != route.network.is_v4());
        let (only, has_router_of_both) = (first.filter(|_| !has_more), routes.iter().any(is_of_both));
        let only_v4 = only.filter(Address::is_v4);
        Routes { own, first, only, only_v4, has_more, has_router_of_both, ranges, routes }
    }

    /// A router leads to networks of both families, or of another than its own: IPv4 by way of IPv6 (RFC 8950), for instance.
    #[inline]
    pub fn has_router_of_both(&self) -> bool {
        self.has_router_of_both
    }

    /// Whether `address` is one of ours.
    #[inline(always)]
    pub fn is_ours(&self, address: Address) -> bool {
        self.first == Some(address) || self.has_more && self.is_listed(address)
    }

    /// Whether there is one address of ours, of IPv4, and this is that.
    #[inline(always)]
    pub fn is_only_v4(&self, address: Address) -> bool {
        self.only_v4.is_some_and(|only| only.words() == address.words())
    }

    /// Whether there is one address of ours, and this is that, and the other is another.
    #[inline(always)]
    pub fn is_between_only_and_another(&self, ours: Address, another: Address) -> bool {
        let Some(only) = self.only else { return false };
        let (ours, another, only) = (ours.words(), another.words(), only.words());
        let differs = |a: (u64, u64), b: (u64, u64)| (a.0 ^ b.0) | (a.1 ^ b.1) != 0;
        !differs(ours, only) && differs(another, only)
    }

    #[inline(never)]
    fn is_listed(&self, address: Address) -> bool {
        self.own.iter().any(|own| own.address == address) || self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether `group` is one that we listen to: all nodes, or the solicited nodes of an address of ours (RFC 4291 §2.8).
    pub fn is_our_group(&self, group: Address) -> bool {
        group == ALL_NODES
            || self.own.iter().any(|o| !o.address.is_v4() && o.address.solicited_node() == group)
            || self.ranges.iter().any(|range| range.solicits(group))
    }

    /// Our addresses.
    pub fn own(&self) -> &[OwnAddress] {
        &self.own
    }

    /// The neighbour that a packet for `dst` goes to: `dst` itself or a router. `None` without a route, and for what is no
    /// single host elsewhere.
    pub fn next_hop(&self, dst: Address) -> Option<Address> {
        let nowhere = dst.is_multicast() || dst.is_broadcast() || dst.is_unspecified() || dst.is_loopback();
        if nowhere || self.is_ours(dst) || self.own.iter().any(|own| own.is_broadcast(dst)) {
            return None;
        }
        let route = self.routes.iter().find(|route| dst.in_prefix(route.network, route.prefix_len))?;
        Some(route.gateway.unwrap_or(dst))
    }

    /// The address of ours to send from, to `dst`: the one whose network the next hop is in, of the destination's scope
    /// (the rules of RFC 6724 §5 that matter with one interface).
    pub fn source_for(&self, dst: Address) -> Option<Address> {
        self.source_towards(self.next_hop(dst)?, dst)
    }

    /// The address of ours to ask a neighbour from.
    pub(super) fn source_towards(&self, neighbour: Address, dst: Address) -> Option<Address> {
        let own = || {
            self.own.iter().filter(|own| {
                own.address.is_v4() == dst.is_v4()
                    && (dst.is_v4() || own.address.is_link_local() == dst.is_link_local())
            })
        };
        let near =
            own().filter(|own| neighbour.in_prefix(own.address, own.prefix_len)).max_by_key(|own| own.prefix_len);
        // A link-local router may well be asked, and written through, by a host that has a global address only.
        let any_scope = || self.own.iter().find(|own| own.address.is_v4() == dst.is_v4());
        near.or_else(|| own().next()).or_else(any_scope).map(|own| own.address)
    }
}

const ALL_NODES: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

#[cfg(test)]
mod tests;
