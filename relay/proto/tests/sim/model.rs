//! The relay's rules once more, as naively as can be: maps of what ends when, and no timers.
//!
//! The model reads the same bytes as the relay and says what must come out; what it keeps is
//! never taken from the relay, except for what only the relay can know: its nonces, and the
//! lengths of its replies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use relay_proto::auth::AuthFailure;
use relay_proto::credential::LongTermKey;
use relay_proto::icmp::IcmpFate;
use relay_proto::relay::Closed;
use relay_proto::revocation::Who as Named;
use relay_proto::{AllocationId, ClientAddr, DropReason, Family, Transport};

use super::budget::Budget;
use super::message::{self, Stun};
use super::scene::{Reach, Rules, canonical, is_own, reach};

/// A client's 5-tuple, with an order.
pub type Who = (SocketAddr, u16, usize);

pub fn who(client: ClientAddr) -> Who {
    (client.remote, client.listener, client.transport.index())
}

/// What must become of a datagram.
#[derive(Debug, Eq, PartialEq)]
pub enum Fate<'b> {
    ToPeer { via: Who, to: SocketAddr, payload: &'b [u8] },
    ToClient { to: Who, frame: Frame, payload: &'b [u8] },
    Hairpin { from: SocketAddr, to: SocketAddr, payload: &'b [u8] },
    Control,
    Drop(DropReason),
}

/// How a payload reaches a client.
#[derive(Debug, Eq, PartialEq)]
pub enum Frame {
    Channel(u16),
    Indication(SocketAddr),
}

/// A reply that must be sent, or was.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    pub to: Option<Who>,
    pub method: u16,
    pub id: [u8; 12],
    /// 0 for success.
    pub code: u16,
    pub lifetime_s: Option<u32>,
    pub relayed: Option<SocketAddr>,
    pub mapped: Option<SocketAddr>,
    pub has_token: bool,
    /// REALM and NONCE are there.
    pub challenges: bool,
    pub unknown: Vec<u8>,
    pub seal: Option<Seal>,
}

/// An allocation that its client gave back, and what a copy of that request is known by.
pub struct Farewell {
    pub id: [u8; 12],
    /// The Allocate's transaction.
    pub allocated_by: [u8; 12],
    pub username: String,
    pub seal: Seal,
    pub until_ms: u64,
}

/// What a message is signed with: the key, and whether by HMAC-SHA256.
pub type Seal = (LongTermKey, bool);

/// All that must come of one call.
#[derive(Debug, Default)]
pub struct Expected {
    pub answers: Vec<Answer>,
    /// Clients whose ports must be opened.
    pub opens: Vec<Who>,
    /// Clients whose ports must be closed.
    pub closes: Vec<Who>,
    /// The request was proved to be its user's.
    pub is_proven: bool,
}

#[derive(Debug)]
pub struct Allocation {
    pub username: String,
    pub seal: Seal,
    pub family: Family,
    pub ends_ms: u64,
    pub session_ends_ms: u64,
    /// The Allocate's transaction id and granted lifetime.
    pub id: [u8; 12],
    pub granted_s: u32,
    pub reserves: bool,
    /// `None` until the port is open.
    pub relayed: Option<SocketAddr>,
    /// When its client was last heard of, in seconds.
    pub heard_s: u64,
    /// Another one has given way to it.
    pub has_replaced: bool,
    /// Nanoseconds until which the rate is used up, to peers and from them.
    pub used_ns: [u64; 2],
    /// ICMP errors that were passed on in this second.
    pub icmp: (u64, u8),
    /// When each ends. What has ended stays until the next request that adds one.
    pub permissions: BTreeMap<IpAddr, u64>,
    pub channels: BTreeMap<u16, (SocketAddr, u64)>,
}

impl Allocation {
    pub fn permits(&self, now_ms: u64, ip: IpAddr) -> bool {
        self.permissions.get(&ip).is_some_and(|ends_ms| now_ms < *ends_ms)
    }

    pub fn channel_of(&self, now_ms: u64, peer: SocketAddr) -> Option<u16> {
        let mut bound = self.channels.iter();
        let found = bound.find(|(_, (to, ends_ms))| *to == peer && now_ms < *ends_ms);
        found.map(|(number, _)| *number)
    }

    pub fn forget_ended(&mut self, now_ms: u64) {
        self.permissions.retain(|_, ends_ms| now_ms < *ends_ms);
    }
}

pub struct Model {
    pub rules: Rules,
    pub allocations: BTreeMap<Who, Allocation>,
    /// Who waits for a port, or has one.
    pub ids: BTreeMap<AllocationId, Who>,
    /// Nonces of this boot, with the 5 s in which they were made.
    pub nonces: BTreeMap<(Who, Vec<u8>), u64>,
    pub budget: Budget,
    pub icmp_errors: [u64; IcmpFate::ALL.len()],
    pub auth_failures: [u64; AuthFailure::ALL.len()],
    /// By transport, and by reason in the order of `Closed::ALL`.
    pub opened: [u64; Transport::ALL.len()],
    pub closed: Vec<u64>,
    /// Who gave an allocation back a moment ago.
    pub farewells: BTreeMap<Who, Farewell>,
    /// Names that were revoked, until the Unix second beside them.
    pub revoked: Vec<(Named, u64)>,
    pub is_draining: bool,
    pub is_narrow: bool,
    /// Searches for silent allocations in this second.
    pub searches: (u64, u32),
    /// Keys of the users that were seen, by name.
    pub keys: BTreeMap<String, Vec<LongTermKey>>,
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            allocations: BTreeMap::new(),
            ids: BTreeMap::new(),
            nonces: BTreeMap::new(),
            budget: Budget::default(),
            farewells: BTreeMap::new(),
            revoked: Vec::new(),
            is_draining: false,
            is_narrow: false,
            searches: (0, 0),
            auth_failures: [0; AuthFailure::ALL.len()],
            opened: [0; Transport::ALL.len()],
            icmp_errors: [0; IcmpFate::ALL.len()],
            closed: vec![0; Closed::ALL.len()],
            keys: BTreeMap::new(),
        }
    }

    pub fn live(&self, now_ms: u64, who: &Who) -> Option<&Allocation> {
        self.allocations.get(who).filter(|it| now_ms < it.ends_ms)
    }

    /// A datagram from a client.
    pub fn client_media<'b>(&mut self, now_ms: u64, from: Who, bytes: &'b [u8]) -> Fate<'b> {
        let read = message::channel_data(bytes);
        let Some((number, payload)) = read else { return Fate::Drop(DropReason::Malformed) };
        let is_strict = self.rules.strict_channels;
        let Some(allocation) = self.heard(now_ms, &from) else {
            return Fate::Drop(DropReason::NoAllocation);
        };
        if now_ms >= allocation.ends_ms {
            return Fate::Drop(DropReason::Expired);
        }
        match allocation.channels.get(&number).copied() {
            None => Fate::Drop(DropReason::NoChannel),
            Some((peer, _)) if is_strict && !allocation.permits(now_ms, peer.ip()) => {
                Fate::Drop(DropReason::NoPermission)
            }
            Some((_, ends_ms)) if now_ms >= ends_ms => Fate::Drop(DropReason::Expired),
            Some((peer, _)) if reach(peer, self.is_narrow) == Reach::Denied => {
                Fate::Drop(DropReason::PeerDenied)
            }
            Some((peer, _)) => self.to_peer(now_ms, from, peer, payload),
        }
    }

    /// A Send indication.
    pub fn send<'b>(&mut self, now_ms: u64, from: Who, stun: &Stun<'b>) -> Fate<'b> {
        let parts = stun.address(0x0012).zip(stun.value(0x0013));
        let Some((peer, payload)) = parts.filter(|_| stun.unknown().is_empty()) else {
            return Fate::Drop(DropReason::Malformed);
        };
        let peer = canonical(peer);
        let is_denied = reach(peer, self.is_narrow) == Reach::Denied;
        let Some(allocation) = self.heard(now_ms, &from) else {
            return Fate::Drop(DropReason::NoAllocation);
        };
        if now_ms >= allocation.ends_ms {
            return Fate::Drop(DropReason::Expired);
        }
        if !allocation.permits(now_ms, peer.ip()) {
            return Fate::Drop(DropReason::NoPermission);
        }
        if is_denied || Some(peer) == allocation.relayed {
            return Fate::Drop(DropReason::PeerDenied);
        }
        self.to_peer(now_ms, from, peer, payload)
    }

    fn heard(&mut self, now_ms: u64, from: &Who) -> Option<&mut Allocation> {
        let allocation = self.allocations.get_mut(from)?;
        allocation.heard_s = now_ms / 1_000;
        Some(allocation)
    }

    fn to_peer<'b>(
        &mut self,
        now_ms: u64,
        via: Who,
        to: SocketAddr,
        payload: &'b [u8],
    ) -> Fate<'b> {
        if !self.may_pass(now_ms, via, 0, payload.len()) {
            return Fate::Drop(DropReason::Shaped);
        }
        let from = self.allocations.get(&via).and_then(|it| it.relayed);
        match (reach(to, self.is_narrow), from) {
            (Reach::OwnRelay, Some(from)) => Fate::Hairpin { from, to, payload },
            _ => Fate::ToPeer { via, to, payload },
        }
    }

    /// Payload passes unless half a second of it is waiting already.
    fn may_pass(&mut self, now_ms: u64, via: Who, direction: usize, bytes: usize) -> bool {
        let bps = self.rules.bps_max;
        let Some((bps, it)) = bps.zip(self.allocations.get_mut(&via)) else { return true };
        let from_ns = it.used_ns[direction].max(now_ms * 1_000_000);
        let is_within = from_ns - now_ms * 1_000_000 <= 500_000_000;
        if is_within {
            it.used_ns[direction] = from_ns + (bytes as u64 * 8_000_000_000).div_ceil(bps);
        }
        is_within
    }

    /// A datagram on the relayed port of `at`.
    pub fn from_peer<'b>(
        &mut self,
        now_ms: u64,
        at: AllocationId,
        from: SocketAddr,
        payload: &'b [u8],
    ) -> Fate<'b> {
        if is_own(from.ip()) {
            return Fate::Drop(DropReason::PeerDenied);
        }
        match self.ids.get(&at).copied() {
            Some(to) => self.to_client(now_ms, to, from, payload),
            None => Fate::Drop(DropReason::NoAllocation),
        }
    }

    /// A payload from another allocation.
    pub fn from_relay<'b>(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        to: SocketAddr,
        payload: &'b [u8],
    ) -> Fate<'b> {
        let mut all = self.allocations.iter();
        match all.find(|(_, it)| it.relayed == Some(to)).map(|(who, _)| *who) {
            Some(who) => self.to_client(now_ms, who, from, payload),
            None => Fate::Drop(DropReason::RelayPortClosed),
        }
    }

    fn to_client<'b>(
        &mut self,
        now_ms: u64,
        to: Who,
        peer: SocketAddr,
        payload: &'b [u8],
    ) -> Fate<'b> {
        let Some(allocation) = self.allocations.get(&to) else {
            return Fate::Drop(DropReason::NoAllocation);
        };
        if now_ms >= allocation.ends_ms {
            return Fate::Drop(DropReason::Expired);
        }
        let is_permitted = allocation.permits(now_ms, peer.ip());
        let bound = allocation.channel_of(now_ms, peer);
        let bound = bound.filter(|_| is_permitted || !self.rules.strict_channels);
        if bound.is_none() && !is_permitted {
            return Fate::Drop(DropReason::NoPermission);
        }
        if is_forbidden(peer, self.is_narrow) {
            return Fate::Drop(DropReason::PeerDenied);
        }
        // A datagram carries 65,507 bytes on IPv4, and its framing must fit in as well.
        if payload.len() > 65_507 - if bound.is_some() { 4 } else { 51 } {
            return Fate::Drop(DropReason::TooBig);
        }
        let frame = bound.map_or(Frame::Indication(peer), Frame::Channel);
        if !self.may_pass(now_ms, to, 1, payload.len()) {
            return Fate::Drop(DropReason::Shaped);
        }
        Fate::ToClient { to, frame, payload }
    }

    /// Live permissions and channels.
    pub fn gauges(&self, now_ms: u64) -> (u64, u64) {
        let live = self.allocations.values().filter(|it| now_ms < it.ends_ms);
        let counts = live.map(|it| {
            let permissions = it.permissions.values().filter(|ends_ms| now_ms < **ends_ms);
            let channels = it.channels.values().filter(|(_, ends_ms)| now_ms < *ends_ms);
            (permissions.count() as u64, channels.count() as u64)
        });
        counts.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }

    /// When the next allocation ends.
    pub fn next_end_ms(&self) -> Option<u64> {
        let open = self.allocations.values().filter(|it| it.relayed.is_some());
        open.map(|it| it.ends_ms).min()
    }
}

/// Whether an address is forbidden whatever its port.
pub fn is_forbidden(peer: SocketAddr, is_narrow: bool) -> bool {
    let any = SocketAddr::new(peer.ip(), 50_000);
    reach(any, is_narrow) == Reach::Denied
}
