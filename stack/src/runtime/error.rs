//! Why a runtime did not start, or what ended it.

use core::fmt;
use core::net::IpAddr;
use std::io;

use thiserror::Error;

use super::cidr::CidrError;
use crate::config::ConfigError;

/// Why a runtime did not start, or what ended it; each says what to do. Its `Debug` is its `Display`, because that is what
/// Rust prints when `main` returns it.
#[derive(Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A text that was to be an address with its network.
    #[error(transparent)]
    Address(#[from] CidrError),
    /// The device; the source has its own type.
    #[error(transparent)]
    Device(Box<dyn core::error::Error + Send + Sync>),
    /// A gateway in none of the networks.
    #[error(
        "the gateway {0} is in no network of this stack's addresses: it must be a neighbour; check it, and the prefix lengths"
    )]
    Gateway(IpAddr),
    /// Not a VLAN.
    #[error("{0} is not a VLAN: use 1 to 4094, or none for untagged packets")]
    Vlan(u16),
    /// Port 0.
    #[error("nobody can listen on port 0: choose one from 1 to 65535")]
    ListenPort,
    /// No worker, or more than can be numbered.
    #[error("{0} workers: at least one is needed, and no more than 65535")]
    Workers(usize),
    /// A core that is not there, or that this process may not use.
    #[error(
        "core {core} is not there, or this process may not use it: choose from {usable:?} (`nproc --all`, `taskset -p $$`, the \
         container's cpuset)"
    )]
    Core {
        /// The core asked for.
        core: usize,
        /// Those that may be used.
        usable: Vec<usize>,
    },
    /// Two workers on one core.
    #[error("core {0} is named twice: a worker needs a core of its own")]
    SameCore(usize),
    /// A worker could not be pinned.
    #[error("the kernel refuses to pin a thread to core {0}: check the container's cpuset, or leave `.cores()` out")]
    Pin(usize),
    /// No thread.
    #[error("cannot start a worker's thread: {0}; check the limits on processes and memory (`ulimit -u`, `ulimit -v`)")]
    Thread(#[source] io::Error),
    /// Memory could not be locked.
    #[error(
        "cannot lock memory: {0}; it takes CAP_IPC_LOCK, or no limit on it (`ulimit -l unlimited`, systemd's \
         `LimitMEMLOCK=infinity`), and as much memory as all tables reserve"
    )]
    LockMemory(#[source] io::Error),
    /// Something that a worker needs from the kernel beside its device.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device does not keep to the contract of `Port`.
    #[error("the port is at fault: {0}; use one whose queues are numbered from 0 and share one region")]
    Port(&'static str),
    /// The device of a worker has ended: its interface was removed, for instance.
    #[error("worker {core} has lost its device: {message}; the other workers were stopped")]
    Fault {
        /// The worker, from 0.
        core: u16,
        /// What the device says: which interface and queue, and why.
        message: String,
    },
    /// An application panicked, or the stack itself. The other workers were stopped.
    #[error("worker {core} panicked: {message}; the others were stopped")]
    Panicked {
        /// The worker, from 0.
        core: u16,
        /// What the panic said.
        message: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
