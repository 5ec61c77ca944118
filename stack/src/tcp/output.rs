//! What a connection sends: the one place (RFC 9293 §3.7, §3.8). It runs once per connection and burst, after the application,
//! so that acknowledgment, window, data and FIN share a segment wherever they can.

mod data;

use handfast_drivers::burst::TxBurst;
use handfast_drivers::frame::{Frame, FramePool};

use crate::demux::flow::FlowKey;
use crate::metrics::Counter;
use crate::tcp::chain::NIL;
use crate::tcp::close::Closed;
use crate::tcp::env::Env;
use crate::tcp::open;
use crate::tcp::recv;
use crate::tcp::sack;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::tcp::timers;
use crate::tcp::usual::Offer;
use crate::wire::address::Address;
use crate::wire::ethernet::Ethernet;
use crate::wire::packet::{self, Ip, UsualStart};
use crate::wire::tcp::{self, Flags, Header, Options, SackBlock, Seq, Timestamps};

/// How frames reach a peer: what all segments have in common that go this way.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    link: Ethernet,
    /// How packets begin with it, if the peer is IPv4's, it has no tag, and checksums are ours to fill in.
    usual: Option<UsualStart>,
    tx_checksum: bool,
}

impl Path {
    /// By this Ethernet header, whose EtherType does not matter, to an address of `peer`'s family. With `tx_checksum` the device
    /// fills in TCP checksums.
    #[inline]
    pub fn new(link: Ethernet, peer: &Address, tx_checksum: bool) -> Path {
        let is_usual = link.vlan.is_none() && !tx_checksum && peer.is_v4();
        Path { link, usual: is_usual.then_some(packet::usual_start(&link)), tx_checksum }
    }
}

/// How far output came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing more to send now.
    Done,
    /// The burst is full: more is owed.
    Full,
    /// No frame is left: more is owed, when one comes back.
    NoFrame,
}

/// What is owed, data apart.
pub const OWED: Bits = Bits::SYN_OWED
    .and(Bits::ACK_NOW)
    .and(Bits::FIN_QUEUED)
    .and(Bits::FIN_AGAIN)
    .and(Bits::PROBE_OWED)
    .and(Bits::KEEPALIVE_OWED)
    .and(Bits::WINDOW_CHECK);

/// Whether [`run`] might send: something is owed, or waits for a window. If not, nothing waits for the congestion window.
#[inline]
pub fn is_owing(tcb: &mut Tcb) -> bool {
    let owing = tcb.bits.has(OWED) || tcb.tx_unsent != NIL || tcb.lost_bytes() > 0;
    if !owing {
        tcb.bits.clear(Bits::CWND_LIMITED);
    }
    owing && tcb.state() != State::Closed
}

/// How far output at sight came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtSight {
    /// Nothing more to send now.
    Done,
    /// The same, and the retransmission timer is armed.
    Armed,
    /// All is still owed, for want of this.
    Waits(Progress),
    /// It is not what is owed as a rule: nothing was done.
    Not,
}

/// Sends what is owed on the usual path, if it is what is owed as a rule: a first SYN with all options; or the first FIN or an
/// acknowledgment, with timestamps, of a connection that has no payload to send and has seen no loss; or the reset of one that the
/// application has given up, and of which nothing is kept. Anything else is for [`run`]. When nothing more is owed, `owing` is
/// cleared, too.
#[inline(always)]
pub fn run_at_sight(tcb: &mut Tcb, env: &mut Env, start: &UsualStart, tx: &mut TxBurst, owing: Bits) -> AtSight {
    const RARE: Bits = Bits::SYN_OWED
        .and(Bits::FIN_AGAIN)
        .and(Bits::PROBE_OWED)
        .and(Bits::KEEPALIVE_OWED)
        .and(Bits::WINDOW_CHECK)
        .and(Bits::RESET_OWED)
        .and(Bits::AWAITS_NEIGHBOUR)
        .and(Bits::TRACED);
    if tcb.bits.only(RARE.and(Bits::TIMESTAMPS)) != Bits::TIMESTAMPS {
        return match tcb.bits.only(RARE) {
            Bits::SYN_OWED => first_syn(tcb, env, start, tx, owing),
            Bits::RESET_OWED => reset_at_sight(tcb, env, start, tx, owing),
            _ => AtSight::Not,
        };
    }
    let is_usual = tcb.tx_unsent == NIL
        && tcb.cold.is_none()
        && tcb.state().is_synchronised()
        && recv::may_tell_whole_window(tcb, env);
    if !is_usual {
        return AtSight::Not;
    }
    if tcb.bits.has(Bits::FIN_QUEUED) && !tcb.fin_sent() {
        first_fin(tcb, env, start, tx, owing)
    } else if tcb.bits.has(Bits::ACK_NOW) {
        bare_ack(tcb, env, start, tx, owing)
    } else {
        tcb.bits.clear(owing.and(Bits::CWND_LIMITED));
        AtSight::Done
    }
}

