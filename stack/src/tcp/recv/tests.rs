use alloc::vec;
use alloc::vec::Vec;

use handfast_drivers::frame::{FramePool, FrameSize};
use proptest::prelude::*;

use super::*;
use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::tcp::input::text_and_fin;
use crate::tcp::state::State;
use crate::wire::address::Address;
use crate::wire::tcp::{Flags, Segment};

/// The stream crosses the end of the sequence space.
const START: Seq = Seq(u32::MAX - 700);

fn env(configure: impl FnOnce(&mut TcpConfig)) -> Env {
    let mut config = TcpConfig { recv_buffer_bytes: 4_096, ..TcpConfig::default() };
    configure(&mut config);
    Env::new(config, FramePool::with_frames(512, FrameSize::Small), 4)
}

/// An established connection that has told its window.
fn tcb(env: &Env) -> Tcb {
    let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let mut tcb = Tcb::new(FlowKey { local, remote, local_port: 80, remote_port: 40_000 }, Seq(7), 1_460);
    tcb.begin(State::Established);
    (tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent, tcb.irs) = (START, START, START, START - 1);
    (tcb.snd_una, tcb.snd_nxt) = (Seq(8), Seq(8));
    tcb.congestion.start(1_460);
    tcb.rcv_mss = 1_460;
    advertise(&mut tcb, env);
    tcb
}

/// What the stream has at an offset.
fn byte(at: usize) -> u8 {
    (at * 31 % 251) as u8
}

/// The bytes from `start` to `end` of the stream arrive, and the FIN behind them if `fin`.
fn arrive(tcb: &mut Tcb, env: &mut Env, start: usize, end: usize, fin: bool) -> Result<(), Verdict> {
    let bytes: Vec<u8> = (start..end).map(byte).collect();
    let mut frame = env.pool.alloc().unwrap();
    frame.extend_from_slice(&bytes);
    let flags = if fin { Flags::ACK | Flags::FIN } else { Flags::ACK };
    let payload_len = bytes.len() as u16;
    let seg = Segment { seq: START.add(start as u32), flags, payload_len, ..Segment::default() };
    text_and_fin(tcb, &seg, &mut Some(frame), env)
}

fn read(tcb: &mut Tcb, env: &mut Env, frames: usize, into: &mut Vec<u8>) {
    for _ in 0..frames {
        let Some(frame) = take(tcb, env) else { break };
        into.extend_from_slice(&frame);
    }
}

/// Which bytes came: as dumb as can be.
struct Oracle {
    came: Vec<bool>,
    nxt: usize,
    adv: usize,
    fin_known: bool,
}

