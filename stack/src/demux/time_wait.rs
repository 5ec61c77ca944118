//! Connections in TIME-WAIT: closed, remembered for 2·MSL (RFC 9293 §3.6.1).

use super::flow::FlowKey;
use super::flows::MarkedPlace;
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
    /// Where its flow lies in the index; with a mark if the connection used timestamps.
    pub place: MarkedPlace,
}

impl TimeWait {
    /// The connection used timestamps.
    #[inline]
    pub const fn timestamps(&self) -> bool {
        self.place.is_marked()
    }
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

    /// Stores a record, made once there is a place for it, that expires 2·MSL after `now`; its index, or `None` if the table is full.
    #[inline(always)]
    pub fn insert(&mut self, now: u32, record: impl FnOnce() -> TimeWait) -> Option<u32> {
        let expiry = now.wrapping_add(self.wait_ms);
        self.queue.insert(0, || TimeWait { expiry, ..record() })
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

    /// Takes out the records whose time is over at `now`, the oldest first, as long as `goes` says so of each.
    #[inline(always)]
    pub fn discard_over(&mut self, now: u32, mut goes: impl FnMut(u32, &TimeWait) -> bool) {
        self.queue.discard_while(0, |index, record| now.wrapping_sub(record.expiry) as i32 >= 0 && goes(index, record));
    }

    /// The record that expires next: the one to give up when a new one needs its place.
    #[inline]
    pub fn oldest(&self) -> Option<(u32, &TimeWait)> {
        self.queue.first(0)
    }

    /// All records, the next to expire first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &TimeWait)> {
        self.queue.iter(0)
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
