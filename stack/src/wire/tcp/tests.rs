use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn options() -> impl Strategy<Value = Options> {
    let timestamps = any::<Option<(u32, u32)>>();
    (any::<Option<u16>>(), proptest::option::of(0u8..=14), any::<bool>(), timestamps).prop_map(
        |(mss, window_scale, sack_permitted, timestamps)| {
            let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
            Options { mss, window_scale, sack_permitted, timestamps }
        },
    )
}

fn blocks() -> impl Strategy<Value = SackBlocks> {
    let some = proptest::collection::vec(any::<(u32, u32)>(), 0..=4);
    let none = Just(Vec::new());
    prop_oneof![none, some].prop_map(|blocks| {
        let mut sack = SackBlocks::EMPTY;
        blocks.iter().for_each(|&(start, end)| assert!(sack.push(Seq(start), Seq(end))));
        sack
    })
}

fn header() -> impl Strategy<Value = Header> {
    let fields = (1u16.., 1u16.., any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>());
    (fields, options()).prop_map(|((src_port, dst_port, seq, ack, flags, window), options)| Header {
        src_port,
        dst_port,
        seq: Seq(seq),
        ack: Seq(ack),
        // MSS, window scale and SACK-permitted are read on SYN segments only.
        flags: Flags(flags) | Flags::SYN,
        window,
        options,
    })
}

fn emitted(header: &Header, sack: &[SackBlock], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xee; header.len(sack)];
    header.emit(sack, &mut bytes, Sum::ZERO, payload, true);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn a_header_is_not_written_into_more_or_less_room_than_its_own() {
    let timestamps = Some(Timestamps { value: 1, echo: 2 });
    let syn = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, timestamps };
    let none = Options { mss: None, window_scale: None, sack_permitted: false, timestamps: None };
    let sack: &[SackBlock] = &[(Seq(1), Seq(2))];
    for (options, sack) in [
        (none, &[][..]),
        (Options { timestamps, ..none }, &[]),
        (syn, &[]),
        (Options { mss: Some(536), ..none }, &[]),
        (Options { timestamps, ..none }, sack),
    ] {
        let header = Header { options, ..Header::default() };
        let fits = |len: usize| {
            let emit = || header.emit(sack, &mut vec![0; len], Sum::ZERO, &[], true);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(emit)).is_ok()
        };
        let len = header.len(sack);
        assert!(fits(len), "{options:?}");
        for other in [0, len - 4, len - 1, len + 1, len + 4, len + 40] {
            assert!(!fits(other), "{other} {options:?}");
        }
    }
}

/// The header written byte after byte, the checksum 0.
fn dumb(header: &Header, sack: &[SackBlock]) -> Vec<u8> {
    let mut out = [header.src_port.to_be_bytes(), header.dst_port.to_be_bytes()].concat();
    out.extend([header.seq.0.to_be_bytes(), header.ack.0.to_be_bytes()].concat());
    out.extend([0, header.flags.0]);
    out.extend([header.window.to_be_bytes(), [0, 0], [0, 0]].concat());
    let Options { mss, window_scale, sack_permitted, timestamps } = header.options;
    if let Some(mss) = mss {
        out.extend([2, 4]);
        out.extend(mss.to_be_bytes());
    }
    match (timestamps, sack_permitted) {
        (Some(_), true) => out.extend([4, 2]),
        (Some(_), false) => out.extend([1, 1]),
        (None, true) => out.extend([1, 1, 4, 2]),
        (None, false) => {}
    }
    if let Some(timestamps) = timestamps {
        out.extend([8, 10]);
        out.extend([timestamps.value.to_be_bytes(), timestamps.echo.to_be_bytes()].concat());
    }
    if let Some(shift) = window_scale {
        out.extend([1, 3, 3, shift]);
    }
    let blocks = sack.len().min((60 - out.len() - 4) / 8);
    if blocks > 0 {
        out.extend([1, 1, 5, 2 + 8 * blocks as u8]);
        sack[..blocks]
            .iter()
            .for_each(|(start, end)| out.extend([start.0.to_be_bytes(), end.0.to_be_bytes()].concat()));
    }
    out[12] = (out.len() as u8) << 2;
    out
}

