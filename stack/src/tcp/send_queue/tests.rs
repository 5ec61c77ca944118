use super::*;
use crate::tcp::output::Progress;
use crate::tcp::tcb::Bits;
use crate::tcp::testing::{MSS, Sender};
use crate::tcp::timers::Expired;
use crate::tcp::{close, sack};
use crate::time::Duration;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Push(u32),
    Send,
    /// The device takes its time with what is sent.
    SendSlowly,
    /// So many thousandths of what is in flight.
    Ack(u32),
    /// From and to, in thousandths of what is in flight.
    Sack(u32, u32),
    /// The n-th element, after so many bytes.
    Split(usize, u32),
    Narrow(u16),
    Window(u16),
    TimeOut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..5_000).prop_map(Step::Write),
        3 => (1u32..1_800).prop_map(Step::Push),
        4 => Just(Step::Send),
        1 => Just(Step::SendSlowly),
        4 => (0u32..=1_000).prop_map(Step::Ack),
        3 => (0u32..1_000, 0u32..=1_000).prop_map(|(from, to)| Step::Sack(from, to)),
        2 => (0usize..12, 1u32..1_500).prop_map(|(n, len)| Step::Split(n, len)),
        1 => (200u16..1_000).prop_map(Step::Narrow),
        1 => (0u16..60_000).prop_map(Step::Window),
        1 => Just(Step::TimeOut),
    ]
}

/// The queue holds exactly the bytes from SND.UNA on.
fn check_content(t: &Sender) {
    t.check();
    let una = t.acked();
    let held: Vec<u8> = t.env.tx.iter(&t.tcb.tx).flat_map(|(_, held, _)| held.payload().to_vec()).collect();
    let expected: Vec<u8> = (una..t.written()).map(Sender::byte).collect();
    assert_eq!(held, expected);
}

proptest! {
    #[test]
    fn whatever_happens_the_queue_holds_what_is_not_acknowledged(
        steps in proptest::collection::vec(step(), 1..80),
        with_sack: bool,
        iss: u32,
    ) {
        // However often it times out, it does not give up.
        let mut t = Sender::with(|config| config.give_up = Duration::from_secs(100_000), Seq(iss), 256);
        if with_sack {
            t.tcb.bits.set(Bits::SACK);
        }
        for step in steps {
            let (una, flight) = (t.acked(), t.tcb.flight());
            match step {
                Step::Write(len) => drop(t.write(len)),
                Step::Push(len) => if room(&t.tcb, &t.env) > 0 && t.env.pool.free() > 0 {
                    t.push(len);
                },
                Step::Send => drop(t.output()),
                Step::SendSlowly => {
                    t.run();
                }
                Step::Ack(part) => t.ack(una + flight * part / 1_000),
                Step::Sack(from, to) => {
                    let (from, to) = (una + flight * from.min(to) / 1_000, una + flight * to / 1_000);
                    t.sack(una, &[(from, to)]);
                }
                Step::Split(n, len) => {
                    let at = t.env.tx.iter(&t.tcb.tx).nth(n).map(|(at, held, _)| (at, held.len() as u32));
                    if let Some((at, whole)) = at && let Some(first) = split(&mut t.tcb, at, len, &mut t.env) {
                        prop_assert_eq!(t.env.tx.get(first).unwrap().0.len() as u32, len.min(whole));
                    }
                }
                Step::Narrow(mss) => {
                    t.tcb.mss = t.tcb.mss.min(mss);
                    sack::mark_oversized_lost(&mut t.tcb, &mut t.env);
                }
                Step::Window(window) => t.window = window,
                Step::TimeOut => if crate::tcp::timers::next_deadline(&t.tcb).is_some() {
                    prop_assert_eq!(t.expires().1, Expired::Alive);
                    t.run();
                },
            }
            if t.tcb.tx_unsent == NIL || t.run() != Progress::Full {
                check_content(&t);
            }
        }
        // A peer that takes everything gets everything, and nothing is left.
        t.window = 60_000;
        t.taken();
        for _ in 0..1_000 {
            t.ack(t.acked() + t.tcb.flight());
            if t.tcb.tx.is_empty() {
                break;
            }
            if t.output().is_empty() && t.tcb.flight() == 0 {
                t.expires();
                t.output();
            }
        }
        prop_assert!(t.tcb.tx.is_empty() && t.tcb.tx_frames == 0);
    }

    /// A peer that keeps what it gets, acknowledges as RFC 2018 says, and a network that loses what it is told to.
    #[test]
    fn every_byte_arrives_over_any_loss(
        len in 1u32..60_000,
        losses in proptest::collection::vec(0u8..4, 0..120),
        with_sack: bool,
        iss: u32,
    ) {
        // However unlucky, it does not give up.
        let mut t = Sender::with(|config| config.give_up = Duration::from_secs(100_000), Seq(iss), 256);
        if with_sack {
            t.tcb.bits.set(Bits::SACK);
        }
        prop_assert_eq!(t.write(len), len);
        close::shutdown(&mut t.tcb);
        let (mut has, mut fin) = (vec![false; len as usize], false);
        let mut losses = losses.into_iter();
        let mut is_lost = move || losses.next() == Some(0);
        for turn in 0.. {
            prop_assert!(turn < 2_000, "it goes on for ever");
            let mut sent = t.output();
            if sent.is_empty() {
                let (_, expired) = t.expires();
                prop_assert_eq!(expired, Expired::Alive);
                sent = t.output();
            }
            t.passes(3);
            for out in sent {
                if is_lost() {
                    continue;
                }
                has[out.seq as usize..(out.seq + out.len) as usize].fill(true);
                fin |= out.flags.fin();
                let next = has.iter().position(|&has| !has).unwrap_or(len as usize);
                let ack = next as u32 + u32::from(fin && next == len as usize);
                let mut blocks = Vec::new();
                let mut at = next;
                while at < len as usize && blocks.len() < 3 && with_sack {
                    let start = (at..len as usize).find(|&at| has[at]).unwrap_or(len as usize);
                    at = (start..len as usize).find(|&at| !has[at]).unwrap_or(len as usize);
                    if start < at {
                        blocks.push((start as u32, at as u32));
                    }
                }
                if !is_lost() {
                    t.sack(ack, &blocks);
                }
            }
            if t.tcb.fin_acked() {
                break;
            }
        }
        prop_assert!(t.tcb.tx.is_empty());
    }
}

