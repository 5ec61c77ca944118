use super::*;
use crate::tcp::close;
use crate::tcp::rtt::Rtt;
use crate::tcp::testing::{MSS, Sender};
use crate::wire::tcp::Flags;

#[test]
fn the_timeout_doubles_each_time_and_the_first_segment_goes_again() {
    let mut t = Sender::new();
    t.tcb.rtt.measured(10_000);
    t.write(3 * MSS);
    t.output();
    let mut spans = alloc::vec::Vec::new();
    for _ in 0..9 {
        let (span_ms, expired) = t.expires();
        assert_eq!(expired, Expired::Alive);
        spans.push(span_ms);
        t.sends(&[(0, MSS)]);
    }
    assert_eq!(spans, [201, 401, 801, 1601, 3201, 6401, 12801, 25601, 51201]);
    assert_eq!(t.expires(), (60001, Expired::TimedOut));
}

#[test]
fn the_threshold_is_lowered_once_and_the_window_each_time() {
    let mut t = Sender::new();
    t.write(10 * MSS);
    t.output();
    t.expires();
    assert_eq!((t.tcb.congestion.ssthresh, t.tcb.congestion.cwnd), (5 * MSS, MSS));
    t.output();
    t.expires();
    assert_eq!((t.tcb.congestion.ssthresh, t.tcb.congestion.cwnd), (5 * MSS, MSS));
}

#[test]
fn progress_between_timeouts_begins_the_wait_anew() {
    let mut t = Sender::new();
    t.write(60 * MSS);
    t.output();
    for n in 1..40 {
        assert_eq!(t.expires().1, Expired::Alive, "timeout {n}");
        t.output();
        assert_eq!(t.expires().1, Expired::Alive, "timeout {n}");
        t.output();
        t.ack(n * MSS);
        t.output();
    }
}

#[test]
fn a_fin_is_lost_with_the_data_before_it_and_goes_again_with_it() {
    let mut t = Sender::new();
    t.write(2 * MSS);
    close::shutdown(&mut t.tcb);
    let sent = t.output();
    assert!(sent.len() == 2 && sent[1].flags.fin());
    t.expires();
    t.sends(&[(0, MSS)]);
    t.ack(MSS);
    let sent = t.output();
    assert!(sent.len() == 1 && sent[0].len == MSS && sent[0].flags.contains(Flags::FIN | Flags::PSH));
}

#[test]
fn a_fin_alone_goes_again_alone() {
    let mut t = Sender::new();
    t.write(100);
    t.output();
    close::shutdown(&mut t.tcb);
    t.sends(&[(100, 0)]);
    t.ack(100);
    for _ in 0..3 {
        t.expires();
        let sent = t.output();
        assert!(sent.len() == 1 && sent[0].flags.fin() && sent[0].seq == 100);
    }
}

/// A closed window, and something to send.
fn closed_window() -> Sender {
    let mut t = Sender::new();
    t.tcb.rtt.measured(10_000);
    t.write(MSS);
    t.output();
    t.window = 0;
    t.ack(MSS);
    t.write(MSS);
    t.sends(&[]);
    t
}

#[test]
fn a_closed_window_is_probed_ever_more_rarely() {
    let mut t = closed_window();
    let mut spans = alloc::vec::Vec::new();
    for _ in 0..8 {
        spans.push(t.expires().0);
        t.sends(&[(MSS, 1)]);
        t.ack(MSS); // the byte is refused
    }
    assert_eq!(spans, [201, 401, 801, 1601, 3201, 6401, 12801, 25601]);
}

#[test]
fn a_probe_that_is_taken_makes_way_for_the_next() {
    let mut t = closed_window();
    for n in 0..5 {
        assert_eq!(t.expires().0, 201);
        t.sends(&[(MSS + n, 1)]);
        t.ack(MSS + n + 1);
        t.sends(&[]);
    }
}

#[test]
fn what_was_probed_goes_at_once_when_the_window_opens() {
    let mut t = closed_window();
    t.write(2 * MSS);
    for _ in 0..3 {
        t.expires();
        t.output();
        t.ack(MSS);
    }
    t.window = 60_000;
    t.ack(MSS);
    let sent: u32 = t.output().iter().map(|out| out.len).sum();
    assert!(sent >= 2 * MSS, "{sent}");
    assert_eq!(t.tcb.congestion.phase, Phase::Open);
    assert!(t.tcb.congestion.cwnd > 2 * MSS);
    assert!(next_deadline(&t.tcb).unwrap().wrapping_sub(t.env.now_ms) < 300);
}

#[test]
fn answered_probes_keep_a_connection_and_unanswered_ones_do_not() {
    let mut t = closed_window();
    for _ in 0..40 {
        assert_eq!(t.expires().1, Expired::Alive);
        t.output();
        t.ack(MSS);
    }
    let silent_from = t.env.now_ms;
    while t.expires().1 == Expired::Alive {
        t.output();
        assert!(t.env.now_ms.wrapping_sub(silent_from) < 300_000);
    }
    assert!(t.env.now_ms.wrapping_sub(silent_from) > 100_000);
}

