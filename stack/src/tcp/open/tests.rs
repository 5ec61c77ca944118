use super::*;

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
