use alloc::format;

use handfast_drivers::driver::Driver;
use handfast_drivers::wire;

use super::*;
use crate::demux::syn_rcvd::Offered;
use crate::ip::NeighbourId;
use crate::tcp::tcb::RtxTimer;
use crate::time::Instant;
use crate::wire::address::Address;

fn config(configure: impl FnOnce(&mut TcpConfig)) -> TcpConfig {
    let mut config = TcpConfig::default();
    configure(&mut config);
    config
}

#[test]
fn the_shift_is_the_smallest_that_tells_the_whole_buffer() {
    for (buffer, shift) in [(4_096, 0), (65_535, 0), (65_536, 1), (131_071, 1), (256 << 10, 3), (1 << 30, 14)] {
        let config = config(|config| config.recv_buffer_bytes = buffer);
        assert_eq!(own_shift(&config), shift, "{buffer}");
        // RFC 7323 §2.3: 2^30 is one byte more than 14 bits of shift can tell.
        assert!(u32::from(u16::MAX) << shift >= buffer - (1 << shift));
        assert_eq!(syn_window(&config), buffer.min(65_535));
    }
    assert_eq!(own_shift(&config(|config| config.window_scaling = false)), 0);
}

#[test]
fn a_peer_without_an_mss_gets_the_default_of_its_family() {
    let seg = |mss| Segment { mss, ..Segment::default() };
    assert_eq!((peer_mss(&seg(None), true), peer_mss(&seg(None), false)), (536, 1_220)); // RFC 9293 MUST-15
    assert_eq!(peer_mss(&seg(Some(1_400)), true), 1_400);
    assert_eq!((peer_mss(&seg(Some(0)), true), peer_mss(&seg(Some(1)), false)), (64, 64));
}

#[test]
fn a_syn_offers_what_is_configured_and_always_an_mss() {
    let all = syn_options(&config(|_| {}), 1_460, 9);
    assert_eq!((all.mss, all.window_scale, all.sack_permitted), (Some(1_460), Some(3), true));
    assert_eq!(all.timestamps, Some(Timestamps { value: 9, echo: 0 }));
    let plain = config(|config| (config.timestamps, config.sack, config.window_scaling) = (false, false, false));
    assert_eq!(syn_options(&plain, 1_460, 9), Options { mss: Some(1_460), ..Options::default() });
}

/// A record with something in every field that outlives a connection.
fn left() -> Tcb {
    let (local, remote) = (Address::v6([1; 16]), Address::v6([2; 16]));
    let mut tcb = Tcb::new(FlowKey { local, remote, local_port: 3, remote_port: 4 }, Seq(5), 6);
    tcb.begin(State::LastAck);
    (tcb.closed, tcb.events, tcb.bits) = (Some(crate::app::Closed::Reset), Events(63), Bits(u32::MAX));
    (tcb.rcv_nxt, tcb.rcv_adv, tcb.last_ack_sent, tcb.ts_recent) = (Seq(7), Seq(8), Seq(9), 10);
    (tcb.ts_recent_at_ms, tcb.snd_una, tcb.snd_nxt, tcb.snd_end) = (11, Seq(12), Seq(13), Seq(14));
    (tcb.snd_wnd, tcb.snd_wl1, tcb.snd_wl2, tcb.tx_unsent, tcb.tx_frames) = (15, Seq(16), Seq(17), 18, 19);
    tcb.congestion.timed_out(20_000, 21, true);
    (tcb.congestion.recover, tcb.congestion.dup_acks) = (Seq(22), 23);
    tcb.congestion.phase = crate::tcp::congestion::Phase::Loss;
    (tcb.rx_bytes, tcb.rx_frames, tcb.rcv_mss, tcb.rtx_at_ms, tcb.ack_at_ms) = (24, 25, 26, 27, 28);
    (tcb.idle_at_ms, tcb.app_at_ms, tcb.wheel_at_ms, tcb.answered_at_ms) = (29, 30, 31, 32);
    (tcb.heard_at_ms, tcb.stalled_at_ms, tcb.sent_at_ms) = (33, 34, 35);
    tcb.rtt = Rtt { srtt_us: 36, rttvar_us: 37, backoff: 38 };
    (tcb.user, tcb.ts_offset, tcb.snd_wnd_max, tcb.iss, tcb.irs) = (39, 41, 42, Seq(43), Seq(44));
    tcb.neighbour = NeighbourId::NOBODY;
    (tcb.snd_shift, tcb.rcv_shift, tcb.probes, tcb.persist_backoff, tcb.stamp_us) = (45, 46, 47, 48, 49);
    (tcb.rtx_for, tcb.tail_probed) = (RtxTimer::TailProbe, true);
    tcb
}

#[test]
fn nothing_of_a_connection_is_left_in_the_next() {
    let (near, _) = wire::pair(wire::Config { frames_per_queue: 64, ring_len: 64, ..wire::Config::default() });
    let mut env = Env::new(TcpConfig::default(), near.pool().clone(), 0);
    env.at(Instant::from_micros(50_000_000));
    let (local, remote) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let key = FlowKey { local, remote, local_port: 1, remote_port: 2 };
    let [new, renewed] = [Tcb::default(), left()].map(|mut tcb| {
        active(&mut tcb, key, Seq(100), 1_460, 1_000, &env);
        format!("{tcb:?}")
    });
    assert_eq!(new, renewed);
    for timestamps in [None, Some(Timestamps { value: 3, echo: env.now_ms + 990 })] {
        let record = SynRcvd {
            key,
            iss: Seq(100),
            irs: Seq(200),
            ts_recent: 3,
            mss: 1_400,
            listener: 0,
            offered: Offered::all(7),
            retries: 0,
            due: 0,
        };
        let seg = Segment { seq: Seq(201), ack: Seq(101), window: 99, timestamps, ..Segment::default() };
        let [new, renewed] = [Tcb::default(), left()].map(|mut tcb| {
            passive(&mut tcb, &record, (&seg, timestamps), 1_400, 1_000, &env);
            format!("{tcb:?}")
        });
        assert_eq!(new, renewed);
    }
}
