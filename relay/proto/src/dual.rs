//! Allocations with a relayed address of each family (RFC 8656 §7.2, ADDITIONAL-ADDRESS-FAMILY).
//!
//! The second port is asked for when the first has been answered for, and the client hears of both
//! together. Each address has a lifetime of its own and takes its peers with it when it ends
//! (RFC 8656 §8); the other one lives on.

use crate::Now;
use crate::address::{AllocationId, Family, RelayAddr};
use crate::allocation::Allocation;
use crate::relay::{Closed, PortFailure, Queued, Relay};
use crate::request::PortWish;

/// The relayed address of the other family.
#[derive(Debug, Default)]
pub(crate) enum Second {
    /// Nobody asked for it, or it has ended.
    #[default]
    None,
    /// The edge has yet to answer for it.
    Wanted,
    /// It is there.
    Open(Box<Leg>),
    /// It cannot be had; the client is told why (RFC 8656 §18.12).
    Refused(Family, PortFailure),
}

/// A relayed address and when it ends.
#[derive(Debug)]
pub(crate) struct Leg {
    pub relayed: RelayAddr,
    pub expires_ms: u64,
}

impl Second {
    pub fn leg(&self) -> Option<&Leg> {
        match self {
            Self::Open(leg) => Some(leg),
            _ => None,
        }
    }

    pub fn is_live(&self, now: Now) -> bool {
        self.leg().is_some_and(|leg| now.mono_ms < leg.expires_ms)
    }
}

impl Allocation {
    /// Whether every port that was asked for is answered for, so that the client may use it.
    pub fn is_ready(&self) -> bool {
        self.relayed.is_some() && !matches!(self.second, Second::Wanted)
    }

    /// Whether the address that peers of this family see has not ended. Of an allocation that lives
    /// this needs a look only if it has two.
    pub fn serves(&self, now: Now, family: Family) -> bool {
        match self.second.leg() {
            None => true,
            Some(_) if self.family == family => now.mono_ms < self.expires_ms,
            Some(leg) => now.mono_ms < leg.expires_ms,
        }
    }

    /// Which of two addresses has ended, of an allocation that lives.
    pub fn ended_family(&self, now: Now) -> Option<Family> {
        self.second.leg()?;
        Family::ALL.into_iter().find(|family| !self.serves(now, *family))
    }

    /// Its address of this family.
    pub fn relayed_of(&self, family: Family) -> Option<RelayAddr> {
        if self.family == family {
            return self.relayed;
        }
        self.second.leg().map(|leg| leg.relayed)
    }

    /// Every address that is open.
    pub fn addresses(&self) -> impl Iterator<Item = RelayAddr> {
        self.relayed.into_iter().chain(self.second.leg().map(|leg| leg.relayed))
    }

    /// When the first of its addresses ends.
    pub fn next_end_ms(&self) -> u64 {
        self.second.leg().map_or(self.expires_ms, |leg| leg.expires_ms.min(self.expires_ms))
    }

    /// Lets the address of one family, or of all, end so many seconds from now, or with the
    /// session; returns how many seconds that leaves, rounded up.
    pub fn extend(&mut self, now: Now, lifetime_s: u32, only: Option<Family>) -> u32 {
        let expires_ms = now.after_s(lifetime_s).min(self.session_ends_ms);
        if only.is_none_or(|family| family == self.family) {
            self.expires_ms = expires_ms;
        }
        if only != Some(self.family)
            && let Second::Open(leg) = &mut self.second
        {
            leg.expires_ms = expires_ms;
        }
        let left_s = expires_ms.saturating_sub(now.mono_ms).div_ceil(1000);
        u32::try_from(left_s).unwrap_or(lifetime_s)
    }

    /// Takes the address of one family away, with its peers, if one of the other family is left.
    pub fn end_address(&mut self, family: Family) -> Option<RelayAddr> {
        let Second::Open(leg) = std::mem::take(&mut self.second) else { return None };
        let ended = if family == self.family {
            // The second one takes the place of the first.
            (self.family, self.expires_ms) = (family.other(), leg.expires_ms);
            self.relayed.replace(leg.relayed)
        } else {
            Some(leg.relayed)
        };
        self.forget_peers(family);
        ended
    }
}

impl Relay {
    /// Asks for the second port, if it is wanted; the client's answer waits for it.
    pub(crate) fn asks_for_second(&mut self, id: AllocationId) -> bool {
        let Some(allocation) = self.table.by_id(id) else { return false };
        if !matches!(allocation.second, Second::Wanted) {
            return false;
        }
        let effect = allocation.port(id, allocation.family.other(), true);
        self.effects.push_back(effect);
        true
    }

    /// One of two ports cannot be had: goes on with the other, or says that there is none.
    ///
    /// # Errors
    /// Nothing is left; the reason is the client's answer.
    pub(crate) fn goes_without(
        &mut self,
        id: AllocationId,
        why: PortFailure,
    ) -> Result<(), PortFailure> {
        let Some(allocation) = self.table.by_id(id) else { return Ok(()) };
        if allocation.is_ready() {
            return Ok(());
        }
        if allocation.relayed.is_some() {
            allocation.second = Second::Refused(allocation.family.other(), why);
            self.complete(id);
            return Ok(());
        }
        match allocation.second {
            Second::Wanted if why != PortFailure::Quota => {
                allocation.second = Second::Refused(allocation.family, why);
                allocation.family = allocation.family.other();
                let effect = allocation.port(id, allocation.family, false);
                self.effects.push_back(effect);
                Ok(())
            }
            // Of two reasons the one that may pass.
            Second::Refused(_, PortFailure::Capacity) if why == PortFailure::Family => {
                Err(PortFailure::Capacity)
            }
            _ => Err(why),
        }
    }

    /// Ends what is due of an allocation: one of its addresses, or all of it.
    pub(crate) fn end_due(&mut self, now: Now, id: AllocationId) {
        let Some(allocation) = self.table.by_id(id) else { return };
        if !allocation.is_live(now) {
            return self.close(id, Closed::Expired);
        }
        if let Some(family) = allocation.ended_family(now) {
            self.close_address(id, family);
        }
    }

    /// Closes the port of one family; the allocation lives on with the other.
    pub(crate) fn close_address(&mut self, id: AllocationId, family: Family) {
        if self.table.end_address(id, family) {
            self.effects.push_back(Queued::ClosePort { id, family });
            self.watch(id);
        }
    }
}

impl Allocation {
    /// Asks the edge for a port of this family, where two are wanted.
    fn port(&self, id: AllocationId, family: Family, is_second: bool) -> Queued {
        let wish = if self.is_even { PortWish::Even } else { PortWish::Any };
        let (username, client) = (self.owner.username.clone(), self.client);
        Queued::OpenPort { id, family, wish, username, client, is_second }
    }
}
