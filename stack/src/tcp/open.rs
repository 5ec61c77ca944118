//! Opening (RFC 9293 §3.5): active, passive and both at once.
//!
//! Three segments and not two: the side that answers a SYN learns from the third that the SYN was of this connection. An old
//! duplicate SYN gets a SYN-ACK whose acknowledgment the other side refuses with a reset, and nothing is left open.

use handfast_drivers::frame::Frame;

use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::demux::syn_rcvd::{Offered, SynRcvd};
use crate::metrics::{Counter, DropReason};
use crate::tcp::congestion::Congestion;
use crate::tcp::env::Env;
use crate::tcp::input::{self, Verdict};
use crate::tcp::rtt::Rtt;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::tcp::{ack, timers};
use crate::wire::tcp::{Flags, Header, Options, Segment, Seq, Timestamps};

/// Makes a record the connection that an active open begins, which owes its SYN. `mss` is what our path carries.
#[inline(always)]
pub fn active(tcb: &mut Tcb, key: FlowKey, iss: Seq, mss: u16, ts_offset: u32, env: &Env) {
    tcb.key = key;
    tcb.events = Events::default();
    let owed = Bits::ACTIVE.and(Bits::SYN_OWED).and(Bits::IDLE_ARMED);
    tcb.bits = env.fixed.own_bits.and(owed).and(Bits::APP_KNOWS);
    (tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent) = (Seq(0), Seq(0), Seq(0));
    (tcb.ts_recent, tcb.ts_recent_at_ms) = (0, 0);
    (tcb.snd_una, tcb.snd_nxt, tcb.snd_end) = (iss, iss, iss.add(1));
    (tcb.snd_wnd, tcb.snd_wl1, tcb.snd_wl2) = (0, Seq(0), Seq(0));
    tcb.mss = mss;
    tcb.congestion = Congestion::new();
    tcb.renew(State::SynSent);
    tcb.idle_at_ms = env.now_ms.wrapping_add(env.fixed.connect_give_up_ms);
    tcb.answered_at_ms = env.now_ms.wrapping_sub(input::ANSWERS_APART_MS);
    tcb.heard_at_ms = 0;
    tcb.rtt = Rtt::default();
    tcb.ts_offset = ts_offset;
    (tcb.snd_wnd_max, tcb.iss, tcb.irs) = (0, iss, Seq(0));
    (tcb.snd_shift, tcb.rcv_shift) = (0, env.fixed.own_shift);
}

/// SEGMENT ARRIVES in SYN-SENT (RFC 9293 §3.10.7.3).
pub fn syn_sent_arrives(tcb: &mut Tcb, seg: &Segment, frame: &mut Option<Frame>, env: &mut Env) -> Result<(), Verdict> {
    if seg.flags.ack() && (seg.ack != tcb.iss.add(1) || seg.ack.after(tcb.snd_nxt)) {
        // First: the acknowledgment of a SYN that is not ours.
        return Err(match seg.flags.rst() {
            true => Verdict::Drop(DropReason::ResetIgnored),
            false => Verdict::Refuse(DropReason::AckUnacceptable),
        });
    }
    if seg.flags.rst() {
        // Second: a reset counts only if it acknowledges our SYN.
        return Err(match seg.flags.ack() {
            true => Verdict::PeerReset,
            false => Verdict::Drop(DropReason::ResetIgnored),
        });
    }
    if !seg.flags.syn() {
        return Err(Verdict::Drop(DropReason::NoAck)); // fifth
    }
    // Fourth: SYN.
    tcb.irs = seg.seq;
    tcb.rcv_nxt = seg.seq.add(1);
    tcb.rcv_adv = tcb.rcv_nxt.add(env.fixed.syn_window);
    tcb.last_ack_sent = tcb.rcv_nxt;
    agree(tcb, seg, env);
    tcb.heard_at_ms = env.now_ms;
    if !seg.flags.ack() {
        // The SYNs crossed. Ours is not acknowledged yet; both are repeated as SYN-ACK (figure 7).
        ack::first_window(tcb, seg);
        tcb.enter(State::SynReceived);
        tcb.bits.set(Bits::SYN_OWED);
        return Ok(());
    }
    measure_syn(tcb, seg, env);
    our_syn_is_acked(tcb, seg, env);
    match seg.payload_len > 0 || seg.flags.fin() {
        true => text_with_syn(tcb, seg, frame, env),
        false => Ok(()),
    }
}

