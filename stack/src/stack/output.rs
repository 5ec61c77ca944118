//! Stage 5: what is owed goes out, and what is over is released.

use handfast_drivers::burst::TxBurst;

use super::Stack;
use super::lifecycle::Ending;
use crate::app::Closed;
use crate::ip::{Ip, NeighbourId, NextHop};
use crate::metrics::DropReason;
use crate::tcp::env::Env;
use crate::tcp::output::{self, AtSight, Path, Progress};
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Tcb};
use crate::tcp::timers;
use crate::timer_wheel::TimerWheel;
use crate::trace::TraceKind;
use crate::wire::address::{Address, Mac};
use crate::wire::packet::UsualStart;
use crate::wire::tcp::Flags;

/// The path to a neighbour, as long as a burst is made: many connections in a row have the same.
struct Way {
    to: Towards,
    path: Path,
    /// The same, if it is usual, and to nobody else.
    at_sight: Towards,
    start: UsualStart,
}

impl Way {
    /// By this path, to whom it leads.
    #[inline(always)]
    fn new(to: Towards, path: Path) -> Way {
        let (at_sight, start) = path.usual().map_or((Towards::NOBODY, UsualStart::default()), |start| (to, *start));
        Way { to, path, at_sight, start }
    }
}

/// Whom connections in a row have as their peer.
#[derive(Clone, Copy)]
struct Towards {
    neighbour: NeighbourId,
    /// Who is reached through it.
    remote: Address,
}

impl Towards {
    /// No connection's peer is unspecified.
    const NOBODY: Towards = Towards { neighbour: NeighbourId::NOBODY, remote: Address::UNSPECIFIED_V4 };

    /// Whether a connection's segments go this way, too. Who goes to one neighbour, or to one address, is of one family.
    #[inline(always)]
    fn leads_to_peer_of(&self, tcb: &mut Tcb) -> bool {
        if self.neighbour == tcb.neighbour {
            return true;
        }
        let leads = self.remote == tcb.key.remote;
        if leads {
            tcb.neighbour = self.neighbour;
        }
        leads
    }
}

impl Stack {
    /// Sends for each owing connection once. `false` when the burst is full and more is owed. What waits for a frame stays
    /// owed until another turn.
    pub(super) fn send_owed(&mut self, tx: &mut TxBurst) -> bool {
        // What is traced is not sent at sight.
        match self.trace.wants(false) {
            true => self.for_each_owing(tx, Stack::send_for_any),
            false => self.for_each_owing(tx, Stack::send_for),
        }
    }

    #[inline(always)]
    fn for_each_owing(
        &mut self,
        tx: &mut TxBurst,
        send_for: impl Fn(&mut Stack, u32, &mut Way, &mut TxBurst) -> Progress,
    ) -> bool {
        let nowhere = Path::new(self.ip.ethernet(Mac::default()), &Address::UNSPECIFIED_V4, true);
        let mut way = Way::new(Towards::NOBODY, nowhere);
        for _ in 0..self.owing.walks() {
            let walk = self.owing.walk();
            for &at in walk.indices() {
                match send_for(self, at, &mut way, tx) {
                    Progress::Done => {}
                    Progress::Full => {
                        self.owing.ended_before(walk, at);
                        return false;
                    }
                    Progress::NoFrame => self.owing.push_back(at),
                }
            }
            self.owing.ended(walk);
        }
        true
    }

    /// What is owed as a rule is sent at sight.
    #[inline(always)]
    fn send_for(&mut self, at: u32, way: &mut Way, tx: &mut TxBurst) -> Progress {
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        if !way.at_sight.leads_to_peer_of(tcb) {
            return self.send_for_any(at, way, tx);
        }
        match output::run_at_sight(tcb, &mut self.env, &way.start, tx, Bits::OWING) {
            AtSight::Done => match ending(tcb) {
                Some(ending) => self.release(at, ending),
                None => {
                    note_deadline(tcb, at, &mut self.wheel);
                    Progress::Done
                }
            },
            AtSight::Armed => {
                note_timeout(tcb, at, &mut self.wheel);
                Progress::Done
            }
            AtSight::Waits(progress) => progress,
            AtSight::Not => self.send_for_any(at, way, tx),
        }
    }

