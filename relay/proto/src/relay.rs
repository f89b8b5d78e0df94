//! Decides every packet and counts it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;

use crate::Now;
use crate::address::{
    AllocationId, ChannelNumber, ClientAddr, Family, PeerAddr, RelayAddr, Transport,
};
use crate::attribute as attr;
use crate::auth::{AuthFailure, Credentials, ExpiryMode, user_of};
use crate::channel_data;
use crate::farewell::Farewells;
use crate::icmp::IcmpFate;
use crate::limit::Limit;
use crate::nonce::Nonces;
use crate::operator::Alternates;
use crate::policy::PeerPolicy;
use crate::replace::Searches;
use crate::request::PortWish;
use crate::revocation::Revocations;
use crate::shape::Rate;
use crate::standing::Generation;
use crate::stun::{self, Message, Method};
use crate::table::Table;
use crate::traffic::{Count, DropReason, Traffic};

/// Most expiries that one [`Relay::tick`] handles.
pub const TICK_EXPIRIES_MAX: usize = 64;
/// Most void entries in the queue of expiries, beside one for each live allocation.
const STALE_DEADLINES_MAX: usize = 64;

/// What a relay is built from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose credentials are believed.
    pub credentials: Credentials,
    /// Which peers may be reached.
    pub policy: PeerPolicy,
    /// Most live permissions of one allocation.
    pub permissions_max: usize,
    /// Most live channels of one allocation.
    pub channels_max: usize,
    /// What the end of a credential's time ends.
    pub expiry_mode: ExpiryMode,
    /// How long an allocation lives at most in seconds, however often it is refreshed.
    pub session_s_max: Option<u32>,
    /// Channel numbers 0x5000 to 0x7FFF may be bound too, as RFC 5766 allowed.
    pub rfc5766_channels: bool,
    /// A channel passes only while its peer has a permission too, and neither its number nor its
    /// peer can be bound to another for five minutes after it (RFC 8656 §12).
    pub strict_channels: bool,
    /// Most payload of one allocation, each way for itself; `None` is without limit.
    pub rate_max: Option<Rate>,
}

/// Entropy, handed in by whoever has some.
#[derive(Clone)]
pub struct Keys {
    /// Signs nonces; the same for all workers of a server.
    pub nonce: [u8; 32],
    /// For all that must not be foreseen; another for each worker.
    pub seed: [u8; 32],
}

/// What happens to a datagram.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict<'b> {
    /// Send `payload` from the allocation's relayed port.
    ToPeer {
        /// The allocation.
        via: AllocationId,
        /// The peer.
        to: PeerAddr,
        /// Its bytes.
        payload: &'b [u8],
        /// The client wants it whole or not at all: DF is to be set (RFC 8656 §14).
        dont_fragment: bool,
    },
    /// Send `head`, `payload` and `pad` zero bytes from the client's listener.
    ToClient {
        /// The allocation.
        via: AllocationId,
        /// The client.
        to: ClientAddr,
        /// What comes before the payload.
        head: Head,
        /// The peer's bytes.
        payload: &'b [u8],
        /// Zero bytes behind it, 0 to 3.
        pad: u8,
    },
    /// Hand `payload` to [`Relay::from_relay`] of the worker that owns the port of `to`.
    Hairpin {
        /// The allocation it comes from.
        via: AllocationId,
        /// Its relayed address.
        from: RelayAddr,
        /// The relayed address it is for.
        to: RelayAddr,
        /// Its bytes.
        payload: &'b [u8],
    },
    /// Nothing to forward; drain the effects.
    Control,
    /// Refused, and counted.
    Drop(DropReason),
}

/// What goes before a payload on its way to the client: 4, 36 or 48 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    bytes: [u8; Self::LEN_MAX],
    length: u8,
}

