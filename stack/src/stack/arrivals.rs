//! Stage 3: each segment meets the record of its flow (RFC 9293 §3.10.7).

use handfast_drivers::burst::TxBurst;
use handfast_drivers::frame::Frame;

use super::{Arrived, Stack, enqueue};
use crate::app::Closed;
use crate::demux::flow::FlowKey;
use crate::demux::flows::Owner;
use crate::demux::listeners::Listener;
use crate::demux::syn_rcvd::{Offered, SynRcvd, SynRcvds};
use crate::demux::time_wait::TimeWait;
use crate::metrics::{Counter, DropReason};
use crate::tcp::close::{self, Waiting};
use crate::tcp::cookie;
use crate::tcp::input::{self, Verdict};
use crate::tcp::open::{self, HalfOpen};
use crate::tcp::output::{self, Path};
use crate::tcp::state::State;
use crate::tcp::tcb::Bits;
use crate::tcp::usual;
use crate::trace::TraceKind;
use crate::wire::address::Address;
use crate::wire::packet::{self, Ip};
use crate::wire::tcp::{Header, Segment, Seq};

impl Stack {
    /// Takes the segment's frame if it keeps it.
    #[inline(always)]
    pub(super) fn segment_arrives(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) {
        if self.conn_arrives(arrived.guess.conn(), arrived, tx) {
            return;
        }
        match arrived.guess.owner() {
            Owner::SynRcvd(at) => self.half_open_arrives(at, arrived, tx),
            _ => self.first_arrives(arrived, tx),
        }
    }

    /// The same without short ways, which leave no trace.
    #[cold]
    pub(super) fn any_segment_arrives(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) {
        let key = &arrived.key;
        match self.owner(key, arrived.hash) {
            Some(Owner::Conn(at)) => self.any_arrives(at, arrived, tx),
            Some(Owner::SynRcvd(at)) => self.half_open_answers(at, arrived, tx),
            Some(Owner::TimeWait(at)) => self.time_wait_arrives(at, arrived, tx),
            None => match self.admits_flow(key) {
                Ok(()) => self.listen_arrives(arrived, None, tx),
                Err(reason) => self.env.metrics.dropped(reason),
            },
        }
    }

    pub(super) fn owner(&self, key: &FlowKey, hash: u64) -> Option<Owner> {
        self.flows.find(hash, |owner| self.is_of(owner, key))
    }

    /// Whether this record is there, and of this flow.
    #[inline]
    fn is_of(&self, owner: Owner, key: &FlowKey) -> bool {
        match owner {
            Owner::Conn(at) => self.is_conn(at, key),
            Owner::SynRcvd(at) => self.is_half_open(at, key),
            Owner::TimeWait(at) => self.is_waiting(at, key),
        }
    }

    #[inline]
    fn is_conn(&self, at: u32, key: &FlowKey) -> bool {
        self.conns.at(at).is_some_and(|tcb| tcb.key == *key)
    }

    #[inline]
    fn is_half_open(&self, at: u32, key: &FlowKey) -> bool {
        self.half_open.get(at).is_some_and(|record| record.key == *key)
    }

    #[inline]
    fn is_waiting(&self, at: u32, key: &FlowKey) -> bool {
        self.waiting.get(at).is_some_and(|record| record.key == *key)
    }

    /// A segment for the connection at this place. `false`, and nothing done, if there is none or the segment is not its.
    #[inline(always)]
    fn conn_arrives(&mut self, at: u32, arrived: &mut Arrived, tx: &mut TxBurst) -> bool {
        let Some(tcb) = self.conns.at_mut(at).filter(|tcb| tcb.key == arrived.key) else { return false };
        let (seg, env) = (&arrived.seg, &mut self.env);
        let is_taken =
            if tcb.state() == State::SynSent { usual::opens(tcb, seg, env) } else { usual::ends(tcb, seg, env) };
        if !is_taken {
            match usual::resets(tcb, seg) {
                true => self.reset_arrives(at, seg),
                false => self.any_arrives(at, arrived, tx),
            }
            return true;
        }
        enqueue(tcb, at, &mut self.marked, &mut self.owing);
        true
    }

