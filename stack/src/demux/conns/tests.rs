use super::*;

#[derive(PartialEq, Default, Debug)]
struct Kept(i32);

impl Record for Kept {
    fn leave(&mut self) {}
}

fn insert(conns: &mut Conns<Kept>, what: i32) -> Option<ConnId> {
    let (id, place) = conns.take_place()?;
    *place = Kept(what);
    Some(id)
}

#[test]
fn a_stale_handle_is_an_error_and_never_another_connection() {
    let mut conns = Conns::with_capacity(1);
    let first = insert(&mut conns, 1).expect("room");
    assert_eq!(insert(&mut conns, 9), None);
    conns.discard(first.index());
    assert!(conns.is_empty());
    let second = insert(&mut conns, 2).expect("room");
    assert_eq!(second.index(), first.index());
    assert_eq!((conns.get(first), conns.get(second)), (None, Some(&Kept(2))));
    assert_eq!(conns.id_at(second.index()), Some(second));
    assert!(conns.get_mut(first).is_none());
}

#[test]
fn a_handle_survives_the_way_through_a_number() {
    let mut conns = Conns::with_capacity(1);
    let id = insert(&mut conns, 1).expect("room");
    assert_eq!(ConnId::from_bits(id.to_bits()), Some(id));
    assert_eq!(ConnId::from_bits(7), None);
}
