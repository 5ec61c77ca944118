//! Neighbour discovery messages (RFC 4861): solicitations, advertisements, router advertisements.

use super::address::{Address, Mac};
use super::icmp6;
use crate::metrics::DropReason;

/// A valid message of neighbour discovery that asks something of us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ndp {
    /// Who has `target`? (§4.3)
    Solicitation {
        /// The address asked for.
        target: Address,
        /// The asker's Ethernet address; none when it asks whether its own address is taken.
        source_mac: Option<Mac>,
    },
    /// `target` is here (§4.4).
    Advertisement {
        /// The address that is told about.
        target: Address,
        /// Its Ethernet address.
        target_mac: Option<Mac>,
        /// An answer to a solicitation of ours: proves that the neighbour hears us.
        solicited: bool,
        /// Take the Ethernet address even where another one is known.
        overrides: bool,
    },
    /// The sender is a router (§4.2).
    RouterAdvertisement {
        /// For how many seconds it is a default router; 0: not at all.
        router_lifetime_s: u16,
        /// The router's Ethernet address.
        source_mac: Option<Mac>,
        /// The link's MTU in bytes.
        mtu: Option<u32>,
    },
}

impl Ndp {
    /// Reads a message whose checksum is verified, and makes the validity checks of §6.1.2, §7.1.1 and §7.1.2.
    ///
    /// # Errors
    /// [`DropReason::NdpInvalid`]; [`DropReason::IcmpIgnored`] for router solicitations and redirects, which hosts ignore
    /// or may ignore.
    pub fn parse(src: &Address, dst: &Address, hop_limit: u8, bytes: &[u8]) -> Result<Ndp, DropReason> {
        let Some((&[kind, code, _, _, flags, _, life0, life1], rest)) = bytes.split_first_chunk() else {
            return Err(DropReason::NdpInvalid);
        };
        // A hop limit of 255 proves that no router passed it on.
        if hop_limit != HOP_LIMIT || code != 0 {
            return Err(DropReason::NdpInvalid);
        }
        match kind {
            SOLICITATION => {
                let (target, options) = target_and_options(rest)?;
                // §7.1.1: a sender without an address asks the solicited-node group and gives no Ethernet address.
                let probes = src.is_unspecified();
                if probes && (options.source_mac.is_some() || *dst != target.solicited_node()) {
                    return Err(DropReason::NdpInvalid);
                }
                Ok(Ndp::Solicitation { target, source_mac: options.source_mac })
            }
            ADVERTISEMENT => {
                let (target, options) = target_and_options(rest)?;
                let (solicited, overrides) = (flags & SOLICITED != 0, flags & OVERRIDE != 0);
                if solicited && dst.is_multicast() {
                    return Err(DropReason::NdpInvalid);
                }
                Ok(Ndp::Advertisement { target, target_mac: options.target_mac, solicited, overrides })
            }
            ROUTER_ADVERTISEMENT if src.is_link_local() => {
                // Reachable time and retransmission timer are passed over: ours are the RFC's defaults.
                let options = Options::parse(rest.get(8..).ok_or(DropReason::NdpInvalid)?)?;
                let router_lifetime_s = u16::from_be_bytes([life0, life1]);
                Ok(Ndp::RouterAdvertisement { router_lifetime_s, source_mac: options.source_mac, mtu: options.mtu })
            }
            ROUTER_ADVERTISEMENT => Err(DropReason::NdpInvalid),
            _ => Err(DropReason::IcmpIgnored),
        }
    }
}

/// A solicitation for `target`, its checksum included, that gives our Ethernet address.
pub fn emit_solicitation(src: &Address, dst: &Address, target: &Address, source_mac: Mac) -> [u8; LEN] {
    emit(src, dst, [SOLICITATION, 0], target, SOURCE_MAC, source_mac)
}

/// An advertisement of `target` that overrides what is known of it, its checksum included.
pub fn emit_advertisement(src: &Address, dst: &Address, target: &Address, mac: Mac, solicited: bool) -> [u8; LEN] {
    let flags = OVERRIDE | if solicited { SOLICITED } else { 0 };
    emit(src, dst, [ADVERTISEMENT, flags], target, TARGET_MAC, mac)
}

fn emit(src: &Address, dst: &Address, [kind, flags]: [u8; 2], target: &Address, option: u8, mac: Mac) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[0] = kind;
    out[4] = flags;
    out[8..24].copy_from_slice(&target.octets());
    out[24..26].copy_from_slice(&[option, 1]);
    out[26..].copy_from_slice(&mac.0);
    let sum = icmp6::checksum(src, dst, &out, &[]);
    out[2..4].copy_from_slice(&sum);
    out
}

fn target_and_options(bytes: &[u8]) -> Result<(Address, Options), DropReason> {
    let Some((&target, options)) = bytes.split_first_chunk() else { return Err(DropReason::NdpInvalid) };
    let target = Address::v6(target);
    if target.is_multicast() || target.is_v4() {
        return Err(DropReason::NdpInvalid);
    }
    Ok((target, Options::parse(options)?))
}

#[derive(Default)]
struct Options {
    source_mac: Option<Mac>,
    target_mac: Option<Mac>,
    mtu: Option<u32>,
}

impl Options {
    /// §4.6: lengths are in units of 8 bytes, and one of 0 makes the whole message invalid. Unknown options are passed over.
    fn parse(mut bytes: &[u8]) -> Result<Options, DropReason> {
        let mut options = Options::default();
        while !bytes.is_empty() {
            let Some(&[kind, len, a, b, c, d, e, f]) = bytes.first_chunk() else { return Err(DropReason::NdpInvalid) };
            let mac = Some(Mac([a, b, c, d, e, f])).filter(|mac| !mac.is_multicast());
            match (kind, len) {
                (_, 0) => return Err(DropReason::NdpInvalid),
                (SOURCE_MAC, 1) => options.source_mac = mac,
                (TARGET_MAC, 1) => options.target_mac = mac,
                (MTU, 1) => options.mtu = Some(u32::from_be_bytes([c, d, e, f])),
                _ => {}
            }
            bytes = bytes.get(8 * usize::from(len)..).ok_or(DropReason::NdpInvalid)?;
        }
        Ok(options)
    }
}

/// The hop limit of every message (§3.1).
pub const HOP_LIMIT: u8 = 255;
/// A solicitation or advertisement as written here, with one Ethernet address: its length in bytes.
pub const LEN: usize = 32;

const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const MTU: u8 = 5;

#[cfg(test)]
mod tests;