    /// [`send_for`](Self::send_for) whatever is owed.
    #[inline(never)]
    fn send_for_any(&mut self, at: u32, way: &mut Way, tx: &mut TxBurst) -> Progress {
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        if tcb.bits.has(Bits::RESET_OWED.and(Bits::AWAITS_NEIGHBOUR)) {
            return self.send_reset(at, way, tx);
        }
        let (waiting, mut progress) = (tx.len(), Progress::Done);
        if output::is_owing(tcb) {
            if !way.to.leads_to_peer_of(tcb) {
                match find_way(tcb, Some(at), &mut self.ip, &self.env, self.tx_checksum) {
                    Ok(found) => *way = found,
                    Err(next_hop) => return self.cannot_send(at, next_hop),
                }
            }
            progress = output::run(tcb, &mut self.env, &way.path, tx);
        }
        let ending = if progress == Progress::Done { settle(tcb, at, &mut self.wheel) } else { None };
        if self.trace.wants(tcb.bits.has(Bits::TRACED)) {
            self.note_sent(at, tx.len() - waiting);
        }
        ending.map_or(progress, |ending| self.release(at, ending))
    }

    #[cold]
    fn note_sent(&mut self, at: u32, segments: usize) {
        if let Some(tcb) = self.conns.at(at)
            && segments > 0
        {
            let (seq, ack) = (tcb.snd_nxt, tcb.rcv_nxt);
            self.note(at, TraceKind::Sent, Flags::default(), seq, ack, segments as u16);
        }
    }

    /// Nothing but a reset is sent while the neighbour is waited for.
    fn send_reset(&mut self, at: u32, way: &mut Way, tx: &mut TxBurst) -> Progress {
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        if !tcb.bits.has(Bits::RESET_OWED) {
            return self.settle(at);
        }
        if tx.room() == 0 {
            return Progress::Full;
        }
        tcb.bits.clear(Bits::RESET_OWED);
        if output::knows_us(tcb) {
            // A reset waits for nobody.
            let mut leads = way.to.leads_to_peer_of(tcb);
            if !leads && let Ok(found) = find_way(tcb, None, &mut self.ip, &self.env, self.tx_checksum) {
                (*way, leads) = (found, true);
            }
            if leads {
                output::reset(tcb, &mut self.env, &way.path, tx);
            }
        }
        self.end(at, Closed::Aborted);
        self.settle(at)
    }

    /// There is no way to the peer now.
    #[cold]
    fn cannot_send(&mut self, at: u32, next_hop: NextHop) -> Progress {
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        if next_hop == NextHop::Pending {
            tcb.bits.set(Bits::AWAITS_NEIGHBOUR);
            // Only so many can wait; the rest look again.
            timers::arm_retry(tcb, LOOK_AGAIN_MS, &self.env);
            return self.settle(at);
        }
        self.env.metrics.dropped(DropReason::Unresolved);
        match tcb.state() {
            State::SynSent => self.end(at, Closed::Unreachable),
            // Retransmission tries again.
            _ => timers::arm_retry(tcb, LOOK_AGAIN_MS, &self.env),
        }
        self.settle(at)
    }

    /// Nothing is to be sent now.
    #[inline(never)]
    pub(super) fn settle(&mut self, at: u32) -> Progress {
        let Some(tcb) = self.conns.at_mut(at) else { return Progress::Done };
        settle(tcb, at, &mut self.wheel).map_or(Progress::Done, |ending| self.release(at, ending))
    }
}

