//! How many links are relayed when it is only known how likely people are to be blocked.
//!
//! The only part of the model that uses floating point.
//!
//! Links of one room are not independent: a blocked person takes all of theirs along. So the
//! distribution is computed for T, the blocked people, and carried over to K, which never falls
//! when T rises.

use std::fmt;

use crate::error::ModelError;
use crate::links::Room;
use crate::units::LinkCount;

/// Most people with a share of their own in one room: the distribution takes P² steps.
pub const UNEQUAL_PEOPLE_MAX: usize = 4096;

/// A share or probability, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// A share.
    ///
    /// # Errors
    /// [`ModelError::NotAShare`] outside 0 to 1, and for NaN.
    pub fn new(value: f64) -> Result<Self, ModelError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(ModelError::NotAShare(value))
        }
    }

    /// Its value.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// r = 1−(1−q)²: chance that a link is relayed, if each end is blocked with chance q.
#[must_use]
pub fn relayed_link_share(blocked: Share) -> Share {
    Share(blocked.0 * (2.0 - blocked.0))
}

/// q = 1−√(1−r), the reverse of [`relayed_link_share`].
#[must_use]
pub fn blocked_share(relayed_links: Share) -> Share {
    let r = relayed_links.0;
    Share(r / (1.0 + (1.0 - r).sqrt())) // the same number, without cancellation for small r
}

/// Chance that at least one of `links` independent links fails: 1−sⁿ.
#[must_use]
pub fn any_link_fails(links: LinkCount, success: Share) -> Share {
    if links.count() == 0 {
        return Share(0.0);
    }
    Share(-f64::exp_m1(links.count() as f64 * success.0.ln()))
}

/// E\[K\] = S·(1−(1−q)²) for `people` who are blocked independently with chance `blocked`.
///
/// # Errors
/// Too many people.
pub fn expected_links(people: u64, blocked: Share) -> Result<f64, ModelError> {
    Ok(link_total(people)? * relayed_link_share(blocked).0)
}

/// Var K under the same assumption.
///
/// With M = P−T unblocked people and C(M,2)² = 6C(M,4) + 6C(M,3) + C(M,2), subtracting the
/// squared mean term by term leaves 6C(P,3)·p³q + C(P,2)·p²(1−p²), in which nothing cancels.
///
/// # Errors
/// Too many people.
pub fn var_links(people: u64, blocked: Share) -> Result<f64, ModelError> {
    let (q, p) = (blocked.0, 1.0 - blocked.0);
    let couples = link_total(people)?;
    let triples_six_times = couples * 2.0 * people.saturating_sub(2) as f64;
    Ok(triples_six_times * p.powi(3) * q + couples * p * p * q * (1.0 + p))
}

/// The least k with P(K ≤ k) ≥ `level`, under the same assumption.
///
/// # Errors
/// Too many people.
pub fn quantile_links(people: u64, blocked: Share, level: Share) -> Result<LinkCount, ModelError> {
    Room::new(people, 0)?;
    quantile_from(&binomial_weights(people, blocked.0), people, level)
}

/// E\[K\] for people blocked independently, each with a chance of their own.
///
/// # Errors
/// More than [`UNEQUAL_PEOPLE_MAX`] people.
pub fn expected_links_unequal(blocked: &[Share]) -> Result<f64, ModelError> {
    check_unequal(blocked)?;
    let mut relayed = 0.0;
    for (i, one) in blocked.iter().enumerate() {
        for other in &blocked[..i] {
            relayed += 1.0 - (1.0 - one.0) * (1.0 - other.0);
        }
    }
    Ok(relayed)
}

/// The least k with P(K ≤ k) ≥ `level`, each person with a chance of their own.
///
/// # Errors
/// More than [`UNEQUAL_PEOPLE_MAX`] people.
pub fn quantile_links_unequal(blocked: &[Share], level: Share) -> Result<LinkCount, ModelError> {
    check_unequal(blocked)?;
    quantile_from(&poisson_binomial(blocked), blocked.len() as u64, level)
}

/// E\[K\] when q differs from class to class with this mean and variance, and is shared by
/// everyone of a class, as behind one school firewall: S·(1−(1−μ)²−σ²).
///
/// # Errors
/// Too many people, or a variance above μ(1−μ).
pub fn expected_links_random_q(people: u64, mean: Share, variance: f64) -> Result<f64, ModelError> {
    let most = mean.0 * (1.0 - mean.0);
    if !(0.0..=most + SLACK).contains(&variance) {
        return Err(ModelError::ImpossibleVariance(variance));
    }
    Ok(link_total(people)? * (relayed_link_share(mean).0 - variance))
}

