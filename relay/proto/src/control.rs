//! Requests: everything that asks for an answer, and every answer.

use std::net::{Ipv4Addr, SocketAddr};

use sha2::{Digest as _, Sha256};

use crate::Now;
use crate::address::{AllocationId, ClientAddr, Family, RelayAddr, Transport};
use crate::algorithm::{PASSWORD_ALGORITHMS, Seal};
use crate::allocation::{Allocation, Flow, Limits};
use crate::attribute::{self as attr, ReservationToken};
use crate::auth::{
    AuthFailure, Authenticated, ExpiryMode, Owner, Refusal, authenticate, offers_algorithms,
    user_of,
};
use crate::dual::Second;
use crate::limit::Kind;
use crate::relay::{Closed, PortFailure, Queued, Relay, Verdict};
use crate::request::{
    self, ALLOCATION_MISMATCH, Allocate, FAMILY_MISMATCH, FORBIDDEN, Invalid, PortWish, Refresh,
    WRONG_CREDENTIALS,
};
use crate::standing::Rules;
use crate::stun::{Class, Message, Method, Writer};
use crate::traffic::DropReason;

impl Relay {
    /// A STUN message on a listener.
    pub(crate) fn stun<'b>(&mut self, now: Now, from: ClientAddr, bytes: &'b [u8]) -> Verdict<'b> {
        let Ok(message) = Message::parse(bytes) else {
            return self.refuse(DropReason::Malformed);
        };
        match (message.class, message.method) {
            (Class::Indication, Some(Method::Send)) => self.send_indication(now, from, &message),
            // A client that keeps its NAT open this way wants no answer (RFC 8489 §6.3.2).
            (Class::Indication, Some(Method::Binding)) => Verdict::Control,
            (Class::Request, Some(Method::Binding)) => self.binding(now, from, &message),
            (Class::Request, Some(method)) if !matches!(method, Method::Send | Method::Data) => {
                self.request(now, from, method, &message)
            }
            _ => self.refuse(DropReason::Malformed),
        }
    }

    /// Binding (RFC 8489 §6.3.1): which address do you see?
    pub(crate) fn binding(
        &mut self,
        now: Now,
        from: ClientAddr,
        message: &Message<'_>,
    ) -> Verdict<'static> {
        let asked = message.class == Class::Request && message.method == Some(Method::Binding);
        if !asked || self.is_no_client(from) {
            return self.refuse(DropReason::Malformed);
        }
        if !self.may_answer(now, from, Kind::Binding) {
            return self.refuse(DropReason::RateLimited);
        }
        match request::check_understood(message) {
            Ok(()) => self.succeed(from, Method::Binding, message, None, |reply| {
                reply.xor_address(attr::XOR_MAPPED_ADDRESS, from.remote)
            }),
            Err(invalid) => self.fail(from, Method::Binding, message, invalid, None),
        }
        Verdict::Control
    }

    /// The port that an allocation waits for is open; `relayed` is what the client is told.
    ///
    /// An id that is gone by now leaves a port that nobody wants: the effect to close it follows.
    pub fn port_opened(&mut self, id: AllocationId, relayed: RelayAddr) {
        if self.table.open(id, relayed).is_none() {
            let family = Family::of(&relayed.0.ip());
            self.effects.push_back(Queued::ClosePort { id, family });
        } else if !self.asks_for_second(id) {
            self.complete(id);
        }
    }

    /// Every port that the allocation waited for is answered for.
    pub(crate) fn complete(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.by_id(id) else { return };
        let transport = allocation.client.transport.index();
        self.watch(id);
        self.counters.allocations_opened[transport] += 1;
        self.answer_allocate(id);
    }

    /// The port that an allocation waits for cannot be had.
    ///
    /// If it is for the user's quota, a silent allocation of the user gives way to it, once: then
    /// the port is asked for again, behind the effect that closes the other.
    pub fn port_failed(&mut self, id: AllocationId, why: PortFailure) {
        if why == PortFailure::Quota && self.replace_silent(id) {
            return;
        }
        let Err(why) = self.goes_without(id, why) else { return };
        let Some(allocation) = self.table.remove(id) else { return };
        let code = why.code();
        let to = allocation.client;
        self.count_request(Method::Allocate, code);
        let mut bytes = self.buffers.pop().unwrap_or_default();
        Writer::new(&mut bytes, Method::Allocate, Class::Error, allocation.transaction_id)
            .error_code(code)
            .seal(&allocation.owner.seal)
            .finish();
        self.reply(to, bytes);
    }

    /// A request that needs a user, checked in the order of RFC 8489 §9.2.4 and RFC 8656 §5.
    fn request(
        &mut self,
        now: Now,
        from: ClientAddr,
        method: Method,
        message: &Message<'_>,
    ) -> Verdict<'static> {
        if self.is_no_client(from) {
            return self.refuse(DropReason::Malformed);
        }
        let allocation = self.table.by_client(from).filter(|(_, it)| it.is_live(now));
        let owner = allocation.map(|(_, allocation)| &allocation.owner);
        let owner = owner.or_else(|| self.farewells.owner(now, from, message.transaction_id()));
        let credentials = &self.settings.credentials;
        match authenticate(credentials, &mut self.nonces, owner, now, from, message) {
            Err(refusal) => self.challenge(now, from, method, message, refusal),
            Ok(proven) => {
                if self.revocations.cover(now, user_of(&proven.username)) {
                    let refusal = Refusal::failed(AuthFailure::Revoked);
                    return self.challenge(now, from, method, message, refusal);
                }
                self.limit.verified(now, from.remote.ip());
                if self.ends_refreshes(now, method, &proven) {
                    let refusal = Refusal::failed(AuthFailure::Expired);
                    return self.challenge(now, from, method, message, refusal);
                }
                let seal = proven.seal;
                if let Err(invalid) = self.perform(now, from, method, proven) {
                    self.fail(from, method, message, invalid, Some(&seal));
                }
                Verdict::Control
            }
        }
    }

    /// Whether the credential's expiry forbids this Refresh; giving back is always allowed.
    fn ends_refreshes(
        &self,
        now: Now,
        method: Method,
        proven: &Authenticated<Message<'_>>,
    ) -> bool {
        self.settings.expiry_mode == ExpiryMode::Refresh
            && method == Method::Refresh
            && !gives_back(&proven.request)
            && self.settings.credentials.has_expired(now, &proven.username)
    }

    fn perform(
        &mut self,
        now: Now,
        from: ClientAddr,
        method: Method,
        proven: Authenticated<Message<'_>>,
    ) -> Result<(), Invalid> {
        request::check_understood(&proven.request)?;
        if method == Method::Refresh && self.has_given_back(now, from, &proven) {
            self.answer_refresh(from, &proven, 0);
            return Ok(());
        }
        if let Some((id, it)) = self.table.by_client(from)
            && it.next_end_ms() <= now.mono_ms
        {
            self.end_due(now, id);
        }
        let id = match self.table.by_client(from) {
            Some((_, it)) if user_of(&it.owner.username) != user_of(&proven.username) => {
                return Err(WRONG_CREDENTIALS);
            }
            // Before its success there is an allocation for nobody but its retransmission.
            Some((_, it)) if !it.is_ready() && method != Method::Allocate => None,
            Some((id, it)) => {
                it.heard_s = now.second();
                Some(id)
            }
            None => None,
        };
        match (method, id) {
            (Method::Allocate, Some(id)) => self.allocate_again(id, &proven),
            (Method::Allocate, None) => self.allocate(now, from, proven),
            (_, None) => Err(ALLOCATION_MISMATCH),
            (Method::Refresh, Some(id)) => self.refresh(now, id, &proven),
            (Method::CreatePermission, Some(id)) => self.create_permission(now, id, &proven),
            (_, Some(id)) => self.channel_bind(now, id, &proven),
        }
    }

    /// Allocate (RFC 8656 §7.2): the reply waits for the port.
    fn allocate(
        &mut self,
        now: Now,
        from: ClientAddr,
        proven: Authenticated<Message<'_>>,
    ) -> Result<(), Invalid> {
        let transaction_id = proven.request.transaction_id();
        let asked = Allocate::parse(&proven.request)?;
        self.refuse_if_draining(from)?;
        let reserved = (asked.even_port == Some(true)).then(|| self.draw_token());
        let wish = match (asked.token, reserved, asked.even_port) {
            (Some(token), ..) => PortWish::Reserved(token),
            (None, Some(token), _) => PortWish::EvenAndNext(token),
            (None, None, Some(_)) => PortWish::Even,
            (None, None, None) => PortWish::Any,
        };
        let username = proven.username.to_string();
        let owner = Owner { username: proven.username, seal: proven.seal };
        let (family, lifetime_s) = (asked.family, asked.lifetime_s);
        let mut allocation =
            Allocation::new(from, owner, family, lifetime_s, transaction_id, reserved, now);
        if let Some(session_s_max) = self.settings.session_s_max {
            allocation.session_ends_ms = now.after_s(session_s_max);
            allocation.granted_s = allocation.extend(now, lifetime_s, None);
        }
        if asked.additional {
            allocation.second = Second::Wanted;
            allocation.is_even = wish == PortWish::Even;
        }
        self.farewells.begins(from, transaction_id);
        let id = self.table.insert(allocation);
        let (client, is_second) = (from, false);
        self.effects.push_back(Queued::OpenPort { id, family, wish, username, client, is_second });
        Ok(())
    }

    /// A second Allocate: a retransmission gets the first one's answer (RFC 8656 §7.2).
    fn allocate_again(
        &mut self,
        id: AllocationId,
        proven: &Authenticated<Message<'_>>,
    ) -> Result<(), Invalid> {
        let first = self.table.by_id(id).map(|allocation| allocation.transaction_id);
        if first != Some(proven.request.transaction_id()) {
            return Err(ALLOCATION_MISMATCH);
        }
        self.answer_allocate(id);
        Ok(())
    }

    fn answer_allocate(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.by_id(id) else { return };
        if !allocation.is_ready() {
            return;
        }
        let mut bytes = self.buffers.pop().unwrap_or_default();
        let reply =
            Writer::new(&mut bytes, Method::Allocate, Class::Success, allocation.transaction_id);
        let reply = allocation
            .addresses()
            .fold(reply, |reply, relayed| reply.xor_address(attr::XOR_RELAYED_ADDRESS, relayed.0))
            .attribute(attr::LIFETIME, &allocation.granted_s.to_be_bytes())
            .xor_address(attr::XOR_MAPPED_ADDRESS, allocation.client.remote);
        let reply = match &allocation.reserved {
            Some(token) => reply.attribute(attr::RESERVATION_TOKEN, token),
            None => reply,
        };
        let reply = match &allocation.second {
            Second::Refused(family, why) => reply.address_error_code(*family, why.code()),
            _ => reply,
        };
        reply.seal(&allocation.owner.seal).finish();
        let to = allocation.client;
        self.count_request(Method::Allocate, 0);
        self.reply(to, bytes);
    }

    /// Refresh (RFC 8656 §8.2) of one relayed address or all; a lifetime of 0 closes.
    fn refresh(
        &mut self,
        now: Now,
        id: AllocationId,
        proven: &Authenticated<Message<'_>>,
    ) -> Result<(), Invalid> {
        let allocation = self.table.by_id(id).ok_or(ALLOCATION_MISMATCH)?;
        let asked = Refresh::parse(&proven.request)?;
        if asked.family.is_some_and(|family| allocation.relayed_of(family).is_none()) {
            return Err(FAMILY_MISMATCH);
        }
        let (to, allocated_by) = (allocation.client, allocation.transaction_id);
        let leaves_one = |family: Family| allocation.relayed_of(family.other()).is_some();
        let granted_s = match asked.family {
            Some(family) if asked.lifetime_s == 0 && leaves_one(family) => {
                self.close_address(id, family);
                0
            }
            _ if asked.lifetime_s == 0 => {
                self.close(id, Closed::Released);
                0
            }
            only => {
                let granted_s = allocation.extend(now, asked.lifetime_s, only);
                self.watch(id);
                granted_s
            }
        };
        // Nothing comes twice over a stream.
        if asked.lifetime_s == 0 && to.transport == Transport::Udp {
            let owner = Owner { username: proven.username.clone(), seal: proven.seal };
            let transactions = [allocated_by, proven.request.transaction_id()];
            self.farewells.remember(now, to, transactions, owner);
        }
        self.answer_refresh(to, proven, granted_s);
        Ok(())
    }

    /// Whether this is a copy of the request that gave the client's last allocation back, or an
    /// address of it. It must not end the next one, and its answer is that of the first
    /// (RFC 8656 §8.2 would allow 437).
    fn has_given_back(
        &self,
        now: Now,
        from: ClientAddr,
        proven: &Authenticated<Message<'_>>,
    ) -> bool {
        let owner = self.farewells.owner(now, from, proven.request.transaction_id());
        gives_back(&proven.request) && owner.is_some_and(|it| it.username == proven.username)
    }

    fn answer_refresh(
        &mut self,
        to: ClientAddr,
        proven: &Authenticated<Message<'_>>,
        granted_s: u32,
    ) {
        self.succeed(to, Method::Refresh, &proven.request, Some(&proven.seal), |reply| {
            reply.attribute(attr::LIFETIME, &granted_s.to_be_bytes())
        });
    }

    /// CreatePermission (RFC 8656 §10.2): all of its peers or none.
    fn create_permission(
        &mut self,
        now: Now,
        id: AllocationId,
        proven: &Authenticated<Message<'_>>,
    ) -> Result<(), Invalid> {
        let peers = request::permission_peers(&proven.request)?;
        let rules = Rules::of(&self.settings, self.generation);
        let policy = rules.policy;
        if !peers.iter().all(|peer| policy.permits(*peer)) {
            return Err(FORBIDDEN);
        }
        let allocation = self.table.by_id(id).ok_or(ALLOCATION_MISMATCH)?;
        let is_served = |peer: &SocketAddr| allocation.relayed_of(Family::of(&peer.ip())).is_some();
        if !peers.iter().all(is_served) {
            return Err(FAMILY_MISMATCH);
        }
        let peers: Vec<_> = peers.iter().map(|peer| policy.canonical(*peer).ip()).collect();
        allocation.permit(now, &peers, rules, self.settings.permissions_max)?;
        let to = allocation.client;
        let method = Method::CreatePermission;
        self.succeed(to, method, &proven.request, Some(&proven.seal), |reply| reply);
        Ok(())
    }

    /// ChannelBind (RFC 8656 §12.2), which permits the peer as well.
    fn channel_bind(
        &mut self,
        now: Now,
        id: AllocationId,
        proven: &Authenticated<Message<'_>>,
    ) -> Result<(), Invalid> {
        let (number, peer) =
            request::channel_bind(&proven.request, self.settings.rfc5766_channels)?;
        let rules = Rules::of(&self.settings, self.generation);
        let allocation = self.table.by_id(id).ok_or(ALLOCATION_MISMATCH)?;
        let peer = rules.policy.canonical(peer);
        let family = Family::of(&peer.ip());
        let relay = rules.way(peer, allocation.relayed_of(family)).map_err(|_| FORBIDDEN)?;
        if allocation.relayed_of(family).is_none() {
            return Err(FAMILY_MISMATCH);
        }
        let limits = Limits {
            permissions_max: self.settings.permissions_max,
            channels_max: self.settings.channels_max,
            strict_channels: self.settings.strict_channels,
        };
        allocation.bind(now, number, Flow::new(peer, relay), rules, limits)?;
        let to = allocation.client;
        self.succeed(to, Method::ChannelBind, &proven.request, Some(&proven.seal), |reply| reply);
        Ok(())
    }

    fn succeed(
        &mut self,
        to: ClientAddr,
        method: Method,
        request: &Message<'_>,
        seal: Option<&Seal>,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) {
        self.count_request(method, 0);
        let mut bytes = self.buffers.pop().unwrap_or_default();
        let id = request.transaction_id();
        let reply = fill(Writer::new(&mut bytes, method, Class::Success, id));
        sign(reply, seal).finish();
        self.reply(to, bytes);
    }

    fn fail(
        &mut self,
        to: ClientAddr,
        method: Method,
        request: &Message<'_>,
        invalid: Invalid,
        seal: Option<&Seal>,
    ) {
        let code = match invalid {
            Invalid::Code(code) => code,
            Invalid::Unknown(_) => 420,
            Invalid::TryAlternate(_) => 300,
        };
        self.count_request(method, code);
        let mut bytes = self.buffers.pop().unwrap_or_default();
        let reply = Writer::new(&mut bytes, method, Class::Error, request.transaction_id());
        let reply = reply.error_code(code);
        let reply = match invalid {
            Invalid::Code(_) => reply,
            Invalid::Unknown(unknown) => {
                let list: Vec<u8> = unknown.into_iter().flat_map(u16::to_be_bytes).collect();
                reply.attribute(attr::UNKNOWN_ATTRIBUTES, &list)
            }
            Invalid::TryAlternate(server) => reply.address(attr::ALTERNATE_SERVER, server),
        };
        sign(reply, seal).finish();
        self.reply(to, bytes);
    }

    /// 400, 401 or 438, within the source's budget; the last two say how to do better
    /// (RFC 8489 §9.2.4).
    fn challenge(
        &mut self,
        now: Now,
        to: ClientAddr,
        method: Method,
        request: &Message<'_>,
        refusal: Refusal,
    ) -> Verdict<'static> {
        if let Some(failure) = refusal.failure {
            self.counters.auth_failures[failure.index()] += 1;
        }
        if !self.may_answer(now, to, Kind::Refusal(refusal.failure)) {
            return self.refuse(DropReason::RateLimited);
        }
        self.count_request(method, refusal.code);
        let mut bytes = self.buffers.pop().unwrap_or_default();
        let reply = Writer::new(&mut bytes, method, Class::Error, request.transaction_id());
        let reply = reply.error_code(refusal.code);
        let credentials = &self.settings.credentials;
        let reply = if matches!(refusal.code, 401 | 438) {
            let nonce = self.nonces.make(now, to, credentials.allows_anonymity());
            reply
                .attribute(attr::REALM, credentials.realm().as_bytes())
                .attribute(attr::NONCE, nonce.as_bytes())
        } else {
            reply
        };
        let reply = if matches!(refusal.code, 401 | 438) && offers_algorithms(to.transport) {
            reply.attribute(attr::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS)
        } else {
            reply
        };
        reply.finish();
        self.reply(to, bytes);
        Verdict::Control
    }

    pub(crate) fn reply(&mut self, to: ClientAddr, bytes: Vec<u8>) {
        self.client_tx(to).add(bytes.len());
        self.effects.push_back(Queued::Reply { to, bytes });
    }

    fn count_request(&mut self, method: Method, code: u16) {
        *self.counters.requests.entry((method, code)).or_default() += 1;
    }

    /// Whether an unverified source has a reply left. Over a stream it is no stranger's: who reads
    /// there has asked, and would not ask again.
    fn may_answer(&mut self, now: Now, to: ClientAddr, kind: Kind) -> bool {
        to.transport != Transport::Udp || self.limit.allows(now, to.remote.ip(), kind)
    }

    /// A source that no client has: answering it would be a loop, or go nowhere.
    fn is_no_client(&self, from: ClientAddr) -> bool {
        let (ip, port) = (from.remote.ip(), from.remote.port());
        let policy = &self.settings.policy;
        let is_many = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
        port == 0 || is_many || (policy.service_ports.contains(&port) && policy.is_own(ip))
    }

    /// Eight bytes that nobody can foresee without the seed.
    fn draw_token(&mut self) -> ReservationToken {
        self.drawn = self.drawn.wrapping_add(1);
        let hash = Sha256::new().chain_update(self.seed).chain_update(self.drawn.to_be_bytes());
        let mut token = ReservationToken::default();
        token.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        token
    }
}

/// Whether a Refresh ends its allocation.
fn gives_back(request: &Message<'_>) -> bool {
    request.attribute(attr::LIFETIME) == Some(&[0; 4])
}

fn sign<'b>(reply: Writer<'b>, seal: Option<&Seal>) -> Writer<'b> {
    match seal {
        Some(seal) => reply.seal(seal),
        None => reply,
    }
}
