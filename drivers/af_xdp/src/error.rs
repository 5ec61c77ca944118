//! What failed, and what to do about it.

use crate::Errno;

/// An error of setup, or the end of a socket. Each message names a way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not make AF_XDP sockets.
    #[error(
        "{call} was refused ({errno}): run as root, or with CAP_NET_RAW for the socket, CAP_NET_ADMIN and CAP_BPF for \
         an XDP program, and CAP_IPC_LOCK for memory"
    )]
    Privilege {
        /// The refused system call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
    /// The running kernel was built without AF_XDP.
    #[error("this kernel has no AF_XDP sockets: it needs CONFIG_XDP_SOCKETS=y")]
    NoAfXdp,
    /// The running kernel is older than what was asked for.
    #[error("{feature} needs Linux {needed} or later and this is {running}: update the kernel or turn it off")]
    KernelTooOld {
        /// What was asked for.
        feature: &'static str,
        /// The first kernel that has it.
        needed: &'static str,
        /// The kernel's release.
        running: String,
    },
    /// No interface has that name here.
    #[error(
        "there is no interface {interface:?} in this network namespace: `ip link` lists them, and a socket belongs to \
         the namespace of the thread that makes it"
    )]
    NoInterface {
        /// The name asked for.
        interface: String,
    },
    /// The interface has fewer queues.
    #[error(
        "{interface} has no queue {queue}: it has {rx} to receive and {tx} to transmit, counted from 0; `ethtool -L \
         {interface}` changes them"
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// Its receive queues.
        rx: u32,
        /// Its transmit queues.
        tx: u32,
    },
    /// The interface is down.
    #[error("{interface} is down: `ip link set {interface} up`")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// The interface went away below a bound socket.
    #[error("{interface} was removed or has dropped this socket: bind again when it is back")]
    InterfaceGone {
        /// The interface.
        interface: String,
    },
    /// Another socket has the queue.
    #[error(
        "queue {queue} of {interface} is held by another AF_XDP socket (waited {waited_ms} ms for it): `ss --xdp -a -p` \
         shows whose; stop that process, drop the rings of a former socket, take another queue, or make a sibling of its \
         socket"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How long the bind was retried.
        waited_ms: u64,
    },
    /// Zero-copy was demanded, and the driver has refused.
    #[error(
        "{interface} refuses zero-copy ({errno}): its driver has none, or needs an XDP program attached in driver mode, \
         fewer or other queues, or a smaller MTU. BindMode::Auto takes copy mode instead"
    )]
    ZeroCopyRefused {
        /// The interface.
        interface: String,
        /// The answer to the bind.
        errno: Errno,
    },
    /// The first socket of the UMEM was bound otherwise.
    #[error(
        "the first socket of this UMEM was bound with {what} = {first} and all others follow: ask for the same, or take \
         another UMEM"
    )]
    SharedUmem {
        /// The setting.
        what: &'static str,
        /// Its value at the first socket.
        first: &'static str,
    },
    /// The pages may not be locked.
    #[error(
        "locking {bytes} bytes of UMEM was refused ({errno}): give CAP_IPC_LOCK, raise the limit (`ulimit -l \
         unlimited`, LimitMEMLOCK=infinity in a systemd unit), or take fewer chunks"
    )]
    MemoryLock {
        /// The UMEM's bytes.
        bytes: usize,
        /// The answer to the registration.
        errno: Errno,
    },
    /// Too few huge pages.
    #[error(
        "no {needed} huge pages of 2 MiB ({}, {errno}): reserve them with `sysctl vm.nr_hugepages={needed}` (more if \
         others use some), or take PageSize::Normal", free_pages(.free)
    )]
    HugePages {
        /// The pages that the area needs.
        needed: usize,
        /// The pages that are free, where the kernel says so.
        free: Option<usize>,
        /// The answer to the mapping.
        errno: Errno,
    },
    /// The memory does not divide into chunks.
    #[error("{len} bytes of memory are not a positive whole number of {chunk_size}-byte pieces: round the length")]
    MemorySize {
        /// The memory's bytes.
        len: usize,
        /// The chunk size, or for an area the page size.
        chunk_size: usize,
    },
    /// The memory does not start on a page.
    #[error("UMEM memory must start on a page boundary of {page} bytes: map it, do not allocate it")]
    MemoryAlignment {
        /// The page size.
        page: usize,
    },
    /// A chunk size that the kernel does not take.
    #[error("a chunk of {chunk_size} bytes is not possible: take 2048, or any power of two up to the page, {page}")]
    ChunkSize {
        /// The size asked for.
        chunk_size: u32,
        /// The page size.
        page: usize,
    },
    /// The headroom leaves no room for a frame.
    #[error(
        "{headroom} bytes of headroom leave no room in a chunk of {chunk_size}: the kernel takes 256 more for itself"
    )]
    Headroom {
        /// The headroom asked for.
        headroom: u32,
        /// The chunk size.
        chunk_size: u32,
    },
    /// Metadata of a length that the kernel does not take.
    #[error(
        "transmit metadata of {len} bytes is not possible: take TxMetadata::LEN (24), or a multiple of 8 below 256"
    )]
    TxMetadataLen {
        /// The length asked for.
        len: u32,
    },
    /// A ring size that the kernel does not take.
    #[error("a {ring} ring of {size} entries is not possible: take a power of two, for instance 2048")]
    RingSize {
        /// Which ring.
        ring: &'static str,
        /// The size asked for.
        size: u32,
    },
    /// A transmit budget out of bounds.
    #[error("a transmit budget of {budget} is not possible: take 32 up to the size of the transmit ring, {tx_size}")]
    TxBudget {
        /// The budget asked for.
        budget: u32,
        /// The transmit ring's entries.
        tx_size: u32,
    },
    /// Frames of full length would be dropped.
    #[error(
        "frames of {interface} with its MTU of {mtu} do not fit into one chunk, which receives {room} bytes: lower the \
         MTU, take larger chunks, or turn multi_buffer on"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// What a chunk receives.
        room: u32,
    },
    /// A system call failed in a way that has no name here.
    #[error("{call} failed: {errno}")]
    Call {
        /// The call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

fn free_pages(free: &Option<usize>) -> String {
    free.map_or_else(|| "this kernel does not support them".to_owned(), |free| format!("{free} are free"))
}

#[cfg(test)]
mod tests;