#[test]
fn writing_fills_the_last_segment_first() {
    let mut t = Sender::new();
    t.write(300);
    t.write(300);
    t.write(700);
    let lens: Vec<usize> = t.env.tx.iter(&t.tcb.tx).map(|(_, held, _)| held.len()).collect();
    assert_eq!(lens, [1000, 300]);
}

#[test]
fn room_is_bounded_by_bytes_and_by_frames() {
    let mut t = Sender::with(
        |config| {
            config.send_buffer_bytes = 10_000;
            config.send_frames_max = 6;
        },
        Seq(5),
        256,
    );
    assert_eq!(room(&t.tcb, &t.env), 10_000);
    assert_eq!(t.write(20_000), 6 * MSS);
    assert_eq!(room(&t.tcb, &t.env), 0);
}

#[test]
fn a_writer_without_frames_is_called_again_though_nothing_is_in_flight() {
    let mut t = Sender::with(|_| {}, Seq(5), 64);
    let mut hoard = Vec::new();
    while let Some(frame) = t.env.pool.alloc() {
        hoard.push(frame);
    }
    assert_eq!(t.write(100), 0);
    t.tcb.bits.set(Bits::WANTS_ROOM);
    t.expires();
    assert!(t.tcb.events.take(crate::tcp::tcb::Events::WRITABLE));
    hoard.clear();
    assert_eq!(t.write(100), 100);
    t.sends(&[(0, 100)]);
}

#[test]
fn the_smaller_part_is_copied_at_the_head() {
    let mut t = Sender::new();
    t.push(1000);
    let before = t.env.metrics.get(Counter::PayloadBytesCopied);
    let head = t.tcb.tx.head();
    split(&mut t.tcb, head, 1, &mut t.env).unwrap();
    assert_eq!(t.env.metrics.get(Counter::PayloadBytesCopied) - before, 1);
    let rest = t.tcb.tx.tail();
    split(&mut t.tcb, rest, 900, &mut t.env).unwrap();
    assert_eq!(t.env.metrics.get(Counter::PayloadBytesCopied) - before, 100);
}
