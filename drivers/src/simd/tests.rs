use super::*;

#[test]
fn both_ways_find_exactly_the_matching_bytes() {
    let mut seed = 1u64;
    for round in 0..10_000u64 {
        let mut bytes = [0u8; 16];
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few different values, so that there is much to find; extremes, so that carries would show.
            *byte = [0, 1, 0x7f, 0x80, 0xff, 0xfe, round as u8][(seed >> 33) as usize % 7];
        }
        for wanted in [0, 1, 0x7f, 0x80, 0xff, round as u8] {
            let expected = (0..16).filter(|i| bytes[*i] == wanted).fold(0, |mask, i| mask | 1 << i);
            assert_eq!(matching_bytes(&Bytes16(bytes), wanted), expected);
            assert_eq!(portable(&Bytes16(bytes), wanted), expected);
        }
    }
}

#[test]
fn halves_are_summed_alike_with_and_without_vectors() {
    for len in [0, 1, 2, 3, 23, 31, 512] {
        let mut words: Vec<[u8; 8]> =
            (0..len).map(|word| std::array::from_fn(|at| (word * 31 + at * 7 + 1) as u8)).collect();
        if let Some(word) = words.last_mut() {
            *word = [0xff; 8];
        }
        let halves = words.as_flattened().chunks(4).map(|half| u32::from_ne_bytes(half.try_into().unwrap()));
        let expected = halves.map(u64::from).sum::<u64>();
        assert_eq!((sum_halves(&words), sum_halves_inline(&words)), (expected, expected));
    }
}

#[test]
fn what_is_asked_of_sixteen_bytes_is_seen_and_nothing_else() {
    let pattern = Pattern::ANY.with(1, &[5, 6]).with_bits(15, 0xf0, 0x7f);
    let both = |bytes: [&[u8; 16]; 2], patterns: [&Pattern; 2]| {
        assert_eq!(all_match(bytes, patterns), portable_match(bytes, patterns));
        all_match(bytes, patterns)
    };
    for filler in [0, 1, 0xff] {
        let mut good = [filler; 16];
        (good[1], good[2], good[15]) = (5, 6, 0x70 | filler & 0xf);
        assert!(both([&good, &good], [&pattern, &Pattern::ANY]));
        assert!(!both([&good, &good], [&pattern, &Pattern::NONE]));
        for bit in 0..128 {
            let mut other = good;
            other[bit / 8] ^= 1 << (bit % 8);
            let is_asked = matches!(bit / 8, 1 | 2) || bit >= 124;
            assert_eq!(both([&good, &other], [&pattern, &pattern]), !is_asked, "{bit}");
            assert_eq!(both([&other, &good], [&pattern, &pattern]), !is_asked, "{bit}");
        }
    }
}