/// Slack for comparing sums of probabilities with a level: their rounding errors stay below it.
const SLACK: f64 = 1e-12;

fn link_total(people: u64) -> Result<f64, ModelError> {
    Ok(Room::new(people, 0)?.links().count() as f64)
}

fn check_unequal(blocked: &[Share]) -> Result<(), ModelError> {
    if blocked.len() > UNEQUAL_PEOPLE_MAX {
        return Err(ModelError::ListTooLong { what: "people", max: UNEQUAL_PEOPLE_MAX });
    }
    Ok(())
}

/// K at the `level` quantile of T, where `weights[t]` is proportional to P(T = t).
fn quantile_from(weights: &[f64], people: u64, level: Share) -> Result<LinkCount, ModelError> {
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    for (blocked, weight) in (0..).zip(weights) {
        sum += weight / total;
        if sum >= level.0 - SLACK {
            return Ok(Room::new(people, blocked)?.relayed());
        }
    }
    Ok(Room::new(people, people)?.relayed())
}

/// Proportional to the binomial probabilities of 0 to n successes.
///
/// It starts with 1 at the mode and walks outwards, so that rooms of any size neither overflow
/// nor vanish: what underflows far from the mode is negligible.
fn binomial_weights(n: u64, q: f64) -> Vec<f64> {
    let mode = (((n + 1) as f64 * q) as u64).min(n);
    let mut weights = vec![0.0; n as usize + 1];
    weights[mode as usize] = 1.0;
    let odds = q / (1.0 - q); // infinite for q = 1, where the mode is n and no step up is taken
    for t in mode..n {
        weights[t as usize + 1] = weights[t as usize] * odds * (n - t) as f64 / (t + 1) as f64;
    }
    for t in (1..=mode).rev() {
        let down = t as f64 / (n - t + 1) as f64 / odds;
        weights[t as usize - 1] = weights[t as usize] * down;
    }
    weights
}

/// Probabilities of 0 to n successes of independent trials with chances of their own: adding one
/// person at a time either leaves the count or raises it by one.
fn poisson_binomial(chances: &[Share]) -> Vec<f64> {
    let mut probabilities = vec![0.0; chances.len() + 1];
    probabilities[0] = 1.0;
    for (people, chance) in chances.iter().enumerate() {
        for t in (0..=people).rev() {
            probabilities[t + 1] += probabilities[t] * chance.0;
            probabilities[t] *= 1.0 - chance.0;
        }
    }
    probabilities
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(value: f64) -> Share {
        Share::new(value).unwrap()
    }

    #[test]
    fn certain_shares_leave_no_doubt() {
        for people in [0, 1, 2, 5, 20] {
            let all = Room::new(people, people).unwrap().relayed();
            for level in [0.1, 0.5, 1.0] {
                assert_eq!(quantile_links(people, share(0.0), share(level)), Ok(LinkCount::new(0)));
                let certain = quantile_links(people, share(1.0), share(level)).unwrap();
                assert!(certain == all, "P={people} level={level}: {certain:?}");
            }
        }
    }

    #[test]
    fn unequal_shares_that_are_equal_change_nothing() {
        for (people, q) in [(2_usize, 0.1), (8, 0.3), (20, 0.5), (200, 0.25)] {
            for level in [0.05, 0.5, 0.9, 0.99] {
                assert_eq!(
                    quantile_links_unequal(&vec![share(q); people], share(level)),
                    quantile_links(people as u64, share(q), share(level)),
                    "P={people} q={q} level={level}"
                );
            }
        }
    }

    #[test]
    fn the_largest_room_has_its_median_near_the_mean() {
        let people = crate::PEOPLE_MAX;
        let median = quantile_links(people, share(0.3), share(0.5)).unwrap().count() as f64;
        let mean = expected_links(people, share(0.3)).unwrap();
        assert!((median / mean - 1.0).abs() < 1e-5, "{median} {mean}");
    }

    #[test]
    fn no_number_outside_0_to_1_is_a_share() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Share::new(bad).is_err(), "{bad}");
        }
        assert!(expected_links_random_q(5, share(0.5), 0.3).is_err());
    }

    #[test]
    fn a_link_that_never_works_fails() {
        assert_eq!(any_link_fails(LinkCount::new(3), share(0.0)), share(1.0));
        assert_eq!(any_link_fails(LinkCount::new(0), share(0.0)), share(0.0));
        assert_eq!(any_link_fails(LinkCount::new(3), share(1.0)), share(0.0));
    }
}
