//! What the kernel is asked about an interface that the sockets do not need: its addresses and groups.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::driver::AddressRange;

/// The addresses that the kernel itself has on `interface` of this thread's network namespace.
pub(super) fn kernel_addresses(interface: &str) -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: on success `list` is a list of the C library's that is ours until freeifaddrs.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut entry = list;
    // SAFETY: each entry of the list is null or valid until freeifaddrs, which comes below.
    while let Some(this) = unsafe { entry.as_ref() } {
        // SAFETY: the name is a C string, and the address null or a sockaddr of its family, both as long-lived as the list.
        let (name, its) = unsafe { (CStr::from_ptr(this.ifa_name), ip_of(this.ifa_addr)) };
        found.extend(its.filter(|_| name.to_bytes() == interface.as_bytes()));
        entry = this.ifa_next;
    }
    // SAFETY: the list came from getifaddrs, and nothing borrowed from it is left.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a socket address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller vouches for it.
    match i32::from(unsafe { address.as_ref() }?.sa_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is this structure; it may be unaligned.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Has the device receive the multicast by which neighbours ask for our IPv6 addresses: a filter of the device would drop it,
/// since the kernel, which does not have the addresses, does not ask for it. For as long as the result lives.
pub(super) fn join_solicited_nodes(interface_index: u32, addresses: &[AddressRange]) -> io::Result<Option<OwnedFd>> {
    let v6 = |range: &AddressRange| match range.first {
        IpAddr::V4(_) => None,
        IpAddr::V6(first) => Some((first.to_bits(), range.count)),
    };
    let ranges: Vec<(u128, u32)> = addresses.iter().filter_map(v6).collect();
    let count: u64 = ranges.iter().map(|&(_, count)| u64::from(count)).sum();
    if count == 0 {
        return Ok(None);
    }
    // RFC 4291 §2.7.1: the group ends in the last three bytes of the address. RFC 2464 §7: its Ethernet address.
    let group = |address: u128| {
        let [.., a, b, c] = address.to_be_bytes();
        (libc::PACKET_MR_MULTICAST, [0x33, 0x33, 0xff, a, b, c, 0, 0])
    };
    let groups: Vec<_> = match count {
        0..=GROUPS_MAX => ranges
            .iter()
            .flat_map(|&(first, count)| (0..count).map(move |more| group(first + u128::from(more))))
            .collect(),
        // The device would give up filtering anyway.
        _ => vec![(libc::PACKET_MR_ALLMULTI, [0; 8])],
    };
    // Protocol 0: it receives nothing itself.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    for (kind, mr_address) in groups {
        let group =
            libc::packet_mreq { mr_ifindex: interface_index as i32, mr_type: kind as u16, mr_alen: 6, mr_address };
        let len = mem::size_of_val(&group) as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
        // SAFETY: the kernel reads `group`, which outlives the call.
        if unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const group).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Some(socket))
}

/// More multicast groups than that are not asked for one by one.
const GROUPS_MAX: u64 = 64;
