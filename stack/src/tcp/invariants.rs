//! What must hold of every connection between two segments, each named after the clause that says so. For tests and worlds.

use crate::tcp::chain::NIL;
use crate::tcp::env::Env;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Tcb};

impl Tcb {
    /// The first invariant that does not hold.
    pub fn check(&self, env: &Env) -> Result<(), &'static str> {
        if self.closed.is_some() || self.state() == State::Closed {
            return Ok(());
        }
        self.check_state()?;
        self.check_sending(env)?;
        self.check_receiving(env)?;
        self.check_timers(env)
    }

    /// What a state says of the sequence numbers (RFC 9293 §3.3.2).
    fn check_state(&self) -> Result<(), &'static str> {
        let (syn_acked, peer_fin) = (self.snd_una.after(self.iss), self.bits.has(Bits::PEER_FIN));
        match self.state() {
            State::SynSent | State::SynReceived => {
                ensure(!syn_acked, "RFC 9293 §3.10.7.3: the acknowledgment of the SYN ends SYN-SENT and SYN-RECEIVED")?;
                ensure(
                    self.snd_nxt.at_or_before(self.iss.add(1)),
                    "RFC 9293 §3.10.7: no text before the SYN is acknowledged",
                )?;
            }
            State::Established | State::CloseWait => {
                ensure(!self.bits.has(Bits::FIN_QUEUED), "RFC 9293 §3.10.4: CLOSE leaves ESTABLISHED and CLOSE-WAIT")?;
            }
            State::FinWait1 | State::Closing | State::LastAck => {
                ensure(self.bits.has(Bits::FIN_QUEUED), "RFC 9293 §3.10.4: these states have a FIN to send")?;
                ensure(
                    !self.fin_acked(),
                    "RFC 9293 §3.10.7.4, fifth: the acknowledgment of the FIN ends these states",
                )?;
            }
            State::FinWait2 | State::TimeWait => {
                ensure(
                    self.fin_acked(),
                    "RFC 9293 §3.10.7.4, fifth: FIN-WAIT-2 and TIME-WAIT have their FIN acknowledged",
                )?;
            }
            State::Closed => {}
        }
        let has_peer_fin = matches!(self.state(), State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
        ensure(
            peer_fin == has_peer_fin,
            "RFC 9293 §3.10.7.4, eighth: these states have the peer's FIN, and no others",
        )?;
        let synchronised = self.state().is_synchronised();
        ensure(!synchronised || syn_acked, "RFC 9293 §3.5: a synchronised connection has its SYN acknowledged")?;
        ensure(
            !synchronised || self.rcv_nxt.after(self.irs),
            "RFC 9293 §3.5: a synchronised connection has the peer's SYN",
        )?;
        let closed_by_app = !self.bits.has(Bits::APP_CLOSED) || self.bits.has(Bits::FIN_QUEUED);
        ensure(closed_by_app, "RFC 9293 §3.10.4: CLOSE sends a FIN")
    }

    /// The send sequence space, the send queue and the windows.
    fn check_sending(&self, env: &Env) -> Result<(), &'static str> {
        ensure(self.iss.at_or_before(self.snd_una), "RFC 9293 §3.4: ISS =< SND.UNA")?;
        ensure(self.snd_una.at_or_before(self.snd_nxt), "RFC 9293 §3.4: SND.UNA =< SND.NXT")?;
        ensure(self.snd_nxt.at_or_before(self.snd_end.add(1)), "RFC 9293 §3.4: nothing is sent that was not queued")?;
        ensure(self.snd_wnd <= self.snd_wnd_max, "RFC 9293 §3.8.6.2.1: Max(SND.WND) is the largest")?;
        ensure(self.snd_shift <= 14 && self.rcv_shift <= 14, "RFC 7323 §2.3: a shift is at most 14")?;
        if self.state().can_send() {
            ensure(
                self.congestion.cwnd >= self.segment_max(),
                "RFC 5681 §3.1: the congestion window is a segment at least",
            )?;
        }
        let mut next = None;
        let (mut sacked, mut lost, mut frames, mut unsent) = (0, 0, 0, false);
        for (at, held, slot) in env.tx.iter(&self.tx) {
            let (len, end) = (held.len() as u32, slot.seq.add(held.len() as u32));
            ensure(next.is_none_or(|next| next == slot.seq), "RFC 9293 §3.4: the send queue has no gap")?;
            ensure(end.after(self.snd_una), "RFC 9293 §3.4: what is acknowledged is not kept")?;
            if at == self.tx_unsent {
                unsent = true;
                ensure(
                    slot.seq == self.snd_nxt || self.snd_nxt == self.iss,
                    "RFC 9293 §3.4: SND.NXT is where what was not sent begins",
                )?;
            }
            ensure(unsent || end.at_or_before(self.snd_nxt), "RFC 9293 §3.4: what was sent is before SND.NXT")?;
            let noted = slot.note.sacked || slot.note.lost;
            ensure(!unsent || !noted, "RFC 6675 §4: the scoreboard is of what was sent")?;
            ensure(!(slot.note.sacked && slot.note.lost), "RFC 6675 §4: what has arrived is not lost")?;
            next = Some(end);
            frames += 1;
            sacked += if slot.note.sacked { len } else { 0 };
            lost += if slot.note.lost { len } else { 0 };
        }
        ensure(unsent || self.tx_unsent == NIL, "RFC 9293 §3.4: what was not sent is in the queue")?;
        ensure(next.is_none_or(|next| next == self.snd_end), "RFC 9293 §3.4: the send queue ends where it says")?;
        ensure(frames == self.tx_frames, "RFC 9293 §3.4: the send queue has as many frames as it says")?;
        let (sacked_told, lost_told) = self.cold.as_ref().map_or((0, 0), |cold| (cold.sacked_bytes, cold.lost_bytes));
        ensure((sacked, lost) == (sacked_told, lost_told), "RFC 6675 §4: the scoreboard adds up")
    }

    /// The receive sequence space and the receive queues.
    fn check_receiving(&self, env: &Env) -> Result<(), &'static str> {
        ensure(self.rcv_nxt.at_or_before(self.rcv_adv), "RFC 9293 §3.8.6: the window's right edge never moves left")?;
        ensure(self.last_ack_sent.at_or_before(self.rcv_nxt), "RFC 9293 §3.4: only what came is acknowledged")?;
        let window_max = env.config.recv_buffer_bytes.max(u16::MAX.into());
        ensure(self.rcv_wnd() <= window_max, "RFC 9293 §3.8.6: no more is promised than there is room for")?;
        let (mut bytes, mut frames) = (0, 0);
        for (_, frame, _) in env.rx.iter(&self.rx) {
            (bytes, frames) = (bytes + frame.len() as u32, frames + 1);
        }
        ensure(
            (bytes, frames) == (self.rx_bytes, self.rx_frames),
            "RFC 9293 §3.8.6: the receive queue is what it says",
        )?;
        let Some(cold) = &self.cold else { return Ok(()) };
        let (mut edge, mut frames) = (self.rcv_nxt, 0);
        for (_, frame, slot) in env.rx.iter(&cold.ooo) {
            let in_order = slot.seq.after(edge) || slot.seq == edge && edge != self.rcv_nxt;
            ensure(in_order, "RFC 9293 §3.10.7.4, seventh: what is out of order is kept in order, beyond RCV.NXT")?;
            edge = slot.seq.add(frame.len() as u32);
            frames += 1;
        }
        ensure(frames == cold.ooo_frames, "RFC 9293 §3.10.7.4, seventh: as many frames are out of order as it says")?;
        ensure(edge.at_or_before(self.rcv_adv), "RFC 9293 §3.8.6: nothing beyond the window is kept")?;
        let before_fin = cold.fin_at.is_none_or(|fin_at| edge.at_or_before(fin_at) && fin_at.at_or_after(self.rcv_nxt));
        ensure(before_fin, "RFC 9293 §3.6: nothing follows a FIN")
    }

    /// What waits for an answer, or owes one, has its timer.
    fn check_timers(&self, env: &Env) -> Result<(), &'static str> {
        let armed = self.bits.has(Bits::RTX_ARMED);
        // What is owed goes out, and arms the timer, in this turn's output; for a neighbour that is being asked, later.
        let owed = self.bits.has(Bits::OWING.and(Bits::AWAITS_NEIGHBOUR).and(Bits::MARKED));
        let in_flight = self.flight() > 0 && self.state() != State::TimeWait;
        ensure(!in_flight || armed || owed, "RFC 6298 §5.1: data in flight means a timer is armed")?;
        let unsent = self.tx_unsent != NIL && self.state().can_send();
        ensure(!unsent || armed || owed, "RFC 9293 §3.8.6.1: data that waits means a timer is armed")?;
        let fin_waits = self.bits.has(Bits::FIN_QUEUED) && !self.fin_acked();
        ensure(!fin_waits || armed || owed, "RFC 9293 §3.8.1: a FIN that is not acknowledged means a timer is armed")?;
        let wait_ms = self.rtx_at_ms.wrapping_sub(env.now_ms) as i32;
        let wait_max_ms = env.config.rto_max.as_millis().max(1_000) as i32 + 1; // a tick more than the largest
        ensure(!armed || wait_ms <= wait_max_ms, "RFC 6298 §2.5: no timeout is longer than the largest")?;
        let unacknowledged = self.state().is_synchronised() && self.last_ack_sent.before(self.rcv_nxt);
        let will = self.bits.has(Bits::ACK_NOW.and(Bits::ACK_DELAYED));
        ensure(!unacknowledged || will || owed, "RFC 9293 §3.8.6.3: what came is acknowledged, now or soon")?;
        let ack_ms = self.ack_at_ms.wrapping_sub(env.now_ms) as i32;
        let soon = !self.bits.has(Bits::ACK_DELAYED) || ack_ms <= 500;
        ensure(soon, "RFC 9293 §3.8.6.3: an acknowledgment is delayed by less than 0.5 s")
    }
}

fn ensure(holds: bool, invariant: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(invariant) }
}
