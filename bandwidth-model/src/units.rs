//! Quantities with their units: a rate cannot be added to a volume by mistake.
//!
//! All are exact. Sums and products are checked, so that no question, however large, can wrap.

use serde::{Serialize, Serializer};

use crate::error::ModelError;
use crate::ratio::Ratio;

/// A number of links, each between two people.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LinkCount(u64);

impl LinkCount {
    /// So many links.
    #[must_use]
    pub const fn new(links: u64) -> Self {
        Self(links)
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }
}

/// A rate in whole bits per second.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BitsPerSec(u128);

impl BitsPerSec {
    /// No traffic.
    pub const ZERO: Self = Self(0);

    /// So many bits per second.
    #[must_use]
    pub const fn new(bits_per_s: u64) -> Self {
        Self(bits_per_s as u128)
    }

    /// Bits per second.
    #[must_use]
    pub const fn bits_per_s(self) -> u128 {
        self.0
    }

    /// Sum of two rates.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, ModelError> {
        self.0.checked_add(other.0).map(Self).ok_or(ModelError::TooLarge)
    }

    /// So many times this rate.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn times(self, factor: u128) -> Result<Self, ModelError> {
        self.0.checked_mul(factor).map(Self).ok_or(ModelError::TooLarge)
    }

    /// The nearest whole rate to an expectation, which is computed in floating point.
    pub(crate) fn nearest(bits_per_s: f64) -> Result<Self, ModelError> {
        whole(bits_per_s).map(Self)
    }

    /// What this rate carries in a time: bit/s × s / 8.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn lasting(self, time: Seconds) -> Result<Bytes, ModelError> {
        let bits = self.0.checked_mul(u128::from(time.0)).ok_or(ModelError::TooLarge)?;
        Ok(Bytes { bits })
    }
}

/// A volume in bytes (1 GB = 10⁹ bytes).
///
/// It is kept in bits, so that the parts of a divided time add up exactly to the whole.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Bytes {
    bits: u128,
}

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self { bits: 0 };

    /// So many whole bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self { bits: bytes as u128 * 8 }
    }

    /// The nearest whole volume to an expectation, which is computed in floating point.
    pub(crate) fn nearest(bytes: f64) -> Result<Self, ModelError> {
        let bits = whole(bytes)?.checked_mul(8).ok_or(ModelError::TooLarge)?;
        Ok(Self { bits })
    }

    /// Whole bytes, halves rounded up.
    #[must_use]
    pub const fn whole(self) -> u128 {
        self.bits / 8 + (self.bits % 8) / 4
    }

    /// Exact bytes, in eighths where needed.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] from 2^124 bytes on.
    pub fn exact(self) -> Result<Ratio, ModelError> {
        Ratio::whole(self.bits)?.over(Ratio::whole(8)?)
    }

    /// Sum of two volumes.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, ModelError> {
        self.bits.checked_add(other.bits).map(|bits| Self { bits }).ok_or(ModelError::TooLarge)
    }

    /// So many times this volume.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn times(self, factor: u128) -> Result<Self, ModelError> {
        self.bits.checked_mul(factor).map(|bits| Self { bits }).ok_or(ModelError::TooLarge)
    }
}

/// Whole bytes, as [`Bytes::whole`].
impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u128(self.whole())
    }
}

/// A time in whole seconds: a duration, or a moment after any fixed origin.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Seconds(u64);

impl Seconds {
    /// One hour.
    pub const HOUR: Self = Self(3600);

    /// So many seconds.
    #[must_use]
    pub const fn new(seconds: u64) -> Self {
        Self(seconds)
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this moment, zero if it lies after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

/// The whole number nearest to `value`, which must lie in 0 to 2^127.
fn whole(value: f64) -> Result<u128, ModelError> {
    let rounded = value.round();
    if (0.0..=i128::MAX as f64).contains(&rounded) {
        Ok(rounded as u128)
    } else {
        Err(ModelError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_time_loses_no_bit() {
        let rate = BitsPerSec::new(1);
        let whole = rate.lasting(Seconds::new(10)).unwrap();
        let first = rate.lasting(Seconds::new(3)).unwrap();
        let second = rate.lasting(Seconds::new(7)).unwrap();
        assert_eq!(first.plus(second), Ok(whole));
        assert_eq!(whole.whole(), 1);
        assert_eq!(whole.exact(), Ratio::new(5, 4));
    }

    #[test]
    fn a_petabyte_month_fits() {
        let rate = BitsPerSec::new(u64::MAX).times(4 * 499_999_500_000).unwrap();
        assert!(rate.lasting(Seconds::new(31 * 24 * 3600)).is_ok());
        assert_eq!(BitsPerSec::new(2).times(u128::MAX), Err(ModelError::TooLarge));
    }
}
