use super::*;
use crate::tcp::testing::{MSS, Sender};
use crate::wire::tcp::Seq;

fn full(n: u32) -> (u32, u32) {
    (n * MSS, MSS)
}

/// Ten segments in flight: the first window.
fn ten_in_flight(sack: bool) -> Sender {
    let mut t = Sender::new();
    if sack {
        t.tcb.bits.set(Bits::SACK);
    }
    t.write(40 * MSS);
    t.sends(&core::array::from_fn::<_, 10, _>(|n| full(n as u32)));
    t
}

#[test]
fn an_acknowledgment_of_what_was_never_sent_is_challenged() {
    let mut t = ten_in_flight(false);
    let seg = t.segment(10 * MSS + 1);
    assert_eq!(t.arrives(&seg), Err(Verdict::Drop(DropReason::AckUnacceptable)));
    assert!(t.tcb.bits.has(Bits::ACK_NOW));
}

#[test]
fn an_acknowledgment_older_than_any_window_is_challenged() {
    let mut t = ten_in_flight(false);
    t.ack(10 * MSS);
    let mut seg = t.segment(0);
    seg.ack = seg.ack - 70_000;
    assert_eq!(t.arrives(&seg), Err(Verdict::Drop(DropReason::AckUnacceptable)));
}

#[test]
fn a_whole_burst_of_acknowledgments_opens_the_window() {
    let mut t = ten_in_flight(false);
    for n in 1..=5 {
        t.ack(2 * n * MSS);
    }
    assert_eq!(t.tcb.congestion.cwnd, 20 * MSS);
}

#[test]
fn a_window_that_was_not_in_use_does_not_open() {
    let mut t = Sender::new();
    t.write(4 * MSS);
    assert_eq!(t.output().len(), 4);
    t.ack(4 * MSS);
    assert_eq!(t.tcb.congestion.cwnd, 10 * MSS);
}

#[test]
fn two_duplicates_let_two_new_segments_go() {
    let mut t = ten_in_flight(false);
    t.ack(0);
    t.sends(&[full(10)]);
    t.ack(0);
    t.sends(&[full(11)]);
    assert_eq!(t.tcb.congestion.phase, Phase::Open);
}

#[test]
fn the_third_duplicate_sends_the_lost_segment_at_once() {
    let mut t = ten_in_flight(false);
    for _ in 0..3 {
        t.ack(0);
    }
    t.sends(&[full(0)]);
    assert_eq!(t.tcb.congestion.phase, Phase::Recovery);
    assert_eq!(t.tcb.congestion.ssthresh, 5 * MSS);
}

#[test]
fn so_do_selective_acknowledgments_of_three_segments() {
    let mut t = ten_in_flight(true);
    t.sack(0, &[(MSS, 4 * MSS)]);
    t.sends(&[full(0)]);
    assert_eq!(t.tcb.congestion.phase, Phase::Recovery);
}

#[test]
fn an_acknowledgment_that_also_tells_of_a_loss_starts_the_recovery() {
    let mut t = ten_in_flight(true);
    t.sack(2 * MSS, &[(3 * MSS, 10 * MSS)]);
    assert_eq!(t.output().first().map(|out| out.seq), Some(2 * MSS));
    assert_eq!(t.tcb.congestion.phase, Phase::Recovery);
}

#[test]
fn with_sack_duplicates_that_tell_nothing_mean_nothing() {
    let mut t = ten_in_flight(true);
    for _ in 0..10 {
        t.ack(0);
    }
    t.sends(&[]);
    assert_eq!(t.tcb.congestion.phase, Phase::Open);
}

#[test]
fn a_partial_acknowledgment_sends_the_next_lost_segment_at_once() {
    let mut t = ten_in_flight(false);
    for _ in 0..3 {
        t.ack(0);
    }
    t.output();
    t.ack(3 * MSS);
    assert_eq!(t.output().first().map(|out| out.seq), Some(3 * MSS));
    t.ack(10 * MSS);
    assert_eq!(t.tcb.congestion.phase, Phase::Open);
}

#[test]
fn duplicates_at_the_end_of_a_recovery_do_not_begin_another() {
    let mut t = ten_in_flight(false);
    for _ in 0..3 {
        t.ack(0);
    }
    t.output();
    t.ack(10 * MSS);
    t.output();
    for _ in 0..3 {
        t.ack(10 * MSS);
    }
    assert_eq!(t.tcb.congestion.phase, Phase::Open);
}

