//! From a STUN message to a typed request, or to the exact error.
#![deny(clippy::indexing_slicing)]

use std::net::SocketAddr;

use crate::address::{ChannelNumber, Family};
use crate::attribute::{self as attr, ReservationToken};
use crate::stun::Message;

/// Shortest and default lifetime of an allocation in seconds (RFC 8656 §3.2).
pub const LIFETIME_S_MIN: u32 = 600;
/// Longest lifetime of an allocation in seconds (RFC 8656 §7.2 recommends at most an hour).
pub const LIFETIME_S_MAX: u32 = 3600;

/// Why an authenticated request, or a Binding request, is answered with an error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Invalid {
    /// An error code of RFC 8489 §18.3 or RFC 8656 §19.
    Code(u16),
    /// 420, with the attributes that are not understood.
    Unknown(Vec<u16>),
    /// 300: another server has room (RFC 8489 §10).
    TryAlternate(SocketAddr),
}

/// The client broke the method's rules.
pub const BAD_REQUEST: Invalid = Invalid::Code(400);
/// The peer is forbidden.
pub const FORBIDDEN: Invalid = Invalid::Code(403);
/// No allocation, or already one.
pub const ALLOCATION_MISMATCH: Invalid = Invalid::Code(437);
/// We do not relay this family.
pub const FAMILY_NOT_SUPPORTED: Invalid = Invalid::Code(440);
/// Another user's allocation.
pub const WRONG_CREDENTIALS: Invalid = Invalid::Code(441);
/// Only UDP is relayed.
pub const TRANSPORT_NOT_SUPPORTED: Invalid = Invalid::Code(442);
/// The peer's family is not the allocation's.
pub const FAMILY_MISMATCH: Invalid = Invalid::Code(443);
/// The user has as many allocations as it may.
pub const QUOTA_REACHED: Invalid = Invalid::Code(486);
/// No port, or a table is full.
pub const NO_CAPACITY: Invalid = Invalid::Code(508);

/// Which relayed port the edge shall open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortWish {
    /// Any free one, not to be foretold.
    Any,
    /// An even one (RFC 8656 §18.7).
    Even,
    /// An even one, and the next to be kept for this token.
    EvenAndNext(ReservationToken),
    /// The one that was kept for this token.
    Reserved(ReservationToken),
}

/// Allocate, checked as far as it goes without state (RFC 8656 §7.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allocate {
    /// Family of the relayed address; of the first, if there are to be two.
    pub family: Family,
    /// Whether an address of the other family is wanted too.
    pub additional: bool,
    /// Granted lifetime in seconds.
    pub lifetime_s: u32,
    /// What EVEN-PORT asked for: whether to reserve the next port too.
    pub even_port: Option<bool>,
    /// What RESERVATION-TOKEN named.
    pub token: Option<ReservationToken>,
}

impl Allocate {
    /// # Errors
    /// 400, 440 or 442: the client's fault.
    pub fn parse(message: &Message<'_>) -> Result<Self, Invalid> {
        let transport = message.attribute(attr::REQUESTED_TRANSPORT);
        match transport.and_then(attr::requested_transport).ok_or(BAD_REQUEST)? {
            attr::TRANSPORT_UDP => {}
            _ => return Err(TRANSPORT_NOT_SUPPORTED),
        }
        let even_port = optional(message, attr::EVEN_PORT, attr::even_port)?;
        let token = optional(message, attr::RESERVATION_TOKEN, attr::reservation_token)?;
        let family = optional(message, attr::REQUESTED_ADDRESS_FAMILY, attr::requested_family)?;
        if token.is_some() && (even_port.is_some() || family.is_some()) {
            return Err(BAD_REQUEST);
        }
        let additional =
            optional(message, attr::ADDITIONAL_ADDRESS_FAMILY, attr::requested_family)?;
        let has_rival = token.is_some() || family.is_some() || even_port == Some(true);
        if additional.is_some_and(|additional| has_rival || additional != Some(Family::V6)) {
            return Err(BAD_REQUEST);
        }
        let family = family.unwrap_or(Some(Family::V4)).ok_or(FAMILY_NOT_SUPPORTED)?;
        let lifetime_s = granted(optional(message, attr::LIFETIME, attr::lifetime)?);
        Ok(Self { family, additional: additional.is_some(), lifetime_s, even_port, token })
    }
}