impl Head {
    /// Length of the longest: a Data indication with an IPv6 peer.
    pub const LEN_MAX: usize = 48;

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(crate) fn channel(number: ChannelNumber, length: u16) -> Self {
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..channel_data::HEADER_LEN].copy_from_slice(&channel_data::header(number, length));
        Self { bytes, length: 4 }
    }

    /// Header, XOR-PEER-ADDRESS and the DATA attribute's header of a Data indication
    /// (RFC 8656 §11.3).
    pub(crate) fn data_indication(
        id: stun::TransactionId,
        peer: SocketAddr,
        length: u16,
        pad: u8,
    ) -> Self {
        const KIND: u16 = 0x0017;
        let (address, address_len) = stun::xor_address(peer, &id);
        let head_len = stun::HEADER_LEN + 4 + address_len + 4;
        let total = head_len - stun::HEADER_LEN + usize::from(length) + usize::from(pad);
        let total = u16::try_from(total).expect("checked against the longest datagram");
        let address_len_field = if address_len == 8 { 8u16 } else { 20 };
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..2].copy_from_slice(&KIND.to_be_bytes());
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[4..8].copy_from_slice(&stun::MAGIC_COOKIE.to_be_bytes());
        bytes[8..20].copy_from_slice(&id);
        bytes[20..22].copy_from_slice(&attr::XOR_PEER_ADDRESS.to_be_bytes());
        bytes[22..24].copy_from_slice(&address_len_field.to_be_bytes());
        // Always as long as an IPv6 address: of an IPv4 one the rest is zero or written over.
        bytes[24..44].copy_from_slice(&address);
        let data = &mut bytes[head_len - 4..head_len];
        data[..2].copy_from_slice(&attr::DATA.to_be_bytes());
        data[2..].copy_from_slice(&length.to_be_bytes());
        Self { bytes, length: if address_len == 8 { 36 } else { 48 } }
    }
}

/// What the edge shall do.
#[derive(Debug, Eq, PartialEq)]
pub enum Effect<'r> {
    /// Send a STUN message.
    Reply {
        /// The client.
        to: ClientAddr,
        /// The message.
        bytes: &'r [u8],
    },
    /// Open a relayed port, then call [`Relay::port_opened`] or [`Relay::port_failed`].
    OpenPort {
        /// The allocation that waits for it.
        id: AllocationId,
        /// Family of the relayed address.
        family: Family,
        /// Which port.
        wish: PortWish,
        /// Whose quota it counts against.
        user: &'r str,
        /// The credential's whole user name.
        username: &'r str,
        /// Where the user asks from.
        client: ClientAddr,
        /// The allocation has a port of the other family, and its quota with it.
        is_second: bool,
    },
    /// Close one of the allocation's ports; its quota returns with the last.
    ClosePort {
        /// The allocation, which may be gone already.
        id: AllocationId,
        /// Which of its ports.
        family: Family,
    },
}

/// Why a port could not be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortFailure {
    /// The user has as many allocations as it may: 486.
    Quota,
    /// No port is free, none has the wanted form, or the host refused: 508.
    Capacity,
    /// This server has no relay address of that family: 440.
    Family,
}

impl PortFailure {
    /// The error code that tells a client (RFC 8656 §19).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Quota => 486,
            Self::Capacity => 508,
            Self::Family => 440,
        }
    }
}

/// Whether [`Relay::tick`] left work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum More {
    /// Call again soon.
    Yes,
    /// Nothing is due.
    No,
}

/// Why an allocation ended; the word is the metric's label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// Nobody refreshed it.
    Expired,
    /// The client gave it back.
    Released,
    /// The client's stream ended (RFC 8656 §5).
    Disconnected,
    /// Its silent client's user needed the place for another.
    Replaced,
    /// The operator ended it.
    Kicked,
}

impl Closed {
    /// Every reason, in the order of a table by reason.
    pub const ALL: [Self; 5] =
        [Self::Expired, Self::Released, Self::Disconnected, Self::Replaced, Self::Kicked];

    /// The label in `relay_allocations_closed_total{reason}`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Disconnected => "disconnected",
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
        }
    }
}

/// Everything a worker knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What was carried and refused since the start.
    pub traffic: Traffic,
    /// Live allocations.
    pub allocations: u64,
    /// Those with payload both ways in the last 10 s.
    pub allocations_carrying: u64,
    /// Links with one end at this relay: the other end is reached by plain UDP.
    pub links_one_sided: u64,
    /// Ends of links whose other end is an allocation of this server too; two ends are one link.
    pub link_ends_two_sided: u64,
    /// Live permissions.
    pub permissions: u64,
    /// Live channels.
    pub channels: u64,
    /// Allocations opened since the start, by [`Transport::index`] of their clients.
    pub allocations_opened: [u64; Transport::ALL.len()],
    /// Allocations ended since the start, in the order of [`Closed::ALL`].
    pub allocations_closed: [u64; Closed::ALL.len()],
    /// Refused credentials since the start, by [`AuthFailure::index`].
    pub auth_failures: [u64; AuthFailure::ALL.len()],
    /// Requests answered since the start, by method and code; 0 is success.
    pub requests: BTreeMap<(Method, u16), u64>,
    /// Errors of the network about payloads since the start, by [`IcmpFate::index`].
    pub icmp_errors: [u64; IcmpFate::ALL.len()],
    /// Allocations whose bytes did not add up when they were closed. A bug if not 0.
    pub conservation_errors: u64,
}

