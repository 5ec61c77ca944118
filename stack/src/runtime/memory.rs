//! Memory that is there before it is needed.

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::error::Error;

/// Locks the memory of this process, what it has and what it will reserve: all of it is there at once, near the core that reserves it,
/// and none of it is swapped out. So no packet waits for the kernel to find and clear a page.
///
/// Call it first of all. Then everything that [`Limits`](crate::config::Limits) allows is resident from the start, used or not.
///
/// In a user namespace the right counts for nothing: with a limit that suffices now, what is reserved later may not be had, and that
/// ends the process. There, lift the limit.
///
/// # Errors
/// This process may not lock as much as it likes.
pub fn lock_memory() -> Result<(), Error> {
    // With a limit it would be a later reservation that fails, and that ends the process.
    let may = |sets: rustix::thread::CapabilitySets| sets.effective.contains(CapabilitySet::IPC_LOCK);
    let locked = match getrlimit(Resource::Memlock).current.is_none() || capabilities(None).is_ok_and(may) {
        true => mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE),
        false => Err(Errno::PERM),
    };
    locked.map_err(|error| Error::LockMemory(error.into()))
}
