//! A network interface as a port: what is asked for, and the opening of all its queues.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use af_xdp::{BindMode, BusyPoll, Socket, SocketConfig, Umem, UmemConfig};

use super::program::{ADDRESSES_MAX, Mode, Ownership, Slot, Steering, SteeringError};
use super::queue::{QueueReport, XdpQueue};
use super::{interface, rss};
use crate::burst::BURST;
use crate::driver::{AddressRange, Caps, Port};
use crate::frame::{FrameSize, Region};

/// A network interface, whose queues are to be driven through AF_XDP.
///
/// What is sent to the [own](Self::own_address) addresses comes to the queues; all else stays the kernel's. Open it in the
/// network namespace of the interface; afterwards its queues work from any thread of any namespace.
///
/// ```no_run
/// use handfast_drivers::driver::{Port, Queue};
/// use handfast_drivers::xdp::{AfXdp, XdpError};
///
/// # fn main() -> Result<(), XdpError> {
/// let queues = AfXdp::interface("eth1").own_address([192, 0, 2, 1].into()).open(1)?;
/// for queue in queues {
///     println!("{}", queue.report());
///     let driver = queue.start()?; // on the thread that will drive it
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdp {
    interface: String,
    own: Vec<AddressRange>,
    shared: Vec<IpAddr>,
    first_queue: u32,
    allow_unbound_queues: bool,
    frame_size: Option<FrameSize>,
    frames_per_queue: u32,
    ring_size: u32,
    huge_pages: bool,
    bind_mode: BindMode,
    attach_mode: Option<Mode>,
    busy_poll: Option<BusyPoll>,
}

impl AfXdp {
    /// The interface of that name in the network namespace of the thread that opens it.
    pub fn interface(name: impl Into<String>) -> AfXdp {
        AfXdp {
            interface: name.into(),
            own: Vec::new(),
            shared: Vec::new(),
            first_queue: 0,
            allow_unbound_queues: false,
            frame_size: None,
            frames_per_queue: 4096,
            ring_size: 2048,
            huge_pages: true,
            bind_mode: BindMode::Auto,
            attach_mode: None,
            busy_poll: None,
        }
    }

    /// An address that is ours alone: all that is sent to it comes to us, ARP and neighbour discovery about it too. The kernel
    /// must not have it.
    pub fn own_address(self, address: IpAddr) -> AfXdp {
        self.own_range(address, 1)
    }

    /// So many own addresses from `first` on. They may be thousands.
    pub fn own_range(mut self, first: IpAddr, count: u32) -> AfXdp {
        self.own.push(AddressRange { first, count });
        self
    }

    /// An address of the kernel's, of which we take [some TCP ports](super::XdpDriver::open_port).
    pub fn shared_address(mut self, address: IpAddr) -> AfXdp {
        self.shared.push(address);
        self
    }

    /// Which queue the first worker drives; the others follow. 0 unless told otherwise.
    pub fn first_queue(mut self, queue: u32) -> AfXdp {
        self.first_queue = queue;
        self
    }

    /// Opens the port although the device has receive queues that no worker drives. What arrives there goes to the kernel
    /// even if it is ours, so that this is right only where the device is told not to use them.
    pub fn allow_unbound_queues(mut self, allow: bool) -> AfXdp {
        self.allow_unbound_queues = allow;
        self
    }

    /// The size of each frame; otherwise the smallest that the interface's MTU fits into.
    pub fn frame_size(mut self, size: FrameSize) -> AfXdp {
        self.frame_size = Some(size);
        self
    }

    /// How many frames each queue has: 4096 unless told otherwise. At most half of them wait for packets to be received.
    pub fn frames_per_queue(mut self, frames: u32) -> AfXdp {
        self.frames_per_queue = frames;
        self
    }

    /// Entries of each ring, a power of two: 2048 unless told otherwise.
    pub fn ring_size(mut self, entries: u32) -> AfXdp {
        self.ring_size = entries;
        self
    }

