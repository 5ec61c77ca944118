//! Connections in TIME-WAIT: closed, remembered for 2·MSL (RFC 9293 §3.6.1).

use super::flow::FlowKey;
use super::queues::Queues;
use crate::wire::tcp::Seq;

/// What is left of a closed connection. With its links, one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeWait {
    /// Whose it was.
    pub key: FlowKey,
    /// The sequence number after our FIN.
    pub snd_nxt: Seq,
    /// The sequence number after the peer's FIN.
    pub rcv_nxt: Seq,
    /// The peer's latest timestamp: a new SYN must have a later one (RFC 6191 §2).
    pub ts_recent: u32,
    /// When it is forgotten, in milliseconds. Kept by the table; start with 0.
    pub expiry: u32,
    /// The connection used timestamps.
    pub timestamps: bool,
}

/// All connections in TIME-WAIT of a worker, the next to expire first: all wait equally long.
#[derive(Debug)]
pub struct TimeWaits {
    queue: Queues<TimeWait, 1>,
    wait_ms: u32,
}

impl TimeWaits {
    /// Room for up to `capacity` records, each of which stays for `wait_ms` milliseconds (2·MSL).
    pub fn with_capacity(capacity: u32, wait_ms: u32) -> TimeWaits {
        TimeWaits { queue: Queues::with_capacity(capacity), wait_ms }
    }

    /// Stores a record that expires 2·MSL after `now`; its index, or `None` if the table is full.
    #[inline]
    pub fn insert(&mut self, now: u32, record: TimeWait) -> Option<u32> {
        self.queue.insert(0, TimeWait { expiry: now.wrapping_add(self.wait_ms), ..record })
    }

    /// The record at `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&TimeWait> {
        self.queue.get(index)
    }

    /// The record at `index`, to change. Its place in the order stays.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut TimeWait> {
        self.queue.get_mut(index)
    }

    /// The peer's FIN came again: 2·MSL start anew (RFC 9293 §3.10.7.4, eighth step).
    #[inline]
    pub fn restart(&mut self, index: u32, now: u32) {
        let Some(record) = self.queue.get_mut(index) else { return };
        record.expiry = now.wrapping_add(self.wait_ms);
        self.queue.move_to_end(0, 0, index);
    }

    /// Takes the record at `index` out, if there is one.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<TimeWait> {
        self.queue.remove(0, index)
    }

    /// A record whose time is over at `now`; `None` when there are no more.
    #[inline]
    pub fn over(&self, now: u32) -> Option<(u32, &TimeWait)> {
        self.oldest().filter(|(_, record)| now.wrapping_sub(record.expiry) as i32 >= 0)
    }

    /// Takes out the record that expires next, if there is one.
    #[inline]
    pub fn discard_oldest(&mut self) {
        self.queue.discard_first(0);
        if let Some((next, _)) = self.oldest() {
            self.queue.prefetch_next(next);
        }
    }

    /// The record that expires next: the one to give up when a new one needs its place.
    #[inline]
    pub fn oldest(&self) -> Option<(u32, &TimeWait)> {
        self.queue.first(0)
    }

    /// When the next record expires, in milliseconds.
    #[inline]
    pub fn next_deadline(&self) -> Option<u32> {
        self.oldest().map(|(_, record)| record.expiry)
    }

    /// Asks the processor to fetch the record at `index`.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        self.queue.prefetch(index);
    }

    /// How many records there are.
    #[inline]
    pub fn len(&self) -> u32 {
        self.queue.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there may be.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.queue.capacity()
    }
}

#[cfg(test)]
mod tests;
