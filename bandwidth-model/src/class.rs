//! The question: what kind of class is to be planned.
//!
//! `castling-plan` and `GET /api/plan` both hand their flags or query to [`Class::from_pairs`],
//! so that they accept the same words and answer the same bytes.

use crate::chance::{self, Share};
use crate::links::Room;
use crate::question::{Answers, MEETINGS, RELAYED};
use crate::units::{BitsPerSec, Seconds};
use crate::wire::Media;

pub use crate::question::{KEYS, QuestionError};

/// Highest rate of one person's video or audio, bit/s.
pub const RATE_BPS_MAX: u64 = 10_000_000_000;
/// Longest meeting: 31 days, in hours.
pub const MEETING_HOURS_MAX: u64 = 744;
/// Most meetings in a month.
pub const MEETINGS_MAX: u64 = 1_000_000;

/// A class to plan. Its fields can only be set to values within the limits of this module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    pub(crate) room: Room,
    pub(crate) video: BitsPerSec,
    pub(crate) audio: BitsPerSec,
    pub(crate) meeting: Seconds,
    pub(crate) meetings: u64,
    pub(crate) chance: Option<Chance>,
}

/// What is known about how often people or links need the relay: one percentage, two meanings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chance {
    /// q: a person is blocked.
    BlockedShare(Share),
    /// r: a link is relayed.
    RelayedLinksShare(Share),
}

impl Chance {
    /// q, computed if r is what is known.
    #[must_use]
    pub fn blocked(self) -> Share {
        match self {
            Self::BlockedShare(q) => q,
            Self::RelayedLinksShare(r) => chance::blocked_share(r),
        }
    }

    /// r, computed if q is what is known.
    #[must_use]
    pub fn relayed_links(self) -> Share {
        match self {
            Self::BlockedShare(q) => chance::relayed_link_share(q),
            Self::RelayedLinksShare(r) => r,
        }
    }
}

impl Class {
    /// Reads a question from names and values, in any order:
    ///
    /// | name | value | without it |
    /// |---|---|---|
    /// | `people` | 1 to [`crate::PEOPLE_MAX`] | an error |
    /// | `relayed` | people who cannot connect directly, 0 to `people` | everyone, the worst case |
    /// | `video`, `audio` | a rate such as `1Mbit`, `24kbit`, `300000`; 0 = none | `1Mbit`, `24kbit` |
    /// | `hours` | length of a meeting, above 0 to [`MEETING_HOURS_MAX`] | 1 |
    /// | `meetings` | meetings in a month, 0 to [`MEETINGS_MAX`] | 1 |
    /// | `blocked-share` | q, 0 to 1 | no chances are computed |
    /// | `relayed-links-share` | r, 0 to 1; not together with q | the same |
    ///
    /// # Errors
    /// The first name that is unknown, repeated, missing or has a value outside its range.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, QuestionError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let answers = Answers::collect(pairs)?;
        let people = answers.people()?;
        let relayed = answers.number("relayed", people, 0..=people, RELAYED)?;
        let room = Room::new(people, relayed).expect("both numbers are in range");
        let video = answers.rate("video", 1_000_000)?;
        let audio = answers.rate("audio", 24_000)?;
        if video == BitsPerSec::ZERO && audio == BitsPerSec::ZERO {
            return Err(QuestionError::NothingSent);
        }
        Ok(Self {
            room,
            video,
            audio,
            meeting: answers.meeting()?,
            meetings: answers.number("meetings", 1, 0..=MEETINGS_MAX, MEETINGS)?,
            chance: answers.chance()?,
        })
    }

    /// Whether the class uses video at all.
    #[must_use]
    pub fn media(&self) -> Media {
        if self.video == BitsPerSec::ZERO { Media::AudioOnly } else { Media::WithVideo }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(pairs: &[(&str, &str)]) -> String {
        Class::from_pairs(pairs.iter().copied()).unwrap_err().to_string()
    }

    #[test]
    fn a_question_with_every_key_is_understood() {
        let class = Class::from_pairs([
            ("meetings", "20"),
            ("people", "5"),
            ("relayed", "2"),
            ("video", "1.5Mbit/s"),
            ("audio", "24kbit"),
            ("hours", "1.5"),
            ("blocked-share", "0.3"),
        ])
        .unwrap();
        assert_eq!(class.room, Room::new(5, 2).unwrap());
        assert_eq!(class.video, BitsPerSec::new(1_500_000));
        assert_eq!(class.audio, BitsPerSec::new(24_000));
        assert_eq!(class.meeting, Seconds::new(5400));
        assert_eq!(class.meetings, 20);
        assert_eq!(class.chance, Some(Chance::BlockedShare(Share::new(0.3).unwrap())));
    }

    #[test]
    fn without_relayed_everyone_is() {
        let class = Class::from_pairs([("people", "4")]).unwrap();
        assert_eq!(class.room.blocked(), 4);
        assert_eq!(class.meeting, Seconds::HOUR);
        assert_eq!(class.chance, None);
    }

    #[test]
    fn every_mistake_names_its_key() {
        let people = ("people", "5");
        assert_eq!(error(&[]), "people: missing");
        assert_eq!(error(&[people, people]), "people: given twice");
        assert!(error(&[("pupils", "5")]).starts_with("\"pupils\" is not part of the question"));
        for (key, value) in [
            ("people", "0"),
            ("people", "1000001"),
            ("people", "+5"),
            ("relayed", "6"),
            ("relayed", "-1"),
            ("video", "fast"),
            ("audio", "1.5"),
            ("hours", "0"),
            ("hours", "745"),
            ("hours", ""),
            ("meetings", "1.5"),
            ("blocked-share", "30%"),
            ("blocked-share", "nan"),
            ("relayed-links-share", "1.01"),
        ] {
            let mut pairs = vec![(key, value)];
            if key != "people" {
                pairs.push(people);
            }
            let message = error(&pairs);
            assert!(message.starts_with(&format!("{key}: {value:?} is not ")), "{message}");
        }
        assert!(error(&[people, ("video", "0"), ("audio", "0")]).starts_with("audio: "));
        let both = [people, ("blocked-share", "0.1"), ("relayed-links-share", "0.2")];
        assert!(error(&both).starts_with("blocked-share: "));
    }

    #[test]
    fn errors_state_the_limits_that_hold() {
        let limit = |key, value| error(&[("people", "5"), (key, value)]);
        assert!(error(&[("people", "0")]).contains(&crate::PEOPLE_MAX.to_string()));
        assert!(limit("meetings", "-1").contains(&MEETINGS_MAX.to_string()));
        assert!(limit("hours", "0").contains(&MEETING_HOURS_MAX.to_string()));
        let gigabits = RATE_BPS_MAX / 1_000_000_000;
        assert!(limit("video", "x").contains(&format!("at most {gigabits}Gbit,")));
    }

    #[test]
    fn an_error_repeats_only_a_printable_piece() {
        let message = error(&[("people", &"\n9".repeat(1000))]);
        assert!(message.len() < 200 && !message.contains('\n'), "{message}");
    }
}
