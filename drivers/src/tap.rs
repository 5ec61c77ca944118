//! A TAP device: packets to and from the kernel of this machine through `/dev/net/tun`. Slow, and there on any Linux.
//!
//! The device is made in the network namespace of the thread that opens it, and goes when the last queue is dropped, unless it
//! was there before. The kernel is the peer: its side of the device is an interface with an Ethernet address of its own.

use std::error;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::burst::{RxBurst, TxBurst};
use crate::driver::{Caps, Description, Driver, DriverStats, Port, Queue};
use crate::frame::{FramePool, FrameSize, HEADROOM, Region};

/// A TAP device and how to set it up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name of the interface, at most 15 bytes. `%d` in it stands for the first free number.
    pub name: String,
    /// Our Ethernet address. By default a random one, locally administered.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes; the interface is set to it.
    pub mtu: u16,
    /// Addresses for the kernel's side, with the lengths of their prefixes.
    pub kernel_addresses: Vec<(IpAddr, u8)>,
    /// Frames of each queue's pool.
    pub frames_per_queue: u32,
    /// Size of each frame.
    pub frame_size: FrameSize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "handfast%d".into(),
            mac: None,
            mtu: 1500,
            kernel_addresses: Vec::new(),
            frames_per_queue: 4096,
            frame_size: FrameSize::Small,
        }
    }
}

/// Why the device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be one of an interface.
    #[error("'{0}' cannot be the name of an interface: 1 to 15 bytes, no '/', no white space")]
    Name(String),
    /// A packet of this MTU does not fit into a frame.
    #[error("an MTU of {mtu} does not fit: at least 68, at most {max}, and {large} with `FrameSize::Large`", large = mtu_max(FrameSize::Large))]
    Mtu {
        /// What the configuration says.
        mtu: u16,
        /// The most that fits.
        max: u16,
    },
    /// The port was opened for no queue, or for more than the kernel has.
    #[error("a TAP device has 1 to 256 queues, not {0}")]
    Queues(usize),
    /// No frames, or more than can be addressed.
    #[error("{0} frames a queue: at least one is needed, and no more than 2^31 in all")]
    Frames(u32),
    /// `/dev/net/tun` is not there.
    #[error("/dev/net/tun is not there: load the module with `modprobe tun`, or give the container the device")]
    NoTun,
    /// Not allowed to.
    #[error("no permission to {action}: run as root or with CAP_NET_ADMIN")]
    Permission {
        /// What was tried.
        action: &'static str,
    },
    /// Somebody has the interface open.
    #[error("interface '{0}' is in use by another program: end that, or choose another name")]
    Busy(String),
    /// There is such an interface, but it cannot be used.
    #[error(
        "interface '{0}' exists and is not a TAP device with {1}: delete it with `ip link delete {0}`, or choose another name"
    )]
    Unsuitable(String, &'static str),
    /// The interface was deleted while it was driven.
    #[error("interface '{0}' is gone: open it again to make it anew")]
    Gone(String),
    /// Both sides would have the same Ethernet address.
    #[error("the kernel's side has the Ethernet address that ours should have: configure another `mac`")]
    SameMac,
    /// Anything else that the kernel refused.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A TAP device to be opened.
#[derive(Clone, Debug)]
pub struct TapPort {
    config: Config,
}

impl TapPort {
    /// Nothing happens before it is opened.
    pub fn new(config: Config) -> TapPort {
        TapPort { config }
    }
}

impl Port for TapPort {
    type Queue = TapQueue;

    fn open(self, count: usize) -> Result<Vec<TapQueue>, Error> {
        let Config { name, mac, mtu, kernel_addresses, frames_per_queue, frame_size } = self.config;
        let max = mtu_max(frame_size);
        if !(68..=max).contains(&mtu) {
            return Err(Error::Mtu { mtu, max });
        }
        if !(1..=256).contains(&count) {
            return Err(Error::Queues(count));
        }
        if frames_per_queue == 0 || frames_per_queue as u64 * count as u64 > 1 << 31 {
            return Err(Error::Frames(frames_per_queue));
        }
        let (first, interface) = attach(Request::new(&name)?, count > 1)?;
        let mut files = vec![first];
        for _ in 1..count {
            files.push(attach(interface, true)?.0);
        }
        let control = control(AddressFamily::INET)?;
        interface.set_mtu(&control, mtu)?;
        for (address, prefix_len) in kernel_addresses {
            interface.add_address(&control, address, prefix_len)?;
        }
        interface.bring_up(&control)?;
        let kernel_mac = interface.mac(&control)?;
        let mac = match mac {
            Some(mac) => mac,
            None => random_mac()?,
        };
        if mac == kernel_mac {
            return Err(Error::SameMac);
        }
        let region = Region::new(frames_per_queue * count as u32, frame_size);
        let queue = |(number, file): (usize, File)| TapQueue {
            file,
            name: interface.name(),
            region: region.clone(),
            share: frames_per_queue * number as u32..frames_per_queue * (number as u32 + 1),
            caps: Caps {
                mac,
                mtu,
                queue: number as u16,
                queues: count as u16,
                tx_checksum: false,
                rx_checksum: false,
                rss: None,
            },
        };
        Ok(files.into_iter().enumerate().map(queue).collect())
    }
}

/// One queue of the device, on its way to its thread.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
    name: String,
    region: Arc<Region>,
    share: Range<u32>,
    caps: Caps,
}

