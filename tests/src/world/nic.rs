//! A host's network card: it sends at its own speed from a queue of its own, and receives into frames that were posted.

use std::collections::VecDeque;
use std::rc::Rc;

use handfast::time::{Duration, Instant};
use handfast_drivers::burst::{Delayed, RxBurst, TxBurst};
use handfast_drivers::driver::{Caps, Driver};
use handfast_drivers::frame::FramePool;
use handfast_drivers::wire::{self, WireDriver};
use handfast_drivers::{driver::Port, driver::Queue};

/// How a card is made.
#[derive(Clone, Copy, Debug)]
pub struct NicConfig {
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Frames of the host.
    pub frames: u32,
    /// Frames that are posted to receive into, at most.
    pub posted: u32,
    /// Packets that may wait to be sent.
    pub queue: usize,
    /// How long the card has each packet before it is sent, in microseconds.
    pub send_us: u64,
}

impl Default for NicConfig {
    fn default() -> NicConfig {
        NicConfig { mtu: 1500, frames: 2048, posted: 256, queue: 256, send_us: 0 }
    }
}

/// The card. While a packet waits in it its frame is the card's, as the frame's owner byte says.
#[derive(Debug)]
pub struct Nic {
    config: NicConfig,
    /// Before the host's end, so that all that this one posted is home when both are gone.
    far: WireDriver,
    host: WireDriver,
    sending: VecDeque<(Instant, Delayed)>,
    free_at: Instant,
    /// Packets taken from the stack.
    pub taken: u64,
    /// Their bytes.
    pub taken_bytes: u64,
    /// Packets given to the stack.
    pub given: u64,
    /// Their bytes.
    pub given_bytes: u64,
    /// Packets that came when no frame was posted.
    pub missed: u64,
    /// Whether each of the packets that wait to be given was damaged.
    damaged: VecDeque<bool>,
}

impl Nic {
    /// A card with this Ethernet address.
    pub fn new(mac: [u8; 6], config: NicConfig) -> Nic {
        let NicConfig { mtu, frames, posted, .. } = config;
        let base = wire::Config { mtu, lossless: false, ..wire::Config::default() };
        let near = wire::Config { mac: Some(mac), frames_per_queue: frames, ring_len: posted, ..base.clone() };
        let far = wire::Config { frames_per_queue: 256, ring_len: 128, ..base };
        let (near, far) = wire::ports(near, far);
        let start = |port: wire::WirePort| port.open(1).and_then(|mut queues| queues.remove(0).start());
        let (host, far) = (start(near).expect("a card that can be"), start(far).expect("a card that can be"));
        Nic {
            config,
            host,
            far,
            sending: VecDeque::new(),
            free_at: Instant::ZERO,
            taken: 0,
            taken_bytes: 0,
            given: 0,
            given_bytes: 0,
            missed: 0,
            damaged: VecDeque::new(),
        }
    }

    /// What the stack is told of the card.
    pub fn caps(&self) -> &Caps {
        self.host.caps()
    }

    /// The host's frames.
    pub fn pool(&self) -> &FramePool {
        self.host.pool()
    }

    /// Packets that the card has and has not sent.
    pub fn sending(&self) -> usize {
        self.sending.len()
    }

    /// Frames that may be posted at most.
    pub fn posted_max(&self) -> u32 {
        self.config.posted.next_power_of_two()
    }

    /// Packets came that the stack has not taken.
    pub fn has_arrivals(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// When a packet has been sent.
    pub fn next_at(&self) -> Option<Instant> {
        self.sending.front().map(|(at, _)| *at)
    }

    /// Gives the stack what came; how many of them were damaged.
    pub fn rx_burst(&mut self, rx: &mut RxBurst) -> u64 {
        let before = rx.len();
        self.host.rx_burst(rx);
        self.given += (rx.len() - before) as u64;
        self.given_bytes += rx[before..].iter().map(|frame| frame.len() as u64).sum::<u64>();
        self.damaged.drain(..rx.len() - before).filter(|damaged| *damaged).count() as u64
    }

    /// Takes as many packets as its queue has room for.
    pub fn tx_burst(&mut self, now: Instant, tx: &mut TxBurst) {
        let room = self.config.queue - self.sending.len().min(self.config.queue);
        let count = room.min(tx.len());
        for delayed in tx.drain_front(count) {
            self.taken += 1;
            self.taken_bytes += delayed.len() as u64;
            self.free_at = self.free_at.max(now) + Duration::from_micros(self.config.send_us);
            self.sending.push_back((self.free_at, delayed));
        }
    }

    /// What has been sent by now. The bytes are read now and not before: nobody may have touched them since.
    pub fn sent(&mut self, now: Instant) -> Vec<Rc<[u8]>> {
        let mut sent = Vec::new();
        while self.next_at().is_some_and(|at| at <= now) {
            let mut burst = TxBurst::new();
            while burst.room() > 0 && self.next_at().is_some_and(|at| at <= now) {
                burst.push_delayed(self.sending.pop_front().expect("it was there").1);
            }
            self.host.tx_burst(&mut burst);
            assert!(burst.is_empty(), "the far end has frames enough");
            let mut rx = RxBurst::new();
            self.far.rx_burst(&mut rx);
            sent.extend(rx.iter().map(|frame| Rc::from(&frame[..])));
        }
        sent
    }

    /// A packet comes from the link. Lost if no frame is posted, or if it is larger than the card takes.
    pub fn deliver(&mut self, bytes: &[u8], damaged: bool) -> bool {
        let mut frame = self.far.pool().alloc().expect("the far end has frames enough");
        frame.extend_from_slice(bytes);
        let mut burst = TxBurst::new();
        burst.push(frame);
        let lost = self.host.stats().rx_lost;
        self.far.tx_burst(&mut burst);
        let taken = self.host.stats().rx_lost == lost && self.far.stats().tx_invalid == 0;
        match taken {
            true => self.damaged.push_back(damaged),
            false => self.missed += 1,
        }
        taken
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.sending.drain(..).for_each(|(_, delayed)| delayed.cancel());
    }
}
