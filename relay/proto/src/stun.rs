//! STUN messages: a reader that borrows the datagram, a writer that fills a buffer in place.
//!
//! ```text
//!  0                   1                   2                   3
//! +---+-----------------------------+-------------------------------+
//! |0 0|        message type         |  length of the attributes     |
//! +---+-----------------------------+-------------------------------+
//! |                     magic cookie 0x2112A442                     |
//! +-----------------------------------------------------------------+
//! |                     transaction id (96 bits)                    |
//! +-----------------------------------------------------------------+
//! | attribute type | length | value, padded to a multiple of 4 ...  |
//! ```
//! (RFC 8489 §5, §14.)

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use crate::address::Family;
use crate::algorithm::{Integrity, Seal};
use crate::attribute as attr;

/// Length of the STUN header.
pub const HEADER_LEN: usize = 20;
/// The fixed second word of every message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Length of the MESSAGE-INTEGRITY value: an HMAC-SHA1 (RFC 8489 §14.5).
pub const INTEGRITY_LEN: usize = 20;
/// Length of the MESSAGE-INTEGRITY-SHA256 value that is written; what is read may be cut to 16
/// (RFC 8489 §14.6).
pub const INTEGRITY_SHA256_LEN: usize = 32;

const COOKIE: [u8; 4] = MAGIC_COOKIE.to_be_bytes();
const FINGERPRINT_XOR: u32 = 0x5354_554E;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const FINGERPRINT_ATTRIBUTE_LEN: usize = 8;
const COOKIE_PORT: u16 = 0x2112;
pub(crate) const FAMILY_V4: u8 = 0x01;
pub(crate) const FAMILY_V6: u8 = 0x02;

/// Connects a response with its request (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// What a message is about (RFC 8489 §18.2, RFC 8656 §17).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u16)]
pub enum Method {
    /// Which address do you see?
    Binding = 0x001,
    /// Open a relayed port.
    Allocate = 0x003,
    /// Keep it, or close it.
    Refresh = 0x004,
    /// Client to peer, in an indication.
    Send = 0x006,
    /// Peer to client, in an indication.
    Data = 0x007,
    /// Let these peers through.
    CreatePermission = 0x008,
    /// A short form for one peer.
    ChannelBind = 0x009,
}

impl Method {
    const ALL: [Self; 7] = [
        Self::Binding,
        Self::Allocate,
        Self::Refresh,
        Self::Send,
        Self::Data,
        Self::CreatePermission,
        Self::ChannelBind,
    ];

    /// The word for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Allocate => "allocate",
            Self::Refresh => "refresh",
            Self::Send => "send",
            Self::Data => "data",
            Self::CreatePermission => "create_permission",
            Self::ChannelBind => "channel_bind",
        }
    }
}

/// The class bits of the message type (RFC 8489 §5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Class {
    /// Wants an answer.
    Request = 0x000,
    /// Wants none.
    Indication = 0x010,
    /// Answers well.
    Success = 0x100,
    /// Answers ill.
    Error = 0x110,
}

/// The 14 bits of method and class; class bits sit at 0x0110 between those of the method.
const fn message_type(method: Method, class: Class) -> u16 {
    let method = method as u16;
    (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2 | class as u16
}

/// Not a STUN message that may be acted on: silence is the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

/// A message that is whole: cookie, length, attributes and FINGERPRINT were checked.
#[derive(Clone, Copy, Debug)]
pub struct Message<'b> {
    bytes: &'b [u8],
    /// Method, or `None` for one that this server does not know.
    pub method: Option<Method>,
    /// Class.
    pub class: Class,
    /// Offset of the header of MESSAGE-INTEGRITY.
    sha1_at: Option<usize>,
    /// Offset of the header of MESSAGE-INTEGRITY-SHA256.
    sha256_at: Option<usize>,
}

