//! The steering program: loads it into the kernel, attaches it to an interface, and tells it what is ours.
//!
//! What is ours goes to the AF_XDP socket of its queue; all else, and what is ours on a queue without a socket, goes on
//! to the kernel. The rules are in `steer.bpf.c`; its object is built in, so neither clang nor libbpf is needed.
//!
//! Create, attach and register inside the network namespace of the interface (`setns` in a helper thread will do);
//! afterwards a [`Steering`] works from any thread of any namespace.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

mod link;
#[cfg(test)]
mod tests;

pub use link::{Attached, Mode};

/// Addresses that one [`Steering`] can claim one by one.
pub const ADDRESSES_MAX: usize = 256;
/// Prefixes that all ranges of one [`Steering`] can come to. A range comes to a few tens at most.
pub const PREFIXES_MAX: usize = 1 << 16;
/// Receive queues that one [`Steering`] can serve.
pub const QUEUES_MAX: u32 = 64;

/// The steering program of one interface. Dropping it, or the process ending in whatever way, detaches it.
pub struct Steering {
    link: Option<link::Link>, // first: what is dropped first
    ebpf: Ebpf,
    program: &'static str,
    addresses: HashMap<MapData, AddressKey, Claim>,
    prefixes: LpmTrie<MapData, AddressKey, Claim>,
    sockets: XskMap<MapData>,
    verdicts: PerCpuArray<MapData, u64>,
    ports: PortBits,
    slots: Box<[Option<AddressKey>]>,
}

impl Steering {
    /// Loads the program and its maps, attached to nothing yet.
    ///
    /// # Errors
    /// [`SteeringError::NoPrivilege`], [`SteeringError::KernelTooOld`], [`SteeringError::NoMemory`], or
    /// [`SteeringError::Verifier`] with the kernel's log.
    pub fn load() -> Result<Self, SteeringError> {
        // The second is for kernels before 5.18: single-buffer packets, and it needs CAP_PERFMON.
        Self::load_first_of(&[FRAGS, LINEAR])
    }

