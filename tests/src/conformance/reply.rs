//! A strict reader of what servers answer: it shares no code with any of them, and lists every
//! rule that an answer breaks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::attr;
use super::message::{
    COOKIE, Class, DATA_METHOD, HEADER_LEN, Method, covered, fingerprint_of, hmac_sha1, hmac_sha256,
};

/// Longest reason phrase in bytes (RFC 8489 §14.8: fewer than 128 characters, at most 509 bytes).
const REASON_LEN_MAX: usize = 509;

/// One message from a server.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    /// What was asked.
    pub method: Method,
    /// How it was answered.
    pub class: Class,
    attributes: Vec<(u16, usize, Vec<u8>)>,
    /// Rules that the message breaks, in words.
    pub faults: Vec<String>,
}

impl Reply {
    /// Reads one whole message; `None` if it is no STUN at all.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_LEN || bytes[0] & 0xC0 != 0 || bytes[4..8] != COOKIE {
            return None;
        }
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        let method = (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2;
        let class = Class::ALL[usize::from((kind & 0x0100) >> 7 | (kind & 0x0010) >> 4)];
        let mut reply =
            Self { bytes: bytes.to_vec(), method, class, attributes: Vec::new(), faults: vec![] };
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        reply.require(length == bytes.len() - HEADER_LEN, "length field is not the length");
        reply.require(length.is_multiple_of(4), "length is not a multiple of 4");
        reply.walk();
        reply.check_signatures_last();
        reply.check_error_code();
        Some(reply)
    }

    /// The transaction id.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.bytes[8..HEADER_LEN]
    }

    /// The first attribute of this type.
    #[must_use]
    pub fn attribute(&self, kind: u16) -> Option<&[u8]> {
        self.attributes_of(kind).next()
    }

    /// All attributes of this type.
    pub fn attributes_of(&self, kind: u16) -> impl Iterator<Item = &[u8]> {
        let same = self.attributes.iter().filter(move |(found, ..)| *found == kind);
        same.map(|(.., value)| value.as_slice())
    }

    /// Types of all attributes in their order.
    #[must_use]
    pub fn kinds(&self) -> Vec<u16> {
        self.attributes.iter().map(|(kind, ..)| *kind).collect()
    }

    /// The error code, if it is an error.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        let value = self.attribute(attr::ERROR_CODE).filter(|value| value.len() >= 4)?;
        (self.class == Class::Error).then(|| u16::from(value[2] & 7) * 100 + u16::from(value[3]))
    }

    /// The types in UNKNOWN-ATTRIBUTES.
    #[must_use]
    pub fn unknown(&self) -> Vec<u16> {
        let list = self.attribute(attr::UNKNOWN_ATTRIBUTES).unwrap_or_default();
        list.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    /// LIFETIME in seconds.
    #[must_use]
    pub fn lifetime(&self) -> Option<u32> {
        let value = self.attribute(attr::LIFETIME)?.try_into().ok()?;
        Some(u32::from_be_bytes(value))
    }

    /// The first masked address of this type (RFC 8489 §14.2).
    #[must_use]
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.addresses(kind).into_iter().next()
    }

    /// All masked addresses of this type.
    #[must_use]
    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let mask = &self.bytes[4..HEADER_LEN];
        self.attributes_of(kind).filter_map(|value| unmasked(value, mask)).collect()
    }

    /// Whether the last signature is that of `key`; `None` if there is none.
    #[must_use]
    pub fn is_signed(&self, key: &[u8]) -> Option<bool> {
        let signatures = [attr::MESSAGE_INTEGRITY_SHA256, attr::MESSAGE_INTEGRITY];
        let is_signature = |(kind, ..): &&(u16, usize, Vec<u8>)| signatures.contains(kind);
        let (kind, at, value) = self.attributes.iter().rfind(is_signature)?;
        let text = covered(&self.bytes[..*at], value.len());
        let wanted = if *kind == attr::MESSAGE_INTEGRITY {
            hmac_sha1(key, &text)
        } else {
            hmac_sha256(key, &text)
        };
        Some(*value == wanted)
    }

    fn require(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            self.faults.push(otherwise.to_owned());
        }
    }

    fn walk(&mut self) {
        let mut at = HEADER_LEN;
        while at < self.bytes.len() {
            let Some(&[k0, k1, l0, l1]) = self.bytes[at..].first_chunk() else {
                return self.require(false, "bytes behind the last attribute");
            };
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let (start, end) = (at + 4, at + 4 + length.next_multiple_of(4));
            if end > self.bytes.len() {
                return self.require(false, "an attribute overruns the message");
            }
            let padding_is_zero = self.bytes[start + length..end].iter().all(|byte| *byte == 0);
            self.require(padding_is_zero, "padding is not zero");
            let value = self.bytes[start..start + length].to_vec();
            self.attributes.push((u16::from_be_bytes([k0, k1]), at, value));
            at = end;
        }
    }

    /// Behind a signature stand only SHA-256's and FINGERPRINT, behind that nothing
    /// (RFC 8489 §14.5 to §14.7).
    fn check_signatures_last(&mut self) {
        let rank = |kind: &u16| match *kind {
            attr::MESSAGE_INTEGRITY => 1,
            attr::MESSAGE_INTEGRITY_SHA256 => 2,
            attr::FINGERPRINT => 3,
            _ => 0,
        };
        let kinds = self.kinds();
        let ordered = kinds.windows(2).all(|two| {
            let (before, after) = (rank(&two[0]), rank(&two[1]));
            before < after || before == 0
        });
        self.require(ordered, "attributes behind a signature");
        let print = self.attributes.iter().find(|(kind, ..)| *kind == attr::FINGERPRINT);
        let wrong =
            print.is_some_and(|(_, at, value)| *value != fingerprint_of(&self.bytes[..*at]));
        self.require(!wrong, "FINGERPRINT is wrong");
    }

    /// RFC 8489 §14.8; FRM-13.
    fn check_error_code(&mut self) {
        let code = self.attribute(attr::ERROR_CODE).map(<[u8]>::to_vec);
        match (self.class, code) {
            (Class::Error, None) => self.require(false, "error without ERROR-CODE"),
            (Class::Error, Some(value)) => {
                let fits = value.len() >= 4 && (3..=6).contains(&(value[2] & 7)) && value[3] < 100;
                self.require(fits, "ERROR-CODE out of range");
                let reason = value.get(4..).unwrap_or_default();
                let text = std::str::from_utf8(reason).ok();
                let short = text.is_some_and(|text| text.chars().count() < 128);
                self.require(short && reason.len() <= REASON_LEN_MAX, "reason phrase is too long");
            }
            _ => {}
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.class, self.code()) {
            (Class::Success, _) => f.write_str("success")?,
            (Class::Error, Some(420)) => {
                let list: Vec<_> =
                    self.unknown().iter().map(|kind| format!("0x{kind:04X}")).collect();
                let list = if list.is_empty() { "no list".to_owned() } else { list.join(" ") };
                write!(f, "420 ({list})")?;
            }
            (Class::Error, code) => write!(f, "{}", code.unwrap_or_default())?,
            (Class::Indication, _) if self.method == DATA_METHOD => {
                f.write_str("Data indication")?;
            }
            (class, _) => write!(f, "{class:?} of method 0x{:03X}", self.method)?,
        }
        self.faults.iter().try_for_each(|fault| write!(f, "; {fault}"))
    }
}

