//! The same class through a selective forwarding unit, for comparison.
//!
//! Never worse on egress: 2K = T(2P−T−1) is at most P(P−1), with a difference of (P−T)(P−T−1),
//! so a mesh with a relay sends no more than a plain SFU and as much only for T ≥ P−1.

use crate::error::ModelError;
use crate::links::{Room, pairs};
use crate::units::BitsPerSec;

/// What a plain SFU receives: one stream per person, P·b.
///
/// # Errors
/// Too many people, or [`ModelError::TooLarge`].
pub fn sfu_ingress(people: u64, stream: BitsPerSec) -> Result<BitsPerSec, ModelError> {
    stream.times(u128::from(Room::new(people, 0)?.people()))
}

/// What a plain SFU sends: everyone's stream to everyone else, P(P−1)·b.
///
/// # Errors
/// Too many people, or [`ModelError::TooLarge`].
pub fn sfu_egress(people: u64, stream: BitsPerSec) -> Result<BitsPerSec, ModelError> {
    stream.times(2 * u128::from(Room::new(people, 0)?.links().count()))
}

/// The least T at which a relay, in and out together, carries as much as an SFU: 4K ≥ P².
/// `None` where it never does, as for one person.
///
/// # Errors
/// Too many people.
pub fn breakeven_blocked(people: u64) -> Result<Option<u64>, ModelError> {
    let room = Room::new(people, 0)?;
    let reaches = |blocked: u64| {
        let relayed = pairs(people) - pairs(people - blocked);
        4 * relayed >= people * people
    };
    if !reaches(room.people()) {
        return Ok(None);
    }
    // K grows with T.
    let (mut low, mut high) = (0, people);
    while low < high {
        let middle = low.midpoint(high);
        if reaches(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Some(low))
}

/// The share of blocked people that [`breakeven_blocked`] tends to in large rooms: 1 − 1/√2.
#[must_use]
pub fn breakeven_share_limit() -> f64 {
    1.0 - std::f64::consts::FRAC_1_SQRT_2
}
