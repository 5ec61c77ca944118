//! Watches every segment that a host sends and that reaches it, and knows what RFC 9293 lets it send next. It sees only the
//! link: what it holds against a stack is what a peer could hold against it.

use std::collections::HashMap;
use std::net::SocketAddr;

use handfast::time::{Duration, Instant};

use super::packet::{ACK, FIN, RST, SYN, Segment};

/// One direction of a connection: what its sender has said, and what has reached it.
#[derive(Clone, Debug)]
struct Side {
    iss: u32,
    /// One past the highest sequence number sent.
    snd_max: u32,
    fin_at: Option<u32>,
    /// The highest acknowledgment sent, and the right edge of the window that was told.
    told: Option<(u32, u32)>,
    scale: Option<u8>,
    timestamps: bool,
    sack: bool,
    syn_window: u32,
    aborted: bool,
    /// The peer's SYN reached it: its sequence number and options.
    irs: Option<u32>,
    peer_scale: Option<u8>,
    peer_timestamps: bool,
    peer_sack: bool,
    /// The right edge that reached it, and the highest acknowledgment.
    edge: Option<u32>,
    acked: u32,
    /// One past the peer's FIN, which has reached it.
    peer_fin: Option<u32>,
    /// As it was when it answered the same SYN before, with another number: by a cookie.
    before: Option<Box<Side>>,
    /// When everything up to its FIN had been acknowledged.
    over_at: Option<Instant>,
}

/// What a host has sent, as the link saw it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Segments with RST.
    pub resets: u64,
    /// SYNs of new connections, without those that answer.
    pub syns: u64,
    /// Segments with text, SYN or FIN that was sent before.
    pub again: u64,
    /// Segments in all.
    pub segments: u64,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Observer {
    sides: HashMap<(SocketAddr, SocketAddr), Side>,
    /// By address of the host.
    sent: HashMap<std::net::IpAddr, Sent>,
}

impl Observer {
    /// What was sent from this address since the host came up.
    pub fn sent(&self, from: std::net::IpAddr) -> Sent {
        self.sent.get(&from).copied().unwrap_or_default()
    }

    /// The host with this address knows nothing any more.
    pub fn forget(&mut self, address: std::net::IpAddr) {
        self.sides.retain(|(from, _), _| from.ip() != address);
        self.sent.remove(&address);
    }