impl TapQueue {
    /// Name of the interface on the kernel's side.
    pub fn interface(&self) -> &str {
        &self.name
    }
}

impl Queue for TapQueue {
    type Driver = TapDriver;
    type Error = Error;

    fn start(self) -> Result<TapDriver, Error> {
        let TapQueue { file, name, region, share, caps } = self;
        let (pool, stats) = (FramePool::new(region, share), DriverStats::default());
        Ok(TapDriver { file, name, pool, caps, stats, fault: None })
    }
}

/// One queue of the device.
#[derive(Debug)]
pub struct TapDriver {
    file: File,
    name: String,
    pool: FramePool,
    caps: Caps,
    stats: DriverStats,
    fault: Option<Error>,
}

impl TapDriver {
    /// Name of the interface on the kernel's side.
    pub fn interface(&self) -> &str {
        &self.name
    }
}

impl TapDriver {
    #[cold]
    fn gone(&mut self) {
        self.fault.get_or_insert_with(|| Error::Gone(self.name.clone()));
    }
}

impl Driver for TapDriver {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn pool(&self) -> &FramePool {
        &self.pool
    }

    fn rx_burst(&mut self, rx: &mut RxBurst) {
        while !rx.is_full()
            && let Some(mut frame) = self.pool.alloc()
        {
            let room = frame.tailroom();
            let len = match rustix::io::read(&self.file, frame.append(room)) {
                Ok(len) => len,
                Err(Errno::BADFD) => return self.gone(),
                // No packet, or the interface is down: try again next time.
                Err(_) => return,
            };
            frame.truncate(len);
            self.stats.rx_packets += 1;
            rx.push(frame);
        }
    }

    fn tx_burst(&mut self, tx: &mut TxBurst) {
        tx.check_region(&self.pool);
        let mut done = 0;
        for desc in tx.descs() {
            match rustix::io::write(&self.file, self.pool.region().bytes(desc)) {
                Ok(_) => self.stats.tx_packets += 1,
                // The kernel has no room now.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => break,
                // Too short, or the interface is down or gone.
                Err(_) => self.stats.tx_invalid += 1,
            }
            done += 1;
        }
        tx.drain_descs(done).for_each(|desc| self.pool.completed(desc.index));
    }

    fn flush(&mut self) {}

    fn describe(&self) -> Description {
        let (text, queue) = (format!("{}: TAP", self.name), self.caps.queue.into());
        Description { text, queue, ..Description::default() }
    }

    fn fault(&mut self) -> Option<&(dyn error::Error + Send + Sync + 'static)> {
        self.fault.as_ref().map(|fault| fault as _)
    }

    fn stats(&self) -> DriverStats {
        self.stats
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

const fn mtu_max(frame_size: FrameSize) -> u16 {
    (frame_size.bytes() - HEADROOM - LINK_HEADER_MAX) as u16
}

/// Opens a queue of the interface; says what the interface is called.
fn attach(wanted: Request, multi_queue: bool) -> Result<(File, Request), Error> {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = open.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => Error::NoTun,
        _ => refused("open /dev/net/tun", error),
    })?;
    let queues = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let mut request = wanted;
    request.0.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | queues) as libc::c_short;
    match request.call(&file, libc::TUNSETIFF as libc::c_ulong) {
        Ok(()) => Ok((file, request)),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EBUSY) => Error::Busy(wanted.name()),
            Some(libc::EINVAL) if multi_queue => Error::Unsuitable(wanted.name(), "many queues"),
            Some(libc::EINVAL) => Error::Unsuitable(wanted.name(), "one queue"),
            _ => refused("attach to the TAP interface", error),
        }),
    }
}

/// A socket to set up interfaces with.
fn control(family: AddressFamily) -> Result<OwnedFd, Error> {
    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| refused("open a socket to set up the interface", error.into()))
}

fn refused(action: &'static str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::Permission { action },
        _ => Error::System { action, error },
    }
}

