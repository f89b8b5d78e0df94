//! Whether a computed number is the expected one.

use super::{Failure, REL_TOL_MAX};
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Bytes, LinkCount};

/// What a function computed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Exact(Ratio),
    Float(f64),
}

impl Number {
    pub(super) fn whole(value: u128) -> Result<Self, Failure> {
        Ok(Self::Exact(Ratio::whole(value)?))
    }

    pub(super) fn rate(rate: BitsPerSec) -> Result<Self, Failure> {
        Self::whole(rate.bits_per_s())
    }

    pub(super) fn bytes(bytes: Bytes) -> Result<Self, Failure> {
        Ok(Self::Exact(bytes.exact()?))
    }

    pub(super) fn links(links: LinkCount) -> Result<Self, Failure> {
        Self::whole(links.count().into())
    }

    fn approx(self) -> f64 {
        match self {
            Self::Exact(ratio) => ratio.approx(),
            Self::Float(float) => float,
        }
    }
}

/// What a row expects.
pub(super) struct Expected {
    decimal: String,
    approx: f64,
    exact: Option<Ratio>,
    rel_tol: f64,
}

impl Expected {
    pub(super) fn parse(expected: &str, exact: &str, rel_tol: &str) -> Result<Self, Failure> {
        let finite = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
        let approx = finite(expected).ok_or(Failure::WrongExpectation("expected"))?;
        let rel_tol = finite(rel_tol).filter(|tolerance| (0.0..=REL_TOL_MAX).contains(tolerance));
        Ok(Self {
            decimal: expected.to_owned(),
            approx,
            exact: parse_exact(exact).ok_or(Failure::WrongExpectation("expected_exact"))?,
            rel_tol: rel_tol.ok_or(Failure::WrongExpectation("rel_tol"))?,
        })
    }

    /// Both columns must agree with the computed number. Without tolerance, an exact number is
    /// compared as the fraction it is.
    pub(super) fn check(&self, computed: Number) -> Result<(), Failure> {
        let target = match self.exact {
            None => self.approx,
            Some(exact) => exact.approx(),
        };
        let same_fraction = match (computed, self.rel_tol == 0.0) {
            (Number::Exact(ratio), true) => match self.exact {
                Some(exact) => ratio == exact,
                None => Ratio::from_decimal(&self.decimal) == Ok(ratio),
            },
            _ => true,
        };
        let agrees = same_fraction
            && self.is_near(computed.approx(), target)
            && self.is_near(computed.approx(), self.approx);
        if agrees { Ok(()) } else { Err(self.differs(computed)) }
    }

    fn is_near(&self, computed: f64, target: f64) -> bool {
        // Around zero a relative tolerance means nothing; there it is taken as absolute.
        let scale = if target == 0.0 { 1.0 } else { target.abs() };
        (computed - target).abs() <= self.rel_tol * scale
    }

    fn differs(&self, computed: Number) -> Failure {
        let computed = match computed {
            Number::Exact(ratio) => ratio.to_string(),
            Number::Float(float) => float.to_string(),
        };
        let mut expected = self.decimal.clone();
        if let Some(exact) = self.exact.map(|exact| exact.to_string())
            && exact != expected
        {
            expected = format!("{expected} = {exact}");
        }
        Failure::Differs { computed, expected: format!("{expected} (tolerance {})", self.rel_tol) }
    }
}

/// `a/b`, a whole number, or nothing (`Some(None)`).
fn parse_exact(text: &str) -> Option<Option<Ratio>> {
    if text.is_empty() {
        return Some(None);
    }
    let (above, below) = text.split_once('/').unwrap_or((text, "1"));
    Some(Some(Ratio::new(above.parse().ok()?, below.parse().ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(expected: &str, exact: &str, rel_tol: &str, computed: Number) -> bool {
        Expected::parse(expected, exact, rel_tol).unwrap().check(computed).is_ok()
    }

    #[test]
    fn both_columns_must_agree() {
        let four = Number::whole(4).unwrap();
        assert!(passes("4", "4", "0", four));
        assert!(!passes("5", "4", "0", four));
        assert!(!passes("4", "5", "0", four));
        assert!(!passes("5", "", "0", four));
    }

    #[test]
    fn without_tolerance_digits_beyond_a_float_count() {
        let large = Number::whole(9_007_199_254_740_993).unwrap();
        assert!(passes("9007199254740993", "9007199254740993", "0", large));
        assert!(!passes("9007199254740992", "9007199254740992", "0", large));
        assert!(!passes("9007199254740992", "", "0", large));
    }

    #[test]
    fn tolerance_is_relative_except_around_zero() {
        assert!(passes("200", "", "0.01", Number::Float(202.0)));
        assert!(!passes("200", "", "0.01", Number::Float(202.1)));
        assert!(passes("0", "0", "1e-12", Number::Float(1e-13)));
        assert!(!passes("0", "0", "1e-12", Number::Float(1e-11)));
        assert!(!passes("0", "", "0.01", Number::Float(f64::NAN)));
    }

    #[test]
    fn meaningless_expectations_are_refused() {
        let bad = [("", "", "0"), ("nan", "", "0"), ("1", "1/0", "0"), ("1", "x", "0")];
        let loose = [("1", "", "1"), ("1", "", "-1"), ("1", "", ""), ("1", "", "inf")];
        for (expected, exact, rel_tol) in bad.into_iter().chain(loose) {
            assert!(
                Expected::parse(expected, exact, rel_tol).is_err(),
                "{expected} {exact} {rel_tol}"
            );
        }
    }
}