fn with_options(flags: Flags, options: &[u8]) -> Segment {
    let header = Header { src_port: 1, dst_port: 2, flags, ..Header::default() };
    let mut bytes = emitted(&header, &[], &[]);
    bytes.extend_from_slice(options);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes[12] = (bytes.len() as u8) << 2;
    parse(&bytes).unwrap()
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(segment) = parse(&bytes) {
            prop_assert_eq!(segment.header_len() + usize::from(segment.payload_len), bytes.len());
            prop_assert!(segment.window_scale.unwrap_or(0) <= 14);
        }
    }

    #[test]
    fn random_options_do_not_panic(options in proptest::collection::vec(0u8..12, 0..=40), syn: bool) {
        with_options(if syn { Flags::SYN } else { Flags::ACK }, &options);
    }

    #[test]
    fn what_is_written_is_read(
        header in header(), sack in blocks(), payload in proptest::collection::vec(any::<u8>(), 0..50)
    ) {
        let bytes = emitted(&header, sack.as_slice(), &payload);
        let segment = parse(&bytes).unwrap();
        let options = header.options;
        let mut read_sack = SackBlocks::EMPTY;
        let room = (40 - options.len(&[]) - 4) / 8;
        sack.as_slice().iter().take(room).for_each(|&(start, end)| assert!(read_sack.push(start, end)));
        prop_assert_eq!(segment, Segment {
            seq: header.seq, ack: header.ack, flags: header.flags, window: header.window,
            src_port: header.src_port, dst_port: header.dst_port,
            data_offset: data_offset(header.len(sack.as_slice())), payload_len: payload.len() as u16,
            timestamps: options.timestamps, mss: options.mss, window_scale: options.window_scale,
            sack_permitted: options.sack_permitted, sack: read_sack,
        });
        prop_assert_eq!(header.len(sack.as_slice()) % 4, 0);
        prop_assert!(header.len(sack.as_slice()) <= 60);
    }

    #[test]
    fn a_header_is_written_as_byte_after_byte(
        header in header(), sack in blocks(), payload in proptest::collection::vec(any::<u8>(), 0..50), pseudo in 0u16..
    ) {
        let pseudo = Sum::ZERO.add(pseudo);
        let mut expected = dumb(&header, sack.as_slice());
        let sum = checksum::sum(checksum::sum(pseudo, &expected), &payload);
        for (compute, checksum) in [(true, checksum::finish(sum)), (false, pseudo.fold())] {
            let mut bytes = vec![0xee; header.len(sack.as_slice())];
            header.emit(sack.as_slice(), &mut bytes, pseudo, &payload, compute);
            expected[16..18].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(&bytes, &expected);
        }
    }

    #[test]
    fn the_usual_syn_is_read_as_any_other(
        mut options in Just([2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7]), changes in
        proptest::collection::vec((0usize..20, prop_oneof![0u8..11, any::<u8>()]), 0..3), syn: bool
    ) {
        for (at, value) in changes {
            options[at] = value;
        }
        let flags = if syn { Flags::SYN } else { Flags::ACK };
        let usual = with_options(flags, &options);
        // Four bytes of nothing before them: the same options, and not the usual length. Behind them, the last might reach into it.
        let any = with_options(flags, &[&[1; 4], &options[..]].concat());
        prop_assert_eq!(usual, Segment { data_offset: usual.data_offset, ..any });
    }

    #[test]
    fn sequence_numbers_compare_around_the_wrap(start: u32, by in 1u32..0x8000_0000) {
        let (early, late) = (Seq(start), Seq(start) + by);
        prop_assert!(early.before(late) && late.after(early) && !late.before(early) && !early.after(late));
        prop_assert!(early.at_or_before(late) && late.at_or_after(early) && !late.at_or_before(early));
        prop_assert_eq!((early.max(late), late.max(early)), (late, late));
        prop_assert_eq!((early.min(late), late.min(early)), (early, early));
        prop_assert_eq!((late.since(early), late - by), (by, early));
        prop_assert!(early.within(early, by) && !late.within(early, by) && (late - 1).within(early, by));
        prop_assert!(!early.within(early, 0) && early.at_or_before(early) && early.at_or_after(early));
    }
}

