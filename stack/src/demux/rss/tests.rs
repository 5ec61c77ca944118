use super::*;
use crate::wire::address::Address;
use alloc::vec;

/// The key of Microsoft's published test vectors for receive-side scaling.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

fn key(local: u32, local_port: u16, remote: u32, remote_port: u16) -> FlowKey {
    FlowKey {
        local: Address::v4(local.to_be_bytes()),
        remote: Address::v4(remote.to_be_bytes()),
        local_port,
        remote_port,
    }
}

#[test]
fn a_flow_is_at_home_where_the_device_delivers_it() {
    // The first published vector: from 66.9.149.187:2794 to 161.142.100.80:1766, hash 0x51ccc178.
    let flow = key(0xa18e_6450, 1766, 0x4209_95bb, 2794);
    let mut table = vec![0; 128];
    table[0x51cc_c178 % 128] = 3;
    let home = Home::new(4, Some(&Rss { key: KEY.to_vec(), table }));
    assert_eq!(home.of(&flow), 3);
}

#[test]
fn a_queue_without_a_worker_is_shared_out() {
    let home = Home::new(2, Some(&Rss { key: KEY.to_vec(), table: vec![7] }));
    assert_eq!(home.of(&key(1, 2, 3, 4)), 1);
    let home = Home::new(2, Some(&Rss { key: KEY.to_vec(), table: vec![] }));
    assert!(home.of(&key(1, 2, 3, 4)) < 2);
}

#[test]
fn one_worker_owns_everything() {
    let home = Home::new(1, Some(&Rss { key: KEY.to_vec(), table: vec![5; 128] }));
    assert_eq!(home.of(&key(1, 2, 3, 4)), 0);
    assert_eq!(Home::new(0, None).of(&key(1, 2, 3, 4)), 0);
}

#[test]
fn without_a_device_table_the_shares_are_fair_and_both_directions_agree() {
    for workers in [2u16, 3, 8, 48] {
        let home = Home::new(workers, None);
        let mut shares = vec![0u32; workers.into()];
        for n in 0..48_000 {
            let flow = key(0x0a00_0001, 80, 0x0a00_0002 + n % 7, 1024 + n as u16);
            shares[usize::from(home.of(&flow))] += 1;
            let FlowKey { local, remote, local_port, remote_port } = flow;
            let back = FlowKey { local: remote, remote: local, local_port: remote_port, remote_port: local_port };
            assert_eq!(home.of(&flow), home.of(&back));
        }
        let fair = 48_000 / u32::from(workers);
        assert!(shares.iter().all(|share| (fair / 2..fair * 2).contains(share)), "{workers}: {shares:?}");
    }
}
