//! What the kernel is asked about an interface that the sockets do not need: its addresses and groups.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Whether the kernel itself has `address` on `interface` of this thread's network namespace.
pub(super) fn kernel_has(interface: &str, address: IpAddr) -> io::Result<bool> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: on success `list` is a list of the C library's that is ours until freeifaddrs.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = false;
    let mut entry = list;
    // SAFETY: each entry of the list is null or valid until freeifaddrs, which comes below.
    while let Some(this) = unsafe { entry.as_ref() } {
        // SAFETY: the name is a C string, and the address null or a sockaddr of its family, both as long-lived as the list.
        let (name, its) = unsafe { (CStr::from_ptr(this.ifa_name), ip_of(this.ifa_addr)) };
        found |= name.to_bytes() == interface.as_bytes() && its == Some(address);
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
pub(super) fn join_solicited_nodes(interface_index: u32, addresses: &[IpAddr]) -> io::Result<Option<OwnedFd>> {
    let mut socket = None;
    for v6 in addresses.iter().filter_map(|address| if let IpAddr::V6(v6) = address { Some(v6) } else { None }) {
        let socket: &OwnedFd = match &socket {
            Some(socket) => socket,
            // Protocol 0: it receives nothing itself.
            None => socket.insert(socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?),
        };
        // RFC 4291 §2.7.1: the group ends in the last three bytes of the address. RFC 2464 §7: its Ethernet address.
        let [.., a, b, c] = v6.octets();
        let group = libc::packet_mreq {
            mr_ifindex: interface_index as i32,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: [0x33, 0x33, 0xff, a, b, c, 0, 0],
        };
        let len = mem::size_of_val(&group) as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
        // SAFETY: the kernel reads `group`, which outlives the call.
        if unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const group).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}
