//! The question: what kind of class is to be planned.
//!
//! `castling-plan` and `GET /api/plan` both hand their flags or query to [`Class::from_pairs`],
//! so that they accept the same words and answer the same bytes.

use std::error::Error;
use std::fmt;

use crate::chance::{self, Share};
use crate::links::{PEOPLE_MAX, Room};
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Seconds};
use crate::wire::Media;

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
    /// | `people` | 1 to [`PEOPLE_MAX`] | an error |
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
        let relayed = answers.number("relayed", people, 0..=people, TOO_MANY_RELAYED)?;
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
            meetings: answers.number("meetings", 1, 0..=MEETINGS_MAX, "0 to 1000000")?,
            chance: answers.chance()?,
        })
    }

    /// Whether the class uses video at all.
    #[must_use]
    pub fn media(&self) -> Media {
        if self.video == BitsPerSec::ZERO { Media::AudioOnly } else { Media::WithVideo }
    }
}

/// Why a question was not understood. Caused by whoever typed it; every case names the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum QuestionError {
    /// A name that means nothing.
    Unknown {
        /// The name, cut to a printable length.
        key: String,
    },
    /// A name that was given twice.
    Repeated {
        /// The name.
        key: &'static str,
    },
    /// A name that must be given.
    Missing {
        /// The name.
        key: &'static str,
    },
    /// A value that cannot be used.
    Value {
        /// The name.
        key: &'static str,
        /// What was given, cut to a printable length.
        value: String,
        /// What would have been understood.
        expected: &'static str,
    },
    /// Both meanings of a percentage at once.
    TwoShares,
    /// Neither video nor audio.
    NothingSent,
}

impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key } => {
                write!(f, "{key:?} is not part of the question; it may have {}", KEYS.join(", "))
            }
            Self::Repeated { key } => write!(f, "{key}: given twice"),
            Self::Missing { key } => write!(f, "{key}: missing"),
            Self::Value { key, value, expected } => {
                write!(f, "{key}: {value:?} is not {expected}")
            }
            Self::TwoShares => write!(
                f,
                "blocked-share: give either the share of people who are blocked, or with \
                 relayed-links-share the share of links that are relayed"
            ),
            Self::NothingSent => write!(f, "audio: audio and video are both 0, nothing is sent"),
        }
    }
}

impl Error for QuestionError {}

/// Every name of a question.
pub const KEYS: [&str; 8] = [
    "people",
    "relayed",
    "video",
    "audio",
    "hours",
    "meetings",
    "blocked-share",
    "relayed-links-share",
];

const TOO_MANY_RELAYED: &str = "a number of people from 0 to the value of people";
const RATE: &str = "a rate such as 300000, 24kbit or 1.5Mbit, whole bit/s, at most 10Gbit";
const HOURS: &str = "a number of hours above 0 and at most 744, such as 1.5";
const SHARE: &str = "a share from 0 to 1, such as 0.3";

/// Longest piece of a question that an error repeats, in characters.
const QUOTED_CHARS_MAX: usize = 40;

/// The given values by position in [`KEYS`].
struct Answers([Option<String>; KEYS.len()]);

impl Answers {
    fn collect<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, QuestionError> {
        let mut answers = Self(Default::default());
        for (key, value) in pairs {
            let key = key.as_ref();
            let position = KEYS.iter().position(|known| *known == key);
            let position = position.ok_or_else(|| QuestionError::Unknown { key: quoted(key) })?;
            if answers.0[position].replace(value.as_ref().to_owned()).is_some() {
                return Err(QuestionError::Repeated { key: KEYS[position] });
            }
        }
        Ok(answers)
    }

    fn text(&self, key: &'static str) -> Option<&str> {
        let position = KEYS.iter().position(|known| *known == key);
        self.0[position.expect("only known names are asked for")].as_deref()
    }

    fn people(&self) -> Result<u64, QuestionError> {
        if self.text("people").is_none() {
            return Err(QuestionError::Missing { key: "people" });
        }
        self.number("people", 1, 1..=PEOPLE_MAX, "a number of people from 1 to 1000000")
    }

    fn number(
        &self,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<u64, QuestionError> {
        let Some(text) = self.text(key) else { return Ok(default) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        number.ok_or_else(|| wrong(key, text, expected))
    }

    fn rate(&self, key: &'static str, default: u64) -> Result<BitsPerSec, QuestionError> {
        let Some(text) = self.text(key) else { return Ok(BitsPerSec::new(default)) };
        parse_rate(text).ok_or_else(|| wrong(key, text, RATE))
    }

    fn meeting(&self) -> Result<Seconds, QuestionError> {
        let Some(text) = self.text("hours") else { return Ok(Seconds::HOUR) };
        parse_hours(text).ok_or_else(|| wrong("hours", text, HOURS))
    }

    fn chance(&self) -> Result<Option<Chance>, QuestionError> {
        let share = |key: &'static str, text: &str| {
            // Decimals only: what a float parser takes beyond them is no share.
            let decimal = Ratio::from_decimal(text).ok().map(Ratio::approx);
            let share = decimal.and_then(|value| Share::new(value).ok());
            share.ok_or_else(|| wrong(key, text, SHARE))
        };
        match (self.text("blocked-share"), self.text("relayed-links-share")) {
            (None, None) => Ok(None),
            (Some(q), None) => Ok(Some(Chance::BlockedShare(share("blocked-share", q)?))),
            (None, Some(r)) => {
                Ok(Some(Chance::RelayedLinksShare(share("relayed-links-share", r)?)))
            }
            (Some(_), Some(_)) => Err(QuestionError::TwoShares),
        }
    }
}

fn wrong(key: &'static str, value: &str, expected: &'static str) -> QuestionError {
    QuestionError::Value { key, value: quoted(value), expected }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

/// A decimal, an optional `bit`, `kbit`, `Mbit` or `Gbit`, and an optional `/s`.
fn parse_rate(text: &str) -> Option<BitsPerSec> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit.strip_suffix("/s").unwrap_or(unit) {
        "" if unit.is_empty() => 1,
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return None,
    };
    let bits = Ratio::from_decimal(number).ok()?.times(Ratio::whole(factor).ok()?).ok()?;
    let bits = u64::try_from(bits.as_whole()?).ok()?;
    (bits <= RATE_BPS_MAX).then(|| BitsPerSec::new(bits))
}

/// A decimal number of hours, rounded to whole seconds, at least one.
fn parse_hours(text: &str) -> Option<Seconds> {
    let seconds = Ratio::from_decimal(text).ok()?.times(Ratio::whole(3600).ok()?).ok()?.round();
    let seconds = u64::try_from(seconds).ok()?;
    (1..=MEETING_HOURS_MAX * 3600).contains(&seconds).then(|| Seconds::new(seconds))
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
    fn rates_are_whole_bits_with_a_known_unit() {
        let read = |text| parse_rate(text).map(BitsPerSec::bits_per_s);
        assert_eq!(read("300000"), Some(300_000));
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("64bit"), Some(64));
        assert_eq!(read("0.0005Gbit"), Some(500_000));
        for bad in
            ["", "Mbit", "1MB", "1mbit", "1 Mbit", "-1", "1.5", "1.5bit", "11Gbit", "1/s", "1e6"]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
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
    fn an_error_repeats_only_a_printable_piece() {
        let message = error(&[("people", &"\n9".repeat(1000))]);
        assert!(message.len() < 200 && !message.contains('\n'), "{message}");
    }
}
