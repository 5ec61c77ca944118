//! What is taken in one go becomes what all the steps make of it; what is not taken is not touched.

use alloc::format;
use alloc::string::String;

use handfast_drivers::driver::Driver;
use handfast_drivers::wire;

use super::*;
use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::demux::syn_rcvd::Offered;
use crate::tcp::input::{self, Verdict};
use crate::time::Instant;
use crate::wire::address::Address;
use crate::wire::tcp::{Seq, Timestamps};

const ISS: Seq = Seq(u32::MAX - 2);
const IRS: Seq = Seq(u32::MAX - 7);
const TS_RECENT: u32 = u32::MAX;

fn env() -> Env {
    let (near, _) = wire::pair(wire::Config { frames_per_queue: 64, ring_len: 64, ..wire::Config::default() });
    let mut env = Env::new(TcpConfig::default(), near.pool().clone(), 0);
    env.at(Instant::from_micros(50_000_000));
    env
}

fn opening(env: &Env) -> Tcb {
    let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let (mut tcb, key) = (Tcb::default(), FlowKey { local, remote, local_port: 1, remote_port: 2 });
    open::active(&mut tcb, key, ISS, 1_460, 1_000, env);
    tcb.snd_nxt = ISS.add(1);
    tcb.bits.clear(Bits::SYN_OWED);
    timers::arm_rtx(&mut tcb, env);
    tcb
}

/// A connection whose FIN was sent, or not; in what states it may be then.
fn ending(env: &Env, state: State, fin_sent: bool, bits: Bits) -> Tcb {
    let mut tcb = Tcb::new(opening(env).key, ISS, 1_460);
    tcb.begin(state);
    tcb.bits = bits;
    (tcb.irs, tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent) = (IRS, IRS.add(9), IRS.add(1_009), IRS.add(9));
    (tcb.ts_recent, tcb.ts_offset) = (TS_RECENT, 1_000);
    tcb.snd_una = ISS.add(1);
    tcb.snd_nxt = if fin_sent { tcb.snd_end.add(1) } else { tcb.snd_end };
    (tcb.snd_wnd, tcb.snd_wnd_max) = (60_000, 60_000);
    if matches!(state, State::FinWait1 | State::Closing | State::LastAck) {
        tcb.bits.set(Bits::FIN_QUEUED);
        timers::arm_rtx(&mut tcb, env);
    }
    if matches!(state, State::CloseWait | State::Closing | State::LastAck) {
        tcb.bits.set(Bits::PEER_FIN);
    }
    tcb
}

/// What anybody may ask about a connection; of a deadline only if it is armed.
fn seen(tcb: &Tcb) -> String {
    let armed = |bit: Bits, at_ms: u32| tcb.bits.has(bit).then_some(at_ms);
    format!(
        "{:?} {:?} {:?} {:?} | {:?} {:?} {:?} {:?} | {:?} {:?} {:?} | {:?} {:?} {:?} {:?} | {:?} {:?} {:?}",
        tcb.state(),
        tcb.events,
        tcb.bits,
        tcb.closed,
        (tcb.irs, tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent, tcb.rcv_shift),
        (tcb.ts_recent, tcb.ts_recent_at_ms),
        (tcb.snd_una, tcb.snd_nxt, tcb.snd_end, tcb.snd_shift),
        (tcb.mss, tcb.tx_unsent, tcb.tx_frames, tcb.rx_bytes),
        armed(Bits::RTX_ARMED, tcb.rtx_at_ms),
        armed(Bits::IDLE_ARMED, tcb.idle_at_ms),
        armed(Bits::ACK_DELAYED, tcb.ack_at_ms),
        (tcb.heard_at_ms, tcb.probes),
        (tcb.answered_at_ms, tcb.persist_backoff),
        tcb.rtt.backoff,
        tcb.cold.is_some(),
        tcb.rtx_for,
        tcb.tail_probed,
        tcb.user,
    )
}

/// What matters as long as anything is still to be sent.
fn seen_of_sending(tcb: &Tcb) -> String {
    format!("{:?} {:?} {:?}", (tcb.snd_wnd, tcb.snd_wnd_max, tcb.snd_wl1, tcb.snd_wl2), tcb.congestion, tcb.rtt)
}

