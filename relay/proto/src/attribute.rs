//! Attribute types, and the codecs of those that are more than bytes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::address::Family;
use crate::algorithm::{PasswordAlgorithm, UserHash};
use crate::stun::{FAMILY_V4, FAMILY_V6};

/// RFC 8489 §14.3.
pub const USERNAME: u16 = 0x0006;
/// RFC 8489 §14.5.
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// RFC 8489 §14.8.
pub const ERROR_CODE: u16 = 0x0009;
/// RFC 8489 §14.13.
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
/// RFC 8656 §18.1.
pub const CHANNEL_NUMBER: u16 = 0x000C;
/// RFC 8656 §18.2.
pub const LIFETIME: u16 = 0x000D;
/// RFC 8656 §18.3.
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
/// RFC 8656 §18.4.
pub const DATA: u16 = 0x0013;
/// RFC 8489 §14.9.
pub const REALM: u16 = 0x0014;
/// RFC 8489 §14.10.
pub const NONCE: u16 = 0x0015;
/// RFC 8656 §18.5.
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
/// RFC 8656 §18.6.
pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
/// RFC 8656 §18.7.
pub const EVEN_PORT: u16 = 0x0018;
/// RFC 8656 §18.8.
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
/// RFC 8656 §18.9.
pub const DONT_FRAGMENT: u16 = 0x001A;
/// RFC 8489 §14.6.
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
/// RFC 8489 §14.12.
pub const PASSWORD_ALGORITHM: u16 = 0x001D;
/// RFC 8489 §14.4.
pub const USERHASH: u16 = 0x001E;
/// RFC 8489 §14.2.
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RFC 8656 §18.10.
pub const RESERVATION_TOKEN: u16 = 0x0022;
/// RFC 8656 §18.11.
pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
/// RFC 8656 §18.12.
pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
/// RFC 8489 §14.11.
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
/// RFC 8656 §18.13.
pub const ICMP: u16 = 0x8004;
/// RFC 8489 §14.15.
pub const ALTERNATE_SERVER: u16 = 0x8023;
/// RFC 8489 §14.7.
pub const FINGERPRINT: u16 = 0x8028;

/// Longest USERNAME in bytes (RFC 8489 §14.3).
pub const USERNAME_LEN_MAX: usize = 508;
/// Longest REALM or NONCE in bytes (RFC 8489 §14.9, §14.10).
pub const REALM_LEN_MAX: usize = 763;

/// The protocol number of UDP in REQUESTED-TRANSPORT.
pub const TRANSPORT_UDP: u8 = 17;

/// A receiver that does not know the attribute must refuse the request (RFC 8489 §14).
#[must_use]
pub const fn must_be_understood(kind: u16) -> bool {
    kind < 0x8000
}

/// Names a reserved port (RFC 8656 §18.10).
pub type ReservationToken = [u8; 8];

/// LIFETIME: seconds.
#[must_use]
pub fn lifetime(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// CHANNEL-NUMBER: the number, then two reserved bytes that are ignored.
#[must_use]
pub fn channel_number(value: &[u8]) -> Option<u16> {
    let [high, low, _, _] = *<&[u8; 4]>::try_from(value).ok()?;
    Some(u16::from_be_bytes([high, low]))
}

/// REQUESTED-TRANSPORT: the protocol number, then three reserved bytes.
#[must_use]
pub fn requested_transport(value: &[u8]) -> Option<u8> {
    let [protocol, _, _, _] = *<&[u8; 4]>::try_from(value).ok()?;
    Some(protocol)
}

/// REQUESTED-ADDRESS-FAMILY: the family, then three reserved bytes.
///
/// The outer `None` is a wrong length, the inner one an unknown family.
#[must_use]
pub fn requested_family(value: &[u8]) -> Option<Option<Family>> {
    let [family, _, _, _] = *<&[u8; 4]>::try_from(value).ok()?;
    Some(match family {
        FAMILY_V4 => Some(Family::V4),
        FAMILY_V6 => Some(Family::V6),
        _ => None,
    })
}

/// EVEN-PORT: whether the next port is to be reserved; the other bits are ignored.
#[must_use]
pub fn even_port(value: &[u8]) -> Option<bool> {
    let [bits] = *<&[u8; 1]>::try_from(value).ok()?;
    Some(bits & 0x80 != 0)
}

/// RESERVATION-TOKEN: eight opaque bytes.
#[must_use]
pub fn reservation_token(value: &[u8]) -> Option<ReservationToken> {
    value.try_into().ok()
}

/// PASSWORD-ALGORITHM: a number and the length of its parameters, of which ours have none.
#[must_use]
pub fn password_algorithm(value: &[u8]) -> Option<PasswordAlgorithm> {
    let [high, low, 0, 0] = *<&[u8; 4]>::try_from(value).ok()? else { return None };
    PasswordAlgorithm::from_code(u16::from_be_bytes([high, low]))
}

/// USERHASH: a hash of 32 bytes.
#[must_use]
pub fn user_hash(value: &[u8]) -> Option<UserHash> {
    value.try_into().ok()
}