/// Refresh (RFC 8656 §8.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refresh {
    /// Granted lifetime in seconds; 0 closes the allocation.
    pub lifetime_s: u32,
    /// Of the relayed address that is meant; all of them without it.
    pub family: Option<Family>,
}

impl Refresh {
    /// # Errors
    /// 400, or 443 if no allocation can be of that family: the client's fault.
    pub fn parse(message: &Message<'_>) -> Result<Self, Invalid> {
        let family = optional(message, attr::REQUESTED_ADDRESS_FAMILY, attr::requested_family)?;
        let family = family.map(|family| family.ok_or(FAMILY_MISMATCH)).transpose()?;
        let asked = optional(message, attr::LIFETIME, attr::lifetime)?;
        Ok(Self { lifetime_s: if asked == Some(0) { 0 } else { granted(asked) }, family })
    }
}

/// The peers of CreatePermission (RFC 8656 §10.2); at least one.
///
/// # Errors
/// 400: the client's fault.
pub fn permission_peers(message: &Message<'_>) -> Result<Vec<SocketAddr>, Invalid> {
    let peers = message.attributes().filter(|(kind, _)| *kind == attr::XOR_PEER_ADDRESS);
    let peers: Option<Vec<_>> = peers.map(|(_, value)| message.unxor(value)).collect();
    peers.filter(|peers| !peers.is_empty()).ok_or(BAD_REQUEST)
}

/// Number and peer of ChannelBind (RFC 8656 §12.2); `rfc5766` allows numbers up to 0x7FFF.
///
/// # Errors
/// 400: the client's fault.
pub fn channel_bind(
    message: &Message<'_>,
    rfc5766: bool,
) -> Result<(ChannelNumber, SocketAddr), Invalid> {
    let allowed = if rfc5766 { ChannelNumber::new_rfc5766 } else { ChannelNumber::new };
    let number = message.attribute(attr::CHANNEL_NUMBER).and_then(attr::channel_number);
    let number = number.and_then(allowed);
    let peer = message.attribute(attr::XOR_PEER_ADDRESS).and_then(|value| message.unxor(value));
    number.zip(peer).ok_or(BAD_REQUEST)
}

/// Refuses what must be understood and is not (RFC 8489 §6.3.1).
///
/// # Errors
/// 420 with the list: the client's fault.
pub fn check_understood(message: &Message<'_>) -> Result<(), Invalid> {
    const UNDERSTOOD: [u16; 19] = [
        attr::USERNAME,
        attr::MESSAGE_INTEGRITY,
        attr::ERROR_CODE,
        attr::UNKNOWN_ATTRIBUTES,
        attr::CHANNEL_NUMBER,
        attr::LIFETIME,
        attr::XOR_PEER_ADDRESS,
        attr::DATA,
        attr::REALM,
        attr::NONCE,
        attr::XOR_RELAYED_ADDRESS,
        attr::REQUESTED_ADDRESS_FAMILY,
        attr::EVEN_PORT,
        attr::REQUESTED_TRANSPORT,
        attr::MESSAGE_INTEGRITY_SHA256,
        attr::PASSWORD_ALGORITHM,
        attr::USERHASH,
        attr::RESERVATION_TOKEN,
        attr::DONT_FRAGMENT,
    ];
    let strange = |kind: &u16| attr::must_be_understood(*kind) && !UNDERSTOOD.contains(kind);
    let unknown: Vec<u16> = message.attributes().map(|(kind, _)| kind).filter(strange).collect();
    if unknown.is_empty() { Ok(()) } else { Err(Invalid::Unknown(unknown)) }
}

fn granted(asked_s: Option<u32>) -> u32 {
    asked_s.unwrap_or(LIFETIME_S_MIN).clamp(LIFETIME_S_MIN, LIFETIME_S_MAX)
}

/// An attribute that may be absent; 400 if it is there but has not its form.
fn optional<T>(
    message: &Message<'_>,
    kind: u16,
    codec: fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, Invalid> {
    message.attribute(kind).map(|value| codec(value).ok_or(BAD_REQUEST)).transpose()
}
