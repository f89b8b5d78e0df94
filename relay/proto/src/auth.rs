//! Who may ask: nonces, long-term credentials, and the proof that a request passed both.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::Now;
use crate::address::ClientAddr;
use crate::attribute as attr;
use crate::credential::{self, LongTermKey};
use crate::stun::{INTEGRITY_LEN, Message};

/// How long a nonce is good for.
pub const NONCE_LIFETIME_MS: u64 = 600_000;
/// Nonces made within one slot are equal.
const NONCE_SLOT_MS: u64 = 5_000;
/// Length of a nonce in characters.
const NONCE_LEN: usize = 12;
/// A nonce is Base64 of one byte of slot number and eight of a MAC.
const NONCE_RAW_LEN: usize = 9;
/// Shortest request that is answered with 401: its reply is twice as long.
const CHALLENGED_LEN_MIN: usize = 28;

/// A nonce as it stands in a message.
pub type Nonce = [u8; NONCE_LEN];

/// Makes and checks nonces without keeping any: a MAC over client address and time slot.
#[derive(Clone)]
pub struct Nonces {
    keyed: Hmac<Sha256>,
}

impl Nonces {
    /// Nonces that only this key verifies.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { keyed: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    /// The nonce of this moment for this client.
    #[must_use]
    pub fn make(&self, now: Now, client: ClientAddr) -> Nonce {
        self.of_slot(now.mono_ms / NONCE_SLOT_MS, client)
    }

    /// Whether the nonce was made for this client within [`NONCE_LIFETIME_MS`].
    #[must_use]
    pub fn verify(&self, now: Now, client: ClientAddr, nonce: &[u8]) -> bool {
        let mut raw = [0; NONCE_RAW_LEN];
        let Ok(&[slot_byte, ..]) = Base64UrlUnpadded::decode(nonce, &mut raw) else { return false };
        let slot = now.mono_ms / NONCE_SLOT_MS;
        let [newest, ..] = slot.to_le_bytes();
        // The slot meant is the last one that ends in this byte.
        let age = u64::from(newest.wrapping_sub(slot_byte));
        let Some(made) = slot.checked_sub(age) else { return false };
        age <= NONCE_LIFETIME_MS / NONCE_SLOT_MS
            && self.of_slot(made, client).as_slice().ct_eq(nonce).into()
    }

    fn of_slot(&self, slot: u64, client: ClientAddr) -> Nonce {
        let mut mac = self.keyed.clone();
        match client.remote.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.remote.port().to_be_bytes());
        mac.update(&client.listener.to_be_bytes());
        mac.update(client.transport.label().as_bytes());
        mac.update(&slot.to_be_bytes());
        let mut raw = [0; NONCE_RAW_LEN];
        let [newest, ..] = slot.to_le_bytes();
        let bytes = std::iter::once(newest).chain(mac.finalize().into_bytes());
        raw.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let mut nonce = [0; NONCE_LEN];
        Base64UrlUnpadded::encode(&raw, &mut nonce).expect("9 bytes are 12 characters");
        nonce
    }
}

/// Whose credentials are believed. Its debug form names the realm only.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Told to clients in REALM. Above 8 bytes a 401 is longer than twice its request.
    pub realm: String,
    /// Shared secrets of REST credentials; each verifies.
    pub secrets: Vec<Vec<u8>>,
    /// Static users and their passwords.
    pub users: BTreeMap<String, String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Whether the name is a REST name whose time is over; static users have no end.
    pub(crate) fn has_expired(&self, now: Now, username: &str) -> bool {
        let is_over = |(expires, _)| now.unix_s > expires;
        !self.users.contains_key(username) && credential::split(username).is_some_and(is_over)
    }

    /// The keys that `username` may sign with, none if it is unknown or has expired.
    fn keys(&self, now: Now, username: &str) -> Result<Vec<LongTermKey>, AuthFailure> {
        if let Some(password) = self.users.get(username) {
            return Ok(vec![credential::long_term_key(username, &self.realm, password)]);
        }
        credential::split(username).ok_or(AuthFailure::UnknownUser)?;
        if self.has_expired(now, username) {
            return Err(AuthFailure::Expired);
        }
        let key = |secret: &Vec<u8>| credential::rest_key(secret, username, &self.realm);
        Ok(self.secrets.iter().map(key).collect())
    }
}

/// The name that quotas and the 5-tuple's owner go by: without a REST name's expiry, so that a
/// renewed credential is still the same user.
#[must_use]
pub fn user_of(username: &str) -> &str {
    credential::split(username).map_or(username, |(_, user)| user)
}

/// What the end of a credential's time ends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ExpiryMode {
    /// New allocations: one that lives may be refreshed.
    #[default]
    New,
    /// Refreshes too: an allocation ends when its granted lifetime does.
    Refresh,
}

impl FromStr for ExpiryMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "new" => Ok(Self::New),
            "refresh" => Ok(Self::Refresh),
            _ => Err("the modes are new and refresh"),
        }
    }
}

/// Proof that a request is its user's: nothing else changes state.
#[derive(Clone)]
pub struct Authenticated<R> {
    /// What is asked.
    pub request: R,
    /// Who asks, as in USERNAME.
    pub username: String,
    /// What the reply is signed with.
    pub key: LongTermKey,
}

impl<R> Authenticated<R> {
    /// The same proof for a part or another form of the request.
    pub fn map<T>(self, change: impl FnOnce(R) -> T) -> Authenticated<T> {
        Authenticated { request: change(self.request), username: self.username, key: self.key }
    }
}