    /// Any segment for a connection.
    #[inline(never)]
    fn any_arrives(&mut self, at: u32, arrived: &mut Arrived, tx: &mut TxBurst) {
        let payload = arrived.payload_range();
        let Arrived { frame, seg, .. } = arrived;
        let Some(tcb) = self.conns.at_mut(at) else { return };
        if seg.payload_len > 0
            && let Some(frame) = frame
        {
            frame.truncate(payload.end);
            frame.trim_front(payload.start);
        }
        let verdict = input::segment_arrives(tcb, seg, frame, &mut self.env);
        enqueue(tcb, at, &mut self.marked, &mut self.owing);
        if self.trace.wants(tcb.bits.has(Bits::TRACED)) {
            self.note_received(at, seg);
        }
        if let Err(verdict) = verdict {
            self.not_taken(at, verdict, arrived, tx);
        }
    }

    #[cold]
    fn note_received(&mut self, at: u32, seg: &Segment) {
        self.note(at, TraceKind::Received, seg.flags, seg.seq, seg.ack, seg.payload_len);
    }

    #[cold]
    fn not_taken(&mut self, at: u32, verdict: Verdict, arrived: &mut Arrived, tx: &mut TxBurst) {
        match verdict {
            Verdict::Drop(reason) => self.env.metrics.dropped(reason),
            Verdict::Refuse(reason) => {
                self.env.metrics.dropped(reason);
                arrived.untrim();
                self.refuse(arrived, tx);
            }
            Verdict::Reset(reason) => {
                self.env.metrics.dropped(reason);
                self.reset(at, tx);
                self.end(at, Closed::Aborted);
            }
            Verdict::PeerReset => self.peer_resets(at),
        }
    }

    /// A reset that counts at sight.
    #[inline(never)]
    fn reset_arrives(&mut self, at: u32, seg: &Segment) {
        if self.trace.wants(self.conns.at(at).is_some_and(|tcb| tcb.bits.has(Bits::TRACED))) {
            self.note_received(at, seg);
        }
        self.peer_resets(at);
    }

    fn peer_resets(&mut self, at: u32) {
        self.env.metrics.count(Counter::ResetsReceived);
        // RFC 9293 §3.10.7.4: also an active open whose SYN crossed the peer's.
        let state = self.conns.at(at).map(|tcb| tcb.state());
        let refused = matches!(state, Some(State::SynSent | State::SynReceived));
        self.end(at, if refused { Closed::Refused } else { Closed::Reset });
    }

    /// A segment for what seemed to be a half-open passive connection: nearly always it completes it.
    #[inline(never)]
    fn half_open_arrives(&mut self, at: u32, arrived: &mut Arrived, tx: &mut TxBurst) {
        if !self.completes(at, arrived) {
            self.any_segment_arrives(arrived, tx);
        }
    }

    /// Takes the segment that completes nearly every handshake: [`usual::completes`]. `false`, and nothing done, for any other, and where
    /// there is nobody to connect to, or no room.
    #[inline(always)]
    fn completes(&mut self, at: u32, arrived: &Arrived) -> bool {
        let Arrived { seg, key, hash, .. } = arrived;
        let narrow = self.ip.knows_narrow_paths();
        let Stack { half_open, listeners, conns, isn, env, flows, marked, .. } = self;
        let Some(record) = half_open.get(at).filter(|record| record.key == *key) else { return false };
        let Some(stamps) = usual::completes(record, seg).filter(|_| !narrow) else { return false };
        let Some(listener) = listeners.at_mut(record.listener, key) else { return false };
        let Some((conn, tcb)) = conns.take_place() else { return false };
        open::passive(tcb, record, (seg, Some(stamps)), record.mss, isn.timestamp_offset(*hash), env);
        usual::third_segment(tcb, seg, stamps);
        let owner = Owner::Conn(conn.index());
        tcb.place = flows.replace(*hash, Owner::SynRcvd(at), owner);
        // It is new, so it is in no queue yet.
        tcb.bits.set(Bits::MARKED);
        marked.push_back(conn.index());
        env.metrics.count(Counter::Established);
        // A listener that was closed and opened again does not know those before it.
        listener.half_open = listener.half_open.saturating_sub(1);
        half_open.discard(at, 0);
        true
    }

