//! Who may ask: nonces, long-term credentials, and the proof that a request passed both.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::Now;
use crate::address::{ClientAddr, Transport};
use crate::algorithm::{
    Integrity, Key, PASSWORD_ALGORITHMS, PasswordAlgorithm, Seal, UserHash, user_hash,
};
use crate::attribute as attr;
use crate::credential;
use crate::nonce::{self, Nonces};
use crate::stun::Message;

/// Shortest request that is answered with 401: its reply is twice as long.
const CHALLENGED_LEN_MIN: usize = 28;

/// Whose credentials are believed. Its debug form names the realm only.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Shared secrets of REST credentials; each verifies.
    pub secrets: Vec<Vec<u8>>,
    realm: String,
    users: BTreeMap<String, String>,
    /// Static users by what USERHASH says of them.
    by_hash: BTreeMap<UserHash, String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials of a realm: secrets, and static users with their passwords.
    ///
    /// The realm is told to clients. Above 8 bytes a 401 is longer than twice its request.
    #[must_use]
    pub fn new(realm: String, secrets: Vec<Vec<u8>>, users: BTreeMap<String, String>) -> Self {
        let by_hash = users.keys().map(|name| (user_hash(name, &realm), name.clone())).collect();
        Self { secrets, realm, users, by_hash }
    }

    /// What REALM says.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether every user may come under a hash instead of a name. A REST name is known to nobody
    /// until it is used, and its hash says nothing.
    #[must_use]
    pub fn allows_anonymity(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Whether the name is a REST name whose time is over; static users have no end.
    pub(crate) fn has_expired(&self, now: Now, username: &str) -> bool {
        let is_over = |(expires, _)| now.unix_s > expires;
        !self.users.contains_key(username) && credential::split(username).is_some_and(is_over)
    }

    /// The keys that `username` may sign with, none if it is unknown or has expired.
    fn keys(
        &self,
        now: Now,
        username: &str,
        algorithm: PasswordAlgorithm,
    ) -> Result<Vec<Key>, AuthFailure> {
        if let Some(password) = self.users.get(username) {
            return Ok(vec![algorithm.key(username, &self.realm, password)]);
        }
        credential::split(username).ok_or(AuthFailure::UnknownUser)?;
        if self.has_expired(now, username) {
            return Err(AuthFailure::Expired);
        }
        let key = |secret: &Vec<u8>| credential::rest_key(secret, username, &self.realm, algorithm);
        Ok(self.secrets.iter().map(key).collect())
    }

    /// Whose hash this is: the owner's of the 5-tuple or a static user's.
    fn name_of<'a>(&'a self, hash: &UserHash, owner: Option<&'a Owner>) -> Option<&'a str> {
        let owner = owner.map(|owner| owner.username.as_str());
        let owner = owner.filter(|name| user_hash(name, &self.realm) == *hash);
        owner.or_else(|| self.by_hash.get(hash).map(String::as_str))
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
    pub seal: Seal,
}

impl<R> Authenticated<R> {
    /// The same proof for a part or another form of the request.
    pub fn map<T>(self, change: impl FnOnce(R) -> T) -> Authenticated<T> {
        Authenticated { request: change(self.request), username: self.username, seal: self.seal }
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
    /// Signs, and its key verifies, for as long as the allocation lives.
    pub seal: Seal,
}

/// Checks a request in the order of RFC 8489 §9.2.4; `owner` is the 5-tuple's, if it has one.
///
/// # Errors
/// The reply to be sent: the client's fault, or nobody's where credentials are asked for.
pub fn authenticate<'b>(
    credentials: &Credentials,
    nonces: &mut Nonces,
    owner: Option<&Owner>,
    now: Now,
    client: ClientAddr,
    message: &Message<'b>,
) -> Result<Authenticated<Message<'b>>, Refusal> {
    let Some(by) = message.protection() else {
        return Err(Refusal::plain(if message.size() < CHALLENGED_LEN_MIN { 400 } else { 401 }));
    };
    let parts = [attr::REALM, attr::NONCE].map(|kind| message.attribute(kind));
    let [Some(realm), Some(nonce)] = parts else {
        return Err(Refusal::plain(400));
    };
    let too_long = realm.len() > attr::REALM_LEN_MAX || nonce.len() > attr::REALM_LEN_MAX;
    if too_long || !message.integrity().is_some_and(|value| by.allows_len(value.len())) {
        return Err(Refusal::plain(400));
    }
    let claim = Claim::read(message)?;
    let named = named_algorithm(message, nonce)?;
    let algorithm = named.unwrap_or_default();
    let username = claim.username(credentials, owner).ok_or(AuthFailure::UnknownUser);
    let username = username.map_err(Refusal::failed)?;
    let keys = match owner {
        Some(Owner { username: name, seal }) if name == username && seal.key.is_of(algorithm) => {
            vec![seal.key]
        }
        _ => credentials.keys(now, username, algorithm).map_err(Refusal::failed)?,
    };
    let key = keys.into_iter().find(|key| message.verify(key.as_bytes()));
    let key = key.ok_or(Refusal::failed(AuthFailure::BadMac))?;
    if !nonces.verify(now, client, credentials.allows_anonymity(), nonce) {
        return Err(Refusal::failed(AuthFailure::StaleNonce));
    }
    // RFC 8489 §9.2.4 has MESSAGE-INTEGRITY in the reply where no algorithm was named, else its
    // successor; but nobody is answered with an attribute that the request did not use.
    let by = if named.is_none() && message.has_sha1() { Integrity::Sha1 } else { by };
    Ok(Authenticated { request: *message, username: username.to_owned(), seal: Seal { key, by } })
}

