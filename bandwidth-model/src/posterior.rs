//! Learning the blocked share q from classes already held.
//!
//! With x blocked of n seen and the Jeffreys prior, q is Beta(½+x, ½+n−x): a few observations
//! give a wide interval, many a narrow one, and none blocked never means that nobody ever is.

use crate::chance::Share;
use crate::error::ModelError;

/// Most observations; older ones tell nothing about today anyway.
pub const SEEN_MAX: u64 = 10_000_000;

/// What is known about q after some observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    a: f64,
    b: f64,
}

impl Posterior {
    /// After seeing `blocked` of `seen` people blocked.
    ///
    /// # Errors
    /// More blocked than seen, or more than [`SEEN_MAX`] seen.
    pub fn after(blocked: u64, seen: u64) -> Result<Self, ModelError> {
        if seen > SEEN_MAX {
            return Err(ModelError::ListTooLong { what: "observations", max: SEEN_MAX as usize });
        }
        let unblocked =
            seen.checked_sub(blocked).ok_or(ModelError::MoreBlockedThanSeen { blocked, seen })?;
        Ok(Self { a: blocked as f64 + 0.5, b: unblocked as f64 + 0.5 })
    }

    /// Mean of q.
    #[must_use]
    pub fn mean(self) -> Share {
        share(self.a / (self.a + self.b))
    }

    /// The q that is not exceeded with chance `level`; relative accuracy about 1e-10.
    #[must_use]
    pub fn quantile(self, level: Share) -> Share {
        // Halving until no floating-point number lies between the bounds; 1,100 halvings pass
        // through the whole exponent range, so the loop ends.
        let (mut low, mut high) = (0.0_f64, 1.0_f64);
        loop {
            let middle = low.midpoint(high);
            if middle <= low || middle >= high {
                return share(high);
            }
            if self.cumulative(middle) < level.value() {
                low = middle;
            } else {
                high = middle;
            }
        }
    }

    /// P(q ≤ x), the regularised incomplete beta function, for x strictly between 0 and 1.
    fn cumulative(self, x: f64) -> f64 {
        let Self { a, b } = self;
        let scale = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp();
        // The fraction converges fast below the mean; above it, the mirror image does.
        if x < (a + 1.0) / (a + b + 2.0) {
            scale / a / continued_fraction(a, b, x)
        } else {
            1.0 - scale / b / continued_fraction(b, a, 1.0 - x)
        }
    }
}

fn share(value: f64) -> Share {
    Share::new(value).expect("means and bisections of 0 and 1 stay between them")
}

/// Most steps of the continued fraction; about √(a+b) are needed below the mean.
const FRACTION_STEPS_MAX: u32 = 100_000;

/// 1 + d₁/(1 + d₂/(1 + …)), the continued fraction by which x^a (1−x)^b / (a·B(a,b)) is divided
/// to give the regularised incomplete beta function (NIST DLMF 8.17.22).
///
/// It is evaluated forwards as a running product of ratios of successive convergents.
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300; // stands in for a zero denominator
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut value, mut above, mut below) = (1.0, 1.0, 0.0);
    for step in 1..=FRACTION_STEPS_MAX {
        let m = f64::from(step / 2);
        let d = if step % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        above = away_from_zero(1.0 + d / above);
        below = 1.0 / away_from_zero(1.0 + d * below);
        let change = above * below;
        value *= change;
        if (change - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    value
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// ln Γ(x) for x > 0: Stirling's series (NIST DLMF 5.11.1) from 10 on, reached from below by
/// Γ(x) = Γ(x+1)/x. The first neglected term is below 2e-14.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let square = x * x;
    let series = (1.0 / 12.0
        + (-1.0 / 360.0
            + (1.0 / 1260.0 + (-1.0 / 1680.0 + 1.0 / 1188.0 / square) / square) / square)
            / square)
        / x;
    let half_ln_two_pi = 0.5 * std::f64::consts::TAU.ln();
    (x - 0.5) * x.ln() - x + half_ln_two_pi + series - f64::ln(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left / right - 1.0).abs() < 1e-12
    }

    #[test]
    fn ln_gamma_knows_factorials_and_halves() {
        assert!(close(ln_gamma(0.5), 0.5 * std::f64::consts::PI.ln()));
        assert!(close(ln_gamma(6.0), 120_f64.ln()));
        assert!(close(ln_gamma(20.0), 121_645_100_408_832_000_f64.ln()));
    }

    #[test]
    fn cumulative_is_the_arcsine_law_before_any_observation() {
        // Beta(½, ½) has P(q ≤ x) = (2/π)·arcsin √x.
        let prior = Posterior::after(0, 0).unwrap();
        for x in [1e-6_f64, 0.1, 0.5, 0.9] {
            let exact = x.sqrt().asin() * std::f64::consts::FRAC_2_PI;
            assert!(close(prior.cumulative(x), exact), "{x}");
        }
    }

    #[test]
    fn quantiles_mirror_each_other() {
        let level = |value| Share::new(value).unwrap();
        for (blocked, seen) in [(0, 10), (3, 20), (5_000_000, SEEN_MAX)] {
            let low = Posterior::after(blocked, seen).unwrap().quantile(level(0.05));
            let mirror = Posterior::after(seen - blocked, seen).unwrap().quantile(level(0.95));
            assert!((low.value() + mirror.value() - 1.0).abs() < 1e-9, "{blocked} of {seen}");
        }
    }

    #[test]
    fn impossible_observations_are_refused() {
        assert!(Posterior::after(2, 1).is_err());
        assert!(Posterior::after(0, SEEN_MAX + 1).is_err());
    }
}