/// The round trip of our SYN, if it was sent just once (RFC 6298 §3): by the timestamp that came back, else by the timer.
#[inline]
fn measure_syn(tcb: &mut Tcb, seg: &Segment, env: &Env) {
    let rtt_ms = match seg.timestamps {
        _ if tcb.rtt.backoff > 0 => None,
        Some(timestamps) if tcb.bits.has(Bits::TIMESTAMPS) => since_echo_ms(tcb, timestamps.echo, env),
        _ => timers::since_armed_ms(tcb, env),
    };
    if let Some(rtt_ms) = rtt_ms {
        tcb.rtt.measured((rtt_ms + 1).saturating_mul(1_000)); // rounded up to the tick
    }
}

/// How long ago the timestamp was sent that came back, in milliseconds; `None` if it is none of ours.
#[inline]
pub(super) fn since_echo_ms(tcb: &Tcb, echo: u32, env: &Env) -> Option<u32> {
    let since_ms = tcb.ts_value(env.now_ms).wrapping_sub(echo);
    (since_ms <= ECHO_MS_MAX).then_some(since_ms)
}

/// Text and FIN that came with a SYN stand after it.
#[cold]
fn text_with_syn(tcb: &mut Tcb, seg: &Segment, frame: &mut Option<Frame>, env: &mut Env) -> Result<(), Verdict> {
    input::text_and_fin(tcb, &Segment { seq: tcb.rcv_nxt, ..*seg }, frame, env)
}

/// In SYN-RECEIVED after a simultaneous open: the peer's SYN again, now with the acknowledgment of ours.
pub fn completes_simultaneous_open(tcb: &Tcb, seg: &Segment) -> bool {
    seg.flags.contains(Flags::SYN | Flags::ACK) && !seg.flags.rst() && seg.seq == tcb.irs && seg.ack == tcb.iss.add(1)
}

/// Completes a simultaneous open (RFC 9293 §3.5, figure 7).
#[cold]
pub fn both_syns_crossed(tcb: &mut Tcb, seg: &Segment, env: &mut Env) -> Result<(), Verdict> {
    if seg.ack.after(tcb.snd_nxt) {
        return Err(Verdict::Drop(DropReason::AckUnacceptable)); // ours was never sent
    }
    our_syn_is_acked(tcb, seg, env);
    Ok(())
}

#[inline]
fn our_syn_is_acked(tcb: &mut Tcb, seg: &Segment, env: &mut Env) {
    established(tcb, env);
    tcb.bits.set(Bits::ACK_NOW);
    ack::syn_acked(tcb, seg, env);
    // RFC 7323 §2.2: the window of a SYN is not scaled.
    ack::first_window(tcb, seg);
}

/// ESTABLISHED is reached: by SYN-ACK, or by the ACK of our SYN-ACK.
#[inline]
pub fn established(tcb: &mut Tcb, env: &mut Env) {
    tcb.enter(State::Established);
    on_established(tcb, env);
    if tcb.bits.has(Bits::FIN_QUEUED) {
        tcb.enter(State::FinWait1);
    }
}

#[inline]
fn on_established(tcb: &mut Tcb, env: &mut Env) {
    tcb.bits.clear(Bits::IDLE_ARMED.and(Bits::SYN_OWED));
    tcb.events.add(if tcb.bits.has(Bits::ACTIVE) { Events::CONNECTED } else { Events::ACCEPTED });
    open_congestion(tcb);
    tcb.heard_at_ms = env.now_ms;
    timers::arm_keepalive(tcb, env);
    env.metrics.count(Counter::Established);
}

