//! Exact fractions, for every number that is neither a count nor a probability.

use std::fmt;

use crate::error::ModelError;

/// An exact fraction in lowest terms. Arithmetic is checked: a result that does not fit is an
/// error, never a rounded or wrapped number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ratio {
    numerator: i128,
    denominator: i128, // > 0, no common factor with the numerator
}

impl Ratio {
    /// Zero.
    pub const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// `numerator / denominator`.
    ///
    /// # Errors
    /// [`ModelError::Zero`] for a zero denominator, [`ModelError::TooLarge`] beyond 2^127.
    pub fn new(numerator: i128, denominator: i128) -> Result<Self, ModelError> {
        if denominator == 0 {
            return Err(ModelError::Zero("a denominator"));
        }
        let common = common_factor(numerator, denominator)?;
        let sign = denominator.signum();
        Ok(Self {
            numerator: (numerator / common).checked_mul(sign).ok_or(ModelError::TooLarge)?,
            denominator: (denominator / common).checked_mul(sign).ok_or(ModelError::TooLarge)?,
        })
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] from 2^127 on.
    pub fn whole(value: u128) -> Result<Self, ModelError> {
        let numerator = i128::try_from(value).map_err(|_| ModelError::TooLarge)?;
        Ok(Self { numerator, denominator: 1 })
    }

    /// The exact value of a decimal such as `0.02`, `.5`, `-3` or `1.5e6`: 0.1 is one tenth.
    ///
    /// # Errors
    /// [`ModelError::NotADecimal`] for other text, or more than 30 digits or decimal places.
    pub fn from_decimal(text: &str) -> Result<Self, ModelError> {
        parse_decimal(text).ok_or(ModelError::NotADecimal)
    }

    /// The number above the line; carries the sign.
    #[must_use]
    pub fn numerator(self) -> i128 {
        self.numerator
    }

    /// The number below the line, at least 1.
    #[must_use]
    pub fn denominator(self) -> i128 {
        self.denominator
    }

    /// Sum.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, ModelError> {
        let common = common_factor(self.denominator, other.denominator)?;
        let (mine, theirs) = (self.denominator / common, other.denominator / common);
        let left = self.numerator.checked_mul(theirs);
        let right = other.numerator.checked_mul(mine);
        let sum = left.zip(right).and_then(|(l, r)| l.checked_add(r));
        let below = self.denominator.checked_mul(theirs);
        let (sum, below) = sum.zip(below).ok_or(ModelError::TooLarge)?;
        Self::new(sum, below)
    }

    /// Difference.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn minus(self, other: Self) -> Result<Self, ModelError> {
        let numerator = other.numerator.checked_neg().ok_or(ModelError::TooLarge)?;
        self.plus(Self { numerator, ..other })
    }

    /// Product.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn times(self, other: Self) -> Result<Self, ModelError> {
        // Cancelling crosswise first keeps the intermediates as small as the result.
        let one = Self::new(self.numerator, other.denominator)?;
        let two = Self::new(other.numerator, self.denominator)?;
        let above = one.numerator.checked_mul(two.numerator);
        let below = one.denominator.checked_mul(two.denominator);
        let (numerator, denominator) = above.zip(below).ok_or(ModelError::TooLarge)?;
        Ok(Self { numerator, denominator })
    }

    /// Quotient.
    ///
    /// # Errors
    /// [`ModelError::Zero`] for a zero divisor, [`ModelError::TooLarge`].
    pub fn over(self, other: Self) -> Result<Self, ModelError> {
        self.times(Self::new(other.denominator, other.numerator)?)
    }

    /// Size without sign.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`].
    pub fn abs(self) -> Result<Self, ModelError> {
        let numerator = self.numerator.checked_abs().ok_or(ModelError::TooLarge)?;
        Ok(Self { numerator, ..self })
    }

    /// The least whole number that is not below this one.
    #[must_use]
    pub fn ceil(self) -> Self {
        let down = self.numerator.div_euclid(self.denominator);
        let numerator = down + i128::from(self.denominator != 1);
        Self { numerator, denominator: 1 }
    }

    /// The nearest whole number, halves upwards.
    #[must_use]
    pub fn round(self) -> i128 {
        let down = self.numerator.div_euclid(self.denominator);
        let rest = self.numerator.rem_euclid(self.denominator);
        down + i128::from(rest >= self.denominator - rest)
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.numerator < 0
    }

    /// The whole number it is, if it is one.
    #[must_use]
    pub fn as_whole(self) -> Option<i128> {
        (self.denominator == 1).then_some(self.numerator)
    }

    /// Nearly the same number in floating point, within 2 units in the last place.
    #[must_use]
    pub fn approx(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

/// `a/b`, or `a` for whole numbers.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_whole() {
            Some(whole) => write!(f, "{whole}"),
            None => write!(f, "{}/{}", self.numerator, self.denominator),
        }
    }
}