impl<'b> Message<'b> {
    /// Checks a datagram of exactly one message (RFC 8489 §6.3).
    ///
    /// # Errors
    /// Anything that is not well-formed: the other side's fault, to be met with silence.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let (header, attributes) = bytes.split_at_checked(HEADER_LEN).ok_or(Malformed)?;
        let kind = be16(header, 0).ok_or(Malformed)?;
        let length = usize::from(be16(header, 2).ok_or(Malformed)?);
        let whole = length == attributes.len() && length.is_multiple_of(4);
        if kind & 0xC000 != 0 || header.get(4..8) != Some(&COOKIE[..]) || !whole {
            return Err(Malformed);
        }
        let class = match kind & 0x0110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        };
        let method = Method::ALL.into_iter().find(|&method| message_type(method, class) == kind);
        let mut message = Self { bytes, method, class, sha1_at: None, sha256_at: None };
        let mut walk = Walk { bytes, at: HEADER_LEN };
        while let Some(found) = walk.step()? {
            match found.kind {
                attr::MESSAGE_INTEGRITY
                    if message.sha1_at.is_none() && message.sha256_at.is_none() =>
                {
                    message.sha1_at = Some(found.at);
                }
                attr::MESSAGE_INTEGRITY_SHA256 if message.sha256_at.is_none() => {
                    message.sha256_at = Some(found.at);
                }
                // FINGERPRINT counts as the last attribute only (RFC 8489 §14.7).
                attr::FINGERPRINT if walk.at == bytes.len() => {
                    message.check_fingerprint(found)?;
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// The transaction id.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        let id = self.bytes.get(8..HEADER_LEN).and_then(|id| id.try_into().ok());
        id.expect("parse checked the header")
    }

    /// The attributes that count: up to the first integrity attribute, which ends the list
    /// (RFC 8489 §14.5, §14.6).
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'b [u8])> + use<'b> {
        let end = self.sha1_at.or(self.sha256_at).unwrap_or(self.bytes.len());
        let mut walk = Walk { bytes: self.bytes.get(..end).unwrap_or_default(), at: HEADER_LEN };
        std::iter::from_fn(move || {
            walk.step().ok().flatten().map(|found| (found.kind, found.value))
        })
    }

    /// The first attribute of this type.
    #[must_use]
    pub fn attribute(&self, kind: u16) -> Option<&'b [u8]> {
        self.attributes().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// An address attribute that is XORed with cookie and transaction id (RFC 8489 §14.2).
    #[must_use]
    pub fn unxor(&self, value: &[u8]) -> Option<SocketAddr> {
        read_xor_address(value, &self.transaction_id())
    }

    /// Which attribute protects the message: the better one of those present
    /// (RFC 8489 §9.2.4). The other one is not looked at.
    #[must_use]
    pub fn protection(&self) -> Option<Integrity> {
        match (self.sha1_at, self.sha256_at) {
            (_, Some(_)) => Some(Integrity::Sha256),
            (Some(_), None) => Some(Integrity::Sha1),
            (None, None) => None,
        }
    }

    /// Whether there is a MESSAGE-INTEGRITY, even if another attribute protects the message.
    #[must_use]
    pub fn has_sha1(&self) -> bool {
        self.sha1_at.is_some()
    }

    /// The value of the attribute that protects the message, of whatever length.
    #[must_use]
    pub fn integrity(&self) -> Option<&'b [u8]> {
        let mut walk = Walk { bytes: self.bytes, at: self.sha256_at.or(self.sha1_at)? };
        walk.step().ok().flatten().map(|found| found.value)
    }

    /// Whether what protects the message was made with `key`, compared in constant time.
    #[must_use]
    pub fn verify(&self, key: &[u8]) -> bool {
        let (Some(by), Some(value)) = (self.protection(), self.integrity()) else { return false };
        let covered = self.sha256_at.or(self.sha1_at).and_then(|at| self.bytes.get(..at));
        let covered = covered.unwrap_or_default();
        by.allows_len(value.len())
            && match by {
                Integrity::Sha1 => {
                    let mac: Hmac<Sha1> = integrity_mac(covered, key, value.len());
                    mac.verify_slice(value).is_ok()
                }
                Integrity::Sha256 => {
                    let mac: Hmac<Sha256> = integrity_mac(covered, key, value.len());
                    mac.verify_truncated_left(value).is_ok()
                }
            }
    }

    /// Length of the whole message in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn check_fingerprint(&self, found: Found<'b>) -> Result<(), Malformed> {
        let covered = self.bytes.get(..found.at).ok_or(Malformed)?;
        let wanted = crc32fast::hash(covered) ^ FINGERPRINT_XOR;
        if found.value == wanted.to_be_bytes() { Ok(()) } else { Err(Malformed) }
    }
}

