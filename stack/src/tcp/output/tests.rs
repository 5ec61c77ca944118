use super::*;
use crate::tcp::close;
use crate::tcp::testing::{MSS, Sender};

#[test]
fn nagle_holds_a_short_segment_while_anything_is_unacknowledged() {
    let mut t = Sender::new();
    t.write(10);
    t.sends(&[(0, 10)]);
    t.write(10);
    t.write(10);
    t.sends(&[]);
    t.ack(10);
    t.sends(&[(10, 20)]);
}

#[test]
fn full_segments_do_not_wait_and_a_fin_takes_the_rest_along() {
    let mut t = Sender::new();
    t.write(2 * MSS + 10);
    t.sends(&[(0, MSS), (MSS, MSS)]);
    close::shutdown(&mut t.tcb);
    let sent = t.output();
    assert!(sent.len() == 1 && sent[0].len == 10 && sent[0].flags.fin());
}

#[test]
fn without_nagle_everything_goes_at_once() {
    let mut t = Sender::with(|config| config.nagle = false, Seq(7), 64);
    for n in 0..5 {
        t.write(10);
        t.sends(&[(10 * n, 10)]);
    }
}

#[test]
fn small_frames_of_the_application_are_collected() {
    let mut t = Sender::new();
    t.push(10);
    t.sends(&[(0, 10)]);
    for _ in 0..99 {
        t.push(10);
    }
    t.sends(&[]);
    t.ack(10);
    t.sends(&[(10, 990)]);
}

#[test]
fn short_frames_too_long_to_be_collected_still_obey_nagle() {
    let mut t = Sender::new();
    t.push(400);
    t.sends(&[(0, 400)]);
    t.push(300);
    t.push(300);
    t.sends(&[]);
    t.ack(400);
    // The first goes because nothing is in flight; the second waits for it.
    t.sends(&[(400, 300)]);
}

#[test]
fn the_last_segment_pushes() {
    let mut t = Sender::new();
    t.write(3 * MSS);
    let pushes: alloc::vec::Vec<bool> = t.output().iter().map(|out| out.flags.psh()).collect();
    assert_eq!(pushes, [false, false, true]);
}

#[test]
fn frames_longer_than_a_segment_are_cut() {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::NODELAY);
    t.push(1900);
    t.push(1900);
    t.sends(&[(0, 1000), (1000, 900), (1900, 1000), (2900, 900)]);
}

#[test]
fn a_narrow_window_is_used_when_it_is_half_of_the_widest() {
    let mut t = Sender::new();
    (t.tcb.snd_wnd, t.tcb.snd_wnd_max) = (600, 1000);
    t.write(5 * MSS);
    t.sends(&[(0, 600)]);
    t.window = 100;
    t.ack(600);
    t.sends(&[]); // silly
    t.expires();
    t.sends(&[(600, 100)]); // after the override timeout
}

#[test]
fn a_window_that_shrinks_stops_what_is_new_and_not_what_is_lost() {
    let mut t = Sender::new();
    t.write(20 * MSS);
    assert_eq!(t.output().len(), 10);
    t.window = 2000;
    t.ack(MSS);
    t.sends(&[]);
    t.expires();
    t.sends(&[(MSS, MSS)]);
}

#[test]
fn a_full_burst_is_continued_where_it_stopped() {
    let mut t = Sender::new();
    t.tcb.congestion.cwnd = 200 * MSS;
    (t.tcb.snd_wnd, t.tcb.snd_wnd_max) = (200 * MSS, 200 * MSS);
    t.write(100 * MSS);
    assert_eq!(t.run(), Progress::Full);
    assert_eq!(t.taken().len(), 64);
    assert_eq!(t.run(), Progress::Done);
    assert_eq!(t.taken().len(), 36);
    t.check();
}

#[test]
fn a_probe_is_not_forgotten_when_the_burst_is_full() {
    let mut t = Sender::new();
    t.tcb.snd_wnd = 0;
    t.write(100);
    t.sends(&[]);
    t.expires();
    t.fill_burst();
    assert_eq!(t.run(), Progress::Full);
    t.drain_burst();
    t.sends(&[(0, 1)]);
}

#[test]
fn a_frame_that_the_device_still_has_is_not_sent_again_and_the_timer_runs() {
    let mut t = Sender::new();
    t.write(2 * MSS);
    assert_eq!(t.run(), Progress::Done);
    for _ in 0..4 {
        t.expires();
        assert_eq!(t.run(), Progress::Done);
        assert_eq!(t.tx.len(), 2);
        t.check();
    }
    assert_eq!(t.taken().len(), 2);
    t.expires();
    t.sends(&[(0, MSS)]);
}

#[test]
fn no_frame_for_a_split_is_waited_for() {
    let mut t = Sender::with(|_| {}, Seq(9), 64);
    t.push(1900);
    close::shutdown(&mut t.tcb);
    let mut hoard = alloc::vec::Vec::new();
    while let Some(frame) = t.env.pool.alloc() {
        hoard.push(frame);
    }
    assert_eq!(t.run(), Progress::NoFrame);
    hoard.pop();
    t.sends(&[(0, 1000), (1000, 900)]);
}

#[test]
fn no_frame_to_split_what_is_lost_leaves_the_timer_running() {
    let mut t = Sender::with(|_| {}, Seq(9), 64);
    t.write(MSS);
    t.output();
    t.tcb.mss = 500;
    let mut hoard = alloc::vec::Vec::new();
    while let Some(frame) = t.env.pool.alloc() {
        hoard.push(frame);
    }
    t.expires();
    assert_eq!(t.run(), Progress::NoFrame);
    t.check();
    hoard.clear();
    t.sends(&[(0, 500)]);
}

#[test]
fn the_window_begins_anew_after_a_pause_since_the_last_segment() {
    let mut t = Sender::new();
    t.tcb.congestion.cwnd = 50 * MSS;
    t.tcb.rtt.measured(100_000);
    t.write(MSS);
    t.output();
    t.passes(100);
    t.ack(MSS);
    t.passes(150); // no pause: less than the timeout
    t.write(MSS);
    t.output();
    t.ack(2 * MSS);
    assert_eq!(t.tcb.congestion.cwnd, 50 * MSS);
    t.passes(1_000);
    t.write(30 * MSS);
    assert_eq!(t.output().len(), 10);
}

#[test]
fn a_narrower_path_resends_everything_that_did_not_fit() {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::NODELAY);
    t.write(3 * MSS);
    t.write(300);
    assert_eq!(t.output().len(), 4);
    t.tcb.mss = 500;
    sack::mark_oversized_lost(&mut t.tcb, &mut t.env);
    t.sends(&[(0, 500), (500, 500), (1000, 500), (1500, 500), (2000, 500), (2500, 500)]);
}

#[test]
fn options_take_their_room_from_the_payload() {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::TIMESTAMPS);
    t.write(2 * MSS);
    t.sends(&[(0, MSS - 12), (MSS - 12, MSS - 12)]);
}
