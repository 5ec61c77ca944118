use super::*;
use alloc::vec;
use proptest::prelude::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 8]);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms + 1_000)
}

fn host(n: u16) -> Address {
    let [high, low] = n.to_be_bytes();
    Address::v4([10, 0, high, low])
}

struct Table(Neighbours);

impl Table {
    fn new(neighbours_max: usize) -> Table {
        Table(Neighbours::new(neighbours_max, 4, [7; 16]))
    }

    fn resolve(&mut self, ms: u64, n: u16, waiter: Option<u32>) -> NextHop {
        self.0.resolve(at(ms), Some(host(n)), &mut NeighbourId::default(), waiter)
    }

    fn asked(&mut self, ms: u64) -> Vec<(Address, Option<Mac>)> {
        let mut asked = vec![];
        self.0.poll(at(ms), |address, mac| {
            asked.push((address, mac));
            true
        });
        asked
    }

    fn heard(&mut self, ms: u64, mac: Mac, evidence: Evidence) -> bool {
        self.0.heard(at(ms), host(1), Some(mac), evidence)
    }

    fn woken(&mut self) -> Vec<u32> {
        self.0.take_woken().collect()
    }
}

/// A table that knows host 1, proven at 0 ms.
fn reachable() -> Table {
    let mut table = Table::new(8);
    table.resolve(0, 1, None);
    table.heard(0, MAC, Evidence::Answered);
    table
}

/// A table that knows host 1 by hearsay.
fn stale() -> Table {
    let mut table = Table::new(8);
    table.heard(0, MAC, Evidence::Asked);
    table
}

#[test]
fn a_neighbour_is_asked_once_a_second_three_times_and_given_up() {
    let mut table = Table::new(8);
    assert_eq!(table.resolve(0, 1, Some(5)), NextHop::Pending);
    assert_eq!(table.asked(0), [(host(1), None)]);
    assert_eq!(table.asked(999), []);
    assert_eq!(table.0.next_poll(), Some(at(1000)));
    assert_eq!(table.asked(1000), [(host(1), None)]);
    assert_eq!(table.asked(2000), [(host(1), None)]);
    assert_eq!((table.asked(3000), table.woken()), (vec![], vec![5]));
    assert_eq!((table.0.next_poll(), table.resolve(3000, 1, None)), (None, NextHop::Unreachable));
    assert_eq!(table.resolve(5999, 1, None), NextHop::Unreachable);
    assert_eq!((table.resolve(6000, 1, None), table.asked(6000)), (NextHop::Pending, vec![(host(1), None)]));
}

#[test]
fn an_answer_wakes_those_who_wait_and_serves_the_fast_path() {
    let mut table = Table::new(8);
    let mut id = NeighbourId::default();
    assert_eq!(table.0.fresh(at(0), id), None);
    assert_eq!(table.0.resolve(at(0), Some(host(1)), &mut id, Some(5)), NextHop::Pending);
    assert_eq!(table.resolve(0, 1, Some(6)), NextHop::Pending);
    table.resolve(0, 2, Some(7));
    assert!(table.heard(1, MAC, Evidence::Answered));
    assert_eq!(table.woken(), [5, 6]);
    assert_eq!(table.0.fresh(at(1), id), Some(MAC));
    assert_eq!(table.0.fresh(at(30_001), id), None, "after thirty seconds it is to be thought about");
    assert_eq!(table.0.resolve(at(30_001), None, &mut id, None), NextHop::Ready(MAC));
}

#[test]
fn who_waits_already_is_not_put_down_twice() {
    let mut table = Table::new(8);
    let mut id = NeighbourId::default();
    for _ in 0..3 {
        assert_eq!(table.0.resolve(at(0), Some(host(1)), &mut id, Some(5)), NextHop::Pending);
    }
    table.heard(0, MAC, Evidence::Answered);
    assert_eq!(table.woken(), [5]);
}

#[test]
fn no_more_wait_than_may() {
    let mut table = Table::new(8);
    for waiter in 0..9 {
        assert_eq!(table.resolve(0, 1, Some(waiter)), NextHop::Pending);
    }
    table.heard(0, MAC, Evidence::Answered);
    assert_eq!(table.woken(), [0, 1, 2, 3]);
}

#[test]
fn a_stale_neighbour_is_used_and_probed_after_five_seconds() {
    let mut table = stale();
    assert_eq!(table.resolve(0, 1, None), NextHop::Ready(MAC));
    assert_eq!(table.asked(4_999), []);
    for ms in [5_000, 6_000, 7_000] {
        assert_eq!(table.asked(ms), [(host(1), Some(MAC))]);
        assert_eq!(table.resolve(ms, 1, None), NextHop::Ready(MAC));
    }
    assert_eq!((table.asked(8_000), table.resolve(8_000, 1, None)), (vec![], NextHop::Unreachable));
}

#[test]
fn progress_of_a_connection_spares_the_probe() {
    let mut table = stale();
    let mut id = NeighbourId::default();
    table.0.resolve(at(0), Some(host(1)), &mut id, None);
    table.0.confirm(at(1), id);
    assert_eq!((table.0.fresh(at(2), id), table.asked(6_000)), (Some(MAC), vec![]));
}

