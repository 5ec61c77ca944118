//! What must hold of a whole stack between two turns. For tests and worlds: it reads every record.

use alloc::format;
use alloc::string::String;

use super::Stack;
use crate::demux::flows::{Owner, Place};
use crate::tcp::tcb::Bits;
use crate::tcp::timers;

/// What a stack still has of its connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Left {
    /// Connections from SYN-SENT to LAST-ACK.
    pub connections: u32,
    /// Half-open passive connections.
    pub half_open: u32,
    /// Connections in TIME-WAIT.
    pub time_waits: u32,
    /// Entries of the flow index.
    pub flows: usize,
    /// Entries of the timer wheel.
    pub timers: u32,
    /// Frames in queues that the CPU owns: received and not taken, sent and not acknowledged, waiting for a neighbour. Without those
    /// that the device has.
    pub frames: usize,
}

impl Stack {
    /// What is left of connections: nothing, once all are closed, TIME-WAIT is over and the wheel's last entries have come up.
    pub fn left(&self) -> Left {
        let of_connections: usize = self
            .conns
            .iter()
            .map(|(_, tcb)| {
                let held = self.env.tx.iter(&tcb.tx).filter(|(_, held, _)| !held.is_sending()).count();
                let ooo = tcb.cold.as_ref().map_or(0, |cold| self.env.rx.iter(&cold.ooo).count());
                self.env.rx.iter(&tcb.rx).count() + ooo + held
            })
            .sum();
        Left {
            connections: self.conns.len(),
            half_open: self.half_open.len(),
            time_waits: self.waiting.len(),
            flows: self.flows.len(),
            timers: self.wheel.len(),
            frames: of_connections + self.ip.waiting_frames() + self.strays.len(),
        }
    }

    /// The first thing that does not hold, of any connection or between the tables, with the connection's record.
    pub fn check(&self) -> Result<(), String> {
        let records = self.conns.len() + self.half_open.len() + self.waiting.len();
        if self.flows.len() != records as usize {
            return Err(format!("the index has {} flows for {records} records", self.flows.len()));
        }
        let half_open: u32 = self.listeners.iter().map(|(_, listener)| listener.half_open).sum();
        if half_open > self.half_open.len() {
            return Err(format!("listeners count {half_open} of {} half-open connections", self.half_open.len()));
        }
        for (conn, tcb) in self.conns.iter() {
            let at = conn.index();
            tcb.check(&self.env).map_err(|broken| format!("{broken}: {tcb:?}"))?;
            if self.owner(&tcb.key, self.hasher.hash(&tcb.key)) != Some(Owner::Conn(at)) {
                return Err(format!("the index does not lead to this connection: {tcb:?}"));
            }
            if tcb.place != Place::BEYOND && self.flows.owner_at(tcb.place) != Some(Owner::Conn(at)) {
                return Err(format!("its flow is not in its place: {tcb:?}"));
            }
            // What is owed is settled by output, which arms the wheel.
            let settled = !tcb.bits.has(Bits::OWING.and(Bits::MARKED));
            if let Some(deadline) = timers::next_deadline(tcb).filter(|_| settled) {
                let sooner = |at_ms| timers::passed(at_ms, deadline);
                if !(tcb.bits.has(Bits::WHEEL_ARMED) && self.wheel.deadline(at).is_some_and(sooner)) {
                    return Err(format!("a deadline that the wheel does not know: {tcb:?}"));
                }
            }
        }
        for (at, record) in self.waiting.iter() {
            let place = record.place.place();
            if place != Place::BEYOND && self.flows.owner_at(place) != Some(Owner::TimeWait(at)) {
                return Err(format!("its flow is not in its place: {record:?}"));
            }
        }
        Ok(())
    }
}