fn whole(tcb: &Tcb) -> String {
    format!("{tcb:?}")
}

#[test]
fn a_syn_ack_taken_in_one_go_leaves_what_all_the_steps_leave() {
    let mut env = env();
    let (mut taken, mut left) = (0, 0);
    let flags = [Flags::SYN | Flags::ACK, Flags::SYN, Flags::ACK, Flags::SYN | Flags::ACK | Flags::PSH];
    let odd = [Flags::SYN | Flags::ACK | Flags::FIN, Flags::SYN | Flags::ACK | Flags::RST, Flags::RST | Flags::ACK];
    for flags in flags.into_iter().chain(odd) {
        for variant in 0u32..1 << 8 {
            let has = |bit: u32| variant >> bit & 1 == 1;
            let mut state = [opening(&env), opening(&env)];
            for tcb in &mut state {
                tcb.rtt.backoff = has(0).into();
                if has(1) {
                    tcb.bits.set(Bits::FIN_QUEUED);
                }
            }
            let seg = Segment {
                seq: IRS,
                ack: ISS.add(if has(2) { 2 } else { 1 }),
                flags,
                window: 4_321,
                data_offset: 40 << 2,
                mss: (!has(3)).then_some(if has(4) { 10 } else { 1_400 }),
                window_scale: (!has(5)).then_some(7),
                sack_permitted: !has(6),
                timestamps: (!has(7)).then_some(Timestamps { value: 99, echo: env.now_ms + 1_000 - 30 }),
                ..Segment::default()
            };
            let [at_once, by_steps] = &mut state;
            let before = whole(at_once);
            if !opens(at_once, &seg, &mut env) {
                assert_eq!(whole(at_once), before, "{seg:?}");
                left += 1;
                continue;
            }
            taken += 1;
            assert_eq!(input::segment_arrives(by_steps, &seg, &mut None, &mut env), Ok(()), "{seg:?}");
            assert_eq!(seen(at_once), seen(by_steps), "{seg:?}");
            assert_eq!(seen_of_sending(at_once), seen_of_sending(by_steps), "{seg:?}");
        }
    }
    assert_eq!((taken, left), (4, 7 * 256 - 4));
}

#[test]
fn the_acknowledgment_of_a_fin_taken_in_one_go_leaves_what_all_the_steps_leave() {
    let mut env = env();
    let (mut taken, mut left) = (0, 0);
    let all = Flags::ACK | Flags::FIN;
    let flags = [Flags::ACK, all, all | Flags::PSH, Flags::FIN, Flags::ACK | Flags::RST, Flags::ACK | Flags::SYN];
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, TimeWait};
    for state in [Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait] {
        for (bits, fin_sent) in [Bits::TIMESTAMPS, Bits::TIMESTAMPS.and(Bits::APP_CLOSED), Bits::default()]
            .into_iter()
            .flat_map(|bits| [(bits, false), (bits, true)])
        {
            for (flags, variant) in flags.into_iter().flat_map(|flags| (0u32..1 << 7).map(move |v| (flags, v))) {
                let has = |bit: u32| variant >> bit & 1 == 1;
                let mut pair = [ending(&env, state, fin_sent, bits), ending(&env, state, fin_sent, bits)];
                for tcb in &mut pair {
                    if has(0) {
                        tcb.last_ack_sent = tcb.rcv_nxt.add(u32::MAX); // one before it
                    }
                    if has(1) {
                        tcb.bits.set(Bits::WANTS_ROOM);
                    }
                    tcb.rtt.backoff = has(6).into();
                }
                let [at_once, by_steps] = &mut pair;
                let value = TS_RECENT.wrapping_add(if has(2) { u32::MAX } else { 5 });
                let seg = Segment {
                    seq: at_once.rcv_nxt.add(u32::from(has(3))),
                    ack: if has(4) { at_once.snd_una } else { at_once.snd_nxt },
                    flags,
                    window: 4_321,
                    data_offset: 32 << 2,
                    timestamps: (!has(5)).then_some(Timestamps { value, echo: env.now_ms + 1_000 - 30 }),
                    ..Segment::default()
                };
                let before = whole(at_once);
                if !ends(at_once, &seg, &mut env) {
                    assert_eq!(whole(at_once), before, "{seg:?}");
                    left += 1;
                    continue;
                }
                taken += 1;
                assert_eq!(input::segment_arrives(by_steps, &seg, &mut None, &mut env), Ok(()), "{seg:?}");
                assert_eq!(seen(at_once), seen(by_steps), "{bits:?} {before} {seg:?}");
            }
        }
    }
    // Three states, with and without the application, three sorts of flags, and a TS.Recent that is taken or is not.
    assert_eq!(taken, 3 * 2 * 3 * 2);
    assert!(left > 1_000);
}

