//! Middleware that makes a bad network of a good device: loss, duplication, reordering, corruption, delay, jitter, a rate and
//! a queue, each way by itself. The same seed, clock and packets make the same accidents.
//!
//! What is delayed is held here: received frames as [`Frame`]s, frames to be sent as the device's, as if it had not sent them
//! yet. All come back to their pool when the driver is dropped. A packet that waits wakes nobody: an idle worker should look
//! again by [`next_due_us`](Impair::next_due_us).

use alloc::collections::BinaryHeap;
use core::cmp::Ordering;

use crate::burst::{Delayed, RxBurst, TxBurst};
use crate::clock::Clock;
use crate::driver::{Caps, Driver};
use crate::frame::{Frame, FramePool};

/// What happens to the packets of one direction. By default nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Impairment {
    /// Packets lost, per million.
    pub loss_ppm: u32,
    /// Packets that come twice, per million.
    pub duplicate_ppm: u32,
    /// Packets with one bit flipped, per million.
    pub corrupt_ppm: u32,
    /// Packets that are overtaken by those behind them, per million.
    pub reorder_ppm: u32,
    /// How much later a reordered packet comes, in microseconds.
    pub reorder_us: u32,
    /// Delay of every packet, in microseconds.
    pub delay_us: u32,
    /// Greatest additional delay, in microseconds. Evenly distributed; it does not change the order.
    pub jitter_us: u32,
    /// Rate of the link in bits per second; 0 is no limit.
    pub rate_bps: u64,
    /// How many packets may wait for the rate and the delay; more are lost.
    pub queue_max: u32,
}

impl Default for Impairment {
    fn default() -> Impairment {
        Impairment {
            loss_ppm: 0,
            duplicate_ppm: 0,
            corrupt_ppm: 0,
            reorder_ppm: 0,
            reorder_us: 1000,
            delay_us: 0,
            jitter_us: 0,
            rate_bps: 0,
            queue_max: 1000,
        }
    }
}

impl Impairment {
    fn does_nothing(&self) -> bool {
        let Impairment { loss_ppm, duplicate_ppm, corrupt_ppm, reorder_ppm, delay_us, jitter_us, rate_bps, .. } = *self;
        (loss_ppm, duplicate_ppm, corrupt_ppm, reorder_ppm, delay_us, jitter_us, rate_bps) == Default::default()
    }
}

/// What happened to the packets of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accidents {
    /// Lost by chance, or because no frame was free for a corrupted copy.
    pub lost: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// One bit flipped.
    pub corrupted: u64,
    /// Held back.
    pub reordered: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
}

/// A driver behind a bad network.
#[derive(Debug)]
pub struct Impair<D: Driver> {
    inner: D,
    caps: Caps,
    clock: Clock,
    rx: Path<Frame>,
    tx: Path<Delayed>,
    /// Due, and not yet taken by the device.
    due: TxBurst,
}

impl<D: Driver> Impair<D> {
    /// Impairs what `inner` receives and what it sends.
    pub fn new(inner: D, rx: Impairment, tx: Impairment, seed: u64, clock: Clock) -> Impair<D> {
        let mut caps = inner.caps().clone();
        // A damaged packet must be found by its checksum: nobody else vouches for it, or mends it.
        caps.rx_checksum &= rx.corrupt_ppm == 0;
        caps.tx_checksum &= tx.corrupt_ppm == 0;
        let mut seeds = Random(seed);
        let (rx, tx) = (Path::new(rx, seeds.next()), Path::new(tx, seeds.next()));
        Impair { inner, caps, clock, rx, tx, due: TxBurst::new() }
    }

    /// What happened to received and to sent packets.
    pub fn accidents(&self) -> (Accidents, Accidents) {
        (self.rx.accidents, self.tx.accidents)
    }

    /// When the next packet that waits is due, in microseconds of the clock; `None` if none waits.
    pub fn next_due_us(&self) -> Option<u64> {
        let next_ns = [self.rx.next_due_ns(), self.tx.next_due_ns()].into_iter().flatten().min()?;
        Some(next_ns.div_ceil(1000))
    }

    /// The device.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    /// Sends what is due, as far as the device takes it.
    fn send_due(&mut self, now_ns: u64) {
        loop {
            while self.due.room() > 0
                && let Some(delayed) = self.tx.pop_due(now_ns)
            {
                self.due.push_delayed(delayed);
            }
            if self.due.is_empty() {
                return;
            }
            self.inner.tx_burst(&mut self.due);
            if !self.due.is_empty() {
                return;
            }
        }
    }
}

impl<D: Driver> Driver for Impair<D> {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn pool(&self) -> &FramePool {
        self.inner.pool()
    }

    fn rx_burst(&mut self, rx: &mut RxBurst) {
        if self.rx.setting.does_nothing() {
            return self.inner.rx_burst(rx);
        }
        let now_ns = self.clock.now_ns();
        let mut arrived = RxBurst::new();
        self.inner.rx_burst(&mut arrived);
        for frame in arrived {
            self.rx.push(frame, now_ns, self.inner.pool());
        }
        while !rx.is_full()
            && let Some(frame) = self.rx.pop_due(now_ns)
        {
            rx.push(frame);
        }
    }

    fn tx_burst(&mut self, tx: &mut TxBurst) {
        if self.tx.setting.does_nothing() {
            return self.inner.tx_burst(tx);
        }
        let now_ns = self.clock.now_ns();
        for delayed in tx.drain_front(tx.len()) {
            self.tx.push(delayed, now_ns, self.inner.pool());
        }
        self.send_due(now_ns);
    }

    fn flush(&mut self) {
        if !self.tx.setting.does_nothing() {
            self.send_due(self.clock.now_ns());
        }
        self.inner.flush();
    }

