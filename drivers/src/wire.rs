//! An in-memory wire: two ends joined by rings. Each end behaves as a network card with any number of queues.
//!
//! A receiving queue posts free frames; a sender copies each packet into a posted frame, as a card's DMA would, and is done
//! with its own at once. Every sending queue has a ring with every receiving queue, so that no queue is shared and
//! nothing is compared and swapped. Both ends may be driven by one thread or by many.
//!
//! When the receiver has posted no frame the packet waits in the sender's burst, because the wire is
//! [lossless](Config::lossless) by default: a slow reader then slows the sender and costs no retransmission, as is wanted
//! between parts of one program. Turn it off to get a card's behaviour: the packet is lost and counted. An end that is gone
//! receives nothing; what is sent to it is lost, counted at the sender, and never waits.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::burst::{RxBurst, TxBurst};
use crate::driver::{Caps, Description, Driver, DriverStats, Port, Queue, Rss};
use crate::frame::{Desc, FramePool, FrameSize, HEADROOM, Region, carry_usual};
use crate::ring::{Filler, Poster, ring};
use crate::toeplitz::Toeplitz;

/// One end of a wire: how it receives, and how much memory it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Ethernet address. By default 02:00:00:00:00:0a for the first end and 02:00:00:00:00:0b for the second.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// How many queues, one a worker.
    pub queues: u16,
    /// Frames of each queue's pool.
    pub frames_per_queue: u32,
    /// Size of each frame.
    pub frame_size: FrameSize,
    /// How many packets may be on their way from one queue to another. Rounded up to a power of two. No more than half of a
    /// queue's frames is ever posted.
    pub ring_len: u32,
    /// What is sent here waits at the sender while no frame is posted; otherwise it is lost and counted here.
    pub lossless: bool,
    /// How the queue of an arriving packet is chosen.
    pub spread: Spread,
    /// Tells the stack that arriving checksums need no check. Off, so that both ends do the work they do on a plain card.
    pub rx_checksum: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mac: None,
            mtu: 1500,
            queues: 1,
            frames_per_queue: 4096,
            frame_size: FrameSize::Small,
            ring_len: 256,
            lossless: true,
            spread: Spread::ByRss(None),
            rx_checksum: false,
        }
    }
}

/// How the queue of an arriving packet is chosen. A single queue needs no choice and costs none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spread {
    /// Receive-side scaling: by the Toeplitz hash. `None`: symmetric, dealt out evenly.
    ByRss(Option<Rss>),
    /// Each packet to the next queue, so that most segments arrive away from their connection's core.
    RoundRobin,
}

/// A configuration that cannot work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The port was opened for another number of queues.
    #[error(
        "the wire's end has {configured} queues and {wanted} are wanted: set `wire::Config::queues` to the number of workers"
    )]
    Queues {
        /// What the configuration says.
        configured: u16,
        /// What `open` was asked for.
        wanted: usize,
    },
    /// An end without queues.
    #[error("a wire's end needs at least one queue: set `wire::Config::queues`")]
    NoQueue,
    /// A packet of this MTU does not fit into a frame.
    #[error(
        "an MTU of {mtu} needs {needed} bytes a frame and there are {frame}: use `FrameSize::Large` or a smaller MTU"
    )]
    Mtu {
        /// What the configuration says.
        mtu: u16,
        /// Headroom, link header and packet, in bytes.
        needed: usize,
        /// What a frame holds, in bytes.
        frame: usize,
    },
    /// A frame is posted for each sending queue, and as many are left to send.
    #[error("{frames} frames a queue: at least {needed} are needed, and no more than 2^31 in all")]
    Frames {
        /// What the configuration says.
        frames: u32,
        /// Two for each queue of the other end.
        needed: u32,
    },
    /// The indirection table is empty or names a queue that is not there.
    #[error("the RSS table must not be empty, and each of its entries less than {queues}, the number of queues")]
    RssTable {
        /// What the configuration says.
        queues: u16,
    },
}

/// A wire whose two ends are [opened](Port::open) by their runtimes. `a` says how the first end receives, `b` the second.
pub fn ports(a: Config, b: Config) -> (WirePort, WirePort) {
    if let Err(error) = a.check(b.queues).and(b.check(a.queues)) {
        return (WirePort { queues: Err(error) }, WirePort { queues: Err(error) });
    }
    let (mut queues_a, mut queues_b) = (a.queues(MAC_A, &b), b.queues(MAC_B, &a));
    for queue_a in &mut queues_a {
        for queue_b in &mut queues_b {
            connect(queue_a, queue_b, &b, a.queues);
            connect(queue_b, queue_a, &a, b.queues);
        }
    }
    (WirePort { queues: Ok(queues_a) }, WirePort { queues: Ok(queues_b) })
}

