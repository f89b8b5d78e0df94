//! Media: which way a payload goes, with what before it, and what is counted.

use std::net::SocketAddr;

use crate::Now;
use crate::address::ChannelNumber;
use crate::address::{AllocationId, ClientAddr, Family, PeerAddr, RelayAddr, Transport};
use crate::allocation::{Allocation, Direction};
use crate::attribute as attr;
use crate::channel_data;
use crate::relay::{Head, Relay, Verdict};
use crate::request::check_understood;
use crate::shape::Rate;
use crate::standing::{Reach, Rules};
use crate::stun::{self, Message};
use crate::traffic::{DropReason, Traffic};

/// Longest payload of an IPv4 UDP datagram in bytes (RFC 768, RFC 791).
const UDP_PAYLOAD_LEN_MAX: usize = 65_507;

impl Relay {
    /// ChannelData from a client (RFC 8656 §12.6).
    pub(crate) fn channel_data<'b>(
        &mut self,
        now: Now,
        from: ClientAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        let Some((number, payload)) = channel_data::parse(bytes) else {
            return self.refuse(DropReason::Malformed);
        };
        let rules = Rules::of(&self.settings, self.generation);
        let Some((via, allocation)) = self.table.by_client(from) else {
            return self.refuse(DropReason::NoAllocation);
        };
        allocation.heard_s = now.second();
        match allocation.live_channel(now, number, rules) {
            Ok(channel) => {
                if !stun::looks_like_stun(payload) {
                    channel.flow.saw(now, Direction::ToPeer);
                }
                let (peer, relay) = (channel.flow.peer, channel.flow.relay);
                let upward = Upward { via, peer, relay, payload, dont_fragment: false };
                let rate = self.settings.rate_max;
                upward.forward(now, rate, allocation, &mut self.counters.traffic)
            }
            Err(reason) => {
                allocation.carried.refused_from_client(payload.len());
                self.refuse(reason)
            }
        }
    }

    /// A Send indication (RFC 8656 §11.2): no reply, whatever is wrong with it.
    pub(crate) fn send_indication<'b>(
        &mut self,
        now: Now,
        from: ClientAddr,
        message: &Message<'b>,
    ) -> Verdict<'b> {
        let peer = message.attribute(attr::XOR_PEER_ADDRESS).and_then(|it| message.unxor(it));
        let parts = peer.zip(message.attribute(attr::DATA));
        let Some((peer, payload)) = parts.filter(|_| check_understood(message).is_ok()) else {
            return self.refuse(DropReason::Malformed);
        };
        let rules = Rules::of(&self.settings, self.generation);
        let peer = rules.policy.canonical(peer);
        let dont_fragment = wants_df(message, from, peer);
        let Some((via, allocation)) = self.table.by_client(from) else {
            return self.refuse(DropReason::NoAllocation);
        };
        allocation.heard_s = now.second();
        match may_send(rules, allocation, now, peer) {
            Ok(relay) => {
                if !stun::looks_like_stun(payload) {
                    allocation.saw(now, peer, relay, Direction::ToPeer);
                }
                let upward = Upward { via, peer, relay, payload, dont_fragment };
                let rate = self.settings.rate_max;
                upward.forward(now, rate, allocation, &mut self.counters.traffic)
            }
            Err(reason) => {
                allocation.carried.refused_from_client(payload.len());
                self.refuse(reason)
            }
        }
    }

    /// Decides a payload from a peer, which is another allocation of ours if `relay` is given.
    pub(crate) fn forward_to_client<'b>(
        &mut self,
        now: Now,
        at: AllocationId,
        peer: SocketAddr,
        relay: Option<RelayAddr>,
        payload: &'b [u8],
    ) -> Verdict<'b> {
        let rules = Rules::of(&self.settings, self.generation);
        let Some(allocation) = self.table.by_id(at) else {
            return self.refuse(DropReason::NoAllocation);
        };
        allocation.carried.from_peers.add(payload.len());
        let rate = self.settings.rate_max;
        let framed = framing(allocation, now, rules, peer, relay, payload).and_then(|framed| {
            let passes = allocation.may_pass(now, Direction::FromPeer, rate, payload.len());
            passes.then_some(framed).ok_or(DropReason::Shaped)
        });
        match framed {
            Ok(Framing { number, length, pad }) => {
                allocation.carried.to_client.add(payload.len());
                let to = allocation.client;
                let head = match number {
                    Some(number) => Head::channel(number, length),
                    None => Head::data_indication(self.indication_id(), peer, length, pad),
                };
                let total = head.as_bytes().len() + payload.len() + usize::from(pad);
                self.client_tx(to).add(total);
                Verdict::ToClient { via: at, to, head, payload, pad }
            }
            Err(reason) => {
                allocation.carried.to_client_dropped.add(payload.len());
                self.refuse(reason)
            }
        }
    }

    /// A transaction id for a Data indication, where nobody answers: unique is enough.
    pub(crate) fn indication_id(&mut self) -> stun::TransactionId {
        self.drawn = self.drawn.wrapping_add(1);
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.seed[8..12]);
        id[4..].copy_from_slice(&self.drawn.to_be_bytes());
        id
    }
}

