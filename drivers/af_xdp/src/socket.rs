//! A socket: one queue of one interface, joined to a UMEM.

use crate::interface::{self, Queues};
use crate::ring::Ring;
use crate::umem::check_ring;
use crate::{Completion, Consumer, Errno, Error, Fill, Producer, Rx, Tx, Umem};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpMmapOffsets, XdpOptionsFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A bound AF_XDP socket. The queue is free again when this and its rings are dropped: the kernel keeps a socket as long as
/// its rings are mapped.
///
/// Give it ([`AsFd`]) to an `XSKMAP` under its queue's number and let an XDP program redirect to it: without that it only sends.
#[derive(Debug)]
pub struct Socket {
    bound: Arc<Bound>,
}

/// The rings of a queue's first socket.
#[derive(Debug)]
pub struct Rings {
    /// Received frames.
    pub rx: Rx,
    /// Frames to send.
    pub tx: Tx,
    /// Empty chunks to receive into.
    pub fill: Fill,
    /// Sent frames.
    pub completion: Completion,
}

/// What a socket asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Entries of the receive ring, a power of two.
    pub rx_size: u32,
    /// Entries of the transmit ring, a power of two.
    pub tx_size: u32,
    /// Copy or zero-copy.
    pub mode: BindMode,
    /// Let the kernel sleep until it is woken: see [`Producer::needs_wakeup`]. Without it a driver in zero-copy mode polls
    /// all the time.
    pub need_wakeup: bool,
    /// Packets longer than a chunk come and go as several descriptors (`XDP_USE_SG`). The XDP program must be loaded with
    /// `BPF_F_XDP_HAS_FRAGS`. Linux 6.6.
    pub multi_buffer: bool,
    /// Run the driver's poll function from [`Socket::kick_rx`], [`Socket::kick_tx`] and [`Socket::wait`].
    pub busy_poll: Option<BusyPoll>,
    /// In copy mode, frames that one [`Socket::kick_tx`] sends at most: 32 to `tx_size`. Before Linux 6.17 it is always 32.
    pub tx_budget: Option<u32>,
}

impl Default for SocketConfig {
    /// Rings of 2048 entries, zero-copy where the driver has it, need-wakeup, nothing else.
    fn default() -> Self {
        SocketConfig {
            rx_size: 2048,
            tx_size: 2048,
            mode: BindMode::Auto,
            need_wakeup: true,
            multi_buffer: false,
            busy_poll: None,
            tx_budget: None,
        }
    }
}

/// Which mode to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy, and copy where that is refused: [`Socket::mode`] says which, [`Socket::zero_copy_refusal`] why.
    #[default]
    Auto,
    /// Copy.
    ForceCopy,
    /// Zero-copy or [`Error::ZeroCopyRefused`].
    ForceZeroCopy,
}

/// The mode that the kernel gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies each frame between its own memory and the UMEM.
    Copy,
    /// The device reads and writes the UMEM.
    ZeroCopy,
}

/// Busy polling by system call (`SO_BUSY_POLL` and its kin). It has an effect where interrupts are deferred:
/// `napi_defer_hard_irqs` and `gro_flush_timeout` in `/sys/class/net/*/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long a blocking call may poll, in microseconds.
    pub usecs: u32,
    /// Packets that one call handles at most.
    pub budget: u32,
    /// Leave the queue to these calls as long as they keep coming, instead of to interrupts.
    pub prefer: bool,
}

/// What a kick came to. None of these is an error: frames that were not sent stay in the ring, and [`Tx::wants_kick`] goes
/// on asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// The kernel did what it was asked to.
    Done,
    /// A part was sent; more waits (`EAGAIN`).
    More,
    /// The device's own queue is full (`EBUSY`).
    Busy,
    /// The kernel has no memory for it now (`ENOBUFS`).
    NoBuffers,
    /// The interface is down (`ENETDOWN`).
    Down,
}

/// Counters of a socket since it was made: `struct xdp_statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames dropped on reception for other reasons than the ones below: too long for a chunk, for instance.
    pub rx_dropped: u64,
    /// Fill entries outside of the UMEM.
    pub rx_invalid_descs: u64,
    /// Transmit entries outside of the UMEM or of their chunk.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that the fill ring was empty when a chunk was needed.
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the transmit ring was found empty.
    pub tx_ring_empty_descs: u64,
}

