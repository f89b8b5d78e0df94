//! Names whose credentials are no longer believed.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;

use crate::Now;
use crate::credential::room_of;

/// Most names on the list, users and rooms together. When it is full, the one whose time ends
/// first makes room for the newest.
pub const REVOCATIONS_MAX: usize = 4_096;

/// Whom an operator means.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Who {
    /// One user: `<user>` of a REST name, or the name of a static user.
    User(String),
    /// Everybody in a room: `[<tenant>/]<room>` of `[<tenant>/]<room>.<peer>`.
    Room(String),
}

impl Who {
    /// Whether this user is meant; its name stands without an expiry.
    #[must_use]
    pub fn means(&self, user: &str) -> bool {
        match self {
            Self::User(name) => name == user,
            Self::Room(name) => room_of(user) == Some(name),
        }
    }
}

/// The list: names, and the Unix second until which each stays.
#[derive(Default)]
pub(crate) struct Revocations {
    users: BTreeMap<Box<str>, u64>,
    rooms: BTreeMap<Box<str>, u64>,
}

impl Revocations {
    /// Puts a name on the list until `until`, or leaves it there for longer.
    pub fn add(&mut self, now: Now, who: &Who, until: u64) {
        let (Who::User(name) | Who::Room(name)) = who;
        if !self.of(who).contains_key(name.as_str()) && self.len() >= REVOCATIONS_MAX {
            self.users.retain(|_, until| now.unix_s <= *until);
            self.rooms.retain(|_, until| now.unix_s <= *until);
            if self.len() >= REVOCATIONS_MAX {
                self.drop_first_to_end();
            }
        }
        let kept = self.of(who).entry(name.as_str().into()).or_default();
        *kept = until.max(*kept);
    }

    /// Whether the user or its room is on the list.
    pub fn cover(&self, now: Now, user: &str) -> bool {
        let holds = |list: &BTreeMap<Box<str>, u64>, name: &str| {
            list.get(name).is_some_and(|until| now.unix_s <= *until)
        };
        holds(&self.users, user) || room_of(user).is_some_and(|room| holds(&self.rooms, room))
    }

    /// Names on the list, those whose time is over included.
    pub fn len(&self) -> usize {
        self.users.len() + self.rooms.len()
    }

    fn of(&mut self, who: &Who) -> &mut BTreeMap<Box<str>, u64> {
        match who {
            Who::User(_) => &mut self.users,
            Who::Room(_) => &mut self.rooms,
        }
    }

    fn drop_first_to_end(&mut self) {
        let first = |list: &BTreeMap<Box<str>, u64>| {
            list.iter().min_by_key(|(_, until)| **until).map(|(name, until)| (*until, name.clone()))
        };
        match (first(&self.users), first(&self.rooms)) {
            (Some((user_until, user)), room)
                if room.as_ref().is_none_or(|it| user_until <= it.0) =>
            {
                self.users.remove(&user);
            }
            (_, Some((_, room))) => {
                self.rooms.remove(&room);
            }
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_s: u64) -> Now {
        Now { mono_ms: 0, unix_s }
    }

    fn user(name: &str) -> Who {
        Who::User(name.to_owned())
    }

    #[test]
    fn name_stays_until_its_time_and_never_shorter() {
        let mut list = Revocations::default();
        list.add(at(0), &user("maths.ana"), 100);
        list.add(at(0), &user("maths.ana"), 50);
        assert!(list.cover(at(100), "maths.ana"));
        assert!(!list.cover(at(101), "maths.ana"));
        assert!(!list.cover(at(0), "maths.ben"));
        assert!(!list.cover(at(0), "maths"));
    }

    #[test]
    fn room_is_the_part_before_the_first_dot_with_its_tenant() {
        let mut list = Revocations::default();
        list.add(at(0), &Who::Room("school/maths".to_owned()), 100);
        assert!(list.cover(at(0), "school/maths.ana"));
        assert!(list.cover(at(0), "school/maths.ana.2"));
        for other in ["maths.ana", "school/maths", "school/maths2.ana", "school/art.ana"] {
            assert!(!list.cover(at(0), other), "{other}");
        }
    }

    #[test]
    fn full_list_gives_up_what_has_ended_and_then_what_ends_first() {
        let mut list = Revocations::default();
        for number in 0..REVOCATIONS_MAX as u64 {
            list.add(at(0), &user(&format!("u{number}")), 1_000 + number);
        }
        assert_eq!(list.len(), REVOCATIONS_MAX);
        list.add(at(0), &Who::Room("maths".to_owned()), 5_000_000);
        assert_eq!(list.len(), REVOCATIONS_MAX);
        assert!(!list.cover(at(0), "u0"), "the first to end made room");
        assert!(list.cover(at(0), "u1"));
        assert!(list.cover(at(0), "maths.ana"));
        list.add(at(2_000), &user("new"), 9_000);
        assert!(list.len() < REVOCATIONS_MAX, "those that had ended went");
        assert!(list.cover(at(2_000), "new"));
    }
}