#[test]
fn fast_retransmit_works_two_gigabytes_after_the_last_recovery() {
    let mut t = ten_in_flight(false);
    t.tcb.congestion.recover = Seq(t.tcb.snd_una.0.wrapping_add(0x8000_1000));
    for _ in 0..3 {
        t.ack(0);
    }
    t.sends(&[full(0)]);
}

#[test]
fn window_updates_and_data_are_no_duplicates() {
    let mut t = ten_in_flight(false);
    for n in 0..6 {
        t.window = 50_000 + n;
        t.ack(0);
    }
    for _ in 0..6 {
        let mut seg = t.segment(0);
        seg.payload_len = 10;
        t.arrives(&seg).unwrap();
    }
    assert_eq!(t.tcb.congestion.dup_acks, 0);
}

#[test]
fn a_segment_that_was_sent_twice_is_not_measured() {
    let mut t = Sender::new();
    t.write(MSS);
    t.output();
    t.expires();
    t.output();
    t.passes(5);
    t.ack(MSS);
    assert_eq!(t.tcb.rtt.srtt_us, 0);
}

#[test]
fn what_waited_behind_a_lost_segment_is_not_measured() {
    let mut t = ten_in_flight(false);
    for _ in 0..3 {
        t.ack(0);
    }
    t.output();
    t.passes(300);
    t.ack(10 * MSS);
    assert_eq!(t.tcb.rtt.srtt_us, 0);
}

#[test]
fn the_back_off_lasts_until_something_was_measured() {
    let mut t = Sender::new();
    t.tcb.rtt.measured(10_000);
    t.write(2 * MSS);
    t.sends(&[full(0), full(1)]);
    t.expires();
    t.output();
    t.passes(900); // the path has become slower than the timeout
    t.ack(2 * MSS);
    assert_eq!(t.tcb.rtt.backoff, 1);
    t.write(MSS);
    t.output();
    t.passes(300);
    t.ack(3 * MSS);
    assert_eq!(t.tcb.rtt.backoff, 0);
    assert!(t.tcb.rtt.srtt_us > 40_000);
}

#[test]
fn a_timestamp_measures_a_retransmission_but_not_what_came_before_it() {
    for (ago_ms, backoff) in [(7, 0), (250, 1)] {
        let mut t = Sender::new();
        t.tcb.bits.set(Bits::TIMESTAMPS);
        t.tcb.rtt.measured(10_000);
        t.write(900);
        t.output();
        t.expires();
        t.output();
        t.passes(7);
        t.ack_echoing(900, ago_ms);
        assert_eq!(t.tcb.rtt.backoff, backoff);
        assert!(t.tcb.rtt.srtt_us < 11_000);
    }
}

#[test]
fn new_acknowledgments_restart_the_timer_and_the_last_stops_it() {
    let mut t = ten_in_flight(false);
    t.passes(100);
    t.ack(MSS);
    let deadline = timers::next_deadline(&t.tcb).unwrap();
    assert!(deadline.wrapping_sub(t.env.now_ms) > 200);
    t.ack(10 * MSS);
    assert_eq!(timers::next_deadline(&t.tcb), None);
}

#[test]
fn the_application_hears_of_room_once_a_quarter_of_the_buffer_is_free() {
    let mut t = Sender::with(|config| config.send_buffer_bytes = 8_000, Seq(1), 256);
    assert_eq!(t.write(20_000), 8_000);
    t.tcb.bits.set(Bits::WANTS_ROOM);
    t.output();
    t.ack(MSS);
    assert!(t.tcb.events.is_empty());
    t.ack(2 * MSS);
    assert!(t.tcb.events.take(Events::WRITABLE));
}

#[test]
fn an_older_segment_does_not_set_the_window() {
    let mut t = ten_in_flight(false);
    t.ack(2 * MSS);
    let mut old = t.segment(2 * MSS);
    (old.seq, old.window) = (old.seq - 1, 5);
    t.arrives(&old).unwrap();
    assert_eq!(t.tcb.snd_wnd, 60_000);
}

/// Found by worlds, seed 8 first: text went beyond the window.
#[test]
fn old_text_sent_again_that_acknowledges_more_sets_the_window() {
    let mut t = ten_in_flight(false);
    t.ack(2 * MSS);
    let mut again = t.segment(4 * MSS);
    (again.seq, again.window) = (again.seq - 1, 7_000);
    t.arrives(&again).unwrap();
    assert_eq!((t.tcb.snd_una, t.tcb.snd_wnd), (again.ack, 7_000));
}
