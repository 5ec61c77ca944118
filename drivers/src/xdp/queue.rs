//! One queue: the four rings of a socket on one side, frames on the other.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use af_xdp::{Desc, Kick, Mode as CopyMode, Rings, Socket, Statistics};

use super::port::{Device, LINK_HEADER_MAX, XdpError};
use super::program::{Mode, Slot, Steering};
use crate::burst::{RxBurst, TxBurst};
use crate::driver::{Caps, Description, Driver, DriverStats, Queue};
use crate::frame::{FramePool, FrameSize, Region};

/// An open queue of an interface, on its way to the thread that will drive it.
#[derive(Debug)]
pub struct XdpQueue {
    pub(super) socket: Socket,
    pub(super) rings: Rings,
    pub(super) region: Arc<Region>,
    pub(super) share: Range<u32>,
    pub(super) caps: Caps,
    pub(super) report: QueueReport,
    pub(super) busy_poll: bool,
    pub(super) device: Arc<Device>,
}

impl XdpQueue {
    /// How the queue was opened.
    pub fn report(&self) -> &QueueReport {
        &self.report
    }
}

impl Queue for XdpQueue {
    type Driver = XdpDriver;
    type Error = XdpError;

    fn start(self) -> Result<XdpDriver, XdpError> {
        let XdpQueue { socket, rings, region, share, caps, report, busy_poll, device } = self;
        let receiving_target = rings.fill.size().min(share.len() as u32 / 2);
        let posted = Posted {
            receiving: 0,
            receiving_target,
            refill_at: receiving_target - REFILL_BATCH.min(receiving_target / 2),
            sending: vec![0; region.frames().div_ceil(64) as usize].into_boxed_slice(),
            sending_count: 0,
            // A device that reads and writes frames itself may go on for a moment after its socket was closed.
            comes_back: socket.mode() == CopyMode::Copy,
            pool: FramePool::new(region.clone(), share),
        };
        let mut driver = XdpDriver {
            socket,
            rings,
            frame_shift: region.frame_size().bytes().trailing_zeros(),
            tx_len_max: u32::from(caps.mtu) + LINK_HEADER_MAX as u32,
            tx_submitted: true,
            rx_continues: false,
            busy_poll,
            counts: Counts::default(),
            fault: None,
            caps,
            report,
            device,
            posted,
        };
        driver.posted.fill(&mut driver.rings);
        // The sockets were bound with empty fill rings: whoever sleeps over that has to be told.
        driver.socket.kick_rx()?;
        Ok(driver)
    }
}

/// One queue of an interface, driven by one core.
///
/// When it is dropped it waits a few milliseconds for what is being sent. After that, in copy mode, every frame that the kernel
/// had is back in the pool; in zero-copy mode, those that the device still has stay its own.
#[derive(Debug)]
pub struct XdpDriver {
    socket: Socket,
    rings: Rings,
    frame_shift: u32,
    /// Ethernet frames longer than this are refused, in bytes.
    tx_len_max: u32,
    /// The kernel has been told of all descriptors in the transmit ring.
    tx_submitted: bool,
    /// The next received descriptor is a further part of a packet whose first part was dropped.
    rx_continues: bool,
    busy_poll: bool,
    counts: Counts,
    fault: Option<QueueFault>,
    caps: Caps,
    report: QueueReport,
    device: Arc<Device>,
    posted: Posted, // last: frames come back when the kernel has no socket and no ring left
}

impl XdpDriver {
    /// How the queue was opened.
    pub fn report(&self) -> &QueueReport {
        &self.report
    }

    /// The counters behind [`Driver::stats`], and more.
    pub fn xdp_stats(&self) -> XdpStats {
        // A socket of ours answers; if not, its own counters are zero and `fault` will say why.
        XdpStats { kernel: self.socket.statistics().unwrap_or_default(), ..self.counts.stats }
    }

    /// The steering program, which all queues of the interface share.
    pub fn steering(&self) -> &Steering {
        &self.device.steering
    }

    /// Takes a TCP port of a [shared address](super::AfXdp::shared_address) from the kernel. No system call. `false` if the
    /// address is not shared.
    pub fn open_port(&self, address: IpAddr, port: u16) -> bool {
        self.slot(address).map(|slot| self.device.steering.open_port(slot, port)).is_some()
    }

    /// Gives a TCP port of a shared address back to the kernel. `false` if the address is not shared.
    pub fn close_port(&self, address: IpAddr, port: u16) -> bool {
        self.slot(address).map(|slot| self.device.steering.close_port(slot, port)).is_some()
    }

    fn slot(&self, address: IpAddr) -> Option<Slot> {
        self.device.slots.iter().find(|(shared, _)| *shared == address).map(|&(_, slot)| slot)
    }

