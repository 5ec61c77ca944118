//! What the kernel says of an interface.

use crate::{Errno, Error};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

/// The index of an interface of this thread's network namespace.
///
/// # Errors
/// [`Error::NoInterface`].
pub fn interface_index(name: &str) -> Result<u32, Error> {
    let socket = any_socket()?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|errno| interface_error(name, "SIOCGIFINDEX", errno))
}

/// How many queues an interface receives on, which are the queues to bind. Where the driver does not say, `/sys` is asked,
/// and that must then be of the same network namespace.
///
/// # Errors
/// [`Error::NoInterface`], or what the kernel says.
pub fn queue_count(name: &str) -> Result<u32, Error> {
    Ok(queues(name)?.rx)
}

/// The hardware address of an interface.
///
/// # Errors
/// [`Error::NoInterface`], or what the kernel says.
pub fn mac(name: &str) -> Result<[u8; 6], Error> {
    let request = ask(name, libc::SIOCGIFHWADDR as _, "SIOCGIFHWADDR", 0 as _)?;
    // SAFETY: SIOCGIFHWADDR has just filled this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    Ok(std::array::from_fn(|i| address.sa_data[i] as u8))
}

/// The longest packet of an interface, in bytes, without the Ethernet header.
///
/// # Errors
/// [`Error::NoInterface`], or what the kernel says.
pub fn mtu(name: &str) -> Result<u32, Error> {
    let request = ask(name, libc::SIOCGIFMTU as _, "SIOCGIFMTU", 0 as _)?;
    // SAFETY: SIOCGIFMTU has just filled this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
}

pub(crate) struct Queues {
    pub(crate) rx: u32,
    pub(crate) tx: u32,
}

pub(crate) fn queues(name: &str) -> Result<Queues, Error> {
    let mut channels = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    match ask(name, libc::SIOCETHTOOL as _, "ETHTOOL_GCHANNELS", (&raw mut channels).cast()) {
        Ok(_) => Ok(Queues {
            rx: channels.combined_count + channels.rx_count,
            tx: channels.combined_count + channels.tx_count,
        }),
        Err(Error::Call { errno: Errno::OPNOTSUPP, .. }) => {
            let list = fs::read_dir(format!("/sys/class/net/{name}/queues"))
                .map_err(|error| Error::Call { call: "readdir(/sys/class/net/*/queues)", errno: errno_of(&error) })?;
            let names: Vec<_> = list.flatten().map(|entry| entry.file_name()).collect();
            let count = |prefix: &[u8]| names.iter().filter(|name| name.as_encoded_bytes().starts_with(prefix)).count();
            Ok(Queues { rx: count(b"rx-") as u32, tx: count(b"tx-") as u32 })
        }
        Err(error) => Err(error),
    }
}

/// One `ioctl` over `struct ifreq`, whose pointer member is `data` where the request reads it.
fn ask(name: &str, request: libc::Ioctl, call: &'static str, data: *mut libc::c_char) -> Result<libc::ifreq, Error> {
    let socket = any_socket()?;
    // SAFETY: all of `ifreq` is integers and pointers, for which zero is a value.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    if name.is_empty() || name.len() >= ifreq.ifr_name.len() || name.contains('\0') {
        return Err(Error::NoInterface { interface: name.to_owned() });
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = data;
    // SAFETY: the requests of this file read and write `ifreq` and, for ethtool, the structure of the caller's below
    // `data`; both are borrowed exclusively for the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut ifreq) } < 0 {
        return Err(interface_error(name, call, errno_of(&std::io::Error::last_os_error())));
    }
    Ok(ifreq)
}

/// AF_XDP sockets do not take the interface requests.
fn any_socket() -> Result<OwnedFd, Error> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::Call { call: "socket(AF_UNIX)", errno })
}

fn interface_error(name: &str, call: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::NODEV | Errno::NXIO => Error::NoInterface { interface: name.to_owned() },
        errno => Error::Call { call, errno },
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;

#[cfg(test)]
mod tests;
