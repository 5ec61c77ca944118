use super::*;

#[test]
fn the_first_window_is_ten_segments_or_what_rfc_6928_allows() {
    for (mss, cwnd) in
        [(536, 5_360), (1_000, 10_000), (1_448, 14_480), (1_460, 14_600), (4_000, 14_600), (8_948, 17_896)]
    {
        let mut c = Congestion::new();
        c.start(mss);
        assert_eq!(c.cwnd, cwnd);
    }
}

#[test]
fn slow_start_doubles_in_a_round_trip_and_avoidance_adds_a_segment() {
    let mut c = Congestion::new();
    c.start(1_000);
    c.ssthresh = 40_000;
    for cwnd in [20_000, 40_000, 41_000, 42_000] {
        for _ in 0..c.cwnd / 1_000 {
            c.acked(1_000, 1_000);
        }
        assert_eq!(c.cwnd, cwnd);
    }
}

#[test]
fn one_acknowledgment_opens_slow_start_by_eight_segments_at_most() {
    let mut c = Congestion::new();
    c.start(1_000);
    c.acked(1_000_000, 1_000);
    assert_eq!(c.cwnd, 18_000);
}

#[test]
fn loss_halves_what_was_in_flight_and_a_timeout_leaves_one_segment() {
    let mut c = Congestion::new();
    c.start(1_000);
    c.loss_found(30_000, 1_000);
    assert_eq!((c.cwnd, c.ssthresh), (15_000, 15_000));
    c.timed_out(9_000, 1_000, true);
    assert_eq!((c.cwnd, c.ssthresh), (1_000, 4_500));
    c.timed_out(1_000, 1_000, false);
    assert_eq!((c.cwnd, c.ssthresh), (1_000, 4_500));
    c.loss_found(1_000, 1_000);
    assert_eq!(c.ssthresh, 2_000);
}

#[test]
fn a_pause_never_widens_the_window() {
    let mut c = Congestion::new();
    c.start(1_000);
    c.restart(1_000);
    assert_eq!(c.cwnd, 10_000);
    c.cwnd = 3_000;
    c.restart(1_000);
    assert_eq!(c.cwnd, 3_000);
    c.cwnd = 70_000;
    c.restart(1_000);
    assert_eq!(c.cwnd, 10_000);
}
