//! What must hold of every connection between two segments, each named after the clause that says so. For tests and worlds.

use crate::tcp::env::Env;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Tcb};

impl Tcb {
    /// The first invariant that does not hold.
    pub fn check(&self, env: &Env) -> Result<(), &'static str> {
        if self.closed.is_some() {
            return Ok(());
        }
        ensure(self.snd_una.at_or_before(self.snd_nxt), "RFC 9293 §3.4: SND.UNA =< SND.NXT")?;
        ensure(self.snd_nxt.at_or_before(self.snd_end.add(1)), "RFC 9293 §3.4: nothing is sent that was not queued")?;
        ensure(self.rcv_nxt.at_or_before(self.rcv_adv), "RFC 9293 §3.8.6: the window's right edge never moves left")?;
        ensure(self.last_ack_sent.at_or_before(self.rcv_nxt), "RFC 9293 §3.4: only what came is acknowledged")?;
        let armed = self.bits.has(Bits::RTX_ARMED);
        // What is owed goes out, and arms the timer, in this turn's output; for a neighbour that is being asked, later.
        let owed = self.bits.has(Bits::OWING.and(Bits::AWAITS_NEIGHBOUR).and(Bits::MARKED));
        let in_flight = self.flight() > 0 && !matches!(self.state(), State::TimeWait | State::Closed);
        ensure(!in_flight || armed || owed, "RFC 6298 §5.1: data in flight means a timer is armed")?;
        let unsent = self.tx_unsent != super::chain::NIL && self.state().can_send();
        ensure(!unsent || armed || owed, "RFC 9293 §3.8.6.1: data that waits means a timer is armed")?;
        let (mut bytes, mut frames) = (0, 0);
        for (_, frame, _) in env.rx.iter(&self.rx) {
            (bytes, frames) = (bytes + frame.len() as u32, frames + 1);
        }
        ensure((bytes, frames) == (self.rx_bytes, self.rx_frames), "the receive queue is what it says")?;
        let mut next = None;
        let (mut sacked, mut lost, mut frames) = (0, 0, 0);
        for (_, held, slot) in env.tx.iter(&self.tx) {
            ensure(next.is_none_or(|next| next == slot.seq), "the send queue has no gap")?;
            next = Some(slot.seq.add(held.len() as u32));
            frames += 1;
            sacked += if slot.note.sacked { held.len() as u32 } else { 0 };
            lost += if slot.note.lost { held.len() as u32 } else { 0 };
        }
        ensure(next.is_none_or(|next| next == self.snd_end), "the send queue ends where it says")?;
        ensure(frames == self.tx_frames, "the send queue has as many frames as it says")?;
        let (sacked_told, lost_told) = self.cold.as_ref().map_or((0, 0), |cold| (cold.sacked_bytes, cold.lost_bytes));
        ensure((sacked, lost) == (sacked_told, lost_told), "RFC 6675 §4: the scoreboard adds up")?;
        let Some(cold) = &self.cold else { return Ok(()) };
        let mut edge = self.rcv_nxt;
        for (_, frame, slot) in env.rx.iter(&cold.ooo) {
            ensure(
                slot.seq.after(edge) || slot.seq == edge && edge != self.rcv_nxt,
                "what is out of order is in order",
            )?;
            edge = slot.seq.add(frame.len() as u32);
        }
        ensure(edge.at_or_before(self.rcv_adv), "RFC 9293 §3.8.6: nothing beyond the window is kept")
    }
}

fn ensure(holds: bool, invariant: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(invariant) }
}
