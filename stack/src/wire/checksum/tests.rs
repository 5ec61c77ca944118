use super::*;
use proptest::prelude::*;

/// RFC 1071 §4.1, word by word.
fn dumb(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

proptest! {
    #[test]
    fn the_sum_is_the_dumb_one_at_every_length_and_offset(
        bytes in proptest::collection::vec(any::<u8>(), 0..2100), offset in 0usize..9
    ) {
        let bytes = &bytes[offset.min(bytes.len())..];
        prop_assert_eq!(finish(sum(Sum::ZERO, bytes)), dumb(bytes));
    }

    #[test]
    fn parts_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
        let (head, tail) = bytes.split_at((cut * 2).min(bytes.len()));
        prop_assert_eq!(finish(sum(sum(Sum::ZERO, head), tail)), dumb(&bytes));
    }

    #[test]
    fn a_checksum_in_its_place_is_valid_and_a_flipped_bit_is_not(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..200), bit in 0usize..160
    ) {
        bytes[10..12].fill(0);
        let checksum = finish(sum(Sum::ZERO, &bytes));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        prop_assert!(is_valid(sum(Sum::ZERO, &bytes)));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!is_valid(sum(Sum::ZERO, &bytes)));
    }

    #[test]
    fn an_update_is_a_new_sum(mut bytes in proptest::collection::vec(any::<u8>(), 8..64), at in 0usize..4, new: u16) {
        bytes[0] |= 1; // Data that is not all zero: there the two zeros of ones' complement stay apart.
        let old = u16::from_be_bytes([bytes[at * 2], bytes[at * 2 + 1]]);
        let before = dumb(&bytes);
        bytes[at * 2..at * 2 + 2].copy_from_slice(&new.to_be_bytes());
        prop_assume!(bytes.iter().any(|&b| b != 0));
        prop_assert_eq!(update(before, old, new), dumb(&bytes));
    }

    #[test]
    fn the_pseudo_header_is_the_rfcs(a: [u8; 16], b: [u8; 16], protocol in 1u8.., len in 0u32..70_000, v4: bool) {
        let low = |o: [u8; 16]| [o[12], o[13], o[14], o[15]];
        let (src, dst, bytes) = if v4 {
            let len = len as u16;
            let bytes = [&low(a)[..], &low(b), &[0, protocol], &len.to_be_bytes()].concat();
            (Address::v4(low(a)), Address::v4(low(b)), bytes)
        } else {
            (Address::v6(a), Address::v6(b), [&a[..], &b, &len.to_be_bytes(), &[0, 0, 0, protocol]].concat())
        };
        let len = if v4 { u32::from(len as u16) } else { len };
        prop_assert_eq!(finish(pseudo_header(&src, &dst, protocol, len)), dumb(&bytes));
    }

    #[test]
    fn a_header_is_finished_like_all_else(sum in 1u64.., multiple in 1u64..=u64::MAX / 0xffff) {
        for sum in [Sum(sum), Sum(sum >> 30 | 1), Sum(multiple * 0xffff), Sum(multiple * 0xffff - 1)] {
            prop_assert_eq!(finish_header(sum), finish(sum));
        }
    }

    #[test]
    fn words_add_up_as_octets_do(a: u32, b: u64, c: u64, before: u32) {
        let octets = [&a.to_be_bytes()[..], &b.to_be_bytes(), &c.to_be_bytes(), &before.to_ne_bytes()].concat();
        prop_assume!(octets.iter().any(|&octet| octet != 0));
        prop_assert_eq!(finish(plus_pairs(plus_words(Sum(before.into()), [a]), [b, c])), dumb(&octets));
    }

    #[test]
    fn header_sums_agree_with_slice_sums(bytes: [u8; 20]) {
        prop_assert_eq!(finish(sum_array(Sum::ZERO, &bytes)), dumb(&bytes));
    }
}

#[test]
fn many_carries_do_not_get_lost() {
    let bytes = [0xff; 65_536];
    assert_eq!(finish(sum(sum(Sum(u64::MAX), &bytes), &bytes)), 0);
    assert_eq!(finish(Sum(u64::MAX - 1)), 1u16.to_be());
    assert_eq!(finish_header(Sum(u64::MAX)), 0);
    assert_eq!(finish_header(Sum(u64::MAX - 1)), 1u16.to_be());
}
