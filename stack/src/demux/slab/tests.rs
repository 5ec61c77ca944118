use super::*;
use alloc::collections::BTreeMap;
use proptest::prelude::*;

#[test]
fn a_stale_generation_finds_nothing() {
    let mut slab = Slab::with_capacity(2);
    let (index, generation, _) = slab.insert('a').expect("room");
    assert_eq!(slab.remove(index), Some('a'));
    assert_eq!(slab.get_checked(index, generation), None);
    let (again, newer, _) = slab.insert('b').expect("room");
    assert_eq!(again, index);
    assert_ne!(newer, generation);
    assert_eq!(slab.get_checked(index, generation), None);
    assert_eq!(slab.get_checked(index, newer), Some(&'b'));
}

#[test]
fn a_generation_is_never_zero() {
    let mut slab = Slab::with_capacity(1);
    slab.insert('a');
    slab.places[0].generation = NonZeroU32::MAX;
    slab.remove(0);
    assert_eq!(slab.insert('b'), Some((0, FIRST_GENERATION, &mut 'b')));
}

#[test]
fn the_memory_of_a_record_is_its_own_and_eight_bytes() {
    #[derive(Default)]
    struct Record {
        _words: [u64; 31],
    }
    assert_eq!(size_of::<Place<Record>>(), 256);
    let mut slab = Slab::with_capacity(3);
    let reserved = slab.places.capacity();
    for _ in 0..3 {
        slab.insert(Record::default());
    }
    assert_eq!(slab.places.as_ptr() as usize % 64, 0);
    for index in 0..3 {
        slab.remove(index);
    }
    assert_eq!(slab.places.capacity(), reserved);
}

proptest! {
    #[test]
    fn it_agrees_with_a_map(ops in prop::collection::vec(prop_oneof![(0u32..1, any::<u16>()), (1u32..2, 0u16..20)], 1..200)) {
        let mut slab = Slab::with_capacity(16);
        let mut oracle = BTreeMap::new();
        for (kind, value) in ops {
            if kind == 0 {
                let id = slab.insert(value);
                prop_assert_eq!(id.is_some(), oracle.len() < 16);
                if let Some((index, generation, _)) = id {
                    prop_assert_eq!(oracle.insert(index, (generation, value)), None);
                }
            } else {
                prop_assert_eq!(slab.remove(value.into()), oracle.remove(&value.into()).map(|(_, v)| v));
            }
            prop_assert_eq!(slab.len() as usize, oracle.len());
            let all = slab.iter().map(|(i, g, v)| (i, (g, *v))).collect::<BTreeMap<_, _>>();
            prop_assert_eq!(&all, &oracle);
        }
    }
}