#[inline(always)]
fn first_syn(tcb: &mut Tcb, env: &Env, start: &UsualStart, tx: &mut TxBurst, owing: Bits) -> AtSight {
    if tcb.state() != State::SynSent || tcb.snd_nxt != tcb.iss || !env.fixed.all_options {
        return AtSight::Not;
    }
    let out = match room_for::<SYN_LEN>(env, tx) {
        Ok(out) => out,
        Err(waits) => return AtSight::Waits(waits),
    };
    let (out, pseudo_header) = packet::emit_usual_lower(out, start, &tcb.key_ip(), 0);
    let timestamps = Timestamps { value: tcb.ts_value(env.now_ms), echo: 0 };
    let header = syn_header(tcb, env, Options::of_syn(tcb.mss, env.fixed.own_shift, timestamps));
    header.emit(&[], out, pseudo_header, &[], true);
    tcb.snd_nxt = tcb.iss.add(1);
    tcb.bits.clear(owing.and(Bits::SYN_OWED).and(Bits::ACK_NOW));
    timers::start_first_rtx(tcb, env);
    AtSight::Armed
}

#[inline(always)]
fn first_fin(tcb: &mut Tcb, env: &Env, start: &UsualStart, tx: &mut TxBurst, owing: Bits) -> AtSight {
    let out = match room_for::<STAMPED_LEN>(env, tx) {
        Ok(out) => out,
        Err(waits) => return AtSight::Waits(waits),
    };
    emit_stamped(out, tcb, env, tcb.snd_end, Flags::FIN | Flags::ACK, start, recv::advertise_whole);
    tcb.bits.clear(owing.and(Bits::CWND_LIMITED));
    told(tcb);
    fin_sent(tcb, env);
    AtSight::Armed
}

#[inline(always)]
fn bare_ack(tcb: &mut Tcb, env: &Env, start: &UsualStart, tx: &mut TxBurst, owing: Bits) -> AtSight {
    let out = match room_for::<STAMPED_LEN>(env, tx) {
        Ok(out) => out,
        Err(waits) => return AtSight::Waits(waits),
    };
    emit_stamped(out, tcb, env, tcb.snd_nxt, Flags::ACK, start, recv::advertise_whole);
    tcb.bits.clear(owing.and(Bits::CWND_LIMITED));
    told(tcb);
    AtSight::Done
}

/// The connection ends by its reset. Without a frame it does that, too, elsewhere.
#[inline(always)]
fn reset_at_sight(tcb: &mut Tcb, env: &mut Env, start: &UsualStart, tx: &mut TxBurst, owing: Bits) -> AtSight {
    let is_usual = tcb.bits.only(Bits::TIMESTAMPS.and(Bits::REPORTED)) == Bits::TIMESTAMPS.and(Bits::REPORTED)
        && tcb.cold.is_none()
        && knows_us(tcb)
        && recv::may_tell_whole_window(tcb, env);
    if !is_usual {
        return AtSight::Not;
    }
    let out = match room_for::<STAMPED_LEN>(env, tx) {
        Ok(out) => out,
        Err(Progress::Full) => return AtSight::Waits(Progress::Full),
        Err(_) => return AtSight::Not,
    };
    emit_stamped(out, tcb, env, tcb.snd_nxt, Flags::RST | Flags::ACK, start, recv::advertise_whole);
    env.metrics.count(Counter::ResetsSent);
    tcb.bits.clear(owing.and(Bits::CWND_LIMITED).and(Bits::RESET_OWED));
    tcb.enter(State::Closed);
    (tcb.closed, tcb.events) = (Some(Closed::Aborted), Events::default());
    AtSight::Done
}