impl Socket {
    /// Joins `queue` of `interface`, a name in this thread's network namespace, to `umem`.
    ///
    /// The kernel frees a queue some time after its last socket was closed, therefore this waits up to two seconds for a busy one.
    /// The first socket of a UMEM sets mode, need-wakeup and multi-buffer for the others. Afterwards, fill and then kick:
    /// [`Producer::needs_wakeup`].
    ///
    /// # Errors
    /// [`Error`] says what failed and what to do.
    pub fn bind(umem: &Umem, interface: &str, queue: u32, config: &SocketConfig) -> Result<(Socket, Rings), Error> {
        config.check()?;
        let interface_index = interface::interface_index(interface)?;
        if !config.multi_buffer {
            let (mtu, room) = (interface::mtu(interface)?, umem.config().room());
            if mtu.saturating_add(ETHERNET_AND_VLAN) > room {
                return Err(Error::MtuTooLarge { interface: interface.to_owned(), mtu, room });
            }
        }

        let fd = open()?;
        let mut sockets = umem.sockets();
        let first = sockets.iter().find_map(|socket| socket.upgrade());
        if first.is_none() {
            umem.register(&fd)?;
        }
        let &SocketConfig { rx_size, tx_size, .. } = config;
        let (fill_size, completion_size) = (umem.config().fill_size, umem.config().completion_size);
        set("fill ring size", sockopt::set_xdp_umem_fill_ring_size(&fd, fill_size))?;
        set("completion ring size", sockopt::set_xdp_umem_completion_ring_size(&fd, completion_size))?;
        let at = config.apply(&fd)?;
        let rings = Rings {
            rx: Consumer::new(Ring::map(fd.as_fd(), XDP_PGOFF_RX_RING, &at.rx, rx_size)?),
            tx: Producer::new(Ring::map(fd.as_fd(), XDP_PGOFF_TX_RING, &at.tx, tx_size)?),
            fill: Producer::new(Ring::map(fd.as_fd(), XDP_UMEM_PGOFF_FILL_RING, &at.fr, fill_size)?),
            completion: Consumer::new(Ring::map(fd.as_fd(), XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, completion_size)?),
        };

        let place = Place { interface: interface.to_owned(), interface_index, queue };
        let bound = match first {
            None => place.bind_first(umem, fd, config)?,
            Some(first) => {
                config.check_against(&first)?;
                place.bind_shared(umem, fd, config, &first)?
            }
        };
        let bound = Arc::new(bound);
        sockets.push(Arc::downgrade(&bound));
        Ok((Socket { bound }, rings))
    }

    /// Another socket on the same queue, with a receive and a transmit ring of its own and the fill and completion rings
    /// of this one: the completions of both arrive in that one ring.
    ///
    /// # Errors
    /// As [`Socket::bind`].
    pub fn sibling(&self, config: &SocketConfig) -> Result<(Socket, Rx, Tx), Error> {
        config.check()?;
        let first = &*self.bound;
        config.check_against(first)?;
        let fd = open()?;
        let at = config.apply(&fd)?;
        let rx = Consumer::new(Ring::map(fd.as_fd(), XDP_PGOFF_RX_RING, &at.rx, config.rx_size)?);
        let tx = Producer::new(Ring::map(fd.as_fd(), XDP_PGOFF_TX_RING, &at.tx, config.tx_size)?);
        let mut sockets = first.umem.sockets();
        let bound = Arc::new(first.place.clone().bind_shared(&first.umem, fd, config, first)?);
        sockets.push(Arc::downgrade(&bound));
        drop(sockets);
        Ok((Socket { bound }, rx, tx))
    }

    /// Has the kernel send: due when [`Tx::wants_kick`].
    ///
    /// # Errors
    /// [`Error::InterfaceGone`]; what passes by itself is a [`Kick`].
    #[inline]
    pub fn kick_tx(&self) -> Result<Kick, Error> {
        self.kicked("sendto", rustix::net::send(&self.bound.fd, &[], SendFlags::DONTWAIT).map(drop))
    }