    /// What is not simply the third segment of the handshake.
    #[inline(never)]
    fn half_open_answers(&mut self, at: u32, arrived: &mut Arrived, tx: &mut TxBurst) {
        let Some(&record) = self.half_open.get(at) else { return };
        let (record, hash) = (&record, arrived.hash);
        match open::syn_rcvd_arrives(record, &arrived.seg, &self.env.config) {
            HalfOpen::Complete => match self.complete(at, arrived) {
                Some(conn) => self.any_arrives(conn, arrived, tx),
                None => self.cannot_complete(at, arrived, tx),
            },
            HalfOpen::SynAckAgain => {
                self.env.metrics.dropped(DropReason::Duplicate);
                self.env.metrics.count(Counter::Retransmissions);
                self.syn_ack_in_place(record, arrived, tx);
            }
            HalfOpen::Reset => {
                self.env.metrics.count(Counter::ResetsReceived);
                self.forget_half_open(at, hash);
            }
            HalfOpen::Drop(reason, ack_owed) => {
                self.env.metrics.dropped(reason);
                if ack_owed && self.env.challenges.take(self.env.now) {
                    self.env.metrics.count(Counter::ChallengeAcks);
                    let header = open::challenge(record, &self.env.config, self.ts_value(hash));
                    self.answer(arrived, &header, tx);
                }
            }
            HalfOpen::Refuse(reason) => match self.cookie_in(arrived) {
                // The SYN was answered by a cookie, and came again when there was room for a record.
                Some(cookie) => {
                    self.forget_half_open(at, hash);
                    self.open_by_cookie(&cookie, arrived, tx);
                }
                None => {
                    self.env.metrics.dropped(reason);
                    self.refuse(arrived, tx);
                }
            },
        }
    }

    /// The half-open record becomes a connection, whose place this is; `None`, and nothing done, where it cannot.
    fn complete(&mut self, at: u32, arrived: &Arrived) -> Option<u32> {
        let (seg, hash) = (&arrived.seg, arrived.hash);
        let mss = self.local_mss(&arrived.key);
        let Stack { half_open, listeners, conns, isn, env, flows, .. } = self;
        let record = half_open.get(at)?;
        let listener = listeners.at_mut(record.listener, &record.key)?;
        let (conn, tcb) = conns.take_place()?;
        open::passive(tcb, record, (seg, seg.timestamps), record.mss.min(mss), isn.timestamp_offset(hash), env);
        open::agree_to_less(tcb, record);
        env.metrics.count(Counter::Established);
        // A listener that was closed and opened again does not know those before it.
        listener.half_open = listener.half_open.saturating_sub(1);
        half_open.discard(at, record.retries);
        let owner = Owner::Conn(conn.index());
        tcb.place = flows.replace(hash, Owner::SynRcvd(at), owner);
        Some(conn.index())
    }

    /// The handshake is complete, but there is nobody to connect to, or no room.
    #[cold]
    fn cannot_complete(&mut self, at: u32, arrived: &mut Arrived, tx: &mut TxBurst) {
        let Some(&record) = self.half_open.get(at) else { return };
        if self.listener(&record).is_some() {
            // The half-open record stays: the peer's next segment, or our SYN-ACK again, tries once more.
            return self.env.metrics.dropped(DropReason::ConnectionsFull);
        }
        // Nobody listens any more: what was begun is refused.
        self.env.metrics.dropped(DropReason::NoConnection);
        self.forget_half_open(at, arrived.hash);
        self.refuse(arrived, tx);
    }

    pub(super) fn forget_half_open(&mut self, at: u32, hash: u64) {
        if let Some(record) = self.half_open.remove(at) {
            if let Some(listener) = self.listener(&record) {
                listener.half_open = listener.half_open.saturating_sub(1);
            }
            self.flows.remove(hash, Owner::SynRcvd(at));
        }
    }

