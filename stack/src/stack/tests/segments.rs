//! One stack and a peer made by hand: each segment is written here, and each answer is looked at.

use alloc::string::String;

use super::peer::*;
use super::*;
use crate::tcp::state::State;
use crate::wire::icmp::{ErrorKind, IcmpError, Quoted};
use crate::wire::tcp::Flags;

type Row = (&'static str, Start, Out, Vec<Answer>, State);

fn check(rows: Vec<Row>) {
    for (name, start, out, answers, next) in rows {
        let mut peer = start();
        assert_eq!(peer.send(out.clone()), answers, "{name}: {out:?}");
        assert_eq!(peer.state(), next, "{name}");
    }
}

#[test]
fn every_state_is_reached() {
    let states: [(Start, State); 11] = [
        (listen, State::Closed),
        (syn_sent, State::SynSent),
        (half_open, State::SynReceived),
        (syns_crossed, State::SynReceived),
        (established, State::Established),
        (fin_wait_1, State::FinWait1),
        (fin_wait_2, State::FinWait2),
        (close_wait, State::CloseWait),
        (closing, State::Closing),
        (last_ack, State::LastAck),
        (time_wait, State::TimeWait),
    ];
    for (start, state) in states {
        assert_eq!(start().state(), state);
    }
}

#[test]
fn closed_and_listen_answer_as_the_rfc_says() {
    let closed = |out: Out| out.ack(500);
    check(vec![
        ("LISTEN ignores RST", listen, segment(RST, 5), vec![], State::Closed),
        ("LISTEN resets ACK", listen, closed(segment(ACK, 5)), vec![answer(RST, 500, 0)], State::Closed),
        ("LISTEN resets SYN-ACK", listen, closed(segment(SYN_ACK, 5)), vec![answer(RST, 500, 0)], State::Closed),
        ("LISTEN ignores what has no flag", listen, segment(Flags(0), 5), vec![], State::Closed),
        ("LISTEN ignores FIN alone", listen, segment(Flags::FIN, 5), vec![], State::Closed),
        ("LISTEN ignores SYN with FIN", listen, segment(SYN | Flags::FIN, 5), vec![], State::Closed),
        ("LISTEN takes SYN", listen, segment(SYN, IRS), vec![answer(SYN_ACK, 0, NXT)], State::SynReceived),
        (
            "and not its text",
            listen,
            segment(SYN, IRS).data(b"text"),
            vec![answer(SYN_ACK, 0, NXT)],
            State::SynReceived,
        ),
    ]);
}

#[test]
fn a_closed_port_resets_with_numbers_that_the_sender_believes() {
    let mut peer = Peer::new();
    peer.header.dst_port = 81;
    assert_eq!(peer.send(segment(SYN, IRS).data(b"ab")), [answer(RST_ACK, 0, IRS + 3)]);
    assert_eq!(peer.send(segment(FIN_ACK, 7).ack(77)), [answer(RST, 77, 0)]);
    assert_eq!(peer.send(segment(RST, 7)), []);
    assert_eq!(peer.drops(DropReason::NoConnection), 2);
    peer.assert_all_is_back();
}

#[test]
fn syn_sent_answers_as_the_rfc_says() {
    check(vec![
        ("a wrong ACK is reset", syn_sent, segment(ACK, 9).ack(0), vec![answer(RST, 0, 0)], State::SynSent),
        ("one beyond too", syn_sent, segment(ACK, 9).ack(2), vec![answer(RST, 2, 0)], State::SynSent),
        ("and with SYN", syn_sent, segment(SYN_ACK, 9).ack(2), vec![answer(RST, 2, 0)], State::SynSent),
        ("a reset with a wrong ACK is ignored", syn_sent, segment(RST_ACK, 9).ack(2), vec![], State::SynSent),
        ("a reset without ACK is ignored", syn_sent, segment(RST, 9), vec![], State::SynSent),
        ("a reset of our SYN ends it", syn_sent, segment(RST_ACK, 9), vec![], State::Closed),
        ("an ACK of our SYN alone is ignored", syn_sent, segment(ACK, 9), vec![], State::SynSent),
        ("FIN alone is ignored", syn_sent, segment(Flags::FIN, 9), vec![], State::SynSent),
        ("SYN-ACK opens", syn_sent, segment(SYN_ACK, IRS), vec![answer(ACK, 1, NXT)], State::Established),
        ("SYN crosses", syn_sent, segment(SYN, IRS), vec![answer(SYN_ACK, 0, NXT)], State::SynReceived),
        (
            "SYN-ACK with text",
            syn_sent,
            segment(SYN_ACK, IRS).data(b"text"),
            vec![answer(ACK, 1, NXT + 4)],
            State::Established,
        ),
        (
            "SYN-ACK with text and FIN",
            syn_sent,
            segment(SYN_ACK | Flags::FIN, IRS).data(b"text"),
            vec![answer(ACK, 1, NXT + 5)],
            State::CloseWait,
        ),
    ]);
}

#[test]
fn syn_received_answers_as_the_rfc_says() {
    check(vec![
        ("the SYN again", half_open, segment(SYN, IRS), vec![answer(SYN_ACK, 0, NXT)], State::SynReceived),
        ("another SYN", half_open, segment(SYN, 77), vec![answer(ACK, 1, NXT)], State::SynReceived),
        ("RST in its place", half_open, segment(RST, NXT), vec![], State::Closed),
        ("RST in the window", half_open, segment(RST, NXT + 1), vec![answer(ACK, 1, NXT)], State::SynReceived),
        ("RST outside", half_open, segment(RST, IRS), vec![], State::SynReceived),
        ("old text", half_open, segment(ACK, IRS - 9).data(b"x"), vec![answer(ACK, 1, NXT)], State::SynReceived),
        ("a wrong ACK", half_open, segment(ACK, NXT).ack(2), vec![answer(RST, 2, 0)], State::SynReceived),
        ("no ACK", half_open, segment(Flags::FIN, NXT), vec![], State::SynReceived),
        ("the ACK", half_open, segment(ACK, NXT), vec![], State::Established),
        ("with text", half_open, segment(ACK, NXT).data(b"hi"), vec![answer(ACK, 1, NXT + 2)], State::Established),
        ("with FIN", half_open, segment(FIN_ACK, NXT), vec![answer(ACK, 1, NXT + 1)], State::CloseWait),
        (
            "text out of order",
            half_open,
            segment(ACK, NXT + 2).data(b"x"),
            vec![answer(ACK, 1, NXT)],
            State::Established,
        ),
    ]);
}

#[test]
fn crossed_syns_answer_as_the_rfc_says() {
    check(vec![
        ("SYN-ACK completes", syns_crossed, segment(SYN_ACK, IRS), vec![answer(ACK, 1, NXT)], State::Established),
        ("so does ACK", syns_crossed, segment(ACK, NXT), vec![], State::Established),
        ("the SYN again", syns_crossed, segment(SYN, IRS), vec![answer(SYN_ACK, 0, NXT)], State::SynReceived),
        ("another SYN", syns_crossed, segment(SYN, 77), vec![answer(ACK, 1, NXT)], State::SynReceived),
        ("a wrong ACK", syns_crossed, segment(ACK, NXT).ack(2), vec![answer(RST, 2, 0)], State::SynReceived),
        ("RST in its place", syns_crossed, segment(RST, NXT), vec![], State::Closed),
    ]);
    let mut peer = syns_crossed();
    peer.send(segment(RST, NXT));
    assert_eq!(peer.log(), "Refused"); // RFC 9293 §3.10.7.4, second: an active open was refused.
}

/// The states in which a peer's segment has to pass all steps, with SND.NXT relative to our ISS and RCV.NXT.
const SYNCHRONISED: [(Start, State, u32, u32); 7] = [
    (established, State::Established, 1, NXT),
    (fin_wait_1, State::FinWait1, 2, NXT),
    (fin_wait_2, State::FinWait2, 2, NXT),
    (close_wait, State::CloseWait, 1, NXT + 1),
    (closing, State::Closing, 2, NXT + 1),
    (last_ack, State::LastAck, 2, NXT + 1),
    (unread_time_wait, State::TimeWait, 2, NXT + 7),
];

#[test]
fn synchronised_states_reset_only_at_the_left_edge() {
    for (start, state, nxt, rcv) in SYNCHRONISED {
        let mut peer = start();
        let waits = state == State::TimeWait;
        assert_eq!(peer.send(segment(RST, rcv - 1)), [], "{state:?}");
        let challenge = if waits { vec![] } else { vec![answer(ACK, nxt, rcv)] };
        assert_eq!(peer.send(segment(RST, rcv + 1)), challenge, "{state:?}: RFC 5961 §3.2");
        assert_eq!(peer.state(), state);
        assert_eq!(peer.send(segment(RST, rcv)), [], "{state:?}");
        assert_eq!(peer.state(), if waits { State::TimeWait } else { State::Closed }, "RFC 1337 §4");
    }
}

#[test]
fn synchronised_states_challenge_a_syn_wherever_it_is() {
    for (start, state, nxt, rcv) in SYNCHRONISED {
        for seq in [77, rcv - 1, rcv, rcv + 1] {
            let mut peer = start();
            assert_eq!(peer.send(segment(SYN, seq)), [answer(ACK, nxt, rcv)], "{state:?}: RFC 5961 §4.2");
            assert_eq!(peer.state(), state);
            assert_eq!(peer.get(Counter::ChallengeAcks), 1);
        }
    }
}

#[test]
fn synchronised_states_acknowledge_what_is_outside_the_window() {
    for (start, state, nxt, rcv) in SYNCHRONISED {
        for out in [segment(ACK, rcv - 1), segment(ACK, rcv - 4).data(b"old"), segment(ACK, rcv + 70_000).data(b"far")]
        {
            let mut peer = start();
            assert_eq!(peer.send(out), [answer(ACK, nxt, rcv)], "{state:?}");
            assert_eq!(peer.state(), state);
        }
    }
}

#[test]
fn synchronised_states_refuse_an_ack_of_what_was_never_sent() {
    for (start, state, nxt, rcv) in SYNCHRONISED {
        let mut peer = start();
        assert_eq!(peer.send(segment(ACK, rcv).ack(nxt + 1).data(b"x")), [answer(ACK, nxt, rcv)], "{state:?}");
        let mut peer = start();
        assert_eq!(peer.send(segment(ACK, rcv).ack(nxt.wrapping_sub(20_000))), [answer(ACK, nxt, rcv)], "{state:?}");
        assert_eq!(peer.state(), state, "RFC 5961 §5.2");
        assert_eq!(peer.send(segment(Flags(0), rcv).data(b"x")), [], "{state:?}: no ACK, nothing");
        assert_eq!(peer.drops(DropReason::NoAck), 1);
    }
}

#[test]
fn fins_and_their_acknowledgments_move_the_states() {
    let fin = || segment(FIN_ACK, NXT);
    check(vec![
        ("FIN in ESTABLISHED", established, fin(), vec![answer(ACK, 1, NXT + 1)], State::CloseWait),
        ("with text", established, fin().data(b"ab"), vec![answer(ACK, 1, NXT + 3)], State::CloseWait),
        ("FIN and ACK of ours", fin_wait_1, fin(), vec![answer(ACK, 2, NXT + 1)], State::TimeWait),
        ("FIN alone", fin_wait_1, fin().ack(1), vec![answer(ACK, 2, NXT + 1)], State::Closing),
        ("ACK of our FIN", fin_wait_1, segment(ACK, NXT), vec![], State::FinWait2),
        (
            "text in FIN-WAIT-1",
            fin_wait_1,
            segment(ACK, NXT).ack(1).data(b"a"),
            vec![answer(ACK, 2, NXT + 1)],
            State::FinWait1,
        ),
        (
            "text in FIN-WAIT-2",
            fin_wait_2,
            segment(ACK, NXT).data(b"a"),
            vec![answer(ACK, 2, NXT + 1)],
            State::FinWait2,
        ),
        ("FIN in FIN-WAIT-2", fin_wait_2, fin(), vec![answer(ACK, 2, NXT + 1)], State::TimeWait),
        ("FIN again in CLOSE-WAIT", close_wait, fin(), vec![answer(ACK, 1, NXT + 1)], State::CloseWait),
        ("FIN again in CLOSING", closing, fin().ack(1), vec![answer(ACK, 2, NXT + 1)], State::Closing),
        ("FIN again in LAST-ACK", last_ack, fin().ack(1), vec![answer(ACK, 2, NXT + 1)], State::LastAck),
        ("ACK of our FIN in CLOSING", closing, segment(ACK, NXT + 1), vec![], State::TimeWait),
        ("ACK of our FIN in LAST-ACK", last_ack, segment(ACK, NXT + 1), vec![], State::Closed),
        ("text after the FIN", close_wait, segment(ACK, NXT + 1).data(b"more"), vec![], State::CloseWait),
    ]);
}

#[test]
fn time_wait_answers_as_the_rfcs_say() {
    let rcv = NXT + 1;
    check(vec![
        ("RST is ignored", time_wait, segment(RST, rcv), vec![], State::TimeWait),
        ("the FIN again", time_wait, segment(FIN_ACK, NXT), vec![answer(ACK, 2, rcv)], State::TimeWait),
        ("its ACK needs no answer", time_wait, segment(ACK, rcv), vec![], State::TimeWait),
        ("old text", time_wait, segment(ACK, NXT - 9).data(b"old"), vec![answer(ACK, 2, rcv)], State::TimeWait),
        ("an old SYN", time_wait, segment(SYN, NXT), vec![answer(ACK, 2, rcv)], State::TimeWait),
        ("a SYN with FIN", time_wait, segment(SYN | Flags::FIN, rcv + 9), vec![], State::TimeWait),
    ]);
    let mut peer = time_wait();
    let sent = peer.send(segment(SYN, rcv + 9));
    assert_eq!((sent[0].flags, sent[0].ack), (SYN_ACK, rcv + 10), "RFC 9293 MAY-2");
    assert_eq!(peer.state(), State::SynReceived);
    assert_eq!(peer.get(Counter::TimeWaitReused), 1);
}

#[test]
fn a_new_connection_out_of_time_wait_begins_above_the_old_one() {
    let mut peer = time_wait();
    let old = peer.iss;
    peer.send(segment(SYN, NXT + 9));
    assert!(peer.iss.after(old.add(2)));
}

#[test]
fn a_fin_that_comes_again_restarts_two_msl() {
    let mut peer = time_wait();
    peer.wait(Duration::from_millis(1_900));
    peer.send(segment(FIN_ACK, NXT));
    assert_eq!(peer.get(Counter::TimeWaitRestarts), 1);
    peer.wait(Duration::from_millis(1_900));
    assert_eq!(peer.state(), State::TimeWait);
    peer.wait(Duration::from_millis(200));
    assert_eq!(peer.state(), State::Closed);
    peer.assert_all_is_back();
}

#[test]
fn a_backlog_that_is_full_leaves_time_wait_alone() {
    let mut peer = time_wait();
    for port in 0..16 {
        peer.put(segment(SYN, IRS).port(1_000 + port));
    }
    peer.turn();
    assert_eq!(peer.host.stack.half_open(), 16);
    assert_eq!(peer.send(segment(SYN, NXT + 9)), []);
    assert_eq!((peer.host.stack.time_waits(), peer.drops(DropReason::BacklogFull)), (1, 1));
}

/// An established connection with timestamps; the peer's clock stands at 500.
fn stamped() -> Peer {
    let mut peer = Peer::new();
    peer.send(segment(SYN, IRS).stamp(500));
    assert_eq!(peer.send(segment(ACK, NXT).stamp(500)), []);
    peer
}

#[test]
fn a_handshake_needs_its_timestamps() {
    let mut peer = Peer::new();
    peer.send(segment(SYN, IRS).stamp(500));
    assert_eq!(peer.send(segment(ACK, NXT)), []);
    assert_eq!((peer.state(), peer.drops(DropReason::TimestampMissing)), (State::SynReceived, 1));
    assert_eq!(peer.send(segment(ACK, NXT).stamp(499)), [answer(ACK, 1, NXT)]);
    assert_eq!(peer.send(segment(ACK, NXT).stamp(501)), []);
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn an_old_timestamp_is_acknowledged_and_dropped_but_a_reset_counts() {
    let mut peer = stamped();
    assert_eq!(peer.send(segment(ACK, NXT).stamp(499).data(b"old")), [answer(ACK, 1, NXT)]);
    assert_eq!(peer.drops(DropReason::PawsFailed), 1);
    assert_eq!(peer.send(segment(ACK, NXT).data(b"bare")), []);
    assert_eq!(peer.drops(DropReason::TimestampMissing), 1);
    peer.send(segment(RST, NXT));
    assert_eq!(peer.log(), "Accepted Reset");
}

#[test]
fn a_reset_of_ours_carries_timestamps_if_they_were_agreed() {
    for (mut peer, echo) in [(stamped(), Some(500)), (established(), None)] {
        assert_eq!(peer.call(|cx, conn| cx.abort(conn)).1, [answer(RST_ACK, 1, NXT)]);
        assert_eq!(peer.echo, echo);
        peer.assert_all_is_back();
    }
}

#[test]
fn the_timestamp_of_a_segment_beyond_the_last_ack_is_not_echoed() {
    let mut peer = stamped();
    let recent = |peer: &Peer| peer.host.stack.conns.iter().next().unwrap().1.ts_recent;
    peer.send(segment(ACK, NXT + 5).stamp(600).data(b"later"));
    assert_eq!(recent(&peer), 500, "RFC 7323 §4.3, (2)");
    peer.send(segment(ACK, NXT).stamp(550).data(b"first"));
    assert_eq!(recent(&peer), 550);
    assert_eq!(peer.host.app.read, b"firstlater");
}

/// TIME-WAIT of a connection with timestamps; the peer's clock stands at 600.
fn stamped_time_wait() -> Peer {
    let mut peer = stamped();
    peer.shutdown();
    peer.send(segment(FIN_ACK, NXT).stamp(600));
    assert_eq!(peer.state(), State::TimeWait);
    peer
}

#[test]
fn a_later_timestamp_reuses_time_wait_whatever_the_sequence_number() {
    for (seq, stamp, reused) in [(5, 601, true), (5, 600, false), (NXT + 1, 600, true), (NXT + 9, 599, false)] {
        let mut peer = stamped_time_wait();
        peer.send(segment(SYN, seq).stamp(stamp));
        assert_eq!(peer.get(Counter::TimeWaitReused), u64::from(reused), "RFC 6191 §2: {seq} {stamp}");
    }
    // The FIN came again later: that is the time that counts.
    let mut peer = stamped_time_wait();
    peer.send(segment(FIN_ACK, NXT).stamp(700));
    peer.send(segment(SYN, 5).stamp(650));
    assert_eq!(peer.get(Counter::TimeWaitReused), 0);
}

#[test]
fn the_window_of_a_syn_ack_is_not_scaled() {
    let mut peer = syn_sent();
    let mut out = segment(SYN_ACK, IRS).window(1_000);
    out.header.options.window_scale = Some(7);
    peer.send(out);
    let window = |peer: &Peer| peer.host.stack.conns.iter().next().unwrap().1.snd_wnd;
    assert_eq!(window(&peer), 1_000, "RFC 7323 §2.2");
    peer.send(segment(ACK, NXT).window(10));
    assert_eq!(window(&peer), 1_280);
}

#[test]
fn a_fin_with_text_that_is_known_already_counts() {
    let mut peer = established();
    peer.send(segment(ACK, NXT).data(b"abc"));
    assert_eq!(peer.send(segment(FIN_ACK, NXT).data(b"abc")), [answer(ACK, 1, NXT + 4)]);
    assert_eq!((peer.state(), peer.log()), (State::CloseWait, "Accepted Data PeerClosed"));
}

#[test]
fn a_fin_out_of_order_waits_for_the_text_before_it() {
    let mut peer = established();
    assert_eq!(peer.send(segment(FIN_ACK, NXT + 6)), [answer(ACK, 1, NXT)]);
    peer.send(segment(ACK, NXT + 3).data(b"def"));
    assert_eq!(peer.send(segment(ACK, NXT).data(b"abc")), [answer(ACK, 1, NXT + 7)]);
    assert_eq!(peer.host.app.read, b"abcdef");
    assert_eq!((peer.state(), peer.log()), (State::CloseWait, "Accepted Data PeerClosed"));
}

#[test]
fn nothing_is_taken_from_beyond_a_fin() {
    let mut peer = established();
    peer.send(segment(FIN_ACK, NXT + 3));
    peer.send(segment(ACK, NXT + 3).data(b"beyond"));
    assert_eq!(peer.send(segment(ACK, NXT).data(b"abcdef")), [answer(ACK, 1, NXT + 4)]);
    assert_eq!((peer.state(), &peer.host.app.read[..]), (State::CloseWait, &b"abc"[..]));
    // Nor does a FIN count that contradicts what came.
    let mut peer = established();
    peer.send(segment(ACK, NXT + 3).data(b"def"));
    peer.send(segment(FIN_ACK, NXT + 4));
    peer.send(segment(ACK, NXT).data(b"abc"));
    assert_eq!((peer.state(), &peer.host.app.read[..]), (State::Established, &b"abcdef"[..]));
}

#[test]
fn small_segments_out_of_order_do_not_keep_the_missing_one_out() {
    for step in [1, 2] {
        let mut peer = Peer::with(|config| config.tcp.recv_frames_max = 64);
        peer.send(segment(SYN, IRS));
        peer.send(segment(ACK, NXT));
        for at in (1..400).step_by(step) {
            peer.send(segment(ACK, NXT + at).data(b"x"));
        }
        peer.send(segment(ACK, NXT).data(b"x"));
        assert!(!peer.host.app.read.is_empty(), "every {step}");
    }
}

#[test]
fn what_is_out_of_order_leaves_frames_to_what_is_not() {
    let mut peer = Peer::new();
    for port in 1..10 {
        peer.header.dst_port = 0;
        peer.send(segment(SYN, IRS).port(port));
        peer.send(segment(ACK, NXT).port(port));
        for at in (1..200).step_by(2) {
            peer.send(segment(ACK, NXT + at).data(b"x").port(port));
        }
    }
    assert!(peer.drops(DropReason::ReassemblyFull) > 0);
    assert!(peer.host.stack.pool().free() > 16, "{}", peer.host.stack.pool().free());
    peer.header.dst_port = 0;
    peer.send(segment(SYN, IRS));
    peer.send(segment(ACK, NXT).data(b"still"));
    assert_eq!(peer.host.app.read, b"still");
}

#[test]
fn one_byte_segments_to_a_reader_that_sleeps_share_frames() {
    let mut peer = established();
    peer.host.app.lazy = true;
    for at in 0..300 {
        peer.send(segment(ACK, NXT + at).data(b"x"));
    }
    let tcb = peer.host.stack.conns.iter().next().unwrap().1;
    assert_eq!(tcb.rx_bytes, 300);
    let half = peer.host.stack.config().tcp.recv_frames_max / 2;
    assert!(tcb.rx_frames <= half, "{}", tcb.rx_frames);
}

#[test]
fn the_windows_right_edge_never_moves_left_and_text_beyond_it_is_cut_off() {
    let mut peer = Peer::with(|config| config.tcp.recv_buffer_bytes = 4_096);
    peer.send(segment(SYN, IRS));
    peer.send(segment(ACK, NXT));
    peer.host.app.lazy = true;
    let (mut at, mut edge) = (NXT, 0);
    for _ in 0..6 {
        let sent = peer.send(segment(ACK, at).data(&[7; 1_000]));
        at = sent[0].ack;
        assert!(at + peer.window >= edge, "the edge moved left");
        edge = at + peer.window;
    }
    assert_eq!((at, peer.window), (NXT + 4_096, 0));
    // A probe of the closed window is answered, and its acknowledgment and reset still count (MUST-66).
    assert_eq!(peer.send(segment(ACK, at).data(b"?")), [answer(ACK, 1, at)]);
    // It opens again once the application reads.
    let opened = peer.call(|cx, conn| while cx.recv(conn).is_some() {}).1;
    assert_eq!(opened, [answer(ACK, 1, at)]);
    assert_eq!(peer.window, 4_096);
    peer.send(segment(RST, at));
    assert_eq!(peer.log(), "Accepted Data Data Data Data Data Reset");
}

#[test]
fn keep_alives_and_strays_are_answered_at_a_limited_rate() {
    let mut peer = established();
    assert_eq!(peer.send(segment(ACK, NXT - 1)), [answer(ACK, 1, NXT)]);
    assert_eq!(peer.send(segment(ACK, NXT - 1)), []);
    assert_eq!(peer.wait(Duration::from_millis(250)), []);
    assert_eq!(peer.send(segment(ACK, NXT - 1)), [answer(ACK, 1, NXT)]);
    // The common limit is not used up by them.
    assert_eq!(peer.get(Counter::ChallengeAcks), 0);
}

#[test]
fn a_syn_ack_that_comes_again_is_acknowledged_again() {
    let mut peer = syn_sent();
    peer.send(segment(SYN_ACK, IRS));
    for _ in 0..3 {
        assert_eq!(peer.send(segment(SYN_ACK, IRS)), [answer(ACK, 1, NXT)]);
    }
    assert_eq!(peer.get(Counter::ChallengeAcks), 0);
}

#[test]
fn closing_with_data_unread_is_a_reset() {
    let mut peer = established();
    peer.host.app.lazy = true;
    peer.send(segment(ACK, NXT).data(b"unread"));
    assert_eq!(peer.close(), [answer(RST_ACK, 1, NXT + 6)]);
    assert_eq!((peer.state(), peer.log()), (State::Closed, "Accepted Data Aborted"));
    peer.assert_all_is_back();
}

#[test]
fn data_after_close_is_a_reset_and_data_after_shutdown_is_not() {
    let mut peer = established();
    assert_eq!(peer.close(), [answer(FIN_ACK, 1, NXT)]);
    assert_eq!(peer.send(segment(ACK, NXT).data(b"late")), [answer(RST_ACK, 2, NXT)]);
    assert_eq!((peer.state(), peer.log()), (State::Closed, "Accepted Aborted"));
    let mut peer = fin_wait_2();
    peer.send(segment(ACK, NXT).data(b"late"));
    assert_eq!(peer.host.app.read, b"late");
}

#[test]
fn unread_data_survives_into_time_wait_and_can_be_closed_there() {
    let mut peer = unread_time_wait();
    assert_eq!(peer.log(), "Accepted Data");
    peer.call(|cx, conn| assert_eq!(&cx.recv(conn).unwrap()[..], b"unread"));
    assert_eq!(peer.log(), "Accepted Data PeerClosed Orderly");
    assert_eq!((peer.host.stack.connections(), peer.host.stack.time_waits()), (0, 1));
    let mut peer = unread_time_wait();
    assert_eq!(peer.close(), []);
    assert_eq!(peer.log(), "Accepted Data Orderly");
    assert_eq!((peer.host.stack.connections(), peer.host.stack.time_waits()), (0, 1));
    peer.assert_all_is_back();
}

#[test]
fn abort_resets_and_is_silent() {
    for (start, state, nxt, rcv) in SYNCHRONISED {
        let mut peer = start();
        let before = String::from(peer.log());
        let sent = peer.call(|cx, conn| cx.abort(conn)).1;
        let reset = if state == State::TimeWait { vec![] } else { vec![answer(RST_ACK, nxt, rcv)] };
        assert_eq!((sent, peer.log()), (reset, &before[..]), "{state:?}");
        assert_eq!(peer.host.stack.connections(), 0);
        assert_eq!(peer.call(|cx, conn| cx.state(conn)).0, None);
        peer.assert_all_is_back();
    }
}

#[test]
fn abort_inside_on_close_keeps_time_wait() {
    let mut peer = fin_wait_2();
    peer.host.app.on_close = Some(|cx, conn| cx.abort(conn));
    assert_eq!(peer.send(segment(FIN_ACK, NXT)), [answer(ACK, 2, NXT + 1)]);
    assert_eq!((peer.host.stack.connections(), peer.host.stack.time_waits()), (0, 1));
    assert_eq!(peer.log(), "Accepted PeerClosed Orderly");
}

#[test]
fn abort_inside_on_peer_close_leaves_nothing() {
    let mut peer = established();
    peer.host.app.on_peer_close = Some(|cx, conn| cx.abort(conn));
    assert_eq!(peer.send(segment(FIN_ACK, NXT)), [answer(RST_ACK, 1, NXT + 1)]);
    assert_eq!((peer.state(), peer.log()), (State::Closed, "Accepted PeerClosed"));
    peer.assert_all_is_back();
}

#[test]
fn closing_in_on_accept_goes_by_what_came_with_it() {
    let mut peer = half_open();
    peer.host.app.on_accept = Some(|cx, conn| cx.close(conn));
    assert_eq!(peer.send(segment(ACK, NXT)), [answer(FIN_ACK, 1, NXT)]);
    let mut peer = half_open();
    peer.host.app.on_accept = Some(|cx, conn| cx.close(conn));
    assert_eq!(peer.send(segment(ACK, NXT).data(b"data")), [answer(RST_ACK, 1, NXT + 4)]);
    assert_eq!(peer.log(), "Accepted Aborted");
}

#[test]
fn a_connection_that_begins_and_ends_between_two_turns_leaves_its_record_clean() {
    let mut peer = Peer::with(|config| config.limits.conns_max = 1);
    for _ in 0..3 {
        let mut cx = Cx { stack: &mut peer.host.stack };
        let conn = cx.connect(SocketAddr::new(CLIENT.into(), PORT)).unwrap();
        cx.abort(conn);
        // Stage 5 of a turn whose stage 4 was before those calls.
        peer.host.stack.owe(conn.index());
        peer.host.stack.output(&mut peer.host.tx);
        // Nobody is to hear of it: the one record is free, and in no queue.
        assert_eq!(peer.host.stack.connections(), 0);
        assert_eq!(peer.turn(), []);
        assert_eq!(peer.state(), State::Closed);
    }
    peer.assert_all_is_back();
}

#[test]
fn connecting_again_in_on_close_works() {
    let mut peer = syn_sent();
    peer.host.app.on_close = Some(|cx, _| assert!(cx.connect(SocketAddr::new(CLIENT.into(), PORT)).is_ok()));
    let sent = peer.send(segment(RST_ACK, 9));
    assert_eq!((sent.len(), sent[0].flags), (1, SYN));
    assert_eq!((peer.state(), peer.log()), (State::SynSent, "Refused"));
}

#[test]
fn calls_that_come_too_late_do_nothing() {
    let mut peer = fin_wait_1();
    let frame = peer.host.stack.pool().alloc().unwrap();
    let (refused, sent) = peer.call(|cx, conn| cx.send(conn, frame).map_err(|refused| refused.reason));
    assert_eq!((refused, sent), (Err(crate::app::SendError::Closing), vec![]));
    assert_eq!(peer.call(|cx, conn| (cx.write(conn, b"x"), cx.room(conn))), ((0, 0), vec![]));
    assert_eq!((peer.shutdown(), peer.close(), peer.close()), (vec![], vec![], vec![]));
    peer.send(segment(FIN_ACK, NXT));
    assert_eq!(peer.log(), "Accepted Orderly");
    peer.call(|cx, conn| {
        cx.close(conn);
        cx.abort(conn);
        cx.shutdown(conn);
        cx.set_timer(conn, Duration::ZERO);
        assert!(cx.recv(conn).is_none() && cx.write(conn, b"x") == 0 && cx.state(conn).is_none());
    });
    assert_eq!(peer.log(), "Accepted Orderly");
    peer.assert_all_is_back();
}

#[test]
fn a_connection_that_was_ended_waits_for_nothing() {
    let mut peer = syn_sent();
    let conn = peer.host.app.conn.unwrap();
    let cx = &mut Cx { stack: &mut peer.host.stack };
    cx.set_timer(conn, Duration::from_millis(1));
    cx.close(conn);
    // All deadlines of the attempt pass before the application hears that it is over.
    assert_eq!(peer.wait(Duration::from_secs(600)), []);
    assert_eq!(peer.get(Counter::RetransmissionTimeouts), 0);
    assert_eq!(peer.log(), "Aborted");
}

#[test]
fn close_in_syn_sent_ends_the_attempt_and_shutdown_waits_for_it() {
    let mut peer = syn_sent();
    assert_eq!(peer.close(), []);
    assert_eq!((peer.state(), peer.log()), (State::Closed, "Aborted"));
    let mut peer = syn_sent();
    assert_eq!(peer.shutdown(), []);
    assert_eq!(peer.send(segment(SYN_ACK, IRS)), [answer(FIN_ACK, 1, NXT)]);
    assert_eq!((peer.state(), peer.log()), (State::FinWait1, "Connected"));
}

#[test]
fn fin_wait_2_gives_up_only_when_nobody_reads() {
    let mut peer = fin_wait_2();
    peer.wait(Duration::from_secs(100));
    assert_eq!(peer.state(), State::FinWait2);
    peer.close();
    peer.wait(Duration::from_secs(50));
    peer.close(); // Does not begin the time anew.
    peer.wait(Duration::from_secs(11));
    assert_eq!((peer.state(), peer.log()), (State::Closed, "Accepted Orderly"));
}

#[test]
fn a_syn_right_behind_a_reset_opens_when_it_comes_again() {
    let mut peer = established();
    peer.put(segment(RST, NXT));
    peer.put(segment(SYN, NXT + 1_000));
    assert_eq!(peer.turn(), []);
    assert_eq!(peer.log(), "Accepted Reset");
    assert_eq!(peer.send(segment(SYN, NXT + 1_000))[0].flags, SYN_ACK);
}

#[test]
fn a_connection_that_ends_before_it_was_announced_is_never_mentioned() {
    let mut peer = half_open();
    peer.put(segment(ACK, NXT));
    peer.put(segment(RST, NXT));
    peer.turn();
    assert_eq!((peer.state(), peer.log()), (State::Closed, ""));
}

#[test]
fn a_half_open_connection_outlives_a_full_table() {
    let mut peer = Peer::with(|config| config.limits.conns_max = 1);
    peer.send(segment(SYN, IRS));
    peer.send(segment(ACK, NXT));
    peer.send(segment(SYN, IRS).port(2));
    assert_eq!(peer.send(segment(ACK, NXT).port(2)), []);
    assert_eq!((peer.host.stack.half_open(), peer.drops(DropReason::ConnectionsFull)), (1, 1));
    peer.call(|cx, conn| cx.abort(conn));
    peer.send(segment(ACK, NXT).port(2));
    assert_eq!((peer.host.stack.half_open(), peer.host.stack.connections()), (0, 1));
}

#[test]
fn a_half_open_connection_is_forgotten_after_its_retries() {
    let mut peer = half_open();
    let mut again = 0;
    for _ in 0..80 {
        again += peer.wait(Duration::from_secs(1)).len();
    }
    assert_eq!((again, peer.state()), (5, State::Closed));
    assert_eq!(peer.get(Counter::SynRcvdExpired), 1);
    peer.assert_all_is_back();
}

#[test]
fn an_old_duplicate_syn_leaves_nothing_open() {
    // RFC 9293 §3.5, figure 8: the peer refuses the answer to a SYN that it does not know.
    let mut peer = Peer::new();
    assert_eq!(peer.send(segment(SYN, 90)), [answer(SYN_ACK, 0, 91)]);
    peer.send(segment(SYN, IRS));
    peer.send(segment(RST, 91));
    assert_eq!(peer.state(), State::Closed);
    assert_eq!(peer.send(segment(SYN, IRS)), [answer(SYN_ACK, 0, NXT)]);
    peer.send(segment(ACK, NXT));
    assert_eq!(peer.log(), "Accepted");
}

/// An ICMP error about the segment that began so far after our ISS.
fn icmp(peer: &mut Peer, kind: ErrorKind, seq: u32) {
    let src_port = if peer.header.dst_port == 0 { 80 } else { peer.header.dst_port };
    let quoted = Quoted { src: SERVER, dst: CLIENT, src_port, dst_port: PORT, seq: peer.iss.add(seq) };
    peer.host.stack.icmp_error(&IcmpError { kind, quoted });
    peer.turn();
}

#[test]
fn a_hard_icmp_error_ends_an_attempt_and_nothing_else() {
    let hard = [ErrorKind::ProtocolUnreachable, ErrorKind::PortUnreachable, ErrorKind::Prohibited];
    let soft = [
        ErrorKind::NetworkUnreachable,
        ErrorKind::HostUnreachable,
        ErrorKind::TimeExceeded,
        ErrorKind::ParameterProblem,
    ];
    for (kinds, log) in [(&hard[..], "Unreachable"), (&soft[..], "")] {
        for &kind in kinds {
            for start in [syn_sent, syns_crossed] {
                let mut peer = start();
                icmp(&mut peer, kind, 0);
                assert_eq!((peer.log(), peer.get(Counter::IcmpErrors)), (log, 1), "{kind:?}");
            }
            let mut peer = established();
            peer.call(|cx, conn| cx.write(conn, b"in flight"));
            icmp(&mut peer, kind, 1);
            assert_eq!((peer.state(), peer.get(Counter::IcmpErrors)), (State::Established, 1), "{kind:?}");
        }
    }
}

#[test]
fn an_icmp_error_about_what_is_not_in_flight_is_ignored() {
    let mut peer = Peer::new();
    let mut syn = segment(SYN, IRS);
    syn.header.options.mss = Some(1_460);
    peer.send(syn);
    peer.send(segment(ACK, NXT));
    icmp(&mut peer, ErrorKind::PacketTooBig { mtu: 600 }, 1);
    peer.call(|cx, conn| cx.write(conn, b"in flight"));
    for seq in [0, 10, 70_000] {
        icmp(&mut peer, ErrorKind::PacketTooBig { mtu: 600 }, seq);
    }
    assert_eq!((peer.drops(DropReason::IcmpUnrelated), peer.get(Counter::PathMtuLowered)), (4, 0));
    icmp(&mut peer, ErrorKind::PacketTooBig { mtu: 600 }, 9);
    assert_eq!(peer.get(Counter::PathMtuLowered), 1);
    assert_eq!(peer.call(|cx, conn| cx.segment_max(conn)).0, 560);
}

#[test]
fn what_is_half_open_goes_with_its_listener() {
    let mut peer = half_open();
    assert!(Cx { stack: &mut peer.host.stack }.unlisten(80));
    assert_eq!(peer.send(segment(ACK, NXT)), [answer(RST, 1, 0)]);
    assert_eq!((peer.host.stack.half_open(), peer.log()), (0, ""));
    peer.assert_all_is_back();
}

#[test]
fn at_the_end_nothing_begins_and_what_the_peer_believes_open_is() {
    let mut peer = half_open();
    peer.host.stack.shut_down(peer.now, &mut peer.host.app);
    peer.put(segment(SYN, IRS).port(1_000));
    assert_eq!(peer.send(segment(ACK, NXT)), []);
    assert_eq!((peer.state(), peer.drops(DropReason::ListenRefused)), (State::Established, 1));
    let mut peer = half_open();
    peer.host.stack.shut_down(peer.now, &mut peer.host.app);
    assert_eq!(peer.wait(Duration::from_millis(1_500)), []);
    assert_eq!(peer.host.stack.half_open(), 0);
}

#[test]
fn a_listener_of_one_address_does_not_take_over_what_another_began() {
    let mut peer = half_open();
    let local = peer.host.stack.ip.addresses()[0].address.into();
    Cx { stack: &mut peer.host.stack }.listen_on(local, 80).unwrap();
    peer.send(segment(ACK, NXT));
    let half_open: Vec<u32> = peer.host.stack.listeners.iter().map(|(_, listener)| listener.half_open).collect();
    assert_eq!(half_open, [0, 0]);
}