    /// Has the kernel send what waits, and frees what it has sent.
    #[inline]
    fn send(&mut self) {
        if !self.tx_submitted {
            self.rings.tx.submit();
            self.tx_submitted = true;
        }
        if self.posted.sending_count == 0 {
            return;
        }
        // One kick sends a part only, and without kicks nothing moves: as long as anything waits, not only after a submit.
        if self.rings.tx.wants_kick() && self.fault.is_none() {
            let answer = self.socket.kick_tx();
            self.kicked(answer);
        }
        for addr in self.rings.completion.drain(u32::MAX) {
            self.posted.sent((addr >> self.frame_shift) as u32);
        }
    }

    #[inline]
    fn kicked(&mut self, answer: Result<Kick, af_xdp::Error>) {
        match answer {
            Ok(Kick::Done) => {}
            Ok(Kick::More) => self.counts.stats.kick_more += 1,
            Ok(Kick::Busy) => self.counts.stats.kick_busy += 1,
            Ok(Kick::NoBuffers) => self.counts.stats.kick_no_buffers += 1,
            Ok(Kick::Down) => self.counts.stats.kick_down += 1,
            Err(error) => self.failed(error),
        }
    }

    #[cold]
    fn failed(&mut self, error: af_xdp::Error) {
        self.fault.get_or_insert(QueueFault { queue: self.report.queue, source: error });
    }

    /// The queue has ended: frames go nowhere, as on a cable that was pulled.
    #[cold]
    fn lose(&mut self, tx: &mut TxBurst) {
        self.counts.stats.tx_lost += tx.len() as u64;
        for desc in tx.drain_descs(tx.len()) {
            self.posted.pool.completed(desc.index);
        }
    }
}

impl Driver for XdpDriver {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn pool(&self) -> &FramePool {
        &self.posted.pool
    }

    #[inline]
    fn rx_burst(&mut self, rx: &mut RxBurst) {
        let offset_mask = (1 << self.frame_shift) - 1;
        let mut taken = 0;
        for desc in self.rings.rx.drain(rx.remaining_capacity() as u32) {
            let (index, head) = ((desc.addr >> self.frame_shift) as u32, (desc.addr & offset_mask) as u16);
            let frame = self.posted.pool.received(index, head, desc.len as u16);
            taken += 1;
            if desc.continued() || self.rx_continues {
                self.counts.stats.rx_fragments += 1;
                self.rx_continues = desc.continued();
                continue;
            }
            self.counts.rx_packets += 1;
            rx.push(frame);
        }
        self.posted.receiving -= taken;
        if self.posted.receiving <= self.posted.refill_at {
            self.posted.fill(&mut self.rings);
        }
    }

    #[inline]
    fn tx_burst(&mut self, tx: &mut TxBurst) {
        if tx.is_empty() {
            return;
        }
        tx.check_region(&self.posted.pool);
        if self.fault.is_some() {
            return self.lose(tx);
        }
        let count = self.rings.tx.room(tx.len() as u32).min(tx.len() as u32);
        for desc in tx.drain_descs(count as usize) {
            // The kernel would drop these without giving the frame back.
            if !(LINK_HEADER_MIN..=self.tx_len_max).contains(&u32::from(desc.len)) {
                self.counts.tx_invalid += 1;
                self.posted.pool.completed(desc.index);
                continue;
            }
            let addr = (u64::from(desc.index) << self.frame_shift) + u64::from(desc.head);
            if !self.rings.tx.push(Desc::new(addr, u32::from(desc.len))) {
                ring_is_full();
            }
            self.posted.sending(desc.index);
            self.counts.tx_packets += 1;
            self.tx_submitted = false;
        }
    }

    #[inline]
    fn flush(&mut self) {
        self.send();
        // Also when nothing came: a driver in zero-copy mode that has found its fill ring empty sleeps until it is told.
        if (self.busy_poll || self.rings.fill.needs_wakeup()) && self.fault.is_none() {
            let answer = self.socket.kick_rx();
            self.kicked(answer);
        }
    }

    fn is_busy(&self) -> bool {
        self.posted.sending_count != 0
    }

    fn describe(&self) -> Description {
        Description {
            text: self.report.to_string(),
            queue: self.report.queue,
            attach: match self.report.attach {
                Mode::Native => "native",
                Mode::Generic => "generic",
            },
            copies: self.report.copy_mode == CopyMode::Copy,
        }
    }

    fn fault(&mut self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        // A queue that only waits hears of nothing: it has to ask.
        if self.fault.is_none() {
            let answer = self.socket.kick_rx();
            self.kicked(answer);
        }
        self.fault.as_ref().map(|fault| fault as _)
    }