/// One worker's share of a TURN server.
pub struct Relay {
    pub(crate) settings: Settings,
    /// Which policy since the start this is.
    pub(crate) generation: Generation,
    /// Names that the operator revoked.
    pub(crate) revocations: Revocations,
    /// Nobody gets a new allocation here; where else there may be room.
    pub(crate) draining: Option<Alternates>,
    pub(crate) nonces: Nonces,
    /// Replies that unverified sources may still get.
    pub(crate) limit: Limit,
    pub(crate) seed: [u8; 32],
    pub(crate) drawn: u64,
    pub(crate) table: Table,
    pub(crate) farewells: Farewells,
    /// When to look at which allocation; an entry that is not its `deadline_ms` is void.
    deadlines: BinaryHeap<Reverse<(u64, AllocationId)>>,
    pub(crate) effects: VecDeque<Queued>,
    /// The effect that the edge is looking at.
    pub(crate) current: Option<Queued>,
    /// Searches for allocations that give way.
    pub(crate) searches: Searches,
    /// Reply buffers to be used again.
    pub(crate) buffers: Vec<Vec<u8>>,
    /// Counters; gauges are filled in by [`Relay::snapshot`].
    pub(crate) counters: Snapshot,
}

/// An effect as it waits.
#[derive(Debug)]
pub(crate) enum Queued {
    Reply {
        to: ClientAddr,
        bytes: Vec<u8>,
    },
    OpenPort {
        id: AllocationId,
        family: Family,
        wish: PortWish,
        username: String,
        client: ClientAddr,
        is_second: bool,
    },
    ClosePort {
        id: AllocationId,
        family: Family,
    },
}

impl Relay {
    /// A relay without allocations.
    #[must_use]
    pub fn new(settings: Settings, keys: &Keys) -> Self {
        let seed = keys.seed.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        Self {
            settings,
            generation: Generation::default(),
            revocations: Revocations::default(),
            draining: None,
            nonces: Nonces::new(&keys.nonce),
            limit: Limit::new(seed),
            seed: keys.seed,
            drawn: 0,
            table: Table::new(seed),
            farewells: Farewells::new(seed),
            deadlines: BinaryHeap::new(),
            effects: VecDeque::new(),
            current: None,
            searches: Searches::default(),
            buffers: Vec::new(),
            counters: Snapshot::default(),
        }
    }