/// Whether a payload is itself STUN, such as an ICE check, as RFC 7983 §7 tells it apart.
#[must_use]
pub fn looks_like_stun(payload: &[u8]) -> bool {
    payload.first().is_some_and(|byte| *byte < 4) && payload.get(4..8) == Some(&COOKIE[..])
}

/// The HMAC over `covered`, with the length field as if its own attribute, with a value of
/// `value_len` bytes, were the last one.
fn integrity_mac<M: Mac + KeyInit>(covered: &[u8], key: &[u8], value_len: usize) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    let length = covered
        .len()
        .saturating_sub(HEADER_LEN)
        .saturating_add(ATTRIBUTE_HEADER_LEN)
        .saturating_add(value_len);
    mac.update(covered.get(..2).unwrap_or_default());
    mac.update(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    mac.update(covered.get(4..).unwrap_or_default());
    mac
}

/// One step through the attributes at a time.
struct Walk<'b> {
    bytes: &'b [u8],
    at: usize,
}

#[derive(Clone, Copy)]
struct Found<'b> {
    at: usize,
    kind: u16,
    value: &'b [u8],
}

impl<'b> Walk<'b> {
    fn step(&mut self) -> Result<Option<Found<'b>>, Malformed> {
        let at = self.at;
        if at == self.bytes.len() {
            return Ok(None);
        }
        let rest = self.bytes.get(at..).ok_or(Malformed)?;
        let (kind, length) = (be16(rest, 0).ok_or(Malformed)?, be16(rest, 2).ok_or(Malformed)?);
        let length = usize::from(length);
        let end = length.checked_add(ATTRIBUTE_HEADER_LEN).ok_or(Malformed)?;
        let value = rest.get(ATTRIBUTE_HEADER_LEN..end).ok_or(Malformed)?;
        // Padding must be there, as the message is a multiple of 4 long; its bytes do not matter.
        self.at =
            end.checked_next_multiple_of(4).and_then(|len| at.checked_add(len)).ok_or(Malformed)?;
        if self.at > self.bytes.len() {
            return Err(Malformed);
        }
        Ok(Some(Found { at, kind, value }))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    Some(u16::from_be_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// Writes one message at the end of a buffer.
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    transaction_id: TransactionId,
}

impl<'b> Writer<'b> {
    /// Starts a message; `out` is emptied first and keeps its capacity.
    pub fn new(out: &'b mut Vec<u8>, method: Method, class: Class, id: TransactionId) -> Self {
        out.clear();
        out.extend_from_slice(&message_type(method, class).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&COOKIE);
        out.extend_from_slice(&id);
        Self { out, transaction_id: id }
    }

    /// Adds an attribute; padding is zero.
    #[must_use]
    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("attributes of ours are short");
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an address, XORed (RFC 8489 §14.2).
    #[must_use]
    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let (value, length) = xor_address(address, &self.transaction_id);
        self.attribute(kind, value.get(..length).unwrap_or_default())
    }