impl Oracle {
    fn arrive(&mut self, start: usize, end: usize, fin: bool) {
        for at in start.max(self.nxt)..end.min(self.adv) {
            self.came[at] = true;
        }
        while self.came.get(self.nxt) == Some(&true) {
            self.nxt += 1;
        }
        self.fin_known |= fin && end <= self.adv;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Segment { start: usize, len: usize },
    Read { frames: usize },
    Tell,
}

fn steps(stream: usize) -> impl Strategy<Value = Vec<Step>> {
    let segment = (0..stream, 1..1_400usize).prop_map(|(start, len)| Step::Segment { start, len });
    let near = (0..40usize, 1..40usize).prop_map(|(start, len)| Step::Segment { start: start * 30, len });
    let read = (1..4usize).prop_map(|frames| Step::Read { frames });
    prop::collection::vec(prop_oneof![5 => segment, 3 => near, 2 => read, 1 => Just(Step::Tell)], 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn reassembly_is_what_a_map_of_bytes_says(steps in steps(6_000), stream in 1..6_000usize) {
        let mut env = env(|_| {});
        let mut tcb = tcb(&env);
        let mut oracle = Oracle { came: vec![false; stream], nxt: 0, adv: tcb.rcv_wnd() as usize, fin_known: false };
        let mut got = Vec::new();
        for step in steps {
            match step {
                Step::Segment { start, len } => {
                    let (start, end) = (start.min(stream), (start + len).min(stream));
                    let _ = arrive(&mut tcb, &mut env, start, end, end == stream);
                    oracle.arrive(start, end, end == stream);
                }
                Step::Read { frames } => read(&mut tcb, &mut env, frames, &mut got),
                Step::Tell => {
                    let before = tcb.rcv_adv;
                    advertise(&mut tcb, &env);
                    prop_assert!(tcb.rcv_adv.at_or_after(before));
                    oracle.adv += tcb.rcv_adv.since(before) as usize;
                }
            }
            let ended = oracle.fin_known && oracle.nxt == stream;
            prop_assert_eq!(tcb.state(), if ended { State::CloseWait } else { State::Established });
            prop_assert_eq!(tcb.rcv_nxt, START.add(oracle.nxt as u32 + u32::from(ended)));
            prop_assert_eq!(tcb.check(&env), Ok(()));
            if ended && oracle.adv == oracle.nxt {
                oracle.adv += 1; // The FIN took no room.
            }
        }
        read(&mut tcb, &mut env, usize::MAX, &mut got);
        prop_assert_eq!(got, (0..oracle.nxt).map(byte).collect::<Vec<_>>());
        discard(&mut tcb, &mut env);
        prop_assert_eq!(env.pool.free(), 512);
    }

    #[test]
    fn few_frames_lose_time_but_no_byte(steps in steps(6_000)) {
        let mut env = env(|config| config.recv_frames_max = 5);
        let mut tcb = tcb(&env);
        let mut got = Vec::new();
        for step in steps {
            match step {
                Step::Segment { start, len } => drop(arrive(&mut tcb, &mut env, start, start + len, false)),
                Step::Read { frames } => read(&mut tcb, &mut env, frames, &mut got),
                Step::Tell => drop(advertise(&mut tcb, &env)),
            }
            let out_of_order = tcb.cold.as_ref().map_or(0, |cold| cold.ooo_frames);
            prop_assert!(tcb.rx_frames + out_of_order <= 5);
            prop_assert_eq!(tcb.check(&env), Ok(()));
        }
        // Whatever is kept: what is missing gets in as soon as the application has read.
        read(&mut tcb, &mut env, usize::MAX, &mut got);
        advertise(&mut tcb, &env);
        let missing = tcb.rcv_nxt.since(START) as usize;
        prop_assert!(arrive(&mut tcb, &mut env, missing, missing + 1, false).is_ok());
        read(&mut tcb, &mut env, usize::MAX, &mut got);
        prop_assert!(got.len() > missing);
        prop_assert_eq!(got.clone(), (0..got.len()).map(byte).collect::<Vec<_>>());
    }
}

#[test]
fn two_full_segments_are_acknowledged_at_once_and_one_is_not() {
    let mut env = env(|_| {});
    let mut tcb = tcb(&env);
    arrive(&mut tcb, &mut env, 0, 1_460, false).unwrap();
    assert!(tcb.bits.has(Bits::ACK_DELAYED) && !tcb.bits.has(Bits::ACK_NOW));
    arrive(&mut tcb, &mut env, 1_460, 2_920, false).unwrap();
    assert!(tcb.bits.has(Bits::ACK_NOW));
    discard(&mut tcb, &mut env);
}

#[test]
fn a_gap_and_what_fills_it_are_acknowledged_at_once() {
    let mut env = env(|_| {});
    let mut tcb = tcb(&env);
    arrive(&mut tcb, &mut env, 10, 20, false).unwrap();
    assert!(tcb.bits.has(Bits::ACK_NOW));
    tcb.bits.clear(Bits::ACK_NOW);
    arrive(&mut tcb, &mut env, 0, 10, false).unwrap();
    assert!(tcb.bits.has(Bits::ACK_NOW));
    discard(&mut tcb, &mut env);
}

#[test]
fn the_window_opens_by_a_segment_or_half_the_buffer_or_not_at_all() {
    let mut env = env(|_| {});
    let mut tcb = tcb(&env);
    assert_eq!(tcb.rcv_wnd(), 4_096);
    for at in 0..40 {
        arrive(&mut tcb, &mut env, at * 100, at * 100 + 100, false).unwrap();
    }
    let mut got = Vec::new();
    let told: Vec<u32> = (0..40)
        .map(|_| {
            read(&mut tcb, &mut env, 1, &mut got);
            advertise(&mut tcb, &env)
        })
        .collect();
    assert_eq!(told[0], 96);
    assert!(told.windows(2).all(|pair| pair[1] == pair[0] || pair[1] - pair[0] >= 1_460), "{told:?}");
}

proptest! {
    #[test]
    fn the_whole_window_is_told_as_any_other(told in 0u32..80_000, mss in 64u16..2_000, buffer in 4_096u32..300_000) {
        let env = env(|config| config.recv_buffer_bytes = buffer);
        let mut one = tcb(&env);
        one.mss = mss;
        one.rcv_shift = env.fixed.whole_window_shift;
        prop_assume!(one.rcv_shift == env.fixed.own_shift && may_tell_whole_window(&one, &env));
        one.rcv_adv = one.rcv_nxt.add(told.min(env.fixed.whole_window));
        let mut other = tcb(&env);
        (other.mss, other.rcv_shift, other.rcv_adv) = (one.mss, one.rcv_shift, one.rcv_adv);
        let field = u32::from(advertise_whole(&mut one, &env));
        prop_assert_eq!(field, advertise(&mut other, &env) >> other.rcv_shift);
        prop_assert_eq!(one.rcv_adv, other.rcv_adv);
    }
}
