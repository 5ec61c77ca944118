//! A ring of small fixed records per worker: what happened to which connection, for whoever asks afterwards.

use alloc::vec::Vec;

use crate::demux::conns::ConnId;
use crate::tcp::state::State;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Seq};

/// What is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceKind {
    /// A segment came: the record has its numbers.
    Received,
    /// Segments were sent: the record has SND.NXT and RCV.NXT after them, and how many there were as `payload_len`.
    Sent,
    /// A deadline passed: SND.UNA and RCV.NXT.
    Expired,
    /// The connection ended: SND.NXT and RCV.NXT.
    Ended,
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceRecord {
    /// When.
    pub at: Instant,
    /// Which connection.
    pub conn: ConnId,
    /// What.
    pub kind: TraceKind,
    /// The state afterwards.
    pub state: State,
    /// The flags of a segment that came.
    pub flags: Flags,
    /// Its SEG.SEQ.
    pub seq: Seq,
    /// Its SEG.ACK.
    pub ack: Seq,
    /// Its payload in bytes.
    pub payload_len: u16,
}

/// The ring. It records nothing until it is switched on, for all connections or for chosen ones.
#[derive(Debug, Default)]
pub struct Trace {
    records: Vec<TraceRecord>,
    capacity: usize,
    next: usize,
    all: bool,
}

impl Trace {
    /// A ring of `capacity` records, whose memory is taken when it is first switched on.
    pub fn new(capacity: usize) -> Trace {
        Trace { capacity, ..Trace::default() }
    }

    /// Records every connection, or only those that were chosen.
    pub fn set_all(&mut self, all: bool) {
        self.all = all;
    }

    /// Whether something of a connection should be recorded.
    #[inline]
    pub fn wants(&self, chosen: bool) -> bool {
        self.all || chosen
    }

    /// Adds a record; the oldest makes room.
    pub fn record(&mut self, record: TraceRecord) {
        if self.records.len() < self.capacity {
            self.records.reserve_exact(self.capacity - self.records.len());
            self.records.push(record);
        } else if let Some(slot) = self.records.get_mut(self.next) {
            *slot = record;
            self.next = (self.next + 1) % self.capacity;
        }
    }

    /// The records, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &TraceRecord> {
        let (newer, older) = self.records.split_at(self.next.min(self.records.len()));
        older.iter().chain(newer)
    }
}

#[cfg(test)]
mod tests;