#[test]
fn an_announcement_makes_nobody_known_but_moves_who_is() {
    let mut table = Table::new(8);
    assert!(!table.heard(0, MAC, Evidence::Announced));
    assert_eq!(table.0.peek(host(1)), NextHop::Unreachable);
    let mut table = reachable();
    assert!(table.heard(1, OTHER, Evidence::Announced));
    assert_eq!(table.0.peek(host(1)), NextHop::Ready(OTHER));
    table.resolve(1, 1, None);
    assert_eq!(table.asked(5_001), [(host(1), Some(OTHER))], "what was only announced is probed");
}

#[test]
fn a_hint_does_not_replace_what_is_known() {
    let mut table = reachable();
    assert!(!table.heard(1, OTHER, Evidence::Hinted { solicited: true }));
    assert_eq!((table.resolve(1, 1, None), table.asked(5_001)), (NextHop::Ready(MAC), vec![(host(1), Some(MAC))]));
    assert!(table.heard(5_002, MAC, Evidence::Hinted { solicited: true }));
    assert_eq!(table.asked(9_000), []);
}

#[test]
fn an_answer_that_names_no_ethernet_address_confirms_the_known_one() {
    let mut table = stale();
    table.resolve(0, 1, None);
    assert!(table.0.heard(at(1), host(1), None, Evidence::Answered));
    assert_eq!(table.asked(6_000), []);
    assert!(!table.0.heard(at(1), host(2), None, Evidence::Answered));
    table.resolve(6_000, 3, None);
    assert!(!table.0.heard(at(6_000), host(3), None, Evidence::Answered));
    assert_eq!(table.0.peek(host(3)), NextHop::Pending);
}

#[test]
fn a_permanent_neighbour_is_neither_asked_nor_moved_nor_forgotten() {
    let mut table = Table::new(1);
    assert!(table.0.add_permanent(host(1), MAC));
    assert!(!table.heard(1, OTHER, Evidence::Answered));
    assert_eq!(table.resolve(u64::MAX / 2_000_000, 1, None), NextHop::Ready(MAC));
    assert_eq!(table.resolve(2, 2, None), NextHop::Unreachable, "there is no room for another");
}

#[test]
fn a_scan_of_the_network_pushes_out_its_own_kind() {
    let mut table = Table::new(8);
    for n in 0..4 {
        table.0.heard(at(0), host(n), Some(MAC), Evidence::Asked);
    }
    for n in 100..200 {
        table.resolve(1, n, None);
    }
    assert!((0..4).all(|n| table.0.peek(host(n)) == NextHop::Ready(MAC)));
    assert_eq!(table.0.len(), 8);
}

#[test]
fn the_id_of_one_who_was_pushed_out_finds_nobody() {
    let mut table = Table::new(1);
    let mut id = NeighbourId::default();
    table.0.resolve(at(0), Some(host(1)), &mut id, Some(3));
    table.resolve(1, 2, None);
    table.0.heard(at(1), host(2), Some(MAC), Evidence::Answered);
    assert_eq!((table.0.fresh(at(1), id), table.0.contains(id)), (None, false));
    assert_eq!(table.woken(), [3], "and who waited is told");
}

#[test]
fn when_nothing_can_be_sent_the_try_does_not_count() {
    let mut table = Table::new(8);
    table.resolve(0, 1, None);
    for ms in 0..10 {
        table.0.poll(at(ms), |_, _| false);
    }
    assert_eq!(table.asked(10), [(host(1), None)]);
}

proptest! {
    #[test]
    fn any_sequence_of_events_keeps_the_table_in_its_bounds_and_its_ids_true(
        events in proptest::collection::vec((0u8..6, 0u16..12, 0u8..3, 0u64..4_000), 1..300)
    ) {
        let mut table = Table::new(6);
        let mut ids = [NeighbourId::default(); 12];
        let mut ms = 0;
        for (event, n, mac, step) in events {
            ms += step;
            let mac = Mac([2, 0, 0, 0, n as u8, mac]);
            match event {
                0 | 1 => { table.0.resolve(at(ms), Some(host(n)), &mut ids[n as usize], Some(u32::from(n))); }
                2 => { table.0.heard(at(ms), host(n), Some(mac), Evidence::Answered); }
                3 => { table.0.heard(at(ms), host(n), Some(mac), Evidence::Asked); }
                4 => { table.0.heard(at(ms), host(n), Some(mac), Evidence::Announced); }
                _ => { table.asked(ms); }
            }
            prop_assert!(table.0.len() <= 6 && table.0.entries.len() <= 6);
            prop_assert!(table.0.waiters.len() <= 4 && table.0.woken.len() <= 4);
            for (n, &id) in ids.iter().enumerate() {
                if let Some(mac) = table.0.fresh(at(ms), id) {
                    prop_assert_eq!(usize::from(mac.0[4]), n, "an id leads to its own neighbour");
                    prop_assert_eq!(table.0.peek(host(n as u16)), NextHop::Ready(mac));
                }
            }
            for (index, entry) in table.0.entries.iter().enumerate() {
                prop_assert_eq!(table.0.find(entry.address), Some(index as u32));
            }
        }
    }
}
