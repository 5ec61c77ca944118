use super::*;

fn windows(counts: &[u64]) -> Windows {
    let mut windows = Windows::default();
    for (at, &count) in counts.iter().enumerate() {
        windows.add(at as u64 * WINDOW_US + 17, count);
    }
    windows
}

#[test]
fn the_beginning_and_the_end_do_not_count() {
    assert_eq!(windows(&[0, 9, 9, 9, 9, 9, 1, 2, 3, 9]).steady(), [1, 2, 3]);
    assert!(windows(&[0, 9, 9]).steady().is_empty());
    assert!(windows(&[]).steady().is_empty());
}

#[test]
fn rates_are_of_the_better_windows() {
    let rates = Rates::of((1..=101).rev().collect());
    assert_eq!(rates, Rates { best: 10_100.0, p95: 9_600.0, p50: 5_100.0 });
    assert_eq!(Rates::of(Vec::new()), Rates { best: 0.0, p95: 0.0, p50: 0.0 });
}