    /// Has the kernel go on receiving: due when the fill ring [needs a wakeup](Producer::needs_wakeup), and with busy
    /// polling at every turn.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`]; what passes by itself is a [`Kick`].
    #[inline]
    pub fn kick_rx(&self) -> Result<Kick, Error> {
        let mut nothing = [0u8; 0];
        self.kicked("recvfrom", rustix::net::recv(&self.bound.fd, &mut nothing[..], RecvFlags::DONTWAIT).map(drop))
    }

    /// Sleeps until a frame is received (true), the timeout is over or a signal arrives (false); `None` waits for ever. This
    /// also does what the two kicks do. A removed interface does not end it, so that a timeout and a kick are needed to see that.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let mut fds = [PollFd::new(&self.bound.fd, PollFlags::IN)];
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(FOR_EVER));
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(fds[0].revents().contains(PollFlags::IN)),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(Error::Call { call: "poll", errno }),
        }
    }

    /// The mode that the kernel says this socket is in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.bound.mode
    }

    /// Why [`BindMode::Auto`] fell back to copy mode.
    #[must_use]
    pub fn zero_copy_refusal(&self) -> Option<Errno> {
        self.bound.zero_copy_refusal
    }

    /// Frames that one kick sends at most, in copy mode: what was asked for, or 32 where the kernel cannot change it.
    #[must_use]
    pub fn tx_budget(&self) -> u32 {
        self.bound.tx_budget
    }

    /// The name that the socket was bound with.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.bound.place.interface
    }

    /// The interface's index.
    #[must_use]
    pub fn interface_index(&self) -> u32 {
        self.bound.place.interface_index
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.bound.place.queue
    }

    /// The UMEM.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.bound.umem
    }

    /// The kernel's counters.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        let counted = set("XDP_STATISTICS", sockopt::xdp_statistics(&self.bound.fd))?;
        Ok(Statistics {
            rx_dropped: counted.rx_dropped,
            rx_invalid_descs: counted.rx_invalid_descs,
            tx_invalid_descs: counted.tx_invalid_descs,
            rx_ring_full: counted.rx_ring_full.unwrap_or(0),
            rx_fill_ring_empty_descs: counted.rx_fill_ring_empty_descs.unwrap_or(0),
            tx_ring_empty_descs: counted.tx_ring_empty_descs.unwrap_or(0),
        })
    }

    #[inline]
    fn kicked(&self, call: &'static str, answer: Result<(), Errno>) -> Result<Kick, Error> {
        match answer {
            Ok(()) => Ok(Kick::Done),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Kick::More),
            Err(Errno::BUSY) => Ok(Kick::Busy),
            Err(Errno::NOBUFS) => Ok(Kick::NoBuffers),
            Err(Errno::NETDOWN) => Ok(Kick::Down),
            Err(errno) => Err(self.bound.place.kick_error(call, errno)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bound.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.bound.fd.as_raw_fd()
    }
}

impl SocketConfig {
    fn check(&self) -> Result<(), Error> {
        check_ring("receive", self.rx_size)?;
        check_ring("transmit", self.tx_size)?;
        match self.tx_budget {
            Some(budget) if !(TX_BUDGET..=self.tx_size).contains(&budget) => {
                Err(Error::TxBudget { budget, tx_size: self.tx_size })
            }
            _ => Ok(()),
        }
    }

    /// A shared bind can ask for nothing: what was asked for must be what the first socket got.
    fn check_against(&self, first: &Bound) -> Result<(), Error> {
        let yes_no = |yes| if yes { "true" } else { "false" };
        match (self.mode, first.mode) {
            (BindMode::ForceCopy, Mode::ZeroCopy) => Err(Error::SharedUmem { what: "mode", first: "zero-copy" }),
            (BindMode::ForceZeroCopy, Mode::Copy) => Err(Error::SharedUmem { what: "mode", first: "copy" }),
            _ if self.need_wakeup != first.need_wakeup => {
                Err(Error::SharedUmem { what: "need_wakeup", first: yes_no(first.need_wakeup) })
            }
            _ if self.multi_buffer != first.multi_buffer => {
                Err(Error::SharedUmem { what: "multi_buffer", first: yes_no(first.multi_buffer) })
            }
            _ => Ok(()),
        }
    }

