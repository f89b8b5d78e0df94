//! An allocation with its permissions, channels and every lifetime.

use std::net::{IpAddr, SocketAddr};

use crate::Now;
use crate::address::{ChannelNumber, ClientAddr, Family, RelayAddr};
use crate::attribute::ReservationToken;
use crate::auth::Owner;
use crate::dual::Second;
use crate::icmp::Ration;
use crate::request::{BAD_REQUEST, Invalid, NO_CAPACITY};
use crate::shape::{Rate, Used};
use crate::standing::{Judged, Reach, Rules, Standing};
use crate::stun::TransactionId;
use crate::traffic::{Carried, DropReason};

/// How long a permission lasts (RFC 8656 §9).
pub const PERMISSION_LIFETIME_MS: u64 = 300_000;
/// How long a channel lasts (RFC 8656 §12).
pub const CHANNEL_LIFETIME_MS: u64 = 600_000;
/// How long after its end a channel's number and peer stay each other's, if channels are strict
/// (RFC 8656 §12).
pub const CHANNEL_QUARANTINE_MS: u64 = 300_000;
/// How long after the last payload a link still counts as carrying.
pub const CARRYING_S: u32 = 10;
/// Most channels that are kept, with those that wait for the end of their quarantine.
const CHANNELS_KEPT_MAX: usize = 256;
/// How many peers without a channel are told apart when links are counted.
const FLOWS_MAX: usize = 4;

/// Caps of one allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub permissions_max: usize,
    pub channels_max: usize,
    pub strict_channels: bool,
}

/// One relayed port, or one of each family, and all that hangs on it (RFC 8656 §3.2).
pub(crate) struct Allocation {
    /// The 5-tuple.
    pub client: ClientAddr,
    /// Who may change it.
    pub owner: Owner,
    /// `None` until the edge has opened the port.
    pub relayed: Option<RelayAddr>,
    /// Family of the relayed address.
    pub family: Family,
    /// When that address ends, unless refreshed.
    pub expires_ms: u64,
    /// An address of the other family.
    pub second: Second,
    /// Its ports were to be even.
    pub is_even: bool,
    /// When it ends in spite of all refreshes; `u64::MAX` for never.
    pub session_ends_ms: u64,
    /// When the queue of expiries looks at it next, at or before its end; `None` until then.
    pub deadline_ms: Option<u64>,
    /// Of the Allocate, so that its retransmission gets the same answer.
    pub transaction_id: TransactionId,
    /// Lifetime that the Allocate was granted.
    pub granted_s: u32,
    /// Names the next port, if it was reserved.
    pub reserved: Option<ReservationToken>,
    /// When its client was last heard of, in seconds of the monotonic clock.
    pub heard_s: u32,
    /// Another allocation of its user has given way to it already.
    pub has_replaced: bool,
    /// What it carried.
    pub carried: Carried,
    /// Errors of the network that its client may yet be told.
    pub icmp: Ration,
    /// What it used of its bit rate, by [`Direction`].
    used: [Used; 2],
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
    /// Of peers without a channel, [`FLOWS_MAX`] at most: most clients use channels alone, so each
    /// is made with its first payload.
    flows: Vec<Flow>,
}

/// Lets one peer address through, whatever its port (RFC 8656 §9).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permission {
    ip: IpAddr,
    expires_ms: u64,
    standing: Standing,
}

/// A peer with a number (RFC 8656 §12).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub number: ChannelNumber,
    expires_ms: u64,
    pub flow: Flow,
    judged: Judged,
}

impl Channel {
    pub fn is_live(&self, now: Now) -> bool {
        now.mono_ms < self.expires_ms
    }

    /// Whether the policy of now lets its peer be reached; one that has come to forbid it does
    /// not end the channel, as the next may allow it again.
    pub fn is_allowed(&mut self, rules: Rules<'_>) -> bool {
        self.judged.still_allows(self.flow.peer, &mut self.flow.relay, rules)
    }
}

/// When payload last went to a peer and came from it; STUN does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub peer: SocketAddr,
    /// The peer is another allocation of this server.
    pub relay: Option<RelayAddr>,
    to_s: Option<u32>,
    from_s: Option<u32>,
}

impl Flow {
    pub fn new(peer: SocketAddr, relay: Option<RelayAddr>) -> Self {
        Self { peer, relay, to_s: None, from_s: None }
    }

    pub fn saw(&mut self, now: Now, direction: Direction) {
        match direction {
            Direction::ToPeer => self.to_s = Some(now.second()),
            Direction::FromPeer => self.from_s = Some(now.second()),
        }
    }

    /// Payload went both ways within [`CARRYING_S`].
    pub fn is_carrying(&self, now: Now) -> bool {
        let recent =
            |at: Option<u32>| at.is_some_and(|at| now.second().saturating_sub(at) <= CARRYING_S);
        recent(self.to_s) && recent(self.from_s)
    }

