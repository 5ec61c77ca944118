//! The states of a connection (RFC 9293 §3.3.2) and the moves between them.
//!
//! LISTEN, a passive SYN-RECEIVED and TIME-WAIT have records of their own; a `Tcb` is in the rest, and passes through
//! TIME-WAIT and CLOSED on its way out.

/// A connection's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Closed,
    /// Our SYN is out.
    SynSent,
    /// Both SYNs crossed: simultaneous open.
    SynReceived,
    /// Data may flow both ways.
    Established,
    /// Our FIN is out.
    FinWait1,
    /// Our FIN is acknowledged, the peer may still send.
    FinWait2,
    /// The peer's FIN is in, we may still send.
    CloseWait,
    /// Both FINs crossed: simultaneous close.
    Closing,
    /// The peer's FIN is in, ours is out.
    LastAck,
    /// Both FINs are acknowledged; old segments may still be about.
    TimeWait,
}

impl State {
    /// The peer may still send data: its FIN has not come.
    #[inline]
    pub const fn can_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// Data of ours may still be sent, or sent again.
    #[inline]
    pub const fn can_send(self) -> bool {
        matches!(self, State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck)
    }

    /// The application may still add data: it has not closed its half.
    #[inline]
    pub const fn can_queue(self) -> bool {
        matches!(self, State::SynSent | State::SynReceived | State::Established | State::CloseWait)
    }

    /// Both sequence numbers are known to both ends.
    #[inline]
    pub const fn is_synchronised(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived | State::Closed)
    }

    /// Whether RFC 9293 §3.3.2, figure 5, or the end of a connection leads from here to `next`.
    pub const fn may_become(self, next: State) -> bool {
        use State::*;
        match next {
            SynSent => false,
            SynReceived => matches!(self, SynSent),
            Established => matches!(self, SynSent | SynReceived),
            FinWait1 => matches!(self, SynReceived | Established),
            FinWait2 => matches!(self, FinWait1),
            CloseWait => matches!(self, Established | SynReceived),
            Closing => matches!(self, FinWait1),
            LastAck => matches!(self, CloseWait),
            TimeWait => matches!(self, FinWait1 | FinWait2 | Closing),
            Closed => !matches!(self, Closed),
        }
    }
}
