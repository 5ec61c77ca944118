use super::*;
use crate::tcp::tcb::Bits;
use crate::tcp::testing::{MSS, Sender};
use alloc::vec::Vec;
use proptest::prelude::*;

/// A connection with SACK and so many segments in flight.
fn in_flight(segments: u32) -> Sender {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::SACK);
    t.tcb.congestion.cwnd = 1_000 * MSS;
    t.write(segments * MSS);
    assert_eq!(t.output().len() as u32, segments);
    t
}

fn marks(t: &Sender) -> (Vec<bool>, Vec<bool>) {
    let notes = || t.env.tx.iter(&t.tcb.tx).map(|(_, _, slot)| slot.note);
    (notes().map(|sent| sent.sacked).collect(), notes().map(|sent| sent.lost).collect())
}

proptest! {
    /// Blocks of any shape, in hundreds of bytes, but none that begins where the acknowledgment ends; SACKed is what one block covered whole (RFC 2018), lost is what has three
    /// SACKed segments or more than two segments' bytes of them above (RFC 6675 §4).
    #[test]
    fn the_scoreboard_is_a_set_of_segments(
        blocks in proptest::collection::vec(proptest::collection::vec((0u32..220, 0u32..220), 1..4), 1..12)
    ) {
        let mut t = in_flight(20);
        let mut sacked = [false; 20];
        for blocks in blocks {
            let mut told = SackBlocks::EMPTY;
            for &(start, end) in &blocks {
                told.push(t.tcb.snd_una.add(start * 100), t.tcb.snd_una.add(end * 100));
            }
            let before = sacked;
            for (start, end) in blocks.into_iter().filter(|&(start, end)| 0 < start && start < end && end <= 200) {
                for (n, sacked) in sacked.iter_mut().enumerate() {
                    *sacked |= start <= n as u32 * 10 && n as u32 * 10 + 10 <= end;
                }
            }
            prop_assert_eq!(update(&mut t.tcb, &told, &mut t.env), before != sacked);
            mark_lost(&mut t.tcb, &mut t.env);
            let lost: Vec<bool> = (0..20).map(|n| !sacked[n] && sacked[n..].iter().filter(|&&s| s).count() >= 3).collect();
            prop_assert_eq!(marks(&t), (sacked.to_vec(), lost.clone()));
            let gone = sacked.iter().chain(&lost).filter(|&&gone| gone).count() as u32;
            prop_assert_eq!(t.tcb.pipe(), (20 - gone) * MSS);
            t.check();
        }
    }
}

#[test]
fn blocks_that_repeat_or_lie_beyond_are_no_news() {
    let mut t = in_flight(6);
    t.ack(2 * MSS);
    for (start, end) in [(0, 2 * MSS), (0, 4 * MSS), (5 * MSS, 7 * MSS), (4 * MSS, 4 * MSS), (5 * MSS, 3 * MSS)] {
        let mut told = SackBlocks::EMPTY;
        let first = t.tcb.snd_una - 2 * MSS;
        told.push(first.add(start), first.add(end));
        assert!(!update(&mut t.tcb, &told, &mut t.env), "{start} to {end}");
    }
}

#[test]
fn a_timeout_forgets_what_was_selectively_acknowledged() {
    let mut t = in_flight(6);
    t.sack(0, &[(4 * MSS, 6 * MSS)]);
    t.expires();
    assert_eq!(marks(&t), (alloc::vec![false; 6], alloc::vec![true; 6]));
    assert_eq!(t.tcb.pipe(), 0);
    t.sends(&[(0, MSS)]);
}

#[test]
fn what_was_sent_again_is_not_lost_again_by_the_same_evidence() {
    let mut t = in_flight(8);
    t.sack(0, &[(MSS, 4 * MSS)]);
    t.sends(&[(0, MSS)]);
    t.sack(0, &[(MSS, 7 * MSS)]);
    t.sends(&[]);
    t.ack(8 * MSS);
    assert_eq!((t.tcb.lost_bytes(), t.tcb.pipe()), (0, 0));
}

#[test]
fn a_fin_is_not_in_the_pipe() {
    let mut t = in_flight(2);
    crate::tcp::close::shutdown(&mut t.tcb);
    t.output();
    assert_eq!((t.tcb.flight(), t.tcb.pipe()), (2 * MSS + 1, 2 * MSS));
    t.ack(2 * MSS + 1);
    assert_eq!((t.tcb.flight(), t.tcb.pipe()), (0, 0));
}

