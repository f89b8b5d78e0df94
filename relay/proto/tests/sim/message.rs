//! A second reader of what crosses the wire, written from the RFCs and not from the crate, so
//! that the model and the model clients do not share the codec's mistakes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

const HEADER_LEN: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const INTEGRITY: u16 = 0x0008;
const INTEGRITY_SHA256: u16 = 0x001C;
const FINGERPRINT: u16 = 0x8028;

/// What a request may hold (RFC 8489 §18.3, RFC 8656 §18) and this server knows.
const UNDERSTOOD: [u16; 19] = [
    0x06, 0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C,
    0x1D, 0x1E, 0x22,
];

pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;

pub const REQUEST: u8 = 0;
pub const INDICATION: u8 = 1;
pub const SUCCESS: u8 = 2;
pub const ERROR: u8 = 3;

/// A STUN message (RFC 8489 §5), as far as its receiver may look at it.
#[derive(Debug)]
pub struct Stun<'b> {
    bytes: &'b [u8],
    pub method: u16,
    pub class: u8,
    pub id: [u8; 12],
    /// In order, up to the first integrity attribute.
    pub attributes: Vec<(u16, &'b [u8])>,
    /// Offset and value of what protects the message: the better of the two, if both are there.
    pub integrity: Option<(usize, &'b [u8])>,
    pub has_sha1: bool,
    pub has_sha256: bool,
}

impl<'b> Stun<'b> {
    /// `None` for what is to be met with silence.
    pub fn read(bytes: &'b [u8]) -> Option<Self> {
        let whole = bytes.len() >= HEADER_LEN && bytes.len().is_multiple_of(4);
        if !whole
            || bytes[0] >= 0x40
            || bytes[4..8] != COOKIE
            || field(bytes, 2) != bytes.len() - 20
        {
            return None;
        }
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        let mut read = Self {
            bytes,
            method: kind & 0xF | kind >> 1 & 0x70 | kind >> 2 & 0xF80,
            class: u8::from(kind & 0x100 != 0) * 2 + u8::from(kind & 0x10 != 0),
            id: bytes[8..20].try_into().ok()?,
            attributes: Vec::with_capacity(8),
            integrity: None,
            has_sha1: false,
            has_sha256: false,
        };
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            let kind = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let value = bytes.get(at + 4..at + 4 + field(bytes, at + 2))?;
            let next = at + 4 + value.len().next_multiple_of(4);
            if next > bytes.len() {
                return None;
            }
            if kind == FINGERPRINT && next == bytes.len() {
                let wanted = crc32fast::hash(&bytes[..at]) ^ 0x5354_554E;
                if value != wanted.to_be_bytes() {
                    return None;
                }
            }
            match kind {
                INTEGRITY_SHA256 if !read.has_sha256 => {
                    (read.integrity, read.has_sha256) = (Some((at, value)), true);
                }
                INTEGRITY if read.integrity.is_none() => {
                    (read.integrity, read.has_sha1) = (Some((at, value)), true);
                }
                _ if read.integrity.is_none() => read.attributes.push((kind, value)),
                _ => {}
            }
            at = next;
        }
        Some(read)
    }

    /// The first attribute of this type.
    pub fn value(&self, kind: u16) -> Option<&'b [u8]> {
        self.attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// An address XORed with cookie and transaction id (RFC 8489 §14.2).
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.unxor(self.value(kind)?)
    }

    pub fn unxor(&self, value: &[u8]) -> Option<SocketAddr> {
        let mask: Vec<u8> = COOKIE.iter().chain(&self.id).copied().collect();
        let port = u16::try_from(field(value.get(..4)?, 2)).ok()? ^ 0x2112;
        let plain = value[4..].iter().zip(&mask).map(|(byte, mask)| byte ^ mask);
        let plain: Vec<u8> = plain.collect();
        let ip: IpAddr = match (value[1], value.len()) {
            (1, 8) => Ipv4Addr::from(<[u8; 4]>::try_from(&plain[..]).ok()?).into(),
            (2, 20) => Ipv6Addr::from(<[u8; 16]>::try_from(&plain[..]).ok()?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// 0 for a success; an error's code otherwise.
    pub fn code(&self) -> Option<u16> {
        match (self.class, self.value(0x0009)) {
            (SUCCESS, None) => Some(0),
            (ERROR, Some(&[0, 0, class, number])) => {
                Some(u16::from(class) * 100 + u16::from(number))
            }
            _ => None,
        }
    }

    /// Whether `key` made the integrity (RFC 8489 §14.5, §14.6).
    pub fn is_signed_by(&self, key: &[u8]) -> bool {
        let Some((at, value)) = self.integrity else { return false };
        let length = at + 4 + value.len() - HEADER_LEN;
        let Ok(length) = u16::try_from(length) else { return false };
        let parts = [&self.bytes[..2], &length.to_be_bytes(), &self.bytes[4..at]];
        if self.has_sha256 {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes()[..].starts_with(value)
        } else {
            let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("any length is a key");
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes()[..] == *value
        }
    }

    /// Whether the integrity has a length that may be believed.
    pub fn has_whole_integrity(&self) -> bool {
        let length = self.integrity.map_or(0, |(_, value)| value.len());
        let is_cut = (16..=32).contains(&length) && length.is_multiple_of(4);
        if self.has_sha256 { is_cut } else { length == 20 }
    }

    /// Attributes that must be understood (RFC 8489 §14) and are none of TURN's.
    pub fn unknown(&self) -> Vec<u8> {
        let kinds = self.attributes.iter().map(|(kind, _)| *kind);
        let strange = kinds.filter(|kind| *kind < 0x8000 && !UNDERSTOOD.contains(kind));
        strange.flat_map(u16::to_be_bytes).collect()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Number and payload of ChannelData (RFC 8656 §12.4).
pub fn channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let payload = bytes.get(4..)?.get(..field(bytes, 2))?;
    Some((u16::from_be_bytes([bytes[0], bytes[1]]), payload))
}

fn field(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}
