//! What the operator may change while calls go on: settings, who is believed, whether to drain.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::Now;
use crate::address::ClientAddr;
use crate::auth::user_of;
use crate::credential;
use crate::relay::{Closed, Relay, Settings};
use crate::request::{Invalid, NO_CAPACITY};
use crate::revocation::Who;

/// Whom [`Relay::kick`] has ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kicked {
    /// Clients that had an allocation.
    pub clients: Vec<ClientAddr>,
    /// The Unix second until which the name is on the list of revocations.
    pub until: u64,
}

/// Where a draining relay sends new clients, by the family that they use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Alternates {
    /// For clients on IPv4.
    pub v4: Option<SocketAddrV4>,
    /// For clients on IPv6.
    pub v6: Option<SocketAddrV6>,
}

impl Alternates {
    fn for_client(self, client: ClientAddr) -> Option<SocketAddr> {
        match client.remote {
            SocketAddr::V4(_) => self.v4.map(SocketAddr::V4),
            SocketAddr::V6(_) => self.v6.map(SocketAddr::V6),
        }
    }
}

impl Relay {
    /// Replaces all settings at once, while allocations live.
    ///
    /// The next packet is judged by the new policy, through old permissions and channels too.
    /// An allocation keeps its key and the end of its session, so that a removed secret or user
    /// ends new allocations only. A cap below what an allocation has takes nothing from it. A new
    /// realm changes the keys that clients compute: those of old allocations then fail.
    pub fn configure(&mut self, settings: Settings) {
        if settings.policy != self.settings.policy {
            self.generation.advance();
        }
        self.settings = settings;
    }

    /// Ends all allocations of a user or a room and revokes its name until `until`, in Unix
    /// seconds, or until the last credential that they were opened with expires; drain the effects.
    ///
    /// From here on no byte goes either way. A full list of revocations gives up the name whose
    /// time ends first ([`crate::revocation::REVOCATIONS_MAX`]).
    pub fn kick(&mut self, now: Now, who: &Who, until: u64) -> Kicked {
        let expiry = |username: &str| credential::split(username).map_or(0, |(expiry, _)| expiry);
        let meant = self.table.iter().filter(|(_, it)| who.means(user_of(&it.owner.username)));
        let meant: Vec<_> =
            meant.map(|(id, it)| (id, it.client, expiry(&it.owner.username))).collect();
        let until = meant.iter().map(|(.., expires)| *expires).fold(until, u64::max);
        meant.iter().for_each(|(id, ..)| self.close(*id, Closed::Kicked));
        let clients = meant.into_iter().map(|(_, client, _)| client).collect();
        self.revoke(now, who, until);
        Kicked { clients, until }
    }

    /// Revokes a name until `until`, in Unix seconds: its credentials get 401.
    pub fn revoke(&mut self, now: Now, who: &Who, until: u64) {
        self.revocations.add(now, who, until);
    }

    /// From now on nobody gets a new allocation; those that live go on. Call again to change the
    /// alternates.
    pub fn drain(&mut self, alternates: Alternates) {
        self.draining = Some(alternates);
    }

    /// Refuses a new allocation while draining: 300 if there is somewhere else to go
    /// (RFC 8489 §10), else 508.
    pub(crate) fn refuse_if_draining(&self, client: ClientAddr) -> Result<(), Invalid> {
        let Some(alternates) = self.draining else { return Ok(()) };
        Err(alternates.for_client(client).map_or(NO_CAPACITY, Invalid::TryAlternate))
    }
}