    /// A segment for a connection in TIME-WAIT.
    #[inline(never)]
    fn time_wait_arrives(&mut self, at: u32, arrived: &mut Arrived, tx: &mut TxBurst) {
        let Some(&record) = self.waiting.get(at) else { return };
        let seg = &arrived.seg;
        match close::time_wait_arrives(&record, seg) {
            Waiting::Restart => {
                self.env.metrics.count(Counter::TimeWaitRestarts);
                self.waiting.restart(at, self.env.now_ms);
                if let (Some(record), Some(timestamps)) = (self.waiting.get_mut(at), seg.timestamps) {
                    record.ts_recent = timestamps.value;
                }
                let record = self.waiting.get(at).copied().unwrap_or(record);
                self.acknowledge_time_wait(&record, arrived, tx);
            }
            Waiting::Acknowledge(reason) => {
                self.env.metrics.dropped(reason);
                if self.env.challenges.take(self.env.now) {
                    self.acknowledge_time_wait(&record, arrived, tx);
                }
            }
            Waiting::Drop(reason) => self.env.metrics.dropped(reason),
            Waiting::NewConnection => {
                // What cannot be a connection now does not end TIME-WAIT; the SYN comes again.
                let listener = self.listeners.find(record.key.local, record.key.local_port);
                let listener = listener.map(|(_, listener)| listener);
                if let Err(reason) = admits(listener, seg, &self.half_open, self.shutting_down) {
                    return self.env.metrics.dropped(reason);
                }
                self.env.metrics.count(Counter::TimeWaitReused);
                self.waiting.remove(at);
                self.flows.remove(arrived.hash, Owner::TimeWait(at));
                // RFC 9293 §3.10.7.4: a sequence number larger than any that the old incarnation used.
                let iss_min = record.snd_nxt.add(1 << 16);
                self.listen_arrives(arrived, Some(iss_min), tx);
            }
        }
    }

    fn acknowledge_time_wait(&mut self, record: &TimeWait, arrived: &mut Arrived, tx: &mut TxBurst) {
        let header = close::time_wait_ack(record, self.ts_value(arrived.hash));
        self.answer(arrived, &header, tx);
    }

    /// A segment of what seemed to be no flow: nearly always it begins one.
    #[inline(never)]
    fn first_arrives(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) {
        if !self.begins(arrived, tx) {
            self.any_segment_arrives(arrived, tx);
        }
    }

    /// Takes the SYN that begins nearly every connection, [`usual::begins`], where a listener takes it, and answers it in its frame.
    /// `false`, and nothing done, for any other segment.
    #[inline(always)]
    fn begins(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) -> bool {
        let Arrived { frame, seg, key, hash, .. } = arrived;
        let Some(offer) = usual::begins(seg) else { return false };
        // No one listens on port 0.
        let may_be = key.remote_port != 0 && self.ip.admits_between_v4(key.remote, key.local);
        if !may_be || !self.begins_at_sight || tx.room() == 0 || self.ip.knows_narrow_paths() {
            return false;
        }
        let Stack { listeners, half_open, flows, isn, env, link_mss: [_, link_mss], .. } = self;
        let Some((place, listener)) = listeners.find_mut(key.local, key.local_port) else { return false };
        if listener.half_open >= listener.half_open_max {
            return false;
        }
        let mss = (*link_mss).min(offer.mss.max(open::MSS_MIN));
        let Some(vacancy) = flows.vacancy(*hash) else { return false };
        let (iss, offered) = (isn.generate_v4(key, env.now), Offered::all(offer.shift));
        let (irs, ts_recent) = (seg.seq, offer.ts_value);
        let record = SynRcvd { key: *key, iss, irs, ts_recent, mss, listener: place, offered, retries: 0, due: 0 };
        let Some(at) = half_open.insert(env.now_ms, record) else { return false };
        vacancy.fill(Owner::SynRcvd(at));
        listener.half_open += 1;
        env.metrics.count(Counter::PassiveOpens);
        let Some(mut frame) = frame.take() else { return true };
        let start = packet::usual_start(&self.ip.ethernet(packet::src_mac(&frame)));
        let ts_value = env.now_ms.wrapping_add(isn.timestamp_offset(*hash));
        output::usual_syn_ack(&mut frame, &start, key, (iss, *link_mss), &offer, ts_value, env);
        tx.push(frame);
        true
    }