    /// Everything but the bind.
    fn apply(&self, fd: &OwnedFd) -> Result<XdpMmapOffsets, Error> {
        set("receive ring size", sockopt::set_xdp_rx_ring_size(fd, self.rx_size))?;
        set("transmit ring size", sockopt::set_xdp_tx_ring_size(fd, self.tx_size))?;
        if let Some(BusyPoll { usecs, budget, prefer }) = self.busy_poll {
            let set = |call, name, value| {
                set_option(fd, libc::SOL_SOCKET, name, value).map_err(|errno| option_error(call, errno))
            };
            set("setsockopt(SO_PREFER_BUSY_POLL)", SO_PREFER_BUSY_POLL, prefer.into())?;
            set("setsockopt(SO_BUSY_POLL)", libc::SO_BUSY_POLL, usecs)?;
            set("setsockopt(SO_BUSY_POLL_BUDGET)", SO_BUSY_POLL_BUDGET, budget)?;
        }
        let at = set("XDP_MMAP_OFFSETS", sockopt::xdp_mmap_offsets(fd))?;
        if at.fr.flags.is_none() { Err(too_old("AF_XDP with need_wakeup", "5.4")) } else { Ok(at) }
    }

    fn set_tx_budget(&self, fd: &OwnedFd) -> Result<u32, Error> {
        let Some(budget) = self.tx_budget else { return Ok(TX_BUDGET) };
        match set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget) {
            Ok(()) => Ok(budget),
            Err(Errno::NOPROTOOPT) => Ok(TX_BUDGET),
            Err(errno) => Err(option_error("setsockopt(XDP_MAX_TX_SKB_BUDGET)", errno)),
        }
    }
}

/// What a bound socket is: kept alive by its `Socket`, known to its `Umem`.
#[derive(Debug)]
pub(crate) struct Bound {
    fd: OwnedFd,
    umem: Umem,
    place: Place,
    mode: Mode,
    zero_copy_refusal: Option<Errno>,
    need_wakeup: bool,
    multi_buffer: bool,
    tx_budget: u32,
}

#[derive(Clone, Debug)]
struct Place {
    interface: String,
    interface_index: u32,
    queue: u32,
}

impl Place {
    fn bind_first(self, umem: &Umem, fd: OwnedFd, config: &SocketConfig) -> Result<Bound, Error> {
        let mut common = SocketAddrXdpFlags::empty();
        common.set(SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, config.need_wakeup);
        common.set(SocketAddrXdpFlags::XDP_USE_SG, config.multi_buffer);
        let bind = |mode| {
            let address = SocketAddrXdp::new(common | mode, self.interface_index, self.queue);
            while_busy(|| rustix::net::bind(&fd, &address))
        };
        let copy = || bind(SocketAddrXdpFlags::XDP_COPY).map_err(|errno| self.bind_error(config, errno));
        let zero_copy = || bind(SocketAddrXdpFlags::XDP_ZEROCOPY);
        let refusal = match config.mode {
            BindMode::ForceCopy => copy().map(|()| None)?,
            BindMode::ForceZeroCopy => match zero_copy() {
                Ok(()) => None,
                Err(errno) => return Err(self.zero_copy_error(config, errno)),
            },
            BindMode::Auto => match zero_copy() {
                Ok(()) => None,
                Err(Errno::BUSY) => return Err(self.bind_error(config, Errno::BUSY)),
                // Drivers have many words for no. What is wrong otherwise is wrong for copy mode too, and reported there.
                Err(errno) => copy().map(|()| Some(errno))?,
            },
        };
        self.finish(umem, fd, config, refusal)
    }

