//! Stage 5: what is owed goes out, and what is over is released.

use handfast_drivers::burst::TxBurst;

use super::Stack;
use crate::app::Closed;
use crate::ip::NextHop;
use crate::metrics::DropReason;
use crate::tcp::env::Env;
use crate::tcp::output::{self, Path, Progress};
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Tcb};
use crate::tcp::timers;
use crate::trace::TraceKind;
use crate::wire::tcp::Flags;

impl Stack {
    /// Sends for each owing connection once. `false` when the burst is full and more is owed. What waits for a frame stays
    /// owed until another turn.
    pub(super) fn send_owed(&mut self, tx: &mut TxBurst) -> bool {
        for _ in 0..self.owing.len() {
            if tx.room() == 0 {
                return false;
            }
            let Some(at) = self.owing.pop_front() else { break };
            match self.send_for(at, tx) {
                Progress::Done => {}
                Progress::Full => {
                    self.owing.push_front(at);
                    return false;
                }
                Progress::NoFrame => self.owing.push_back(at),
            }
        }
        true
    }

    #[inline]
    fn send_for(&mut self, at: u32, tx: &mut TxBurst) -> Progress {
        let now = self.env.now;
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        if tcb.bits.has(Bits::RESET_OWED) {
            return self.send_reset(at, tx);
        }
        if !output::is_owing(tcb) || tcb.bits.has(Bits::AWAITS_NEIGHBOUR) {
            return self.settle(at);
        }
        let next_hop = match self.ip.fresh(now, tcb.neighbour) {
            Some(mac) => NextHop::Ready(mac),
            None => {
                let next_hop = self.ip.next_hop(now, tcb.key.remote, &mut tcb.neighbour, Some(at));
                if is_answered(tcb, &self.env) {
                    self.ip.confirm(now, tcb.neighbour);
                }
                next_hop
            }
        };
        match next_hop {
            NextHop::Ready(mac) => {
                let path = Path { link: self.ip.ethernet(mac), tx_checksum: self.tx_checksum, mtu: self.ip.mtu() };
                let waiting = tx.len();
                let progress = output::run(tcb, &mut self.env, &path, tx);
                let sent = tx.len() - waiting;
                if self.trace.wants(tcb.bits.has(Bits::TRACED)) && sent > 0 {
                    let (seq, ack) = (tcb.snd_nxt, tcb.rcv_nxt);
                    self.note(at, TraceKind::Sent, Flags::default(), seq, ack, sent as u16);
                }
                if progress != Progress::Done {
                    return progress;
                }
            }
            unready => self.cannot_send(at, unready),
        }
        self.settle(at)
    }

    #[cold]
    fn send_reset(&mut self, at: u32, tx: &mut TxBurst) -> Progress {
        if tx.room() == 0 {
            return Progress::Full;
        }
        if let Some(tcb) = self.conns.at_mut(at) {
            tcb.bits.clear(Bits::RESET_OWED);
        }
        self.reset(at, tx);
        self.end(at, Closed::Aborted);
        self.settle(at)
    }

    /// There is no way to the peer now.
    #[cold]
    fn cannot_send(&mut self, at: u32, next_hop: NextHop) {
        let Some(tcb) = self.conns.at_mut(at) else { return };
        if next_hop == NextHop::Pending {
            tcb.bits.set(Bits::AWAITS_NEIGHBOUR);
            // Only so many can wait; the rest look again.
            timers::arm_retry(tcb, LOOK_AGAIN_MS, &self.env);
            return;
        }
        self.env.metrics.dropped(DropReason::Unresolved);
        match tcb.state() {
            State::SynSent => self.end(at, Closed::Unreachable),
            // Retransmission tries again.
            _ => timers::arm_retry(tcb, LOOK_AGAIN_MS, &self.env),
        }
    }

    /// After output: the record is released, or its next deadline is noted.
    #[inline(always)]
    fn settle(&mut self, at: u32) -> Progress {
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        tcb.bits.clear(Bits::OWING);
        // A record that is still marked stays until its turn: another connection in its place would be in the queue twice.
        if tcb.bits.has(Bits::REPORTED) && tcb.is_over() && !tcb.bits.has(Bits::MARKED) {
            return self.release(at);
        }
        if let Some(deadline) = timers::next_deadline(tcb)
            && !(tcb.bits.has(Bits::WHEEL_ARMED) && timers::passed(tcb.wheel_at_ms, deadline))
        {
            tcb.bits.set(Bits::WHEEL_ARMED);
            tcb.wheel_at_ms = deadline;
            self.wheel.arm(at, deadline);
        }
        Progress::Done
    }
}

/// Our packets reach the peer: it has just been heard, and nothing of ours waits for a repeated answer (RFC 4861 §7.3.1).
#[cold]
fn is_answered(tcb: &Tcb, env: &Env) -> bool {
    tcb.state().is_synchronised()
        && !tcb.bits.has(Bits::STALLED)
        && tcb.rtt.backoff == 0
        && env.now_ms.wrapping_sub(tcb.heard_at_ms) < HEARD_LATELY_MS
}

const HEARD_LATELY_MS: u32 = 1_000;
const LOOK_AGAIN_MS: u32 = 1_000;