    fn last_s(&self) -> Option<u32> {
        self.to_s.max(self.from_s)
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    ToPeer,
    FromPeer,
}

impl Allocation {
    /// An allocation whose port is yet to be opened.
    pub fn new(
        client: ClientAddr,
        owner: Owner,
        family: Family,
        granted_s: u32,
        transaction_id: TransactionId,
        reserved: Option<ReservationToken>,
        now: Now,
    ) -> Self {
        Self {
            client,
            owner,
            relayed: None,
            family,
            expires_ms: now.after_s(granted_s),
            second: Second::None,
            is_even: false,
            session_ends_ms: u64::MAX,
            deadline_ms: None,
            transaction_id,
            granted_s,
            reserved,
            heard_s: now.second(),
            has_replaced: false,
            carried: Carried::default(),
            icmp: Ration::default(),
            used: [Used::default(); 2],
            permissions: Vec::new(),
            channels: Vec::new(),
            flows: Vec::new(),
        }
    }

    pub fn is_live(&self, now: Now) -> bool {
        now.mono_ms < self.expires_ms || self.second.is_live(now)
    }

    /// Installs or refreshes permissions for all of `peers`, or none if there is no room.
    pub fn permit(
        &mut self,
        now: Now,
        peers: &[IpAddr],
        rules: Rules<'_>,
        limit: usize,
    ) -> Result<(), Invalid> {
        self.permissions.retain(|permission| now.mono_ms < permission.expires_ms);
        let expires_ms = now.mono_ms + PERMISSION_LIFETIME_MS;
        let room = limit.saturating_sub(self.permissions.len());
        // Holds at most `room`, however long the request is.
        let mut new: Vec<Permission> = Vec::new();
        for &ip in peers {
            if self.permissions.iter().chain(&new).any(|permission| permission.ip == ip) {
                continue;
            }
            if new.len() == room {
                return Err(NO_CAPACITY);
            }
            new.push(Permission { ip, expires_ms, standing: Standing::of(ip, rules) });
        }
        let known = self.permissions.iter_mut();
        for permission in known.filter(|it| peers.contains(&it.ip)) {
            permission.expires_ms = expires_ms;
        }
        self.permissions.reserve_exact(new.len());
        self.permissions.append(&mut new);
        Ok(())
    }

    /// Whether the address has a live permission, whatever the policy of now says of it.
    pub fn is_permitted(&self, now: Now, ip: IpAddr) -> bool {
        self.permissions.iter().any(|it| it.ip == ip && now.mono_ms < it.expires_ms)
    }

    /// How far the live permission for this address reaches under the policy of now.
    pub fn permission(
        &mut self,
        now: Now,
        ip: IpAddr,
        rules: Rules<'_>,
    ) -> Result<Reach, DropReason> {
        let mut live = self.permissions.iter_mut().filter(|it| now.mono_ms < it.expires_ms);
        let permission = live.find(|it| it.ip == ip).ok_or(DropReason::NoPermission)?;
        permission.standing.reach(ip, rules)
    }

    /// Binds or refreshes a channel and permits its peer (RFC 8656 §12.2): both or neither.
    pub fn bind(
        &mut self,
        now: Now,
        number: ChannelNumber,
        flow: Flow,
        rules: Rules<'_>,
        limits: Limits,
    ) -> Result<(), Invalid> {
        let kept_ms = if limits.strict_channels { CHANNEL_QUARANTINE_MS } else { 0 };
        self.channels.retain(|channel| now.mono_ms < channel.expires_ms + kept_ms);
        let is_pair = |it: &Channel| it.number == number && it.flow.peer == flow.peer;
        let is_half = |it: &Channel| it.number == number || it.flow.peer == flow.peer;
        let bound = self.channels.iter().position(is_pair);
        if bound.is_none() && self.channels.iter().any(is_half) {
            return Err(BAD_REQUEST);
        }
        let live = self.channels.iter().filter(|channel| channel.is_live(now)).count();
        let is_more = bound.is_none_or(|at| !self.channels[at].is_live(now));
        if is_more && (live >= limits.channels_max || self.channels.len() >= CHANNELS_KEPT_MAX) {
            return Err(NO_CAPACITY);
        }
        self.permit(now, &[flow.peer.ip()], rules, limits.permissions_max)?;
        let expires_ms = now.mono_ms + CHANNEL_LIFETIME_MS;
        match bound.and_then(|at| self.channels.get_mut(at)) {
            Some(channel) => channel.expires_ms = expires_ms,
            None => {
                self.channels.reserve_exact(1);
                let flow = self.take_flow(flow.peer).unwrap_or(flow);
                let judged = Judged::allowed(rules);
                self.channels.push(Channel { number, expires_ms, flow, judged });
            }
        }
        Ok(())
    }