    /// A segment of no known flow: CLOSED or LISTEN (RFC 9293 §3.10.7.1, §3.10.7.2).
    fn listen_arrives(&mut self, arrived: &mut Arrived, iss_min: Option<Seq>, tx: &mut TxBurst) {
        let Arrived { seg, key, .. } = arrived;
        let mss = self.local_mss(key);
        if seg.flags.rst() {
            return self.env.metrics.dropped(DropReason::ListenRefused); // first
        }
        let Some((place, listener)) = self.listeners.find_mut(key.local, key.local_port) else {
            self.env.metrics.dropped(DropReason::NoConnection);
            return self.refuse(arrived, tx);
        };
        if seg.flags.ack() {
            return self.ack_arrives(arrived, tx); // second
        }
        match admits(Some(listener), seg, &self.half_open, self.shutting_down) {
            Err(DropReason::BacklogFull) if self.env.config.syn_cookies => return self.send_cookie(arrived, tx),
            Err(reason) => return self.env.metrics.dropped(reason), // fourth
            Ok(()) => {}
        }
        // Third: SYN. Its text, if any, is not kept: the peer sends it again.
        let iss = self.isn.generate(key, self.env.now);
        let iss = iss_min.map_or(iss, |min| iss.max(min));
        let record = SynRcvd { listener: place, ..open::half_open(arrived.key, &arrived.seg, iss, mss, &self.env) };
        let Some(at) = self.half_open.insert(self.env.now_ms, record) else {
            return self.env.metrics.dropped(DropReason::BacklogFull);
        };
        if self.flows.insert(arrived.hash, Owner::SynRcvd(at)).is_none() {
            self.half_open.remove(at);
            return self.env.metrics.dropped(DropReason::ConnectionsFull);
        }
        listener.half_open += 1;
        self.env.metrics.count(Counter::PassiveOpens);
        self.syn_ack_in_place(&record, arrived, tx);
    }

    /// No more half-open connections may be kept: the SYN-ACK says what would have been (RFC 4987 §3.6).
    #[cold]
    fn send_cookie(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) {
        let epoch = cookie::epoch(self.env.now);
        self.cookies_in = Some(epoch);
        let mss = self.local_mss(&arrived.key);
        // What our path carries is looked at again when it comes back: of the peer's MSS the cookie says it most exactly.
        let half_open = open::half_open(arrived.key, &arrived.seg, Seq(0), u16::MAX, &self.env);
        let record = cookie::bake(&self.isn, &half_open, epoch);
        let stamp = cookie::stamp(self.ts_value(arrived.hash), record.offered);
        let header = open::syn_ack(&record, &self.env.config, mss, stamp);
        if self.answer(arrived, &header, tx) {
            self.env.metrics.count(Counter::SynCookiesSent);
        }
    }

    /// LISTEN has nothing to acknowledge, unless it sent a cookie of late.
    #[cold]
    fn ack_arrives(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) {
        if let Some(record) = self.cookie_in(arrived) {
            return self.open_by_cookie(&record, arrived, tx);
        }
        self.env.metrics.dropped(DropReason::ListenRefused);
        // The first segment after a cookie may have been lost, and this be the second: both come again.
        if arrived.seg.payload_len == 0 || !self.expects_cookies() {
            self.refuse(arrived, tx);
        }
    }

    fn expects_cookies(&self) -> bool {
        let epoch = cookie::epoch(self.env.now);
        self.cookies_in.is_some_and(|sent_in| epoch.wrapping_sub(sent_in) <= 1)
    }

    fn cookie_in(&self, arrived: &Arrived) -> Option<SynRcvd> {
        let epoch = cookie::epoch(self.env.now);
        self.expects_cookies().then(|| cookie::open(&self.isn, &arrived.key, &arrived.seg, epoch)).flatten()
    }