/// Room for so many bytes of headers, and no payload, in a frame that is sent.
#[inline(always)]
fn room_for<'a, const LEN: usize>(env: &'a Env, tx: &'a mut TxBurst) -> Result<&'a mut [u8], Progress> {
    if tx.room() == 0 {
        return Err(Progress::Full);
    }
    tx.push_new(&env.pool, LEN).ok_or(Progress::NoFrame)
}

/// Writes these headers. Where it is known which options there are, it is known where everything goes. Half is written after half: all
/// at once is more than there are registers.
#[inline(always)]
fn emit_stamped(
    out: &mut [u8],
    tcb: &mut Tcb,
    env: &Env,
    seq: Seq,
    flags: Flags,
    start: &UsualStart,
    advertise: impl Fn(&mut Tcb, &Env) -> u16,
) {
    let (out, pseudo_header) = packet::emit_usual_lower(out, start, &tcb.key_ip(), 0);
    let window = advertise(tcb, env);
    let header = header(tcb, seq, flags, window, Options::of_timestamps(timestamps(tcb, env)));
    header.emit(&[], out, pseudo_header, &[], true);
}

/// Sends everything that is owed and allowed.
pub fn run(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    match tcb.state() {
        State::SynSent | State::SynReceived => syn(tcb, env, path, tx),
        State::Closed => Progress::Done,
        State::TimeWait | State::FinWait2 => acknowledgment(tcb, env, path, tx),
        State::Established | State::FinWait1 | State::CloseWait | State::Closing | State::LastAck => {
            // An acknowledgment of its own goes even if data cannot: the peer may have to hear it before frames come back.
            match segments(tcb, env, path, tx) {
                Progress::Done => acknowledgment(tcb, env, path, tx),
                waits => {
                    acknowledgment(tcb, env, path, tx);
                    waits
                }
            }
        }
    }
}

/// SYN, or SYN-ACK after the SYNs crossed.
fn syn(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    if !tcb.bits.has(Bits::SYN_OWED) {
        return acknowledgment_if_synchronised(tcb, env, path, tx);
    }
    let header = match tcb.state() {
        State::SynReceived => crossed_syn(tcb, env),
        _ => syn_header(tcb, env, open::syn_options(&env.config, tcb.mss, tcb.ts_value(env.now_ms))),
    };
    let progress = send_bare(&tcb.key_ip(), &header, &env.pool, path, tx);
    if progress != Progress::Done {
        return progress;
    }
    if tcb.snd_nxt == tcb.iss {
        tcb.snd_nxt = tcb.iss.add(1);
        tcb.bits.clear(Bits::RTX_ARMED); // until now it was for a try to send
    } else if tcb.rtt.backoff > 0 {
        env.metrics.count(Counter::Retransmissions);
    }
    tcb.bits.clear(Bits::SYN_OWED.and(Bits::ACK_NOW));
    timers::arm_rtx(tcb, env);
    Progress::Done
}

#[inline(always)]
fn syn_header(tcb: &Tcb, env: &Env, options: Options) -> Header {
    Header {
        src_port: tcb.key.local_port,
        dst_port: tcb.key.remote_port,
        seq: tcb.iss,
        ack: Seq(0),
        flags: Flags::SYN,
        window: env.fixed.syn_window as u16,
        options,
    }
}