    /// The channel of this number, or why nothing goes through it.
    #[inline]
    pub fn live_channel(
        &mut self,
        now: Now,
        number: ChannelNumber,
        rules: Rules<'_>,
    ) -> Result<&mut Channel, DropReason> {
        if !self.is_live(now) {
            return Err(DropReason::Expired);
        }
        if rules.strict && !self.channel_is_permitted(now, number) {
            return Err(DropReason::NoPermission);
        }
        let ended = self.ended_family(now);
        let channel = self.channels.iter_mut().find(|channel| channel.number == number);
        let channel = channel.ok_or(DropReason::NoChannel)?;
        let is_ended = |family: Family| Family::of(&channel.flow.peer.ip()) == family;
        if !channel.is_live(now) || ended.is_some_and(is_ended) {
            return Err(DropReason::Expired);
        }
        if channel.is_allowed(rules) { Ok(channel) } else { Err(DropReason::PeerDenied) }
    }

    /// The live channel of this peer.
    pub fn channel_of(&mut self, now: Now, peer: SocketAddr) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|it| it.flow.peer == peer && it.is_live(now))
    }

    /// Whether the peer of this number has a permission, or there is no such number.
    #[inline(never)] // few relays are strict
    fn channel_is_permitted(&self, now: Now, number: ChannelNumber) -> bool {
        let bound = self.channels.iter().find(|channel| channel.number == number);
        bound.is_none_or(|channel| self.is_permitted(now, channel.flow.peer.ip()))
    }

    /// Whether so many bytes of payload are within the allocation's rate; if so, they are charged.
    #[inline]
    pub fn may_pass(
        &mut self,
        now: Now,
        direction: Direction,
        rate: Option<Rate>,
        bytes: usize,
    ) -> bool {
        let [to_peer, from_peer] = &mut self.used;
        let used = match direction {
            Direction::ToPeer => to_peer,
            Direction::FromPeer => from_peer,
        };
        rate.is_none_or(|rate| used.take(now, rate, bytes))
    }

    /// The record of a peer without a channel; the one idle for longest makes room.
    pub fn flow(&mut self, peer: SocketAddr, relay: Option<RelayAddr>) -> &mut Flow {
        let known = self.flows.iter().position(|flow| flow.peer == peer);
        let at = known.unwrap_or_else(|| {
            if self.flows.len() == FLOWS_MAX {
                let idle = (0..FLOWS_MAX).min_by_key(|at| self.flows[*at].last_s());
                self.flows.swap_remove(idle.unwrap_or(0));
            }
            self.flows.reserve_exact(1);
            self.flows.push(Flow::new(peer, relay));
            self.flows.len() - 1
        });
        &mut self.flows[at]
    }

    /// Live permissions and channels.
    pub fn live_counts(&self, now: Now) -> (usize, usize) {
        let served = |ip: IpAddr| self.serves(now, Family::of(&ip));
        let permissions = self.permissions.iter().filter(|it| now.mono_ms < it.expires_ms);
        let channels = self.channels.iter().filter(|channel| channel.is_live(now));
        let permissions = permissions.filter(|it| served(it.ip)).count();
        (permissions, channels.filter(|it| served(it.flow.peer.ip())).count())
    }

    /// The peers that payload goes to and comes from.
    pub fn carrying(&self, now: Now) -> impl Iterator<Item = &Flow> {
        let live = self.channels.iter().filter(move |channel| channel.is_live(now));
        let bound = live.map(|channel| &channel.flow);
        let flows = bound.chain(&self.flows);
        let flows = flows.filter(move |flow| self.serves(now, Family::of(&flow.peer.ip())));
        flows.filter(move |flow| flow.is_carrying(now))
    }

    /// Removes everything about peers of one family.
    pub fn forget_peers(&mut self, family: Family) {
        let is_other = |ip: IpAddr| Family::of(&ip) != family;
        self.permissions.retain(|permission| is_other(permission.ip));
        self.channels.retain(|channel| is_other(channel.flow.peer.ip()));
        self.flows.retain(|flow| is_other(flow.peer.ip()));
    }

    /// Removes the record of a peer that gets a channel, so that it is not counted twice.
    fn take_flow(&mut self, peer: SocketAddr) -> Option<Flow> {
        let at = self.flows.iter().position(|flow| flow.peer == peer)?;
        Some(self.flows.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of them lie in a small machine's memory. A channel and a permission are what most
    /// have; an index entry for client and relayed address comes on top.
    #[test]
    fn allocation_with_a_channel_is_small() {
        let bytes = size_of::<Allocation>() + size_of::<Channel>() + size_of::<Permission>();
        assert!(bytes <= 584, "{bytes} bytes");
    }
}
