//! Classes over time: peaks, volumes, and what is left of a quota.
//!
//! Intervals are half-open: a class that ends when another starts does not overlap with it.

use crate::chance::{Share, expected_links, var_links};
use crate::error::ModelError;
use crate::links::Room;
use crate::rates::{Sender, relay_rate};
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Bytes, Seconds};

/// Most classes in one schedule or forecast.
pub const CLASSES_MAX: usize = 100_000;
/// Most presences in one [`churn_volume`], which compares each with each.
pub const PRESENCES_MAX: usize = 4096;

/// A time from `start` to just before `end`, both counted from the same origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interval {
    start: Seconds,
    end: Seconds,
}

impl Interval {
    /// From `start` until `end`.
    ///
    /// # Errors
    /// [`ModelError::EndBeforeStart`].
    pub fn new(start: Seconds, end: Seconds) -> Result<Self, ModelError> {
        if end < start {
            let (start_s, end_s) = (start.count(), end.count());
            return Err(ModelError::EndBeforeStart { start_s, end_s });
        }
        Ok(Self { start, end })
    }

    /// How long it lasts.
    #[must_use]
    pub fn length(self) -> Seconds {
        self.end.since(self.start)
    }

    /// How long both last together.
    #[must_use]
    pub fn overlap(self, other: Self) -> Seconds {
        self.end.min(other.end).since(self.start.max(other.start))
    }
}

/// One class of a timetable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lesson {
    /// When.
    pub time: Interval,
    /// Who.
    pub room: Room,
}

/// Highest egress, and equally ingress, at any moment of the timetable.
///
/// # Errors
/// More than [`CLASSES_MAX`] classes, or [`ModelError::TooLarge`].
pub fn peak_rate(lessons: &[Lesson], stream: BitsPerSec) -> Result<BitsPerSec, ModelError> {
    check_length(lessons.len(), CLASSES_MAX, "classes")?;
    // Counting links needs no subtraction of rates; at equal times ends (false) come first.
    let mut events = Vec::with_capacity(2 * lessons.len());
    for lesson in lessons.iter().filter(|lesson| lesson.time.length() > Seconds::default()) {
        let links = u128::from(lesson.room.relayed().count());
        events.push((lesson.time.start, true, links));
        events.push((lesson.time.end, false, links));
    }
    events.sort_unstable();
    let (mut links, mut most) = (0, 0);
    for (_, starts, change) in events {
        links = if starts { links + change } else { links - change };
        most = most.max(links);
    }
    stream.times(2)?.times(most)
}

/// Egress, and equally ingress, of all classes together.
///
/// # Errors
/// More than [`CLASSES_MAX`] classes, or [`ModelError::TooLarge`].
pub fn volume(lessons: &[Lesson], stream: BitsPerSec) -> Result<Bytes, ModelError> {
    check_length(lessons.len(), CLASSES_MAX, "classes")?;
    lessons.iter().try_fold(Bytes::ZERO, |sum, lesson| {
        sum.plus(relay_rate(lesson.room, stream)?.lasting(lesson.time.length())?)
    })
}

/// One person's stay in a room. A person who comes back has another presence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Presence {
    /// From joining to leaving.
    pub time: Interval,
    /// What the person sends, and whether blocked.
    pub sender: Sender,
}

/// Egress, and equally ingress, of a room that people join and leave: over all relayed pairs,
/// both rates for as long as both are present.
///
/// # Errors
/// More than [`PRESENCES_MAX`] presences, or [`ModelError::TooLarge`].
pub fn churn_volume(presences: &[Presence]) -> Result<Bytes, ModelError> {
    check_length(presences.len(), PRESENCES_MAX, "presences")?;
    let mut sum = Bytes::ZERO;
    for (i, one) in presences.iter().enumerate() {
        for other in &presences[..i] {
            if one.sender.blocked || other.sender.blocked {
                let both = one.sender.rate.plus(other.sender.rate)?;
                sum = sum.plus(both.lasting(one.time.overlap(other.time))?)?;
            }
        }
    }
    Ok(sum)
}

