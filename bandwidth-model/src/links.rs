//! How many links a room has, and which of them the relay carries. Exact integers.

use crate::error::ModelError;
use crate::ratio::Ratio;
use crate::units::LinkCount;

/// Most people in one room that the model answers for.
pub const PEOPLE_MAX: u64 = 1_000_000;

/// A room: P people in a full mesh, T of them blocked, that is, unable to connect directly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    people: u64,
    blocked: u64,
}

impl Room {
    /// A room of `people`, of whom `blocked` cannot connect directly.
    ///
    /// # Errors
    /// More than [`PEOPLE_MAX`] people, or more blocked people than people.
    pub fn new(people: u64, blocked: u64) -> Result<Self, ModelError> {
        if people > PEOPLE_MAX {
            return Err(ModelError::TooManyPeople(people));
        }
        if blocked > people {
            return Err(ModelError::MoreBlockedThanPeople { people, blocked });
        }
        Ok(Self { people, blocked })
    }

    /// P.
    #[must_use]
    pub fn people(self) -> u64 {
        self.people
    }

    /// T.
    #[must_use]
    pub fn blocked(self) -> u64 {
        self.blocked
    }

    /// S = P(P−1)/2: every pair of people is one link.
    #[must_use]
    pub fn links(self) -> LinkCount {
        LinkCount::new(pairs(self.people))
    }

    /// D = C(P−T, 2): a link is direct only if neither end is blocked.
    #[must_use]
    pub fn direct(self) -> LinkCount {
        LinkCount::new(pairs(self.people - self.blocked))
    }

    /// K = T(2P−T−1)/2: all links of blocked people, which is S − D.
    #[must_use]
    pub fn relayed(self) -> LinkCount {
        // T(2P−T−1) is even: if T is odd, 2P−T−1 is even. For T = 0 the bracket may be −1.
        let others_twice = (2 * self.people).saturating_sub(self.blocked + 1);
        LinkCount::new(self.blocked * others_twice / 2)
    }

    /// K1 = T(P−T): relayed links of which one end alone uses an allocation.
    #[must_use]
    pub fn one_sided(self) -> LinkCount {
        LinkCount::new(self.blocked * (self.people - self.blocked))
    }

    /// K2 = C(T, 2): relayed links of which both ends use an allocation.
    ///
    /// This counts every pair of blocked people, as if both were unable to send any UDP. Two
    /// people behind symmetric NATs need one allocation only, so for the meters of client legs it
    /// is an upper bound.
    #[must_use]
    pub fn two_sided(self) -> LinkCount {
        LinkCount::new(pairs(self.blocked))
    }

    /// K/S, or 0 for a room without links.
    #[must_use]
    pub fn relayed_share(self) -> Ratio {
        let links = self.links().count();
        if links == 0 {
            return Ratio::ZERO;
        }
        Ratio::new(i128::from(self.relayed().count()), i128::from(links))
            .expect("S is not zero and both counts are below 2^64")
    }
}

/// C(n, 2); at most 5·10¹¹ for [`PEOPLE_MAX`].
pub(crate) fn pairs(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_room_is_exact() {
        let room = Room::new(PEOPLE_MAX, PEOPLE_MAX / 2).unwrap();
        assert_eq!(room.links().count(), 499_999_500_000);
        assert_eq!(room.relayed().count(), 374_999_750_000);
    }

    #[test]
    fn impossible_rooms_are_refused() {
        assert_eq!(Room::new(PEOPLE_MAX + 1, 0), Err(ModelError::TooManyPeople(1_000_001)));
        let more = ModelError::MoreBlockedThanPeople { people: 3, blocked: 4 };
        assert_eq!(Room::new(3, 4), Err(more));
        assert_eq!(Room::new(0, 0).unwrap().relayed().count(), 0);
    }
}
