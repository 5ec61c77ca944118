use super::*;

#[derive(PartialEq, Default, Debug)]
struct Kept(i32);

impl Record for Kept {
    fn leave(&mut self) {}
}

#[test]
fn a_stale_handle_is_an_error_and_never_another_connection() {
    let mut conns = Conns::with_capacity(1);
    let (first, _) = conns.insert(Kept(1)).expect("room");
    assert_eq!(conns.insert(Kept(9)), None);
    conns.discard(first.index());
    assert!(conns.is_empty());
    let (second, _) = conns.insert(Kept(2)).expect("room");
    assert_eq!(second.index(), first.index());
    assert_eq!((conns.get(first), conns.get(second)), (None, Some(&Kept(2))));
    assert_eq!(conns.id_at(second.index()), Some(second));
    assert!(conns.get_mut(first).is_none());
}

#[test]
fn a_handle_survives_the_way_through_a_number() {
    let mut conns = Conns::with_capacity(1);
    let (id, _) = conns.insert(Kept(1)).expect("room");
    assert_eq!(ConnId::from_bits(id.to_bits()), Some(id));
    assert_eq!(ConnId::from_bits(7), None);
}