/// The SYN-ACK of both ends, after their SYNs crossed.
#[cold]
fn crossed_syn(tcb: &Tcb, env: &Env) -> Header {
    let mut options = open::syn_options(&env.config, tcb.mss, 0);
    options.timestamps = tcb.bits.has(Bits::TIMESTAMPS).then(|| timestamps(tcb, env));
    options.sack_permitted &= tcb.bits.has(Bits::SACK);
    options.window_scale = options.window_scale.filter(|_| tcb.bits.has(Bits::SCALING));
    Header { ack: tcb.rcv_nxt, flags: Flags::SYN | Flags::ACK, ..syn_header(tcb, env, options) }
}

#[cold]
fn acknowledgment_if_synchronised(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    match tcb.state() {
        State::SynReceived => acknowledgment(tcb, env, path, tx),
        _ => Progress::Done,
    }
}

/// Data, and the FIN after it.
#[inline]
fn segments(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    if tcb.tx_unsent != NIL || tcb.lost_bytes() > 0 {
        return data_and_fin(tcb, env, path, tx);
    }
    tcb.bits.clear(Bits::CWND_LIMITED);
    fin_if_due(tcb, env, path, tx)
}

#[inline(never)]
fn data_and_fin(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    match data::send(tcb, env, path, tx) {
        Progress::Done => fin_if_due(tcb, env, path, tx),
        progress => progress,
    }
}

#[inline]
fn fin_if_due(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    let fin_due = tcb.bits.has(Bits::FIN_QUEUED) && tcb.tx_unsent == NIL && !tcb.fin_sent();
    if fin_due || tcb.bits.has(Bits::FIN_AGAIN) {
        return fin(tcb, env, path, tx);
    }
    Progress::Done
}

/// A FIN of its own.
fn fin(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    let progress = send_control(tcb, env, tcb.snd_end, Flags::FIN | Flags::ACK, path, tx);
    if progress != Progress::Done {
        return progress;
    }
    if tcb.bits.has(Bits::FIN_AGAIN) {
        env.metrics.count(Counter::Retransmissions);
        tcb.bits.clear(Bits::FIN_AGAIN);
    }
    fin_sent(tcb, env);
    Progress::Done
}

/// Our FIN is out, first or again.
#[inline(always)]
fn fin_sent(tcb: &mut Tcb, env: &Env) {
    // With nothing in flight the timer was for a try to send until now.
    let anew = tcb.flight() == 0 || !tcb.bits.has(Bits::RTX_ARMED);
    tcb.snd_nxt = tcb.snd_end.add(1);
    tcb.bits.set(Bits::RTX_ARMED);
    if anew {
        timers::start_rtx(tcb, env);
    }
}

/// An acknowledgment alone, if one is owed that no segment carried.
#[inline(always)]
fn acknowledgment(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    let owed = Bits::ACK_NOW.and(Bits::WINDOW_CHECK).and(Bits::KEEPALIVE_OWED);
    if tcb.bits.has(owed) { acknowledge(tcb, env, path, tx) } else { Progress::Done }
}

/// Keep-alive probes are acknowledgments, too.
#[inline(never)]
fn acknowledge(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    if tcb.bits.has(Bits::WINDOW_CHECK) {
        tcb.bits.clear(Bits::WINDOW_CHECK);
        if recv::window_update_due(tcb, env) {
            tcb.bits.set(Bits::ACK_NOW);
        }
    }
    if tcb.bits.has(Bits::KEEPALIVE_OWED) {
        // RFC 9293 §3.8.4: SEG.SEQ = SND.NXT − 1 is outside the peer's window, so that it must answer.
        let progress = send_control(tcb, env, tcb.snd_nxt - 1, Flags::ACK, path, tx);
        if progress != Progress::Done {
            return progress;
        }
        tcb.bits.clear(Bits::KEEPALIVE_OWED);
    }
    if !tcb.bits.has(Bits::ACK_NOW) {
        return Progress::Done;
    }
    match tcb.cold.is_some() && tcb.bits.has(Bits::SACK) {
        true => send_blocks(tcb, env, path, tx),
        false => send_control(tcb, env, tcb.snd_nxt, Flags::ACK, path, tx),
    }
}