    #[cold]
    fn open_by_cookie(&mut self, record: &SynRcvd, arrived: &mut Arrived, tx: &mut TxBurst) {
        let listener = self.listeners.find(record.key.local, record.key.local_port);
        if listener.is_none() || self.shutting_down {
            return self.env.metrics.dropped(DropReason::ListenRefused);
        }
        let (mss, ts_offset) = (self.local_mss(&record.key), self.isn.timestamp_offset(arrived.hash));
        let Some((conn, tcb)) = self.conns.take_place() else {
            return self.env.metrics.dropped(DropReason::ConnectionsFull);
        };
        let seg = &arrived.seg;
        open::passive(tcb, record, (seg, seg.timestamps), record.mss.min(mss), ts_offset, &self.env);
        open::agree_to_less(tcb, record);
        let conn = conn.index();
        let Some(place) = self.flows.insert(arrived.hash, Owner::Conn(conn)) else {
            self.conns.discard(conn);
            return self.env.metrics.dropped(DropReason::ConnectionsFull);
        };
        tcb.place = place;
        for counter in [Counter::PassiveOpens, Counter::Established, Counter::SynCookiesOpened] {
            self.env.metrics.count(counter);
        }
        self.any_arrives(conn, arrived, tx);
    }

    /// The listener of a half-open connection, if it is still there.
    #[inline]
    fn listener(&mut self, record: &SynRcvd) -> Option<&mut Listener> {
        self.listeners.at_mut(record.listener, &record.key)
    }

    /// TSval of the flow with this hash.
    #[inline]
    pub(super) fn ts_value(&self, hash: u64) -> u32 {
        self.env.now_ms.wrapping_add(self.isn.timestamp_offset(hash))
    }

    /// The SYN-ACK, in the frame of the SYN.
    fn syn_ack_in_place(&mut self, record: &SynRcvd, arrived: &mut Arrived, tx: &mut TxBurst) {
        let mss = self.local_mss(&record.key);
        let header = open::syn_ack(record, &self.env.config, mss, self.ts_value(arrived.hash));
        self.answer(arrived, &header, tx);
    }

    /// Answers a segment for which there is no connection by a reset.
    fn refuse(&mut self, arrived: &mut Arrived, tx: &mut TxBurst) {
        let Some(header) = close::refusal(&arrived.seg) else { return };
        if self.answer(arrived, &header, tx) {
            self.env.metrics.count(Counter::ResetsSent);
        }
    }

    /// Sends a segment without payload back to where `arrived` came from, in its frame. Whether it could.
    #[cold]
    fn answer(&mut self, arrived: &mut Arrived, header: &Header, tx: &mut TxBurst) -> bool {
        if tx.room() == 0 {
            self.env.metrics.dropped(DropReason::TransmitFull);
            return false;
        }
        // TCP keeps the frames of segments that it takes, and does not answer those here.
        let Some(mut frame) = arrived.frame.take() else { return false };
        let path = self.path_back(&frame, &arrived.key.remote);
        output::bare(&mut frame, &Ip::new(arrived.key.local, arrived.key.remote), header, &path);
        tx.push(frame);
        true
    }

    /// To whoever put this frame on the link.
    #[inline]
    fn path_back(&self, frame: &Frame, peer: &Address) -> Path {
        Path::new(self.ip.ethernet(packet::src_mac(frame)), peer, self.tx_checksum)
    }
}

/// Whether a listener takes this segment as the beginning of a connection.
#[inline]
fn admits(
    listener: Option<&Listener>,
    seg: &Segment,
    half_open: &SynRcvds,
    shutting_down: bool,
) -> Result<(), DropReason> {
    if !seg.flags.syn() || seg.flags.fin() {
        return Err(DropReason::ListenRefused);
    }
    let table_full = half_open.len() >= half_open.capacity();
    match listener {
        None => Err(DropReason::NoConnection),
        Some(_) if shutting_down => Err(DropReason::ListenRefused),
        Some(listener) if table_full || listener.half_open >= listener.half_open_max => Err(DropReason::BacklogFull),
        Some(_) => Ok(()),
    }
}