    fn load_first_of(programs: &[&'static str]) -> Result<Self, SteeringError> {
        const MAPS: &str = "creating the steering program's maps";
        let object = include_bytes_aligned!("steer.bpf.o");
        let mut ebpf = EbpfLoader::new().btf(None).load(object).map_err(|error| SteeringError::system(MAPS, &error))?;
        let mut programs = programs.iter().copied().peekable();
        let program = loop {
            let name = programs.next().expect("the last one's error returned");
            match load_program(&mut ebpf, name) {
                Ok(()) => break name,
                Err(error) if programs.peek().is_some() && errno(&error) == Some(libc::EINVAL) => {}
                Err(error) => return Err(SteeringError::load(error)),
            }
        };
        let mut map = |name| ebpf.take_map(name).expect("the built-in object has this map");
        let mismatch = |error: MapError| SteeringError::system(MAPS, &error);
        let addresses = HashMap::try_from(map("addresses")).map_err(mismatch)?;
        let prefixes = LpmTrie::try_from(map("prefixes")).map_err(mismatch)?;
        let sockets = XskMap::try_from(map("sockets")).map_err(mismatch)?;
        let verdicts = PerCpuArray::try_from(map("verdicts")).map_err(mismatch)?;
        let aya::maps::Map::Array(ports) = map("ports") else { unreachable!("`ports` is an array in the object") };
        let ports = PortBits::map(ports.fd().as_fd()).map_err(|error| SteeringError::system(MAPS, &error))?;
        let slots = vec![None; ADDRESSES_MAX].into_boxed_slice();
        Ok(Self { link: None, ebpf, program, addresses, prefixes, sockets, verdicts, ports, slots })
    }

    /// Attaches the program to `interface` of the calling thread's network namespace, through a bpf link, in `mode`;
    /// `None` is native mode or, if the driver refuses that, generic mode. If it was attached before, it is detached first.
    ///
    /// Another program on the interface is never replaced. If it is another process's steering program, it is given a
    /// second to go first: a killed process may still be ending.
    ///
    /// # Errors
    /// [`SteeringError::NoSuchInterface`], [`SteeringError::Occupied`], [`SteeringError::Refused`],
    /// [`SteeringError::NoPrivilege`], [`SteeringError::KernelTooOld`].
    pub fn attach(&mut self, interface: &str, mode: Option<Mode>) -> Result<&Attached, SteeringError> {
        self.link = None;
        let program = self.xdp().fd().expect("load() loaded it").as_fd();
        let link = link::Link::attach(program, interface, mode, self.program == FRAGS)?;
        Ok(&self.link.insert(link).attached)
    }

    /// Where and how the program is attached, if it is.
    pub fn attached(&self) -> Option<&Attached> {
        self.link.as_ref().map(|link| &link.attached)
    }

    /// Claims packets sent to `address`. The slot is where its ports are listed; no port is at first.
    /// An address claimed already keeps its slot and its ports.
    ///
    /// # Errors
    /// [`SteeringError::AddressUnusable`] if it is not a unicast address, [`SteeringError::TooManyAddresses`].
    pub fn add_address(&mut self, address: IpAddr, ownership: Ownership) -> Result<Slot, SteeringError> {
        let key = address_key(address).ok_or(SteeringError::AddressUnusable { address })?;
        let index = match self.slot_of(&key) {
            Some(index) => index,
            None => {
                let free = self.slots.iter().position(Option::is_none).ok_or(SteeringError::TooManyAddresses)?;
                self.ports.clear(free);
                free
            }
        };
        let flags = match ownership {
            Ownership::Own => CLAIM_OWN,
            Ownership::Shared => 0,
        };
        let claim = [index as u32, flags];
        self.addresses.insert(key, claim, 0).map_err(|error| SteeringError::system("claiming an address", &error))?;
        self.slots[index] = Some(key);
        Ok(Slot(index as u16))
    }

    /// Claims all that is sent to `count` addresses from `first` on, as [`Ownership::Own`].
    ///
    /// # Errors
    /// [`SteeringError::RangeUnusable`] if they are not all unicast addresses of one family that differ in their last 32 bits,
    /// [`SteeringError::TooManyAddresses`].
    pub fn add_range(&mut self, first: IpAddr, count: u32) -> Result<(), SteeringError> {
        let unusable = SteeringError::RangeUnusable { first, count };
        let (Some(key), Some(more)) = (address_key(first), count.checked_sub(1)) else { return Err(unusable) };
        let begin = u128::from_be_bytes(key);
        // The last 32 bits do not turn over.
        let Some(_) = (begin as u32).checked_add(more) else { return Err(unusable) };
        let last = Ipv6Addr::from(begin + u128::from(more));
        if address_key(last.to_ipv4_mapped().map_or(last.into(), IpAddr::V4)).is_none() {
            return Err(unusable);
        }
        for (address, len) in prefixes(begin, count) {
            let key = Key::new(len, address.to_be_bytes());
            self.prefixes.insert(&key, [0, CLAIM_OWN], 0).map_err(|error| match errno(&error) {
                Some(libc::ENOSPC) => SteeringError::TooManyAddresses,
                _ => SteeringError::system("claiming a range of addresses", &error),
            })?;
        }
        Ok(())
    }

    /// Gives `address` back to the kernel. Its slot may be given to the next address.
    ///
    /// # Errors
    /// [`SteeringError::AddressUnknown`] if it was not claimed.
    pub fn remove_address(&mut self, address: IpAddr) -> Result<(), SteeringError> {
        let unknown = SteeringError::AddressUnknown { address };
        let Some(key) = address_key(address) else { return Err(unknown) };
        let Some(index) = self.slot_of(&key) else { return Err(unknown) };
        self.addresses.remove(&key).map_err(|error| SteeringError::system("giving up an address", &error))?;
        self.slots[index] = None;
        Ok(())
    }

    /// Lists a TCP port of a shared address: from the next packet on it is ours. One atomic bit, no system call;
    /// any thread may. An own address has all its ports anyway.
    pub fn open_port(&self, slot: Slot, port: u16) {
        let (word, bit) = self.ports.bit(slot, port);
        word.fetch_or(bit, Ordering::Relaxed);
    }

    /// Gives a TCP port of a shared address back to the kernel, as [`Self::open_port`] takes it.
    pub fn close_port(&self, slot: Slot, port: u16) {
        let (word, bit) = self.ports.bit(slot, port);
        word.fetch_and(!bit, Ordering::Relaxed);
    }

    /// Sends what is ours on receive queue `queue` to this AF_XDP socket, which must be bound to that queue.
    /// When the socket closes, the kernel takes it out.
    ///
    /// # Errors
    /// [`SteeringError::QueueOutOfRange`]; [`SteeringError::System`] if `socket` is no AF_XDP socket.
    pub fn register_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        self.sockets.set(queue, socket, 0).map_err(|error| match error {
            MapError::OutOfBounds { .. } => SteeringError::QueueOutOfRange { queue },
            error => SteeringError::system("registering an AF_XDP socket with the steering program", &error),
        })
    }