    /// Whether to try 2 MiB pages first, which have to be reserved (`vm.nr_hugepages`). They are tried unless told otherwise; the
    /// [`QueueReport`] says what was got.
    pub fn huge_pages(mut self, wanted: bool) -> AfXdp {
        self.huge_pages = wanted;
        self
    }

    /// Copy or zero-copy: zero-copy where the driver has it, unless told otherwise.
    pub fn bind_mode(mut self, mode: BindMode) -> AfXdp {
        self.bind_mode = mode;
        self
    }

    /// Where the steering program has to run: in the driver, or else in the kernel's stack, unless told otherwise.
    pub fn attach_mode(mut self, mode: Mode) -> AfXdp {
        self.attach_mode = Some(mode);
        self
    }

    /// Runs the device's poll function from the worker, at every turn.
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> AfXdp {
        self.busy_poll = Some(busy_poll);
        self
    }

    /// The queues that `count` workers drive, of `device_queues`.
    fn queues(&self, count: usize, device_queues: u32) -> Result<Range<u32>, XdpError> {
        let end = u32::try_from(count).ok().and_then(|count| self.first_queue.checked_add(count)).unwrap_or(u32::MAX);
        let queues = self.first_queue..end;
        let interface = || self.interface.clone();
        if queues.is_empty() || end > device_queues {
            return Err(XdpError::Queues { interface: interface(), queues, device_queues });
        }
        if queues != (0..device_queues) && !self.allow_unbound_queues {
            return Err(XdpError::UnboundQueues { interface: interface(), queues, device_queues });
        }
        Ok(queues)
    }

    fn frame_size_for(&self, mtu: u32) -> Result<FrameSize, XdpError> {
        let fits = |size: &FrameSize| mtu as usize + LINK_HEADER_MAX <= size.bytes() - KERNEL_HEADROOM;
        let sizes = [FrameSize::Small, FrameSize::Large];
        let chosen = sizes.into_iter().filter(|&size| self.frame_size.is_none_or(|wanted| wanted == size)).find(fits);
        let largest = self.frame_size.unwrap_or(FrameSize::Large).bytes();
        let mtu_max = largest - KERNEL_HEADROOM - LINK_HEADER_MAX;
        chosen.ok_or_else(|| XdpError::Mtu { interface: self.interface.clone(), mtu, frame: largest, mtu_max })
    }

    /// One region for all queues, and why it is not of huge pages if they were wanted.
    fn region(&self, count: usize, size: FrameSize) -> Result<(Arc<Region>, Pages), XdpError> {
        let per_queue = self.frames_per_queue;
        let total = u32::try_from(count).ok().and_then(|count| count.checked_mul(per_queue));
        let Some(frames) = total.filter(|_| per_queue as usize >= FRAMES_MIN) else {
            return Err(XdpError::Frames { frames: per_queue });
        };
        let refused = match self.huge_pages.then(|| Region::with_huge_pages(frames, size)) {
            Some(Ok(region)) => return Ok((region, Pages::Huge)),
            Some(Err(error)) => {
                let pages = (frames as usize * size.bytes()).div_ceil(2 << 20);
                Some(format!("{error}; `sysctl vm.nr_hugepages={pages}` reserves enough"))
            }
            None => None,
        };
        let memory = |source| XdpError::Memory { bytes: frames as usize * size.bytes(), source };
        Ok((Region::mapped(frames, size).map_err(memory)?, Pages::Normal { refused }))
    }

    fn attach(&self) -> Result<Steering, XdpError> {
        let mut steering = Steering::load()?;
        steering.attach(&self.interface, self.attach_mode)?;
        Ok(steering)
    }

    fn socket_config(&self, attached: Mode) -> SocketConfig {
        SocketConfig {
            rx_size: self.ring_size,
            tx_size: self.ring_size,
            // Zero-copy is the driver's doing, and the driver does not ask a program that runs in the kernel's stack.
            mode: match (self.bind_mode, attached) {
                (BindMode::Auto, Mode::Generic) => BindMode::ForceCopy,
                (mode, _) => mode,
            },
            busy_poll: self.busy_poll,
            tx_budget: (self.ring_size >= BURST as u32).then_some(BURST as u32),
            ..SocketConfig::default()
        }
    }

