use super::*;

fn reply(function: u8, table: &[u32], key_len: usize) -> Vec<u32> {
    let mut reply = vec![ETHTOOL_GRSSH, 0, table.len() as u32, key_len as u32, 0, 0];
    reply[FUNCTION] = u32::from_ne_bytes([function, 0, 0, 0]);
    reply.extend(table);
    let key: Vec<u8> = (0..key_len.next_multiple_of(4) as u8).collect();
    reply.extend(key.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)));
    reply
}

#[test]
fn key_and_table_come_in_the_order_that_the_device_uses() {
    let rss = parse(&reply(TOEPLITZ, &[0, 1, 2, 3, 0, 1, 2, 3], 40), 0..4).unwrap();
    assert_eq!(rss.table, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(rss.key, (0..40).collect::<Vec<u8>>());
    assert_eq!(parse(&reply(TOEPLITZ, &[0], 52), 0..1).unwrap().key.len(), 52);
}

#[test]
fn queues_are_counted_from_the_first_of_ours() {
    assert_eq!(parse(&reply(TOEPLITZ, &[4, 5], 40), 4..6).unwrap().table, [0, 1]);
}

#[test]
fn what_cannot_be_computed_is_not_known() {
    assert_eq!(parse(&reply(2, &[0, 1], 40), 0..2), None, "another function");
    assert_eq!(parse(&reply(TOEPLITZ, &[], 40), 0..2), None, "no table");
    assert_eq!(parse(&reply(TOEPLITZ, &[0, 1], 0), 0..2), None, "no key");
    assert_eq!(parse(&reply(TOEPLITZ, &[0, 2], 40), 0..2), None, "a queue that is not ours");
    let mut symmetric = reply(TOEPLITZ, &[0, 1], 40);
    symmetric[FUNCTION] = u32::from_ne_bytes([TOEPLITZ, 1, 0, 0]);
    assert_eq!(parse(&symmetric, 0..2), None, "the input is transformed first");
    assert_eq!(parse(&reply(TOEPLITZ, &[0, 1], 40)[..7], 0..2), None, "cut short");
}