    /// A host sends a segment to an address that is nobody's here: it was made up, and so is what it answers.
    pub fn answers(&mut self, seg: &Segment) -> Result<(), &'static str> {
        let sent = self.sent.entry(seg.from.ip()).or_default();
        sent.segments += 1;
        sent.resets += u64::from(seg.has(RST));
        ensure(seg.is_empty() || seg.has(SYN) && seg.has(ACK), "text to a stranger who has sent a SYN")
    }

    /// A host sends a segment: whether it may.
    pub fn sends(&mut self, now: Instant, seg: &Segment) -> Result<(), &'static str> {
        let sent = self.sent.entry(seg.from.ip()).or_default();
        sent.segments += 1;
        let peer = self.sides.get(&(seg.to, seg.from)).cloned();
        let mine = self.sides.get_mut(&(seg.from, seg.to));
        if seg.has(RST) {
            sent.resets += 1;
            if let Some(mine) = mine
                && seg.has(ACK)
                && seg.seq == mine.snd_max
                && mine.told.is_some()
            {
                mine.aborted = true; // RFC 9293 §3.10.5
            }
            return ensure(!seg.has(SYN | FIN) && seg.text_len() == 0, "a reset is nothing but a reset");
        }
        if seg.has(SYN) {
            ensure(!seg.has(FIN) && seg.text_len() == 0, "a SYN with text or FIN")?;
            ensure(seg.mss.is_some(), "RFC 9293 §3.7.1, MUST-14: a SYN tells the MSS")?;
            match mine {
                Some(mine) if mine.iss == seg.seq && !mine.aborted => {
                    ensure(after_eq(mine.iss.wrapping_add(1), mine.acked), "a SYN that was acknowledged goes again")?;
                    sent.again += 1;
                    if seg.has(ACK) {
                        mine.say(seg);
                    }
                }
                _ => {
                    if !seg.has(ACK) {
                        sent.syns += 1;
                    }
                    let mut new = Side::new(seg);
                    if seg.has(ACK) {
                        // It answers a SYN; an old one, if this is not the one that the peer sent last.
                        new.say(seg);
                        new.heard_syn(peer.as_ref().filter(|peer| peer.iss.wrapping_add(1) == seg.ack));
                        new.before = mine.filter(|mine| mine.irs == new.irs).map(|mine| Box::new(mine.clone()));
                    }
                    self.sides.insert((seg.from, seg.to), new);
                }
            }
            return Ok(());
        }
        ensure(seg.has(ACK), "RFC 9293 §3.10.7.4: a segment without ACK on a synchronised connection")?;
        ensure(seg.mss.is_none() && seg.scale.is_none() && !seg.sack_permitted, "an option of SYNs elsewhere")?;
        let Some(mine) = mine else {
            return Err("a segment of a connection that was not opened: CLOSED may send RST alone");
        };
        // RFC 4987 §3.6: until one of its answers is acknowledged it may be bound by several.
        if let Some(before) = mine.before.take_if(|before| before.snd_max == seg.seq && mine.snd_max != seg.seq) {
            *mine = *before;
        }
        ensure(!mine.aborted, "a segment after the reset that ended the connection")?;
        ensure(seg.timestamps.is_some() == (mine.timestamps && mine.peer_timestamps), "RFC 7323 §3.2: timestamps")?;
        ensure(seg.sack.is_empty() || mine.peer_sack && mine.sack, "RFC 2018 §2: SACK without leave")?;
        // What is sent, in the sequence space.
        let (text_end, keepalive) = (seg.seq.wrapping_add(seg.text_len()), mine.snd_max.wrapping_sub(1));
        let is_keepalive = seg.is_empty() && seg.seq == keepalive;
        ensure(after(seg.seq, mine.iss) || is_keepalive, "a sequence number before the connection's first")?;
        ensure(after_eq(mine.snd_max, seg.seq), "RFC 9293 §3.4: a gap in what is sent")?;
        if let Some(fin_at) = mine.fin_at {
            ensure(seg.text_len() == 0 || after_eq(fin_at, text_end), "RFC 9293 §3.6: text after the FIN")?;
            ensure(!seg.has(FIN) || text_end == fin_at, "RFC 9293 §3.6: the FIN has moved")?;
        }
        if seg.has(FIN) {
            mine.fin_at = Some(text_end);
        }
        if seg.text_len() > 0 {
            ensure(mine.irs.is_some(), "RFC 9293 §3.10.7: text before the connection is open")?;
            let edge = mine.edge.ok_or("text before a window was told")?;
            let beyond = text_end.wrapping_sub(edge) as i32;
            // RFC 9293 §3.8.6.1: a probe is one byte beyond a closed window.
            ensure(beyond <= 0 || beyond == 1 && seg.text_len() == 1, "RFC 9293 §3.8.6: text beyond the window")?;
        }
        if !seg.is_empty() {
            // What was on its way through the card before that does not count.
            let long_over = mine.over_at.is_some_and(|at| now > at + THROUGH_THE_CARD);
            ensure(!long_over, "RFC 9293 §3.10.7.4: text or FIN although all of it was acknowledged")?;
            if after_eq(mine.snd_max, seg.end()) {
                sent.again += 1;
            }
        }
        if after(seg.end(), mine.snd_max) {
            mine.snd_max = seg.end();
        }
        // What is acknowledged.
        let peer = peer.filter(|peer| mine.irs == Some(peer.iss));
        if let Some(peer) = &peer {
            ensure(after_eq(peer.snd_max, seg.ack), "RFC 9293 §3.4: an acknowledgment of what was never sent")?;
            let within = |&(start, end): &(u32, u32)| after(end, start) && after_eq(peer.snd_max, end);
            ensure(seg.sack.iter().all(within), "RFC 2018 §3: a block of what was never sent")?;
        }
        let beyond_ack = |&(start, _): &(u32, u32)| after(start, seg.ack);
        ensure(seg.sack.iter().all(beyond_ack), "RFC 2018 §3: a block below the acknowledgment")?;
        let peer_finished = mine.peer_fin.is_some_and(|fin| after_eq(seg.ack, fin));
        let edge = seg.ack.wrapping_add(u32::from(seg.window) << mine.own_shift());
        if let Some((ack, told_edge)) = mine.told {
            ensure(after_eq(seg.ack, ack), "RFC 9293 §3.4: an acknowledgment is taken back")?;
            // RFC 7323 §2.4: the field is rounded down to the scale.
            let rounding = (1_u32 << mine.own_shift()) - 1;
            ensure(
                peer_finished || after_eq(edge.wrapping_add(rounding), told_edge),
                "RFC 9293 §3.8.6: the window's right edge moves left",
            )?;
        }
        mine.say(seg);
        Ok(())
    }

    /// A segment reaches the host that it is for, whole.
    pub fn reaches(&mut self, now: Instant, seg: &Segment) {
        let peer_max = self.sides.get(&(seg.from, seg.to)).map(|peer| peer.snd_max);
        let Some(side) = self.sides.get_mut(&(seg.to, seg.from)) else { return };
        if seg.has(RST) || seg.has(ACK) && !(after(seg.ack, side.iss) && after_eq(side.snd_max, seg.ack)) {
            return;
        }
        if seg.has(SYN) {
            // A synchronised connection keeps the peer that it has (RFC 5961 §4.2).
            if side.irs.is_none() {
                side.irs = Some(seg.seq);
                (side.peer_scale, side.peer_timestamps) = (seg.scale, seg.timestamps.is_some());
                side.peer_sack = seg.sack_permitted;
            }
        } else if !seg.has(ACK) {
            return;
        }
        if seg.has(FIN) && side.told.is_some_and(|(ack, _)| after(seg.end(), ack)) {
            side.peer_fin = Some(seg.end());
        }
        let shift = if seg.has(SYN) { 0 } else { side.peer_shift() };
        let from = if seg.has(ACK) { seg.ack } else { side.iss.wrapping_add(1) };
        let edge = from.wrapping_add(u32::from(seg.window) << shift);
        if side.edge.is_none_or(|known| after(edge, known)) {
            side.edge = Some(edge);
        }
        if seg.has(ACK) && after(seg.ack, side.acked) {
            side.acked = seg.ack;
            // An acknowledgment counts in an acceptable segment alone. One from beyond all text is, if it is in the window.
            let in_window = side.told.is_some_and(|(_, edge)| after(edge, seg.seq));
            let counts = seg.is_empty() && peer_max == Some(seg.seq) && in_window;
            if counts && side.fin_at.is_some_and(|fin_at| after(seg.ack, fin_at)) {
                side.over_at = Some(now);
            }
        }
    }
}