/// What both ends agree to, of what the peer offered and we do as well.
fn agreed(offered: Offered) -> Bits {
    let if_agreed = |agreed: bool, bits: Bits| if agreed { bits } else { Bits::default() };
    let scaling = if_agreed(offered.window_scale().is_some(), Bits::SCALING);
    if_agreed(offered.timestamps(), Bits::TIMESTAMPS).and(if_agreed(offered.sack(), Bits::SACK)).and(scaling)
}

/// The first congestion window.
#[inline]
fn open_congestion(tcb: &mut Tcb) {
    tcb.congestion.start(tcb.segment_max());
    tcb.congestion.recover = tcb.iss;
    // RFC 5681 §3.1: when a SYN was lost, the first window is one segment.
    if tcb.rtt.backoff > 0 {
        tcb.congestion.cwnd = tcb.segment_max();
        tcb.rtt.handshake_was_slow();
    }
}

/// Makes a record the connection that a half-open one becomes, as if all were agreed and the SYN-ACK was sent once: if not,
/// [`agree_to_less`]. `seg` is the ACK that completed it, whose text, FIN and timestamp are still to be taken; `stamps` those that came
/// with it. `mss` is what both ends and our path carry.
#[inline(always)]
pub fn passive(
    tcb: &mut Tcb,
    record: &SynRcvd,
    (seg, stamps): (&Segment, Option<Timestamps>),
    mss: u16,
    ts_offset: u32,
    env: &Env,
) {
    tcb.key = record.key;
    tcb.events = Events::ACCEPTED;
    tcb.bits = env.fixed.own_bits.and(ALL_AGREED);
    tcb.irs = record.irs;
    tcb.rcv_nxt = tcb.irs.add(1);
    tcb.last_ack_sent = tcb.rcv_nxt;
    tcb.rcv_adv = tcb.rcv_nxt.add(env.fixed.syn_window);
    tcb.iss = record.iss;
    tcb.snd_end = tcb.iss.add(1);
    (tcb.snd_una, tcb.snd_nxt) = (tcb.snd_end, tcb.snd_end);
    (tcb.snd_shift, tcb.rcv_shift) = (record.offered.shift(), env.fixed.own_shift);
    tcb.snd_wnd = u32::from(seg.window) << tcb.snd_shift;
    tcb.snd_wnd_max = tcb.snd_wnd;
    (tcb.snd_wl1, tcb.snd_wl2) = (seg.seq, seg.ack);
    tcb.mss = mss;
    tcb.congestion = Congestion::new();
    tcb.congestion.recover = tcb.iss;
    tcb.congestion.start(u32::from(tcb.mss) - TIMESTAMPS_LEN);
    tcb.renew(State::Established);
    (tcb.ts_recent, tcb.ts_recent_at_ms) = (record.ts_recent, env.now_ms);
    tcb.heard_at_ms = env.now_ms;
    tcb.answered_at_ms = env.now_ms.wrapping_sub(input::ANSWERS_APART_MS);
    tcb.ts_offset = ts_offset;
    tcb.rtt = match stamps.and_then(|stamps| since_echo_ms(tcb, stamps.echo, env)) {
        Some(rtt_ms) => Rtt::first(rtt_ms * 1_000),
        None => Rtt::default(),
    };
    tcb.idle_at_ms = 0;
    timers::arm_keepalive(tcb, env);
}

/// What is otherwise where the SYN did not offer all options, or the SYN-ACK was sent several times.
#[cold]
pub fn agree_to_less(tcb: &mut Tcb, record: &SynRcvd) {
    tcb.bits.clear(ALL_AGREED);
    tcb.bits.set(agreed(record.offered));
    if record.offered.window_scale().is_none() {
        tcb.snd_wnd >>= tcb.snd_shift;
        (tcb.snd_wnd_max, tcb.snd_shift, tcb.rcv_shift) = (tcb.snd_wnd, 0, 0);
    }
    if !record.offered.timestamps() || record.retries > 0 {
        // Whether the echo is of the SYN-ACK, and of which, is not known.
        tcb.rtt = Rtt { backoff: record.retries, ..Rtt::default() };
    }
    open_congestion(tcb);
}