#[test]
fn options_are_laid_out_as_linux_does() {
    let timestamps = Some(Timestamps { value: 0x01020304, echo: 0x05060708 });
    let stamp = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let with_blocks =
        |options: Options, sack: &[_]| emitted(&Header { options, ..Header::default() }, sack, &[])[20..].to_vec();
    let written = |options: Options| with_blocks(options, &[]);
    let syn = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, timestamps };
    assert_eq!(written(syn), [&[2, 4, 5, 0xb4, 4, 2][..], &stamp, &[1, 3, 3, 7]].concat());
    let plain = Options { timestamps: None, ..syn };
    assert_eq!(written(plain), [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7]);
    let data = Options { timestamps, ..Default::default() };
    assert_eq!(written(data), [&[1, 1][..], &stamp].concat());
    let with_block = with_blocks(data, &[(Seq(1), Seq(2))]);
    assert_eq!(with_block, [&[1, 1][..], &stamp, &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]].concat());
    assert_eq!(written(Options::default()), []);
}

#[test]
fn three_sack_blocks_fit_beside_timestamps_and_four_alone() {
    let mut sack = SackBlocks::EMPTY;
    (0..4).for_each(|n| assert!(sack.push(Seq(n), Seq(n + 1))));
    assert!(!sack.push(Seq(9), Seq(10)));
    let options = Options { timestamps: Some(Timestamps::default()), ..Default::default() };
    assert_eq!(options.len(sack.as_slice()), 40);
    assert_eq!(Options::default().len(sack.as_slice()), 36);
}

#[test]
fn a_length_that_cannot_be_ends_the_options() {
    for bad in [&[3, 0, 7][..], &[3, 1, 7], &[8, 41], &[3]] {
        let segment = with_options(Flags::SYN, &[&[2, 4, 5, 0xb4][..], bad].concat());
        assert_eq!((segment.mss, segment.window_scale, segment.timestamps), (Some(1460), None, None));
    }
}

#[test]
fn an_unknown_option_or_one_of_a_wrong_length_is_passed_over() {
    let segment = with_options(Flags::SYN, &[2, 3, 5, 99, 4, 1, 1, 5, 6, 1, 2, 3, 4, 3, 3, 99]);
    assert_eq!((segment.mss, segment.sack.len, segment.window_scale), (None, 0, Some(14)));
}

#[test]
fn nothing_counts_after_the_end_of_the_options() {
    assert_eq!(with_options(Flags::SYN, &[0, 3, 3, 7]).window_scale, None);
}

#[test]
fn options_of_the_handshake_count_on_syn_only() {
    let segment = with_options(Flags::ACK, &[2, 4, 5, 0xb4, 3, 3, 7, 4, 2]);
    assert_eq!((segment.mss, segment.window_scale, segment.sack_permitted), (None, None, false));
}

#[test]
fn a_short_or_crooked_header_is_refused() {
    let bytes = emitted(&Header { src_port: 1, dst_port: 2, ..Header::default() }, &[], &[0; 4]);
    assert_eq!(parse(&bytes[..19]), Err(DropReason::Truncated));
    for (offset, value) in [(12, 4 << 4), (12, 7 << 4), (1, 0), (3, 0)] {
        let mut bytes = bytes.clone();
        bytes[offset] = value;
        assert_eq!(parse(&bytes), Err(DropReason::TcpMalformed));
    }
    assert_eq!(parse(&[&bytes[..], &[0; 70_000]].concat()), Err(DropReason::TcpMalformed));
}

#[test]
fn syn_and_fin_count_in_the_length() {
    let segment = Segment { flags: Flags::SYN | Flags::FIN, payload_len: 5, ..Default::default() };
    assert_eq!(segment.len(), 7);
}

#[test]
fn a_checksum_is_verified_with_its_pseudo_header() {
    let (src, dst) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
    let header = Header { src_port: 1, dst_port: 2, ..Header::default() };
    let (mut bytes, payload) = (vec![0; header.len(&[])], b"odd");
    let pseudo_header = pseudo_header(&src, &dst, bytes.len() + payload.len());
    header.emit(&[], &mut bytes, pseudo_header, payload, true);
    bytes.extend_from_slice(payload);
    assert!(verify_checksum(&src, &dst, &bytes));
    assert!(!verify_checksum(&src, &Address::v4([10, 0, 0, 3]), &bytes));
}

#[test]
fn flags_print_their_names() {
    assert_eq!(alloc::format!("{:?} {:?}", Flags::SYN | Flags::ACK, Flags(0)), "SYN|ACK -");
}