/// Most digits, and most decimal places, that a decimal may have.
const DIGITS_MAX: usize = 30;

/// Greatest common divisor, at least 1 unless both are zero, in which case 1 as well.
fn common_factor(a: i128, b: i128) -> Result<i128, ModelError> {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i128::try_from(a.max(1)).map_err(|_| ModelError::TooLarge)
}

fn parse_decimal(text: &str) -> Option<Ratio> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return None,
        Some(("", fraction)) => ("0", fraction),
        Some(both) => both,
        None => (unsigned, ""),
    };
    if whole.is_empty() || whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let mut digits: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        digits = digits * 10 + i128::from(char::from(byte).to_digit(10)?);
    }
    if negative {
        digits = -digits;
    }
    let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if places.unsigned_abs() as usize > DIGITS_MAX {
        return None;
    }
    let power = 10_i128.checked_pow(places.unsigned_abs())?;
    if places >= 0 {
        Ratio::new(digits, power).ok()
    } else {
        Ratio::new(digits.checked_mul(power)?, 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(numerator: i128, denominator: i128) -> Ratio {
        Ratio::new(numerator, denominator).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(Ratio::from_decimal("0.1"), Ok(ratio(1, 10)));
        assert_eq!(Ratio::from_decimal("-2.50"), Ok(ratio(-5, 2)));
        assert_eq!(Ratio::from_decimal("1.5e6"), Ok(ratio(1_500_000, 1)));
        assert_eq!(Ratio::from_decimal("1e-09"), Ok(ratio(1, 1_000_000_000)));
        assert_eq!(Ratio::from_decimal(".3"), Ok(ratio(3, 10)));
        for bad in ["", ".", "1.", "-", "-.", "1,5", "+1", " 1", "inf", "1e", "1e99", "0x1", "--1"]
        {
            assert_eq!(Ratio::from_decimal(bad), Err(ModelError::NotADecimal), "{bad:?}");
        }
        assert!(Ratio::from_decimal(&"9".repeat(31)).is_err());
        assert!(Ratio::from_decimal("1e-2147483648").is_err());
    }

    #[test]
    fn arithmetic_is_exact_and_reduced() {
        assert_eq!(ratio(1, 10).plus(ratio(2, 10)), Ok(ratio(3, 10)));
        assert_eq!(ratio(1, 3).minus(ratio(1, 2)), Ok(ratio(-1, 6)));
        assert_eq!(ratio(2, 3).times(ratio(9, 4)), Ok(ratio(3, 2)));
        assert_eq!(ratio(2, 3).over(ratio(-4, 3)), Ok(ratio(-1, 2)));
        assert_eq!(ratio(4, -6), ratio(-2, 3));
    }

    #[test]
    fn rounding_goes_the_stated_way() {
        assert_eq!(ratio(1, 2).round(), 1);
        assert_eq!(ratio(-1, 2).round(), 0);
        assert_eq!(ratio(3, 10).ceil(), ratio(1, 1));
        assert_eq!(ratio(-3, 10).ceil(), Ratio::ZERO);
        assert_eq!(ratio(7, 1).ceil(), ratio(7, 1));
    }

    #[test]
    fn overflow_is_an_error() {
        let huge = ratio(i128::MAX, 1);
        assert_eq!(huge.plus(ratio(1, 1)), Err(ModelError::TooLarge));
        assert_eq!(huge.times(ratio(2, 1)), Err(ModelError::TooLarge));
        assert_eq!(huge.over(Ratio::ZERO), Err(ModelError::Zero("a denominator")));
        assert_eq!(Ratio::whole(u128::MAX), Err(ModelError::TooLarge));
    }
}