    fn is_busy(&self) -> bool {
        let holds = !self.rx.waiting.is_empty() || !self.tx.waiting.is_empty() || !self.due.is_empty();
        holds || self.inner.is_busy()
    }

    fn inner(&self) -> Option<&dyn Driver> {
        Some(&self.inner)
    }

    fn inner_mut(&mut self) -> Option<&mut dyn Driver> {
        Some(&mut self.inner)
    }
}

impl<D: Driver> Drop for Impair<D> {
    fn drop(&mut self) {
        self.due.cancel();
        self.tx.waiting.drain().for_each(|waiting| waiting.packet.cancel());
    }
}

/// One direction.
#[derive(Debug)]
struct Path<T> {
    setting: Impairment,
    random: Random,
    waiting: BinaryHeap<Waiting<T>>,
    pushed: u64,
    /// The link is sending until then.
    busy_until_ns: u64,
    last_due_ns: u64,
    accidents: Accidents,
}

impl<T: Packet> Path<T> {
    fn new(setting: Impairment, seed: u64) -> Path<T> {
        let waiting = match setting.does_nothing() {
            true => BinaryHeap::new(),
            false => BinaryHeap::with_capacity(setting.queue_max as usize),
        };
        let accidents = Accidents::default();
        Path { setting, random: Random(seed), waiting, pushed: 0, busy_until_ns: 0, last_due_ns: 0, accidents }
    }

    fn push(&mut self, packet: T, now_ns: u64, pool: &FramePool) {
        if self.random.chance(self.setting.loss_ppm) {
            self.accidents.lost += 1;
            return packet.discard();
        }
        if self.random.chance(self.setting.duplicate_ppm)
            && let Some(copy) = packet.copy(pool)
        {
            self.accidents.duplicated += 1;
            self.enqueue(copy, now_ns);
        }
        if !self.random.chance(self.setting.corrupt_ppm) || packet.len() == 0 {
            return self.enqueue(packet, now_ns);
        }
        let bit = self.random.below(packet.len() as u64 * 8) as usize;
        match packet.flip(bit, pool) {
            Some(packet) => {
                self.accidents.corrupted += 1;
                self.enqueue(packet, now_ns);
            }
            None => self.accidents.lost += 1,
        }
    }

    fn enqueue(&mut self, packet: T, now_ns: u64) {
        let Impairment { reorder_ppm, reorder_us, delay_us, jitter_us, rate_bps, queue_max, .. } = self.setting;
        if self.waiting.len() >= queue_max as usize {
            self.accidents.overflowed += 1;
            return packet.discard();
        }
        let send_ns = (packet.len() as u64 * 8 * 1_000_000_000).checked_div(rate_bps).unwrap_or(0);
        self.busy_until_ns = self.busy_until_ns.max(now_ns) + send_ns;
        let delay_ns = delay_us as u64 * 1000 + self.random.below(jitter_us as u64 * 1000 + 1);
        self.last_due_ns = self.last_due_ns.max(self.busy_until_ns + delay_ns);
        let mut due_ns = self.last_due_ns;
        if self.random.chance(reorder_ppm) {
            self.accidents.reordered += 1;
            due_ns += reorder_us as u64 * 1000;
        }
        self.pushed += 1;
        self.waiting.push(Waiting { due_ns, number: self.pushed, packet });
    }

    fn next_due_ns(&self) -> Option<u64> {
        Some(self.waiting.peek()?.due_ns)
    }

    fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        if self.next_due_ns()? > now_ns {
            return None;
        }
        Some(self.waiting.pop()?.packet)
    }
}

/// A packet in a queue. The earliest is the greatest, because a heap gives the greatest first.
#[derive(Debug)]
struct Waiting<T> {
    due_ns: u64,
    number: u64,
    packet: T,
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_ns, other.number).cmp(&(self.due_ns, self.number))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Waiting<T> {}

/// What can be done to a packet on its way.
trait Packet: Sized {
    fn len(&self) -> usize;
    /// A second one with the same bytes, if a frame is free for it.
    fn copy(&self, pool: &FramePool) -> Option<Self>;
    /// The packet with one bit flipped; lost if that is not possible.
    fn flip(self, bit: usize, pool: &FramePool) -> Option<Self>;
    fn discard(self);
}

impl Packet for Frame {
    fn len(&self) -> usize {
        self[..].len()
    }

    fn copy(&self, pool: &FramePool) -> Option<Frame> {
        copied(self, pool)
    }

    fn flip(mut self, bit: usize, _: &FramePool) -> Option<Frame> {
        self[bit / 8] ^= 1 << (bit % 8);
        Some(self)
    }

    fn discard(self) {}
}

impl Packet for Delayed {
    fn len(&self) -> usize {
        Delayed::len(self)
    }

    fn copy(&self, pool: &FramePool) -> Option<Delayed> {
        copied(self.packet(), pool).map(Delayed::new)
    }

    /// Flips it in a copy: the frame itself may be held for retransmission.
    fn flip(self, bit: usize, pool: &FramePool) -> Option<Delayed> {
        let copy = copied(self.packet(), pool);
        self.cancel();
        copy?.flip(bit, pool).map(Delayed::new)
    }

    fn discard(self) {
        self.cancel();
    }
}

fn copied(packet: &[u8], pool: &FramePool) -> Option<Frame> {
    let mut frame = pool.alloc()?;
    (frame.extend_from_slice(packet) == packet.len()).then_some(frame)
}

/// SplitMix64: small, fast and good enough for accidents.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: u64) -> u64 {
        ((self.next() as u128 * limit as u128) >> 64) as u64
    }

    /// True so many times in a million. Takes a number each time, so that one rate does not change another's accidents.
    fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < ppm as u64
    }
}

#[cfg(test)]
mod tests;