/// A payload that a client may send to a peer.
struct Upward<'b> {
    via: AllocationId,
    peer: SocketAddr,
    /// The allocation of this server that the peer is, if it is one.
    relay: Option<RelayAddr>,
    payload: &'b [u8],
    dont_fragment: bool,
}

impl<'b> Upward<'b> {
    /// Counts it and sends it on, if it is within the rate.
    #[inline]
    fn forward(
        self,
        now: Now,
        rate: Option<Rate>,
        allocation: &mut Allocation,
        traffic: &mut Traffic,
    ) -> Verdict<'b> {
        let Self { via, peer, relay, payload, dont_fragment } = self;
        allocation.carried.from_client.add(payload.len());
        if !allocation.may_pass(now, Direction::ToPeer, rate, payload.len()) {
            allocation.carried.to_peers_dropped.add(payload.len());
            traffic.dropped[DropReason::Shaped.index()] += 1;
            return Verdict::Drop(DropReason::Shaped);
        }
        let family = Family::of(&peer.ip());
        if let Some(to) = relay
            && let Some(from) = allocation.relayed_of(family)
        {
            allocation.carried.to_relay.add(payload.len());
            return Verdict::Hairpin { via, from, to, payload };
        }
        allocation.carried.to_peers.add(payload.len());
        traffic.peer.tx[family.index()].add(payload.len());
        Verdict::ToPeer { via, to: PeerAddr(peer), payload, dont_fragment }
    }
}

impl Allocation {
    fn saw(&mut self, now: Now, peer: SocketAddr, relay: Option<RelayAddr>, direction: Direction) {
        let flow = match self.channel_of(now, peer) {
            Some(channel) => &mut channel.flow,
            None => self.flow(peer, relay),
        };
        flow.saw(now, direction);
    }
}

/// Whether DF is to be set: asked for, and neither leg is IPv6 (RFC 8656 §13, §14, §15).
fn wants_df(message: &Message<'_>, from: ClientAddr, peer: SocketAddr) -> bool {
    let translates = from.transport == Transport::Udp && from.remote.is_ipv6();
    peer.is_ipv4() && !translates && message.attribute(attr::DONT_FRAGMENT).is_some()
}

/// Whether a Send indication may go to `peer`, and to which allocation of ours if it is one.
fn may_send(
    rules: Rules<'_>,
    allocation: &mut Allocation,
    now: Now,
    peer: SocketAddr,
) -> Result<Option<RelayAddr>, DropReason> {
    if !allocation.is_live(now) {
        return Err(DropReason::Expired);
    }
    let family = Family::of(&peer.ip());
    let reach = allocation.permission(now, peer.ip(), rules)?;
    if !allocation.serves(now, family) {
        return Err(DropReason::Expired);
    }
    if reach == Reach::AnyPort && peer.port() != 0 {
        return Ok(None);
    }
    rules.way(peer, allocation.relayed_of(family))
}

/// What goes around a payload on its way to the client.
struct Framing {
    /// The peer's channel; without one it is a Data indication.
    number: Option<ChannelNumber>,
    /// Of the payload.
    length: u16,
    /// Zero bytes behind it.
    pad: u8,
}

/// How a payload from `peer` reaches the client: its channel, or a Data indication.
fn framing(
    allocation: &mut Allocation,
    now: Now,
    rules: Rules<'_>,
    peer: SocketAddr,
    relay: Option<RelayAddr>,
    payload: &[u8],
) -> Result<Framing, DropReason> {
    if !allocation.is_live(now) || !allocation.serves(now, Family::of(&peer.ip())) {
        return Err(DropReason::Expired);
    }
    let is_media = !stun::looks_like_stun(payload);
    let length = u16::try_from(payload.len()).map_err(|_| DropReason::TooBig)?;
    let is_permitted = !rules.strict || allocation.is_permitted(now, peer.ip());
    if let Some(channel) = allocation.channel_of(now, peer).filter(|_| is_permitted) {
        if !channel.is_allowed(rules) {
            return Err(DropReason::PeerDenied);
        }
        if payload.len() + channel_data::HEADER_LEN > UDP_PAYLOAD_LEN_MAX {
            return Err(DropReason::TooBig);
        }
        if is_media {
            channel.flow.saw(now, Direction::FromPeer);
        }
        let number = channel.number;
        let pad = match allocation.client.transport {
            Transport::Udp => 0,
            Transport::Tcp | Transport::Tls => padding(payload),
        };
        return Ok(Framing { number: Some(number), length, pad });
    }
    allocation.permission(now, peer.ip(), rules)?;
    if payload.len() + Head::LEN_MAX + 3 > UDP_PAYLOAD_LEN_MAX {
        return Err(DropReason::TooBig);
    }
    if is_media {
        allocation.flow(peer, relay).saw(now, Direction::FromPeer);
    }
    Ok(Framing { number: None, length, pad: padding(payload) })
}

/// 0 to 3 bytes fill a DATA attribute up (RFC 8489 §14), and ChannelData on streams
/// (RFC 8656 §12.5).
fn padding(payload: &[u8]) -> u8 {
    (payload.len().wrapping_neg() % 4) as u8
}