#[test]
fn the_third_segment_taken_in_one_go_leaves_what_all_the_steps_leave() {
    let mut env = env();
    let key = opening(&env).key;
    let (mut taken, mut left) = (0, 0);
    let flags = [Flags::ACK, Flags::ACK | Flags::FIN, Flags::ACK | Flags::PSH, Flags::SYN | Flags::ACK, Flags::FIN];
    for (flags, variant) in flags.into_iter().flat_map(|flags| (0u32..1 << 8).map(move |variant| (flags, variant))) {
        let has = |bit: u32| variant >> bit & 1 == 1;
        let record = SynRcvd {
            key,
            iss: ISS,
            irs: IRS,
            ts_recent: TS_RECENT,
            mss: if has(7) { 64 } else { 1_400 },
            listener: 0,
            offered: Offered::new((!has(0)).then_some(7), !has(1), true),
            retries: has(2).into(),
            due: 0,
        };
        let value = if has(6) { TS_RECENT - 1 } else { 4 };
        let seg = Segment {
            seq: IRS.add(1 + u32::from(has(3))),
            ack: ISS.add(1 + u32::from(has(4))),
            flags,
            window: 4_321,
            data_offset: 32 << 2,
            timestamps: (!has(5)).then_some(Timestamps { value, echo: env.now_ms + 1_000 - 30 }),
            ..Segment::default()
        };
        let Some(stamps) = completes(&record, &seg) else {
            left += 1;
            continue;
        };
        taken += 1;
        let [mut at_once, mut by_steps] = [(); 2].map(|()| {
            let mut tcb = Tcb::default();
            open::passive(&mut tcb, &record, (&seg, seg.timestamps), record.mss, 1_000, &env);
            tcb
        });
        third_segment(&mut at_once, &seg, stamps);
        open::agree_to_less(&mut by_steps, &record);
        assert_eq!(open::syn_rcvd_arrives(&record, &seg, &env.config), open::HalfOpen::Complete);
        assert_eq!(input::segment_arrives(&mut by_steps, &seg, &mut None, &mut env), Ok(()), "{seg:?}");
        assert_eq!(whole(&at_once), whole(&by_steps), "{seg:?}");
    }
    assert_eq!((taken, left), (3 * 2, 5 * 256 - 6), "three sorts of flags, and either MSS");
}

#[test]
fn a_reset_counts_at_sight_where_all_the_steps_have_it_count() {
    let mut env = env();
    let states = [
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
        State::Closed,
    ];
    let mut counted = 0;
    for state in states {
        for (offset, others, window) in (0..3).flat_map(|offset| {
            [Flags::default(), Flags::ACK, Flags::SYN, Flags::FIN | Flags::PSH]
                .into_iter()
                .flat_map(move |others| [0, 1_000].map(|window| (offset, others, window)))
        }) {
            let mut tcb = Tcb::new(opening(&env).key, ISS, 1_460);
            if state != State::Closed {
                tcb.begin(state);
            }
            (tcb.irs, tcb.rcv_nxt, tcb.rcv_adv) = (IRS, IRS.add(1), IRS.add(1 + window));
            let seg = Segment { seq: IRS.add(offset), flags: Flags::RST | others, ..Segment::default() };
            let at_sight = resets(&tcb, &seg);
            let by_steps = input::segment_arrives(&mut tcb, &seg, &mut None, &mut env) == Err(Verdict::PeerReset);
            assert!(at_sight == by_steps, "{state:?} {seg:?}");
            counted += usize::from(at_sight);
        }
    }
    assert_eq!(counted, 7 * 4 * 2, "seven states, whatever else is in it");
}