    fn why_copy(&self, socket: &Socket, attached: Mode) -> Option<String> {
        match (socket.mode(), self.bind_mode) {
            (af_xdp::Mode::ZeroCopy, _) => None,
            (_, BindMode::ForceCopy) => Some("it was asked for".into()),
            _ if attached == Mode::Generic => Some("zero-copy needs XDP in native mode".into()),
            _ => socket.zero_copy_refusal().map(|why| format!("the driver refuses zero-copy: {why}")),
        }
    }
}

impl Port for AfXdp {
    type Queue = XdpQueue;

    /// Addresses that are not shared with the kernel are ours alone.
    fn announce(&mut self, addresses: &[AddressRange]) {
        for range in addresses {
            let is_shared = range.count == 1 && self.shared.contains(&range.first);
            if !is_shared && !self.own.contains(range) {
                self.own.push(*range);
            }
        }
    }

    fn open(self, count: usize) -> Result<Vec<XdpQueue>, XdpError> {
        let name = &self.interface;
        let index = af_xdp::interface_index(name)?;
        let queues = self.queues(count, af_xdp::queue_count(name)?)?;
        let (mac, mtu) = (af_xdp::mac(name)?, af_xdp::mtu(name)?);
        let frame_size = self.frame_size_for(mtu)?;
        let asking = |source| XdpError::System { doing: "asking for the kernel's addresses", source };
        for address in interface::kernel_addresses(name).map_err(asking)? {
            if self.own.iter().any(|range| range.contains(address)) {
                return Err(XdpError::KernelHasAddress { interface: name.clone(), address });
            }
        }

        // The program first: there are drivers that cannot bind for zero-copy without one.
        let mut steering = self.attach()?;
        let attached = steering.attached().expect("attach() attached it");
        let (attach, native_refused) = (attached.mode, attached.native_refused.as_ref().map(io::Error::to_string));

        let (region, pages) = self.region(count, frame_size)?;
        let umem = Umem::new(
            Arc::new(Memory(region.clone())),
            UmemConfig {
                chunk_size: frame_size.bytes() as u32,
                fill_size: self.ring_size,
                completion_size: self.ring_size,
                ..UmemConfig::default()
            },
        )?;
        let config = self.socket_config(attach);
        let mut bound = Vec::with_capacity(count);
        for queue in queues.clone() {
            let (socket, rings) = Socket::bind(&umem, name, queue, &config)?;
            steering.register_socket(queue, socket.as_fd())?;
            bound.push((socket, rings));
        }
        let joining = |source| XdpError::System { doing: "joining the groups of IPv6 neighbour discovery", source };
        let groups = interface::join_solicited_nodes(index, &self.own).map_err(joining)?;
        // The addresses last: from here on packets come, and each queue has its socket.
        let mut slots = Vec::with_capacity(self.shared.len());
        for &address in &self.shared {
            slots.push((address, steering.add_address(address, Ownership::Shared)?));
        }
        // A few by themselves, which is quicker.
        let few = self.own.len() + self.shared.len() <= ADDRESSES_MAX;
        for range in &self.own {
            match range.count {
                1 if few => steering.add_address(range.first, Ownership::Own).map(drop)?,
                count => steering.add_range(range.first, count)?,
            }
        }

        let rss = rss::read(name, queues.clone());
        let device = Arc::new(Device { steering, slots, _groups: groups });
        let opened = queues.zip(bound).enumerate().map(|(worker, (queue, (socket, rings)))| XdpQueue {
            report: QueueReport {
                interface: name.clone(),
                queue,
                attach,
                native_refused: native_refused.clone(),
                copy_mode: socket.mode(),
                why_copy: self.why_copy(&socket, attach),
                frame_size,
                huge_pages: pages == Pages::Huge,
                huge_pages_refused: if let Pages::Normal { refused } = &pages { refused.clone() } else { None },
            },
            caps: Caps {
                mac,
                mtu: mtu as u16,
                queue: worker as u16,
                queues: count as u16,
                tx_checksum: false,
                rx_checksum: false,
                rss: rss.clone(),
            },
            socket,
            rings,
            region: region.clone(),
            share: worker as u32 * self.frames_per_queue..(worker as u32 + 1) * self.frames_per_queue,
            busy_poll: self.busy_poll.is_some(),
            device: device.clone(),
        });
        Ok(opened.collect())
    }
}

