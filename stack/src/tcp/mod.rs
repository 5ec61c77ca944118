//! RFC 9293 over one [`Tcb`](tcb::Tcb): no tables, no routes, no I/O. Input notes what is owed; output sends it.
//!
//! | RFC 9293 | where |
//! | --- | --- |
//! | §3.3.2 states | [`state::State`] |
//! | §3.4.1 initial sequence numbers, RFC 6528 | [`isn`] |
//! | §3.5 opening | [`open`] |
//! | RFC 4987 SYN cookies | [`cookie`] |
//! | §3.6 closing, §3.10.4, §3.10.5 | [`close`] |
//! | §3.7, §3.8.6.2 segments to send, Nagle, silly windows | [`output`] |
//! | §3.8.1 retransmission, RFC 6298 | [`rtt`], [`timers`] |
//! | §3.8.2 congestion, RFC 5681, RFC 6582, RFC 6675 | [`congestion`], [`ack`], [`sack`] |
//! | RFC 8985 loss by time, tail loss probes | [`sack`], [`timers`] |
//! | §3.8.6 window, reassembly, delayed acknowledgment | [`recv`] |
//! | §3.10.7 SEGMENT ARRIVES, RFC 5961, RFC 7323 §5 | [`usual`], [`input`], [`ack`] |

pub mod ack;
pub mod chain;
pub mod close;
pub mod congestion;
pub mod cookie;
pub mod env;
pub mod input;
pub mod invariants;
pub mod isn;
pub mod open;
pub mod output;
pub mod recv;
pub mod rtt;
pub mod sack;
pub mod send_queue;
pub mod state;
pub mod tcb;
#[cfg(test)]
pub(crate) mod testing;
pub mod timers;
pub mod usual;
