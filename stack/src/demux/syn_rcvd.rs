//! Half-open connections: a SYN came, our SYN-ACK went, its ACK is awaited.

use super::flow::FlowKey;
use super::queues::Queues;
use crate::wire::tcp::Seq;

/// What a half-open connection needs until it is one. With its links, one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SynRcvd {
    /// Whose it is.
    pub key: FlowKey,
    /// Our initial sequence number.
    pub iss: Seq,
    /// The peer's initial sequence number.
    pub irs: Seq,
    /// The timestamp to echo, if [`Offered::timestamps`].
    pub ts_recent: u32,
    /// The largest segment that the peer takes, and our path (RFC 9293 §3.7.1), in bytes.
    pub mss: u16,
    /// The place of its listener in the table, as [`Listeners::find`](super::listeners::Listeners::find) says.
    pub listener: u16,
    /// Options that the SYN offered.
    pub offered: Offered,
    /// How often the SYN-ACK was sent again. Kept by the table; start with 0.
    pub retries: u8,
    /// When the SYN-ACK is due again, in units of 16 ms. Kept by the table; start with 0.
    pub due: u16,
}

/// The options of a SYN that matter later, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offered(u8);

impl Offered {
    /// These options. A scale above 14 counts as 14 (RFC 7323 §2.3).
    #[inline]
    pub const fn new(window_scale: Option<u8>, timestamps: bool, sack: bool) -> Offered {
        let scale = match window_scale {
            None => UNSCALED,
            Some(scale) if scale > SCALE_MAX => SCALE_MAX,
            Some(scale) => scale,
        };
        Offered(scale | (timestamps as u8) << 4 | (sack as u8) << 5)
    }

    /// All that there is, with a scale of at most 14.
    #[inline]
    pub const fn all(window_scale: u8) -> Offered {
        debug_assert!(window_scale <= SCALE_MAX);
        Offered(ALL | window_scale)
    }

    /// All that there is was offered.
    #[inline]
    pub const fn is_all(self) -> bool {
        matches!(self.0, ALL..ALL_BUT_SCALE)
    }

    /// All of it in six bits, for [`from_bits`](Offered::from_bits).
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What was offered, out of its six bits.
    #[inline]
    pub const fn from_bits(bits: u8) -> Offered {
        Offered(bits & 0x3f)
    }

    /// The peer's window scale, if it offered to scale.
    #[inline]
    pub const fn window_scale(self) -> Option<u8> {
        let scale = self.0 & 0xf;
        if scale == UNSCALED { None } else { Some(scale) }
    }

    /// The peer's window scale; 15, which is none, if it offered none.
    #[inline]
    pub const fn shift(self) -> u8 {
        self.0 & 0xf
    }

    /// Timestamps were offered (RFC 7323).
    #[inline]
    pub const fn timestamps(self) -> bool {
        self.0 & 1 << 4 != 0
    }

