//! What the relay granted, read from the wire alone: requests that went in and successes that
//! came out. The invariants judge by this, not by the model.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::message::{REQUEST, SUCCESS, Stun};
use super::model::Who;
use super::requests::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use super::scene::canonical;

/// What one 5-tuple was granted.
#[derive(Debug, Default)]
pub struct Grant {
    pub relayed: Option<SocketAddr>,
    pub ends_ms: u64,
    /// When it was allocated.
    pub since_ms: u64,
    pub permissions: BTreeMap<IpAddr, u64>,
    pub channels: BTreeMap<u16, (SocketAddr, u64)>,
    /// Successes so far; each may have changed something.
    pub changes: u64,
}

impl Grant {
    pub fn permits(&self, now_ms: u64, ip: IpAddr) -> bool {
        self.permissions.get(&ip).is_some_and(|ends_ms| now_ms < *ends_ms)
    }

    pub fn binds(&self, now_ms: u64, peer: SocketAddr) -> bool {
        self.channels.values().any(|(to, ends_ms)| *to == peer && now_ms < *ends_ms)
    }
}

#[derive(Debug, Default)]
pub struct Witness {
    /// How long an allocation lives at most.
    pub session_ms_max: u64,
    pub grants: BTreeMap<Who, Grant>,
}

impl Witness {
    pub fn live(&self, now_ms: u64, who: &Who) -> Option<&Grant> {
        self.grants.get(who).filter(|it| now_ms < it.ends_ms)
    }

    /// A request that was answered with success. Panics where the success breaks I-10 by itself.
    pub fn granted(&mut self, now_ms: u64, who: Who, request: &[u8], reply: &Stun<'_>) {
        let Some(request) = Stun::read(request).filter(|it| it.class == REQUEST) else { return };
        if reply.class != SUCCESS {
            return;
        }
        let ends_ms = reply.number(0x000D).map(|seconds| now_ms + u64::from(seconds) * 1_000);
        let grant = self.grants.entry(who).or_default();
        match request.method {
            ALLOCATE => return self.allocated(now_ms, now_ms, who, reply),
            // The port's end says it; a copy of the request may end nothing any more.
            REFRESH if reply.number(0x000D) == Some(0) => return,
            REFRESH => {
                // LIFETIME is in whole seconds, and a session may end between two.
                let session_ends_ms = grant.since_ms + self.session_ms_max;
                grant.ends_ms = ends_ms.unwrap_or(0).min(session_ends_ms);
            }
            CREATE_PERMISSION => {
                let named = request.attributes.iter().filter(|(kind, _)| *kind == 0x0012);
                for peer in named.filter_map(|(_, value)| request.unxor(value)) {
                    grant.permissions.insert(canonical(peer).ip(), now_ms + 300_000);
                }
            }
            CHANNEL_BIND => {
                let number = request.number(0x000C).and_then(|it| u16::try_from(it >> 16).ok());
                let bound = number.zip(request.address(0x0012).map(canonical));
                let (number, peer) = bound.expect("I-10: a channel without number or peer");
                let mut live = grant.channels.iter().filter(|(_, (_, until))| now_ms < *until);
                let rival = live.find(|(at, (to, _))| (**at == number) != (*to == peer));
                assert!(rival.is_none(), "I-10: {number:#x} {peer} beside {rival:x?}");
                grant.permissions.insert(peer.ip(), now_ms + 300_000);
                grant.channels.insert(number, (peer, now_ms + 600_000));
            }
            _ => {}
        }
        grant.changes += 1;
    }

    /// An Allocate that was answered with success, perhaps after its port was waited for.
    /// Its life began when it was asked for.
    pub fn allocated(&mut self, now_ms: u64, since_ms: u64, who: Who, reply: &Stun<'_>) {
        let grant = self.grants.entry(who).or_default();
        // A retransmission is told the same once more; nothing begins anew.
        if grant.relayed.is_none() || now_ms >= grant.ends_ms {
            let ends_ms = since_ms + u64::from(reply.number(0x000D).unwrap_or(0)) * 1_000;
            let (relayed, changes) = (reply.address(0x0016), grant.changes + 1);
            *grant = Grant { relayed, ends_ms, since_ms, changes, ..Grant::default() };
        }
    }

    /// The port is closed: whatever was granted ends with it.
    pub fn closed(&mut self, now_ms: u64, who: &Who, port: SocketAddr) {
        // One that opened too late is no client's any more.
        let grant = self.grants.get_mut(who).filter(|it| it.relayed == Some(port));
        if let Some(grant) = grant {
            grant.ends_ms = grant.ends_ms.min(now_ms);
            grant.changes += 1;
        }
    }

    /// The relay started anew, and with it everything.
    pub fn forget(&mut self) {
        self.grants.clear();
    }
}
