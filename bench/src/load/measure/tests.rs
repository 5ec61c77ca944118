use super::*;

#[test]
fn what_was_opened_is_closed_failed_or_open() {
    let mut measure = Measure::new();
    measure.opened = 10;
    (0..4).for_each(|_| measure.close(1));
    measure.fail(Cause::Refused, 2);
    assert_eq!((measure.closed, measure.failed(), measure.open()), (4, 1, 5));
    assert_eq!(measure.failures().collect::<Vec<_>>(), [("refused", 1)]);
}

#[test]
fn the_best_window_is_of_all_cores_together() {
    let (mut a, mut b) = (Measure::new(), Measure::new());
    a.start(50_000);
    b.start(60_000);
    // The same window of both beats the better one of each.
    (0..50).for_each(|_| a.close(110_000));
    (0..60).for_each(|_| a.close(310_000));
    (0..50).for_each(|_| b.close(199_999));
    a.merge(&b);
    assert_eq!(a.best_per_second(), 1000.0);
    assert_eq!(a.closed, 160);
    assert!((a.seconds() - 0.26).abs() < 1e-9);
}

#[test]
fn latencies_of_all_cores_are_one_distribution() {
    let (mut a, mut b) = (Measure::new(), Measure::new());
    (0..99).for_each(|_| a.handshake_us.saturating_record(10));
    b.handshake_us.saturating_record(5_000);
    b.handshake_us.saturating_record(u64::MAX);
    a.merge(&b);
    assert_eq!(a.handshake_us.value_at_quantile(0.5), 10);
    assert!(a.handshake_us.max() >= LATENCY_MAX_US);
}

#[test]
fn causes_are_listed_in_the_order_of_their_numbers() {
    for (at, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(cause as usize, at);
    }
}