    fn bind_shared(self, umem: &Umem, fd: OwnedFd, config: &SocketConfig, first: &Bound) -> Result<Bound, Error> {
        // Exactly this flag: the kernel refuses any other beside it.
        let addr = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_SHARED_UMEM, self.interface_index, self.queue);
        let address = SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: first.fd.as_fd() };
        while_busy(|| rustix::net::bind(&fd, &address)).map_err(|errno| match first.mode {
            Mode::ZeroCopy => self.zero_copy_error(config, errno),
            Mode::Copy => self.bind_error(config, errno),
        })?;
        self.finish(umem, fd, config, first.zero_copy_refusal)
    }

    fn finish(
        self,
        umem: &Umem,
        fd: OwnedFd,
        config: &SocketConfig,
        zero_copy_refusal: Option<Errno>,
    ) -> Result<Bound, Error> {
        let options = set("XDP_OPTIONS", sockopt::xdp_options(&fd))?;
        let zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(Bound {
            mode: if zero_copy { Mode::ZeroCopy } else { Mode::Copy },
            tx_budget: config.set_tx_budget(&fd)?,
            fd,
            umem: umem.clone(),
            place: self,
            zero_copy_refusal,
            need_wakeup: config.need_wakeup,
            multi_buffer: config.multi_buffer,
        })
    }

    fn zero_copy_error(&self, config: &SocketConfig, errno: Errno) -> Error {
        match self.bind_error(config, errno) {
            Error::Call { errno, .. } => Error::ZeroCopyRefused { interface: self.interface.clone(), errno },
            other => other,
        }
    }

    fn bind_error(&self, config: &SocketConfig, errno: Errno) -> Error {
        let (interface, queue) = (self.interface.clone(), self.queue);
        match errno {
            Errno::BUSY => Error::QueueBusy { interface, queue, waited_ms: BUSY_WAIT.as_millis() as u64 },
            Errno::NODEV => Error::NoInterface { interface },
            Errno::NETDOWN => Error::InterfaceDown { interface },
            Errno::PERM | Errno::ACCESS => Error::Privilege { call: "bind(AF_XDP)", errno },
            Errno::INVAL => match interface::queues(&interface) {
                Ok(Queues { rx, tx }) if queue >= rx.min(tx) => Error::NoQueue { interface, queue, rx, tx },
                _ if config.multi_buffer && !kernel_is((6, 6)) => too_old("multi_buffer", "6.6"),
                _ => Error::Call { call: "bind(AF_XDP)", errno },
            },
            errno => Error::Call { call: "bind(AF_XDP)", errno },
        }
    }

    #[cold]
    fn kick_error(&self, call: &'static str, errno: Errno) -> Error {
        match errno {
            Errno::NXIO | Errno::NODEV => Error::InterfaceGone { interface: self.interface.clone() },
            errno => Error::Call { call, errno },
        }
    }
}

fn open() -> Result<OwnedFd, Error> {
    rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(|errno| {
        match errno {
            Errno::PERM | Errno::ACCESS => Error::Privilege { call: "socket(AF_XDP)", errno },
            Errno::AFNOSUPPORT => Error::NoAfXdp,
            errno => Error::Call { call: "socket(AF_XDP)", errno },
        }
    })
}

/// Repeats a bind while the kernel still clears up after a former socket of the queue.
fn while_busy(bind: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(Errno::BUSY) if start.elapsed() < BUSY_WAIT => thread::sleep(BUSY_PAUSE),
            answer => return answer,
        }
    }
}

fn set<T>(call: &'static str, answer: Result<T, Errno>) -> Result<T, Error> {
    answer.map_err(|errno| option_error(call, errno))
}

fn option_error(call: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::PERM | Errno::ACCESS => Error::Privilege { call, errno },
        errno => Error::Call { call, errno },
    }
}

fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: u32) -> Result<(), Errno> {
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `value`, which outlives the call.
    let answer = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if answer == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Whether the running kernel is at least that version.
pub(crate) fn kernel_is(version: (u32, u32)) -> bool {
    let release = kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

pub(crate) fn too_old(feature: &'static str, needed: &'static str) -> Error {
    Error::KernelTooOld { feature, needed, running: kernel_release() }
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// A closed queue is free again after 10 to 70 ms.
const BUSY_WAIT: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The longest header before the MTU begins: Ethernet and one VLAN tag.
const ETHERNET_AND_VLAN: u32 = 18;

/// What one kick sends when nothing else was asked for.
const TX_BUDGET: u32 = 32;

const FOR_EVER: Timespec = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };

const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

#[cfg(test)]
mod tests;
