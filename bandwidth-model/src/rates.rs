//! What relayed links cost the relay's network interface, and people's uplinks.

use crate::error::ModelError;
use crate::links::{PEOPLE_MAX, Room};
use crate::units::BitsPerSec;

/// One person's part in a room where rates differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sender {
    /// Whether this person cannot connect directly.
    pub blocked: bool,
    /// Wire rate of this person's stream towards each other person.
    pub rate: BitsPerSec,
}

/// Ingress, and equally egress, of the relay: 2·K·b, with `stream` the wire rate b of every
/// one-way stream. In and out together are twice as much.
///
/// # Errors
/// [`ModelError::TooLarge`] for rates beyond all networks.
pub fn relay_rate(room: Room, stream: BitsPerSec) -> Result<BitsPerSec, ModelError> {
    stream.times(2 * u128::from(room.relayed().count()))
}

/// Ingress, and equally egress, of the relay when people send at different rates:
/// (P−1)·Σ b over blocked people + T·Σ b over the others.
///
/// A blocked person's stream is relayed to all P−1 others, anybody else's to the T blocked.
///
/// # Errors
/// More than [`PEOPLE_MAX`] senders, or [`ModelError::TooLarge`].
pub fn relay_rate_unequal(senders: &[Sender]) -> Result<BitsPerSec, ModelError> {
    let people = senders.len() as u128;
    if people > u128::from(PEOPLE_MAX) {
        return Err(ModelError::ListTooLong { what: "senders", max: PEOPLE_MAX as usize });
    }
    let blocked = senders.iter().filter(|sender| sender.blocked).count() as u128;
    senders.iter().try_fold(BitsPerSec::ZERO, |sum, sender| {
        let relayed_copies = if sender.blocked { people - 1 } else { blocked };
        sum.plus(sender.rate.times(relayed_copies)?)
    })
}

/// The largest T for which a room of `people` stays within `limit` each way (2·K·b ≤ limit).
///
/// # Errors
/// Too many people, or [`ModelError::TooLarge`].
pub fn max_blocked(people: u64, stream: BitsPerSec, limit: BitsPerSec) -> Result<u64, ModelError> {
    // K grows with T, so the answer lies between a T that fits and one that does not.
    let (mut fits, mut too_many) = (0, Room::new(people, 0)?.people() + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        if relay_rate(Room::new(people, middle)?, stream)? <= limit {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    Ok(fits)
}

/// What each person must send, and equally receive, in a full mesh: (P−1)·b.
///
/// # Errors
/// [`ModelError::TooLarge`].
pub fn mesh_uplink(people: u64, stream: BitsPerSec) -> Result<BitsPerSec, ModelError> {
    stream.times(u128::from(people.saturating_sub(1)))
}

/// The most people whose mesh fits a person's uplink: 1 + ⌊uplink / b⌋.
///
/// # Errors
/// [`ModelError::Zero`] for a stream of 0 bit/s, which fits any number of people.
pub fn mesh_people_max(uplink: BitsPerSec, stream: BitsPerSec) -> Result<u64, ModelError> {
    let copies = uplink.bits_per_s().checked_div(stream.bits_per_s());
    let copies = copies.ok_or(ModelError::Zero("the stream's rate"))?;
    u64::try_from(copies + 1).map_err(|_| ModelError::TooLarge)
}