/// The same with a round trip of 20 ms.
fn on_a_path(segments: u32) -> Sender {
    let mut t = Sender::new();
    t.tcb.bits.set(Bits::SACK);
    t.tcb.congestion.cwnd = 1_000 * MSS;
    t.tcb.rtt.measured(20_000);
    t.write(segments * MSS);
    assert_eq!(t.output().len() as u32, segments);
    t
}

#[test]
fn a_tail_that_is_lost_is_probed_after_two_round_trips_and_the_timeout_waits() {
    let mut t = on_a_path(4);
    assert_eq!(t.expires(), (41, crate::tcp::timers::Expired::Alive));
    t.sends(&[(3 * MSS, MSS)]);
    // The probe arrives: all that was sent before it did not.
    t.passes(20);
    t.sack(0, &[(3 * MSS, 4 * MSS)]);
    assert_eq!(marks(&t).1, [true, true, true, false]);
    assert_eq!(t.output()[0].seq, 0);
    assert_eq!(t.tcb.rtt.backoff, 0);
}

#[test]
fn a_probe_that_is_not_answered_is_followed_by_the_timeout() {
    let mut t = on_a_path(4);
    t.expires();
    t.sends(&[(3 * MSS, MSS)]);
    assert!(t.expires().0 >= 200);
    t.sends(&[(0, MSS)]);
    assert_eq!(t.tcb.rtt.backoff, 1);
}

#[test]
fn a_single_segment_is_not_probed_before_the_peer_must_have_acknowledged_it() {
    let mut t = on_a_path(1);
    assert!(t.expires().0 >= 200);
}

#[test]
fn what_was_sent_again_and_lost_again_is_found_by_what_was_sent_after_it() {
    let mut t = on_a_path(8);
    t.write(2 * MSS);
    t.passes(20);
    t.sack(0, &[(MSS, 8 * MSS)]);
    t.sends(&[(0, MSS), (8 * MSS, MSS), (9 * MSS, MSS)]);
    t.passes(30); // the probe is due 41 ms after that
    t.sack(0, &[(MSS, 10 * MSS)]);
    t.sends(&[]);
    assert!(t.expires().0 <= 6);
    t.sends(&[(0, MSS)]);
}

#[test]
fn what_is_overtaken_by_a_little_is_not_lost_and_by_a_quarter_of_a_round_trip_it_is() {
    let mut t = on_a_path(3);
    t.passes(20);
    t.sack(0, &[(MSS, 2 * MSS)]);
    t.sends(&[]);
    let (waited_ms, _) = t.expires();
    assert!((5..=6).contains(&waited_ms), "{waited_ms}");
    t.sends(&[(0, MSS)]);
    // The third was sent after all that is known to have arrived.
    assert_eq!(marks(&t).1, [false; 3]);
    let mut t = on_a_path(3);
    t.passes(20);
    t.sack(0, &[(MSS, 2 * MSS)]);
    t.passes(3);
    t.ack(3 * MSS);
    t.sends(&[]);
    assert_eq!(t.tcb.congestion.phase, crate::tcp::congestion::Phase::Open);
}

#[test]
fn a_delivery_of_an_hour_ago_overtakes_nothing_that_is_sent_now() {
    for minutes in [1, 34, 36, 60, 71, 73, 110, 150] {
        let mut t = in_flight(6);
        t.sack(0, &[(2 * MSS, 3 * MSS)]);
        t.ack(6 * MSS);
        t.passes(minutes * 60_000);
        t.write(4 * MSS);
        t.output();
        t.passes(300);
        mark_overtaken_lost(&mut t.tcb, &mut t.env);
        assert_eq!(t.tcb.lost_bytes(), 0, "after {minutes} minutes");
        // What is delivered now counts again.
        t.sack(6 * MSS, &[(8 * MSS, 9 * MSS)]);
        t.passes(300);
        mark_overtaken_lost(&mut t.tcb, &mut t.env);
        assert_eq!(t.tcb.lost_bytes(), 2 * MSS, "after {minutes} minutes");
    }
}