fn random_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0; 6];
    let random = |error| refused("read random bytes for an Ethernet address", error);
    io::Read::read_exact(&mut File::open("/dev/urandom").map_err(random)?, &mut mac).map_err(random)?;
    // IEEE 802: locally administered, and of one station.
    mac[0] = mac[0] & !1 | 2;
    Ok(mac)
}

/// A request about an interface; its argument is a union, of which each call reads or writes one member.
#[derive(Clone, Copy)]
struct Request(libc::ifreq);

impl Request {
    fn new(name: &str) -> Result<Request, Error> {
        let fits = (1..libc::IFNAMSIZ).contains(&name.len()) && name != "." && name != "..";
        if !fits || name.bytes().any(|byte| byte == b'/' || byte == 0 || byte.is_ascii_whitespace()) {
            return Err(Error::Name(name.into()));
        }
        // SAFETY: ifreq is plain data and valid when zero; nobody else has it.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = byte as libc::c_char;
        }
        Ok(Request(request))
    }

    fn name(&self) -> String {
        self.0.ifr_name.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8 as char).collect()
    }

    fn call(&mut self, fd: &impl AsRawFd, number: libc::c_ulong) -> io::Result<()> {
        // SAFETY: every number used here takes an ifreq, which is borrowed exclusively during the call.
        match unsafe { libc::ioctl(fd.as_raw_fd(), number as _, &mut self.0) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set_mtu(mut self, control: &OwnedFd, mtu: u16) -> Result<(), Error> {
        self.0.ifr_ifru.ifru_mtu = mtu as libc::c_int;
        self.call(control, libc::SIOCSIFMTU as _).map_err(|error| refused("set the interface's MTU", error))
    }

    fn bring_up(mut self, control: &OwnedFd) -> Result<(), Error> {
        let action = "bring the interface up";
        self.call(control, libc::SIOCGIFFLAGS as _).map_err(|error| refused(action, error))?;
        // SAFETY: the call wrote this member; every bit pattern is a number.
        let flags = unsafe { self.0.ifr_ifru.ifru_flags };
        self.0.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        self.call(control, libc::SIOCSIFFLAGS as _).map_err(|error| refused(action, error))
    }

    fn mac(mut self, control: &OwnedFd) -> Result<[u8; 6], Error> {
        let action = "read the interface's Ethernet address";
        self.call(control, libc::SIOCGIFHWADDR as _).map_err(|error| refused(action, error))?;
        // SAFETY: the call wrote this member; every bit pattern is a number.
        let address = unsafe { self.0.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(core::array::from_fn(|i| address[i] as u8))
    }

    fn add_address(mut self, control: &OwnedFd, address: IpAddr, prefix_len: u8) -> Result<(), Error> {
        let action = "give the kernel's side an address";
        let invalid = || Error::System { action, error: io::ErrorKind::InvalidInput.into() };
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - prefix_len.min(32) as u32).unwrap_or(0);
                if prefix_len > 32 {
                    return Err(invalid());
                }
                self.0.ifr_ifru.ifru_addr = sockaddr_v4(address.octets());
                self.call(control, libc::SIOCSIFADDR as _).map_err(|error| refused(action, error))?;
                self.0.ifr_ifru.ifru_netmask = sockaddr_v4(mask.to_be_bytes());
                self.call(control, libc::SIOCSIFNETMASK as _).map_err(|error| refused(action, error))
            }
            IpAddr::V6(address) => {
                if prefix_len > 128 {
                    return Err(invalid());
                }
                self.call(control, libc::SIOCGIFINDEX as _).map_err(|error| refused(action, error))?;
                let request = libc::in6_ifreq {
                    ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
                    ifr6_prefixlen: prefix_len as u32,
                    // SAFETY: the call wrote this member; every bit pattern is a number.
                    ifr6_ifindex: unsafe { self.0.ifr_ifru.ifru_ifindex },
                };
                let control = self::control(AddressFamily::INET6)?;
                // SAFETY: on an IPv6 socket this number takes an in6_ifreq, which lives through the call.
                match unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFADDR as _, &request) } {
                    0.. => Ok(()),
                    _ => Err(refused(action, io::Error::last_os_error())),
                }
            }
        }
    }
}

fn sockaddr_v4(address: [u8; 4]) -> libc::sockaddr {
    // SAFETY: sockaddr is plain data and valid when zero; nobody else has it.
    let mut sockaddr: libc::sockaddr = unsafe { core::mem::zeroed() };
    sockaddr.sa_family = libc::AF_INET as libc::sa_family_t;
    // After the port, which is two bytes.
    for (to, byte) in sockaddr.sa_data[2..].iter_mut().zip(address) {
        *to = byte as libc::c_char;
    }
    sockaddr
}

/// With one VLAN tag.
const LINK_HEADER_MAX: usize = 18;

#[cfg(test)]
mod tests;
