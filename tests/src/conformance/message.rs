//! Messages made byte by byte, so that they can be wrong in any way a row asks for.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::attr;

/// RFC 8489 §5.
pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// Bytes of a STUN header.
pub const HEADER_LEN: usize = 20;
/// CRC-32 of FINGERPRINT is masked with this (RFC 8489 §14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554E;

/// The 12 bits that say what is asked (RFC 8489 §18.2, RFC 8656 §17, RFC 6062 §6.1).
pub type Method = u16;
/// RFC 8489 §5.
pub const BINDING: Method = 0x001;
/// RFC 8656 §17, as the next five.
pub const ALLOCATE: Method = 0x003;
/// Makes an allocation last, or ends it.
pub const REFRESH: Method = 0x004;
/// Payload to a peer.
pub const SEND: Method = 0x006;
/// Payload from a peer.
pub const DATA_METHOD: Method = 0x007;
/// Permits peers.
pub const CREATE_PERMISSION: Method = 0x008;
/// Binds a channel.
pub const CHANNEL_BIND: Method = 0x009;
/// RFC 6062 §6.1, as the next.
pub const CONNECT: Method = 0x00A;
/// Gives a peer's connection a client's.
pub const CONNECTION_BIND: Method = 0x00B;

/// The two class bits (RFC 8489 §5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers well.
    Success,
    /// Answers ill.
    Error,
}

impl Class {
    /// Every class, in the order of its bits.
    pub const ALL: [Self; 4] = [Self::Request, Self::Indication, Self::Success, Self::Error];

    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0x000,
            Self::Indication => 0x010,
            Self::Success => 0x100,
            Self::Error => 0x110,
        }
    }
}

/// UDP in REQUESTED-TRANSPORT, with the reserved bytes.
pub const UDP: [u8; 4] = [17, 0, 0, 0];
/// IPv4 as an address family attribute.
pub const IPV4: [u8; 4] = [1, 0, 0, 0];
/// IPv6 as an address family attribute.
pub const IPV6: [u8; 4] = [2, 0, 0, 0];

/// What a client knows once it was challenged.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// USERNAME.
    pub username: String,
    /// What the keys are made of.
    pub password: String,
    /// REALM.
    pub realm: String,
    /// NONCE.
    pub nonce: Vec<u8>,
}

impl Session {
    /// The long-term key of the classic algorithm (RFC 8489 §18.5.1.1).
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        Md5::digest(self.joined()).to_vec()
    }

    /// The long-term key of SHA-256 (RFC 8489 §18.5.1.2).
    #[must_use]
    pub fn key_sha256(&self) -> Vec<u8> {
        Sha256::digest(self.joined()).to_vec()
    }

    /// USERHASH (RFC 8489 §14.4).
    #[must_use]
    pub fn user_hash(&self) -> Vec<u8> {
        Sha256::digest(format!("{}:{}", self.username, self.realm)).to_vec()
    }

    fn joined(&self) -> String {
        format!("{}:{}:{}", self.username, self.realm, self.password)
    }
}

/// A message in the making. Every step appends; nothing is checked.
#[derive(Clone, Debug)]
pub struct Draft {
    bytes: Vec<u8>,
    key: Option<Vec<u8>>,
}

impl Draft {
    /// A header with a fresh transaction id.
    #[must_use]
    pub fn new(method: Method, class: Class) -> Self {
        let kind =
            (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2 | class.bits();
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(random().to_be_bytes());
        bytes.extend(&random().to_be_bytes()[..4]);
        Self { bytes, key: None }
    }

    /// A request.
    #[must_use]
    pub fn request(method: Method) -> Self {
        Self::new(method, Class::Request)
    }

    /// Allocate for UDP, which is what most rows start from.
    #[must_use]
    pub fn allocate() -> Self {
        Self::request(ALLOCATE).with(attr::REQUESTED_TRANSPORT, &UDP)
    }

    /// An attribute, padded with zeros.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("attributes of rows are short");
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.fit();
        self
    }

    /// XOR-PEER-ADDRESS (RFC 8656 §18.3).
    #[must_use]
    pub fn peer(self, peer: SocketAddr) -> Self {
        let port = peer.port().to_be_bytes();
        let mut value = vec![0, if peer.is_ipv4() { 1 } else { 2 }];
        value.extend([port[0] ^ COOKIE[0], port[1] ^ COOKIE[1]]);
        let octets = match peer.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        value.extend(octets.iter().zip(&self.bytes[4..HEADER_LEN]).map(|(byte, mask)| byte ^ mask));
        self.with(attr::XOR_PEER_ADDRESS, &value)
    }