    /// Adds an address as it is: XORed with nothing (RFC 8489 §14.1).
    #[must_use]
    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let family = if address.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
        let mut value = vec![0, family];
        value.extend(address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => value.extend(ip.octets()),
            IpAddr::V6(ip) => value.extend(ip.octets()),
        }
        self.attribute(kind, &value)
    }

    /// Adds ERROR-CODE without a reason phrase (RFC 8489 §14.8).
    #[must_use]
    pub fn error_code(self, code: u16) -> Self {
        let number = |part: u16| u8::try_from(part).expect("STUN codes are 300 to 699");
        self.attribute(attr::ERROR_CODE, &[0, 0, number(code / 100), number(code % 100)])
    }

    /// Adds ADDRESS-ERROR-CODE without a reason phrase (RFC 8656 §18.12).
    #[must_use]
    pub fn address_error_code(self, family: Family, code: u16) -> Self {
        let number = |part: u16| u8::try_from(part).expect("STUN codes are 300 to 699");
        let family = if family == Family::V4 { FAMILY_V4 } else { FAMILY_V6 };
        let value = [family, 0, number(code / 100), number(code % 100)];
        self.attribute(attr::ADDRESS_ERROR_CODE, &value)
    }

    /// Adds MESSAGE-INTEGRITY over everything before it (RFC 8489 §14.5).
    #[must_use]
    pub fn integrity(self, key: &[u8]) -> Self {
        let mac: Hmac<Sha1> = integrity_mac(self.out, key, INTEGRITY_LEN);
        self.attribute(attr::MESSAGE_INTEGRITY, &mac.finalize().into_bytes())
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 over everything before it (RFC 8489 §14.6).
    #[must_use]
    pub fn integrity_sha256(self, key: &[u8]) -> Self {
        let mac: Hmac<Sha256> = integrity_mac(self.out, key, INTEGRITY_SHA256_LEN);
        self.attribute(attr::MESSAGE_INTEGRITY_SHA256, &mac.finalize().into_bytes())
    }

    /// Adds the integrity attribute of a seal.
    #[must_use]
    pub fn seal(self, seal: &Seal) -> Self {
        match seal.by {
            Integrity::Sha1 => self.integrity(seal.key.as_bytes()),
            Integrity::Sha256 => self.integrity_sha256(seal.key.as_bytes()),
        }
    }

    /// Adds FINGERPRINT over everything before it (RFC 8489 §14.7).
    #[must_use]
    pub fn fingerprint(self) -> Self {
        set_length(self.out, FINGERPRINT_ATTRIBUTE_LEN);
        let crc = crc32fast::hash(self.out) ^ FINGERPRINT_XOR;
        self.attribute(attr::FINGERPRINT, &crc.to_be_bytes())
    }

    /// Fills the length in; the buffer then holds the message.
    pub fn finish(self) {
        set_length(self.out, 0);
    }
}

