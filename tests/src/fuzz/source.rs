//! Decisions drawn from bytes.

/// What is left of a case.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    bytes: &'a [u8],
}

impl<'a> Source<'a> {
    /// The whole case.
    pub fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { bytes }
    }

    /// The case is over. What is drawn now is 0.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// One of these; more often the earlier ones, if their number does not divide 256.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// At most so many bytes as they are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }
}

/// The case of a seed: up to `len_max` bytes.
pub fn bytes_of_seed(seed: u64, len_max: usize, into: &mut Vec<u8>) {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x9e6c_63d0_876a_4f35;
    let mut number = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    // Short cases are many and quick, long ones go deep.
    let len = number() as usize % (len_max >> (number() % 4)).max(1);
    into.clear();
    while into.len() < len {
        into.extend_from_slice(&number().to_le_bytes());
    }
    into.truncate(len);
}