/// A segment without payload of a synchronised connection.
fn send_control(tcb: &mut Tcb, env: &mut Env, seq: Seq, flags: Flags, path: &Path, tx: &mut TxBurst) -> Progress {
    let Some(start) = path.usual().filter(|_| tcb.bits.has(Bits::TIMESTAMPS)) else {
        return send_any_control(tcb, env, seq, flags, &[], path, tx);
    };
    match room_for::<STAMPED_LEN>(env, tx) {
        Ok(out) => {
            told(tcb);
            emit_stamped(out, tcb, env, seq, flags, start, advertise);
            Progress::Done
        }
        Err(waits) => waits,
    }
}

/// Whether the peer knows of a connection that we give up: if not, there is nothing to reset.
#[inline]
pub fn knows_us(tcb: &Tcb) -> bool {
    !matches!(tcb.state(), State::SynSent | State::TimeWait | State::Closed)
}

/// The reset of a connection that we give up (RFC 9293 §3.10.5): it carries an ACK, so that the peer can check it, and timestamps
/// like every segment (RFC 7323 §3.2). Should there be no frame, the peer finds out when it sends.
pub fn reset(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) {
    if send_control(tcb, env, tcb.snd_nxt, Flags::RST | Flags::ACK, path, tx) == Progress::Done {
        env.metrics.count(Counter::ResetsSent);
    }
}

/// An acknowledgment that tells what has come out of order, if anything has.
#[cold]
fn send_blocks(tcb: &mut Tcb, env: &mut Env, path: &Path, tx: &mut TxBurst) -> Progress {
    let blocks = sack::blocks(tcb, env);
    send_any_control(tcb, env, tcb.snd_nxt, Flags::ACK, blocks.as_slice(), path, tx)
}

/// [`send_control`] on all paths, with SACK blocks.
#[cold]
fn send_any_control(
    tcb: &mut Tcb,
    env: &mut Env,
    seq: Seq,
    flags: Flags,
    sack: &[SackBlock],
    path: &Path,
    tx: &mut TxBurst,
) -> Progress {
    let window = advertise(tcb, env);
    let header = header(tcb, seq, flags, window, options(tcb, env));
    let progress = send_any(&tcb.key_ip(), &header, sack, &env.pool, path, tx);
    if progress == Progress::Done {
        told(tcb);
    }
    progress
}

/// A header of a synchronised connection. It tells RCV.NXT and the window; [`told`] notes that it did once it is out.
#[inline(always)]
fn header(tcb: &Tcb, seq: Seq, flags: Flags, window: u16, options: Options) -> Header {
    let FlowKey { local_port: src_port, remote_port: dst_port, .. } = tcb.key;
    Header { src_port, dst_port, seq, ack: tcb.rcv_nxt, flags, window, options }
}

/// The [window to advertise](recv::advertise), as the header's field says it.
#[inline(always)]
fn advertise(tcb: &mut Tcb, env: &Env) -> u16 {
    (recv::advertise(tcb, env) >> tcb.rcv_shift).min(u16::MAX.into()) as u16
}

/// The options of a synchronised connection, SACK blocks apart.
#[inline]
fn options(tcb: &Tcb, env: &Env) -> Options {
    Options { timestamps: tcb.bits.has(Bits::TIMESTAMPS).then(|| timestamps(tcb, env)), ..Options::default() }
}

#[inline]
fn timestamps(tcb: &Tcb, env: &Env) -> Timestamps {
    Timestamps { value: tcb.ts_value(env.now_ms), echo: tcb.ts_recent }
}

/// The peer has been told RCV.NXT and the window.
#[inline]
fn told(tcb: &mut Tcb) {
    tcb.bits.clear(Bits::ACK_NOW.and(Bits::ACK_DELAYED));
    tcb.last_ack_sent = tcb.rcv_nxt;
}

