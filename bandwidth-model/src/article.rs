//! The figures printed in "Build and operate your own WebRTC video chat, for fun and profit"
//! (Marcin Polak, 2021-10-11), kept beside ours because readers know them.
//!
//! It counts one stream per relayed link and direction. Each link carries two, so its rate is
//! half of what the relay's interface sees; its byte totals add both directions of that half.

use crate::error::ModelError;
use crate::links::Room;
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Bytes, Seconds};

/// How a page or table labels these figures.
pub const LABEL: &str = "S × B each way, everyone relayed, B = one stream as encoded; \
    half of what the relay's interface carries";

/// The article's upload, and equally download, of the relay: S·B, half of the true 2·S·B.
///
/// # Errors
/// Too many people, or [`ModelError::TooLarge`].
pub fn rate_each_way(people: u64, payload: BitsPerSec) -> Result<BitsPerSec, ModelError> {
    payload.times(u128::from(Room::new(people, 0)?.links().count()))
}

/// The article's volume of a meeting, upload and download together: 2·S·B·time/8.
///
/// # Errors
/// Too many people, or [`ModelError::TooLarge`].
pub fn meeting_volume(
    people: u64,
    payload: BitsPerSec,
    time: Seconds,
) -> Result<Bytes, ModelError> {
    rate_each_way(people, payload)?.times(2)?.lasting(time)
}

/// The article's volume of a month: its 9 GB for each meeting of five people and one hour.
///
/// # Errors
/// [`ModelError::TooLarge`].
pub fn month_volume(meetings: u64) -> Result<Bytes, ModelError> {
    Bytes::new(9_000_000_000).times(u128::from(meetings))
}

/// Hours until a quota is used up.
///
/// # Errors
/// [`ModelError::Zero`] if an hour uses nothing.
pub fn hours_within(quota: Bytes, per_hour: Bytes) -> Result<Ratio, ModelError> {
    quota.exact()?.over(per_hour.exact()?)
}
