//! Which pairs of address translators (NATs) need the relay.
//!
//! The T-model calls a person blocked or not. In truth it takes two: a symmetric NAT fails
//! against some others and works against the rest, by peer-reflexive candidates. The T-model
//! with T = symmetric + UDP-blocked is therefore an upper bound.

use crate::chance::{Share, relayed_link_share};
use crate::error::ModelError;
use crate::links::{PEOPLE_MAX, pairs};
use crate::units::LinkCount;

/// What stands between a person and the internet (mapping and filtering as in RFC 4787).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NatType {
    /// O: no NAT, or one with endpoint-independent filtering.
    Open,
    /// A: lets in addresses it has sent to.
    AddressRestricted,
    /// R: lets in addresses and ports it has sent to.
    PortRestricted,
    /// S: maps every destination to another port.
    Symmetric,
    /// B: no UDP at all.
    UdpBlocked,
}

impl NatType {
    /// All types; also the order of [`ByNatType`].
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::UdpBlocked,
    ];

    /// Its letter in tables.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Open => "O",
            Self::AddressRestricted => "A",
            Self::PortRestricted => "R",
            Self::Symmetric => "S",
            Self::UdpBlocked => "B",
        }
    }

    /// Whether a link between the two needs the relay.
    #[must_use]
    pub fn needs_relay(self, other: Self) -> bool {
        use NatType::{PortRestricted, Symmetric, UdpBlocked};
        matches!(
            (self, other),
            (UdpBlocked, _)
                | (_, UdpBlocked)
                | (Symmetric, Symmetric | PortRestricted)
                | (PortRestricted, Symmetric)
        )
    }
}

/// One value for each NAT type, in the order of [`NatType::ALL`].
pub type ByNatType<T> = [T; 5];

/// K of a room with so many people of each type: Σ C(n,2) within types that need the relay
/// among themselves + Σ n·m between types that do.
///
/// # Errors
/// More than [`PEOPLE_MAX`] people in all.
pub fn links_by_nat_type(people: ByNatType<u64>) -> Result<LinkCount, ModelError> {
    let total = people.iter().fold(0, |sum: u64, &n| sum.saturating_add(n));
    if total > PEOPLE_MAX {
        return Err(ModelError::TooManyPeople(total));
    }
    let mut relayed = 0;
    for (i, one) in NatType::ALL.into_iter().enumerate() {
        if one.needs_relay(one) {
            relayed += pairs(people[i]);
        }
        for (j, other) in NatType::ALL.into_iter().enumerate().skip(i + 1) {
            if one.needs_relay(other) {
                relayed += people[i] * people[j];
            }
        }
    }
    Ok(LinkCount::new(relayed))
}

/// r = πᵀMπ: the chance that a link is relayed when each type has this share of people.
///
/// # Errors
/// Shares that do not add up to 1.
pub fn relayed_link_share_by_type(shares: ByNatType<Share>) -> Result<Share, ModelError> {
    let sum: f64 = shares.iter().map(|share| share.value()).sum();
    if (sum - 1.0).abs() > SHARE_SUM_SLACK {
        return Err(ModelError::SharesAddUpTo(sum));
    }
    let mut relayed = 0.0;
    for (one, share) in NatType::ALL.into_iter().zip(shares) {
        for (other, other_share) in NatType::ALL.into_iter().zip(shares) {
            if one.needs_relay(other) {
                relayed += share.value() * other_share.value();
            }
        }
    }
    Share::new(relayed.clamp(0.0, 1.0)) // rounding may leave the range by a last digit
}

/// The T-model's bound on [`relayed_link_share_by_type`], with q the share of symmetric and
/// UDP-blocked people together.
#[must_use]
pub fn upper_bound(symmetric_or_blocked: Share) -> Share {
    relayed_link_share(symmetric_or_blocked)
}

/// How far shares typed as decimals may miss 1.
const SHARE_SUM_SLACK: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_room_needs_twelve_links() {
        // Six browsers behind real NATs: three port-restricted, two symmetric, one without UDP.
        assert_eq!(links_by_nat_type([0, 0, 3, 2, 1]), Ok(LinkCount::new(12)));
    }

    #[test]
    fn the_matrix_is_symmetric() {
        for one in NatType::ALL {
            for other in NatType::ALL {
                assert_eq!(one.needs_relay(other), other.needs_relay(one));
            }
        }
    }

    #[test]
    fn shares_must_add_up() {
        let half = Share::new(0.5).unwrap();
        assert!(relayed_link_share_by_type([half; 5]).is_err());
        assert!(links_by_nat_type([u64::MAX; 5]).is_err());
    }
}