/// Sends a segment without payload.
#[cold]
pub fn send_bare(ip: &Ip, header: &Header, pool: &FramePool, path: &Path, tx: &mut TxBurst) -> Progress {
    send_any(ip, header, &[], pool, path, tx)
}

/// Sends a segment without payload and with SACK blocks.
fn send_any(ip: &Ip, header: &Header, sack: &[SackBlock], pool: &FramePool, path: &Path, tx: &mut TxBurst) -> Progress {
    if tx.room() == 0 {
        return Progress::Full;
    }
    let Some(out) = tx.push_new(pool, path.headers_len(ip, header, sack)) else { return Progress::NoFrame };
    path.emit(out, ip, header, sack, &[]);
    Progress::Done
}

/// Makes a frame a segment without payload, whatever it was.
pub fn bare(frame: &mut Frame, ip: &Ip, header: &Header, path: &Path) {
    path.emit(frame.renew(path.headers_len(ip, header, &[])), ip, header, &[], &[]);
}

/// Makes a frame of any kind a SYN-ACK that agrees to an offer, over IPv4 with checksums of ours; with our initial sequence number
/// and MSS.
#[inline(always)]
pub fn usual_syn_ack(
    frame: &mut Frame,
    start: &UsualStart,
    key: &FlowKey,
    (iss, mss): (Seq, u16),
    offer: &Offer,
    ts_value: u32,
    env: &Env,
) {
    let ip = Ip::new(key.local, key.remote);
    let (out, pseudo_header) = packet::emit_usual_lower(frame.renew(SYN_LEN), start, &ip, 0);
    let timestamps = Timestamps { value: ts_value, echo: offer.ts_value };
    let header = Header {
        src_port: key.local_port,
        dst_port: key.remote_port,
        seq: iss,
        ack: offer.irs.add(1),
        flags: Flags::SYN | Flags::ACK,
        window: env.fixed.syn_window as u16,
        options: Options::of_syn(mss, env.fixed.own_shift, timestamps),
    };
    header.emit(&[], out, pseudo_header, &[], true);
}

impl Path {
    /// How packets begin, where they are IPv4, without a tag and with checksums of ours.
    #[inline(always)]
    pub fn usual(&self) -> Option<&UsualStart> {
        self.usual.as_ref()
    }

    /// The length in bytes of all headers of a segment.
    #[inline]
    fn headers_len(&self, ip: &Ip, header: &Header, sack: &[SackBlock]) -> usize {
        packet::headers_len(self.link.vlan.is_some(), !ip.src.is_v4(), header, sack)
    }

    /// Writes all headers of a segment into `out`, which ends where its payload begins.
    #[inline(always)]
    fn emit(&self, out: &mut [u8], ip: &Ip, header: &Header, sack: &[SackBlock], payload: &[u8]) {
        match &self.usual {
            Some(start) => packet::emit_usual_headers(out, start, ip, header, sack, payload, true),
            None => packet::emit_headers(out, &self.link, ip, header, sack, payload, !self.tx_checksum),
        }
    }
}

/// The payload of a full segment without options that an IP packet of `mtu` bytes carries.
#[inline]
pub fn mss(mtu: u16, is_v4: bool) -> u16 {
    mtu.saturating_sub(if is_v4 { 40 } else { 60 }).max(MSS_MIN)
}

impl Tcb {
    /// The IP header's part of what this connection sends.
    #[inline]
    pub fn key_ip(&self) -> Ip {
        Ip { flow_label: self.ts_offset & 0xf_ffff, ..Ip::new(self.key.local, self.key.remote) }
    }
}

const MSS_MIN: u16 = 64;
/// All headers of a segment with timestamps, untagged and over IPv4.
const STAMPED_LEN: usize = packet::ip_headers_len(false, false) + tcp::STAMPED_LEN;
/// All headers of a SYN with all options.
const SYN_LEN: usize = packet::ip_headers_len(false, false) + tcp::USUAL_SYN_LEN;

#[cfg(test)]
mod tests;
