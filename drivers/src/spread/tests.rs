use super::*;

#[test]
fn every_hash_has_a_value_and_every_value_as_many_hashes_as_another() {
    for count in [1usize, 2, 3, 1000] {
        let mut spread = Spread::over((0..count).collect());
        for hash in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let place = spread.place_of(hash);
            assert_eq!((*spread.of(hash), *spread.of_mut(hash)), (place, place));
        }
        assert_eq!((*spread.of(0), *spread.of(u64::MAX), spread.len()), (0, count - 1, count));
        let step = u64::MAX / count as u64;
        let places = (0..count as u64).map(|nth| spread.place_of(step * nth + step / 2));
        assert!(places.eq(0..count));
    }
}

#[test]
#[should_panic(expected = "there is one for each hash")]
fn without_values_there_is_none_to_give() {
    Spread::<u8>::over(Vec::new());
}