    fn stats(&self) -> DriverStats {
        let XdpStats { kernel, rx_fragments, .. } = self.xdp_stats();
        DriverStats {
            rx_packets: self.counts.rx_packets,
            tx_packets: self.counts.tx_packets,
            rx_lost: kernel.rx_dropped + kernel.rx_ring_full + rx_fragments,
            tx_invalid: self.counts.tx_invalid + kernel.tx_invalid_descs,
        }
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

impl Drop for XdpDriver {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_SENDS;
        self.send();
        while self.posted.sending_count != 0 && self.fault.is_none() && Instant::now() < deadline {
            thread::yield_now();
            self.send();
        }
    }
}

/// How a queue was opened: what was got and, where something better was to be had, why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueReport {
    /// The interface's name.
    pub interface: String,
    /// The queue's number on the device.
    pub queue: u32,
    /// Where the steering program runs.
    pub attach: Mode,
    /// Why not in the driver, if that was tried.
    pub native_refused: Option<String>,
    /// Who moves the bytes of a packet: the kernel by copying, or the device itself.
    pub copy_mode: CopyMode,
    /// Why they are copied, if they are.
    pub why_copy: Option<String>,
    /// Size of each frame.
    pub frame_size: FrameSize,
    /// The frames are on 2 MiB pages.
    pub huge_pages: bool,
    /// Why not, if they were wanted.
    pub huge_pages_refused: Option<String>,
}

impl fmt::Display for QueueReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queue {}: XDP in {} mode", self.interface, self.queue, self.attach)?;
        if let Some(why) = &self.native_refused {
            write!(f, " (the driver refuses native mode: {why})")?;
        }
        match self.copy_mode {
            CopyMode::Copy => f.write_str(", copy")?,
            CopyMode::ZeroCopy => f.write_str(", zero-copy")?,
        }
        if let Some(why) = &self.why_copy {
            write!(f, " ({why})")?;
        }
        let pages = if self.huge_pages { "huge" } else { "normal" };
        write!(f, ", {}-byte frames on {pages} pages", self.frame_size.bytes())?;
        if let Some(why) = &self.huge_pages_refused {
            write!(f, " (huge pages: {why})")?;
        }
        Ok(())
    }
}

/// What ended a queue for good.
#[derive(Debug, thiserror::Error)]
#[error("queue {queue}: {source}")]
pub struct QueueFault {
    /// The queue's number on the device.
    pub queue: u32,
    /// What the kernel said, and of which interface.
    pub source: af_xdp::Error,
}

/// Counters of a queue that only AF_XDP has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct XdpStats {
    /// The socket's own.
    pub kernel: Statistics,
    /// Parts of packets longer than a frame, dropped.
    pub rx_fragments: u64,
    /// Frames to be sent after the queue has [ended](Driver::fault), dropped.
    pub tx_lost: u64,
    /// Kicks that sent a part only.
    pub kick_more: u64,
    /// Kicks that found the device's own queue full.
    pub kick_busy: u64,
    /// Kicks for which the kernel had no memory.
    pub kick_no_buffers: u64,
    /// Kicks while the interface was down.
    pub kick_down: u64,
}

#[derive(Default, Debug)]
struct Counts {
    rx_packets: u64,
    tx_packets: u64,
    tx_invalid: u64,
    /// But for the kernel's part.
    stats: XdpStats,
}

/// The frames of this queue that the kernel has.
#[derive(Debug)]
struct Posted {
    pool: FramePool,
    /// How many are posted to receive into, or received and still on their ring.
    receiving: u32,
    receiving_target: u32,
    refill_at: u32,
    /// One bit for each frame of the region: it is being sent by this queue. Frames of other shares are sent here too.
    sending: Box<[u64]>,
    sending_count: u32,
    /// They are free once the socket is closed.
    comes_back: bool,
}

impl Posted {
    /// Posts free frames up to the target, as far as there are any.
    #[inline]
    fn fill(&mut self, rings: &mut Rings) {
        // The ring may look fuller than it is: the kernel publishes what it received before it publishes that it took the frames.
        let wanted = self.receiving_target - self.receiving;
        let count = rings.fill.room(wanted).min(wanted);
        let shift = self.pool.region().frame_size().bytes().trailing_zeros();
        let before = self.receiving;
        for _ in 0..count {
            let Some(desc) = self.pool.take_for_fill() else { break };
            if !rings.fill.push(u64::from(desc.index) << shift) {
                ring_is_full();
            }
            self.receiving += 1;
        }
        if self.receiving != before {
            rings.fill.submit();
        }
    }

    #[inline]
    fn sending(&mut self, index: u32) {
        self.sending[index as usize / 64] |= 1 << (index % 64);
        self.sending_count += 1;
    }

    #[inline]
    fn sent(&mut self, index: u32) {
        self.sending[index as usize / 64] &= !(1 << (index % 64));
        self.sending_count -= 1;
        self.pool.completed(index);
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        if !self.comes_back {
            return;
        }
        self.pool.unfill_all();
        for (word, bits) in self.sending.iter().enumerate() {
            let indexes = (0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| word as u32 * 64 + bit);
            indexes.for_each(|index| self.pool.completed(index));
        }
    }
}

#[cold]
#[inline(never)]
fn ring_is_full() -> ! {
    panic!("a ring refused an entry that it had room for")
}

/// Frames are posted in batches, so that the kernel's cache line of the index moves once for many.
const REFILL_BATCH: u32 = 32;
/// The kernel takes no frame without an Ethernet header.
const LINK_HEADER_MIN: u32 = 14;
/// How long a dropped driver waits for what is being sent.
const LAST_SENDS: Duration = Duration::from_millis(5);
