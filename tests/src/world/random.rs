//! Everything by chance in a world comes from here: the same seed, the same world.

/// SplitMix64: small, fast, and good enough for accidents.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed. Neighbouring seeds have nothing in common.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `least` to `most`, most often a small one: each of its lengths in bits is as likely as another.
    pub fn skewed(&mut self, least: u64, most: u64) -> u64 {
        let bits = 64 - (most - least).leading_zeros();
        let bits = self.below(u64::from(bits) + 1) as u32;
        least + self.below((1_u64 << bits).min(most - least + 1))
    }

    /// True so many times in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// One time in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A sequence of its own, so that what is drawn from it does not change what is drawn here.
    pub fn fork(&mut self) -> Random {
        Random::new(self.number())
    }
}