/// What both ends want of the options (RFC 7323 §1.3, §2.2, §3.2; RFC 2018 §2).
fn agree(tcb: &mut Tcb, seg: &Segment, env: &Env) {
    let config = &env.config;
    // RFC 9293 §3.7.1, MUST-15: without the option 536 (IPv4) or 1220 (IPv6).
    tcb.mss = tcb.mss.min(peer_mss(seg, tcb.key.remote.is_v4()));
    if let Some(timestamps) = seg.timestamps
        && config.timestamps
    {
        tcb.bits.set(Bits::TIMESTAMPS);
        tcb.ts_recent = timestamps.value;
        tcb.ts_recent_at_ms = env.now_ms;
    }
    if seg.sack_permitted && config.sack {
        tcb.bits.set(Bits::SACK);
    }
    match seg.window_scale {
        Some(shift) if config.window_scaling => {
            tcb.bits.set(Bits::SCALING);
            tcb.snd_shift = shift;
        }
        _ => tcb.rcv_shift = 0,
    }
}

/// The peer's MSS, as it says or by default; never so small that options leave no room for data.
#[inline]
pub fn peer_mss(seg: &Segment, is_v4: bool) -> u16 {
    seg.mss.unwrap_or_else(|| default_mss(is_v4)).max(MSS_MIN)
}

#[cold]
fn default_mss(is_v4: bool) -> u16 {
    if is_v4 { 536 } else { 1220 }
}

/// What is to be kept of a SYN; its listener is still to be named. `mss` is what our path carries.
pub fn half_open(key: FlowKey, seg: &Segment, iss: Seq, mss: u16, env: &Env) -> SynRcvd {
    SynRcvd {
        key,
        iss,
        irs: seg.seq,
        ts_recent: seg.timestamps.map_or(0, |timestamps| timestamps.value),
        mss: peer_mss(seg, key.remote.is_v4()).min(mss),
        listener: 0,
        offered: offered(seg, &env.config),
        retries: 0,
        due: 0,
    }
}

/// The options of a SYN that we agree to.
fn offered(seg: &Segment, config: &TcpConfig) -> Offered {
    Offered::new(
        seg.window_scale.filter(|_| config.window_scaling),
        config.timestamps && seg.timestamps.is_some(),
        config.sack && seg.sack_permitted,
    )
}

/// The options of a SYN.
pub fn syn_options(config: &TcpConfig, mss: u16, ts_value: u32) -> Options {
    Options {
        mss: Some(mss),
        window_scale: config.window_scaling.then(|| own_shift(config)),
        sack_permitted: config.sack,
        timestamps: config.timestamps.then_some(Timestamps { value: ts_value, echo: 0 }),
    }
}

/// The SYN-ACK of a half-open record, first or again.
pub fn syn_ack(record: &SynRcvd, config: &TcpConfig, mss: u16, ts_value: u32) -> Header {
    Header {
        src_port: record.key.local_port,
        dst_port: record.key.remote_port,
        seq: record.iss,
        ack: record.irs.add(1),
        flags: Flags::SYN | Flags::ACK,
        window: syn_window(config) as u16,
        options: Options {
            mss: Some(mss),
            window_scale: record.offered.window_scale().map(|_| own_shift(config)),
            sack_permitted: record.offered.sack(),
            timestamps: half_open_timestamps(record, ts_value),
        },
    }
}

/// The ACK that answers an unacceptable segment of a half-open connection.
pub fn challenge(record: &SynRcvd, config: &TcpConfig, ts_value: u32) -> Header {
    let options = Options { timestamps: half_open_timestamps(record, ts_value), ..Options::default() };
    let shift = record.offered.window_scale().map_or(0, |_| own_shift(config));
    let window = (syn_window(config) >> shift) as u16;
    Header { seq: record.iss.add(1), flags: Flags::ACK, window, options, ..syn_ack(record, config, 0, ts_value) }
}