fn unmasked(value: &[u8], mask: &[u8]) -> Option<SocketAddr> {
    let [_, family, p0, p1, masked @ ..] = value else { return None };
    let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
    let octets: Vec<u8> = masked.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip: IpAddr = match (family, masked.len()) {
        (1, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        (2, 16) => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::super::message::{BINDING, Draft};
    use super::*;

    fn faults(draft: &Draft) -> Vec<String> {
        Reply::read(draft.bytes()).expect("STUN").faults
    }

    #[test]
    fn every_broken_rule_is_listed() {
        let good = Draft::new(BINDING, Class::Success)
            .with(attr::DATA, b"x")
            .integrity(b"key")
            .fingerprint();
        assert_eq!(faults(&good), Vec::<String>::new());
        let padded = good.clone().edited(|bytes| bytes[26] = 1);
        assert_eq!(faults(&padded), ["padding is not zero", "FINGERPRINT is wrong"]);
        let behind = Draft::new(BINDING, Class::Success).integrity(b"key").lifetime(1);
        assert_eq!(faults(&behind), ["attributes behind a signature"]);
        let bare = Draft::new(BINDING, Class::Error);
        assert_eq!(faults(&bare), ["error without ERROR-CODE"]);
        let class_7 = bare.clone().with(attr::ERROR_CODE, &[0, 0, 7, 1]);
        assert_eq!(faults(&class_7), ["ERROR-CODE out of range"]);
        let reason = [&[0, 0, 4, 1][..], &[b'r'; 128]].concat();
        let talkative = bare.with(attr::ERROR_CODE, &reason);
        assert_eq!(faults(&talkative), ["reason phrase is too long"]);
        let short = Draft::new(BINDING, Class::Success).edited(|bytes| bytes[3] = 4);
        assert_eq!(faults(&short), ["length field is not the length"]);
    }

    #[test]
    fn signatures_are_verified_by_the_last_of_them() {
        let both = Draft::new(BINDING, Class::Success)
            .integrity(b"one key")
            .integrity_sha256(b"another", 32);
        let reply = Reply::read(both.bytes()).expect("STUN");
        assert_eq!(reply.is_signed(b"another"), Some(true));
        assert_eq!(reply.is_signed(b"one key"), Some(false));
        let none = Draft::new(BINDING, Class::Success);
        assert_eq!(Reply::read(none.bytes()).expect("STUN").is_signed(b"x"), None);
    }
}