/// Whether challenges over this transport offer password algorithms: not where a reply to an
/// unverified source would be more than twice as long as its request.
pub(crate) fn offers_algorithms(transport: Transport) -> bool {
    transport != Transport::Udp
}

/// Who the request says that it is from: exactly one of USERNAME and USERHASH.
enum Claim<'b> {
    Name(&'b [u8]),
    Hash(UserHash),
}

impl<'b> Claim<'b> {
    fn read(message: &Message<'b>) -> Result<Self, Refusal> {
        let parts = [attr::USERNAME, attr::USERHASH].map(|kind| message.attribute(kind));
        match parts {
            [Some(name), None] if name.len() <= attr::USERNAME_LEN_MAX => Some(Self::Name(name)),
            [None, Some(hash)] => attr::user_hash(hash).map(Self::Hash),
            _ => None,
        }
        .ok_or(Refusal::plain(400))
    }

    fn username<'a>(
        &self,
        credentials: &'a Credentials,
        owner: Option<&'a Owner>,
    ) -> Option<&'a str>
    where
        'b: 'a,
    {
        match self {
            Self::Name(name) => std::str::from_utf8(name).ok(),
            Self::Hash(hash) => credentials.name_of(hash, owner),
        }
    }
}

/// The algorithm that the request names, if it names one. Where algorithms were offered, the
/// whole offer must come back unchanged, or somebody on the way has made it smaller
/// (RFC 8489 §9.2.4).
fn named_algorithm(
    message: &Message<'_>,
    nonce: &[u8],
) -> Result<Option<PasswordAlgorithm>, Refusal> {
    let offer = message.attribute(attr::PASSWORD_ALGORITHMS);
    let named = message.attribute(attr::PASSWORD_ALGORITHM);
    let is_offer_whole = match offer {
        Some(offer) => offer == PASSWORD_ALGORITHMS,
        None => !nonce::offers_algorithms(nonce),
    };
    match (named, offer) {
        (None, None) => Ok(None),
        (Some(named), _) if is_offer_whole => {
            attr::password_algorithm(named).map(Some).ok_or(Refusal::plain(400))
        }
        _ => Err(Refusal::plain(400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_the_name_without_its_expiry() {
        assert_eq!(user_of("1700000000:room.peer"), "room.peer");
        assert_eq!(user_of("static"), "static");
    }
}