/// Sets the length field to what `message` holds behind its header, and `more`.
fn set_length(message: &mut [u8], more: usize) {
    let length = message.len().saturating_sub(HEADER_LEN).saturating_add(more);
    let length = u16::try_from(length).expect("messages of ours are short");
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// What an address is XORed with: cookie and transaction id (RFC 8489 §14.2).
fn mask(id: &TransactionId) -> u128 {
    let mut mask = [0; 16];
    let (cookie, rest) = mask.split_at_mut(4);
    cookie.copy_from_slice(&COOKIE);
    rest.copy_from_slice(id);
    u128::from_be_bytes(mask)
}

/// An XORed address attribute's value: its 20 bytes and how many of them count, 8 or 20.
#[must_use]
pub(crate) fn xor_address(address: SocketAddr, id: &TransactionId) -> ([u8; 20], usize) {
    let mut out = [0; 20];
    let port = address.port() ^ COOKIE_PORT;
    let (family, length) = if address.is_ipv4() { (FAMILY_V4, 8) } else { (FAMILY_V6, 20) };
    let (head, ip) = out.split_at_mut(4);
    let [port_high, port_low] = port.to_be_bytes();
    head.copy_from_slice(&[0, family, port_high, port_low]);
    match address.ip() {
        IpAddr::V4(v4) => {
            let bytes = (v4.to_bits() ^ MAGIC_COOKIE).to_be_bytes();
            ip.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        IpAddr::V6(v6) => ip.copy_from_slice(&(v6.to_bits() ^ mask(id)).to_be_bytes()),
    }
    (out, length)
}

/// Reads an XORed address; `None` unless family and length agree.
fn read_xor_address(value: &[u8], id: &TransactionId) -> Option<SocketAddr> {
    let (head, ip) = value.split_at_checked(4)?;
    let port = be16(head, 2)? ^ COOKIE_PORT;
    let ip: IpAddr = match *head.get(1)? {
        FAMILY_V4 => Ipv4Addr::from(u32::from_be_bytes(ip.try_into().ok()?) ^ MAGIC_COOKIE).into(),
        FAMILY_V6 => Ipv6Addr::from(u128::from_be_bytes(ip.try_into().ok()?) ^ mask(id)).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = *b"transaction1";

    fn binding(build: impl FnOnce(Writer<'_>) -> Writer<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        build(Writer::new(&mut out, Method::Binding, Class::Request, ID)).finish();
        out
    }

    #[test]
    fn message_types_interleave_class_and_method_as_in_rfc_8489() {
        assert_eq!(message_type(Method::Binding, Class::Request), 0x0001);
        assert_eq!(message_type(Method::Binding, Class::Success), 0x0101);
        assert_eq!(message_type(Method::Allocate, Class::Error), 0x0113);
        assert_eq!(message_type(Method::Data, Class::Indication), 0x0017);
    }

    #[test]
    fn addresses_survive_their_xor() {
        for text in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let address: SocketAddr = text.parse().expect("address");
            let bytes = binding(|w| w.xor_address(attr::XOR_PEER_ADDRESS, address));
            let message = Message::parse(&bytes).expect("whole");
            let value = message.attribute(attr::XOR_PEER_ADDRESS).expect("present");
            assert_eq!(message.unxor(value), Some(address));
        }
    }

    #[test]
    fn framing_faults_are_malformed() {
        let good = binding(|w| w.attribute(attr::USERNAME, b"ana").fingerprint());
        assert!(Message::parse(&good).is_ok());
        for cut in 0..good.len() {
            assert!(Message::parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&good[..], &[0; 4]].concat();
        assert!(Message::parse(&longer).is_err(), "longer than its header says");
        for (at, what) in [(0, "top bits"), (3, "length"), (4, "cookie"), (23, "attribute")] {
            let mut bad = good.clone();
            bad[at] ^= 0xC1;
            assert!(Message::parse(&bad).is_err(), "{what}");
        }
        let mut bad = good.clone();
        bad[9] ^= 1;
        assert!(Message::parse(&bad).is_err(), "fingerprint");
    }

    #[test]
    fn attributes_behind_the_integrity_do_not_count() {
        let key = [7; 16];
        let bytes = binding(|w| {
            w.attribute(attr::LIFETIME, &700u32.to_be_bytes())
                .integrity(&key)
                .attribute(attr::LIFETIME, &3000u32.to_be_bytes())
        });
        let message = Message::parse(&bytes).expect("whole");
        assert!(message.verify(&key));
        assert!(!message.verify(&[8; 16]));
        assert_eq!(message.attributes().count(), 1);
        assert_eq!(message.attribute(attr::LIFETIME), Some(&700u32.to_be_bytes()[..]));
    }

    #[test]
    fn integrity_of_another_length_never_verifies() {
        let bytes = binding(|w| w.attribute(attr::MESSAGE_INTEGRITY, &[0; 10]));
        let message = Message::parse(&bytes).expect("whole");
        assert_eq!(message.integrity(), Some(&[0; 10][..]));
        assert!(!message.verify(&[7; 16]));
    }
}