    /// LIFETIME in seconds.
    #[must_use]
    pub fn lifetime(self, seconds: u32) -> Self {
        self.with(attr::LIFETIME, &seconds.to_be_bytes())
    }

    /// CHANNEL-NUMBER with its reserved bytes.
    #[must_use]
    pub fn channel(self, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        self.with(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    /// USERNAME, REALM and NONCE, without a signature.
    #[must_use]
    pub fn named(self, session: &Session) -> Self {
        self.with(attr::USERNAME, session.username.as_bytes())
            .with(attr::REALM, session.realm.as_bytes())
            .with(attr::NONCE, &session.nonce)
    }

    /// Everything that a server asks for, signed with the classic key.
    #[must_use]
    pub fn signed(self, session: &Session) -> Self {
        self.named(session).integrity(&session.key())
    }

    /// MESSAGE-INTEGRITY (RFC 8489 §14.5).
    #[must_use]
    pub fn integrity(mut self, key: &[u8]) -> Self {
        let value = hmac_sha1(key, &covered(&self.bytes, 20));
        self.key = Some(key.to_vec());
        self.with(attr::MESSAGE_INTEGRITY, &value)
    }

    /// The first `length` bytes of MESSAGE-INTEGRITY-SHA256, zeros behind the 32 (§14.6).
    #[must_use]
    pub fn integrity_sha256(mut self, key: &[u8], length: usize) -> Self {
        let mut value = hmac_sha256(key, &covered(&self.bytes, length));
        value.resize(length, 0);
        self.key = Some(key.to_vec());
        self.with(attr::MESSAGE_INTEGRITY_SHA256, &value)
    }

    /// FINGERPRINT (RFC 8489 §14.7).
    #[must_use]
    pub fn fingerprint(self) -> Self {
        let value = crc32fast::hash(&covered(&self.bytes, 4)) ^ FINGERPRINT_MASK;
        self.with(attr::FINGERPRINT, &value.to_be_bytes())
    }

    /// The same message with other bytes: what the rows about framing are made of.
    #[must_use]
    pub fn edited(mut self, edit: impl FnOnce(&mut Vec<u8>)) -> Self {
        edit(&mut self.bytes);
        self
    }

    /// What goes onto the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key that the last signature was made with; its answer is signed with it too.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    fn fit(&mut self) {
        let length = u16::try_from(self.bytes.len() - HEADER_LEN).expect("rows are short");
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// ChannelData without padding (RFC 8656 §12.4).
#[must_use]
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("payloads of rows are short");
    [&number.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// What a signature covers: all before it, with a length as if it were the last attribute.
#[must_use]
pub fn covered(before: &[u8], value_len: usize) -> Vec<u8> {
    let mut bytes = before.to_vec();
    let length = before.len() - HEADER_LEN + 4 + value_len.next_multiple_of(4);
    let length = u16::try_from(length).expect("messages are shorter than 64 KiB");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// HMAC of RFC 2104 with SHA-1.
#[must_use]
pub fn hmac_sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha1>::new_from_slice(key).expect("keys have any length");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

/// HMAC of RFC 2104 with SHA-256.
#[must_use]
pub fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("keys have any length");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

/// The CRC that FINGERPRINT carries for these bytes before it.
#[must_use]
pub fn fingerprint_of(before: &[u8]) -> [u8; 4] {
    (crc32fast::hash(&covered(before, 4)) ^ FINGERPRINT_MASK).to_be_bytes()
}

/// A number that no run draws twice: transaction ids must not repeat.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_independent_decoder_reads_and_verifies_what_is_drafted() {
        let session = Session {
            username: "ana".to_owned(),
            password: "secret of a test".to_owned(),
            realm: "castling".to_owned(),
            nonce: b"nonce".to_vec(),
        };
        let draft = Draft::allocate().lifetime(700).signed(&session).fingerprint();
        let mut message =
            stun::message::Message { raw: draft.bytes().to_vec(), ..stun::message::Message::new() };
        message.decode().expect("well formed");
        assert_eq!(message.typ.to_string(), "Allocate request");
        let integrity = stun::integrity::MessageIntegrity::new_long_term_integrity(
            session.username.clone(),
            session.realm.clone(),
            session.password.clone(),
        );
        integrity.check(&mut message).expect("the signature holds");
        stun::fingerprint::FINGERPRINT.check(&message).expect("the checksum holds");
    }

    #[test]
    fn transaction_ids_differ() {
        let ids: std::collections::BTreeSet<_> =
            (0..100).map(|_| Draft::request(BINDING).bytes()[8..20].to_vec()).collect();
        assert_eq!(ids.len(), 100);
    }
}
