//! The model's half that answers requests (RFC 8489 §9.2.4, RFC 8656 §5 to §12).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use relay_proto::auth::{AuthFailure, ExpiryMode};
use relay_proto::credential::{self, LongTermKey};
use relay_proto::{DropReason, Family, Now};

use super::message::{INDICATION, REQUEST, Stun};
use super::model::{Allocation, Answer, Expected, Farewell, Fate, Model, Seal, Who, is_forbidden};
use super::scene::{LISTENER_PORT, REALM, Reach, SECRETS, STUN_PORT, canonical, is_own, reach};

pub const BINDING: u16 = 0x001;
pub const ALLOCATE: u16 = 0x003;
pub const REFRESH: u16 = 0x004;
pub const SEND: u16 = 0x006;
pub const CREATE_PERMISSION: u16 = 0x008;
pub const CHANNEL_BIND: u16 = 0x009;

/// Who a request was proved to be from.
struct Proven {
    username: String,
    seal: Seal,
}

impl Model {
    /// A datagram from a client, on the second STUN port if `stun_only`.
    pub fn from_client<'b>(
        &mut self,
        now: Now,
        from: Who,
        bytes: &'b [u8],
        stun_only: bool,
    ) -> (Fate<'b>, Expected) {
        let mut out = Expected::default();
        let kind = bytes.first().map(|byte| byte >> 6);
        if kind == Some(1) && !stun_only {
            return (self.client_media(now.mono_ms, from, bytes), out);
        }
        let Some(stun) = Stun::read(bytes) else {
            return (Fate::Drop(DropReason::Malformed), out);
        };
        let fate = match (stun.class, stun.method) {
            (REQUEST, BINDING) => self.binding(now, from, &stun, &mut out),
            _ if stun_only => Fate::Drop(DropReason::Malformed),
            (INDICATION, SEND) => self.send(now.mono_ms, from, &stun),
            (INDICATION, BINDING) => Fate::Control,
            (REQUEST, ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND) => {
                self.request(now, from, &stun, &mut out)
            }
            _ => Fate::Drop(DropReason::Malformed),
        };
        (fate, out)
    }

    fn binding(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
        out: &mut Expected,
    ) -> Fate<'static> {
        if is_nobody(from.0) {
            return Fate::Drop(DropReason::Malformed);
        }
        if from.2 == 0 && !self.budget.allows(now.mono_ms, from.0.ip(), true, None) {
            return Fate::Drop(DropReason::RateLimited);
        }
        let unknown = stun.unknown();
        let answer = if unknown.is_empty() {
            Answer { mapped: Some(from.0), ..Answer::default() }
        } else {
            Answer { code: 420, unknown, ..Answer::default() }
        };
        self.answer(from, stun, answer, out);
        Fate::Control
    }

    fn request(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
        out: &mut Expected,
    ) -> Fate<'static> {
        if is_nobody(from.0) {
            return Fate::Drop(DropReason::Malformed);
        }
        let proven = self.prove(now, from, stun).and_then(|proven| {
            if self.is_revoked(now, user(&proven.username)) {
                return Err((401, Some(AuthFailure::Revoked)));
            }
            self.budget.verified(now.mono_ms, from.0.ip());
            let keeps = stun.method == REFRESH && stun.number(0x000D) != Some(0);
            let ended = self.rules.expiry_mode == ExpiryMode::Refresh
                && keeps
                && has_expired(now, &proven.username);
            if ended { Err((401, Some(AuthFailure::Expired))) } else { Ok(proven) }
        });
        let proven = match proven {
            Ok(proven) => proven,
            Err((code, failure)) => return self.challenge(now, from, stun, code, failure, out),
        };
        out.is_proven = true;
        let seal = Some(proven.seal);
        if let Err(code) = self.perform(now, from, stun, proven, out) {
            let unknown = if code == 420 { stun.unknown() } else { Vec::new() };
            let answer = Answer { code, unknown, seal, ..Answer::default() };
            self.answer(from, stun, answer, out);
        }
        Fate::Control
    }

    fn challenge(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
        code: u16,
        failure: Option<AuthFailure>,
        out: &mut Expected,
    ) -> Fate<'static> {
        if let Some(failure) = failure {
            self.auth_failures[failure.index()] += 1;
        }
        if from.2 == 0 && !self.budget.allows(now.mono_ms, from.0.ip(), false, failure) {
            return Fate::Drop(DropReason::RateLimited);
        }
        let answer = Answer { code, challenges: code != 400, ..Answer::default() };
        self.answer(from, stun, answer, out);
        Fate::Control
    }

    /// RFC 8489 §9.2.4, in its order.
    fn prove(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
    ) -> Result<Proven, (u16, Option<AuthFailure>)> {
        if stun.integrity.is_none() {
            return Err((if stun.len() < 28 { 400 } else { 401 }, None));
        }
        let parts = (stun.value(0x0014), stun.value(0x0015));
        let (Some(realm), Some(nonce)) = parts else { return Err((400, None)) };
        let too_long = realm.len() > 763 || nonce.len() > 763;
        if too_long || !stun.has_whole_integrity() {
            return Err((400, None));
        }
        let unknown = (401, Some(AuthFailure::UnknownUser));
        let is_named = match (stun.value(0x0006), stun.value(0x001E)) {
            (Some(name), None) => name.len() <= 508,
            (None, Some(hash)) => hash.len() == 32,
            _ => false,
        };
        // Clients here name no algorithm: whatever does was damaged on the way.
        if !is_named || stun.value(0x001D).or(stun.value(0x8002)).is_some() {
            return Err((400, None));
        }
        let username = stun.value(0x0006).and_then(|name| std::str::from_utf8(name).ok());
        let Some(username) = username else { return Err(unknown) };
        let farewell = self.farewell(now, from, stun);
        let owner = self.live(now.mono_ms, &from).map(|it| (&it.username, it.seal));
        let owner = owner.or(farewell.map(|it| (&it.username, it.seal)));
        let owner = owner.filter(|(name, _)| *name == username);
        let keys = match owner.map(|(_, (key, _))| vec![key]) {
            Some(key) => key,
            None if username == "static" => self.keys_of(username),
            None => {
                credential::split(username).ok_or(unknown)?;
                if has_expired(now, username) {
                    return Err((401, Some(AuthFailure::Expired)));
                }
                self.keys_of(username)
            }
        };
        let key = keys.into_iter().find(|key| stun.is_signed_by(key));
        let key = key.ok_or((401, Some(AuthFailure::BadMac)))?;
        if !self.knows_nonce(now.mono_ms, from, nonce) {
            return Err((438, Some(AuthFailure::StaleNonce)));
        }
        let seal = (key, !stun.has_sha1);
        Ok(Proven { username: username.to_owned(), seal })
    }

    /// Keys are made once a name: they do not change while a simulation runs.
    pub fn keys_of(&mut self, username: &str) -> Vec<LongTermKey> {
        if let Some(known) = self.keys.get(username) {
            return known.clone();
        }
        let passwords = match username {
            "static" => vec!["pass word".to_owned()],
            _ => SECRETS.map(|secret| credential::password(secret, username)).to_vec(),
        };
        let key = |password: &String| credential::long_term_key(username, REALM, password);
        let keys: Vec<_> = passwords.iter().map(key).collect();
        self.keys.insert(username.to_owned(), keys.clone());
        keys
    }

    /// A nonce is good for 600 s after the 5 s in which it was made, for its client alone.
    pub fn knows_nonce(&self, now_ms: u64, from: Who, nonce: &[u8]) -> bool {
        let made = self.nonces.get(&(from, nonce.to_vec()));
        made.is_some_and(|slot| now_ms / 5_000 - slot <= 120)
    }

    /// The relay gave a client this nonce.
    pub fn learn_nonce(&mut self, now_ms: u64, to: Who, nonce: &[u8]) {
        let slot = now_ms / 5_000;
        if self.nonces.len() > 64 {
            self.nonces.retain(|_, made| slot - *made <= 121);
        }
        self.nonces.insert((to, nonce.to_vec()), slot);
    }

    fn perform(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
        proven: Proven,
        out: &mut Expected,
    ) -> Result<(), u16> {
        if !stun.unknown().is_empty() {
            return Err(420);
        }
        let gives_back = stun.method == REFRESH && stun.number(0x000D) == Some(0);
        let copy = self.farewell(now, from, stun).filter(|_| gives_back);
        if copy.is_some_and(|it| it.username == proven.username) {
            let (lifetime_s, seal) = (Some(0), Some(proven.seal));
            self.answer(from, stun, Answer { lifetime_s, seal, ..Answer::default() }, out);
            return Ok(());
        }
        if self.allocations.get(&from).is_some_and(|it| now.mono_ms >= it.ends_ms) {
            self.end(from, 0, out);
        }
        let allocation = self.allocations.get_mut(&from);
        if allocation.as_ref().is_some_and(|it| user(&it.username) != user(&proven.username)) {
            return Err(441);
        }
        let is_ready = allocation.as_ref().is_some_and(|it| it.relayed.is_some());
        let mut allocation = allocation.filter(|_| is_ready || stun.method == ALLOCATE);
        if let Some(it) = &mut allocation {
            it.heard_s = now.mono_ms / 1_000;
        }
        match (stun.method, allocation) {
            (ALLOCATE, None) => self.allocate(now, from, stun, proven, out),
            (ALLOCATE, Some(it)) if it.id != stun.id => Err(437),
            (ALLOCATE, Some(_)) => {
                self.allocated(from, out);
                Ok(())
            }
            (_, Some(_)) => {
                let seal = Some(proven.seal);
                let answer = match stun.method {
                    REFRESH => self.refresh(now, from, stun, &proven, out)?,
                    CREATE_PERMISSION => self.create_permission(now, from, stun)?,
                    _ => self.channel_bind(now, from, stun)?,
                };
                self.answer(from, stun, Answer { seal, ..answer }, out);
                Ok(())
            }
            _ => Err(437),
        }
    }

    fn allocate(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
        proven: Proven,
        out: &mut Expected,
    ) -> Result<(), u16> {
        match stun.value(0x0019) {
            Some(&[17, _, _, _]) => {}
            Some(&[_, _, _, _]) => return Err(442),
            _ => return Err(400),
        }
        let (even, token) = (stun.value(0x0018), stun.value(0x0022));
        let family = stun.value(0x0017).and_then(|value| value.first());
        if token.is_some() && (even.is_some() || family.is_some()) {
            return Err(400);
        }
        let family = match family {
            None | Some(1) => Family::V4,
            Some(2) => Family::V6,
            Some(_) => return Err(440),
        };
        if self.is_draining {
            return Err(508);
        }
        let granted_s = granted_s(stun.number(0x000D));
        let session_ends_ms =
            self.rules.session_s_max.map_or(u64::MAX, |most| now.mono_ms + u64::from(most) * 1_000);
        let ends_ms = (now.mono_ms + u64::from(granted_s) * 1_000).min(session_ends_ms);
        let allocation = Allocation {
            username: proven.username,
            seal: proven.seal,
            family,
            ends_ms,
            session_ends_ms,
            id: stun.id,
            granted_s: left_s(now, ends_ms),
            reserves: even.is_some_and(|value| value.first().is_some_and(|bits| *bits >= 0x80)),
            relayed: None,
            heard_s: now.mono_ms / 1_000,
            has_replaced: false,
            used_ns: [0; 2],
            icmp: (0, 0),
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
        };
        // The same exchange begins again, so that its goodbye counts once more.
        self.farewells.retain(|who, it| *who != from || it.allocated_by != stun.id);
        self.allocations.insert(from, allocation);
        out.opens.push(from);
        Ok(())
    }

    pub fn allocated(&self, who: Who, out: &mut Expected) {
        let Some(it) = self.allocations.get(&who) else { return };
        let Some(relayed) = it.relayed else { return };
        out.answers.push(Answer {
            to: Some(who),
            method: ALLOCATE,
            id: it.id,
            lifetime_s: Some(it.granted_s),
            relayed: Some(relayed),
            mapped: Some(who.0),
            has_token: it.reserves,
            seal: Some(it.seal),
            ..Answer::default()
        });
    }

    fn refresh(
        &mut self,
        now: Now,
        from: Who,
        stun: &Stun<'_>,
        proven: &Proven,
        out: &mut Expected,
    ) -> Result<Answer, u16> {
        let it = self.allocations.get_mut(&from).ok_or(437u16)?;
        let wanted = [1, 2][it.family.index()];
        if stun.value(0x0017).is_some_and(|value| value.first() != Some(&wanted)) {
            return Err(443);
        }
        let asked_s = stun.number(0x000D);
        if asked_s == Some(0) {
            let allocated_by = it.id;
            self.end(from, 1, out);
            if from.2 == 0 {
                let farewell = Farewell {
                    id: stun.id,
                    allocated_by,
                    username: proven.username.clone(),
                    seal: proven.seal,
                    until_ms: now.mono_ms + 40_000,
                };
                self.farewells.insert(from, farewell);
            }
            return Ok(Answer { lifetime_s: Some(0), ..Answer::default() });
        }
        let ends_ms = now.mono_ms + u64::from(granted_s(asked_s)) * 1_000;
        it.ends_ms = ends_ms.min(it.session_ends_ms);
        Ok(Answer { lifetime_s: Some(left_s(now, it.ends_ms)), ..Answer::default() })
    }

    fn create_permission(&mut self, now: Now, from: Who, stun: &Stun<'_>) -> Result<Answer, u16> {
        let named = stun.attributes.iter().filter(|(kind, _)| *kind == 0x0012);
        let peers: Option<Vec<_>> = named.map(|(_, value)| stun.unxor(value)).collect();
        let peers = peers.filter(|peers| !peers.is_empty()).ok_or(400u16)?;
        // A permission is for an address: port 0 stands for any.
        let is_denied = |peer: &SocketAddr| match peer.port() {
            0 => is_forbidden(*peer, self.is_narrow),
            _ => reach(*peer, self.is_narrow) == Reach::Denied,
        };
        if peers.iter().any(is_denied) {
            return Err(403);
        }
        let it = self.allocations.get_mut(&from).ok_or(437u16)?;
        if peers.iter().any(|peer| Family::of(&peer.ip()) != it.family) {
            return Err(443);
        }
        permit(now, it, &peers, self.rules.permissions_max)?;
        Ok(Answer::default())
    }

    fn channel_bind(&mut self, now: Now, from: Who, stun: &Stun<'_>) -> Result<Answer, u16> {
        let highest = if self.rules.rfc5766_channels { 0x7FFF } else { 0x4FFF };
        let number = stun.number(0x000C).and_then(|value| u16::try_from(value >> 16).ok());
        let number = number.filter(|number| (0x4000..=highest).contains(number));
        let (number, peer) = number.zip(stun.address(0x0012)).ok_or(400u16)?;
        let peer = canonical(peer);
        let it = self.allocations.get_mut(&from).ok_or(437u16)?;
        if reach(peer, self.is_narrow) == Reach::Denied || it.relayed == Some(peer) {
            return Err(403);
        }
        if Family::of(&peer.ip()) != it.family {
            return Err(443);
        }
        // Strict: for five minutes more nobody else gets number or peer (RFC 8656 §12).
        let kept_ms = if self.rules.strict_channels { 300_000 } else { 0 };
        it.channels.retain(|_, (_, ends_ms)| now.mono_ms < *ends_ms + kept_ms);
        if it.channels.iter().any(|(at, (to, _))| (*at == number) != (*to == peer)) {
            return Err(400);
        }
        let mut live = it.channels.iter().filter(|(_, (_, ends_ms))| now.mono_ms < *ends_ms);
        let is_live = live.clone().any(|(at, _)| *at == number);
        if !is_live && live.by_ref().count() >= self.rules.channels_max {
            return Err(508);
        }
        permit(now, it, &[peer], self.rules.permissions_max)?;
        it.channels.insert(number, (peer, now.mono_ms + 600_000));
        Ok(Answer::default())
    }

    pub fn is_revoked(&self, now: Now, user: &str) -> bool {
        self.revoked.iter().any(|(named, until)| named.means(user) && now.unix_s <= *until)
    }

    fn farewell(&self, now: Now, from: Who, stun: &Stun<'_>) -> Option<&Farewell> {
        let farewell = self.farewells.get(&from);
        farewell.filter(|it| it.id == stun.id && now.mono_ms < it.until_ms)
    }

    fn answer(&self, to: Who, stun: &Stun<'_>, answer: Answer, out: &mut Expected) {
        out.answers.push(Answer { to: Some(to), method: stun.method, id: stun.id, ..answer });
    }
}

