use alloc::format;
use alloc::vec::Vec;

use handfast_drivers::burst::RxBurst;
use handfast_drivers::driver::Driver;
use handfast_drivers::wire;

use super::*;
use crate::config::TcpConfig;
use crate::demux::flow::FlowKey;
use crate::tcp::close;
use crate::tcp::testing::{MSS, Sender};
use crate::time::Instant;
use crate::wire::address::Mac;

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

/// A connection in this state, as far as what is sent next depends on it.
fn about_to_send(state: State, bits: Bits, fin_sent: bool, window: u32, shift: u8, flight: u32) -> Tcb {
    let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let mut tcb = Tcb::new(FlowKey { local, remote, local_port: 1, remote_port: 2 }, Seq(u32::MAX - 2), 1_460);
    if state != State::Closed {
        tcb.begin(state);
    }
    (tcb.bits, tcb.rcv_shift, tcb.ts_recent, tcb.ts_offset) = (bits, shift, 77, 1_000);
    (tcb.rcv_nxt, tcb.last_ack_sent) = (Seq(9), Seq(5));
    tcb.rcv_adv = tcb.rcv_nxt.add(window);
    (tcb.snd_wnd, tcb.snd_wnd_max) = (60_000, 60_000);
    let in_flight = match state {
        State::SynSent => 0,
        _ => {
            tcb.snd_end = tcb.iss.add(11);
            tcb.snd_una = tcb.snd_end.add(flight.wrapping_neg());
            10 + 1
        }
    };
    tcb.snd_nxt = tcb.iss.add(in_flight + u32::from(fin_sent));
    tcb
}

#[test]
fn what_is_sent_at_sight_is_what_would_be_sent_in_any_case() {
    use State::*;
    let config = wire::Config { frames_per_queue: 64, ring_len: 64, ..wire::Config::default() };
    let (mut near, mut far) = wire::pair(config);
    let mut env = Env::new(TcpConfig::default(), near.pool().clone(), 0);
    env.at(Instant::from_micros(50_000_000));
    let link = Ethernet { src: Mac(near.caps().mac), dst: Mac(far.caps().mac), vlan: None, ethertype: 0x0800 };
    let path = Path::new(link, &Address::v4([10, 0, 0, 2]), false);
    let usual = path.usual().expect("IPv4, no tag, checksums of ours");
    let mut sent = |tx: &mut TxBurst| {
        let mut rx = RxBurst::new();
        near.tx_burst(tx);
        near.flush();
        far.rx_burst(&mut rx);
        rx.drain(..).map(|frame| frame.to_vec()).collect::<Vec<_>>()
    };
    let owed = [
        Bits::TIMESTAMPS,
        Bits::ACK_NOW,
        Bits::ACK_DELAYED,
        Bits::FIN_QUEUED,
        Bits::RTX_ARMED,
        Bits::SYN_OWED,
        Bits::WINDOW_CHECK,
        Bits::KEEPALIVE_OWED,
        Bits::FIN_AGAIN,
    ];
    let states = [SynSent, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait, Closed];
    let (mut taken, mut frames) = (0, 0);
    for (state, variant) in states.into_iter().flat_map(|state| (0u32..1 << owed.len()).map(move |v| (state, v))) {
        let has = |at: usize| variant >> at & 1 == 1;
        let bits = owed
            .into_iter()
            .enumerate()
            .fold(Bits::default(), |bits, (at, bit)| bits.and(if has(at) { bit } else { Bits(0) }));
        let shifts = [0, env.fixed.own_shift];
        let windows = [0, 1_000, env.config.recv_buffer_bytes - 1_461, env.config.recv_buffer_bytes + 1];
        for (fin_sent, window, shift, flight) in [false, true].into_iter().flat_map(|fin_sent| {
            windows.into_iter().flat_map(move |window| {
                shifts.into_iter().flat_map(move |shift| [0, 1].map(|flight| (fin_sent, window, shift, flight)))
            })
        }) {
            if matches!(state, FinWait2 | TimeWait) && !fin_sent {
                continue; // our FIN is what led there
            }
            let [mut at_sight, mut in_any_case] =
                [(); 2].map(|()| about_to_send(state, bits, fin_sent, window, shift, flight));
            let (mut tx, before) = (TxBurst::new(), format!("{at_sight:?}"));
            at_sight.bits.set(Bits::OWING);
            let progress = match run_at_sight(&mut at_sight, &mut env, usual, &mut tx, Bits::OWING) {
                AtSight::Done => Progress::Done,
                AtSight::Armed => {
                    assert!(at_sight.bits.has(Bits::RTX_ARMED), "{before}");
                    Progress::Done
                }
                AtSight::Waits(progress) => progress,
                AtSight::Not => {
                    at_sight.bits.clear(Bits::OWING);
                    assert_eq!(format!("{at_sight:?}"), before);
                    continue;
                }
            };
            assert!(!at_sight.bits.has(Bits::OWING), "{before}");
            taken += 1;
            let at_once = sent(&mut tx);
            let expected = match is_owing(&mut in_any_case) {
                true => run(&mut in_any_case, &mut env, &path, &mut tx),
                false => Progress::Done,
            };
            assert_eq!(progress, expected, "{before}");
            assert_eq!(at_once, sent(&mut tx), "{before}");
            frames += at_once.len();
            // Where nothing is sent any more it does not matter what that was limited by.
            at_sight.bits.clear(Bits::CWND_LIMITED);
            in_any_case.bits.clear(Bits::CWND_LIMITED);
            assert_eq!(format!("{at_sight:?}"), format!("{in_any_case:?}"), "{before}");
        }
    }
    assert!(taken > 1_000 && frames > 500, "{taken} taken, {frames} frames");
}
