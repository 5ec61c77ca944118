use super::*;
use crate::time::Duration;

#[test]
fn a_second_has_no_more_than_its_worth_wherever_it_begins() {
    let (mut limit, mut now) = (RateLimit::new(10), Instant::from_micros(900_000));
    assert_eq!((0..100).filter(|_| limit.take(now)).count(), 10);
    now += Duration::from_millis(100);
    // A clock's new second brings nothing by itself.
    assert_eq!((0..100).filter(|_| limit.take(now)).count(), 1);
    now += Duration::from_secs(3_600);
    assert_eq!((0..100).filter(|_| limit.take(now)).count(), 10);
    assert!(!RateLimit::new(0).take(now));
}