#[test]
fn a_fin_that_a_closed_window_refuses_is_a_probe_too() {
    let mut t = Sender::new();
    t.write(MSS);
    t.output();
    t.window = 0;
    t.ack(MSS);
    close::shutdown(&mut t.tcb);
    t.sends(&[(MSS, 0)]);
    for _ in 0..40 {
        assert_eq!(t.expires().1, Expired::Alive);
        t.sends(&[(MSS, 0)]);
        t.ack(MSS);
    }
    t.window = 1;
    t.ack(MSS);
    t.sends(&[(MSS, 0)]);
}

#[test]
fn a_try_to_send_nothing_never_ends_a_connection() {
    let mut t = Sender::new();
    for _ in 0..1_000 {
        arm_retry(&mut t.tcb, 1_000, &t.env);
        assert_eq!(t.expires(), (1_000, Expired::Alive));
        t.sends(&[]);
    }
}

#[test]
fn data_that_cannot_be_sent_at_all_ends_it_in_time() {
    let mut t = Sender::new();
    t.write(10);
    let begun = t.env.now_ms;
    loop {
        arm_retry(&mut t.tcb, 1_000, &t.env);
        if t.expires().1 == Expired::TimedOut {
            break;
        }
    }
    assert!((100_000..130_000).contains(&t.env.now_ms.wrapping_sub(begun)));
}

#[test]
fn the_earliest_deadline_counts_across_the_wrap_of_the_clock() {
    let mut t = Sender::new();
    assert_eq!(next_deadline(&t.tcb), None);
    t.tcb.bits.set(Bits::RTX_ARMED.and(Bits::ACK_DELAYED).and(Bits::APP_ARMED));
    (t.tcb.rtx_at_ms, t.tcb.ack_at_ms, t.tcb.app_at_ms) = (5, u32::MAX - 5, 1);
    assert_eq!(next_deadline(&t.tcb), Some(u32::MAX - 5));
    assert!(passed(u32::MAX, 3) && !passed(3, u32::MAX) && passed(7, 7));
}

#[test]
fn a_closed_connection_does_not_probe_a_closed_window_for_ever() {
    let mut t = closed_window();
    close::close(&mut t.tcb, &mut t.env);
    let mut probes = 0;
    while t.expires().1 == Expired::Alive {
        t.output();
        t.ack(MSS);
        probes += 1;
        assert!(probes < 100);
    }
}

#[test]
fn a_fin_that_no_neighbour_takes_is_given_up_like_data() {
    let mut t = Sender::new();
    close::shutdown(&mut t.tcb);
    let begun_ms = t.env.now_ms;
    // What output does when the next hop is not there.
    let give_up_ms = t.env.config.give_up.as_millis() as u32;
    while t.env.now_ms - begun_ms <= give_up_ms + 2_000 {
        arm_retry(&mut t.tcb, 1_000, &t.env);
        if t.expires().1 == Expired::TimedOut {
            assert!(t.env.now_ms - begun_ms > give_up_ms);
            return;
        }
    }
    panic!("it waits for ever");
}

#[test]
fn a_window_that_closes_in_a_recovery_is_probed_whatever_the_congestion_window() {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::SACK);
    t.write(10 * MSS);
    t.output();
    t.window = 0;
    t.sack(0, &[(5 * MSS, 8 * MSS)]);
    t.output();
    t.tcb.congestion.cwnd = MSS;
    for _ in 0..4 {
        t.expires();
        assert_eq!(t.output().iter().map(|out| out.seq).collect::<alloc::vec::Vec<_>>(), [0]);
    }
}

#[test]
fn a_block_that_begins_where_the_acknowledgment_ends_is_no_block() {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::SACK);
    t.write(3 * MSS);
    t.output();
    t.sack(0, &[(0, 2 * MSS)]);
    assert_eq!(t.tcb.cold.as_ref().map_or(0, |cold| cold.sacked_bytes), 0);
    t.expires();
    assert_eq!(t.output()[0].seq, 0);
}

#[test]
fn a_connection_that_cannot_be_is_seen() {
    let mut t = Sender::new();
    assert_eq!(t.tcb.check(&t.env), Ok(()));
    t.tcb.snd_una = t.tcb.snd_nxt.add(1);
    assert!(t.tcb.check(&t.env).is_err());
}

#[test]
fn a_timeout_that_is_not_worked_out_is_the_one_that_would_be() {
    let mut t = Sender::new();
    for srtt_us in [0, 1, 1_000, 40_000, 49_000, 1_000_000] {
        for rttvar_us in [0, 500, 39_000, 40_000, 200_000] {
            for (backoff, persist_backoff) in [(0, 0), (1, 0), (0, 1), (3, 2), (u8::MAX, u8::MAX)] {
                t.tcb.rtt = Rtt { srtt_us, rttvar_us, backoff };
                t.tcb.persist_backoff = persist_backoff;
                assert_eq!(timeout_ms(&t.tcb, &t.env), timeout_worked_out_ms(&t.tcb, &t.env), "{:?}", t.tcb.rtt);
            }
        }
    }
}
