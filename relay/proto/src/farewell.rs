//! Allocations that their clients gave back a moment ago.
//!
//! A datagram may come twice. The copy of a Refresh with LIFETIME 0 finds its allocation gone, or,
//! worse, the next one of the same client, which it must not end. So each release is remembered
//! for as long as its copies may come, with what its answer is signed with. Only owners of
//! allocations make entries, and their number is bounded.
#![deny(clippy::indexing_slicing)]

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use crate::Now;
use crate::address::ClientAddr;
use crate::auth::Owner;
use crate::stun::TransactionId;

/// How long copies of a request may come: RFC 8489 §6.2.1 has a client give up after 39.5 s.
pub const FAREWELL_MS: u64 = 40_000;
/// Most releases remembered; beyond it the oldest is forgotten and its copies get 437.
pub const FAREWELLS_MAX: usize = 1_024;

/// The last release of each client.
pub(crate) struct Farewells {
    by_client: HashMap<ClientAddr, Farewell, FixedState>,
    /// When to forget whom; void if the client's release is another one by then.
    ends: VecDeque<(u64, ClientAddr)>,
}

struct Farewell {
    transaction_id: TransactionId,
    /// Of the Allocate that made what was given back.
    allocated_by: TransactionId,
    owner: Owner,
    ends_ms: u64,
}

impl Farewells {
    /// Nothing released; `seed` keeps strangers from choosing colliding addresses.
    pub fn new(seed: u64) -> Self {
        let by_client = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { by_client, ends: VecDeque::new() }
    }

    /// Remembers that a client gave the allocation of one transaction back with another.
    pub fn remember(
        &mut self,
        now: Now,
        client: ClientAddr,
        [allocated_by, transaction_id]: [TransactionId; 2],
        owner: Owner,
    ) {
        self.forget(now);
        if self.ends.len() == FAREWELLS_MAX {
            self.forget_oldest();
        }
        let ends_ms = now.mono_ms + FAREWELL_MS;
        let farewell = Farewell { transaction_id, allocated_by, owner, ends_ms };
        self.by_client.insert(client, farewell);
        self.ends.push_back((ends_ms, client));
    }

    /// Who gave an allocation back with this very transaction a moment ago.
    pub fn owner(&self, now: Now, client: ClientAddr, id: TransactionId) -> Option<&Owner> {
        let farewell = self.by_client.get(&client)?;
        let is_copy = farewell.transaction_id == id && now.mono_ms < farewell.ends_ms;
        is_copy.then_some(&farewell.owner)
    }

    /// An Allocate that repeats the transaction of the one given back begins the same exchange
    /// again, be it a late copy or a client that does not draw its ids at random: its goodbye,
    /// though it looks as before, counts.
    pub fn begins(&mut self, client: ClientAddr, allocated_by: TransactionId) {
        if self.by_client.get(&client).is_some_and(|it| it.allocated_by == allocated_by) {
            self.by_client.remove(&client);
        }
    }

    /// Forgets whose time is over.
    pub fn forget(&mut self, now: Now) {
        while self.ends.front().is_some_and(|(ends_ms, _)| *ends_ms <= now.mono_ms) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((ends_ms, client)) = self.ends.pop_front() else { return };
        if self.by_client.get(&client).is_some_and(|it| it.ends_ms == ends_ms) {
            self.by_client.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Transport;
    use crate::algorithm::{Integrity, Key, Seal};

    fn client(port: u16) -> ClientAddr {
        let remote = ([192, 0, 2, 1], port).into();
        ClientAddr { remote, local: None, listener: 0, transport: Transport::Udp }
    }

    fn owner() -> Owner {
        let seal = Seal { key: Key::Md5([0; 16]), by: Integrity::Sha1 };
        Owner { username: "ana".to_owned(), seal }
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_s: 0 }
    }

    #[test]
    fn release_is_remembered_for_forty_seconds_and_by_its_transaction() {
        let mut farewells = Farewells::new(1);
        farewells.remember(at(5), client(1), [[0; 12], [1; 12]], owner());
        assert!(farewells.owner(at(5 + FAREWELL_MS - 1), client(1), [1; 12]).is_some());
        assert!(farewells.owner(at(5 + FAREWELL_MS), client(1), [1; 12]).is_none());
        assert!(farewells.owner(at(5), client(1), [2; 12]).is_none());
        assert!(farewells.owner(at(5), client(2), [1; 12]).is_none());
        farewells.remember(at(10), client(1), [[0; 12], [2; 12]], owner());
        farewells.forget(at(5 + FAREWELL_MS));
        assert!(farewells.owner(at(10), client(1), [2; 12]).is_some(), "the newer one stays");
        farewells.forget(at(10 + FAREWELL_MS));
        assert!(farewells.by_client.is_empty() && farewells.ends.is_empty());
    }

    #[test]
    fn number_of_releases_is_bounded() {
        let mut farewells = Farewells::new(1);
        for n in 0..2 * u16::try_from(FAREWELLS_MAX).expect("fits") {
            // Some clients come more than once.
            farewells.remember(at(u64::from(n)), client(n % 1_500 + 1), [[0; 12]; 2], owner());
            assert!(farewells.ends.len() <= FAREWELLS_MAX);
            assert!(farewells.by_client.len() <= farewells.ends.len());
        }
    }
}