    /// One more worker of the same server: replies to unverified sources are one budget.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        self.limit = other.limit.clone();
        self
    }

    /// A datagram on a listener (RFC 8656 §11.2, §12.6; requests: RFC 8489 §6.3).
    pub fn from_client<'b>(&mut self, now: Now, from: ClientAddr, bytes: &'b [u8]) -> Verdict<'b> {
        self.count_client_rx(from, bytes);
        match bytes.first().map(|byte| byte >> 6) {
            Some(0b01) => self.channel_data(now, from, bytes),
            Some(0b00) => self.stun(now, from, bytes),
            _ => self.refuse(DropReason::Malformed),
        }
    }

    /// A datagram on the second STUN port, which answers Binding and nothing else.
    pub fn from_stun_client(
        &mut self,
        now: Now,
        from: ClientAddr,
        bytes: &[u8],
    ) -> Verdict<'static> {
        self.count_client_rx(from, bytes);
        match Message::parse(bytes) {
            Ok(message) => self.binding(now, from, &message),
            Err(_) => self.refuse(DropReason::Malformed),
        }
    }

    /// A datagram on a relayed port (RFC 8656 §11.3, §12.7).
    pub fn from_peer<'b>(
        &mut self,
        now: Now,
        at: AllocationId,
        from: PeerAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        let peer = from.0;
        self.counters.traffic.peer.rx[Family::of(&peer.ip()).index()].add(bytes.len());
        if self.settings.policy.is_own_source(peer.ip()) {
            return self.refuse(DropReason::PeerDenied);
        }
        match self.table.by_id(at) {
            Some(_) => self.forward_to_client(now, at, peer, None, bytes),
            None => self.refuse(DropReason::NoAllocation),
        }
    }

    /// A payload from another allocation of this server, which used no socket.
    pub fn from_relay<'b>(
        &mut self,
        now: Now,
        from: RelayAddr,
        to: RelayAddr,
        payload: &'b [u8],
    ) -> Verdict<'b> {
        let Some((at, _)) = self.table.by_relay(to) else {
            return self.refuse(DropReason::RelayPortClosed);
        };
        let verdict = self.forward_to_client(now, at, from.0, Some(from), payload);
        if matches!(verdict, Verdict::ToClient { .. }) {
            self.counters.traffic.hairpin.add(payload.len());
        }
        verdict
    }

    /// Whether a client has an allocation that lives.
    pub fn has_allocation(&mut self, now: Now, client: ClientAddr) -> bool {
        self.table.by_client(client).is_some_and(|(_, allocation)| allocation.is_live(now))
    }

    /// A client's stream holds `bytes` that are no message: it broke off, or is to be closed.
    pub fn stream_broken(&mut self, from: ClientAddr, bytes: &[u8]) {
        self.count_client_rx(from, bytes);
        self.refuse(DropReason::Malformed);
    }

    /// A client's stream carried this many bytes that belong to no message, such as TLS's own.
    pub fn stream_overhead(&mut self, client: ClientAddr, received: usize, sent: usize) {
        self.counters.traffic.stream_overhead(client, received, sent);
    }

    /// A client's stream has ended, and its allocation with it (RFC 8656 §5); drain the effects.
    pub fn client_closed(&mut self, client: ClientAddr) {
        if let Some((id, _)) = self.table.by_client(client) {
            self.close(id, Closed::Disconnected);
        }
    }

    /// The kernel did not take a packet that a verdict sent to the client: it was dropped.
    /// `framing` is the length of head and padding together.
    pub fn unsent_to_client(
        &mut self,
        via: AllocationId,
        to: ClientAddr,
        framing: usize,
        payload: usize,
        reason: DropReason,
    ) {
        self.client_tx(to).take_back(framing + payload);
        if let Some(allocation) = self.table.by_id(via) {
            allocation.carried.to_client.take_back(payload);
            allocation.carried.to_client_dropped.add(payload);
        }
        self.counters.traffic.dropped[reason.index()] += 1;
    }

    /// The kernel did not take a packet that a verdict sent to a peer: it was dropped.
    pub fn unsent_to_peer(
        &mut self,
        via: AllocationId,
        to: PeerAddr,
        payload: usize,
        reason: DropReason,
    ) {
        let family = Family::of(&to.0.ip()).index();
        self.counters.traffic.peer.tx[family].take_back(payload);
        if let Some(allocation) = self.table.by_id(via) {
            allocation.carried.to_peers.take_back(payload);
            allocation.carried.to_peers_dropped.add(payload);
        }
        self.counters.traffic.dropped[reason.index()] += 1;
    }

    /// No worker owns the relayed port that a hairpin was for, or its ring is full.
    pub fn unsent_to_relay(&mut self, via: AllocationId, payload: usize, reason: DropReason) {
        if let Some(allocation) = self.table.by_id(via) {
            allocation.carried.to_relay.take_back(payload);
            allocation.carried.to_peers_dropped.add(payload);
        }
        self.counters.traffic.dropped[reason.index()] += 1;
    }

    /// The kernel did not take a reply.
    pub fn unsent_reply(&mut self, to: ClientAddr, bytes: usize, reason: DropReason) {
        self.client_tx(to).take_back(bytes);
        self.counters.traffic.dropped[reason.index()] += 1;
    }

    /// The kernel threw away so many datagrams before the relay saw them.
    pub fn lost_by_kernel(&mut self, packets: u64) {
        self.counters.traffic.dropped[DropReason::SocketBuffer.index()] += packets;
    }

    /// What is to be done next; call until `None`.
    pub fn next_effect(&mut self) -> Option<Effect<'_>> {
        if let Some(Queued::Reply { bytes, .. }) = self.current.take() {
            self.buffers.push(bytes);
        }
        self.current = self.effects.pop_front();
        Some(match self.current.as_ref()? {
            Queued::Reply { to, bytes } => Effect::Reply { to: *to, bytes },
            Queued::OpenPort { id, family, wish, username, client, is_second } => {
                Effect::OpenPort {
                    id: *id,
                    family: *family,
                    wish: *wish,
                    user: user_of(username),
                    username,
                    client: *client,
                    is_second: *is_second,
                }
            }
            Queued::ClosePort { id, family } => Effect::ClosePort { id: *id, family: *family },
        })
    }

    /// Ends what has expired, at most [`TICK_EXPIRIES_MAX`] a call. Call once a second, and
    /// again soon if there is more.
    pub fn tick(&mut self, now: Now) -> More {
        self.farewells.forget(now);
        for _ in 0..TICK_EXPIRIES_MAX {
            match self.deadlines.peek() {
                Some(Reverse((due_ms, _))) if *due_ms <= now.mono_ms => {}
                _ => return More::No,
            }
            let Some(Reverse((due_ms, id))) = self.deadlines.pop() else { return More::No };
            match self.table.by_id(id).filter(|it| it.deadline_ms == Some(due_ms)) {
                None => {}
                Some(allocation) if now.mono_ms < allocation.next_end_ms() => {
                    allocation.deadline_ms = None;
                    self.watch(id);
                }
                Some(allocation) => {
                    allocation.deadline_ms = None;
                    self.end_due(now, id);
                }
            }
        }
        More::Yes
    }

    /// The counters and gauges of this moment; looks at every allocation once.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut all = self.counters.clone();
        all.allocations = self.table.len() as u64;
        for (_, allocation) in self.table.iter().filter(|(_, it)| it.is_live(now)) {
            let (permissions, channels) = allocation.live_counts(now);
            all.permissions += permissions as u64;
            all.channels += channels as u64;
            let (mut one_sided, mut two_sided) = (0, 0);
            for flow in allocation.carrying(now) {
                *if flow.relay.is_some() { &mut two_sided } else { &mut one_sided } += 1;
            }
            all.links_one_sided += one_sided;
            all.link_ends_two_sided += two_sided;
            all.allocations_carrying += u64::from(one_sided + two_sided > 0);
        }
        all
    }

    pub(crate) fn close(&mut self, id: AllocationId, why: Closed) {
        let Some(allocation) = self.table.remove(id) else { return };
        // Its port may open yet: `port_opened` then finds nobody and closes it.
        for relayed in allocation.addresses() {
            let family = Family::of(&relayed.0.ip());
            self.effects.push_back(Queued::ClosePort { id, family });
        }
        if !allocation.is_ready() {
            return;
        }
        self.counters.conservation_errors += u64::from(!allocation.carried.is_conserved());
        self.counters.allocations_closed[why as usize] += 1;
        self.forget_void_deadlines();
    }

    /// Sees to it that [`Relay::tick`] looks at the allocation no later than it ends.
    pub(crate) fn watch(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.by_id(id) else { return };
        let ends_ms = allocation.next_end_ms();
        // One that ends later than it will be looked at is asked again then.
        if allocation.deadline_ms.is_none_or(|due_ms| ends_ms < due_ms) {
            allocation.deadline_ms = Some(ends_ms);
            self.deadlines.push(Reverse((ends_ms, id)));
            self.forget_void_deadlines();
        }
    }

    /// Void entries would else wait for their time.
    fn forget_void_deadlines(&mut self) {
        if self.deadlines.len() > 2 * self.table.len() + STALE_DEADLINES_MAX {
            self.deadlines.retain(|Reverse((due_ms, id))| {
                self.table.by_id(*id).is_some_and(|it| it.deadline_ms == Some(*due_ms))
            });
        }
    }

    pub(crate) fn refuse(&mut self, reason: DropReason) -> Verdict<'static> {
        self.counters.traffic.dropped[reason.index()] += 1;
        Verdict::Drop(reason)
    }

    fn count_client_rx(&mut self, from: ClientAddr, bytes: &[u8]) {
        let family = Family::of(&from.remote.ip()).index();
        self.counters.traffic.client[from.transport.index()].rx[family].add(bytes.len());
    }

    /// What was sent to clients like this one.
    pub(crate) fn client_tx(&mut self, to: ClientAddr) -> &mut Count {
        let family = Family::of(&to.remote.ip()).index();
        &mut self.counters.traffic.client[to.transport.index()].tx[family]
    }
}