/// What the queues of an interface have in common. It goes with the last of them, and the program with it.
pub(super) struct Device {
    pub(super) steering: Steering,
    /// Where the ports of each shared address are listed.
    pub(super) slots: Vec<(IpAddr, Slot)>,
    _groups: Option<OwnedFd>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steering.fmt(f)
    }
}

/// Why a port could not be opened, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// The steering program.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// A socket, or the interface itself.
    #[error(transparent)]
    Socket(#[from] af_xdp::Error),
    /// The device does not have the queues.
    #[error(
        "{interface} has {device_queues} receive queues, and {} workers from queue {} on do not go with that: start one for each \
         queue, or change the queues with `ethtool -L {interface}`", queues.len(), queues.start
    )]
    Queues {
        /// The interface.
        interface: String,
        /// The queues asked for.
        queues: Range<u32>,
        /// The device's receive queues.
        device_queues: u32,
    },
    /// Some of the device's queues would have no worker.
    #[error(
        "{interface} has {device_queues} receive queues and {} workers would drive those from {}: what arrives on the others \
         would go to the kernel, which would reset our connections. Start {device_queues} workers, or `ethtool -L {interface} \
         combined {}` (`rx` where it has no combined ones), or, if the device is told not to use the others, \
         allow_unbound_queues(true)", queues.len(), queues.start, queues.end
    )]
    UnboundQueues {
        /// The interface.
        interface: String,
        /// The queues that the workers would drive.
        queues: Range<u32>,
        /// The device's receive queues.
        device_queues: u32,
    },
    /// An address that was to be ours is the kernel's.
    #[error(
        "{address} is an address of the kernel's on {interface}, and an own address must be ours alone: take it from the kernel \
         with `ip address del {address}/PREFIX dev {interface}`, use another one, or share it with shared_address()"
    )]
    KernelHasAddress {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
    },
    /// Packets of full length would not fit.
    #[error(
        "the MTU of {interface} is {mtu} and a frame of {frame} bytes has room for {mtu_max}: `ip link set {interface} mtu \
         {mtu_max}`, or larger frames (FrameSize::Large is the largest)"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// The size of a frame, in bytes.
        frame: usize,
        /// The largest MTU for it.
        mtu_max: usize,
    },
    /// Too few frames, or too many.
    #[error("{frames} frames a queue: at least {FRAMES_MIN} are needed, and fewer than 2^32 in all")]
    Frames {
        /// The number asked for.
        frames: u32,
    },
    /// The memory for the frames could not be had.
    #[error("no {bytes} bytes of memory for frames ({source}): take fewer frames_per_queue()")]
    Memory {
        /// What all queues need.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else that the kernel said.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A region as the kernel sees it.
struct Memory(Arc<Region>);

// SAFETY: a region's memory does not move and lives as long as its last Arc; a mapped one begins at a page. A frame that is
// posted to receive into has no Frame or Held, so that nobody has a reference into it; one that is posted to be sent is at
// most read, through its Held, until it is completed.
unsafe impl af_xdp::Memory for Memory {
    fn as_ptr(&self) -> std::ptr::NonNull<u8> {
        self.0.base()
    }

    fn len(&self) -> usize {
        self.0.frames() as usize * self.0.frame_size().bytes()
    }
}

#[derive(PartialEq, Eq)]
enum Pages {
    Huge,
    Normal { refused: Option<String> },
}

/// A burst to receive into and a burst to send.
const FRAMES_MIN: usize = 2 * BURST;
/// Ethernet with one VLAN tag.
pub(super) const LINK_HEADER_MAX: usize = 18;
/// What the kernel keeps before each received packet: `XDP_PACKET_HEADROOM`.
const KERNEL_HEADROOM: usize = 256;

#[cfg(test)]
mod tests;
