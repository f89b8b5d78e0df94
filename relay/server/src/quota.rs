//! Who has how many allocations, of a user, of a room, and how many users an address has.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use relay_proto::credential::room_of;
use relay_proto::relay::PortFailure;

/// Most of everything; `usize::MAX` is without limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Allocations of one user.
    pub per_user: usize,
    /// Allocations of all users of one room.
    pub per_room: usize,
    /// Users with allocations at one address.
    pub users_per_ip: usize,
    /// Allocations in all.
    pub all: usize,
}

/// Whom an allocation is charged to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The user, without its credential's expiry.
    pub user: Box<str>,
    /// The client's address.
    pub ip: IpAddr,
}

impl Holder {
    /// `[<tenant>/]<room>` of `[<tenant>/]<room>.<peer>`; other users have no room.
    fn room(&self) -> Option<&str> {
        room_of(&self.user)
    }
}

/// Counts live allocations; what has none takes no memory.
pub struct Quotas {
    limits: Limits,
    all: usize,
    users: HashMap<Box<str>, usize>,
    rooms: HashMap<Box<str>, usize>,
    ips: HashMap<IpAddr, HashMap<Box<str>, usize>>,
}

impl Quotas {
    /// Nobody has anything.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (users, rooms, ips) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { limits, all: 0, users, rooms, ips }
    }

    /// Other limits from now on. Whoever has more keeps it and gets nothing new.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// All that was charged and not given back.
    #[must_use]
    pub fn all(&self) -> usize {
        self.all
    }

    /// Charges one allocation, or nothing.
    ///
    /// # Errors
    /// The holder, its room or its address has as much as it may; or the server has.
    pub fn charge(&mut self, holder: &Holder) -> Result<(), PortFailure> {
        if self.all >= self.limits.all {
            return Err(PortFailure::Capacity);
        }
        let has = |of: &HashMap<Box<str>, usize>, name| of.get(name).copied().unwrap_or(0);
        let user: &str = &holder.user;
        let is_room_full =
            holder.room().is_some_and(|room| has(&self.rooms, room) >= self.limits.per_room);
        // One who is there already is no further user.
        let is_ip_full = self.ips.get(&holder.ip).is_some_and(|users| {
            users.len() >= self.limits.users_per_ip && !users.contains_key(user)
        });
        if has(&self.users, user) >= self.limits.per_user || is_room_full || is_ip_full {
            return Err(PortFailure::Quota);
        }
        self.all += 1;
        *self.users.entry(user.into()).or_default() += 1;
        *self.ips.entry(holder.ip).or_default().entry(user.into()).or_default() += 1;
        if let Some(room) = holder.room() {
            *self.rooms.entry(room.into()).or_default() += 1;
        }
        Ok(())
    }

    /// Gives back what [`Quotas::charge`] took.
    pub fn discharge(&mut self, holder: &Holder) {
        self.all -= 1;
        let user: &str = &holder.user;
        count_down(&mut self.users, user);
        if let Some(room) = holder.room() {
            count_down(&mut self.rooms, room);
        }
        if let Some(users) = self.ips.get_mut(&holder.ip) {
            count_down(users, user);
            if users.is_empty() {
                self.ips.remove(&holder.ip);
            }
        }
    }

    /// Whether nobody has anything.
    #[cfg(test)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.users.is_empty() && self.rooms.is_empty() && self.ips.is_empty()
    }
}

fn count_down<K: Eq + Hash + std::borrow::Borrow<str>>(of: &mut HashMap<K, usize>, name: &str) {
    if let Some(count) = of.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            of.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_user: 2, per_room: 3, users_per_ip: 2, all: 100 };

    fn holder(user: &str, last: u8) -> Holder {
        Holder { user: user.into(), ip: [192, 0, 2, last].into() }
    }

    #[test]
    fn user_has_its_share_wherever_it_is() {
        let mut quotas = Quotas::new(LIMITS);
        for last in 1..=2 {
            assert_eq!(quotas.charge(&holder("ana", last)), Ok(()));
        }
        assert_eq!(quotas.charge(&holder("ana", 3)), Err(PortFailure::Quota));
        quotas.discharge(&holder("ana", 1));
        assert_eq!(quotas.charge(&holder("ana", 3)), Ok(()));
    }

    #[test]
    fn room_is_the_part_before_the_first_dot() {
        let mut quotas = Quotas::new(LIMITS);
        for (last, user) in [(1, "school/maths.a"), (2, "school/maths.b.c"), (3, "school/maths.d")]
        {
            assert_eq!(quotas.charge(&holder(user, last)), Ok(()));
        }
        assert_eq!(quotas.charge(&holder("school/maths.e", 4)), Err(PortFailure::Quota));
        assert_eq!(quotas.charge(&holder("other/maths.e", 4)), Ok(()), "another tenant's");
        for last in 10..20 {
            let user = format!("no-room-{last}");
            assert_eq!(quotas.charge(&holder(&user, last)), Ok(()));
        }
        quotas.discharge(&holder("school/maths.a", 1));
        assert_eq!(quotas.charge(&holder("school/maths.e", 5)), Ok(()));
    }

    #[test]
    fn address_has_so_many_users_and_each_of_them_goes_on() {
        let mut quotas = Quotas::new(LIMITS);
        assert_eq!(quotas.charge(&holder("ana", 1)), Ok(()));
        assert_eq!(quotas.charge(&holder("ben", 1)), Ok(()));
        assert_eq!(quotas.charge(&holder("cleo", 1)), Err(PortFailure::Quota));
        assert_eq!(quotas.charge(&holder("cleo", 2)), Ok(()));
        assert_eq!(quotas.charge(&holder("ana", 1)), Ok(()));
        quotas.discharge(&holder("ben", 1));
        assert_eq!(quotas.charge(&holder("cleo", 1)), Ok(()));
    }

    #[test]
    fn lowered_limit_takes_nothing_and_gives_nothing() {
        let mut quotas = Quotas::new(LIMITS);
        for _ in 0..2 {
            assert_eq!(quotas.charge(&holder("ana", 1)), Ok(()));
        }
        quotas.set_limits(Limits { per_user: 1, ..LIMITS });
        assert_eq!(quotas.all(), 2);
        quotas.discharge(&holder("ana", 1));
        assert_eq!(quotas.charge(&holder("ana", 1)), Err(PortFailure::Quota));
        quotas.discharge(&holder("ana", 1));
        assert_eq!(quotas.charge(&holder("ana", 1)), Ok(()));
    }

    #[test]
    fn refused_charge_leaves_nothing_and_a_given_back_one_neither() {
        let mut quotas = Quotas::new(Limits { all: 1, ..LIMITS });
        let (first, second) = (holder("maths.ana", 1), holder("maths.ben", 2));
        assert_eq!(quotas.charge(&first), Ok(()));
        assert_eq!(quotas.charge(&second), Err(PortFailure::Capacity));
        quotas.discharge(&first);
        assert!(quotas.is_empty());
    }
}