    /// What the program has done since it was loaded, in packets.
    ///
    /// # Errors
    /// [`SteeringError::System`] if the kernel will not say.
    pub fn counters(&self) -> Result<Counters, SteeringError> {
        let count = |verdict: u32| match self.verdicts.get(&verdict, 0) {
            Ok(per_cpu) => Ok(per_cpu.iter().sum()),
            Err(error) => Err(SteeringError::system("reading the steering program's counters", &error)),
        };
        Ok(Counters {
            not_ours: count(0)?,
            neighbour: count(1)?,
            own_address: count(2)?,
            shared_address: count(3)?,
            no_socket: count(4)?,
        })
    }

    fn xdp(&self) -> &Xdp {
        self.ebpf.program(self.program).and_then(|program| program.try_into().ok()).expect("load() loaded it")
    }

    fn slot_of(&self, key: &AddressKey) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref() == Some(key))
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("attached", &self.attached()).finish_non_exhaustive()
    }
}

/// Whose address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Ours alone; the kernel must not hold it. Everything sent to it is ours, and ARP and neighbour discovery about it.
    Own,
    /// The kernel's. Ours are TCP segments to the ports opened, and ICMP errors that quote segments sent from them.
    Shared,
}

/// Where the ports of one claimed address are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u16);

/// What the steering program did with packets, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Went on to the kernel.
    pub not_ours: u64,
    /// ARP and multicast neighbour discovery about an own address, to a socket.
    pub neighbour: u64,
    /// To an own address, to a socket.
    pub own_address: u64,
    /// TCP and ICMP errors of listed ports, to a socket.
    pub shared_address: u64,
    /// Ours, but its queue has no socket: went on to the kernel. Bind every receive queue.
    pub no_socket: u64,
}

/// Why steering cannot be had, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteeringError {
    /// The process may not load or attach XDP programs.
    #[error(
        "no privilege for {doing}: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, before Linux 5.18 \
         CAP_PERFMON too"
    )]
    NoPrivilege {
        /// What was tried.
        doing: &'static str,
    },
    /// No interface has this name in the thread's network namespace.
    #[error("no interface `{interface}` in this network namespace: `ip link` lists them")]
    NoSuchInterface {
        /// The name asked for.
        interface: String,
    },
    /// The interface has an XDP program already, and it is never replaced.
    #[error(
        "`{interface}` already has XDP program id {program}{}: stop what attached it, or `ip link set {interface} xdp off`",
        name.as_ref().map(|name| format!(" (`{name}`)")).unwrap_or_default()
    )]
    Occupied {
        /// The interface asked for.
        interface: String,
        /// The kernel's id of the other program, as `bpftool prog` shows it.
        program: u32,
        /// Its name, if it has one and we may see it.
        name: Option<String>,
    },
    /// The interface will not take the program.
    #[error("`{interface}` refuses the XDP program in {mode} mode: {source}; its MTU may be too large, or see `dmesg`")]
    Refused {
        /// The interface asked for.
        interface: String,
        /// The last mode tried.
        mode: Mode,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel lacks something that cannot be done without.
    #[error("Linux {found} is too old for {doing}: 5.9 brought bpf links for XDP, 5.15 is what is tested")]
    KernelTooOld {
        /// What was tried.
        doing: &'static str,
        /// This kernel's release.
        found: String,
    },
    /// The kernel would not give the memory.
    #[error("no memory for {doing}: raise the memory limit of the control group, or RLIMIT_MEMLOCK before Linux 5.11")]
    NoMemory {
        /// What was tried.
        doing: &'static str,
    },
    /// The kernel's verifier refused the program.
    #[error("the kernel's verifier refuses the steering program ({source}); please report this log:\n{log}")]
    Verifier {
        /// The kernel's answer.
        source: io::Error,
        /// What the verifier wrote.
        log: String,
    },
    /// Not an address that packets for one host are sent to.
    #[error("{address} cannot be claimed: give a unicast address, IPv4 not in IPv4-mapped form")]
    AddressUnusable {
        /// The address given.
        address: IpAddr,
    },
    /// The address was not claimed.
    #[error("{address} was not claimed")]
    AddressUnknown {
        /// The address given.
        address: IpAddr,
    },
    /// Not addresses that packets for hosts are sent to.
    #[error(
        "{count} addresses from {first} on cannot be claimed: give unicast addresses that differ in their last 32 bits, IPv4 not in \
         IPv4-mapped form"
    )]
    RangeUnusable {
        /// The first address given.
        first: IpAddr,
        /// How many.
        count: u32,
    },
    /// All slots are taken, or there are too many prefixes.
    #[error(
        "{ADDRESSES_MAX} addresses, or ranges that come to {PREFIXES_MAX} prefixes, are claimed already: claim own addresses that \
         lie together as a range"
    )]
    TooManyAddresses,
    /// The queue's number is too high.
    #[error(
        "receive queue {queue} is beyond the {QUEUES_MAX} served: use fewer with `ethtool -L INTERFACE combined N`"
    )]
    QueueOutOfRange {
        /// The queue given.
        queue: u32,
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

impl SteeringError {
    fn system(doing: &'static str, error: &(dyn Error + 'static)) -> Self {
        match errno(error) {
            Some(libc::EPERM) => Self::NoPrivilege { doing },
            Some(libc::ENOMEM) => Self::NoMemory { doing },
            Some(libc::EINVAL | libc::ENOSYS) if link::kernel_before(5, 9) => {
                Self::KernelTooOld { doing, found: link::kernel_release() }
            }
            Some(code) => Self::System { doing, source: io::Error::from_raw_os_error(code) },
            None => Self::System { doing, source: io::Error::other(error.to_string()) },
        }
    }

    fn load(error: ProgramError) -> Self {
        let doing = "loading the steering program";
        match error {
            ProgramError::LoadError { io_error, verifier_log } if io_error.raw_os_error() != Some(libc::EPERM) => {
                let log = verifier_log.to_string();
                // How the verifier says that it would be satisfied if CAP_PERFMON were there.
                if log.contains("prohibited for !root") {
                    return Self::NoPrivilege { doing };
                }
                Self::Verifier { source: io_error, log }
            }
            error => Self::system(doing, &error),
        }
    }
}

