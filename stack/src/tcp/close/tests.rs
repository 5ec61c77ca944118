use handfast_drivers::frame::{FramePool, FrameSize};

use super::*;
use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::time::{Duration, Instant};
use crate::wire::address::Address;
use crate::wire::tcp::Seq;

fn env() -> Env {
    let mut env = Env::new(TcpConfig::default(), FramePool::with_frames(8, FrameSize::Small), 0);
    env.at(Instant::ZERO + Duration::from_secs(9));
    env
}

fn tcb(state: State) -> Tcb {
    let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let mut tcb = Tcb::new(FlowKey { local, remote, local_port: 80, remote_port: 40_000 }, Seq(100), 1_460);
    tcb.begin(state);
    (tcb.snd_nxt, tcb.snd_end, tcb.rcv_nxt, tcb.rcv_adv) = (Seq(150), Seq(150), Seq(900), Seq(1_900));
    tcb
}

#[test]
fn shutdown_moves_the_states_that_have_a_half_to_close() {
    for (state, next, queued) in [
        (State::SynSent, State::SynSent, true),
        (State::SynReceived, State::SynReceived, true),
        (State::Established, State::FinWait1, true),
        (State::CloseWait, State::LastAck, true),
        (State::FinWait1, State::FinWait1, false),
        (State::FinWait2, State::FinWait2, false),
        (State::Closing, State::Closing, false),
        (State::LastAck, State::LastAck, false),
        (State::TimeWait, State::TimeWait, false),
        (State::Closed, State::Closed, false),
    ] {
        let mut tcb = tcb(state);
        shutdown(&mut tcb);
        shutdown(&mut tcb);
        assert_eq!((tcb.state(), tcb.bits.has(Bits::FIN_QUEUED)), (next, queued), "{state:?}");
    }
}

#[test]
fn only_a_closed_application_puts_an_end_to_fin_wait_2() {
    let mut env = env();
    let mut tcb = tcb(State::FinWait1);
    our_fin_is_acked(&mut tcb, &env);
    assert!(!tcb.bits.has(Bits::IDLE_ARMED));
    close(&mut tcb, &mut env);
    assert_eq!((tcb.bits.has(Bits::IDLE_ARMED), tcb.idle_at_ms), (true, 69_000));
    env.at(Instant::ZERO + Duration::from_secs(20));
    close(&mut tcb, &mut env);
    assert_eq!(tcb.idle_at_ms, 69_000);
}

#[test]
fn a_fin_takes_one_sequence_number_and_no_room() {
    for (state, next) in [
        (State::Established, State::CloseWait),
        (State::FinWait1, State::Closing),
        (State::FinWait2, State::TimeWait),
        (State::CloseWait, State::CloseWait),
        (State::LastAck, State::LastAck),
        (State::Closing, State::Closing),
    ] {
        let mut env = env();
        let mut tcb = tcb(state);
        tcb.rcv_adv = tcb.rcv_nxt;
        eighth_fin(
            &mut tcb,
            &Segment { seq: Seq(900), flags: Flags::FIN | Flags::ACK, ..Segment::default() },
            &mut env,
        );
        let taken = u32::from(state.can_receive());
        assert_eq!((tcb.state(), tcb.rcv_nxt, tcb.rcv_wnd()), (next, Seq(900 + taken), 0), "{state:?}");
        assert_eq!(tcb.events == Events::PEER_CLOSED, taken == 1);
    }
}

#[test]
fn the_reset_of_a_stranger_takes_its_numbers_from_the_segment() {
    let seg = Segment { seq: Seq(5), ack: Seq(77), payload_len: 3, src_port: 9, dst_port: 80, ..Segment::default() };
    let reset = |flags| refusal(&Segment { flags, ..seg }).map(|header| (header.flags, header.seq, header.ack));
    assert_eq!(reset(Flags::ACK), Some((Flags::RST, Seq(77), Seq(0))));
    assert_eq!(reset(Flags::SYN), Some((Flags::RST | Flags::ACK, Seq(0), Seq(9))));
    assert_eq!(reset(Flags::RST), None);
    assert_eq!(refusal(&seg).map(|header| (header.src_port, header.dst_port)), Some((80, 9)));
}

#[test]
fn time_wait_keeps_what_its_acknowledgment_says() {
    let mut tcb = tcb(State::TimeWait);
    tcb.bits.set(Bits::TIMESTAMPS);
    tcb.ts_recent = 42;
    let ack = time_wait_ack(&time_wait(&tcb), 1_000);
    assert_eq!((ack.seq, ack.ack, ack.flags), (Seq(150), Seq(900), Flags::ACK));
    assert_eq!(ack.options.timestamps, Some(Timestamps { value: 1_000, echo: 42 }));
}
