//! What an application may ask for, and what it may not: keep-alive, a local address, a peer.

use core::net::IpAddr;

use super::peer::*;
use super::*;
use crate::app::{ConnectError, ListenError};
use crate::ip::routes::Route;
use crate::tcp::state::State;
use crate::wire::tcp::Flags;

const KEEPALIVE: Flags = ACK;

/// Established, and probed after 10 s, then every 2 s, three times.
fn watched() -> Peer {
    let mut peer = Peer::with(|config| {
        config.tcp.keepalive_idle = Some(Duration::from_secs(10));
        config.tcp.keepalive_interval = Duration::from_secs(2);
        config.tcp.keepalive_probes = 3;
    });
    peer.send(segment(SYN, IRS));
    assert_eq!(peer.send(segment(ACK, NXT)), []);
    peer
}

#[test]
fn nobody_is_probed_unless_it_was_asked_for() {
    // MUST-24, MUST-25.
    let mut peer = established();
    for _ in 0..48 {
        assert_eq!(peer.wait(Duration::from_secs(3_600)), []);
    }
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn a_silent_peer_is_probed_without_data_and_given_up_only_after_several_probes() {
    // MUST-26, MUST-29, SHLD-12: SEG.SEQ = SND.NXT − 1, no text.
    let probe = [answer(KEEPALIVE, 0, NXT)];
    let mut peer = watched();
    assert_eq!(peer.wait(Duration::from_millis(9_990)), []);
    assert_eq!(peer.wait(Duration::from_millis(20)), probe);
    for _ in 0..2 {
        assert_eq!(peer.wait(Duration::from_millis(1_990)), []);
        assert_eq!(peer.wait(Duration::from_millis(20)), probe);
        assert_eq!(peer.state(), State::Established, "one probe says nothing");
    }
    assert_eq!(peer.wait(Duration::from_millis(2_010)), [answer(RST_ACK, 1, NXT)]);
    assert_eq!((peer.state(), peer.log()), (State::Closed, "Accepted TimedOut"));
    peer.assert_all_is_back();
}

#[test]
fn any_sign_of_life_begins_the_wait_anew() {
    let signs = [
        segment(ACK, NXT),                  // the answer to a probe
        segment(ACK, NXT - 1),              // the peer's own probe
        segment(ACK, NXT).data(b"text"),    // data
        segment(ACK, NXT + 9).data(b"far"), // out of order
    ];
    for sign in signs {
        let mut peer = watched();
        for _ in 0..5 {
            peer.wait(Duration::from_secs(9));
            peer.send(sign.clone());
        }
        assert_eq!(peer.state(), State::Established);
        peer.wait(Duration::from_millis(10_010));
        assert_eq!(peer.send(sign.clone()).len(), usize::from(sign.header.seq.0 != NXT || !sign.payload.is_empty()));
        assert_eq!(peer.wait(Duration::from_secs(9)), [], "{sign:?}");
    }
}

#[test]
fn with_data_in_flight_retransmission_watches_and_not_keep_alive() {
    // MUST-26: only when nothing was heard and nothing is under way.
    let mut peer = watched();
    peer.call(|cx, conn| cx.write(conn, b"data"));
    let mut sent = Vec::new();
    for _ in 0..300 {
        sent.extend(peer.wait(Duration::from_millis(100)));
    }
    let probes = sent.iter().filter(|out| out.payload.is_empty() && out.flags == ACK).count();
    let again = sent.iter().filter(|out| out.payload == b"data").count();
    assert!(again >= 4, "{sent:?}");
    assert!(probes <= 3, "{sent:?}");
}

fn two_addresses() -> (Peer, IpAddr) {
    let second = Address::v4([10, 0, 0, 7]);
    let own = OwnAddress { address: second, prefix_len: 24 };
    (Peer::with(|config| config.ip.addresses.push(own)), second.into())
}

#[test]
fn the_local_address_of_an_open_can_be_chosen() {
    // MUST-43.
    let (mut peer, second) = two_addresses();
    let to = SocketAddr::new(CLIENT.into(), PORT);
    let mut cx = Cx { stack: &mut peer.host.stack };
    let conn = cx.connect_from(second, to).unwrap();
    assert_eq!(cx.local(conn).map(|local| local.ip()), Some(second));
    let conn = cx.connect(to).unwrap();
    assert!(cx.local(conn).is_some_and(|local| [second, SERVER.into()].contains(&local.ip())));
    let stranger = "10.0.0.9".parse().unwrap();
    assert_eq!(cx.connect_from(stranger, to), Err(ConnectError::NotOurAddress));
    assert_eq!(cx.connect_from(second, "[fd00::1]:80".parse().unwrap()), Err(ConnectError::NoRoute));
    assert_eq!(cx.listen_on(stranger, 90), Err(ListenError::NotOurAddress));
    assert_eq!((cx.listen(0), cx.listen_on(second, 90)), (Err(ListenError::Refused), Ok(())));
    assert_eq!(cx.listen_on(second, 90), Err(ListenError::InUse));
    // The listener of the second address does not answer for the first.
    peer.header.dst_port = 90;
    assert_eq!(peer.send(segment(SYN, IRS).port(1_000))[0].flags, RST_ACK);
    assert_eq!(peer.host.stack.half_open(), 0);
}

#[test]
fn both_families_behind_one_router_leave_each_as_what_it_is() {
    let word = |last| Address::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let (ours, router) = (word(2), word(1));
    let mut peer = Peer::with(|config| {
        config.ip.addresses.push(OwnAddress { address: ours, prefix_len: 64 });
        config.ip.neighbours.push((router, Mac([2, 0, 0, 0, 0, 9])));
        for network in [Address::UNSPECIFIED_V4, Address::UNSPECIFIED_V6] {
            config.ip.routes.push(Route { network, prefix_len: 0, gateway: Some(router) });
        }
    });
    for to in ["198.51.100.1:80", "[2001:db8::1]:80"] {
        Cx { stack: &mut peer.host.stack }.connect(to.parse().unwrap()).unwrap();
    }
    // The second time, both connections know their neighbour.
    for _ in 0..2 {
        peer.host.turn(peer.now);
        let mut rx = RxBurst::new();
        peer.wire.rx_burst(&mut rx);
        peer.wire.flush();
        let ethertypes: Vec<_> = rx.drain(..).map(|frame| [frame[12], frame[13]]).collect();
        assert_eq!(ethertypes, [[0x08, 0x00], [0x86, 0xdd]]);
        peer.now += Duration::from_millis(1_001);
    }
}

#[test]
fn nobody_can_be_connected_to_at_an_address_of_many_or_of_none() {
    // MUST-46.
    let mut peer = Peer::with(|config| {
        let own = Address::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        config.ip.addresses.push(OwnAddress { address: own, prefix_len: 64 });
    });
    let bad = [
        "0.0.0.0:80",
        "127.0.0.1:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "10.0.0.255:80", // the broadcast address of our network
        "10.0.0.2:80",   // we
        "10.0.0.1:0",
        "[::]:80",
        "[::1]:80",
        "[ff02::1]:80",
        "[fd00::2]:80",
    ];
    for to in bad {
        let refused = Cx { stack: &mut peer.host.stack }.connect(to.parse().unwrap());
        assert!(matches!(refused, Err(ConnectError::BadAddress | ConnectError::NoRoute)), "{to}: {refused:?}");
    }
    // Nor if our address is named.
    let refused =
        Cx { stack: &mut peer.host.stack }.connect_from("fd00::2".parse().unwrap(), "[::]:80".parse().unwrap());
    assert_eq!(refused, Err(ConnectError::BadAddress));
    assert_eq!((peer.turn(), peer.host.stack.connections()), (vec![], 0));
}

#[test]
fn without_nagle_accepted_connections_send_small_segments_at_once_too() {
    for (nagle, second) in [(true, 0), (false, 1)] {
        let mut peer = Peer::with(|config| config.tcp.nagle = nagle);
        peer.send(segment(SYN, IRS));
        peer.send(segment(ACK, NXT));
        assert_eq!(peer.call(|cx, conn| cx.write(conn, b"a")).1.len(), 1);
        assert_eq!(peer.call(|cx, conn| cx.write(conn, b"b")).1.len(), second);
    }
}