/// The system's error code at the bottom of an error, if there is one.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        if let Some(error) = error.downcast_ref::<rustix::io::Errno>() {
            return Some(error.raw_os_error());
        }
        cause = error.source();
    }
    None
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    let program: &mut Xdp = ebpf.program_mut(name).expect("the built-in object has this program").try_into()?;
    program.load()
}

/// The address as the program looks it up; `None` if no packet for one host bears it.
fn address_key(address: IpAddr) -> Option<AddressKey> {
    let usable = match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
    };
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    usable.then(|| v6.octets())
}

/// The prefixes that `count` addresses from `first` on come to: each with its length, the largest that fit.
fn prefixes(mut first: u128, count: u32) -> impl Iterator<Item = (u128, u32)> {
    let mut left = count;
    std::iter::from_fn(move || {
        let host_bits = left.checked_ilog2()?.min(first.trailing_zeros());
        let prefix = (first, 128 - host_bits);
        first += 1 << host_bits;
        left -= 1 << host_bits;
        Some(prefix)
    })
}

/// The `ports` map in our memory: a row of 65,536 bits for each slot.
struct PortBits {
    words: NonNull<AtomicU64>,
}

impl PortBits {
    fn map(map: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps no memory of ours. Its other user, the XDP
        // program in the kernel, only reads it.
        let at = unsafe { mmap(std::ptr::null_mut(), Self::BYTES, access, MapFlags::SHARED, map, 0)? };
        Ok(Self { words: NonNull::new(at.cast()).expect("a successful mmap is not at null") })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is BYTES long, page-aligned, and lives until drop. We access it through atomics only; the
        // XDP program in the kernel reads it by whole aligned words.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), Self::BYTES / size_of::<AtomicU64>()) }
    }

    fn bit(&self, slot: Slot, port: u16) -> (&AtomicU64, u64) {
        (&self.words()[usize::from(slot.0) * ROW_WORDS + usize::from(port) / 64], 1 << (port % 64))
    }

    fn clear(&self, slot: usize) {
        self.words()[slot * ROW_WORDS..][..ROW_WORDS].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    const BYTES: usize = ADDRESSES_MAX * ROW_WORDS * size_of::<AtomicU64>();
}

impl Drop for PortBits {
    fn drop(&mut self) {
        // SAFETY: we made this mapping with this length, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.words.as_ptr().cast(), Self::BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed through atomics only.
unsafe impl Send for PortBits {}
// SAFETY: as above.
unsafe impl Sync for PortBits {}

/// IPv4 in IPv4-mapped form.
type AddressKey = [u8; 16];
/// The slot, then the flags.
type Claim = [u32; 2];

const CLAIM_OWN: u32 = 1;
const ROW_WORDS: usize = 65_536 / 64;
const FRAGS: &str = "steer_frags";
const LINEAR: &str = "steer_linear";
