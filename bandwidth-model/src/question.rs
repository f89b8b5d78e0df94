//! Reading a question: names and values, as typed on a command line or into an address bar.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;

use crate::chance::Share;
use crate::class::{Chance, MEETING_HOURS_MAX, RATE_BPS_MAX};
use crate::links::PEOPLE_MAX;
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Seconds};

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

const PEOPLE: &str = "a number of people from 1 to 1000000";
pub(crate) const RELAYED: &str = "a number of people from 0 to the value of people";
pub(crate) const MEETINGS: &str = "a number of meetings from 0 to 1000000";
const RATE: &str = "a rate of at most 10Gbit, such as 300000, 24kbit or 1.5Mbit, in whole bit/s";
const HOURS: &str = "a number of hours above 0 and at most 744, such as 1.5";
const SHARE: &str = "a share from 0 to 1, such as 0.3";

/// Longest piece of a question that an error repeats, in characters.
const QUOTED_CHARS_MAX: usize = 40;

/// The given values by position in [`KEYS`].
pub(crate) struct Answers([Option<String>; KEYS.len()]);

impl Answers {
    pub(crate) fn collect<K: AsRef<str>, V: AsRef<str>>(
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

    pub(crate) fn people(&self) -> Result<u64, QuestionError> {
        if self.text("people").is_none() {
            return Err(QuestionError::Missing { key: "people" });
        }
        self.number("people", 1, 1..=PEOPLE_MAX, PEOPLE)
    }

    pub(crate) fn number(
        &self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<u64, QuestionError> {
        let Some(text) = self.text(key) else { return Ok(default) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        number.ok_or_else(|| wrong(key, text, expected))
    }

    pub(crate) fn rate(
        &self,
        key: &'static str,
        default: u64,
    ) -> Result<BitsPerSec, QuestionError> {
        let Some(text) = self.text(key) else { return Ok(BitsPerSec::new(default)) };
        parse_rate(text).ok_or_else(|| wrong(key, text, RATE))
    }

    pub(crate) fn meeting(&self) -> Result<Seconds, QuestionError> {
        let Some(text) = self.text("hours") else { return Ok(Seconds::HOUR) };
        parse_hours(text).ok_or_else(|| wrong("hours", text, HOURS))
    }

    pub(crate) fn chance(&self) -> Result<Option<Chance>, QuestionError> {
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
}
