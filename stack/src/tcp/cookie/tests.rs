use super::*;
use crate::wire::address::Address;
use crate::wire::tcp::{Flags, Timestamps};

fn key(remote_port: u16) -> FlowKey {
    FlowKey { local: Address::v4([10, 0, 0, 2]), remote: Address::v4([10, 0, 0, 1]), local_port: 80, remote_port }
}

fn secret() -> IsnSecret {
    IsnSecret::new(&[7; 16], [1, 2])
}

fn syn(offered: Offered, mss: u16) -> SynRcvd {
    let (iss, irs) = (Seq(0), Seq(u32::MAX));
    SynRcvd { key: key(1000), iss, irs, ts_recent: 5, mss, listener: 3, offered, retries: 0, due: 0 }
}

/// The third segment that answers what was baked.
fn third(record: &SynRcvd, ts_value: u32) -> Segment {
    let echo = stamp(ts_value, record.offered);
    let timestamps = record.offered.timestamps().then_some(Timestamps { value: 9, echo });
    Segment { seq: record.irs.add(1), ack: record.iss.add(1), flags: Flags::ACK, timestamps, ..Segment::default() }
}

#[test]
fn what_was_baked_comes_back() {
    for mss in [64, 100, 536, 1219, 1220, 1448, 1460, 8999, u16::MAX] {
        for (scale, timestamps, sack) in
            [(Some(0), true, true), (Some(14), true, false), (None, true, true), (None, true, false)]
        {
            for now in [4, 5] {
                let baked = bake(&secret(), &syn(Offered::new(scale, timestamps, sack), mss), 4);
                let opened = open(&secret(), &key(1000), &third(&baked, 123_456), now).expect("it is ours");
                assert_eq!((opened.iss, opened.irs, opened.offered), (baked.iss, baked.irs, baked.offered));
                assert_eq!(opened.offered, Offered::new(scale, timestamps, sack));
                assert!(opened.mss <= mss && opened.mss == baked.mss);
                assert_eq!(opened.ts_recent, 9);
            }
        }
    }
}

#[test]
fn without_timestamps_nothing_but_the_mss_comes_back() {
    let baked = bake(&secret(), &syn(Offered::new(Some(7), false, true), 1460), 1);
    let opened = open(&secret(), &key(1000), &third(&baked, 0), 1).expect("it is ours");
    assert_eq!((opened.offered, opened.mss), (NOTHING, 1460));
}

#[test]
fn anything_else_is_none_of_ours() {
    let baked = bake(&secret(), &syn(Offered::new(Some(7), true, true), 1460), 4);
    let good = third(&baked, 1 << 20);
    let echo = good.timestamps.expect("it has them").echo;
    let stamped = |echo| Some(Timestamps { value: 9, echo });
    let wrong = [
        Segment { ack: good.ack.add(1), ..good },
        Segment { seq: good.seq.add(1), ..good },
        Segment { ack: Seq(good.ack.0 ^ 1 << 29), ..good },
        Segment { timestamps: None, ..good },
        Segment { timestamps: stamped(echo ^ 1), ..good },
        Segment { timestamps: stamped(echo ^ 1 << 5), ..good },
        Segment { timestamps: stamped(echo ^ 1 << 4), ..good },
        Segment { flags: Flags::SYN | Flags::ACK, ..good },
        Segment { flags: Flags::default(), ..good },
    ];
    for segment in wrong {
        assert!(open(&secret(), &key(1000), &segment, 4).is_none(), "{segment:?}");
    }
    assert!(open(&secret(), &key(1001), &good, 4).is_none(), "another connection");
    assert!(open(&IsnSecret::new(&[8; 16], [1, 2]), &key(1000), &good, 4).is_none(), "another stack");
    for epoch in [2, 3, 6, 7, 100] {
        assert!(open(&secret(), &key(1000), &good, epoch).is_none(), "made in 4, opened in {epoch}");
    }
}

#[test]
fn a_stamp_is_never_later_than_the_time_nor_much_earlier() {
    for ts_value in (0..1000).chain(u32::MAX - 1000..=u32::MAX) {
        for bits in 0..64 {
            let stamp = stamp(ts_value, Offered::from_bits(bits));
            assert!(ts_value.wrapping_sub(stamp) < 64 + 64, "{ts_value} {bits}");
            assert_eq!(stamp & OFFERED_MASK, u32::from(bits));
        }
    }
}

#[test]
fn cookies_of_one_flow_differ_with_the_time_and_the_peers_number() {
    let mut seen = std::collections::BTreeSet::new();
    for epoch in 0..100 {
        for irs in 0..100 {
            let record = SynRcvd { irs: Seq(irs), ..syn(NOTHING, 1460) };
            seen.insert(bake(&secret(), &record, epoch).iss.0);
        }
    }
    assert!(seen.len() > 9_990, "{} of 10,000", seen.len());
}
