//! Each reason for which TCP drops a segment, told by its counter.

use super::peer::*;
use super::*;
use crate::tcp::state::State;
use crate::wire::tcp::{Flags, Options, Timestamps};

#[test]
fn each_segment_that_is_not_taken_is_counted_once_with_its_reason() {
    let rows: [(Start, Out, DropReason); 13] = [
        (listen, segment(Flags::FIN, 5), DropReason::ListenRefused),
        (listen, segment(ACK, 5).ack(9), DropReason::ListenRefused),
        (established, segment(ACK, NXT - 4).data(b"old"), DropReason::Duplicate),
        (established, segment(ACK, NXT + 70_000).data(b"far"), DropReason::OutOfWindow),
        (established, segment(Flags(0), NXT), DropReason::NoAck),
        (established, segment(ACK, NXT).ack(2), DropReason::AckUnacceptable),
        (established, segment(RST, NXT - 1), DropReason::Duplicate),
        (established, segment(RST, NXT + 1), DropReason::ResetChallenged),
        (established, segment(SYN, NXT), DropReason::SynChallenged),
        (half_open, segment(SYN, 77), DropReason::SynChallenged),
        (half_open, segment(RST, NXT + 1), DropReason::ResetChallenged),
        (syn_sent, segment(RST, 9), DropReason::ResetIgnored),
        (time_wait, segment(RST, NXT), DropReason::ResetIgnored),
    ];
    for (start, out, reason) in rows {
        let mut peer = start();
        peer.send(out.clone());
        let metrics = peer.host.stack.metrics();
        assert_eq!((metrics.drops(reason), metrics.drops_total()), (1, 1), "{reason:?}: {out:?}");
    }
}

#[test]
fn no_flow_begins_between_ends_that_cannot_be() {
    let v4 = |a, b, c, d| Address::v4([a, b, c, d]);
    let stamps = Timestamps { value: 1, echo: 2 };
    // Each way to read a packet.
    for options in [Options::default(), Options::of_timestamps(stamps), Options::of_syn(1_000, 3, stamps)] {
        let rows = [
            (CLIENT, v4(10, 0, 0, 3), PORT, 80, DropReason::NotOurAddress),
            (CLIENT, v4(224, 0, 0, 1), PORT, 80, DropReason::NotOurAddress),
            (SERVER, SERVER, PORT, 80, DropReason::BadSource),
            (v4(127, 0, 0, 1), SERVER, PORT, 80, DropReason::BadSource),
            (v4(0, 0, 0, 1), SERVER, PORT, 80, DropReason::BadSource),
            (v4(224, 0, 0, 1), SERVER, PORT, 80, DropReason::BadSource),
            (v4(255, 255, 255, 255), SERVER, PORT, 80, DropReason::BadSource),
            (CLIENT, SERVER, 0, 80, DropReason::TcpMalformed),
            (CLIENT, SERVER, PORT, 0, DropReason::TcpMalformed),
        ];
        for (src, dst, from, to, reason) in rows {
            let mut peer = listen();
            let mut out = segment(SYN, IRS).port(from);
            (out.header.dst_port, out.header.options) = (to, options);
            peer.put_between(src, dst, out);
            assert_eq!(peer.turn(), []);
            let metrics = peer.host.stack.metrics();
            assert_eq!((metrics.drops(reason), metrics.drops_total()), (1, 1), "{src} {from} -> {dst} {to}");
            peer.assert_all_is_back();
        }
    }
}

#[test]
fn data_after_close_is_counted() {
    let mut peer = established();
    peer.close();
    peer.send(segment(ACK, NXT).data(b"late"));
    assert_eq!(peer.drops(DropReason::DataAfterClose), 1);
}

#[test]
fn more_frames_than_the_receive_queue_may_keep_are_counted() {
    let mut peer = Peer::with(|config| config.tcp.recv_frames_max = 4);
    peer.send(segment(SYN, IRS));
    peer.send(segment(ACK, NXT));
    peer.host.app.lazy = true;
    for at in 0..6 {
        peer.send(segment(ACK, NXT + 600 * at).data(&[0; 600]));
    }
    assert!(peer.drops(DropReason::ReceiveQueueFull) > 0);
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn a_time_wait_that_makes_room_is_counted() {
    let mut peer = Peer::with(|config| config.limits.time_wait_max = 1);
    for port in [1_000, 1_001] {
        peer.header.dst_port = 0;
        peer.send(segment(SYN, IRS).port(port));
        peer.send(segment(ACK, NXT).port(port));
        peer.shutdown();
        peer.send(segment(FIN_ACK, NXT).port(port));
    }
    assert_eq!((peer.drops(DropReason::TimeWaitFull), peer.host.stack.time_waits()), (1, 1));
}
