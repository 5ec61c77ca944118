use super::*;
use alloc::vec;
use alloc::vec::Vec;

const SECRETS: [[u64; 4]; 3] =
    [[0; 4], [1, 2, 3, 4], [0x9e37_79b9_7f4a_7c15, 0xdead_beef, u64::MAX, 0x0123_4567_89ab_cdef]];

fn key(local: u32, local_port: u16, remote: u32, remote_port: u16) -> FlowKey {
    FlowKey {
        local: Address::v4(local.to_be_bytes()),
        remote: Address::v4(remote.to_be_bytes()),
        local_port,
        remote_port,
    }
}

fn key6(low: u64, remote_port: u16) -> FlowKey {
    let remote = (0x2001_0db8u128 << 96 | u128::from(low)).to_be_bytes();
    FlowKey { local: Address::v6([0xfd; 16]), remote: Address::v6(remote), local_port: 443, remote_port }
}

/// Every set of keys that networks make: consecutive ports, consecutive addresses, both, and strides.
fn populations() -> Vec<Vec<FlowKey>> {
    const N: u32 = 1 << 16;
    vec![
        (0..N).map(|n| key(0x0a00_0001, 80, 0x0a00_0002, n as u16)).collect(),
        (0..N).map(|n| key(0x0a00_0001, n as u16, 0x0a00_0002, 80)).collect(),
        (0..N).map(|n| key(0x0a00_0001, 80, 0x0a00_0000 + n, 40_000)).collect(),
        (0..N).map(|n| key(0x0a00_0001, 80, n << 16, 40_000)).collect(),
        (0..N).map(|n| key(0x0a00_0001 + n % 16, 80, 0x0a00_0000 + (n >> 4) % 64, 1024 + (n >> 10) as u16)).collect(),
        (0..N).map(|n| key(0x0a00_0000 + n, n as u16, 0x0a00_0000 + n, n as u16)).collect(),
        (0..N).map(|n| key6(n.into(), 1)).collect(),
        (0..N).map(|n| key6(u64::from(n) << 48, 1)).collect(),
        (0..N).map(|n| key6((n >> 8).into(), n as u16 & 0xff)).collect(),
    ]
}

/// χ² of the hashes spread by `bucket` over 2¹² buckets, in standard deviations from what chance gives.
fn deviation(hashes: &[u64], bucket: impl Fn(u64) -> usize) -> f64 {
    let mut counts = vec![0u32; 1 << 12];
    hashes.iter().for_each(|h| counts[bucket(*h)] += 1);
    let mean = hashes.len() as f64 / counts.len() as f64;
    let chi: f64 = counts.iter().map(|c| (f64::from(*c) - mean) * (f64::from(*c) - mean) / mean).sum();
    let freedom = counts.len() as f64 - 1.0;
    // Even more evenly than by chance is welcome.
    (chi - freedom) / libm_sqrt(2.0 * freedom)
}

fn libm_sqrt(x: f64) -> f64 {
    (0..40).fold(x, |guess, _| (guess + x / guess) / 2.0)
}

#[test]
fn neighbouring_ports_and_addresses_spread_over_low_middle_and_high_bits() {
    for secret in SECRETS {
        let hasher = FlowHasher::new(secret);
        for (n, keys) in populations().iter().enumerate() {
            let mut hashes: Vec<u64> = keys.iter().map(|k| hasher.hash(k)).collect();
            for shift in [0, 20, 40, 52] {
                let deviation = deviation(&hashes, |h| (h >> shift) as usize & 0xfff);
                assert!(deviation < 6.0, "population {n}, bits from {shift}: {deviation}");
            }
            // The flow index takes the bucket from the top and the tag from the bottom.
            let deviation = deviation(&hashes, |h| (h >> 60 << 8 | h & 0xff) as usize);
            assert!(deviation < 6.0, "population {n}, top and bottom: {deviation}");
            hashes.sort_unstable();
            assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "population {n}: two keys share all 64 bits");
        }
    }
}

#[test]
fn one_changed_bit_of_the_key_changes_half_of_the_hash() {
    let flip = |mut key: FlowKey, bit: usize| {
        let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
        let (mut local, mut remote) = (key.local.octets(), key.remote.octets());
        match byte {
            0..16 => local[byte] ^= mask,
            16..32 => remote[byte - 16] ^= mask,
            32..34 => key.local_port ^= u16::from(mask) << ((byte - 32) * 8),
            _ => key.remote_port ^= u16::from(mask) << ((byte - 34) * 8),
        }
        FlowKey { local: Address::v6(local), remote: Address::v6(remote), ..key }
    };
    let (v4, v6) = (key(0x0a00_0001, 80, 0xc000_0201, 4711), key6(0x1234_5678_9abc_def0, 4711));
    // Of IPv4 the bits that are not the same in all keys.
    let bits_v4 = (96..128).chain(224..288).map(|bit| (v4, bit));
    for (base, bit) in (0..288).map(|bit| (v6, bit)).chain(bits_v4) {
        let mut flips = [0u32; 64];
        for n in 0..512u64 {
            let hasher = FlowHasher::new([n, n << 32, !n, n.wrapping_mul(PI[0])]);
            let changed = hasher.hash(&base) ^ hasher.hash(&flip(base, bit));
            (0..64).for_each(|i| flips[i] += (changed >> i & 1) as u32);
        }
        // 256 are expected of 512; 12 is one standard deviation.
        assert!(flips.iter().all(|n| (170..342).contains(n)), "key bit {bit}: {flips:?}");
    }
}

#[test]
fn which_keys_share_a_bucket_depends_on_the_secret() {
    let (one, other) = (FlowHasher::new(SECRETS[1]), FlowHasher::new(SECRETS[2]));
    let [v4, v6]: [fn(u32) -> FlowKey; 2] =
        [|n| key(0x0a00_0001, 80, 0x0a00_0000 + (n >> 4), n as u16 & 15), |n| key6(u64::from(n >> 4), n as u16 & 15)];
    for of in [v4, v6] {
        let aimed: Vec<FlowKey> = (0..1 << 20).map(of).filter(|key| one.hash(key) >> 54 == 0).collect();
        assert!(aimed.len() > 800);
        let still = aimed.iter().filter(|key| other.hash(key) >> 54 == 0).count();
        assert!(still < 10, "{still} of {}", aimed.len());
    }
}
