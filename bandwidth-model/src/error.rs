//! What the model refuses to compute.

use std::error::Error;
use std::fmt;

use crate::links::PEOPLE_MAX;

/// Why there is no answer. Every case is caused by the numbers of the question.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ModelError {
    /// More people than [`PEOPLE_MAX`].
    TooManyPeople(u64),
    /// More blocked people than people.
    MoreBlockedThanPeople {
        /// People in the room.
        people: u64,
        /// Blocked people asked for.
        blocked: u64,
    },
    /// A share or probability that is not between 0 and 1.
    NotAShare(f64),
    /// Shares that should add up to 1 and do not.
    SharesAddUpTo(f64),
    /// A variance that no quantity between 0 and 1 with this mean can have.
    ImpossibleVariance(f64),
    /// More observations of something than there were observations.
    MoreBlockedThanSeen {
        /// How many were seen blocked.
        blocked: u64,
        /// How many were seen.
        seen: u64,
    },
    /// A list longer than its named limit.
    ListTooLong {
        /// What the list holds.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// An interval that ends before it starts.
    EndBeforeStart {
        /// Start, in seconds.
        start_s: u64,
        /// End, in seconds.
        end_s: u64,
    },
    /// A divisor that must not be zero, by name.
    Zero(&'static str),
    /// A decimal that cannot be read, or has too many digits.
    NotADecimal,
    /// A result or intermediate beyond 2^127.
    TooLarge,
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPeople(people) => {
                write!(f, "{people} people are more than the limit of {PEOPLE_MAX}")
            }
            Self::MoreBlockedThanPeople { people, blocked } => {
                write!(f, "{blocked} of {people} people cannot be blocked")
            }
            Self::NotAShare(value) => write!(f, "{value} is not a share between 0 and 1"),
            Self::SharesAddUpTo(sum) => write!(f, "the shares add up to {sum}, not to 1"),
            Self::ImpossibleVariance(var) => {
                write!(f, "no share with this mean has a variance of {var}")
            }
            Self::MoreBlockedThanSeen { blocked, seen } => {
                write!(f, "{blocked} blocked of {seen} seen is impossible")
            }
            Self::ListTooLong { what, max } => write!(f, "more than {max} {what}"),
            Self::EndBeforeStart { start_s, end_s } => {
                write!(f, "an interval from {start_s} s ends before, at {end_s} s")
            }
            Self::Zero(what) => write!(f, "{what} must not be 0"),
            Self::NotADecimal => write!(f, "not a decimal number of at most 30 digits"),
            Self::TooLarge => write!(f, "the result is too large"),
        }
    }
}

impl Error for ModelError {}
