//! What a device is: a queue that gives frames and takes frames.

use core::net::IpAddr;

use crate::burst::{RxBurst, TxBurst};
use crate::frame::FramePool;

/// One queue of a device, driven by one core.
pub trait Driver {
    /// What this queue can do and how it was set up.
    fn caps(&self) -> &Caps;

    /// The pool that this queue receives into and sends from.
    fn pool(&self) -> &FramePool;

    /// Appends received frames to `rx`, up to its remaining capacity. Never blocks.
    fn rx_burst(&mut self, rx: &mut RxBurst);

    /// Takes frames from the front of `tx`, as many as the device accepts now; the rest stay in `tx`. Never blocks.
    fn tx_burst(&mut self, tx: &mut TxBurst);

    /// Tells the device that everything of this turn is queued, and collects what it has finished with. Never blocks.
    fn flush(&mut self);

    /// The driver that this one stands before, if it is middleware: what it does not answer itself, that one does.
    fn inner(&self) -> Option<&dyn Driver> {
        None
    }

    /// The same, to change.
    fn inner_mut(&mut self) -> Option<&mut dyn Driver> {
        None
    }

    /// Something here moves by further calls only: packets held back, frames that are still being sent. An idle worker then
    /// does not sleep for long.
    fn is_busy(&self) -> bool {
        self.inner().is_some_and(|inner| inner.is_busy())
    }

    /// How this queue was opened.
    fn describe(&self) -> Description {
        self.inner().map_or_else(Description::default, |inner| inner.describe())
    }

    /// What ended this queue for good, such as that its interface was removed: nothing is received any more, and what is sent is
    /// lost. Asked a few times a second, because it may take a system call to find out.
    fn fault(&mut self) -> Option<&(dyn core::error::Error + Send + Sync + 'static)> {
        self.inner_mut()?.fault()
    }

    /// Counters of the device itself.
    fn stats(&self) -> DriverStats {
        self.inner().map_or_else(DriverStats::default, |inner| inner.stats())
    }

    /// What an idle worker may `poll()` for input; `None` if this device cannot wake anybody.
    #[cfg(feature = "std")]
    fn pollable(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.inner()?.pollable()
    }
}

/// A device that gives each of some workers one queue. It is opened on the thread that starts the workers.
pub trait Port {
    /// What is sent to a worker's thread, to become its driver there.
    type Queue: Queue;

    /// Tells the device, before it is opened, which addresses are the stack's: one that receives only what is sent to addresses
    /// that it knows asks for these.
    fn announce(&mut self, addresses: &[AddressRange]) {
        let _ = addresses;
    }

    /// Opens the device with `count` queues, one a worker. The queues share one frame region, so that frames can move between workers.
    fn open(self, count: usize) -> Result<alloc::vec::Vec<Self::Queue>, <Self::Queue as Queue>::Error>;
}

/// Addresses one after the other; they differ in their last 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    /// The first.
    pub first: IpAddr,
    /// How many there are, from 1.
    pub count: u32,
}

impl AddressRange {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let distance = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                u128::from(address.to_bits()).checked_sub(first.to_bits().into())
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => address.to_bits().checked_sub(first.to_bits()),
            _ => None,
        };
        distance.is_some_and(|distance| distance < self.count.into())
    }
}

impl From<IpAddr> for AddressRange {
    fn from(first: IpAddr) -> AddressRange {
        AddressRange { first, count: 1 }
    }
}

/// One queue on its way to its worker's thread.
pub trait Queue: Send {
    /// The driver that it becomes.
    type Driver: Driver;
    /// Why the device or one of its queues could not be opened; says what to do.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Starts the queue, on the thread that will drive it.
    fn start(self) -> Result<Self::Driver, Self::Error>;
}

/// How a queue was opened: what was got and, where something better was to be had, why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// For people.
    pub text: alloc::string::String,
    /// The queue's number on the device.
    pub queue: u32,
    /// Where a program chooses the packets that are ours: `native` in the device's driver, `generic` in the kernel's stack, `none`
    /// without one.
    pub attach: &'static str,
    /// Somebody copies each packet between the device's memory and the frames.
    pub copies: bool,
}

impl Default for Description {
    fn default() -> Description {
        Description { text: alloc::string::String::new(), queue: 0, attach: "none", copies: true }
    }
}

/// What a queue can do and how it was set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caps {
    /// Ethernet address of the device.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// This queue's number.
    pub queue: u16,
    /// How many queues of the device are in use.
    pub queues: u16,
    /// The device fills in TCP checksums of what it sends.
    pub tx_checksum: bool,
    /// The device has checked the checksums of what it receives, or they cannot be wrong.
    pub rx_checksum: bool,
    /// How the device chooses the queue of a received packet, if that is known.
    pub rss: Option<Rss>,
}

/// Receive-side scaling of a device: Toeplitz key and indirection table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rss {
    /// The Toeplitz key, 40 or 52 bytes.
    pub key: alloc::vec::Vec<u8>,
    /// Queue of each hash value modulo the table's length.
    pub table: alloc::vec::Vec<u16>,
}

/// Counters of a device's queue.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DriverStats {
    /// Frames given to the stack.
    pub rx_packets: u64,
    /// Frames taken from the stack.
    pub tx_packets: u64,
    /// Packets that the device lost because no frame was posted to receive into, or a ring was full.
    pub rx_lost: u64,
    /// Frames that the device refused as invalid.
    pub tx_invalid: u64,
}