impl Side {
    fn new(syn: &Segment) -> Side {
        Side {
            iss: syn.seq,
            snd_max: syn.seq.wrapping_add(1),
            fin_at: None,
            told: None,
            scale: syn.scale,
            timestamps: syn.timestamps.is_some(),
            sack: syn.sack_permitted,
            syn_window: syn.window.into(),
            aborted: false,
            irs: None,
            peer_scale: None,
            peer_timestamps: false,
            peer_sack: false,
            edge: None,
            acked: syn.seq,
            peer_fin: None,
            before: None,
            over_at: None,
        }
    }

    fn heard_syn(&mut self, peer: Option<&Side>) {
        let Some(peer) = peer else { return };
        self.irs = Some(peer.iss);
        (self.peer_scale, self.peer_timestamps, self.peer_sack) = (peer.scale, peer.timestamps, peer.sack);
        self.edge = Some(self.iss.wrapping_add(1).wrapping_add(peer.syn_window));
    }

    fn say(&mut self, seg: &Segment) {
        let shift = if seg.has(SYN) { 0 } else { self.own_shift() };
        let edge = seg.ack.wrapping_add(u32::from(seg.window) << shift);
        let told = match self.told {
            Some((ack, told)) => {
                (if after(seg.ack, ack) { seg.ack } else { ack }, if after(edge, told) { edge } else { told })
            }
            None => (seg.ack, edge),
        };
        self.told = Some(told);
    }

    fn own_shift(&self) -> u8 {
        if self.peer_scale.is_some() { self.scale.unwrap_or(0) } else { 0 }
    }

    fn peer_shift(&self) -> u8 {
        if self.scale.is_some() { self.peer_scale.unwrap_or(0).min(14) } else { 0 }
    }
}

/// From a segment's making to the link, and from the link to whoever reads it, at most.
const THROUGH_THE_CARD: Duration = Duration::from_millis(50);

fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

fn after_eq(a: u32, b: u32) -> bool {
    !after(b, a)
}

fn ensure(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}
