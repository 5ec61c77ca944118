//! Congestion control: how much may be in flight (RFC 5681).
//!
//! Recovery finds out what is lost and is the same for every control; the control says how the window grows and shrinks.

mod newreno;

/// What a connection knows of the path's capacity.
#[derive(Clone, Copy, Debug)]
pub struct Congestion {
    /// cwnd in bytes.
    pub cwnd: u32,
    /// ssthresh in bytes.
    pub ssthresh: u32,
    /// Bytes acknowledged in congestion avoidance since the window last grew (RFC 3465 §2.1).
    acked: u32,
    /// SND.NXT when recovery began: it ends when this is acknowledged.
    pub recover: crate::wire::tcp::Seq,
    /// Whether something is being recovered.
    pub phase: Phase,
    /// Duplicate acknowledgments in a row; stays at 255.
    pub dup_acks: u8,
}

/// Whether something is being recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery (RFC 6582, RFC 6675).
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

impl Congestion {
    /// Before the first segment: the window is set when the segment size is known.
    pub const fn new() -> Congestion {
        Congestion {
            cwnd: 0,
            ssthresh: u32::MAX,
            acked: 0,
            recover: crate::wire::tcp::Seq(0),
            phase: Phase::Open,
            dup_acks: 0,
        }
    }

    /// The initial window: ten segments (RFC 6928 §2).
    #[inline]
    pub fn start(&mut self, mss: u32) {
        self.cwnd = (10 * mss).min((2 * mss).max(14_600));
    }

    /// New data was acknowledged outside recovery, while the window was in use.
    #[inline]
    pub fn acked(&mut self, bytes: u32, mss: u32) {
        newreno::acked(self, bytes, mss);
    }

    /// Loss was found by duplicate or selective acknowledgments.
    pub fn loss_found(&mut self, flight: u32, mss: u32) {
        self.ssthresh = newreno::ssthresh(flight, mss);
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    /// The retransmission timer went off; `first` if for the first time in a row (RFC 5681 §3.1, RFC 6298 §5).
    pub fn timed_out(&mut self, flight: u32, mss: u32, first: bool) {
        if first {
            self.ssthresh = newreno::ssthresh(flight, mss);
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    /// Nothing was sent for longer than the retransmission timeout: the window is no longer evidence (RFC 5681 §4.1).
    #[cold]
    pub fn restart(&mut self, mss: u32) {
        let mut fresh = Congestion::new();
        fresh.start(mss);
        self.cwnd = self.cwnd.min(fresh.cwnd);
    }
}

impl Default for Congestion {
    fn default() -> Congestion {
        Congestion::new()
    }
}

#[cfg(test)]
mod tests;