/// A wire with one queue at each end, both driven by this thread. Panics if the configuration cannot work.
pub fn pair(config: Config) -> (WireDriver, WireDriver) {
    let config = Config { mac: None, queues: 1, ..config };
    let (a, b) = ports(config.clone(), config);
    let start = |port: WirePort| port.open(1).and_then(|mut queues| queues.remove(0).start());
    match (start(a), start(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => panic!("{error}"),
    }
}

impl Config {
    fn check(&self, senders: u16) -> Result<(), Error> {
        if self.queues == 0 {
            return Err(Error::NoQueue);
        }
        let needed = HEADROOM + LINK_HEADER_MAX + self.mtu as usize;
        if needed > self.frame_size.bytes() {
            return Err(Error::Mtu { mtu: self.mtu, needed, frame: self.frame_size.bytes() });
        }
        let frames = self.frames_per_queue;
        if self.posted_target(senders) == 0 || frames as u64 * self.queues as u64 > 1 << 31 {
            return Err(Error::Frames { frames, needed: 2 * senders as u32 });
        }
        match &self.spread {
            Spread::ByRss(Some(rss)) if rss.table.is_empty() || rss.table.iter().any(|&queue| queue >= self.queues) => {
                Err(Error::RssTable { queues: self.queues })
            }
            _ => Ok(()),
        }
    }

    /// Frames that a queue keeps posted for each of the queues that send to it.
    fn posted_target(&self, senders: u16) -> u32 {
        self.ring_len.max(1).min(self.frames_per_queue / 2 / senders.max(1) as u32)
    }

    fn rss(&self) -> Option<Rss> {
        match &self.spread {
            Spread::ByRss(rss) => Some(rss.clone().unwrap_or_else(|| Rss::symmetric(self.queues))),
            Spread::RoundRobin => None,
        }
    }

    fn queues(&self, mac: [u8; 6], other: &Config) -> Vec<WireQueue> {
        let frames = self.frames_per_queue;
        let region = Region::new(frames * self.queues as u32, self.frame_size);
        let queue = |queue: u16| WireQueue {
            region: region.clone(),
            share: frames * queue as u32..frames * (queue as u32 + 1),
            caps: Caps {
                mac: self.mac.unwrap_or(mac),
                mtu: self.mtu,
                queue,
                queues: self.queues,
                tx_checksum: false,
                rx_checksum: self.rx_checksum,
                rss: self.rss(),
            },
            incoming: Vec::new(),
            outgoing: Vec::new(),
            choice: match other.rss() {
                Some(rss) => Choice::ByRss(Toeplitz::new(&rss.key), rss),
                None => Choice::RoundRobin(0),
            },
        };
        (0..self.queues).map(queue).collect()
    }
}

/// Lets one queue send to another, which receives as `config` says from each of `senders` queues.
fn connect(from: &mut WireQueue, to: &mut WireQueue, config: &Config, senders: u16) {
    let posted_target = config.posted_target(senders);
    let (poster, filler) = ring(posted_target);
    let lost = Arc::new(AtomicU64::new(0));
    let refill_at = posted_target - REFILL_BATCH.min(posted_target.div_ceil(2));
    to.incoming.push(Incoming {
        ring: poster,
        posted_target: posted_target as usize,
        refill_at: refill_at as usize,
        lost: lost.clone(),
    });
    from.outgoing.push(Outgoing {
        ring: filler,
        region: to.region.clone(),
        packet_max: config.mtu as usize + LINK_HEADER_MAX,
        lossless: config.lossless,
        is_closed: false,
        lost,
    });
}

/// One end of a wire.
#[derive(Debug)]
pub struct WirePort {
    queues: Result<Vec<WireQueue>, Error>,
}

impl WirePort {
    /// The memory of this end, `None` if the configuration cannot work.
    pub fn region(&self) -> Option<&Arc<Region>> {
        Some(&self.queues.as_ref().ok()?.first()?.region)
    }
}

impl Port for WirePort {
    type Queue = WireQueue;

    fn open(self, count: usize) -> Result<Vec<WireQueue>, Error> {
        let queues = self.queues?;
        match queues.len() == count {
            true => Ok(queues),
            false => Err(Error::Queues { configured: queues.len() as u16, wanted: count }),
        }
    }
}

/// One queue of an end, on its way to its thread.
#[derive(Debug)]
pub struct WireQueue {
    region: Arc<Region>,
    share: Range<u32>,
    caps: Caps,
    incoming: Vec<Incoming>,
    outgoing: Vec<Outgoing>,
    choice: Choice,
}

impl Queue for WireQueue {
    type Driver = WireDriver;
    type Error = Error;

    fn start(mut self) -> Result<WireDriver, Error> {
        let pool = FramePool::new(self.region.clone(), self.share.clone());
        for incoming in &mut self.incoming {
            incoming.post(&pool);
        }
        let packet_max = self.caps.mtu as usize + LINK_HEADER_MAX;
        Ok(WireDriver {
            queue: self,
            pool,
            packet_max,
            next_in: 0,
            rx_packets: 0,
            tx_packets: 0,
            tx_invalid: 0,
            tx_lost: 0,
        })
    }
}

/// One queue of an end.
#[derive(Debug)]
pub struct WireDriver {
    queue: WireQueue,
    pool: FramePool,
    packet_max: usize,
    /// The sender that is served first: they take turns.
    next_in: usize,
    rx_packets: u64,
    tx_packets: u64,
    tx_invalid: u64,
    tx_lost: u64,
}

impl WireDriver {
    /// Packets sent when the other end was gone.
    pub fn tx_lost(&self) -> u64 {
        self.tx_lost
    }

    /// Of several senders another is served first each time.
    #[inline(never)]
    fn receive_in_turns(&mut self, rx: &mut RxBurst) {
        let (last, first) = self.queue.incoming.split_at_mut(self.next_in);
        for incoming in first.iter_mut().chain(last) {
            incoming.receive(&self.pool, rx);
        }
        self.next_in = if self.next_in + 1 < self.queue.incoming.len() { self.next_in + 1 } else { 0 };
    }

    /// Carries packets to the other end until one has to wait; says how many it is done with.
    #[inline(always)]
    fn send(&mut self, packets: &[Desc]) -> usize {
        let mut done = 0;
        loop {
            // Nearly always there is but one, which carries all.
            match &mut self.queue.outgoing[..] {
                [only] => {
                    only.look();
                    let carried = only.carry_usual(&self.pool, self.packet_max, &packets[done..]);
                    self.tx_packets += carried as u64;
                    done += carried;
                }
                outgoing if done == 0 => outgoing.iter_mut().for_each(Outgoing::look),
                _ => {}
            }
            if done == packets.len() || !self.send_any(&packets[done]) {
                return done;
            }
            done += 1;
        }
    }

    /// Carries one packet, whatever is to be said of it; `false` if it has to wait.
    #[inline(never)]
    fn send_any(&mut self, desc: &Desc) -> bool {
        let packet = self.pool.region().bytes(desc);
        let carried = match &mut self.queue.outgoing[..] {
            _ if packet.len() < LINK_HEADER_MIN || packet.len() > self.packet_max => Carried::Invalid,
            [outgoing] => outgoing.carry(packet),
            outgoing => self.queue.choice.carry(packet, outgoing),
        };
        match carried {
            Carried::There => self.tx_packets += 1,
            Carried::Lost => {}
            Carried::Nowhere => self.tx_lost += 1,
            Carried::Invalid => self.tx_invalid += 1,
            Carried::NotYet => return false,
        }
        self.pool.completed(desc.index);
        true
    }
}

impl Driver for WireDriver {
    fn caps(&self) -> &Caps {
        &self.queue.caps
    }

    fn pool(&self) -> &FramePool {
        &self.pool
    }

    #[inline]
    fn rx_burst(&mut self, rx: &mut RxBurst) {
        let before = rx.len();
        match &mut self.queue.incoming[..] {
            [only] => only.receive(&self.pool, rx),
            _ => self.receive_in_turns(rx),
        }
        self.rx_packets += (rx.len() - before) as u64;
    }

    #[inline]
    fn tx_burst(&mut self, tx: &mut TxBurst) {
        if tx.is_empty() {
            return;
        }
        tx.check_region(&self.pool);
        tx.take_front(|packets| self.send(packets));
        match &mut self.queue.outgoing[..] {
            [only] => only.ring.publish(),
            outgoing => outgoing.iter_mut().for_each(|outgoing| outgoing.ring.publish()),
        }
    }

    fn flush(&mut self) {}

    fn describe(&self) -> Description {
        Description { text: "in-memory wire".into(), queue: self.caps().queue.into(), ..Description::default() }
    }

    fn stats(&self) -> DriverStats {
        DriverStats {
            rx_packets: self.rx_packets,
            tx_packets: self.tx_packets,
            rx_lost: self.queue.incoming.iter().map(|incoming| incoming.lost.load(Ordering::Relaxed)).sum(),
            tx_invalid: self.tx_invalid,
        }
    }
}

impl Drop for WireDriver {
    fn drop(&mut self) {
        for incoming in self.queue.incoming.drain(..) {
            incoming.close(&self.pool);
        }
    }
}

/// How a sender chooses the queue that the other end receives a packet on.
#[derive(Debug)]
enum Choice {
    ByRss(Toeplitz, Rss),
    RoundRobin(usize),
}

impl Choice {
    fn carry(&mut self, packet: &[u8], outgoing: &mut [Outgoing]) -> Carried {
        match self {
            Choice::ByRss(toeplitz, rss) => {
                // What has no hash goes to the first queue, as on a card.
                let queue = toeplitz.of_packet(packet).map_or(0, |hash| rss.queue(hash));
                outgoing[queue as usize].carry(packet)
            }
            Choice::RoundRobin(next) => {
                let carried = outgoing[*next].carry(packet);
                if !matches!(carried, Carried::NotYet) {
                    *next = (*next + 1) % outgoing.len();
                }
                carried
            }
        }
    }
}

/// The receiving side of what comes from one queue of the other end.
#[derive(Debug)]
struct Incoming {
    /// Frames that wait for a packet, and those that have one.
    ring: Poster<Desc>,
    posted_target: usize,
    refill_at: usize,
    /// The other side counts here.
    lost: Arc<AtomicU64>,
}

impl Incoming {
    #[inline]
    fn receive(&mut self, pool: &FramePool, rx: &mut RxBurst) {
        // SAFETY: nobody else posts on this ring; with `post` it is this pool, which the driver has.
        unsafe { pool.filled_burst(&mut self.ring, rx) };
        if self.ring.len() <= self.refill_at {
            self.post(pool);
        }
    }

    /// Posts free frames up to the target, as far as there are any.
    #[inline]
    fn post(&mut self, pool: &FramePool) {
        // The ring holds the target.
        let missing = self.posted_target - self.ring.len();
        pool.post_burst(&mut self.ring, missing);
    }

    /// The frames with packets come back, and if the sender has left, those without. Otherwise these stay on the ring, where nobody
    /// looks for them any more: a pool that is gone needs none.
    fn close(mut self, pool: &FramePool) {
        // SAFETY: as in `receive`.
        let unpost = |desc| unsafe { pool.unpost(desc) };
        self.ring.take_burst(usize::MAX).for_each(unpost);
        self.ring.close().into_iter().flatten().for_each(unpost);
    }
}

/// The sending side of what goes to one queue of the other end.
#[derive(Debug)]
struct Outgoing {
    /// Frames of the other end that wait for a packet.
    ring: Filler<Desc>,
    /// The other end's memory.
    region: Arc<Region>,
    packet_max: usize,
    lossless: bool,
    /// The other end was gone when it was looked for last.
    is_closed: bool,
    /// Counted for the other side; only this one writes it.
    lost: Arc<AtomicU64>,
}

enum Carried {
    There,
    Lost,
    /// The other end is gone.
    Nowhere,
    /// No packet is so short or so long.
    Invalid,
    /// No frame is posted, and the packet may wait.
    NotYet,
}

impl Outgoing {
    /// At the beginning of a burst, and again after each packet that is not as usual.
    #[inline]
    fn look(&mut self) {
        self.is_closed = self.ring.is_closed();
    }

    /// Carries as many packets from the first on as there are posted frames, up to one that is not as usual.
    #[inline(always)]
    fn carry_usual(&mut self, from: &FramePool, packet_max: usize, packets: &[Desc]) -> usize {
        if self.is_closed {
            return 0;
        }
        let lens = (LINK_HEADER_MIN as u16, packet_max.min(self.packet_max) as u16);
        carry_usual(from, packets, &self.region, &mut self.ring, lens)
    }

    #[inline]
    fn carry(&mut self, packet: &[u8]) -> Carried {
        if packet.len() > self.packet_max || self.is_closed {
            return self.lose();
        }
        match self.ring.fill(|desc| self.region.write(desc, packet)) {
            Some(fits) => {
                debug_assert!(fits, "the MTU was checked against the frame size");
                Carried::There
            }
            None if self.lossless => Carried::NotYet,
            None => self.lose(),
        }
    }

    #[cold]
    fn lose(&mut self) -> Carried {
        if self.is_closed {
            return Carried::Nowhere;
        }
        self.lost.store(self.lost.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Carried::Lost
    }
}

/// Frames are posted in batches, so that the sender's cache line of the index moves once for many.
const REFILL_BATCH: u32 = 32;
const LINK_HEADER_MIN: usize = 14;
/// With one VLAN tag.
const LINK_HEADER_MAX: usize = 18;
const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];

#[cfg(test)]
pub(crate) mod tests;