fn permit(now: Now, it: &mut Allocation, peers: &[SocketAddr], most: usize) -> Result<(), u16> {
    it.forget_ended(now.mono_ms);
    let mut wanted = it.permissions.clone();
    let named = peers.iter().map(|peer| canonical(*peer).ip());
    wanted.extend(named.map(|ip| (ip, now.mono_ms + 300_000)));
    if wanted.len() > most.max(it.permissions.len()) {
        return Err(508);
    }
    it.permissions = wanted;
    Ok(())
}

fn granted_s(asked_s: Option<u32>) -> u32 {
    asked_s.unwrap_or(600).clamp(600, 3_600)
}

fn left_s(now: Now, ends_ms: u64) -> u32 {
    u32::try_from((ends_ms - now.mono_ms).div_ceil(1_000)).expect("an hour at most")
}

pub fn has_expired(now: Now, username: &str) -> bool {
    credential::split(username).is_some_and(|(expires, _)| now.unix_s > expires)
}

/// The name without its expiry.
pub fn user(username: &str) -> &str {
    username.split_once(':').map_or(username, |(_, user)| user)
}

/// No client has such a source.
fn is_nobody(from: SocketAddr) -> bool {
    let ip = from.ip();
    let is_many = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
    let is_service = matches!(from.port(), LISTENER_PORT | STUN_PORT) && is_own(ip);
    from.port() == 0 || is_many || is_service
}
