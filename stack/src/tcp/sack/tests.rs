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
    /// Blocks of any shape, in hundreds of bytes; SACKed is what one block covered whole (RFC 2018), lost is what has three
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
            for (start, end) in blocks.into_iter().filter(|&(start, end)| start < end && end <= 200) {
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
