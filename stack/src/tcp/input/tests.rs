use handfast_drivers::frame::{FramePool, FrameSize};

use super::*;
use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::time::{Duration, Instant};
use crate::wire::address::Address;
use crate::wire::tcp::{Flags, Seq, Timestamps};

const NXT: Seq = Seq(u32::MAX - 2);

fn env() -> Env {
    let mut env = Env::new(TcpConfig::default(), FramePool::with_frames(8, FrameSize::Small), 0);
    env.at(Instant::ZERO + Duration::from_secs(100));
    env
}

fn tcb(window: u32) -> Tcb {
    let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let mut tcb = Tcb::new(FlowKey { local, remote, local_port: 80, remote_port: 40_000 }, Seq(100), 1_460);
    tcb.begin(State::Established);
    (tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent) = (NXT, NXT.add(window), NXT);
    tcb
}

#[test]
fn a_segment_is_acceptable_as_the_table_of_the_rfc_says() {
    // RFC 9293 §3.10.7.4, first: (SEG.LEN, RCV.WND, SEG.SEQ − RCV.NXT) → acceptable.
    for (len, window, offset, acceptable) in [
        (0, 0, 0, true),
        (0, 0, 1, false),
        (0, 0, -1, false),
        (0, 10, 0, true),
        (0, 10, 9, true),
        (0, 10, 10, false),
        (0, 10, -1, false),
        (5, 10, 0, true),
        (5, 10, 9, true),
        (5, 10, 10, false),
        (5, 10, -4, true),
        (5, 10, -5, false),
        (50, 10, -45, true),
        // No text is taken into a closed window, but its ACK and RST are (MUST-66).
        (5, 0, 0, true),
        (5, 0, -4, false),
        (5, 0, 1, false),
    ] {
        let seg = Segment { seq: NXT.add(offset as u32), payload_len: len, flags: Flags::ACK, ..Segment::default() };
        let mut tcb = tcb(window);
        let verdict = first_sequence(&mut tcb, &seg, &mut env());
        assert_eq!(verdict.is_ok(), acceptable, "{len} {window} {offset}");
        assert_eq!(tcb.bits.has(Bits::ACK_NOW), !acceptable);
    }
}

#[test]
fn paws_forgets_after_24_days() {
    let mut env = env();
    let mut tcb = tcb(1_000);
    tcb.bits.set(Bits::TIMESTAMPS);
    (tcb.ts_recent, tcb.ts_recent_at_ms) = (500, env.now_ms);
    let timestamps = Some(Timestamps { value: 499, echo: 0 });
    let seg = Segment { seq: NXT, flags: Flags::ACK, timestamps, ..Segment::default() };
    assert_eq!(first_sequence(&mut tcb, &seg, &mut env), Err(Verdict::Drop(DropReason::PawsFailed)));
    env.at(env.now + Duration::from_secs(24 * 24 * 3600 + 1));
    assert_eq!(first_sequence(&mut tcb, &seg, &mut env), Ok(()));
    heard(&mut tcb, &seg, &env);
    assert_eq!(tcb.ts_recent, 499);
}

#[test]
fn a_timestamp_half_the_space_ahead_is_newer_across_the_wrap() {
    for (recent, value, passes) in [(u32::MAX, 0, true), (0, u32::MAX, false), (5, 5, true), (0, 1 << 30, true)] {
        let mut env = env();
        let mut tcb = tcb(1_000);
        tcb.bits.set(Bits::TIMESTAMPS);
        (tcb.ts_recent, tcb.ts_recent_at_ms) = (recent, env.now_ms);
        let timestamps = Some(Timestamps { value, echo: 0 });
        let seg = Segment { seq: NXT, flags: Flags::ACK, timestamps, ..Segment::default() };
        assert_eq!(first_sequence(&mut tcb, &seg, &mut env).is_ok(), passes, "{recent} {value}");
    }
}

#[test]
fn one_connection_cannot_use_up_everybodys_challenges() {
    let mut env = env();
    let mut tcb = tcb(1_000);
    for _ in 0..2_000 {
        challenge(&mut tcb, &mut env);
    }
    assert_eq!(env.metrics.get(Counter::ChallengeAcks), 1);
    assert_eq!(env.metrics.drops(DropReason::RateLimited), 1_999);
    env.at(env.now + Duration::from_millis(200));
    challenge(&mut tcb, &mut env);
    assert_eq!(env.metrics.get(Counter::ChallengeAcks), 2);
}

#[test]
fn closed_refuses_all_but_the_syn_of_the_next_connection() {
    let mut tcb = tcb(1_000);
    tcb.enter(State::Closed);
    let mut verdict =
        |flags| segment_arrives(&mut tcb, &Segment { flags, ..Segment::default() }, &mut None, &mut env());
    assert_eq!(verdict(Flags::ACK), Err(Verdict::Refuse(DropReason::NoConnection)));
    assert_eq!(verdict(Flags::SYN | Flags::ACK), Err(Verdict::Refuse(DropReason::NoConnection)));
    assert_eq!(verdict(Flags::SYN), Err(Verdict::Drop(DropReason::NoConnection)));
}