/// Why a request is not believed; the word is the metric's label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthFailure {
    /// The credential's time is over.
    Expired,
    /// The HMAC is not the user's.
    BadMac,
    /// The nonce is old, another client's or made up.
    StaleNonce,
    /// No such user.
    UnknownUser,
    /// The operator has revoked the user or its room.
    Revoked,
}

impl AuthFailure {
    /// Every failure, in the order of [`AuthFailure::index`].
    pub const ALL: [Self; 5] =
        [Self::Expired, Self::BadMac, Self::StaleNonce, Self::UnknownUser, Self::Revoked];

    /// The label in `relay_auth_failures_total{reason}`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::BadMac => "bad_mac",
            Self::StaleNonce => "stale_nonce",
            Self::UnknownUser => "unknown_user",
            Self::Revoked => "revoked",
        }
    }

    /// Position in a table by failure.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a request is turned away (RFC 8489 §9.2.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// 400, 401 or 438; the last two carry REALM and NONCE.
    pub code: u16,
    /// What counted as a failure; a first request without credentials does not.
    pub failure: Option<AuthFailure>,
}

impl Refusal {
    const fn plain(code: u16) -> Self {
        Self { code, failure: None }
    }

    pub(crate) const fn failed(failure: AuthFailure) -> Self {
        let code = if matches!(failure, AuthFailure::StaleNonce) { 438 } else { 401 };
        Self { code, failure: Some(failure) }
    }
}

/// An allocation's owner, whose key outlives its credential's expiry.
#[derive(Clone)]
pub struct Owner {
    /// As in USERNAME of the Allocate.
    pub username: String,
    /// Signs and verifies for as long as the allocation lives.
    pub key: LongTermKey,
}

/// Checks a request in the order of RFC 8489 §9.2.4; `owner` is the 5-tuple's, if it has one.
///
/// # Errors
/// The reply to be sent: the client's fault, or nobody's where credentials are asked for.
pub fn authenticate<'b>(
    credentials: &Credentials,
    nonces: &Nonces,
    owner: Option<&Owner>,
    now: Now,
    client: ClientAddr,
    message: &Message<'b>,
) -> Result<Authenticated<Message<'b>>, Refusal> {
    let Some(integrity) = message.integrity() else {
        return Err(Refusal::plain(if message.size() < CHALLENGED_LEN_MIN { 400 } else { 401 }));
    };
    let parts = [attr::USERNAME, attr::REALM, attr::NONCE].map(|kind| message.attribute(kind));
    let [Some(username), Some(realm), Some(nonce)] = parts else {
        return Err(Refusal::plain(400));
    };
    let too_long = username.len() > attr::USERNAME_LEN_MAX
        || realm.len() > attr::REALM_LEN_MAX
        || nonce.len() > attr::REALM_LEN_MAX;
    if too_long || integrity.len() != INTEGRITY_LEN {
        return Err(Refusal::plain(400));
    }
    let username =
        std::str::from_utf8(username).map_err(|_| Refusal::failed(AuthFailure::UnknownUser))?;
    let keys = match owner {
        Some(owner) if owner.username == username => vec![owner.key],
        _ => credentials.keys(now, username).map_err(Refusal::failed)?,
    };
    let key = keys.into_iter().find(|key| message.verify(key));
    let key = key.ok_or(Refusal::failed(AuthFailure::BadMac))?;
    if !nonces.verify(now, client, nonce) {
        return Err(Refusal::failed(AuthFailure::StaleNonce));
    }
    Ok(Authenticated { request: *message, username: username.to_owned(), key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Transport;

    fn client(port: u16) -> ClientAddr {
        ClientAddr {
            remote: ([192, 0, 2, 1], port).into(),
            local: None,
            listener: 0,
            transport: Transport::Udp,
        }
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_s: 0 }
    }

    #[test]
    fn nonce_is_good_for_its_client_and_ten_minutes() {
        let nonces = Nonces::new(&[1; 32]);
        for start in [0, 4_999, 1_279_999, 10_000_000_000] {
            let nonce = nonces.make(at(start), client(1));
            assert!(nonces.verify(at(start), client(1), &nonce));
            assert!(nonces.verify(at(start + NONCE_LIFETIME_MS), client(1), &nonce));
            let late = start + NONCE_LIFETIME_MS + NONCE_SLOT_MS;
            assert!(!nonces.verify(at(late), client(1), &nonce));
            // 256 slots later the slot byte is the same again.
            assert!(!nonces.verify(at(start + 256 * NONCE_SLOT_MS), client(1), &nonce));
            assert!(!nonces.verify(at(start), client(2), &nonce));
            assert!(!Nonces::new(&[2; 32]).verify(at(start), client(1), &nonce));
        }
    }

    #[test]
    fn nonce_from_the_future_or_of_another_form_is_refused() {
        let nonces = Nonces::new(&[1; 32]);
        let future = nonces.make(at(NONCE_SLOT_MS * 2), client(1));
        assert!(!nonces.verify(at(0), client(1), &future));
        for bad in [&b""[..], b"short", b"not base64!!", b"AAAAAAAAAAAA", b"AAAAAAAAAAAAAAAA"] {
            assert!(!nonces.verify(at(0), client(1), bad), "{bad:?}");
        }
    }

    #[test]
    fn user_is_the_name_without_its_expiry() {
        assert_eq!(user_of("1700000000:room.peer"), "room.peer");
        assert_eq!(user_of("static"), "static");
    }
}
