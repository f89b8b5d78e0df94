//! The simulated edge: a pool of relayed ports with quotas, refused binds and late answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_proto::attribute::ReservationToken;
use relay_proto::request::PortWish;
use relay_proto::{AllocationId, ClientAddr, Family, PortFailure};

use super::scene::{EXTERNAL_IP, RELAY_IP_V6, RELAY_PORT_MIN};

/// How long a reserved port waits (RFC 8656 §7.2).
const RESERVATION_MS: u64 = 30_000;

/// How the host answers when a port is to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Host {
    Opens,
    /// EADDRINUSE, EMFILE and ENOBUFS look the same to the relay.
    Refuses,
    /// It opens, so many milliseconds later.
    OpensLate(u64),
    /// It refuses, so many milliseconds later.
    RefusesLate(u64),
}

/// A port that the relay asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub id: AllocationId,
    pub family: Family,
    pub wish: PortWish,
    pub user: String,
    pub client: ClientAddr,
    /// When it was asked for.
    pub since_ms: u64,
}

#[derive(Debug)]
pub struct Port {
    pub at: SocketAddr,
    pub user: String,
    pub client: ClientAddr,
}

pub struct Edge {
    pub host: Host,
    pool: u16,
    quota: usize,
    /// Open ports by the allocation that they were opened for.
    pub open: BTreeMap<AllocationId, Port>,
    /// Asked for, but not answered yet.
    pub waiting: BTreeMap<AllocationId, Asked>,
    /// Kept for a token until then, for one user.
    reserved: BTreeMap<SocketAddr, (ReservationToken, u64, String)>,
    pub opens: u64,
    pub closes: u64,
}

impl Edge {
    pub fn new(pool: u16, quota: usize) -> Self {
        Self {
            host: Host::Opens,
            pool,
            quota,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            reserved: BTreeMap::new(),
            opens: 0,
            closes: 0,
        }
    }

    /// Opens the port, unless quota, pool or host forbid it. `chance` picks among free ports.
    pub fn bind(
        &mut self,
        now_ms: u64,
        asked: Asked,
        refuses: bool,
        chance: u64,
    ) -> Result<SocketAddr, PortFailure> {
        self.reserved.retain(|_, (_, until_ms, _)| now_ms < *until_ms);
        let charged = self.open.values().filter(|port| port.user == asked.user).count();
        if charged >= self.quota {
            return Err(PortFailure::Quota);
        }
        let at = self.find(&asked, chance).ok_or(PortFailure::Capacity)?;
        if refuses {
            return Err(PortFailure::Capacity);
        }
        self.reserved.remove(&at);
        if let PortWish::EvenAndNext(token) = asked.wish {
            let kept = (token, now_ms + RESERVATION_MS, asked.user.clone());
            self.reserved.insert(next(at), kept);
        }
        let (user, client) = (asked.user, asked.client);
        let earlier = self.open.insert(asked.id, Port { at, user, client });
        assert!(earlier.is_none(), "I-6: {} has two ports", asked.id);
        self.opens += 1;
        Ok(at)
    }

    /// Whose port this is.
    pub fn owner(&self, at: SocketAddr) -> Option<AllocationId> {
        self.open.iter().find(|(_, port)| port.at == at).map(|(id, _)| *id)
    }

    /// Free, used and reserved ports of both families.
    pub fn census(&self) -> (usize, usize, usize) {
        let families = Family::ALL.into_iter();
        let free = families.flat_map(|family| self.all(family)).filter(|at| self.is_free(*at));
        (free.count(), self.open.len(), self.reserved.len())
    }

    pub fn pool(&self) -> usize {
        2 * usize::from(self.pool)
    }

    fn find(&self, asked: &Asked, chance: u64) -> Option<SocketAddr> {
        let (family, wish) = (asked.family, asked.wish);
        if let PortWish::Reserved(wanted) = wish {
            let mut kept = self.reserved.iter();
            let kept = kept.find(|(_, (token, _, user))| *token == wanted && *user == asked.user);
            return kept.map(|(at, _)| *at);
        }
        let even = wish != PortWish::Any;
        let pair = matches!(wish, PortWish::EvenAndNext(_));
        let is_fit = |at: &SocketAddr| {
            self.is_free(*at)
                && (!even || at.port().is_multiple_of(2))
                && (!pair || self.is_free(next(*at)) && self.all(family).any(|it| it == next(*at)))
        };
        let fit: Vec<_> = self.all(family).filter(is_fit).collect();
        let at = usize::try_from(chance % fit.len().max(1) as u64).expect("a place in the pool");
        fit.get(at).copied()
    }

    fn is_free(&self, at: SocketAddr) -> bool {
        !self.reserved.contains_key(&at) && self.open.values().all(|port| port.at != at)
    }

    fn all(&self, family: Family) -> impl Iterator<Item = SocketAddr> + use<> {
        let ip = match family {
            Family::V4 => EXTERNAL_IP.into(),
            Family::V6 => RELAY_IP_V6.into(),
        };
        (RELAY_PORT_MIN..RELAY_PORT_MIN + self.pool).map(move |port| SocketAddr::new(ip, port))
    }
}

fn next(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip(), at.port() + 1)
}