fn half_open_timestamps(record: &SynRcvd, ts_value: u32) -> Option<Timestamps> {
    record.offered.timestamps().then_some(Timestamps { value: ts_value, echo: record.ts_recent })
}

/// The window of a SYN, which is never scaled (RFC 7323 §2.2).
pub fn syn_window(config: &TcpConfig) -> u32 {
    config.recv_buffer_bytes.min(u16::MAX.into())
}

/// The smallest shift with which the whole receive buffer can be told.
pub fn own_shift(config: &TcpConfig) -> u8 {
    let bits = u32::BITS - (config.recv_buffer_bytes >> 16).leading_zeros();
    if config.window_scaling { bits.min(14) as u8 } else { 0 }
}

/// What becomes of a segment for a half-open record (RFC 9293 §3.10.7.4 in SYN-RECEIVED, with RFC 5961).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HalfOpen {
    /// The handshake is complete.
    Complete,
    /// The SYN came again: so goes the SYN-ACK.
    SynAckAgain,
    /// The peer took it back.
    Reset,
    /// Discarded; `true` if an ACK is owed (<SEQ=SND.NXT><ACK=RCV.NXT>).
    Drop(DropReason, bool),
    /// Discarded and answered by a reset.
    Refuse(DropReason),
}

/// SEGMENT ARRIVES in a passive SYN-RECEIVED.
pub fn syn_rcvd_arrives(record: &SynRcvd, seg: &Segment, config: &TcpConfig) -> HalfOpen {
    let rcv_nxt = record.irs.add(1);
    let wnd = syn_window(config);
    if seg.flags.syn() && !seg.flags.rst() {
        // RFC 5961 §4.2. A SYN of another connection gets an ACK that its sender answers by a reset.
        return match seg.seq == record.irs && !seg.flags.ack() {
            true => HalfOpen::SynAckAgain,
            false => HalfOpen::Drop(DropReason::SynChallenged, true),
        };
    }
    if record.offered.timestamps() && !seg.flags.rst() {
        match seg.timestamps {
            // RFC 7323 §3.2.
            None => return HalfOpen::Drop(DropReason::TimestampMissing, false),
            Some(theirs) if (theirs.value.wrapping_sub(record.ts_recent) as i32) < 0 => {
                return HalfOpen::Drop(DropReason::PawsFailed, true);
            }
            Some(_) => {}
        }
    }
    let len = seg.len();
    let begins_inside = seg.seq.within(rcv_nxt, wnd);
    let acceptable = begins_inside || (len > 0 && seg.seq.add(len - 1).within(rcv_nxt, wnd));
    if seg.flags.rst() {
        return match (begins_inside, seg.seq == rcv_nxt) {
            (_, true) => HalfOpen::Reset,
            (true, false) => HalfOpen::Drop(DropReason::ResetChallenged, true),
            (false, false) => HalfOpen::Drop(DropReason::OutOfWindow, false),
        };
    }
    if !acceptable {
        return HalfOpen::Drop(DropReason::OutOfWindow, true);
    }
    if !seg.flags.ack() {
        return HalfOpen::Drop(DropReason::NoAck, false);
    }
    match seg.ack == record.iss.add(1) {
        true => HalfOpen::Complete,
        false => HalfOpen::Refuse(DropReason::AckUnacceptable),
    }
}

/// Both ends offer all options.
pub(super) const ALL_AGREED: Bits = Bits::TIMESTAMPS.and(Bits::SACK).and(Bits::SCALING);
/// What they take of a segment, in bytes (RFC 7323, appendix A).
pub(super) const TIMESTAMPS_LEN: u32 = 12;
const ECHO_MS_MAX: u32 = 60_000;
/// Never believe a peer that wants segments smaller than this: each costs a frame and a header.
pub const MSS_MIN: u16 = 64;

#[cfg(test)]
mod tests;
