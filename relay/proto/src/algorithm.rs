//! How a password becomes a key, and how a key protects a message: each in its old and its new
//! form (RFC 8489 §9.2.2, §14.5, §14.6, §18.5).
//!
//! The two choices are independent. Browsers use MD5 for the key and HMAC-SHA1 for the message;
//! a client that has read the list of algorithms in a challenge uses SHA-256 for both.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use md5::Md5;
use sha2::digest::Output;
use sha2::{Digest, Sha256};

use crate::credential::LongTermKey;

/// The value of PASSWORD-ALGORITHMS as this server offers it, the better one first
/// (RFC 8489 §14.11): SHA-256, then MD5, both without parameters.
pub const PASSWORD_ALGORITHMS: [u8; 8] = [0x00, 0x02, 0, 0, 0x00, 0x01, 0, 0];

/// The hash of a user name, as USERHASH carries it (RFC 8489 §14.4).
pub type UserHash = [u8; 32];

/// How a password becomes a key (RFC 8489 §18.5.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PasswordAlgorithm {
    /// What counts where a request names none.
    #[default]
    Md5,
    /// Offered over streams, accepted everywhere.
    Sha256,
}

impl PasswordAlgorithm {
    /// The algorithm of this number in the registry, if it is offered here.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0x0001 => Some(Self::Md5),
            0x0002 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The long-term key of a user: the hash of `username ":" realm ":" password`.
    #[must_use]
    pub fn key(self, username: &str, realm: &str, password: &str) -> Key {
        match self {
            Self::Md5 => Key::Md5(joined::<Md5>(&[username, realm, password]).into()),
            Self::Sha256 => Key::Sha256(joined::<Sha256>(&[username, realm, password]).into()),
        }
    }
}

/// A long-term key. It has no debug form, as it is as good as the password.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Key {
    /// 16 bytes.
    Md5(LongTermKey),
    /// 32 bytes.
    Sha256([u8; 32]),
}

impl Key {
    /// Whether it was made with this algorithm.
    #[must_use]
    pub const fn is_of(&self, algorithm: PasswordAlgorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::Md5(_), PasswordAlgorithm::Md5) | (Self::Sha256(_), PasswordAlgorithm::Sha256)
        )
    }

    /// The key of the HMAC.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Md5(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }
}

/// Which attribute protects a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY, an HMAC-SHA1 of 20 bytes.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256, an HMAC-SHA256 of 16 to 32 bytes.
    Sha256,
}

impl Integrity {
    /// Whether an HMAC of this length may be believed; a shorter one could be guessed.
    #[must_use]
    pub const fn allows_len(self, len: usize) -> bool {
        match self {
            Self::Sha1 => len == 20,
            Self::Sha256 => 16 <= len && len <= 32 && len.is_multiple_of(4),
        }
    }
}

/// What replies are signed with: as the request was, so that its client can read it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Seal {
    /// The user's key.
    pub key: Key,
    /// The attribute.
    pub by: Integrity,
}

/// What stands for the user's name in USERHASH: the hash of `username ":" realm`.
#[must_use]
pub fn user_hash(username: &str, realm: &str) -> UserHash {
    joined::<Sha256>(&[username, realm]).into()
}

/// The hash of the parts with a colon between each two.
pub(crate) fn joined<H: Digest>(parts: &[&str]) -> Output<H> {
    let mut hash = H::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(part.as_bytes());
    }
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with: printf 'user:realm:pass' | md5sum; the same for sha256sum.
    #[test]
    fn keys_are_the_hashes_of_name_realm_and_password() {
        let md5 = PasswordAlgorithm::Md5.key("user", "realm", "pass");
        let sha256 = PasswordAlgorithm::Sha256.key("user", "realm", "pass");
        assert_eq!(hex(md5.as_bytes()), "8493fbc53ba582fb4c044c456bdc40eb");
        assert_eq!(
            hex(sha256.as_bytes()),
            "07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b"
        );
    }

    #[test]
    fn offered_algorithms_are_those_that_are_known() {
        let known: Vec<_> = PASSWORD_ALGORITHMS
            .chunks(4)
            .filter_map(crate::attribute::password_algorithm)
            .collect();
        assert_eq!(known, [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