/// The wire rate per one-way stream, bit/s, at which the remaining quota lasts for the remaining
/// relayed links: 8·bytes / (2·relayed link-seconds).
///
/// # Errors
/// [`ModelError::Zero`] if no relayed link is left to come.
pub fn relay_bitrate_cap(remaining: Bytes, relayed_link_s: u64) -> Result<Ratio, ModelError> {
    if relayed_link_s == 0 {
        return Err(ModelError::Zero("the relayed link-seconds"));
    }
    let streams_s = Ratio::whole(2 * u128::from(relayed_link_s))?;
    remaining.exact()?.times(Ratio::whole(8)?)?.over(streams_s)
}

/// Equal classes still to be held this month.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Remaining {
    /// People in each.
    pub people: u64,
    /// Chance that a person is blocked, independently of the others.
    pub blocked: Share,
    /// Wire rate of each stream.
    pub stream: BitsPerSec,
    /// How long each lasts.
    pub time: Seconds,
    /// How many.
    pub classes: u64,
}

/// Egress bytes of a month: known so far, uncertain from here on.
///
/// Only the number of relayed links is taken as uncertain, and classes as independent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Expected bytes.
    pub mean_bytes: f64,
    /// Standard deviation, bytes.
    pub sd_bytes: f64,
}

impl Forecast {
    /// What a month will have used, after `used` and with `remaining` classes to come.
    ///
    /// # Errors
    /// More than [`CLASSES_MAX`] entries, or too many people in one.
    pub fn of(used: Bytes, remaining: &[Remaining]) -> Result<Self, ModelError> {
        check_length(remaining.len(), CLASSES_MAX, "classes")?;
        let (mut mean, mut variance) = (used.whole() as f64, 0.0);
        for class in remaining {
            let link_bytes = class.stream.times(2)?.lasting(class.time)?.exact()?.approx();
            let classes = class.classes as f64;
            mean += classes * link_bytes * expected_links(class.people, class.blocked)?;
            variance += classes * link_bytes.powi(2) * var_links(class.people, class.blocked)?;
        }
        Ok(Self { mean_bytes: mean, sd_bytes: variance.sqrt() })
    }

    /// Mean + z standard deviations: the quantile that z has in a normal distribution.
    #[must_use]
    pub fn normal_quantile_bytes(self, z: f64) -> f64 {
        self.mean_bytes + z * self.sd_bytes
    }
}

fn check_length(length: usize, max: usize, what: &'static str) -> Result<(), ModelError> {
    if length > max { Err(ModelError::ListTooLong { what, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: u64, end: u64) -> Interval {
        Interval::new(Seconds::new(start), Seconds::new(end)).unwrap()
    }

    fn lesson(start: u64, end: u64) -> Lesson {
        Lesson { time: interval(start, end), room: Room::new(3, 1).unwrap() }
    }

    #[test]
    fn classes_back_to_back_do_not_add_up() {
        let stream = BitsPerSec::new(10);
        assert_eq!(peak_rate(&[lesson(0, 60), lesson(60, 90)], stream), Ok(BitsPerSec::new(40)));
        assert_eq!(peak_rate(&[lesson(0, 61), lesson(60, 90)], stream), Ok(BitsPerSec::new(80)));
        assert_eq!(peak_rate(&[lesson(5, 5)], stream), Ok(BitsPerSec::ZERO));
        assert_eq!(peak_rate(&[], stream), Ok(BitsPerSec::ZERO));
    }

    #[test]
    fn a_reconnect_costs_only_the_time_present() {
        let person = |time, blocked| Presence {
            time,
            sender: Sender { blocked, rate: BitsPerSec::new(800) },
        };
        let stays = person(interval(0, 100), false);
        let gone_for_a_while = [person(interval(0, 40), true), person(interval(60, 100), true)];
        let volume = churn_volume(&[stays, gone_for_a_while[0], gone_for_a_while[1]]);
        assert_eq!(volume, Ok(Bytes::new(2 * 100 * 80)));
    }

    #[test]
    fn impossible_times_are_refused() {
        let backwards = Interval::new(Seconds::new(2), Seconds::new(1));
        assert_eq!(backwards, Err(ModelError::EndBeforeStart { start_s: 2, end_s: 1 }));
        assert!(relay_bitrate_cap(Bytes::new(1), 0).is_err());
    }
}