    /// Selective acknowledgements were permitted (RFC 2018).
    #[inline]
    pub const fn sack(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// All half-open connections of a worker, in the order in which their SYN-ACKs are due again.
///
/// Each retry waits twice as long as the one before, from one second up to [`RETRY_MS_MAX`] (RFC 6298 §2.1, §5.5). A
/// queue per number of retries keeps the order: within one, all wait equally long.
#[derive(Debug)]
pub struct SynRcvds {
    queues: Queues<SynRcvd, QUEUES>,
    /// Nothing is due before this; `None` if nothing is half-open.
    quiet_until: Option<u32>,
}

impl SynRcvds {
    /// Room for up to `capacity` half-open connections.
    pub fn with_capacity(capacity: u32) -> SynRcvds {
        SynRcvds { queues: Queues::with_capacity(capacity), quiet_until: None }
    }

    /// Stores a half-open connection whose SYN-ACK was sent at `now`, in milliseconds; its index, or `None` if the table is full.
    #[inline]
    pub fn insert(&mut self, now: u32, record: SynRcvd) -> Option<u32> {
        let record = SynRcvd { retries: 0, due: due_after(now, 0), ..record };
        let index = self.queues.insert(0, || record)?;
        self.quiet_at_most_until(now.wrapping_add(RETRY_MS_MIN));
        Some(index)
    }

    /// The half-open connection at `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&SynRcvd> {
        self.queues.get(index)
    }

    /// Takes the half-open connection at `index` out, if there is one.
    pub fn remove(&mut self, index: u32) -> Option<SynRcvd> {
        let record = *self.get(index)?;
        self.discard(index, record.retries);
        Some(record)
    }

    /// Forgets the half-open connection that is at `index` and has had so many retries.
    #[inline(always)]
    pub fn discard(&mut self, index: u32, retries: u8) {
        self.queues.discard(queue_of(retries), index);
        if self.is_empty() {
            self.quiet_until = None;
        }
    }

    /// The index of a half-open connection whose SYN-ACK is due again at `now`, the most overdue of its number of retries.
    ///
    /// The same one until it is [`retried`](SynRcvds::retried) or removed: the caller decides how often is often enough.
    #[inline]
    pub fn due(&mut self, now: u32) -> Option<u32> {
        if is_before(now, self.quiet_until?) {
            return None;
        }
        let first = (0..QUEUES).filter_map(|queue| self.queues.first(queue));
        let (index, wait) =
            first.map(|(index, record)| (index, wait_ms(record.due, now))).min_by_key(|(_, wait)| *wait).unzip();
        if wait? <= 0 {
            return index;
        }
        self.quiet_until = wait.map(|wait| now.wrapping_add(wait as u32));
        None
    }

    /// The SYN-ACK of `index` was sent again at `now`: it waits for its next time.
    #[inline]
    pub fn retried(&mut self, index: u32, now: u32) {
        let Some(record) = self.queues.get_mut(index) else { return };
        let from = queue_of(record.retries);
        record.retries = record.retries.saturating_add(1);
        let to = queue_of(record.retries);
        record.due = due_after(now, to);
        self.queues.move_to_end(from, to, index);
        self.quiet_at_most_until(now.wrapping_add(RETRY_MS_MIN << to));
    }

    /// A lower bound of the time when a SYN-ACK is due again, in milliseconds; `None` if nothing is half-open.
    #[inline]
    pub fn next_deadline(&self) -> Option<u32> {
        self.quiet_until
    }

    /// Asks the processor to fetch the record at `index`.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        self.queues.prefetch(index);
    }

    /// How many half-open connections there are.
    #[inline]
    pub fn len(&self) -> u32 {
        self.queues.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there may be.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.queues.capacity()
    }

    #[inline]
    fn quiet_at_most_until(&mut self, deadline: u32) {
        if self.quiet_until.is_none_or(|until| is_before(deadline, until)) {
            self.quiet_until = Some(deadline);
        }
    }
}

/// The first retransmission timeout of a SYN-ACK, in milliseconds (RFC 6298 §2.1).
pub const RETRY_MS_MIN: u32 = 1_000;
/// The longest wait between two SYN-ACKs, in milliseconds.
pub const RETRY_MS_MAX: u32 = RETRY_MS_MIN << (QUEUES - 1);

const QUEUES: usize = 7;
const SCALE_MAX: u8 = 14;
const UNSCALED: u8 = 15;
/// Timestamps and SACK with a window scale of 0, and with none.
const ALL: u8 = Offered::new(Some(0), true, true).0;
const ALL_BUT_SCALE: u8 = Offered::new(None, true, true).0;
const DUE_UNIT_MS: u32 = 16;

#[inline]
const fn queue_of(retries: u8) -> usize {
    if (retries as usize) < QUEUES { retries as usize } else { QUEUES - 1 }
}

/// When a wait of the given queue that starts `now` is over, rounded up to the unit.
#[inline]
const fn due_after(now: u32, queue: usize) -> u16 {
    // The divisions are of a wrapping clock, which is fine as 2³² is a multiple of the unit.
    (now.wrapping_add(RETRY_MS_MIN << queue).wrapping_add(DUE_UNIT_MS - 1) / DUE_UNIT_MS) as u16
}

/// Milliseconds from `now` until `due`, which is up to nine minutes before or after.
#[inline]
const fn wait_ms(due: u16, now: u32) -> i32 {
    let units = due.wrapping_sub((now / DUE_UNIT_MS) as u16) as i16;
    units as i32 * DUE_UNIT_MS as i32 - (now % DUE_UNIT_MS) as i32
}

#[inline]
const fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests;
