use super::*;

fn record(at: u64) -> TraceRecord {
    TraceRecord {
        at: Instant::from_micros(at),
        conn: ConnId::from_bits(1 << 32).unwrap(),
        kind: TraceKind::Received,
        state: State::Established,
        flags: Flags::ACK,
        seq: Seq(1),
        ack: Seq(2),
        payload_len: 3,
    }
}

#[test]
fn the_oldest_record_makes_room() {
    let mut trace = Trace::new(3);
    for count in 1..=8 {
        trace.record(record(count));
        let kept: Vec<u64> = trace.iter().map(|record| record.at.as_micros()).collect();
        let expected: Vec<u64> = (count.saturating_sub(2).max(1)..=count).collect();
        assert_eq!(kept, expected);
    }
}

#[test]
fn nothing_is_wanted_until_it_is_asked_for() {
    let mut trace = Trace::new(3);
    assert!(!trace.wants(false) && trace.wants(true));
    trace.set_all(true);
    assert!(trace.wants(false));
}

#[test]
fn a_ring_of_no_records_records_nothing() {
    let mut trace = Trace::new(0);
    trace.record(record(1));
    assert_eq!(trace.iter().count(), 0);
}