/// Nothing is owed: the next deadline is noted, or else the record is over, and to be released.
#[inline(always)]
fn settle(tcb: &mut Tcb, at: u32, wheel: &mut TimerWheel) -> Option<Ending> {
    tcb.bits.clear(Bits::OWING);
    let ending = ending(tcb);
    if ending.is_none() {
        note_deadline(tcb, at, wheel);
    }
    ending
}

/// The end of a record that owes nothing, if it is over. One that is still marked stays until its turn: another connection in its place
/// would be in the queue twice.
#[inline(always)]
fn ending(tcb: &Tcb) -> Option<Ending> {
    (tcb.bits.has(Bits::REPORTED) && tcb.is_over() && !tcb.bits.has(Bits::MARKED)).then(|| Ending::of(tcb))
}

/// Has the wheel look at a record by its next deadline.
#[inline(always)]
fn note_deadline(tcb: &mut Tcb, at: u32, wheel: &mut TimerWheel) {
    if let Some(deadline) = timers::next_deadline(tcb)
        && !(tcb.bits.has(Bits::WHEEL_ARMED) && timers::passed(tcb.wheel_at_ms, deadline))
    {
        arm_wheel(tcb, at, deadline, wheel);
    }
}

/// [`note_deadline`] where the retransmission timer is armed, which is the next one as a rule.
#[inline(always)]
fn note_timeout(tcb: &mut Tcb, at: u32, wheel: &mut TimerWheel) {
    let timeout = tcb.rtx_at_ms;
    match tcb.bits.only(timers::OTHER_DEADLINES.and(Bits::WHEEL_ARMED)) {
        Bits::WHEEL_ARMED if timers::passed(tcb.wheel_at_ms, timeout) => {}
        Bits(0) => arm_wheel(tcb, at, timeout, wheel),
        Bits::IDLE_ARMED if !timers::passed(tcb.idle_at_ms, timeout) => arm_wheel(tcb, at, timeout, wheel),
        _ => note_deadline_anew(tcb, at, wheel),
    }
}

#[inline(never)]
fn note_deadline_anew(tcb: &mut Tcb, at: u32, wheel: &mut TimerWheel) {
    note_deadline(tcb, at, wheel);
}

/// Another connection that was in this place may have left an entry that is early enough.
#[inline(always)]
fn arm_wheel(tcb: &mut Tcb, at: u32, deadline: u32, wheel: &mut TimerWheel) {
    tcb.bits.set(Bits::WHEEL_ARMED);
    tcb.wheel_at_ms = wheel.arm_by(at, deadline);
}

/// The way to a connection's neighbour, or why there is none now: `waiter` is told when there is.
#[inline(never)]
fn find_way(tcb: &mut Tcb, waiter: Option<u32>, ip: &mut Ip, env: &Env, tx_checksum: bool) -> Result<Way, NextHop> {
    let remote = tcb.key.remote;
    let way = |ip: &Ip, neighbour, mac| {
        // Behind a router of both families, the way of one connection is not that of the next.
        let is_shared = !ip.has_router_of_both() && neighbour != NeighbourId::NOBODY;
        let to = if is_shared { Towards { neighbour, remote } } else { Towards::NOBODY };
        Way::new(to, Path::new(ip.ethernet(mac), &remote, tx_checksum))
    };
    if let Some(mac) = ip.fresh(env.now, tcb.neighbour) {
        return Ok(way(ip, tcb.neighbour, mac));
    }
    let next_hop = ip.next_hop(env.now, remote, &mut tcb.neighbour, waiter);
    if is_answered(tcb, env) {
        ip.confirm(env.now, tcb.neighbour);
    }
    let NextHop::Ready(mac) = next_hop else { return Err(next_hop) };
    // Else the next connection may have proof that the neighbour is there: it is to be asked.
    let is_fresh = ip.fresh(env.now, tcb.neighbour).is_some();
    Ok(way(ip, if is_fresh { tcb.neighbour } else { NeighbourId::NOBODY }, mac))
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
