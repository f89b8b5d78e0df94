//! REST credentials: mint and check, side by side.
//!
//! `username = <unix expiry>:<user>` and `password = base64(HMAC-SHA1(secret, username))`, the
//! form of draft-uberti-behave-turn-rest-00 that other TURN servers and their users share.
//! `<user>` may be `[<tenant>/]<room>.<peer>`.

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use sha1::Sha1;

use crate::algorithm::{self, Key, PasswordAlgorithm};

/// A long-term key: `MD5(username ":" realm ":" password)` (RFC 8489 §9.2.2).
pub type LongTermKey = [u8; 16];

/// What a TURN client is given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// `<unix expiry>:<user>`.
    pub username: String,
    /// Base64 of the HMAC, 28 characters.
    pub password: String,
}

/// Makes the credential that lets `user` allocate until `expires`, in Unix seconds.
#[must_use]
pub fn mint(secret: &[u8], user: &str, expires: u64) -> Credential {
    let username = format!("{expires}:{user}");
    let password = password(secret, &username);
    Credential { username, password }
}

/// The password that belongs to a REST user name.
#[must_use]
pub fn password(secret: &[u8], username: &str) -> String {
    let mut buffer = [0; PASSWORD_LEN];
    write_password(secret, username, &mut buffer).to_owned()
}

/// Expiry and user of a REST user name, or `None` if it has not that form.
///
/// The expiry is an unsigned decimal of at most 64 bits without sign or leading blank.
#[must_use]
pub fn split(username: &str) -> Option<(u64, &str)> {
    let (expiry, user) = username.split_once(':')?;
    if expiry.is_empty() || user.is_empty() || !expiry.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((expiry.parse().ok()?, user))
}

/// The room of a user, without an expiry: `[<tenant>/]<room>` of `[<tenant>/]<room>.<peer>`. Other
/// users have none.
#[must_use]
pub fn room_of(user: &str) -> Option<&str> {
    user.split_once('.').map(|(room, _)| room)
}

/// The long-term key of a user name, realm and password where no algorithm is named
/// (RFC 8489 §9.2.2).
#[must_use]
pub fn long_term_key(username: &str, realm: &str, password: &str) -> LongTermKey {
    algorithm::joined::<Md5>(&[username, realm, password]).into()
}

/// The long-term key that a REST user name has under `secret`, without heap allocation.
#[must_use]
pub(crate) fn rest_key(
    secret: &[u8],
    username: &str,
    realm: &str,
    algorithm: PasswordAlgorithm,
) -> Key {
    let mut buffer = [0; PASSWORD_LEN];
    algorithm.key(username, realm, write_password(secret, username, &mut buffer))
}

/// Base64 length of a 20-byte HMAC.
const PASSWORD_LEN: usize = 28;

fn write_password<'b>(
    secret: &[u8],
    username: &str,
    buffer: &'b mut [u8; PASSWORD_LEN],
) -> &'b str {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    Base64::encode(&mac.finalize().into_bytes(), buffer).expect("20 bytes are 28 characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_credential_has_the_known_form() {
        // Computed with: printf '1700000000:ana' | openssl dgst -sha1 -hmac north -binary | base64
        let made = mint(b"north", "ana", 1_700_000_000);
        assert_eq!(made.username, "1700000000:ana");
        assert_eq!(made.password, "/V6vMibmvRAPIMy3tyPu2GxFkDI=");
    }

    #[test]
    fn split_takes_only_an_unsigned_expiry_and_a_user() {
        assert_eq!(split("17:room.peer"), Some((17, "room.peer")));
        assert_eq!(split("17:a:b"), Some((17, "a:b")));
        for bad in ["", "17", "17:", ":a", "+17:a", " 17:a", "-1:a", "99999999999999999999:a"] {
            assert_eq!(split(bad), None, "{bad:?}");
        }
    }
}
