//! Sequence numbers (RFC 9293 §3.4).

use core::ops::{Add, AddAssign, Sub};

/// A sequence number: it wraps, and is compared with before and after (RFC 9293 §3.4). It has no order of its own:
/// `before` means something between numbers less than 2³¹ apart.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Seq(pub u32);

impl Seq {
    /// `n` further on.
    #[inline]
    pub const fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }

    /// How far `self` is past `earlier`, wrapping.
    #[inline]
    pub const fn since(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// `self < other`.
    #[inline]
    pub const fn before(self, other: Seq) -> bool {
        (self.since(other) as i32) < 0
    }

    /// `self > other`.
    #[inline]
    pub const fn after(self, other: Seq) -> bool {
        other.before(self)
    }

    /// `self ≤ other`.
    #[inline]
    pub const fn at_or_before(self, other: Seq) -> bool {
        !other.before(self)
    }

    /// `self ≥ other`.
    #[inline]
    pub const fn at_or_after(self, other: Seq) -> bool {
        !self.before(other)
    }

    /// The later of the two.
    #[inline]
    pub const fn max(self, other: Seq) -> Seq {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    pub const fn min(self, other: Seq) -> Seq {
        if other.before(self) { other } else { self }
    }

    /// `start ≤ self < start + len`, for any `len`.
    #[inline]
    pub const fn within(self, start: Seq, len: u32) -> bool {
        self.since(start) < len
    }
}

impl Add<u32> for Seq {
    type Output = Seq;
    #[inline]
    fn add(self, n: u32) -> Seq {
        Seq::add(self, n)
    }
}

impl AddAssign<u32> for Seq {
    #[inline]
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl Sub<u32> for Seq {
    type Output = Seq;
    #[inline]
    fn sub(self, n: u32) -> Seq {
        Seq(self.0.wrapping_sub(n))
    }
}
